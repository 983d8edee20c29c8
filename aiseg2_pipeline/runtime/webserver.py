"""Dagster's webserver behind a door that keeps foreign web pages out.

Dagster's pages have no login and answer whoever asks: any site that is open in the same browser could end and delete
runs (`<img src="http://127.0.0.1:3000/graphql?query=mutation…">`, a form, a WebSocket), and one that gives its own
name this machine's address (DNS rebinding) could read everything as well. So

- a request must ask for this server by an address, as localhost, or by a name of AISEG2_UI_HOST or AISEG2_UI_NAMES;
- what can change something must come from this server's own pages, or from a program, which sends no Origin;
- opening an address changes nothing;
- no other site's page may show these pages within itself.

It is no login: whoever reaches the port may do everything.

    python -m aiseg2_pipeline.runtime.webserver <arguments of dagster-webserver>
"""

import sys
from collections.abc import Collection
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from aiseg2_pipeline.dagster_internals import MissingInternalError, guard_pages
from aiseg2_pipeline.runtime import dagster_tuning
from aiseg2_pipeline.settings import SettingsError, load_settings

LOCAL = "localhost"
ONLY_READS = ("GET", "HEAD", "OPTIONS")
GRAPHQL = "/graphql"


class Door:
    """Lets a request through or refuses it with a sentence.

    `host` is what the server listens on, `names` are those under which a proxy shows it.
    """

    def __init__(self, app: ASGIApp, *, host: str, names: Collection[str] = ()) -> None:
        """Take the names as the settings have them."""
        self._app = app
        self._names = {name.lower() for name in names}
        self._known = self._names | {LOCAL, host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a WebSocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self._refusal(scope)
        if refused is None:
            await self._app(scope, receive, _unframed(send))
        elif scope["type"] == "websocket":
            await WebSocketClose()(scope, receive, send)
        else:
            status, sentence = refused
            await PlainTextResponse(f"{sentence}\n", status)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = _name(f"//{host}")
        # Another site can have its name, but no address.
        if name not in self._known and not _is_address(name):
            sentence = (
                f"These pages are not served as {name!a}: ask for them by this machine's address, or add the name to "
                "AISEG2_UI_NAMES and start the pipeline again."
            )
            return HTTPStatus.MISDIRECTED_REQUEST, sentence
        if scope.get("method") in ONLY_READS:
            # Where a browser opens it, it is a page to write queries on.
            if scope["path"] == GRAPHQL and "text/html" not in headers.get("accept", ""):
                return HTTPStatus.METHOD_NOT_ALLOWED, f"{GRAPHQL} takes POST only: send the query in its body."
            return None
        origin = headers.get("origin")
        from_here = origin is None or origin.partition("://")[2].lower() == host.lower()
        if from_here or _name(str(origin)) in self._names:
            return None
        sentence = (
            f"This request comes from a page of {origin!a}, which is none of this server's: where a proxy shows these pages under "
            "that name, add the name to AISEG2_UI_NAMES and start the pipeline again."
        )
        return HTTPStatus.FORBIDDEN, sentence


def _name(address: str) -> str:
    """Return the lower-case host of an address without its port; empty where it is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unframed(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["X-Frame-Options"] = "SAMEORIGIN"
        await send(message)

    return sending


def main() -> None:
    """Serve until the process is ended."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(f"Error: {error}")
    sys.argv.insert(1, "dagster_webserver")
    try:
        guard_pages(lambda app: Door(app, host=settings.ui_host, names=settings.ui_names))
        dagster_tuning.main()
    except MissingInternalError as error:
        sys.exit(
            f"Error: Dagster's pages are not served, because other web pages cannot be kept from them ({error}): install the "
            "pipeline's own versions again."
        )


if __name__ == "__main__":
    main()
