"""Serve Dagster's pages, which are imported when somebody first opens them.

They take 70 MB, most of it the GraphQL schema, and on most days nobody looks at them. So this process listens at their
address at once, and imports them when the first connection arrives, which is answered some seconds later.

    python -m aiseg2_pipeline.runtime.webserver <arguments of dagster-webserver>
"""

import select
import socket
import sys

from aiseg2_pipeline.dagster_internals import MissingInternalError, guard_pages
from aiseg2_pipeline.runtime import dagster_tuning
from aiseg2_pipeline.settings import Settings, SettingsError, load_settings

_listeners: list[socket.socket] = []


def prepare() -> None:
    """Listen at the address of the pages."""
    _listeners[:] = _listen(_settings())


def serve() -> None:
    """Wait for the first connection, then serve the pages behind the middleware until the process is ended."""
    select.select(_listeners, [], [])
    from aiseg2_pipeline.runtime.middleware import guarded  # noqa: PLC0415 - with Starlette

    settings = _settings()
    sys.argv.insert(1, "dagster_webserver")
    try:
        guard_pages(lambda app: guarded(app, settings), _listeners)
        dagster_tuning.prepare()
        dagster_tuning.serve()
    except MissingInternalError as error:
        sys.exit(
            f"Error: Dagster's pages are not served, because they cannot be protected from other web sites ({error}): install "
            "the pipeline's own versions again."
        )


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        sys.exit(f"Error: {error}")


def _listen(settings: Settings) -> list[socket.socket]:
    """Listen at each address of the host, as Uvicorn does."""
    host, port = settings.ui_host, settings.ui_port
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [
            socket.create_server(address[:2], family=family, backlog=socket.SOMAXCONN)
            for family, *_, address in dict.fromkeys(addresses)
        ]
    except OSError as error:
        sys.exit(
            f"Error: Dagster's pages cannot listen at {host}, port {port} ({error.strerror}): set AISEG2_UI_PORT to another one."
        )


def main() -> None:
    """Prepare and serve."""
    prepare()
    serve()


if __name__ == "__main__":
    main()
