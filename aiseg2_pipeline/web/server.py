"""Serve the page until the process is ended. It logs sentences for people, and no request."""

import asyncio
import errno
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from aiseg2_pipeline.settings import Settings, SettingsError, load_settings
from aiseg2_pipeline.web.app import create_app

BACKLOG = 64


class _Server(uvicorn.Server):
    """Uvicorn's server without its ten wake-ups a second, which are all that it does while nobody looks."""

    _ended: asyncio.Event | None = None

    async def main_loop(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        if not self.should_exit:
            await self._ended.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._ended:
            self._loop.call_soon_threadsafe(self._ended.set)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raise OSError with a sentence where the port cannot be used."""
    listener = _listen(settings.page_host, settings.page_port)
    config = uvicorn.Config(
        create_app(settings),
        loop="asyncio",
        ws="none",
        log_config=None,
        # A request that is no HTTP is of no interest to anyone.
        log_level=100,
        access_log=False,
        server_header=False,
        # The middleware sends it: Uvicorn's is computed every second.
        date_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
        limit_concurrency=64,
    )
    server = _Server(config)
    # Uvicorn raises the signal again for the handler before its own: this one makes the process end quietly.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    with listener:
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        setting = "AISEG2_PAGE_PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "AISEG2_PAGE_HOST"
        raise OSError(
            f"The page cannot listen at {host}, port {port} ({reason}): set {setting} to another one."
        ) from None


def main() -> None:
    """Serve the page of the settings of this process and the current folder."""
    try:
        serve(load_settings())
    except (SettingsError, OSError) as error:
        sys.exit(f"Error: {error}")
