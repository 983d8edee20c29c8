"""The rows of a store: stored, read and deleted as frames. The base of all stores.

Every change of a row gives it a new version, in commit order; `outbox` says what that is for. What only readings have
belongs in `readings`, what only energy has in `energy`.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES, Shape, checked
from aiseg2_pipeline.store.database import DamageFoundError
from aiseg2_pipeline.store.hours import Execute, count_minutes, newest_hour, summarize
from aiseg2_pipeline.store.transactions import (
    ALL_TIMES,
    END_S,
    Transactions,
    datetime_of,
    hour_of,
    meta,
    repeated,
    unix_s,
)

UPSERT_ROW = """
INSERT INTO reading_rows (series_id, time, value, interval_s, version) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (time, series_id) DO UPDATE
SET value = excluded.value, interval_s = excluded.interval_s, version = excluded.version
WHERE value != excluded.value OR interval_s != excluded.interval_s
"""
ADD_ROW = "INSERT OR IGNORE INTO reading_rows (series_id, time, value, interval_s, version) VALUES (?, ?, ?, ?, ?)"
IN_RANGE = "FROM reading_rows WHERE time >= ? AND time < ?"
LAST_LIVE = """
SELECT time FROM reading_rows WHERE interval_s = 0 AND series_id IN (SELECT id FROM series WHERE kind = ?)
ORDER BY time DESC LIMIT 1
"""
TIMES_AFTER = "SELECT DISTINCT time FROM reading_rows WHERE time > ? ORDER BY time LIMIT ?"
NS_PER_S = 1_000_000_000

# The array types of a result's columns.
ROW = [("series_id", "i8"), ("time", "i8"), ("value", "f8"), ("interval_s", "i4")]


@dataclass(frozen=True)
class UpsertResult:
    """The number of given rows, and of those that were new or had another value or interval."""

    rows: int
    changed: int


class Rows(Transactions):
    """The rows of an open store, whose frames have its `shape`."""

    shape: ClassVar[Shape]

    @repeated
    def upsert(self, frame: pd.DataFrame) -> UpsertResult:
        """Store a frame; its rows are on disk on return.

        A row that is stored with the same value and interval keeps its version, so it does not become pending.
        Raises ValueError if the frame has not the store's shape, has a fraction of a second, or gives a series another unit.
        """
        return self._store(frame, UPSERT_ROW)

    @repeated
    def add(self, frame: pd.DataFrame) -> UpsertResult:
        """Store a frame as `upsert` does, but leave existing rows as they are."""
        return self._store(frame, ADD_ROW)

    def _store(self, frame: pd.DataFrame, sql: str) -> UpsertResult:
        times_ns = checked(frame, self.shape)["time"].to_numpy("datetime64[ns]").astype("int64")
        if (times_ns % NS_PER_S).any():
            raise ValueError("the store holds whole seconds: round the times of the frame")
        labels = list(zip(*(frame[label].to_numpy() for label in ("kind", "name", "unit")), strict=True))
        times = (times_ns // NS_PER_S).tolist()
        values, intervals = frame["value"].tolist(), frame["interval_s"].tolist()
        with self._changing((min(times, default=0), max(times, default=0) + 1)) as execute:
            newest = newest_hour(execute)
            before = version = meta(execute, "version")
            changed: dict[int, int] = {}
            for series_id, time, *value in zip(register(execute, labels), times, values, intervals, strict=True):
                if execute(sql, (series_id, time, *value, version + 1)).rowcount:
                    version += 1
                    changed[hour_of(time)] = version
            for hour, hour_version in changed.items():
                count_minutes(execute, hour, hour_version)
            if changed:
                execute("UPDATE meta SET value = ? WHERE key = 'version'", (version,))
                self._summarize(execute, changed, newest)
        return UpsertResult(rows=len(frame), changed=version - before)

    def _summarize(self, execute: Execute, changed: Iterable[int], newest_before: int | None) -> None:
        """Summarize the changed hours that have ended, and the newest one if a later one has begun."""
        newest = newest_hour(execute)
        if self.summarized:
            for hour in {*changed, newest_before} - {newest}:
                if hour is not None:
                    summarize(execute, hour)

    def read(
        self,
        start: datetime,
        end: datetime,
        kinds: Collection[str] | None = None,
        names: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """Return the frame of a range, by time, kind (as in its shape), then first appearance of the name.

        `kinds` and `names` limit it to the series of one of them.
        """
        times = unix_s(start), unix_s(end)
        sql = f"SELECT series_id, time, value, interval_s {IN_RANGE}"
        with self._reading(times) as execute:
            series = sorted(all_series(execute), key=lambda one: self.shape.kinds.index(one.kind))
            if kinds is not None or names is not None:
                chosen = (
                    str(one.id)
                    for one in series
                    if (kinds is None or one.kind in kinds) and (names is None or one.name in names)
                )
                sql += f" AND series_id IN ({', '.join(chosen)})"
            table = table_of(execute(sql, times), ROW)
            place = pd.Series(range(len(series)), index=[one.id for one in series], dtype="float64")
            return frame_of(series, table[np.lexsort((place.reindex(table["series_id"]), table["time"]))])

    def count(self, start: datetime, end: datetime) -> int:
        """Return the number of rows in a range, without loading them."""
        times = unix_s(start), unix_s(end)
        with self._reading(times) as execute:
            return int(execute(f"SELECT count(*) {IN_RANGE}", times).fetchone()[0])

    @repeated
    def delete(self, start: datetime, end: datetime) -> int:
        """Delete the rows of a range and return their number; points in InfluxDB stay."""
        times = unix_s(start), unix_s(end)
        with self._changing(times) as execute:
            return self._delete(execute, *times)

    def _delete(self, execute: Execute, start_s: float, end_s: float) -> int:
        deleted = execute(f"DELETE {IN_RANGE}", (start_s, end_s)).rowcount
        for table in ("hours", "hourly"):
            execute(f"DELETE FROM {table} WHERE hour >= ? AND hour < ?", (hour_of(start_s), end_s))
        # Only the first and the last hour can have rows left; the hour that begins at the end is not in the range.
        edges = {hour for hour in (hour_of(start_s), hour_of(end_s)) if hour < end_s}
        for hour in edges:
            count_minutes(execute, hour)
        self._summarize(execute, edges, None)
        # The newest hour may have been an ended one.
        execute("DELETE FROM hourly WHERE hour >= (SELECT max(hour) FROM hours)")
        return int(deleted)

    def series(self) -> list[tuple[str, str, str]]:
        """Return kind, name and unit of each series, in order of first appearance."""
        with self._reading() as execute:
            return [(one.kind, one.name, one.unit) for one in all_series(execute)]

    @repeated
    def last_time(self) -> datetime | None:
        """Return the time of the latest live total (or temperature), None if there is none."""
        with self._reading() as execute:
            newest = newest_hour(execute) or END_S
        for times in ((newest, END_S), ALL_TIMES):
            with self._reading(times) as execute:
                if row := execute(LAST_LIVE, self.shape.kinds[:1]).fetchone():
                    return datetime_of(row[0])
        return None

    def times_after(self, moment: datetime, limit: int = 1000) -> list[datetime]:
        """Return the first `limit` distinct times of rows later than `moment`, in order."""
        with self._reading((unix_s(moment), END_S)) as execute:
            return [datetime_of(time) for (time,) in execute(TIMES_AFTER, (unix_s(moment), limit))]

    def changed_hours(self, since: int) -> tuple[list[datetime], int]:
        """Return the hours with rows that changed after a version, in order, and the newest version."""
        sql = "SELECT hour FROM hours WHERE max_version > ? ORDER BY hour"
        with self._reading() as execute:
            return [datetime_of(hour) for (hour,) in execute(sql, (since,))], meta(execute, "version")

    def oldest_hour(self) -> datetime | None:
        """Return the first hour (UTC start) with rows, None if there is none."""
        with self._reading() as execute:
            (hour,) = execute("SELECT min(hour) FROM hours").fetchone()
        return None if hour is None else datetime_of(hour)

    def hours_with_rows(self, start: datetime, end: datetime) -> list[datetime]:
        """Return the hours (UTC starts) within or overlapping the range that have rows, in order."""
        sql = "SELECT hour FROM hours WHERE hour >= ? AND hour < ? ORDER BY hour"
        with self._reading() as execute:
            return [datetime_of(hour) for (hour,) in execute(sql, (hour_of(unix_s(start)), unix_s(end)))]


class Series(NamedTuple):
    """A row of `series`."""

    id: int
    kind: str
    name: str
    unit: str


def all_series(execute: Execute) -> list[Series]:
    """Return all series in order of first appearance."""
    return [Series(*row) for row in execute("SELECT id, kind, name, unit FROM series ORDER BY id")]


def register(execute: Execute, labels: Sequence[tuple[str, str, str]]) -> list[int]:
    """Return the series id of each (kind, name, unit), adding new series."""
    known = {(one.kind, one.name): one for one in all_series(execute)}
    for kind, name, unit in labels:
        if (kind, name) not in known:
            sql = "INSERT INTO series (kind, name, unit) VALUES (?, ?, ?)"
            series_id = execute(sql, (kind, name, unit)).lastrowid or 0
            known[kind, name] = Series(series_id, kind, name, unit)
        elif known[kind, name].unit != unit:
            raise ValueError(f"the readings of {kind} {name} are in {known[kind, name].unit!r}, not in {unit!r}")
    return [known[kind, name].id for kind, name, _ in labels]


def table_of(rows: Iterable[tuple[Any, ...]], dtype: list[tuple[str, str]]) -> npt.NDArray[Any]:
    """Return the rows of a result as an array; raise DamageFoundError for values of another type."""
    try:
        return np.fromiter(rows, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DamageFoundError(str(error)) from error


def frame_of(series: Sequence[Series], table: npt.NDArray[Any]) -> pd.DataFrame:
    """Return the rows of a result as a frame, in their order."""
    try:
        labels = pd.DataFrame(series, columns=Series._fields).set_index("id").loc[table["series_id"]]
    except KeyError as error:
        raise DamageFoundError(f"rows of an unknown series, {error}") from error
    columns = {label: labels[label].array for label in ("kind", "name", "unit")}
    columns |= {"time": times_of(table["time"]), "value": table["value"], "interval_s": table["interval_s"]}
    return pd.DataFrame(columns, columns=COLUMNS).astype(DTYPES)


def times_of(seconds: npt.NDArray[np.int64]) -> pd.DatetimeIndex:
    """Return unix seconds as times in UTC."""
    return pd.to_datetime(seconds * NS_PER_S, unit="ns", utc=True)
