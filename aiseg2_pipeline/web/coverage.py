"""The answers `coverage` and `record`: which minutes were read, filled, and are missing, and what is still to come.

Minutes before the record begins, in the future, and those that a person removed are not missing.
"""

from collections import defaultdict
from typing import Any

from aiseg2_pipeline.frames.names import TOTAL_EXCHANGE
from aiseg2_pipeline.store.queries import Queries
from aiseg2_pipeline.web.now import first_hour
from aiseg2_pipeline.web.record import Record, UnavailableError
from aiseg2_pipeline.web.times import DAY_S, HOUR_S, MINUTE_S, By, iso, periods, start_of

# The device's memory of half hours, as units of the field have it (reported).
MEMORY_S = 94 * DAY_S
MINUTES_AN_HOUR = 60
# What the energy store notes of an hour whose totals the device does not have.
NOT_HAD = "totals"


def coverage(record: Record, by: By, start_s: int, end_s: int, now_s: float) -> dict[str, Any]:
    """Return the minutes of each hour or day that were read, filled, and are missing."""
    read: dict[int, int] = defaultdict(int)
    filled: dict[int, int] = defaultdict(int)
    missing: dict[int, int] = defaultdict(int)
    with record.readings() as queries:
        for hour, is_read, is_filled, is_missing in _hours(record, queries, start_s, end_s, now_s):
            period = start_of(by, hour)
            read[period] += is_read
            filled[period] += is_filled
            missing[period] += is_missing
    starts = [start for start, _ in periods(by, start_s, end_s)]
    return {
        "start": [iso(start) for start in starts],
        "read": [read[start] for start in starts],
        "filled": [filled[start] for start in starts],
        "missing": [missing[start] for start in starts],
    }


def summary(record: Record, now_s: float) -> dict[str, Any]:
    """Return since when the record goes, what is missing, what can still be filled, and what InfluxDB has yet to get."""
    with record.readings() as queries:
        first = first_hour(record.settings, queries.oldest_hour() if queries else None)
        hours = list(_hours(record, queries, first, int(now_s), now_s)) if first is not None else []
    lost = {hour: missing for hour, _, _, missing in hours if missing}
    remembered = {hour for hour in lost if hour > now_s - MEMORY_S}
    with record.energy() as queries:
        if queries is not None and remembered:
            remembered -= queries.attempts(NOT_HAD, min(remembered), int(now_s))
    return {
        "first_hour": None if first is None else iso(first),
        "missing_minutes": sum(lost.values()),
        "fillable_minutes": sum(lost[hour] for hour in remembered),
        "can_be_filled_until": iso(min(remembered) + MEMORY_S) if remembered else None,
        "influxdb": _influxdb(record, now_s),
    }


def _hours(
    record: Record, queries: Queries | None, start_s: int, end_s: int, now_s: float
) -> list[tuple[int, int, int, int]]:
    """Return start and the read, filled and missing minutes of each hour that the record should have."""
    first = first_hour(record.settings, queries.oldest_hour() if queries else None)
    if first is None or queries is None:
        return []
    start_s = max(start_of("hour", start_s), first)
    running = int(now_s // MINUTE_S * MINUTE_S)
    # The running minute counts once it has a reading.
    stop_s = min(end_s, running + MINUTE_S if (queries.newest_live() or 0) >= running else running)
    covered = {one.start: one for one in queries.coverage_by_hour(start_s, end_s)}
    removed = _removed(queries, start_s, stop_s, set(covered))
    hours = []
    for hour in range(start_s, stop_s, HOUR_S):
        one = covered.get(hour)
        read, filled = (one.live_minutes, one.filled_minutes) if one else (0, 0)
        elapsed = min(MINUTES_AN_HOUR, (stop_s - hour) // MINUTE_S)
        hours.append((hour, read, filled, max(0, elapsed - read - filled - removed.get(hour, 0))))
    return hours


def _removed(queries: Queries, start_s: int, stop_s: int, covered: set[int]) -> dict[int, int]:
    """Return the number of removed minutes that are still empty, by hour."""
    found: dict[int, int] = defaultdict(int)
    for start, stop in queries.removed(start_s, stop_s):
        for hour in range(start_of("hour", start), stop, HOUR_S):
            first, last = max(start, hour) // MINUTE_S * MINUTE_S, min(stop, hour + HOUR_S)
            minutes = -(-(last - first) // MINUTE_S)
            if hour in covered:
                minutes -= queries.covered_minutes(first, last, "total", TOTAL_EXCHANGE)
            found[hour] += max(0, minutes)
    return found


def _influxdb(record: Record, now_s: float) -> dict[str, Any]:
    influx = record.settings.influx
    if influx is None:
        return {"configured": False, "pending_hours": None, "oldest": None}
    counts, oldest = [], []
    for opened in (record.readings, record.energy):
        try:
            with opened() as queries:
                if queries is not None:
                    count, first = queries.pending(influx.host, influx.org, influx.bucket, start_of("hour", now_s))
                    counts.append(count)
                    oldest += [] if first is None else [first]
        except UnavailableError:
            return {"configured": True, "pending_hours": None, "oldest": None}
    return {"configured": True, "pending_hours": sum(counts), "oldest": iso(min(oldest)) if oldest else None}
