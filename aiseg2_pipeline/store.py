"""The store: every reading on disk, and for each destination what it has not acknowledged yet.

It is archive and outbox in one. Each change of a row gives it a new version, in commit order, and a destination
acknowledges an hour up to a version: a row changed meanwhile has a larger one and stays pending, and a destination
never seen before owes everything at no cost. The file itself is `store_file.py`'s matter; how a row becomes a
point, and talking to a server, belong elsewhere. The clock is never read here.

Every change is one transaction that is on disk when the call returns; any number of processes may work at once.
Ranges of time are half open, [start, end). Every method raises StoreError where the file cannot be used, and
ValueError for a time without a zone. A Store must not be carried over a fork.

Where the file is found damaged, it is replaced by a new one: what changes the store does its work in that, what reads
raises ReplacedError, because what was read before was of another file.
"""

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.climate import CLIMATE
from aiseg2_pipeline.energy import ENERGY
from aiseg2_pipeline.readings import COLUMNS, DTYPES, READINGS, TOTAL_EXCHANGE, Shape, checked
from aiseg2_pipeline.store_file import DamageFoundError, ReplacedError, Say, StoreError, StoreFile

__all__ = ["ClimateStore", "Destination", "EnergyStore", "PendingBatch", "Store", "StoreError", "UpsertResult"]

HOUR_S = 3600
NS_PER_S = 1_000_000_000
BEGINNING_S = -(1 << 53)
END_S = 1 << 53
NO_LIMIT = -1

# How the columns of a result become arrays.
ROW = [("series_id", "i8"), ("time", "i8"), ("value", "f8"), ("interval_s", "i4")]

# Where rows are, which is put in the place of {table}, and of {all_rows} where all series are meant. CROSS JOIN keeps SQLite to this order:
# each series is one seek and one contiguous read.
BY_SERIES = {"table": "by_series", "all_rows": "series CROSS JOIN by_series ON series_id = id"}
RECENT = {"table": "recent", "all_rows": "recent"}
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
FROM_RECENT = """
INSERT INTO by_series (series_id, time, value, interval_s, version)
SELECT series_id, time, value, interval_s, version FROM recent ORDER BY series_id, time
"""
TO_RECENT = """
INSERT INTO recent (series_id, time, value, interval_s, version)
SELECT series_id, time, value, interval_s, version FROM series CROSS JOIN by_series ON series_id = id
WHERE time >= :hour AND time < :hour + 3600
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
CIRCUITS_AT = """
SELECT circuit_id, name FROM circuits WHERE valid_from <= :time AND (valid_to IS NULL OR valid_to > :time) ORDER BY rowid
"""
MINUTES = """
SELECT time / 60 * 60 AS minute, min(interval_s) FROM {table}
WHERE series_id = (SELECT id FROM series WHERE kind = 'total' AND name = ?) AND time >= ? AND time < ?
GROUP BY minute
"""
COVERAGE = """
SELECT minute / 3600 * 3600 AS hour, sum(interval_s = 0), sum(interval_s > 0), sum(interval_s = 3600) FROM (
    SELECT time / 60 * 60 AS minute, min(interval_s) AS interval_s FROM {table}
    WHERE series_id = (SELECT id FROM series WHERE kind = 'total' AND name = ?) AND time >= ? AND time < ?
    GROUP BY minute
) GROUP BY hour
"""
OLDEST_ENERGY = (
    "SELECT min(time) FROM {table} WHERE series_id = (SELECT id FROM series WHERE kind = 'consumption')"
)
PENDING_HOURS = """
SELECT hours.hour FROM hours LEFT JOIN acknowledged
ON acknowledged.hour = hours.hour AND destination_id = ?
WHERE max_version > coalesce(version, 0) AND hours.hour >= ? AND hours.hour < ?
ORDER BY hours.hour LIMIT ?
"""
PENDING_ROWS = """
SELECT series_id, time, value, interval_s, version FROM {all_rows}
WHERE time >= :hour AND time < :hour + 3600 AND version >
    coalesce((SELECT version FROM acknowledged WHERE destination_id = :destination AND hour = :hour), 0)
ORDER BY version LIMIT :limit
"""
ACKNOWLEDGE = """
INSERT INTO acknowledged (destination_id, hour, version) VALUES (?, ?, ?)
ON CONFLICT (destination_id, hour) DO UPDATE SET version = max(version, excluded.version)
"""
DROP_SET_ASIDE = """
DELETE FROM set_aside WHERE destination_id = ? AND hour = ? AND last_version >= ? AND first_version <= ?
"""
SET_ASIDE_ROWS = """
SELECT series_id, time, value, interval_s, reason, at FROM set_aside CROSS JOIN {all_rows}
WHERE destination_id = ? AND time >= hour AND time < hour + 3600
    AND version BETWEEN first_version AND last_version
ORDER BY hour, version LIMIT ?
"""


@dataclass(frozen=True)
class Destination:
    """Where rows are sent; what is pending is counted for each of these apart."""

    host: str
    org: str
    bucket: str


@dataclass(frozen=True)
class UpsertResult:
    """How many rows were given, and how many of them were new or had another value or interval."""

    rows: int
    changed: int


@dataclass(frozen=True)
class PendingBatch:
    """Pending rows: a readings frame ordered by hour, then version, with each row's version and hour (unix s).

    `resends` is how often rows had been marked for resending when the batch was made.
    """

    frame: pd.DataFrame
    versions: npt.NDArray[np.int64]
    hours: npt.NDArray[np.int64]
    resends: int


class _Series(NamedTuple):
    """A row of `series`."""

    id: int
    kind: str
    name: str
    unit: str


_Execute = Callable[..., sqlite3.Cursor]
_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound="Store")


def _again(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Let a method, one transaction, do its work in the file that has replaced a damaged one."""

    @functools.wraps(method)
    def done(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        # Once for a file that another process has replaced, once for one that is damaged.
        for _ in range(2):
            with contextlib.suppress(ReplacedError):
                return method(self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return done


class Store:
    """An open store of readings; a context manager that closes it."""

    shape: ClassVar[Shape] = READINGS

    def __init__(self, file: StoreFile) -> None:
        """Take over an open file; use `Store.open`."""
        self.path = file.path
        self._file = file
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path, say: Say | None = None) -> Self:
        """Open the store at `path`; a new file, and a new folder for it, are for this user alone.

        `say` gets a sentence when the file is damaged and a new one takes its place (default: it is logged as a warning).
        """
        return cls(StoreFile(path, say))

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    # Readings

    @_again
    def upsert(self, frame: pd.DataFrame) -> UpsertResult:
        """Store a readings frame; on return its rows are on disk.

        A row whose value and interval are stored already keeps its version, so it does not become pending.
        Raises ValueError for what is no readings frame, holds a part of a second, or gives a series a new unit.
        """
        return self._store(frame, UPSERT_ROW)

    @_again
    def add(self, frame: pd.DataFrame) -> UpsertResult:
        """Do as `upsert`, but a row that is there stays as it is."""
        return self._store(frame, ADD_ROW)

    def _store(self, frame: pd.DataFrame, sql: str) -> UpsertResult:
        times_ns = checked(frame, self.shape)["time"].to_numpy("datetime64[ns]").astype("int64")
        if (times_ns % NS_PER_S).any():
            raise ValueError("the store holds whole seconds: round the times of the frame")
        labels = list(zip(*(frame[label].to_numpy() for label in ("kind", "name", "unit")), strict=True))
        times = (times_ns // NS_PER_S).tolist()
        values, intervals = frame["value"].tolist(), frame["interval_s"].tolist()
        with self._changing() as execute:
            before = version = _meta(execute, "version")
            hours: dict[int, int] = {}
            recent = _recent_hour(execute, times, intervals)
            sql_of_recent, sql_of_others = sql.format_map(RECENT), sql.format_map(BY_SERIES)
            for series_id, time, *value in zip(_register(execute, labels), times, values, intervals, strict=True):
                hour = _hour(time)
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
        """Return the readings frame of a range, by time, kind (as in its shape), and order of first sight of the name.

        `kinds` and `names` keep the series that are of one of them.
        """
        start_s, end_s = _unix_s(start), _unix_s(end)
        with self._reading() as execute:
            series = sorted(_series(execute), key=lambda one: self.shape.kinds.index(one.kind))
            place = {
                one.id: place
                for place, one in enumerate(series)
                if (kinds is None or one.kind in kinds) and (names is None or one.name in names)
            }
            rows: list[tuple[Any, ...]] = []
            for series_id in place:
                rows += execute(READ_SERIES, (series_id, start_s, end_s)).fetchall()
            recent = [row for row in execute(RECENT_ROWS, (start_s, end_s)) if row[0] in place]
            # All rows of a time are of one of the two, so that each may be in the order of the series.
            table = _table(rows + sorted(recent, key=lambda row: place[row[0]]), ROW)
            return _frame(series, table[np.argsort(table["time"], kind="stable")])

    @_again
    def delete(self, start: datetime, end: datetime) -> int:
        """Remove the rows of a range; return how many there were. What InfluxDB holds of them stays there."""
        start_s, end_s = _unix_s(start), _unix_s(end)
        with self._changing() as execute:
            deleted = 0
            for one in _series(execute):
                sql = "DELETE FROM by_series WHERE series_id = ? AND time >= ? AND time < ?"
                deleted += execute(sql, (one.id, start_s, end_s)).rowcount
            deleted += execute("DELETE FROM recent WHERE time >= ? AND time < ?", (start_s, end_s)).rowcount
            # Only the hours at the two ends can have rows left.
            for hour in {_hour(start_s), _hour(end_s)}:
                execute("DELETE FROM hours WHERE hour = ?", (hour,))
                for rows in (BY_SERIES, RECENT):
                    execute(RECOUNT_HOUR.format_map(rows), {"hour": hour})
            execute("DELETE FROM hours WHERE hour >= ? AND hour < ?", (start_s, _hour(end_s)))
        return deleted

    def series(self) -> list[tuple[str, str, str]]:
        """Return kind, name and unit of each series, in order of first sight."""
        with self._reading() as execute:
            return [(one.kind, one.name, one.unit) for one in _series(execute)]

    @_again
    def last_time(self) -> datetime | None:
        """Return when the latest live total (or temperature) was read, None where there is none."""
        with self._reading() as execute:
            first = [one.id for one in _series(execute) if one.kind == self.shape.kinds[0]]
            times = [row[0] for series_id in first for row in _of_both(execute, LAST_LIVE, (series_id,))]
        return _datetime(max(times)) if times else None

    def live_near(self, moment: datetime) -> datetime | None:
        """Return the time of the last live reading with all totals until then, else of the first one after it."""
        with self._reading() as execute:
            for sql, nearest in ((LIVE_BEFORE, max), (LIVE_AFTER, min)):
                if rows := _of_both(execute, sql, (TOTAL_EXCHANGE, _unix_s(moment))):
                    return _datetime(nearest(rows)[0])
        return None

    def times_after(self, moment: datetime, limit: int = 1000) -> list[datetime]:
        """Return the first `limit` different times of rows later than `moment`, in order."""
        with self._reading() as execute:
            rows = _of_both(execute, TIMES_AFTER, (_unix_s(moment), limit))
            return [_datetime(time) for (time,) in sorted(rows)[:limit]]

    def hours_with_rows(self, start: datetime, end: datetime) -> list[datetime]:
        """Return the hours (UTC starts) that the range touches and that have rows, in order."""
        sql = "SELECT hour FROM hours WHERE hour >= ? AND hour < ? ORDER BY hour"
        with self._reading() as execute:
            return [_datetime(hour) for (hour,) in execute(sql, (_hour(_unix_s(start)), _unix_s(end)))]

    def minutes(self, start: datetime, end: datetime) -> dict[datetime, int]:
        """Return the covered minutes of the range, each with the interval (s) it is known by: 0 for a live reading."""
        with self._reading() as execute:
            rows = _of_both(execute, MINUTES, (TOTAL_EXCHANGE, _unix_s(start), _unix_s(end)))
            return {_datetime(minute): interval_s for minute, interval_s in rows}

    def coverage(self, start: datetime, end: datetime) -> dict[datetime, tuple[int, int, int]]:
        """Return by hour (UTC start) how many minutes were read live, were filled, and of those with an hour's mean."""
        with self._reading() as execute:
            rows = _of_both(execute, COVERAGE, (TOTAL_EXCHANGE, _unix_s(start), _unix_s(end)))
            return {_datetime(hour): (live, filled, by_hour) for hour, live, filled, by_hour in rows}

    # What a destination owes

    def pending_hours(
        self,
        destination: Destination,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
    ) -> list[datetime]:
        """Return the hours (UTC starts) that the range touches and that have pending rows, oldest first."""
        start_s = BEGINNING_S if start is None else _hour(_unix_s(start))
        end_s = END_S if end is None else _unix_s(end)
        with self._reading() as execute:
            destination_id = _destination_id(execute, destination)
            rows = execute(PENDING_HOURS, (destination_id, start_s, end_s, NO_LIMIT if limit is None else limit))
            return [_datetime(hour) for (hour,) in rows]

    def pending_count(self, destination: Destination) -> int:
        """Return the number of hours with pending rows."""
        return len(self.pending_hours(destination))

    def pending_rows(self, destination: Destination, hours: Sequence[datetime], limit: int) -> PendingBatch:
        """Return at most `limit` pending rows of these hours (UTC starts), by hour, then version."""
        with self._reading() as execute:
            resends = _meta(execute, "resends")
            series = _series(execute)
            parameters: dict[str, Any] = {"destination": _destination_id(execute, destination)}
            rows: list[tuple[Any, ...]] = []
            for hour in sorted({_hour(_unix_s(hour)) for hour in hours}):
                if len(rows) < limit:
                    parameters |= {"hour": hour, "limit": limit - len(rows)}
                    rows += _of_both(execute, PENDING_ROWS, parameters)
            table = _table(rows, [*ROW, ("version", "i8")])
            return PendingBatch(_frame(series, table), table["version"], table["time"] // HOUR_S * HOUR_S, resends)

    @_again
    def acknowledge(self, destination: Destination, batch: PendingBatch, upto: int) -> None:
        """Take the first `upto` rows of the batch as settled: written, or set aside.

        Nothing happens when rows were marked for resending after the batch was made: it may have been written
        before the bucket was emptied, so all of it is sent again.
        """
        # Versions rise within an hour, so the last one seen of it stands.
        last = dict(zip(batch.hours[:upto].tolist(), batch.versions[:upto].tolist(), strict=True))
        with self._changing() as execute:
            if batch.resends != _meta(execute, "resends"):
                return
            destination_id = _registered(execute, destination)
            for hour, version in last.items():
                execute(ACKNOWLEDGE, (destination_id, hour, version))

    @_again
    def set_aside(
        self, destination: Destination, batch: PendingBatch, start: int, stop: int, reason: str, at: datetime
    ) -> None:
        """Note that the server will never take rows [start, stop) of the batch, and why; `acknowledge` follows.

        A row that changes afterwards is no longer set aside. As in `acknowledge`, resending comes first.
        """
        hours, versions = batch.hours[start:stop], batch.versions[start:stop]
        with self._changing() as execute:
            if batch.resends != _meta(execute, "resends"):
                return
            destination_id = _registered(execute, destination)
            for hour in np.unique(hours).tolist():
                of_hour = versions[hours == hour].tolist()
                key = (destination_id, hour, of_hour[0])
                # What a run that was cut off noted about these rows is replaced.
                execute(DROP_SET_ASIDE, (*key, of_hour[-1]))
                values = (*key, of_hour[-1], clean_name(reason), int(_unix_s(at)))
                execute("INSERT INTO set_aside VALUES (?, ?, ?, ?, ?, ?)", values)

    def set_aside_rows(self, destination: Destination, limit: int = 10_000) -> pd.DataFrame:
        """Return the rows set aside, at most `limit`, by hour, then version.

        A readings frame's columns, then `reason` (str) and `at` (datetime64[ns, UTC]).
        """
        with self._reading() as execute:
            rows = _of_both(execute, SET_ASIDE_ROWS, (_destination_id(execute, destination), limit))
            # By hour again; within one the order is right, because its rows are all of one place.
            rows = sorted(rows, key=lambda row: _hour(row[1]))[:limit]
            table = _table(rows, [*ROW, ("reason", "O"), ("at", "i8")])
            frame = _frame(_series(execute), table)
        frame["reason"] = pd.Series(table["reason"], dtype="str")
        frame["at"] = _times(table["at"])
        return frame

    @_again
    def resend(
        self, start: datetime | None = None, end: datetime | None = None, destination: Destination | None = None
    ) -> int:
        """Mark all rows of the hours that the range touches as pending, rows set aside included.

        For one destination, or for all. Returns the number of these hours that have rows.
        """
        start_s = BEGINNING_S if start is None else _hour(_unix_s(start))
        end_s = END_S if end is None else _unix_s(end)
        with self._changing() as execute:
            if destination is None:
                destination_ids = [row[0] for row in execute("SELECT id FROM destinations")]
            else:
                destination_ids = [_destination_id(execute, destination)]
            for destination_id in destination_ids:
                of_range = (destination_id, start_s, end_s)
                execute("DELETE FROM acknowledged WHERE destination_id = ? AND hour >= ? AND hour < ?", of_range)
                execute("DELETE FROM set_aside WHERE destination_id = ? AND hour >= ? AND hour < ?", of_range)
            execute("UPDATE meta SET value = value + 1 WHERE key = 'resends'")
            hours = execute("SELECT count(*) FROM hours WHERE hour >= ? AND hour < ?", (start_s, end_s))
            return int(hours.fetchone()[0])

    # The circuit list

    @_again
    def record_circuits(self, circuits: Collection[Circuit], at: datetime) -> None:
        """Note that `circuits` is the list in force at `at`; nothing is written where it is so already.

        What had been noted for times after `at` is dropped: the clock was wrong then.
        """
        at_s = int(_unix_s(at))
        with self._changing() as execute:
            execute("DELETE FROM circuits WHERE valid_from >= ?", (at_s,))
            execute("UPDATE circuits SET valid_to = NULL WHERE valid_to >= ?", (at_s,))
            in_force = _in_force(execute)
            for circuit in in_force - set(circuits):
                sql = "UPDATE circuits SET valid_to = ? WHERE circuit_id = ? AND name = ? AND valid_to IS NULL"
                execute(sql, (at_s, circuit.circuit_id, circuit.name))
            for circuit in dict.fromkeys(circuits):
                if circuit not in in_force:
                    execute(
                        "INSERT INTO circuits VALUES (?, ?, ?, NULL)", (circuit.circuit_id, circuit.name, at_s)
                    )

    def circuits_at(self, time: datetime) -> list[Circuit]:
        """Return the circuits in force at a time, in the order they were noted; the first ones before that."""
        with self._reading() as execute:
            first = execute("SELECT min(valid_from) FROM circuits").fetchone()[0]
            return (
                []
                if first is None
                else [Circuit(*row) for row in execute(CIRCUITS_AT, {"time": max(first, _unix_s(time))})]
            )

    @_again
    def add_circuits(self, past: Collection[tuple[str, str, int, int | None]]) -> None:
        """Add a past of circuits (id, name, valid from, valid to; unix s) before the first list noted here.

        What was in force until then ends with that list.
        """
        with self._changing() as execute:
            (first,) = execute("SELECT min(valid_from) FROM circuits").fetchone()
            for circuit_id, name, valid_from, valid_to in past:
                if first is None or valid_from < first:
                    ends = [end for end in (valid_to, first) if end is not None]
                    values = (circuit_id, name, valid_from, min(ends, default=None))
                    execute("INSERT INTO circuits VALUES (?, ?, ?, ?)", values)

    # The file

    @_again
    def check(self) -> None:
        """Raise StoreError unless the store can be read and written now."""
        with self._changing() as execute:
            execute("UPDATE meta SET value = value")

    def look_over(self) -> None:
        """Read the whole file for damage; raise ReplacedError where there is any.

        It takes as long as reading the file does, seconds for a year; others go on meanwhile.
        """
        with self._reading() as execute:
            (found,) = execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DamageFoundError(found)

    def _reading(self) -> contextlib.AbstractContextManager[_Execute]:
        """One state of the file for everything read inside."""
        return self._transaction("BEGIN")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_Execute]:
        """All or nothing of what is written inside, and nobody else writes meanwhile."""
        with self._transaction("BEGIN IMMEDIATE") as execute:
            yield execute
        # Written to a file that was put aside meanwhile, it is not in the record.
        self._file.follow()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[_Execute]:
        with self._lock:
            self._file.follow()
            with self._file.guarded():
                connection = self._file.connection
                connection.execute(begin)
                try:
                    yield connection.execute
                    connection.execute("COMMIT")
                except BaseException:
                    # SQLite has rolled back by itself after some errors; and that this fails too, tells less than the error.
                    if connection.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                    raise


class EnergyStore(Store):
    """An open store of the device's energy: the same file format and the same promises for energy frames."""

    shape = ENERGY

    def oldest(self) -> datetime | None:
        """Return the first hour whose consumption the device has told, None where there is none."""
        with self._reading() as execute:
            times = [time for (time,) in _of_both(execute, OLDEST_ENERGY) if time is not None]
            return _datetime(min(times)) if times else None


class ClimateStore(Store):
    """An open store of the rooms' climate: the same file format and the same promises for climate frames."""

    shape = CLIMATE


def _meta(execute: _Execute, key: str) -> int:
    return int(execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def _of_both(execute: _Execute, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
    """Return the rows that a question has of both places, those of `recent` last."""
    return [row for place in (BY_SERIES, RECENT) for row in execute(sql.format_map(place), parameters)]


def _recent_hour(execute: _Execute, times: Sequence[int], intervals: Sequence[int]) -> int | None:
    """Return the hour that `recent` has the rows of; it becomes that of these rows where they are live ones of one hour."""
    (first,) = execute("SELECT min(time) FROM recent").fetchone()
    recent = None if first is None else _hour(first)
    hours = {_hour(time) for time in times}
    if hours == {recent} or len(hours) != 1 or 0 not in intervals:
        return recent
    (hour,) = hours
    execute(FROM_RECENT)
    execute("DELETE FROM recent")
    execute(TO_RECENT, {"hour": hour})
    for one in _series(execute):
        execute(
            "DELETE FROM by_series WHERE series_id = ? AND time >= ? AND time < ?", (one.id, hour, hour + HOUR_S)
        )
    return hour


def _series(execute: _Execute) -> list[_Series]:
    """Return all series in order of first sight."""
    return [_Series(*row) for row in execute("SELECT id, kind, name, unit FROM series ORDER BY id")]


def _register(execute: _Execute, labels: Sequence[tuple[str, str, str]]) -> list[int]:
    """Return the series id of each (kind, name, unit), making those that are new."""
    known = {(one.kind, one.name): one for one in _series(execute)}
    for kind, name, unit in labels:
        if (kind, name) not in known:
            sql = "INSERT INTO series (kind, name, unit) VALUES (?, ?, ?)"
            series_id = execute(sql, (kind, name, unit)).lastrowid or 0
            known[kind, name] = _Series(series_id, kind, name, unit)
        elif known[kind, name].unit != unit:
            raise ValueError(f"the readings of {kind} {name} are in {known[kind, name].unit!r}, not in {unit!r}")
    return [known[kind, name].id for kind, name, _ in labels]


def _destination_id(execute: _Execute, destination: Destination) -> int | None:
    """Return the id, None where the destination has never acknowledged anything."""
    sql = "SELECT id FROM destinations WHERE host = ? AND org = ? AND bucket = ?"
    row = execute(sql, astuple(destination)).fetchone()
    return None if row is None else int(row[0])


def _registered(execute: _Execute, destination: Destination) -> int | None:
    execute("INSERT OR IGNORE INTO destinations (host, org, bucket) VALUES (?, ?, ?)", astuple(destination))
    return _destination_id(execute, destination)


def _in_force(execute: _Execute) -> set[Circuit]:
    return {Circuit(*row) for row in execute("SELECT circuit_id, name FROM circuits WHERE valid_to IS NULL")}


def _table(rows: list[tuple[Any, ...]], dtype: list[tuple[str, str]]) -> npt.NDArray[Any]:
    """Return a result's rows as an array."""
    try:
        return np.array(rows, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DamageFoundError(str(error)) from error


def _frame(series: Sequence[_Series], table: npt.NDArray[Any]) -> pd.DataFrame:
    """Return a result's rows as a readings frame, in their order."""
    try:
        labels = pd.DataFrame(series, columns=_Series._fields).set_index("id").loc[table["series_id"]]
    except KeyError as error:
        raise DamageFoundError(f"rows of an unknown series, {error}") from error
    columns = {
        "time": _times(table["time"]),
        "kind": labels["kind"].array,
        "name": labels["name"].array,
        "value": table["value"],
        "unit": labels["unit"].array,
        "interval_s": table["interval_s"],
    }
    return pd.DataFrame(columns, columns=COLUMNS).astype(DTYPES)


def _times(seconds: npt.NDArray[np.int64]) -> pd.DatetimeIndex:
    return pd.to_datetime(seconds * NS_PER_S, unit="ns", utc=True)


def _hour(unix_s: float) -> int:
    """Return the start of the hour; Tokyo's hours start when UTC's do."""
    return int(unix_s // HOUR_S) * HOUR_S


def _unix_s(moment: datetime) -> float:
    if moment.tzinfo is None:
        raise ValueError(f"the store needs a time with its zone, not {moment}")
    return moment.timestamp()


def _datetime(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)
