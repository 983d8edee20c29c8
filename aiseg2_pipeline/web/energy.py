"""The answer `energy`: kWh by hour, day or month, as the device measured them, with the circuits where asked for.

A day is the sum of its hours where all are known, else the device's own total of the day; a month likewise. Hours of today
that the device has not reported yet are estimated from the readings. A number that is not known is None.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from aiseg2_pipeline.frames import names
from aiseg2_pipeline.store.queries import Queries
from aiseg2_pipeline.web.record import Record
from aiseg2_pipeline.web.times import DAY_S, HOUR_S, MINUTE_S, By, iso, periods, start_of

WH_PER_KWH = 1000
# The device's word for an energy, and the title of its day's total.
MAIN = {
    "generation": "発電量(kWh)",
    "consumption": "使用電力量(kWh)",
    "bought": "買電量(kWh)",
    "sold": "売電量(kWh)",
}
MORE = ("battery-charge", "battery-discharge", "ev-charge", "ev-discharge", "heatpump", "fuelcell")
USAGE, DAILY_TOTAL, MONTHLY_TOTAL = "usage", "daily_total", "monthly_total"

Table = dict[str, dict[int, float]]


def energy(
    record: Record,
    by: By,
    spans: Sequence[tuple[int, int]],
    now_s: float,
    hues: Callable[[], dict[str, int]] | None,
) -> dict[str, Any]:
    """Return the columns of these periods; with `hues`, those of the circuits as well."""
    sums: Table = defaultdict(dict)
    circuits: Table = defaultdict(dict)
    hours: dict[int, int] = defaultdict(int)
    with record.energy() as queries:
        if queries is not None:
            kinds = (*MAIN, *MORE, *((USAGE,) if hues else ()))
            for one in queries.sums(kinds, HOUR_S, spans):
                (circuits[one.name] if one.kind == USAGE else sums[one.kind])[one.start] = one.sum / WH_PER_KWH
                if one.kind == "consumption":
                    hours[one.start] = one.n
            if by != "hour":
                _use_totals(queries, by, spans, now_s, sums, hours)
    estimated = _estimate_today(record, by, spans, now_s, sums)
    answer: dict[str, Any] = {
        "start": [iso(start) for start, _ in spans],
        **{
            f"{kind}_kwh": [_rounded(sums[kind].get(start)) for start, _ in spans]
            for kind in (*MAIN, *MORE)
            if kind in MAIN or sums[kind]
        },
        "complete": [hours[start] * HOUR_S >= end - start for start, end in spans],
        "estimated": [start in estimated for start, _ in spans],
    }
    if hues:
        answer["circuits"] = _circuits(record, circuits, spans, hues())
    return answer


def _use_totals(
    queries: Queries, by: By, spans: Sequence[tuple[int, int]], now_s: float, sums: Table, hours: dict[int, int]
) -> None:
    """Replace the sums of incomplete periods by the device's totals of days that have ended, and of months."""
    for start, end in spans:
        if hours[start] * HOUR_S >= end - start:
            continue
        # Today's total may be older than the newest hour.
        days = [day for day in periods("day", start, end) if day[1] <= now_s]
        found = _totals(queries, DAILY_TOTAL, DAY_S, days)
        is_whole = len(found["consumption"]) * DAY_S == end - start
        if by == "month" and not is_whole:
            months = _totals(queries, MONTHLY_TOTAL, end - start, [(start, start + 1)])
            is_whole = bool(months["consumption"])
            found = months if is_whole else _with_hours(queries, found, list(periods("day", start, end)))
        for kind, of_days in found.items():
            if of_days:
                sums[kind][start] = sum(of_days.values())
        if is_whole:
            hours[start] = (end - start) // HOUR_S
            for kind in MAIN:
                if not found[kind]:
                    # The sum of a part would pass for that of the whole.
                    sums[kind].pop(start, None)


def _totals(queries: Queries, kind: str, interval_s: int, spans: Sequence[tuple[int, int]]) -> Table:
    """Return the device's own totals in kWh, by the word for the energy."""
    titles = {title: word for word, title in MAIN.items()}
    found: Table = defaultdict(dict)
    for one in queries.sums([kind], interval_s, spans):
        if one.name in titles:
            found[titles[one.name]][one.start] = one.sum
    return found


def _with_hours(queries: Queries, totals: Table, days: Sequence[tuple[int, int]]) -> Table:
    """Return the days' totals, with the sum of the hours of each day that has all of them, or has no total."""
    of_hours = queries.sums(list(MAIN), HOUR_S, days)
    whole = {one.start for one in of_hours if one.kind == "consumption" and one.n * HOUR_S == DAY_S}
    for one in of_hours:
        if one.start in whole or one.start not in totals[one.kind]:
            totals[one.kind][one.start] = one.sum / WH_PER_KWH
    return totals


def _estimate_today(
    record: Record, by: By, spans: Sequence[tuple[int, int]], now_s: float, sums: Table
) -> set[int]:
    """Add the hours of today that have readings but no energy yet; return the periods that have such an hour."""
    today = start_of("day", now_s)
    changed: set[int] = set()
    span = next(((start, end) for start, end in reversed(spans) if start < now_s and end > today), None)
    if span is None:
        return changed
    begin, stop = max(today, spans[0][0]), min(int(now_s), spans[-1][1])
    with record.energy() as queries:
        known = {
            one.start
            for one in (queries.sums(["consumption"], HOUR_S, periods("hour", begin, stop)) if queries else ())
        }
    with record.readings() as queries:
        if queries is None:
            return changed
        for hour, end in periods("hour", begin, stop):
            if hour not in known:
                for kind, kwh in _of_readings(queries, hour, end).items():
                    start = start_of(by, hour)
                    sums[kind][start] = sums[kind].get(start, 0.0) + kwh
                    changed.add(start)
    return changed


def _of_readings(queries: Queries, start_s: int, end_s: int) -> dict[str, float]:
    """Return the kWh of an hour's minutes that were read."""
    has_battery = any(kind == "battery" for _, kind, _, _ in queries.series())
    # Without a battery, the exchange with the grid is generation less consumption; its sign is that of selling.
    grid = ("flow", names.FLOW_GRID) if has_battery else ("total", names.TOTAL_EXCHANGE)
    kwh = {}
    for word, series in (
        ("generation", ("total", names.TOTAL_GENERATION)),
        ("consumption", ("total", names.TOTAL_CONSUMPTION)),
        ("bought", grid),
        ("sold", grid),
    ):
        sign = 0 if series != grid else 1 if (word == "bought") == has_battery else -1
        values = [(one.start, one.sum) for one in queries.values(series[0], start_s, end_s, series[1])]
        if values:
            hours = len({start // MINUTE_S for start, _ in values}) * MINUTE_S / HOUR_S
            kilowatts = (max(0.0, sign * value) if sign else value for _, value in values)
            kwh[word] = sum(kilowatts) / len(values) * hours
    return kwh


def _circuits(
    record: Record, circuits: Table, spans: Sequence[tuple[int, int]], hues: dict[str, int]
) -> list[dict[str, Any]]:
    """Return the circuits by energy, with the names that they have now."""
    with record.readings() as queries:
        known = queries.circuit_names() if queries else {}
    return [
        {
            "id": circuit,
            "name": (name := known.get(circuit, circuit)),
            "hue": hues.get(name),
            "kwh": [_rounded(kwh.get(start)) for start, _ in spans],
        }
        for circuit, kwh in sorted(circuits.items(), key=lambda item: -sum(item[1].values()))
    ]


def _rounded(kwh: float | None) -> float | None:
    return None if kwh is None else round(kwh, 3)
