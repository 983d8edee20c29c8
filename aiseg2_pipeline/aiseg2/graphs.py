"""The device's graph pages: pure functions from the bytes of a response to a day's energy.

The pages show the energy that the device stores without an SD card. One page alone shows 0 both for an hour in which
the device was off and for an hour without energy; `day_from_web` combines a day's pages to distinguish them. The
files of the SD card belong in `sd_card`.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.errors import NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import DayGraph, EnergyRow, Hours
from aiseg2_pipeline.aiseg2.pages import TOKYO, HtmlPage, device_time, json_value, number, or_dash, unreadable

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
    """A kind of graph page; `has_hours` where a real unit was seen to show hours."""

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
    """Return a day's graph, `GET /page/graph/51111` to `57111`; `day` is the requested day, None for today.

    Raise Unreadable where the page shows another day or another series.
    """
    kind = _KINDS[series]
    page = _Page(graph_page(series), body)
    # InfluxDB's name of the day's total needs a title, and each series its own.
    title = page.title or kind.title
    if title in {other.title for other in _KINDS.values()} - {kind.title}:
        raise unreadable(page.path, f"shows {title}, not {kind.title}")
    return _day_graph(page, kind, day, series=series, circuit_id=None, title=title)


def circuit_graph(body: bytes, circuit_id: str, day: date | None = None) -> DayGraph:
    """Return a circuit's day, `GET /page/graph/584`; no capture exists, and only `#val_kwh` is certain."""
    page = _Page(CIRCUIT_GRAPH, body)
    kind = _Kind(_CIRCUIT, "", "kWh", has_hours=False)
    title = page.title
    # A page of the whole home has the same unit, and would be stored as one circuit's energy.
    if title in {other.title for other in _KINDS.values() if other.unit == kind.unit}:
        raise unreadable(page.path, f"shows {title}, not a circuit")
    return _day_graph(page, kind, day, series=USAGE, circuit_id=circuit_id, title=title)


def known_hours(consumption: DayGraph) -> tuple[bool, ...]:
    """Return for each hour whether the pages of any series have a reading: its consumption is not 0."""
    return tuple(bool(wh) for wh in consumption.hours_wh or (None for _ in HOURS))


def day_from_web(
    consumption: DayGraph,
    generation: DayGraph | None = None,
    bought: DayGraph | None = None,
    sold: DayGraph | None = None,
    circuits: Iterable[DayGraph] = (),
) -> tuple[EnergyRow, ...]:
    """Return the hours of a day that are readings, for every given series, in order of time.

    Without a graph of its own or hours on it, bought is the bought part of the consumption, and sold is the generation
    minus the own use (in a home without storage). Raise NoData for a day without consumption, Unreadable where the
    graphs belong to two days (today's graphs, around midnight).
    """
    day = consumption.day
    if not consumption.total:
        raise no_energy(day)
    circuits = tuple(circuits)
    for other in (generation, bought, sold, *circuits):
        if other is not None and other.day != day:
            raise Unreadable(f"The AiSEG2's graphs belong to two days, {day} and {other.day}: read them again.")
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
    """Return the error for a day of which the device has no energy."""
    return NoData(
        f"The AiSEG2 has no energy of {day}, because it was off or no longer stores that day: check its own graph "
        "of that day, or choose a later day."
    )


class _Page(HtmlPage):
    """A graph page: its clock, its title and its variables."""

    def __init__(self, path: str, body: bytes) -> None:
        super().__init__(path, body)
        self.device_time = device_time(body)
        self.title = clean_name(self.text("h_title") or "")

    def graph_data(self) -> dict[str, Any]:
        for script in self.root.xpath("//script/text()"):
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
    # Cubic metres have several spellings.
    if unit and normalize("NFKC", unit).lower() != normalize("NFKC", kind.unit).lower():
        raise unreadable(page.path, f"has a unit in `#unit_kwh` that is not {kind.unit}")
    total = number(page.required("val_kwh"), page.path, "#val_kwh")
    data, parts = _hourly_parts(page, kind)
    total_value = number(or_dash(data.get("totalValue")), page.path, "totalValue")
    if None not in (total, total_value) and total != total_value:
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
    )


def _shown_day(page: _Page, requested: date | None) -> date:
    found = _DAY.fullmatch(page.required("val_current"))
    try:
        shown = date(*(int(part) for part in found.groups())) if found else None
    except ValueError:
        shown = None
    if shown is None:
        raise unreadable(page.path, "has no day in `#val_current`")
    if requested is None and page.device_time is not None:
        requested = page.device_time.astimezone(TOKYO).date()
    if requested not in (None, shown):
        raise unreadable(page.path, f"shows {shown} in `#val_current`, not {requested} as requested")
    return shown


def _hourly_parts(page: _Page, kind: _Kind) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """Return the page's variables and its non-empty arrays of hours in Wh; both empty where they are optional."""
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
    # The device has three decimals; rounding removes the error of binary fractions.
    hours_wh = [round(kwh * _WH_PER_KWH) for kwh in hours_kwh if kwh is not None]
    if len(hours_wh) != len(HOURS):
        raise unreadable(page, f"has an hour without a number in `{key}`")
    return hours_wh


def _sum_that_adds_up(parts: list[list[int]], total_wh: int) -> list[int] | None:
    """Return the sum of the first n arrays, for the n whose sum is nearest to the total; None if it is not near enough."""
    sums = [[sum(hour) for hour in zip(*parts[:n], strict=True)] for n in range(len(parts), 0, -1)]
    nearest = min(sums, key=lambda hours_wh: abs(sum(hours_wh) - total_wh), default=None)
    if nearest is None or abs(sum(nearest) - total_wh) > _ROUNDING_WH:
        return None
    return nearest


def _is_own_and_bought(data: dict[str, Any], parts: dict[str, list[int]], hours_wh: list[int]) -> bool:
    """Return whether the consumption is `total1` (own use) plus `val2` (bought), as in a home without storage."""
    connected = data.get("connectInfo")
    has_storage = isinstance(connected, dict) and connected.get("sto") not in (0, "0", None)
    if has_storage or not {"total1", "val2"} <= parts.keys():
        return False
    return hours_wh == [own + bought for own, bought in zip(parts["total1"], parts["val2"], strict=True)]


def _ended(hours_wh: list[int] | None, day: date, clock: datetime | None) -> Hours | None:
    """Return the hours, with None for those that had not ended on the page's own clock: the page shows 0 for them."""
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


def _start(day: date, hour: int) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=TOKYO).astimezone(UTC)
