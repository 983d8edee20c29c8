"""Who may see the page: host names and origins, the login, and the headers that keep other sites out.

Without AISEG2_PAGE_PASSWORD everyone who reaches the port may look; nobody can change anything. With it, a person logs in
once (a signed cookie), and a script with every request (HTTP Basic, any user name).
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aiseg2_pipeline.same_site import SameSite, hostname
from aiseg2_pipeline.settings import Settings

LOGIN, API, STATIC = "/login", "/api/", "/static/"
# What a browser fetches without the cookie: the login page's own files, and a phone's home screen.
OPEN = (LOGIN, STATIC, "/manifest.webmanifest", "/favicon.ico", "/apple-touch-icon.png")
COOKIE, LASTS_S = "aiseg2_page", 90 * 86_400
MOST_BODY_BYTES = 4096
KEY_ROUNDS = 200_000
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """A middleware that passes on the requests of those who may see the page, and refuses all others with a sentence."""

    def __init__(self, app: ASGIApp, *, settings: Settings, login: "Login | None") -> None:
        """Guard `app`; `login` is None where no password is set."""
        self._app, self._login = app, login
        self._site = SameSite(settings.page_host, settings.page_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        refusal = self._refused(scope) or await self._without_login(scope, receive)
        await (refusal or self._app)(scope, receive, _with_headers(send, scope))

    def _refused(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        host = headers.get("host", "")
        if not self._site.serves(host):
            return refusal(
                path,
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This page is not served as {hostname(f'//{host}')!a}: open it by this machine's address, or add the name to "
                "AISEG2_PAGE_NAMES and start the pipeline again.",
            )
        if scope["method"] not in ("GET", "HEAD") and (scope["method"], path) != ("POST", LOGIN):
            return refusal(
                path, HTTPStatus.METHOD_NOT_ALLOWED, "Nothing can be changed here: only GET and HEAD are answered."
            )
        is_foreign = headers.get("sec-fetch-site") == "cross-site" and path.startswith(API)
        if is_foreign or (scope["method"] == "POST" and not self._site.is_own(headers.get("origin"), host)):
            return refusal(
                path,
                HTTPStatus.FORBIDDEN,
                "This request comes from another site: where a proxy serves this page under that name, add the name to "
                "AISEG2_PAGE_NAMES and start the pipeline again.",
            )
        return None

    async def _without_login(self, scope: Scope, receive: Receive) -> Response | None:
        path = scope["path"]
        if self._login is None or any(path.startswith(one) if one.endswith("/") else path == one for one in OPEN):
            return None
        return await self._login.missing(Request(scope, receive))


class Login:
    """The login with the page's password. Wrong passwords make their sender wait longer and longer."""

    def __init__(self, password: str, clock: Callable[[], float] = time.time) -> None:
        """Accept this password."""
        self._password = password.encode()
        # Slow, so that a cookie does not help to guess the password. Another password ends all logins.
        self._key = hashlib.pbkdf2_hmac("sha256", self._password, b"aiseg2-pipeline page", KEY_ROUNDS)
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}

    async def missing(self, request: Request) -> Response | None:
        """Return the answer to a request without a valid login; None with one."""
        if self._is_signed(request.cookies.get(COOKIE, "")):
            return None
        path = request.url.path
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            status, sentence = await self.check(request, _password_of(credentials))
            return None if status is HTTPStatus.OK else _asking(request, status, sentence)
        if not path.startswith(API):
            wanted = path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}", HTTPStatus.SEE_OTHER)
        return _asking(
            request, HTTPStatus.UNAUTHORIZED, "Log in first: open the page, or send the password by HTTP Basic."
        )

    async def check(self, request: Request, password: bytes) -> tuple[HTTPStatus, str]:
        """Return OK for the right password, else a status and a sentence, after a delay that grows with each failure."""
        sender = _sender(request)
        count, until = self._failures.get(sender, (0, 0.0))
        now = self._clock()
        if now < until:
            return (
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many wrong passwords: wait {until - now:.0f} s, then try again.",
            )
        if hmac.compare_digest(password, self._password):
            self._failures.pop(sender, None)
            return HTTPStatus.OK, ""
        count += 1
        while len(self._failures) >= MOST_SENDERS:
            self._failures.pop(next(iter(self._failures)))
        self._failures.pop(sender, None)
        self._failures[sender] = count, now + min(LONGEST_WAIT_S, 2.0 ** (count - FREE_FAILURES) * 1.0)
        await asyncio.sleep(WRONG_S)
        return HTTPStatus.UNAUTHORIZED, "The password is wrong: it is that of AISEG2_PAGE_PASSWORD."

    async def answer(self, request: Request, page: Callable[[str, int], Response]) -> Response:
        """Answer the login page's form; `page` returns the page with a sentence."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BODY_BYTES:
                return page("The password is wrong: it is that of AISEG2_PAGE_PASSWORD.", HTTPStatus.UNAUTHORIZED)
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8, keep_blank_values=True)
        status, sentence = await self.check(request, fields.get("password", [""])[0].encode())
        if status is not HTTPStatus.OK:
            return page(sentence, status)
        answer = RedirectResponse(_own_path(request.query_params.get("next", "/")), HTTPStatus.SEE_OTHER)
        answer.set_cookie(
            COOKIE,
            self._signed(int(self._clock() + LASTS_S)),
            max_age=LASTS_S,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    def _signed(self, until_s: int) -> str:
        return f"{until_s}.{hmac.new(self._key, str(until_s).encode(), 'sha256').hexdigest()}"

    def _is_signed(self, cookie: str) -> bool:
        until, _, _ = cookie.partition(".")
        if not (until.isascii() and until.isdecimal() and len(until) <= len("9999999999")):
            return False
        return hmac.compare_digest(cookie.encode(), self._signed(int(until)).encode()) and self._clock() < int(
            until
        )


# After so many wrong passwords, their sender waits 1, 2, 4 s and so on.
FREE_FAILURES, LONGEST_WAIT_S, WRONG_S = 5, 300.0, 0.5
MOST_SENDERS = 1000


def refusal(path: str, status: HTTPStatus, sentence: str) -> Response:
    """Return a refusal: JSON under /api, else text."""
    if path.startswith(API):
        return JSONResponse({"error": sentence}, status)
    return PlainTextResponse(f"{sentence}\n", status)


def _asking(request: Request, status: HTTPStatus, sentence: str) -> Response:
    answer = refusal(request.url.path, status, sentence)
    # A browser that gets this for a script of the page would ask for the password itself.
    if "sec-fetch-mode" not in request.headers and status is HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Basic realm="aiseg2-pipeline", charset="UTF-8"'
    return answer


def _password_of(credentials: str) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return b""


def _own_path(path: str) -> str:
    """Return a path of this page to go on to; never another site's."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_own else "/"


def _sender(request: Request) -> str:
    """Return the address of a request's sender; of IPv6 the network, in which a sender has many addresses."""
    address = request.client.host if request.client else ""
    return ":".join(address.split(":")[:4]) if ":" in address else address


def _with_headers(send: Send, scope: Scope) -> Send:
    path, query = scope["path"], scope["query_string"]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers["Date"] = formatdate(usegmt=True)
            if path.startswith(API):
                headers["Cache-Control"] = "no-store"
            else:
                is_versioned = path.startswith(STATIC) and query
                headers.setdefault(
                    "Cache-Control", "public, max-age=31536000, immutable" if is_versioned else "no-cache"
                )
        await send(message)

    return sending
