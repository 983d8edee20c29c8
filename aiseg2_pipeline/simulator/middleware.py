"""The middleware of every request: count it, delay it, check the login, and inject a fault.

What a page shows, and the faults that change it, belong in `device` and the pages; which request gets which fault
belongs in `faults`, the login itself in `login`.
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

from aiseg2_pipeline.simulator.faults import BEFORE_THE_LOGIN, ON_ANY_PAGE, ActiveFaults, Fault, InjectedFault
from aiseg2_pipeline.simulator.login import Answer, DigestLogin

# The scope's key for the server's function that drops one or (`is_all`) every connection.
HANG_UP = "aiseg2_hang_up"
# The scope's key for the fault (`InjectedFault`) that the page itself has to show.
FAULT = "aiseg2_fault"

NOT_FOUND = b"<html><body><h1>404 Not Found</h1></body></html>\n"
_UNAUTHORIZED = b"<html><body><h1>401 Unauthorized</h1></body></html>\n"
_ERRORS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}
_UNRELATED_PAGES = (
    b"<html><body><h1>Error</h1><p>Please wait, and try again.</p></body></html>\n",
    b'<html><body><form method="post"><input name="user" /><input name="password" /></form></body></html>\n',
)
# They are requested with the original query, so that a graph is replaced by another graph of the same day.
_OTHER_PATHS = (
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
    """Count the requests per path (without the query), all responses with 401, and the injected faults.

    CLOCK_OFF is counted once per page that showed a wrong clock, every other fault once per request.
    """

    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)


class RequestMiddleware:
    """Count, delay and authenticate each request, and inject faults.

    `page_faults` returns the faults that only the page of a scope can show.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        login: DigestLogin,
        latency_s: float,
        tally: Tally,
        active_faults: ActiveFaults,
        page_faults: Callable[[Scope], Collection[Fault]],
    ) -> None:
        """Wrap `app`."""
        self._app = app
        self._login = login
        self._latency_s = latency_s
        self._tally = tally
        self._active_faults = active_faults
        self._page_faults = page_faults
        self._booted_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one HTTP request, correctly or with an injected fault."""
        if time.monotonic() < self._booted_at:
            await _hang_up(scope)
            return
        self._tally.requests[scope["path"]] += 1
        await asyncio.sleep(self._latency_s)
        authorization = Request(scope).headers.get("authorization", "")
        answer = self._login.check(scope["method"], _target(scope), authorization)
        if answer is Answer.WELCOME:
            fault = self._active_faults.draw(ON_ANY_PAGE | set(self._page_faults(scope)))
            page = self._app
        else:
            fault = self._active_faults.draw(BEFORE_THE_LOGIN)
            page = self._refusal(is_stale=answer is Answer.STALE)
        if fault:
            self._tally.faults[fault.kind] += 1
            page, scope, send = await self._inject(fault, page, scope, send, authorization)
        await page(scope, receive, send)

    async def _inject(
        self, fault: InjectedFault, page: ASGIApp, scope: Scope, send: Send, authorization: str
    ) -> tuple[ASGIApp, Scope, Send]:
        """Return the application that responds in place of `page`, and what to call it with."""
        match fault.kind:
            case Fault.UNAUTHORIZED:
                page = self._refusal(is_stale=False)
            case Fault.STALE_NONCE:
                self._login.forget(authorization)
                page = self._refusal(is_stale=True)
            case Fault.NOT_FOUND:
                page = html(NOT_FOUND, 404)
            case Fault.SERVER_ERROR:
                status = fault.choose(sorted(_ERRORS))
                page = html(f"<html><body><h1>{status} {_ERRORS[status]}</h1></body></html>\n".encode(), status)
            case Fault.SLOW:
                # Delay before the page is made, so that it shows the moment at which it is sent.
                await asyncio.sleep(fault.faults.slow_s)
            case Fault.CUT | Fault.TRUNCATED:
                send = _shortened(send, fault)
            case Fault.UNRELATED:
                errors: list[ASGIApp] = [html(body) for body in _UNRELATED_PAGES]
                paths = _OTHER_PATHS if page is self._app else ()
                others = [_page_at(path, page) for path in paths if path != scope["path"]]
                page = fault.choose([*errors, *others])
            case Fault.REBOOTED:
                self._booted_at = time.monotonic() + fault.faults.reboot_s
                self._login.forget_all()
                page = _drop_all_connections
            case _:
                scope = {**scope, FAULT: fault}
        return page, scope, send

    def _refusal(self, *, is_stale: bool) -> Response:
        self._tally.refused += 1
        refusal = html(_UNAUTHORIZED, 401)
        refusal.headers["WWW-Authenticate"] = self._login.challenge(is_stale=is_stale)
        return refusal


def html(body: bytes, status: int = 200) -> Response:
    """Return a response with the device's content type."""
    return Response(body, status, media_type="text/html; charset=UTF-8")


def _target(scope: Scope) -> str:
    path: str = scope["raw_path"].decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _page_at(path: str, app: ASGIApp) -> ASGIApp:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "method": "GET", "path": path, "raw_path": path.encode()}, receive, send)

    return page


async def _drop_all_connections(scope: Scope, _: Receive, __: Send) -> None:
    await _hang_up(scope, is_all=True)


async def _hang_up(scope: Scope, *, is_all: bool = False) -> None:
    scope[HANG_UP](is_all=is_all)
    # Let the server notice the closed connection before it reports the missing response.
    await asyncio.sleep(0)


def _shortened(send: Send, fault: InjectedFault) -> Send:
    """Cut a response at a random byte; TRUNCATED declares the length that is left, CUT the original one."""
    is_cut = fault.kind is Fault.CUT
    start: Message = {}

    async def shortened(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
            return
        body = message["body"]  # all of it: no page is streamed
        # Half of them end within a number, because the rest of a number is a valid number as well.
        within = [match.start() for match in _WITHIN_A_NUMBER.finditer(body)]
        if within and fault.random("ends within a number") < 0.5:
            body = body[: fault.choose(within)]
        else:
            body = body[: int(fault.random("length") * len(body))]
        if not is_cut:
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            start["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        await send(start)
        # The server closes a connection when the body is shorter than declared.
        await send({"type": "http.response.body", "body": body, "more_body": is_cut})

    return shortened
