"""The unit's web interface: which page stands at which address, and how it is served.

Only GET, and the one POST that the power flow page redraws itself with; nothing that a client sends changes
anything. What the pages look like belongs in `pages` and `graphs`, the files of the card in `card`, what happens to
a request before a page is looked at in `door`.
"""

import asyncio
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, graphs, pages
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.battery import battery
from aiseg2_pipeline.simulator.card import CARD_D, Card
from aiseg2_pipeline.simulator.door import FAULT, HANG_UP, NOT_FOUND, Door, Tally, html
from aiseg2_pipeline.simulator.faults import Drawn, Fault, Faults, Switch
from aiseg2_pipeline.simulator.household import Household, Power, step_of
from aiseg2_pipeline.simulator.login import DigestLogin
from aiseg2_pipeline.simulator.meter import JAPAN, MEMORY_D, Meter, Outages, is_off
from aiseg2_pipeline.simulator.rooms import ROOMS, climate, climate_page

Clock = Callable[[], datetime]

_T = TypeVar("_T")
_FLOW_JSON = "/data/electricflow/111/update"
_FLOW = "/page/electricflow/111"
_CIRCUITS = "/page/electricflow/1113"
_OTHER_DAYS = (-1, -2, -7, 1)  # what WRONG_DAY shows, from the day that was asked for


def simulated_clock(start: datetime | None = None, speed: float = 1.0) -> Clock:
    """Return a clock that shows `start` (aware; default: now) now, and runs `speed` times as fast as ours."""
    if start is not None and start.tzinfo is None:
        raise ValueError("the simulator's start needs a time zone, such as 2026-07-14T08:00:00+09:00")
    began = datetime.now(UTC)
    shown = began if start is None else start

    def now() -> datetime:
        return shown + (datetime.now(UTC) - began) * speed

    return now


def create_app(  # noqa: PLR0913 - each is something of a unit that a test varies alone
    household: Household,
    *,
    user: str,
    password: str,
    clock: Clock,
    latency_s: float = 0.0,
    nonce_life_s: float = 3600.0,
    tally: Tally | None = None,
    outages: Outages = (),
    sd_card: bool = False,
    card_days: int = CARD_D,
    memory_days: int = MEMORY_D,
    rooms: Sequence[str] = ROOMS,
    switch: Switch | None = None,
) -> Starlette:
    """Return the unit as an ASGI application; every answer takes `latency_s` longer than it has to.

    Web pages remember today and `memory_days` before it, the SD card `card_days` with today. What happened during
    `outages` was not measured (that nobody answers then is up to the server: see `running`). `rooms` are those with
    a sensor. `switch` holds the faults; a server that does not give a scope `HANG_UP` cannot do REBOOTED.
    """
    tally = tally or Tally()
    switch = switch or Switch()
    meter = Meter(household, outages=outages, memory_days=memory_days)
    card = Card(meter, card_days=card_days) if sd_card else None
    unit = _Unit(household, _Clocks(clock, switch, tally), meter, card, rooms)
    door = Middleware(
        Door,
        login=DigestLogin(user, password, nonce_life_s=nonce_life_s),
        latency_s=latency_s,
        tally=tally,
        switch=switch,
        page_faults=unit.faults,
    )
    app = Starlette(
        routes=[
            Route(_FLOW_JSON, unit.flow_json, methods=["POST"]),
            Route(_FLOW, unit.flow_page),
            Route(_CIRCUITS, unit.circuits_page),
            Route("/page/setting/installation/734", unit.circuit_list_page),
            Route("/page/airenvironment/41", unit.climate_page),
            Route("/page/graph/{page_id}", unit.graph_page),
            Route("/set/exectop2.cgi", unit.settings_page),
        ],
        middleware=[door],
        exception_handlers={404: _not_found, 405: _not_found},
    )
    app.router.redirect_slashes = False
    return app


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


class _Clocks:
    """The true time, and the time that the unit shows, which is another one during CLOCK_OFF; both Japan's."""

    def __init__(self, clock: Clock, switch: Switch, tally: Tally) -> None:
        self._clock = clock
        self._switch = switch
        self._tally = tally

    def now(self) -> datetime:
        return self._clock().astimezone(JAPAN)

    def shown(self, now: datetime) -> datetime:
        off = self._switch.clock_off(now)
        if off:
            self._tally.faults[Fault.CLOCK_OFF] += 1
        return now + off


class _Unit:
    """The handlers, one a page. They run in one thread, so what they remember needs no lock."""

    def __init__(
        self, household: Household, clocks: _Clocks, meter: Meter, card: Card | None, rooms: Sequence[str]
    ) -> None:
        self._household = household
        self._clocks = clocks
        self._meter = meter
        self._card = card
        self._rooms = rooms
        self._last: tuple[int, Power] | None = None
        self._token = f"{secrets.randbelow(100_000):05}"

    def faults(self, scope: Scope) -> Collection[Fault]:
        """Return the faults that only the page of this scope knows to do."""
        path = scope["path"]
        if path in {_FLOW_JSON, _FLOW}:
            return (Fault.DASHES,)
        if path == _CIRCUITS:
            can_resort = pages.boundaries(self._moment(self._clocks.now()), _page_number(Request(scope), "id"))
            return (Fault.DASHES, Fault.RESORTED) if can_resort else (Fault.DASHES,)
        return (Fault.WRONG_DAY,) if path.startswith("/page/graph/") else ()

    async def flow_json(self, request: Request) -> Response:
        moment = self._moment(self._clocks.now())
        readings = [*pages.FLOW_READINGS, *([pages.BATTERY_READING] if moment.battery else [])]
        return JSONResponse(pages.flow_json(moment, _dashes(request, readings)))

    async def flow_page(self, request: Request) -> Response:
        moment = self._shown(self._clocks.now())
        return html(pages.flow_page(moment, _dashes(request, pages.FLOW_READINGS)))

    async def circuits_page(self, request: Request) -> Response:
        moment = self._shown(self._clocks.now())
        number = _page_number(request, "id")
        drawn = _fault(request, Fault.RESORTED)
        boundaries = pages.boundaries(moment, number) if drawn else ()
        exchanged = drawn.one_of(boundaries) if drawn and boundaries else None
        return html(pages.circuits_page(moment, number, _dashes(request, pages.PAGE_ROWS), exchanged))

    async def circuit_list_page(self, _: Request) -> Response:
        now = self._clocks.now()
        return html(pages.circuit_list_page(self._clocks.shown(now), self._household.names(now)))

    async def climate_page(self, request: Request) -> Response:
        now = self._clocks.now()
        rooms = climate(self._household.seed, self._rooms, now)
        return html(climate_page(rooms, _page_number(request, "page"), self._clocks.shown(now)))

    async def graph_page(self, request: Request) -> Response:
        page_id = request.path_params["page_id"]
        asked = graphs.asked(request.query_params.get("data", ""))
        now = self._clocks.now()
        graph = graphs.GRAPHS.get(page_id)
        if page_id == graphs.CIRCUIT_GRAPH:
            graph = graphs.circuit_graph(asked.circuit_id, self._household.names(now))
        if graph is None:
            return html(NOT_FOUND, 404)
        shown = self._clocks.shown(now)
        day = asked.day or shown.date()
        if drawn := _fault(request, Fault.WRONG_DAY):
            day += timedelta(days=drawn.one_of(_OTHER_DAYS))
        hours, before = self._meter.day(day, now), self._meter.day(day - timedelta(days=1), now)
        return html(graphs.graph_page(graph, day, hours, before, shown))

    async def settings_page(self, request: Request) -> Response:
        asked = request.query_params
        if self._card and asked.get("downType") == "1" and asked.get("csrftoken") == self._token:
            now = self._clocks.now()
            return Response(self._card.export(now, self._household.names(now)), media_type="application/zip")
        # A unit is believed to answer so without a card, or when the token is not its own.
        return html(pages.settings_page(self._token))

    def _shown(self, now: datetime) -> pages.Moment:
        """Return the moment for a page that has a clock."""
        return replace(self._moment(now), now=self._clocks.shown(now))

    def _moment(self, now: datetime) -> pages.Moment:
        step = step_of(now)
        if self._last is None or self._last[0] != step:
            self._last = step, self._household.power(np.array([step]))
        power = self._last[1]
        names = self._household.names(now)
        watts = zip(CIRCUITS, power.circuits_w[0].tolist(), strict=True)
        return pages.Moment(
            now=now,
            circuits_w=tuple(
                (names[circuit.circuit_id], w) for circuit, w in watts if circuit.circuit_id in names
            ),
            generation_w=int(power.generation_w[0]),
            consumption_w=int(power.consumption_w[0]),
            battery=battery(now) if self._household.has_battery else None,
        )


def _fault(request: Request, kind: Fault) -> Drawn | None:
    """Return the fault that the page has to do, if it is this one."""
    drawn: Drawn | None = request.scope.get(FAULT)
    return drawn if drawn and drawn.kind is kind else None


def _dashes(request: Request, readings: Sequence[_T]) -> Collection[_T]:
    """Return which of the readings are `-`."""
    drawn = _fault(request, Fault.DASHES)
    return drawn.some_of(readings) if drawn else ()


async def _not_found(_: Request, __: Exception) -> Response:
    return html(NOT_FOUND, 404)


def _page_number(request: Request, parameter: str) -> int:
    """Return the number of the page that is asked for; 1 for anything that is none."""
    try:
        return int(request.query_params.get(parameter, ""))
    except ValueError:
        return 1


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
