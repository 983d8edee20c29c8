"""Circuits whose page of a day failed while the rest of that day was read: finds when to retry them, and settles them.

The minutes were filled without them. A day later they are requested again, and `fill` fills those minutes again and
settles the attempt. Requesting a page, and when to give up, belongs in `ingest/energy`.
"""

from collections.abc import Collection
from datetime import date, datetime

from aiseg2_pipeline.frames.energy import USAGE
from aiseg2_pipeline.ingest.energy import CIRCUIT
from aiseg2_pipeline.ingest.sd_card import ASK_AGAIN
from aiseg2_pipeline.japan_time import DAY, day_of, day_start
from aiseg2_pipeline.store import EnergyStore


def days(store: EnergyStore, start: datetime, end: datetime, now: datetime) -> set[date]:
    """Return the days of [start, end) with a failed circuit that is known by now, or may be requested."""
    failed = _failed(store, day_start(day_of(start)), end)
    return {day for day in failed if any(of_day(store, day, now))}


def of_day(store: EnergyStore, day: date, now: datetime) -> tuple[set[str], set[str]]:
    """Return the ids of a day's failed circuits: those read since, and those to request."""
    start = day_start(day)
    failed = _failed(store, start, start + DAY).get(day)
    if not failed:
        return set(), set()
    table = store.read(start, start + DAY, kinds=[USAGE, "consumption"])
    usage = table[table["kind"] == USAGE]
    hours = usage.groupby("name")["time"].apply(set)
    # The circuit may have been read before it failed, while the day was still running.
    every = set(table["time"])
    known = {circuit_id for circuit_id in failed if circuit_id in hours.index and hours[circuit_id] == every}
    due = {circuit_id for circuit_id, at in failed.items() if at <= now - ASK_AGAIN}
    return known, due - known


def settle(store: EnergyStore, day: date, circuit_ids: Collection[str]) -> None:
    """Store that these circuits are no longer missing."""
    store.forget_attempts(day_start(day), [CIRCUIT + circuit_id for circuit_id in circuit_ids])


def _failed(store: EnergyStore, start: datetime, end: datetime) -> dict[date, dict[str, datetime]]:
    """Return the failed circuits' ids and the times of their failures, by day."""
    failed: dict[date, dict[str, datetime]] = {}
    for time, what, at in store.attempts(start, end):
        if what.startswith(CIRCUIT):
            failed.setdefault(day_of(time), {})[what.removeprefix(CIRCUIT)] = at
    return failed
