"""A middleware before Dagster's pages that refuses requests of other web sites.

Dagster's pages have no login and answer any request: a site open in the same browser could end and delete runs
(`<img src="http://127.0.0.1:3000/graphql?query=mutation…">`, a form, a WebSocket), and a site whose own name resolves
to this machine's address (DNS rebinding) could also read everything. So

- a request must name this server by an address, as localhost, or by a name of AISEG2_UI_HOST or AISEG2_UI_NAMES;
- a request that can change something must come from this server's own pages, or from a program, which sends no Origin;
- a GET request changes nothing;
- no other site can show these pages in a frame.

It is no login: anyone who reaches the port may do everything.
"""

from collections.abc import Collection, Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from aiseg2_pipeline.dagster_internals import MissingInternalError
from aiseg2_pipeline.same_site import SameSite, hostname
from aiseg2_pipeline.settings import Settings

READ_ONLY = ("GET", "HEAD", "OPTIONS")
GRAPHQL = "/graphql"


class SameSiteMiddleware:
    """Refuse the requests of other web sites with a sentence, and pass on all others.

    `host` is the address that the server listens on; `names` are those under which a proxy serves it.
    """

    def __init__(self, app: Starlette, *, host: str, names: Collection[str] = ()) -> None:
        """Guard `app`."""
        self._app = app
        self._site = SameSite(host, names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request or a WebSocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, _without_frames(send))
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            status, sentence = refusal
            await PlainTextResponse(f"{sentence}\n", status)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._site.serves(host):
            return HTTPStatus.MISDIRECTED_REQUEST, (
                f"These pages are not served as {hostname(f'//{host}')!a}: open them by this machine's address, or add the name to "
                "AISEG2_UI_NAMES and start the pipeline again."
            )
        if scope.get("method") in READ_ONLY:
            # A browser that opens /graphql gets the query editor.
            if _route(self._app.routes, scope) == GRAPHQL and "text/html" not in headers.get("accept", ""):
                return HTTPStatus.METHOD_NOT_ALLOWED, f"{GRAPHQL} takes POST only: send the query in its body."
            return None
        origin = headers.get("origin")
        if self._site.is_own(origin, host):
            return None
        return HTTPStatus.FORBIDDEN, (
            f"This request comes from a page of {origin!a}, which is another site: where a proxy serves these pages under "
            "that name, add the name to AISEG2_UI_NAMES and start the pipeline again."
        )


def _route(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Return the path of the route that serves a request, without the prefix that it is mounted under."""
    for route in routes:
        match, inner = route.matches(scope)
        if match == Match.FULL:
            return (
                _route(route.routes, {**scope, **inner})
                if isinstance(route, Mount)
                else getattr(route, "path", "")
            )
    return ""


def _without_frames(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return sending


def guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Put Dagster's app behind the middleware. Raise MissingInternalError."""
    if not isinstance(app, Starlette):
        raise MissingInternalError("the app of this Dagster has no routes")
    return SameSiteMiddleware(app, host=settings.ui_host, names=settings.ui_names)
