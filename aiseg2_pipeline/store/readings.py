"""The store of readings on disk, with the pending rows of each destination.

It is archive and outbox in one. Each change of a row gives it a new version, in commit order, and a destination
acknowledges an hour up to a version, so a row that changes meanwhile stays pending. For a new destination every row is
pending; this needs no extra storage. This module has the readings, `outbox` the pending rows, `circuits` the circuit lists
and `database` the file. InfluxDB's format and requests belong in `influxdb`. The clock is never read here.

Every change is one transaction that is on disk when the call returns; any number of processes may use the store at the
same time. Time ranges are half open, [start, end). Every method raises StoreError if the file cannot be used, and
ValueError for a time without a zone. A Store must not be used after a fork.

A damaged file is replaced by a new one. A method that changes the store is then repeated in the new file; one that only
reads raises ReplacedError, because the caller may have read from the old file before.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from aiseg2_pipeline.frames.readings import READINGS, TOTAL_EXCHANGE, Shape, checked
from aiseg2_pipeline.store.circuits import CircuitLists
from aiseg2_pipeline.store.outbox import (
    BY_SERIES,
    NS_PER_S,
    RECENT,
    ROW,
    Outbox,
    all_series,
    delete_by_series,
    frame_of,
    of_both,
    recent_hour,
    register,
    table_of,
)
from aiseg2_pipeline.store.transactions import datetime_of, hour_of, meta, repeated, unix_s

RECENT_ROWS = "SELECT series_id, time, value, interval_s FROM recent WHERE time >= ? AND time < ?"
READ_SERIES = """
SELECT series_id, time, value, interval_s FROM by_series WHERE series_id = ? AND time >= ? AND time < ?
"""
UPSERT_ROW = """
INSERT INTO {table} (series_id, time, value, interval_s, version) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (series_id, time) DO UPDATE
SET value = excluded.value, interval_s = excluded.interval_s, version = excluded.version
WHERE value != excluded.value OR interval_s != excluded.interval_s
"""
ADD_ROW = """
INSERT OR IGNORE INTO {table} (series_id, time, value, interval_s, version) VALUES (?, ?, ?, ?, ?)
"""
RAISE_HOUR = """
INSERT INTO hours (hour, max_version) VALUES (?, ?)
ON CONFLICT (hour) DO UPDATE SET max_version = excluded.max_version
"""
RECOUNT_HOUR = """
INSERT INTO hours (hour, max_version)
SELECT :hour, max(version) FROM {all_rows} WHERE time >= :hour AND time < :hour + 3600 HAVING count(*) > 0
"""
TIMES_AFTER = """
SELECT DISTINCT time FROM {all_rows} WHERE time > ? ORDER BY time LIMIT ?
"""
LAST_LIVE = "SELECT time FROM {table} WHERE series_id = ? AND interval_s = 0 ORDER BY time DESC LIMIT 1"
LIVE_BEFORE = """
SELECT time FROM {table} WHERE series_id = (SELECT id FROM series WHERE kind = 'total' AND name = ?)
AND interval_s = 0 AND time <= ? ORDER BY time DESC LIMIT 1
"""
LIVE_AFTER = """
SELECT time FROM {table} WHERE series_id = (SELECT id FROM series WHERE kind = 'total' AND name = ?)
AND interval_s = 0 AND time > ? ORDER BY time LIMIT 1
"""
MINUTES = """
SELECT time / 60 * 60 AS minute, min(interval_s) AS interval_s FROM {table}
WHERE series_id = (SELECT id FROM series WHERE kind = 'total' AND name = ?) AND time >= ? AND time < ?
GROUP BY minute
"""
COVERAGE = """
SELECT minute / 3600 * 3600 AS hour, sum(interval_s = 0), sum(interval_s > 0), sum(interval_s = 3600)
FROM ({minutes}) GROUP BY hour
""".replace("{minutes}", MINUTES)


@dataclass(frozen=True)
class UpsertResult:
    """The number of given rows, and of those that were new or had another value or interval."""

    rows: int
    changed: int


class Store(Outbox, CircuitLists):
    """An open store of readings; a context manager that closes it."""

    shape: ClassVar[Shape] = READINGS

    @repeated
    def upsert(self, frame: pd.DataFrame) -> UpsertResult:
        """Store a readings frame; its rows are on disk on return.

        A row that is stored with the same value and interval keeps its version, so it does not become pending.
        Raises ValueError if it is no readings frame, has a fraction of a second, or gives a series another unit.
        """
        return self._store(frame, UPSERT_ROW)

    @repeated
    def add(self, frame: pd.DataFrame) -> UpsertResult:
        """Store a readings frame as `upsert` does, but leave existing rows as they are."""
        return self._store(frame, ADD_ROW)

    def _store(self, frame: pd.DataFrame, sql: str) -> UpsertResult:
        times_ns = checked(frame, self.shape)["time"].to_numpy("datetime64[ns]").astype("int64")
        if (times_ns % NS_PER_S).any():
            raise ValueError("the store holds whole seconds: round the times of the frame")
        labels = list(zip(*(frame[label].to_numpy() for label in ("kind", "name", "unit")), strict=True))
        times = (times_ns // NS_PER_S).tolist()
        values, intervals = frame["value"].tolist(), frame["interval_s"].tolist()
        with self._changing() as execute:
            before = version = meta(execute, "version")
            hours: dict[int, int] = {}
            recent = recent_hour(execute, times, intervals)
            sql_of_recent, sql_of_others = sql.format_map(RECENT), sql.format_map(BY_SERIES)
            for series_id, time, *value in zip(register(execute, labels), times, values, intervals, strict=True):
                hour = hour_of(time)
                row = (series_id, time, *value, version + 1)
                if execute(sql_of_recent if hour == recent else sql_of_others, row).rowcount:
                    version += 1
                    hours[hour] = version
            for hour, max_version in hours.items():
                execute(RAISE_HOUR, (hour, max_version))
            if hours:
                execute("UPDATE meta SET value = ? WHERE key = 'version'", (version,))
        return UpsertResult(rows=len(frame), changed=version - before)

    def read(
        self,
        start: datetime,
        end: datetime,
        kinds: Collection[str] | None = None,
        names: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """Return the readings frame of a range, by time, kind (as in its shape), then first appearance of the name.

        `kinds` and `names` limit it to the series of one of them.
        """
        start_s, end_s = unix_s(start), unix_s(end)
        with self._reading() as execute:
            series = sorted(all_series(execute), key=lambda one: self.shape.kinds.index(one.kind))
            place = {
                one.id: place
                for place, one in enumerate(series)
                if (kinds is None or one.kind in kinds) and (names is None or one.name in names)
            }
            rows: list[tuple[Any, ...]] = []
            for series_id in place:
                rows += execute(READ_SERIES, (series_id, start_s, end_s)).fetchall()
            recent = [row for row in execute(RECENT_ROWS, (start_s, end_s)) if row[0] in place]
            # All rows of a time are in one of the tables, so the order within each is enough.
            table = table_of(rows + sorted(recent, key=lambda row: place[row[0]]), ROW)
            return frame_of(series, table[np.argsort(table["time"], kind="stable")])

    def count(self, start: datetime, end: datetime) -> int:
        """Return the number of rows in a range, without loading them."""
        range_s = unix_s(start), unix_s(end)
        with self._reading() as execute:
            (rows,) = execute("SELECT count(*) FROM recent WHERE time >= ? AND time < ?", range_s).fetchone()
            for one in all_series(execute):
                sql = "SELECT count(*) FROM by_series WHERE series_id = ? AND time >= ? AND time < ?"
                rows += execute(sql, (one.id, *range_s)).fetchone()[0]
        return int(rows)

    @repeated
    def delete(self, start: datetime, end: datetime) -> int:
        """Delete the rows of a range and return their number; points in InfluxDB stay."""
        start_s, end_s = unix_s(start), unix_s(end)
        with self._changing() as execute:
            deleted = delete_by_series(execute, start_s, end_s)
            deleted += execute("DELETE FROM recent WHERE time >= ? AND time < ?", (start_s, end_s)).rowcount
            # Only the first and the last hour can have rows left.
            for hour in {hour_of(start_s), hour_of(end_s)}:
                execute("DELETE FROM hours WHERE hour = ?", (hour,))
                for rows in (BY_SERIES, RECENT):
                    execute(RECOUNT_HOUR.format_map(rows), {"hour": hour})
            execute("DELETE FROM hours WHERE hour >= ? AND hour < ?", (start_s, hour_of(end_s)))
        return deleted

    def series(self) -> list[tuple[str, str, str]]:
        """Return kind, name and unit of each series, in order of first appearance."""
        with self._reading() as execute:
            return [(one.kind, one.name, one.unit) for one in all_series(execute)]

    @repeated
    def last_time(self) -> datetime | None:
        """Return the time of the latest live total (or temperature), None if there is none."""
        with self._reading() as execute:
            first = [one.id for one in all_series(execute) if one.kind == self.shape.kinds[0]]
            times = [row[0] for series_id in first for row in of_both(execute, LAST_LIVE, (series_id,))]
        return datetime_of(max(times)) if times else None

    def live_near(self, moment: datetime) -> datetime | None:
        """Return the time of the last live reading with all totals up to a time, or of the first one after it."""
        with self._reading() as execute:
            for sql, nearest in ((LIVE_BEFORE, max), (LIVE_AFTER, min)):
                if rows := of_both(execute, sql, (TOTAL_EXCHANGE, unix_s(moment))):
                    return datetime_of(nearest(rows)[0])
        return None

    def times_after(self, moment: datetime, limit: int = 1000) -> list[datetime]:
        """Return the first `limit` distinct times of rows later than `moment`, in order."""
        with self._reading() as execute:
            rows = of_both(execute, TIMES_AFTER, (unix_s(moment), limit))
            return [datetime_of(time) for (time,) in sorted(rows)[:limit]]

    def hours_with_rows(self, start: datetime, end: datetime) -> list[datetime]:
        """Return the hours (UTC starts) within or overlapping the range that have rows, in order."""
        sql = "SELECT hour FROM hours WHERE hour >= ? AND hour < ? ORDER BY hour"
        with self._reading() as execute:
            return [datetime_of(hour) for (hour,) in execute(sql, (hour_of(unix_s(start)), unix_s(end)))]

    def minutes(self, start: datetime, end: datetime) -> dict[datetime, int]:
        """Return the covered minutes of the range, each with its shortest interval (s): 0 for a live reading."""
        with self._reading() as execute:
            rows = of_both(execute, MINUTES, (TOTAL_EXCHANGE, unix_s(start), unix_s(end)))
            return {datetime_of(minute): interval_s for minute, interval_s in rows}

    def coverage(self, start: datetime, end: datetime) -> dict[datetime, tuple[int, int, int]]:
        """Return for each hour (UTC start) the number of live minutes, filled ones, and those filled by an hour's mean."""
        with self._reading() as execute:
            rows = of_both(execute, COVERAGE, (TOTAL_EXCHANGE, unix_s(start), unix_s(end)))
            return {datetime_of(hour): (live, filled, by_hour) for hour, live, filled, by_hour in rows}
