"""The unit's web interface: which page stands at which address, and how it is served.

Only GET, and the one POST that the power flow page redraws itself with; nothing that a client sends changes
anything. What the pages look like belongs in `pages` and `graphs`, the files of the card in `card`.
"""

import asyncio
import os
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, graphs, pages
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.card import CARD_D, Card
from aiseg2_pipeline.simulator.household import Household, Power, step_of
from aiseg2_pipeline.simulator.login import Answer, DigestLogin
from aiseg2_pipeline.simulator.meter import JAPAN, MEMORY_D, Meter, Outages, is_off
from aiseg2_pipeline.simulator.rooms import ROOMS, climate, climate_page

Clock = Callable[[], datetime]


@dataclass
class Tally:
    """How many requests came for each path (without the query), and how many in all were answered with 401."""

    requests: Counter[str] = field(default_factory=Counter)
    refused: int = 0


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
) -> Starlette:
    """Return the unit as an ASGI application; every answer takes `latency_s` longer than it has to.

    Web pages remember today and `memory_days` before it, the SD card `card_days` with today. What happened during
    `outages` was not measured (that nobody answers then is up to the server: see `running`). `rooms` are those with
    a sensor.
    """
    meter = Meter(household, outages=outages, memory_days=memory_days)
    unit = _Unit(household, clock, meter, Card(meter, card_days=card_days) if sd_card else None, rooms)
    login = DigestLogin(user, password, nonce_life_s=nonce_life_s)
    app = Starlette(
        routes=[
            Route("/data/electricflow/111/update", unit.flow_json, methods=["POST"]),
            Route("/page/electricflow/111", unit.flow_page),
            Route("/page/electricflow/1113", unit.circuits_page),
            Route("/page/setting/installation/734", unit.circuit_list_page),
            Route("/page/airenvironment/41", unit.climate_page),
            Route("/page/graph/{page_id}", unit.graph_page),
            Route("/set/exectop2.cgi", unit.settings_page),
        ],
        middleware=[Middleware(_Door, login=login, latency_s=latency_s, tally=tally or Tally())],
        exception_handlers={404: _not_found, 405: _not_found},
    )
    app.router.redirect_slashes = False
    return app


def serve(  # noqa: PLR0913 - each is an option of the command
    port: int,
    host: str = "127.0.0.1",
    *,
    seed: int = 1,
    latency_ms: float = 0.0,
    start: datetime | None = None,
    speed: float = 1.0,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
    sd_card: bool = False,
    rooms: Sequence[str] = ROOMS,
) -> None:
    """Serve until SIGINT or SIGTERM, then return. To be called in the main thread.

    OSError, with a sentence to show, when nothing can listen there.
    """
    app = create_app(
        Household(seed),
        user=user,
        password=password,
        clock=simulated_clock(start, speed),
        latency_s=latency_ms / 1000,
        sd_card=sd_card,
        rooms=rooms,
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


@dataclass(frozen=True)
class Running:
    """A unit that is being served: `address` is `127.0.0.1:PORT`."""

    address: str
    user: str
    password: str
    tally: Tally


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
) -> Iterator[Running]:
    """Serve in a thread on the loopback (port 0: a free one) while the `with` block runs.

    While the clock shows a time within `outages` (from, to), connections are closed without an answer, and such
    requests are not in the tally. For the other parameters see `create_app`.
    """
    tally = Tally()
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
    )
    listener = _listen("127.0.0.1", port)
    server = _server(app, is_off=lambda: is_off(outages, clock()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Running(f"127.0.0.1:{listener.getsockname()[1]}", user, password, tally)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class _Unit:
    """The handlers, one a page. They run in one thread, so what they remember needs no lock."""

    def __init__(
        self, household: Household, clock: Clock, meter: Meter, card: Card | None, rooms: Sequence[str]
    ) -> None:
        self._household = household
        self._clock = clock
        self._meter = meter
        self._card = card
        self._rooms = rooms
        self._last: tuple[int, Power] | None = None
        self._token = f"{secrets.randbelow(100_000):05}"

    async def flow_json(self, _: Request) -> Response:
        return JSONResponse(pages.flow_json(self._moment()))

    async def flow_page(self, _: Request) -> Response:
        return _html(pages.flow_page(self._moment()))

    async def circuits_page(self, request: Request) -> Response:
        return _html(pages.circuits_page(self._moment(), _number(request.query_params.get("id", ""))))

    async def circuit_list_page(self, _: Request) -> Response:
        now = self._now()
        return _html(pages.circuit_list_page(now, self._household.names(now)))

    async def climate_page(self, request: Request) -> Response:
        now = self._now()
        rooms = climate(self._household.seed, self._rooms, now)
        return _html(climate_page(rooms, _number(request.query_params.get("page", "")), now))

    async def graph_page(self, request: Request) -> Response:
        page_id = request.path_params["page_id"]
        asked = graphs.asked(request.query_params.get("data", ""))
        now = self._now()
        graph = graphs.GRAPHS.get(page_id)
        if page_id == graphs.CIRCUIT_GRAPH:
            graph = graphs.circuit_graph(asked.circuit_id, self._household.names(now))
        if graph is None:
            return _html(_NOT_FOUND, 404)
        day = asked.day or now.date()
        hours, before = self._meter.day(day, now), self._meter.day(day - timedelta(days=1), now)
        return _html(graphs.graph_page(graph, day, hours, before, now))

    async def settings_page(self, request: Request) -> Response:
        asked = request.query_params
        if self._card and asked.get("downType") == "1" and asked.get("csrftoken") == self._token:
            now = self._now()
            return Response(self._card.export(now, self._household.names(now)), media_type="application/zip")
        # A unit is believed to answer so without a card, or when the token is not its own.
        return _html(pages.settings_page(self._token))

    def _now(self) -> datetime:
        return self._clock().astimezone(JAPAN)

    def _moment(self) -> pages.Moment:
        now = self._now()
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
        )


class _Door:
    """Counts, waits, and asks for the login before anything else is looked at."""

    def __init__(self, app: ASGIApp, *, login: DigestLogin, latency_s: float, tally: Tally) -> None:
        self._app = app
        self._login = login
        self._latency_s = latency_s
        self._tally = tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._tally.requests[scope["path"]] += 1
        await asyncio.sleep(self._latency_s)
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        authorization = Request(scope).headers.get("authorization", "")
        answer = self._login.check(scope["method"], target, authorization)
        if answer is Answer.WELCOME:
            await self._app(scope, receive, send)
            return
        self._tally.refused += 1
        challenge = self._login.challenge(is_stale=answer is Answer.STALE)
        refusal = _html(b"<html><body><h1>401 Unauthorized</h1></body></html>\n", 401)
        refusal.headers["WWW-Authenticate"] = challenge
        await refusal(scope, receive, send)


_NOT_FOUND = b"<html><body><h1>404 Not Found</h1></body></html>\n"


async def _not_found(_: Request, __: Exception) -> Response:
    return _html(_NOT_FOUND, 404)


def _html(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="text/html; charset=UTF-8")


def _number(text: str) -> int:
    """Return a page number; 1 for anything that is none."""
    try:
        return int(text)
    except ValueError:
        return 1


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=128)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise OSError(f"the simulator cannot listen on {host}:{port} ({reason}): choose another port") from error


def _server(app: Starlette, is_off: Callable[[], bool] = lambda: False) -> uvicorn.Server:
    class Protocol(H11Protocol):
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
