"""Converts a day's card files and graph pages to rows of the energy store.

Pure functions; which of the two is read, and when, belongs in `energy`.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta

from aiseg2_pipeline.aiseg2.graphs import Series
from aiseg2_pipeline.aiseg2.models import DayGraph, EnergyRow
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.energy import (
    CIRCUIT_DAILY_TOTAL,
    DAILY_COST,
    DAILY_TOTAL,
    DAY_S,
    HOUR_S,
    MONTHLY_TOTAL,
)
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.japan_time import HOUR, day_start

# The device completes an hour's energy some time after its end.
SETTLED_AFTER = timedelta(minutes=5)
WH_PER_KWH = 1000
# The titles of pages 51111, 52111, 53111 and 54111, for the card's days.
TITLES: dict[Series, str] = {
    "generation": "発電量",
    "consumption": "使用電力量",
    "bought": "買電量",
    "sold": "売電量",
}
SUPPLIES: dict[Series, str] = {"hotwater": "湯", "gas": "ガス"}


def rows_from_card(export: Export, day: date, made_at: datetime) -> Iterator[Row]:
    """Yield the card's rows of a day; omit intervals that had not settled when the export was made (`made_at`)."""
    halves = list(export.half_hours(day))
    hours = {(row.time, row.series, row.circuit_id): row for row in export.hours(day)}
    for row in whole_hours(halves):
        hours.setdefault((row.time, row.series, row.circuit_id), row)
    for row in [*halves, *hours.values()]:
        if settled(row.time, row.interval_s, made_at):
            yield energy.interval(row.time, row.series, row.circuit_id or row.series, row.wh, row.interval_s)
    start = day_start(day)
    yield from (row for row in days_from_card(export, day) if row.time == start)


def days_from_card(export: Export, month: date) -> Iterator[Row]:
    """Yield the totals and costs of the days of the month that contains `month`."""
    for total in export.day_totals(month):
        if total.circuit_id is not None:
            yield Row(total.time, CIRCUIT_DAILY_TOTAL, total.circuit_id, total.wh / WH_PER_KWH, "kWh", DAY_S)
        else:
            yield from _titled(total, DAILY_TOTAL)
    for cost in export.day_costs(month):
        name = cost.series if cost.circuit_id is None else f"{energy.COST_OF_CIRCUIT}{cost.circuit_id}"
        yield Row(cost.time, DAILY_COST, name, cost.yen, "yen", DAY_S)


def months_from_card(export: Export, year: int) -> Iterator[Row]:
    """Yield the totals of the months of a year."""
    for total in export.month_totals(year):
        if total.circuit_id is None:
            yield from _titled(total, MONTHLY_TOTAL)


def _titled(total: EnergyRow, kind: str) -> Iterator[Row]:
    if total.series in TITLES:
        name = f"{TITLES[total.series]}(kWh)"
        yield Row(total.time, kind, name, total.wh / WH_PER_KWH, "kWh", total.interval_s)


def totals_of_day(day: date, graphs: Iterable[DayGraph]) -> Iterator[Row]:
    """Yield a day's totals as the device shows them."""
    for graph in graphs:
        if graph.total is not None:
            name = f"{graph.title}({graph.unit})"
            yield Row(day_start(day), DAILY_TOTAL, name, graph.total, graph.unit, DAY_S)


def settled(time: datetime, interval_s: int, at: datetime) -> bool:
    """Return whether an interval has ended and settled by `at`."""
    return time + timedelta(seconds=interval_s) + SETTLED_AFTER <= at


def whole_hours(halves: Sequence[EnergyRow]) -> Iterator[EnergyRow]:
    """Yield the hours with both half hours."""
    by_time = {(row.time, row.series, row.circuit_id): row.wh for row in halves}
    for (time, series, circuit_id), wh in by_time.items():
        second = by_time.get((time + HOUR / 2, series, circuit_id))
        if time.minute == 0 and second is not None:
            yield EnergyRow(time, HOUR_S, series, circuit_id, wh + second)
