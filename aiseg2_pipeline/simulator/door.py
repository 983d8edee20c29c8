"""The unit's door: every request is counted, waits, shows its login, and may meet a fault, before a page is looked at.

What a page shows is the pages' own, and so are the faults that change what it shows; which fault a request meets
belongs in `faults`, what a login is in `login`.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiseg2_pipeline.simulator.faults import BEFORE_THE_LOGIN, ON_ANY_PAGE, Drawn, Fault, Switch
from aiseg2_pipeline.simulator.login import Answer, DigestLogin

# Where a server puts into the scope how to drop a connection: a function of `is_all`.
HANG_UP = "aiseg2_hang_up"
# Where a page finds the fault (`Drawn`) that is its own to do.
FAULT = "aiseg2_fault"

NOT_FOUND = b"<html><body><h1>404 Not Found</h1></body></html>\n"
_UNAUTHORIZED = b"<html><body><h1>401 Unauthorized</h1></body></html>\n"
_ERRORS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}
_OTHERS = (
    b"<html><body><h1>Error</h1><p>Please wait, and try again.</p></body></html>\n",
    b'<html><body><form method="post"><input name="user" /><input name="password" /></form></body></html>\n',
)
# With the address's own query, so that a graph takes the place of another graph of the same day.
_OTHER_PAGES = (
    "/page/electricflow/111",
    "/page/electricflow/1113",
    "/page/setting/installation/734",
    "/page/airenvironment/41",
    "/page/graph/52111",
    "/page/graph/53111",
    "/set/exectop2.cgi",
)


_WITHIN_A_NUMBER = re.compile(rb"(?<=[0-9])[0-9.]")


@dataclass
class Tally:
    """How many requests came for each path (without the query), how many in all were answered with 401, what faults were done.

    CLOCK_OFF is counted for each page that showed a wrong clock, all others once for each request that met them.
    """

    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)


class Door:
    """Counts, waits, and asks for the login before anything else is looked at.

    `page_faults` tells which faults of its own the page of a scope can show now.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        login: DigestLogin,
        latency_s: float,
        tally: Tally,
        switch: Switch,
        page_faults: Callable[[Scope], Collection[Fault]],
    ) -> None:
        """Stand before `app`."""
        self._app = app
        self._login = login
        self._latency_s = latency_s
        self._tally = tally
        self._switch = switch
        self._page_faults = page_faults
        self._starts_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, rightly or with the fault that it meets."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if time.monotonic() < self._starts_at:
            await _hang_up(scope)
            return
        self._tally.requests[scope["path"]] += 1
        await asyncio.sleep(self._latency_s)
        authorization = Request(scope).headers.get("authorization", "")
        answer = self._login.check(scope["method"], _target(scope), authorization)
        if answer is Answer.WELCOME:
            drawn = self._switch.draw(ON_ANY_PAGE | set(self._page_faults(scope)))
            page = self._app
        else:
            drawn = self._switch.draw(BEFORE_THE_LOGIN)
            page = self._refusal(is_stale=answer is Answer.STALE)
        if drawn is None:
            await page(scope, receive, send)
            return
        self._tally.faults[drawn.kind] += 1
        await self._go_wrong(drawn, page, authorization)(scope, receive, send)

    def _go_wrong(  # noqa: PLR0911 - one for each kind
        self, drawn: Drawn, page: ASGIApp, authorization: str
    ) -> ASGIApp:
        """Return what answers in place of `page`."""
        match drawn.kind:
            case Fault.UNAUTHORIZED:
                return self._refusal(is_stale=False)
            case Fault.STALE_NONCE:
                self._login.forget(authorization)
                return self._refusal(is_stale=True)
            case Fault.NOT_FOUND:
                return html(NOT_FOUND, 404)
            case Fault.SERVER_ERROR:
                status = drawn.one_of(sorted(_ERRORS))
                return html(f"<html><body><h1>{status} {_ERRORS[status]}</h1></body></html>\n".encode(), status)
            case Fault.SLOW:
                return _late(page, drawn.faults.slow_s)
            case Fault.CUT | Fault.TRUNCATED:
                return _shortened(page, drawn)
            case Fault.UNRELATED:
                return _unrelated(page, drawn, has_pages=page is self._app)
            case Fault.REBOOTED:
                return self._reboot(drawn.faults.reboot_s)
            case _:
                return _with_fault(page, drawn)

    def _refusal(self, *, is_stale: bool) -> Response:
        self._tally.refused += 1
        refusal = html(_UNAUTHORIZED, 401)
        refusal.headers["WWW-Authenticate"] = self._login.challenge(is_stale=is_stale)
        return refusal

    def _reboot(self, takes_s: float) -> ASGIApp:
        async def app(scope: Scope, _: Receive, __: Send) -> None:
            self._starts_at = time.monotonic() + takes_s
            self._login.forget_all()
            await _hang_up(scope, is_all=True)

        return app


def html(body: bytes, status: int = 200) -> Response:
    """Return an answer as the unit heads it."""
    return Response(body, status, media_type="text/html; charset=UTF-8")


def _target(scope: Scope) -> str:
    path: str = scope["raw_path"].decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


async def _hang_up(scope: Scope, *, is_all: bool = False) -> None:
    scope[HANG_UP](is_all=is_all)
    # The server notices before it misses an answer.
    await asyncio.sleep(0)


def _late(page: ASGIApp, takes_s: float) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        # First wait, then look: what comes is of the moment in which it comes.
        await asyncio.sleep(takes_s)
        await page(scope, receive, send)

    return app


def _with_fault(page: ASGIApp, drawn: Drawn) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await page({**scope, FAULT: drawn}, receive, send)

    return app


def _unrelated(page: ASGIApp, drawn: Drawn, *, has_pages: bool) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        others: list[str | bytes] = list(_OTHERS)
        if has_pages:
            others += [path for path in _OTHER_PAGES if path != scope["path"]]
        other = drawn.one_of(others)
        if isinstance(other, bytes):
            await html(other)(scope, receive, send)
        else:
            await page({**scope, "method": "GET", "path": other, "raw_path": other.encode()}, receive, send)

    return app


def _shortened(page: ASGIApp, drawn: Drawn) -> ASGIApp:
    """Return the page up to a byte that chance picks; TRUNCATED says how long it is then, CUT how long it should be."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await page(scope, receive, keep)
        start, *parts = messages
        body = b"".join(part.get("body", b"") for part in parts)
        # Half of them end within a number: what is left of it is a number too.
        within = [match.start() for match in _WITHIN_A_NUMBER.finditer(body)]
        if within and drawn.share("ends within a number") < 0.5:
            body = body[: drawn.one_of(within)]
        else:
            body = body[: int(drawn.share("length") * len(body))]
        is_cut = drawn.kind is Fault.CUT
        if not is_cut:
            others = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            start["headers"] = [*others, (b"content-length", str(len(body)).encode())]
        await send(start)
        # A server closes the connection on which more was announced than comes.
        await send({"type": "http.response.body", "body": body, "more_body": is_cut})

    return app
