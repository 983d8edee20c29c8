"""The unit as an ASGI application: a handler for each page, over one household, its meter and its card.

Only GET, and the one POST that the power flow page redraws itself with; nothing that a client sends changes anything.
Listening on a port belongs in `server`, logins and most faults in `door`, how a page looks in `pages`, `settings_pages`
and `graphs`, the card's files in `card`.
"""

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from aiseg2_pipeline.simulator import graphs, pages, settings_pages
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.battery import battery
from aiseg2_pipeline.simulator.card import CARD_D, Card
from aiseg2_pipeline.simulator.door import FAULT, NOT_FOUND, Door, Tally, html
from aiseg2_pipeline.simulator.faults import Drawn, Fault, Switch
from aiseg2_pipeline.simulator.household import Household, Power, step_of
from aiseg2_pipeline.simulator.login import DigestLogin
from aiseg2_pipeline.simulator.meter import JAPAN, MEMORY_D, Meter, Outages
from aiseg2_pipeline.simulator.rooms import ROOMS, climate, climate_page

Clock = Callable[[], datetime]
_T = TypeVar("_T")
_FLOW_JSON = "/data/electricflow/111/update"
_FLOW = "/page/electricflow/111"
_CIRCUITS = "/page/electricflow/1113"
_OTHER_DAYS = (-1, -2, -7, 1)  # what WRONG_DAY shows, from the day that was asked for


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
        return html(settings_pages.circuit_list_page(self._clocks.shown(now), self._household.names(now)))

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
        return html(settings_pages.settings_page(self._token))

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
