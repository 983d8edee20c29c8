"""The unit's web interface: which page stands at which address, and how it is served.

Only GET, and the one POST that the power flow page redraws itself with; nothing that a client sends changes
anything. What the pages look like belongs in `pages` and `graphs`.
"""

import asyncio
import os
import secrets
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
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

from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER, graphs, pages
from aiseg2_pipeline.simulator.household import Household, Power, step_of
from aiseg2_pipeline.simulator.login import Answer, DigestLogin
from aiseg2_pipeline.simulator.meter import JAPAN, Meter

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


def create_app(
    household: Household,
    *,
    user: str,
    password: str,
    clock: Clock,
    latency_s: float = 0.0,
    nonce_life_s: float = 3600.0,
    tally: Tally | None = None,
) -> Starlette:
    """Return the unit as an ASGI application; every answer takes `latency_s` longer than it has to."""
    unit = _Unit(household, clock)
    login = DigestLogin(user, password, nonce_life_s=nonce_life_s)
    app = Starlette(
        routes=[
            Route("/data/electricflow/111/update", unit.flow_json, methods=["POST"]),
            Route("/page/electricflow/111", unit.flow_page),
            Route("/page/electricflow/1113", unit.circuits_page),
            Route("/page/setting/installation/734", unit.circuit_list_page),
            Route("/page/graph/{page_id}", unit.graph_page),
            Route("/set/exectop2.cgi", unit.settings_page),
        ],
        middleware=[Middleware(_Door, login=login, latency_s=latency_s, tally=tally or Tally())],
        exception_handlers={404: _not_found, 405: _not_found},
    )
    app.router.redirect_slashes = False
    return app


def serve(
    port: int,
    host: str = "127.0.0.1",
    *,
    seed: int = 1,
    latency_ms: float = 0.0,
    start: datetime | None = None,
    speed: float = 1.0,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
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
def running(
    household: Household | None = None,
    *,
    port: int = 0,
    clock: Clock | None = None,
    user: str = DEFAULT_USER,
    password: str = DEFAULT_PASSWORD,
    latency_s: float = 0.0,
    nonce_life_s: float = 3600.0,
) -> Iterator[Running]:
    """Serve in a thread on the loopback (port 0: a free one) while the `with` block runs."""
    tally = Tally()
    app = create_app(
        household or Household(),
        user=user,
        password=password,
        clock=clock or simulated_clock(),
        latency_s=latency_s,
        nonce_life_s=nonce_life_s,
        tally=tally,
    )
    listener = _listen("127.0.0.1", port)
    server = _server(app)
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

    def __init__(self, household: Household, clock: Clock) -> None:
        self._household = household
        self._clock = clock
        self._meter = Meter(household)
        self._last: tuple[int, Power] | None = None
        self._token = f"{secrets.randbelow(100_000):05}"

    async def flow_json(self, _: Request) -> Response:
        return JSONResponse(pages.flow_json(self._moment()))

    async def flow_page(self, _: Request) -> Response:
        return _html(pages.flow_page(self._moment()))

    async def circuits_page(self, request: Request) -> Response:
        return _html(pages.circuits_page(self._moment(), _number(request.query_params.get("id", ""))))

    async def circuit_list_page(self, _: Request) -> Response:
        return _html(pages.circuit_list_page(self._now()))

    async def graph_page(self, request: Request) -> Response:
        page_id = request.path_params["page_id"]
        asked = graphs.asked(request.query_params.get("data", ""))
        is_circuit = page_id == graphs.CIRCUIT_GRAPH
        graph = graphs.circuit_graph(asked.circuit_id) if is_circuit else graphs.GRAPHS.get(page_id)
        if graph is None:
            return _html(_NOT_FOUND, 404)
        now = self._now()
        day = asked.day or now.date()
        hours, before = self._meter.day(day, now), self._meter.day(day - timedelta(days=1), now)
        return _html(graphs.graph_page(graph, day, hours, before, now))

    async def settings_page(self, request: Request) -> Response:
        if request.query_params.get("downType", "0") != "0":
            return _html(_NOT_FOUND, 404)  # no card in this unit
        return _html(pages.settings_page(self._token))

    def _now(self) -> datetime:
        return self._clock().astimezone(JAPAN)

    def _moment(self) -> pages.Moment:
        now = self._now()
        step = step_of(now)
        if self._last is None or self._last[0] != step:
            self._last = step, self._household.power(np.array([step]))
        power = self._last[1]
        return pages.Moment(
            now=now,
            circuits_w=tuple(power.circuits_w[0].tolist()),
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


def _server(app: Starlette) -> uvicorn.Server:
    # No Date header: it would tell our time, not the simulated one. Nothing is logged: clients come and go.
    return uvicorn.Server(
        uvicorn.Config(
            app,
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
