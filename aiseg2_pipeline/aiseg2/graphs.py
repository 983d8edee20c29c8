"""The device's graph pages: pure functions from the bytes of an answer to a day's energy.

The pages are what the device remembers without an SD card. One page does not tell an hour in which the unit was off
from an hour of nothing (both are 0); `day_from_web` puts a day's pages together and does. What the card holds belongs
in `sd_card`.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

import lxml.html

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.errors import NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import DayGraph, EnergyRow, Hours
from aiseg2_pipeline.aiseg2.pages import TOKYO, device_time, html, json_value, number, or_dash, unreadable

Series = Literal["generation", "consumption", "bought", "sold", "hotwater", "gas"]
USAGE = "usage"
HOUR_S = 3600
HOURS = range(24)

_ADDRESS = "/page/graph/"
_CIRCUIT = "584"
CIRCUIT_GRAPH = _ADDRESS + _CIRCUIT
_WH_PER_KWH = 1000
# 24 hours and a total, each rounded to 1 Wh.
_ROUNDING_WH = 12
_GRAPH_DATA = re.compile(r"\bgraph_data\s*=\s*")
_DAY = re.compile(r"(20[0-9]{2})/([0-9]{1,2})/([0-9]{1,2})")


class _Kind(NamedTuple):
    """What a graph page is known by; `has_hours` where a real unit was seen to have them."""

    page_id: str
    title: str
    unit: str
    has_hours: bool


_KINDS: dict[Series, _Kind] = {
    "generation": _Kind("51111", "発電量", "kWh", has_hours=True),
    "consumption": _Kind("52111", "使用電力量", "kWh", has_hours=True),
    "bought": _Kind("53111", "買電量", "kWh", has_hours=True),
    "sold": _Kind("54111", "売電量", "kWh", has_hours=True),
    "hotwater": _Kind("55111", "湯", "L", has_hours=False),
    "gas": _Kind("57111", "ガス", "㎥", has_hours=False),
}


def graph_page(series: Series) -> str:
    """Return the path of a series' graphs."""
    return _ADDRESS + _KINDS[series].page_id


def graph(body: bytes, series: Series, day: date | None = None) -> DayGraph:
    """Return a day's graph, `GET /page/graph/51111` to `57111`; `day` is the day asked for, None for today.

    Raise Unreadable where the page shows another day or another series.
    """
    kind = _KINDS[series]
    page = _Page(graph_page(series), body)
    # Two pages with a blank one would be one total.
    title = page.text("h_title") or kind.title
    if title in {other.title for other in _KINDS.values()} - {kind.title}:
        raise unreadable(page.path, f"shows {title}, not {kind.title}")
    return _day_graph(page, kind, day, series=series, circuit_id=None, title=title)


def circuit_graph(body: bytes, circuit_id: str, day: date | None = None) -> DayGraph:
    """Return a circuit's day, `GET /page/graph/584`; what else than `#val_kwh` it has was never seen."""
    page = _Page(CIRCUIT_GRAPH, body)
    kind = _Kind(_CIRCUIT, "", "kWh", has_hours=False)
    title = page.text("h_title") or ""
    # The home's own pages, in the same unit, would be taken for a circuit of a home's power.
    if title in {other.title for other in _KINDS.values() if other.unit == kind.unit}:
        raise unreadable(page.path, f"shows {title}, not a circuit")
    return _day_graph(page, kind, day, series=USAGE, circuit_id=circuit_id, title=title)


def known_hours(consumption: DayGraph) -> tuple[bool, ...]:
    """Return for each hour whether the web pages have a reading of it, for any series: its consumption is not 0."""
    return tuple(bool(wh) for wh in consumption.hours_wh or (None for _ in HOURS))


def day_from_web(
    consumption: DayGraph,
    generation: DayGraph | None = None,
    bought: DayGraph | None = None,
    sold: DayGraph | None = None,
    circuits: Iterable[DayGraph] = (),
) -> tuple[EnergyRow, ...]:
    """Return the hours of a day that are readings, of every series given (graphs of one day), in order of time.

    Where a graph is absent or has no hours, bought is the bought part of the consumption, and sold is the
    generation less the own use (in a home without storage). Raise NoData for a day without consumption, Unreadable
    where the graphs are of two days (today's, around midnight).
    """
    day = consumption.day
    if not consumption.total:
        raise no_energy(day)
    circuits = tuple(circuits)
    for other in (generation, bought, sold, *circuits):
        if other is not None and other.day != day:
            raise Unreadable(f"The AiSEG2's graphs are of two days, {day} and {other.day}: read them again.")
    generated_wh = generation.hours_wh if generation else None
    series: list[tuple[str, str | None, Hours | None]] = [
        ("generation", None, generated_wh),
        ("consumption", None, consumption.hours_wh),
        ("bought", None, (bought and bought.hours_wh) or consumption.bought_wh),
        ("sold", None, (sold and sold.hours_wh) or _less(generated_wh, consumption.own_use_wh)),
        *((USAGE, circuit.circuit_id, circuit.hours_wh) for circuit in circuits),
    ]
    known = known_hours(consumption)
    return tuple(
        EnergyRow(_start(day, hour), HOUR_S, name, circuit_id, wh)
        for hour in HOURS
        if known[hour]
        for name, circuit_id, hours_wh in series
        if hours_wh is not None and (wh := hours_wh[hour]) is not None
    )


def no_energy(day: date) -> NoData:
    """Return the error that says that the device has nothing of a day."""
    return NoData(
        f"The AiSEG2 has no energy of {day}, because it was off or remembers no day so far back: look at its own graph "
        "of that day, or ask for a later one."
    )


class _Page:
    """A graph page: its elements by id, and its variables."""

    def __init__(self, path: str, body: bytes) -> None:
        self.path = path
        self.device_time = device_time(body)
        self._root: lxml.html.HtmlElement = html(body, path)

    def text(self, element: str) -> str | None:
        found = self._root.xpath("//*[@id=$id]", id=element)
        return clean_name("".join(found[0].itertext()).strip()) if found else None

    def required(self, element: str) -> str:
        text = self.text(element)
        if text is None:
            raise unreadable(self.path, f"has no `#{element}`")
        return text

    def graph_data(self) -> dict[str, Any]:
        for script in self._root.xpath("//script/text()"):
            if start := _GRAPH_DATA.search(script):
                data = json_value(script[start.end() :], self.path, rest_allowed=True)
                if isinstance(data, dict):
                    return data
        raise unreadable(self.path, "has no `graph_data`")


def _day_graph(
    page: _Page, kind: _Kind, day: date | None, *, series: str, circuit_id: str | None, title: str
) -> DayGraph:
    shown = _shown_day(page, day)
    unit = page.text("unit_kwh")
    # Cubic metres are written in several ways.
    if unit and normalize("NFKC", unit).lower() != normalize("NFKC", kind.unit).lower():
        raise unreadable(page.path, f"has a unit in `#unit_kwh` that is not {kind.unit}")
    total = number(page.required("val_kwh"), page.path, "#val_kwh")
    data, parts = _hourly_parts(page, kind)
    told = number(or_dash(data.get("totalValue")), page.path, "totalValue")
    if None not in (total, told) and total != told:
        raise unreadable(page.path, "has another total in `#val_kwh` than in `totalValue`")
    hours_wh = own_use_wh = bought_wh = None
    if total is not None:
        hours_wh = _sum_that_adds_up(list(parts.values()), round(total * _WH_PER_KWH))
    if series == "consumption" and hours_wh is not None and _is_own_and_bought(data, parts, hours_wh):
        own_use_wh, bought_wh = parts["total1"], parts["val2"]
    return DayGraph(
        series=series,
        circuit_id=circuit_id,
        day=shown,
        device_time=page.device_time,
        title=title,
        unit=kind.unit,
        total=total,
        hours_wh=_ended(hours_wh, shown, page.device_time),
        own_use_wh=_ended(own_use_wh, shown, page.device_time),
        bought_wh=_ended(bought_wh, shown, page.device_time),
        generators=_names(data) if series == "generation" else (),
    )


def _shown_day(page: _Page, asked: date | None) -> date:
    found = _DAY.fullmatch(page.required("val_current"))
    try:
        shown = date(*(int(part) for part in found.groups())) if found else None
    except ValueError:
        shown = None
    if shown is None:
        raise unreadable(page.path, "has no day in `#val_current`")
    if asked is None and page.device_time is not None:
        asked = page.device_time.astimezone(TOKYO).date()
    if asked not in (None, shown):
        raise unreadable(page.path, f"shows {shown} in `#val_current`, not {asked} as asked")
    return shown


def _hourly_parts(page: _Page, kind: _Kind) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the page's variables and the arrays of hours in use, in Wh; nothing where a page need not have them."""
    try:
        data = page.graph_data()
        keys = ("total1", "val2", "val3") if kind.unit == "kWh" else ()
        arrays = {key: data[key] for key in keys if data.get(key, []) != []}
        return data, {key: _wh(array, page.path, key) for key, array in arrays.items()}
    except Unreadable:
        if kind.has_hours:
            raise
        return {}, {}


def _wh(array: Any, page: str, key: str) -> list[int]:
    if not isinstance(array, list) or len(array) != len(HOURS):
        raise unreadable(page, f"has no 24 hours in `{key}`")
    hours_kwh = [number(value, page, key) for value in array]
    # Rounding takes away what binary fractions add: the device has three decimals.
    hours_wh = [round(kwh * _WH_PER_KWH) for kwh in hours_kwh if kwh is not None]
    if len(hours_wh) != len(HOURS):
        raise unreadable(page, f"has an hour without a number in `{key}`")
    return hours_wh


def _sum_that_adds_up(parts: list[list[int]], total_wh: int) -> list[int] | None:
    """Return the sum of the first arrays, as many as come nearest to the total, if that is near enough."""
    sums = [[sum(hour) for hour in zip(*parts[:n], strict=True)] for n in range(len(parts), 0, -1)]
    nearest = min(sums, key=lambda hours_wh: abs(sum(hours_wh) - total_wh), default=None)
    if nearest is None or abs(sum(nearest) - total_wh) > _ROUNDING_WH:
        return None
    return nearest


def _is_own_and_bought(data: dict[str, Any], parts: dict[str, list[int]], hours_wh: list[int]) -> bool:
    """Tell whether the consumption is `total1` (own generation) and `val2` (bought), as in a home without storage."""
    connected = data.get("connectInfo")
    has_storage = isinstance(connected, dict) and connected.get("sto") not in (0, "0", None)
    if has_storage or not {"total1", "val2"} <= parts.keys():
        return False
    return hours_wh == [own + bought for own, bought in zip(parts["total1"], parts["val2"], strict=True)]


def _ended(hours_wh: list[int] | None, day: date, clock: datetime | None) -> Hours | None:
    """Blank the hours that had not ended on the page's own clock: the page has 0 for them."""
    if hours_wh is None or clock is None:
        return None
    return tuple(
        wh if _start(day, hour) + timedelta(seconds=HOUR_S) <= clock else None for hour, wh in enumerate(hours_wh)
    )


def _less(hours_wh: Hours | None, less_wh: Hours | None) -> Hours | None:
    if hours_wh is None or less_wh is None:
        return None
    return tuple(
        None if wh is None or less is None or wh < less else wh - less
        for wh, less in zip(hours_wh, less_wh, strict=True)
    )


def _names(data: dict[str, Any]) -> tuple[str, ...]:
    told = (data.get(f"{key}_string") for key in ("total1", "val2", "val3"))
    return tuple(clean_name(name.strip()) for name in told if isinstance(name, str) and name.strip())


def _start(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=TOKYO).astimezone(UTC)
