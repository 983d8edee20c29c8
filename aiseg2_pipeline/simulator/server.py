"""Serve the simulated device: on a port until Ctrl-C, or in a thread while a test runs; and its clock.

The responses belong in `device`.
"""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER
from aiseg2_pipeline.simulator.device import Clock, create_app
from aiseg2_pipeline.simulator.faults import ActiveFaults, Faults
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.meter import Outages, is_off
from aiseg2_pipeline.simulator.middleware import HANG_UP, Tally
from aiseg2_pipeline.simulator.rooms import ROOMS


def simulated_clock(start: datetime | None = None, speed: float = 1.0) -> Clock:
    """Return a clock that starts at `start` (aware; default: now) and runs `speed` times as fast as real time."""
    if start is not None and start.tzinfo is None:
        raise ValueError("the simulator's start needs a time zone, such as 2026-07-14T08:00:00+09:00")
    real_start = datetime.now(UTC)

    def now() -> datetime:
        return (start or real_start) + (datetime.now(UTC) - real_start) * speed

    return now


def serve(  # noqa: PLR0913 - each is an option of the command
    port: int,
    host: str = "127.0.0.1",
    *,
    household: Household | None = None,
    latency_ms: float = 0.0,
    start: datetime | None = None,
    speed: float = 1.0,
    sd_card: bool = False,
    rooms: Sequence[str] = ROOMS,
    faults: Faults | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return. Call it in the main thread.

    OSError, with a message for the user, when the port cannot be opened.
    """
    app = create_app(
        household or Household(),
        clock=simulated_clock(start, speed),
        latency_s=latency_ms / 1000,
        sd_card=sd_card,
        rooms=rooms,
        active_faults=ActiveFaults(faults),
    )
    listener = _listen(host, port)
    server = _server(app)
    # Uvicorn raises the signal again for the previous handler: its own handler there makes the process exit quietly.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Running:
    """A device that is being served; `address` is `127.0.0.1:PORT`."""

    address: str
    user: str
    password: str
    tally: Tally
    active_faults: ActiveFaults

    @property
    def faults(self) -> Faults | None:
        """The current faults; setting them restarts the request numbers."""
        return self.active_faults.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self.active_faults.faults = faults


@contextmanager
def running(
    household: Household | None = None,
    *,
    port: int = 0,
    clock: Clock | None = None,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
    outages: Outages = (),
    faults: Faults | None = None,
    **options: Any,
) -> Iterator[Running]:
    """Serve in a thread on 127.0.0.1 (port 0: a free one) during the `with` block.

    During `outages` (from, to; simulated time) and after REBOOTED, connections are closed without a response, and these
    requests are not in the tally. For `options` see `create_app`.
    """
    clock = clock or simulated_clock()
    running = Running("", user, password, Tally(), ActiveFaults(faults))
    app = create_app(
        household or Household(),
        user=user,
        password=password,
        clock=clock,
        tally=running.tally,
        outages=outages,
        active_faults=running.active_faults,
        **options,
    )
    listener = _listen("127.0.0.1", port)
    running.address = f"127.0.0.1:{listener.getsockname()[1]}"
    server = _server(app, is_off=lambda: is_off(outages, clock()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OSError(f"The simulator cannot listen on {host}:{port} ({reason}): choose another port") from error


def _server(app: Starlette, is_off: Callable[[], bool] = lambda: False) -> uvicorn.Server:
    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
            super().connection_made(transport)
            app = self.app

            def hang_up(*, is_all: bool) -> None:
                for connection in list(self.connections) if is_all else [self]:
                    connection.transport.abort()

            async def with_hang_up(scope: Scope, receive: Receive, send: Send) -> None:
                await app({**scope, HANG_UP: hang_up}, receive, send)

            self.app = with_hang_up

        def data_received(self, data: bytes) -> None:
            if is_off():
                self.transport.close()
            else:
                super().data_received(data)

    # No Date header: it would show the real time, not the simulated one. Nothing is logged: clients may disconnect.
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            log_config=None,
            log_level=100,
            access_log=False,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=1,
        )
    )
