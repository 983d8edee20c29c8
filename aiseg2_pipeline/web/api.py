"""The addresses under /api/v1: their parameters, and their answers as JSON, or as CSV by the suffix `.csv`.

Each answer is a mapping of columns of equal length, and of values that belong to all of them. What the answers hold belongs
in `now`, `series`, `energy`, `cost` and `coverage`.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from typing import Any, get_args
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.tariff.load import TariffError
from aiseg2_pipeline.web import series
from aiseg2_pipeline.web.cost import Costs
from aiseg2_pipeline.web.coverage import coverage, summary
from aiseg2_pipeline.web.csv_text import csv_text
from aiseg2_pipeline.web.energy import energy
from aiseg2_pipeline.web.live import LiveFlow
from aiseg2_pipeline.web.now import Now
from aiseg2_pipeline.web.openapi import document
from aiseg2_pipeline.web.record import Record, UnavailableError
from aiseg2_pipeline.web.times import By, end_of, iso, parsed, periods, start_of

PREFIX = "/api/v1"
# The most periods of an answer; with circuits, a period has some 40 numbers more.
MOST_PERIODS = {"hour": 62 * 24, "day": 3 * 366, "month": 50 * 12}
MOST_WITH_CIRCUITS = {"hour": 8 * 24, "day": 366, "month": 36}
# A bill is computed from the hours of its month.
MOST_BILLS = {"month": 36}
MOST_POINTS = 5000

Answer = dict[str, Any]


class ApiError(Exception):
    """A request that cannot be answered; the message is one sentence."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        """Use this status and this sentence."""
        super().__init__(sentence)
        self.status = status


class Api:
    """The JSON of one household."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        """Use the stores and the device of these settings; `clock` returns the host's time."""
        self._clock = clock
        self._record = Record(settings)
        self._now = Now(self._record, clock)
        self._live = LiveFlow(settings, clock)
        self._costs = Costs(self._record, settings.tariff) if settings.tariff else None

    def routes(self) -> list[Route]:
        """Return the addresses."""
        answers = {
            "series": self._series,
            "energy": self._energy,
            "cost": self._cost,
            "coverage": self._coverage,
            "record": self._summary,
        }
        routes = [
            Route(f"{PREFIX}/{name}{suffix}", _endpoint(answer, name if suffix else None))
            for name, answer in answers.items()
            for suffix in ("", ".csv")
            if (name, suffix) != ("record", ".csv")
        ]
        return [
            Route(f"{PREFIX}/now", self._answer_now),
            Route(f"{PREFIX}/openapi.json", lambda _: JSONResponse(document())),
            *routes,
        ]

    async def _answer_now(self, request: Request) -> Response:
        live = await self._live.get() if request.query_params.get("live") == "1" else None
        return JSONResponse(await run_in_threadpool(self._now.answer, live))

    def _now_s(self) -> float:
        return self._clock().timestamp()

    def _series(self, query: Mapping[str, str]) -> Answer:
        kind, name = query.get("kind", ""), query.get("name")
        start_s, end_s = self._range(query, "day")
        step_s = _number(query, "step", series.STEPS)
        points = _number(query, "points", range(1, MOST_POINTS + 1))
        with self._record.readings() as queries:
            known = queries.series() if queries else []
            units = [unit for _, of, one, unit in known if of == kind and name in (None, one)]
            if known and not units:
                raise ApiError(
                    HTTPStatus.NOT_FOUND, "There is no such series: `kind` and `name` are those of a reading."
                )
            steps, after = series.grid(start_s, end_s, step_s, points, 1 if name else len(units))
            if name is None:
                columns = series.of_kind(queries, kind, steps)
                hues = self._now.hues() if kind == "usage" else {}
                for one in columns["series"]:
                    one["hue"] = hues.get(one["name"])
            else:
                columns = series.of_one(queries, kind, name, steps)
        return {
            "kind": kind,
            "name": name,
            "unit": units[0] if name and units else None,
            "step_s": steps.step_s,
            **columns,
            "next": _next("series", query, after, end_s, step=steps.base_s),
        }

    def _energy(self, query: Mapping[str, str]) -> Answer:
        with_circuits = query.get("circuits") == "1"
        most = MOST_WITH_CIRCUITS if with_circuits else MOST_PERIODS
        by, spans, after = self._periods(query, "energy", most)
        hues = self._now.hues if with_circuits else None
        return {"by": by, **energy(self._record, by, spans, self._now_s(), hues), "next": after}

    def _cost(self, query: Mapping[str, str]) -> Answer:
        if self._costs is None:
            raise ApiError(
                HTTPStatus.NOT_FOUND, "No tariff is set: AISEG2_TARIFF names the file with your prices."
            )
        by, spans, after = self._periods(query, "cost", MOST_PERIODS | MOST_BILLS)
        return {"by": by, **self._costs.answer(by, spans, self._now_s()), "next": after}

    def _coverage(self, query: Mapping[str, str]) -> Answer:
        by, spans, after = self._periods(query, "coverage", MOST_PERIODS)
        return {"by": by, **coverage(self._record, by, spans[0][0], spans[-1][1], self._now_s()), "next": after}

    def _summary(self, _: Mapping[str, str]) -> Answer:
        return summary(self._record, self._now_s())

    def _periods(
        self, query: Mapping[str, str], name: str, most: Mapping[str, int]
    ) -> tuple[By, list[tuple[int, int]], str | None]:
        """Return the periods of an answer, and the address of the next piece."""
        by: Any = query.get("by", "day")
        if by not in get_args(By):
            raise ApiError(HTTPStatus.BAD_REQUEST, f"`by` is one of {', '.join(get_args(By))}.")
        start_s, end_s = self._range(query, by)
        shown = list(islice(periods(by, start_s, end_s), most[by]))
        after = shown[-1][1] if shown[-1][1] < end_s else None
        return by, shown, _next(name, query, after, end_s)

    def _range(self, query: Mapping[str, str], by: By) -> tuple[int, int]:
        """Return the range of a request; by default from the start of today, or of the month, to its end."""
        whole: By = "month" if by == "month" else "day"
        start_s, end_s = (_time(query, name) for name in ("start", "end"))
        if start_s is None:
            start_s = start_of(whole, self._now_s() if end_s is None else min(self._now_s(), end_s - 1))
        if end_s is None:
            end_s = max(end_of(whole, start_of(whole, self._now_s())), end_of(whole, start_of(whole, start_s)))
        if end_s <= start_s:
            raise ApiError(HTTPStatus.BAD_REQUEST, "`end` must be later than `start`.")
        return start_s, end_s


def _endpoint(
    answer: Callable[[Mapping[str, str]], Answer], csv_name: str | None
) -> Callable[[Request], Response]:
    # Not a coroutine: Starlette runs it in a thread, so that a long query holds up nobody else.
    def endpoint(request: Request) -> Response:
        try:
            content = answer(request.query_params)
        except TariffError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        except UnavailableError as error:
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        following = content.get("next")
        if csv_name is None:
            return JSONResponse(content)
        headers = {"Content-Disposition": f'attachment; filename="{csv_name}.csv"'}
        if following:
            headers["Link"] = f'<{following.replace(csv_name, f"{csv_name}.csv", 1)}>; rel="next"'
        return Response(csv_text(content), media_type="text/csv; charset=utf-8", headers=headers)

    return endpoint


def _next(name: str, query: Mapping[str, str], after: int | None, end_s: int, **more: int) -> str | None:
    if after is None:
        return None
    return f"{PREFIX}/{name}?{urlencode({**query, **more, 'start': iso(after), 'end': iso(end_s)})}"


def _time(query: Mapping[str, str], name: str) -> int | None:
    try:
        return parsed(query[name]) if query.get(name) else None
    except (ValueError, OverflowError):
        raise ApiError(
            HTTPStatus.BAD_REQUEST, f"`{name}` is a day or a time, like 2026-11-25 or 2026-11-25T18:00:00+09:00."
        ) from None


def _number(query: Mapping[str, str], name: str, allowed: range | tuple[int, ...]) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) in allowed):  # noqa: PLR2004 - no huge numbers
        words = (
            f"a number from {allowed[0]} to {allowed[-1]}"
            if isinstance(allowed, range)
            else f"one of {', '.join(map(str, allowed))}"
        )
        raise ApiError(HTTPStatus.BAD_REQUEST, f"`{name}` is {words}.")
    return int(text)
