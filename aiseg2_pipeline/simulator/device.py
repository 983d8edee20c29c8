"""The device as an ASGI application: one handler per page, over one household, its meter and its SD card.

Accepts GET, and the POSTs with which the power flow pages refresh themselves; no request changes anything. Listening
on a port belongs in `server`, login and most faults in `middleware`, HTML in `pages`, `settings_pages` and `graphs`,
the card's files in `card`.
"""

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, graphs, pages, settings_pages
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.battery import battery
from aiseg2_pipeline.simulator.card import CARD_D, Card
from aiseg2_pipeline.simulator.faults import ActiveFaults, Fault, InjectedFault
from aiseg2_pipeline.simulator.household import Household, Power, step_of
from aiseg2_pipeline.simulator.login import DigestLogin
from aiseg2_pipeline.simulator.meter import JAPAN, MEMORY_D, Meter, Outages
from aiseg2_pipeline.simulator.middleware import FAULT, NOT_FOUND, RequestMiddleware, Tally, html
from aiseg2_pipeline.simulator.rooms import ROOMS, climate, climate_page

Clock = Callable[[], datetime]
_T = TypeVar("_T")
_FLOW_JSON = "/data/electricflow/111/update"
_FLOW = "/page/electricflow/111"
_CIRCUITS = "/page/electricflow/1113"
_ROOMS, _ROOMS_WITH_IDS = "/page/airenvironment/43", "/page/airenvironment/41"
_OTHER_DAYS = (-1, -2, -7, 1)  # WRONG_DAY's offsets from the requested day


def create_app(  # noqa: PLR0913 - each is a property of a device that a test varies alone
    household: Household,
    *,
    clock: Clock,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
    latency_s: float = 0.0,
    nonce_life_s: float = 3600.0,
    tally: Tally | None = None,
    outages: Outages = (),
    sd_card: bool = False,
    card_days: int = CARD_D,
    memory_days: int = MEMORY_D,
    rooms: Sequence[str] = ROOMS,
    shown_names: Mapping[int, str | None] = MappingProxyType({}),
    active_faults: ActiveFaults | None = None,
) -> Starlette:
    """Return the device as an ASGI application; every response is delayed by `latency_s`.

    Web pages cover today and the `memory_days` days before it, the SD card `card_days` days including today. Nothing
    was measured during `outages`; closing connections meanwhile is up to the server (see `running`). `rooms` are the
    rooms with a sensor. `shown_names` has names of circuits by id that page 1113 shows in place of page 734's (None: it
    does not show that circuit). REBOOTED needs a server that puts `HANG_UP` into the scope.
    """
    tally = tally or Tally()
    active_faults = active_faults or ActiveFaults()
    meter = Meter(household, outages=outages, memory_days=memory_days)
    card = Card(meter, card_days=card_days) if sd_card else None
    device = _Device(household, clock, meter, card, rooms, shown_names, active_faults, tally)
    middleware = Middleware(
        RequestMiddleware,
        login=DigestLogin(user, password, nonce_life_s=nonce_life_s),
        latency_s=latency_s,
        tally=tally,
        active_faults=active_faults,
        page_faults=device.page_faults,
    )
    app = Starlette(
        routes=[
            Route(_FLOW_JSON, device.flow_json, methods=["POST"]),
            Route("/data/electricflow/112/update", device.battery_flow_json, methods=["POST"]),
            Route(_FLOW, device.flow_page),
            Route(_CIRCUITS, device.circuits_page),
            Route("/page/setting/installation/734", device.circuit_list_page),
            Route(_ROOMS, device.climate_page),
            Route(_ROOMS_WITH_IDS, device.climate_page),
            Route("/page/graph/{page_id}", device.graph_page),
            Route("/set/exectop2.cgi", device.settings_page),
        ],
        middleware=[middleware],
        exception_handlers={404: _not_found, 405: _not_found},
    )
    app.router.redirect_slashes = False
    return app


@dataclass
class _Device:
    """The request handlers, one per page. They all run in one thread, so their state needs no lock."""

    household: Household
    clock: Clock
    meter: Meter
    card: Card | None
    rooms: Sequence[str]
    shown_names: Mapping[int, str | None]
    active_faults: ActiveFaults
    tally: Tally
    last_power: tuple[int, Power] | None = None  # by step
    token: str = field(default_factory=lambda: f"{secrets.randbelow(100_000):05}")

    def page_faults(self, scope: Scope) -> Collection[Fault]:
        """Return the faults that only the page of this scope can show."""
        path = scope["path"]
        if path in {_FLOW_JSON, _FLOW}:
            return (Fault.DASHES,)
        if path == _CIRCUITS:
            can_resort = pages.boundaries(self._moment(self._now()), _page_number(Request(scope), "id"))
            return (Fault.DASHES, Fault.RESORTED) if can_resort else (Fault.DASHES,)
        return (Fault.WRONG_DAY,) if path.startswith("/page/graph/") else ()

    async def flow_json(self, request: Request) -> Response:
        moment = self._moment(self._now())
        readings = [*pages.FLOW_READINGS, *([pages.BATTERY_READING] if moment.battery else [])]
        return JSONResponse(pages.flow_json(moment, _dashes(request, readings)))

    async def battery_flow_json(self, _: Request) -> Response:
        moment = self._moment(self._now())
        # Assumed, not observed: a home without a battery has no such page.
        return (
            JSONResponse(pages.battery_flow_json(moment, moment.battery))
            if moment.battery
            else html(NOT_FOUND, 404)
        )

    async def flow_page(self, request: Request) -> Response:
        moment = self._moment_with_shown_clock()
        return html(pages.flow_page(moment, _dashes(request, pages.FLOW_READINGS)))

    async def circuits_page(self, request: Request) -> Response:
        moment = self._moment_with_shown_clock()
        number = _page_number(request, "id")
        fault = _fault(request, Fault.RESORTED)
        boundaries = pages.boundaries(moment, number) if fault else ()
        swapped = fault.choose(boundaries) if fault and boundaries else None
        return html(pages.circuits_page(moment, number, _dashes(request, range(pages.PAGE_ROWS)), swapped))

    async def circuit_list_page(self, _: Request) -> Response:
        now = self._now()
        return html(settings_pages.circuit_list_page(self._shown(now), self.household.names(now)))

    async def climate_page(self, request: Request) -> Response:
        now = self._now()
        rooms = climate(self.household.seed, self.rooms, now)
        has_ids = request.url.path == _ROOMS_WITH_IDS
        return html(climate_page(rooms, _page_number(request, "page"), self._shown(now), ids=has_ids))

    async def graph_page(self, request: Request) -> Response:
        page_id = request.path_params["page_id"]
        day, circuit_id = graphs.parse_query(request.query_params.get("data", ""))
        now = self._now()
        graph = graphs.GRAPHS.get(page_id)
        if page_id == graphs.CIRCUIT_GRAPH:
            graph = graphs.circuit_graph(circuit_id, self.household.names(now))
        if graph is None:
            return html(NOT_FOUND, 404)
        shown = self._shown(now)
        day = day or shown.date()
        if fault := _fault(request, Fault.WRONG_DAY):
            day += timedelta(days=fault.choose(_OTHER_DAYS))
        hours, before = self.meter.day(day, now), self.meter.day(day - timedelta(days=1), now)
        return html(graphs.graph_page(graph, day, hours, before, shown))

    async def settings_page(self, request: Request) -> Response:
        query = request.query_params
        if self.card and query.get("downType") == "1" and query.get("csrftoken") == self.token:
            now = self._now()
            return Response(self.card.export(now, self.household.names(now)), media_type="application/zip")
        # Assumed, not observed: a device without a card, and one that gets a wrong token, responds with this page.
        return html(settings_pages.settings_page(self.token))

    def _now(self) -> datetime:
        return self.clock().astimezone(JAPAN)

    def _shown(self, now: datetime) -> datetime:
        """Return the time that the device's clock shows, which differs from `now` during CLOCK_OFF."""
        offset = self.active_faults.clock_off(now)
        if offset:
            self.tally.faults[Fault.CLOCK_OFF] += 1
        return now + offset

    def _moment_with_shown_clock(self) -> pages.Moment:
        now = self._now()
        return replace(self._moment(now), now=self._shown(now))

    def _moment(self, now: datetime) -> pages.Moment:
        step = step_of(now)
        if self.last_power is None or self.last_power[0] != step:
            self.last_power = step, self.household.power(np.array([step]))
        power = self.last_power[1]
        names = {**self.household.names(now), **self.shown_names}
        watts = zip(CIRCUITS, power.circuits_w[0].tolist(), strict=True)
        circuits_w = ((names.get(circuit.circuit_id), w) for circuit, w in watts)
        return pages.Moment(
            now=now,
            circuits_w=tuple((name, w) for name, w in circuits_w if name is not None),
            generation_w=int(power.generation_w[0]),
            consumption_w=int(power.consumption_w[0]),
            battery=battery(now) if self.household.has_battery else None,
        )


def _fault(request: Request, kind: Fault) -> InjectedFault | None:
    """Return the fault that the page must show, if it is of this kind."""
    fault: InjectedFault | None = request.scope.get(FAULT)
    return fault if fault and fault.kind is kind else None


def _dashes(request: Request, readings: Sequence[_T]) -> Collection[_T]:
    """Return the readings that are replaced by `-`."""
    fault = _fault(request, Fault.DASHES)
    return fault.choose_some(readings) if fault else ()


async def _not_found(_: Request, __: Exception) -> Response:
    return html(NOT_FOUND, 404)


def _page_number(request: Request, parameter: str) -> int:
    """Return the requested page number; 1 for a missing or invalid one."""
    try:
        return int(request.query_params.get(parameter, ""))
    except ValueError:
        return 1
