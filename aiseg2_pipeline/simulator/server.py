"""Serving the simulated unit: on a port until Ctrl-C, or in a thread while a test runs; and the clock that it shows.

What it answers belongs in `unit`.
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

import uvicorn
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER
from aiseg2_pipeline.simulator.card import CARD_D
from aiseg2_pipeline.simulator.door import HANG_UP, Tally
from aiseg2_pipeline.simulator.faults import Faults, Switch
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.meter import MEMORY_D, Outages, is_off
from aiseg2_pipeline.simulator.rooms import ROOMS
from aiseg2_pipeline.simulator.unit import Clock, create_app


def simulated_clock(start: datetime | None = None, speed: float = 1.0) -> Clock:
    """Return a clock that shows `start` (aware; default: now) now, and runs `speed` times as fast as ours."""
    if start is not None and start.tzinfo is None:
        raise ValueError("the simulator's start needs a time zone, such as 2026-07-14T08:00:00+09:00")
    began = datetime.now(UTC)
    shown = began if start is None else start

    def now() -> datetime:
        return shown + (datetime.now(UTC) - began) * speed

    return now


def serve(  # noqa: PLR0913 - each is an option of the command
    port: int,
    host: str = "127.0.0.1",
    *,
    household: Household | None = None,
    latency_ms: float = 0.0,
    start: datetime | None = None,
    speed: float = 1.0,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
    sd_card: bool = False,
    rooms: Sequence[str] = ROOMS,
    faults: Faults | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, then return. To be called in the main thread.

    OSError, with a sentence to show, when nothing can listen there.
    """
    app = create_app(
        household or Household(),
        user=user,
        password=password,
        clock=simulated_clock(start, speed),
        latency_s=latency_ms / 1000,
        sd_card=sd_card,
        rooms=rooms,
        switch=Switch(faults),
    )
    listener = _listen(host, port)
    server = _server(app)
    # Uvicorn hands a signal that ended it on to the handler before it: with its own there, that ends quietly.
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class Running:
    """A unit that is being served: `address` is `127.0.0.1:PORT`, `switch` holds the faults that requests meet."""

    address: str
    user: str
    password: str
    tally: Tally
    switch: Switch

    @property
    def faults(self) -> Faults | None:
        """The faults in force; others may be set at any time, and requests are counted from then on."""
        return self.switch.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self.switch.faults = faults


@contextmanager
def running(  # noqa: PLR0913 - as `create_app`
    household: Household | None = None,
    *,
    port: int = 0,
    clock: Clock | None = None,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
    latency_s: float = 0.0,
    nonce_life_s: float = 3600.0,
    outages: Outages = (),
    sd_card: bool = False,
    card_days: int = CARD_D,
    memory_days: int = MEMORY_D,
    rooms: Sequence[str] = ROOMS,
    faults: Faults | None = None,
) -> Iterator[Running]:
    """Serve in a thread on the loopback (port 0: a free one) while the `with` block runs.

    While the clock shows a time within `outages` (from, to), and while the unit boots (REBOOTED), connections are
    closed without an answer, and such requests are not in the tally. For the other parameters see `create_app`.
    """
    tally = Tally()
    switch = Switch(faults)
    clock = clock or simulated_clock()
    app = create_app(
        household or Household(),
        user=user,
        password=password,
        clock=clock,
        latency_s=latency_s,
        nonce_life_s=nonce_life_s,
        tally=tally,
        outages=outages,
        sd_card=sd_card,
        card_days=card_days,
        memory_days=memory_days,
        rooms=rooms,
        switch=switch,
    )
    listener = _listen("127.0.0.1", port)
    server = _server(app, is_off=lambda: is_off(outages, clock()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Running(f"127.0.0.1:{listener.getsockname()[1]}", user, password, tally, switch)
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

    # No Date header: it would tell our time, not the simulated one. Nothing is logged: clients come and go.
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Protocol,
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
