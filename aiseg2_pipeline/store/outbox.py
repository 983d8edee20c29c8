"""The rows of a store as SQLite keeps them, and which of them are pending for a destination or set aside.

A destination acknowledges an hour up to a version; nothing else is stored for it, so for a new destination every row is
pending at no cost. The rows of one hour are in the table `recent`, all others in `by_series`; `schema` says why.
Delivery belongs in `influxdb/delivery`.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES
from aiseg2_pipeline.store.database import DamageFoundError
from aiseg2_pipeline.store.transactions import (
    BEGINNING_S,
    END_S,
    HOUR_S,
    Execute,
    Transactions,
    again,
    datetime_of,
    hour_of,
    meta,
    unix_s,
)

NO_LIMIT = -1

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
NS_PER_S = 1_000_000_000

# How the columns of a result become arrays.
ROW = [("series_id", "i8"), ("time", "i8"), ("value", "f8"), ("interval_s", "i4")]

# Where rows are, which is put in the place of {table}, and of {all_rows} where all series are meant. CROSS JOIN keeps SQLite to this order:
# each series is one seek and one contiguous read.
BY_SERIES = {"table": "by_series", "all_rows": "series CROSS JOIN by_series ON series_id = id"}
RECENT = {"table": "recent", "all_rows": "recent"}

FROM_RECENT = """
INSERT INTO by_series (series_id, time, value, interval_s, version)
SELECT series_id, time, value, interval_s, version FROM recent ORDER BY series_id, time
"""
TO_RECENT = """
INSERT INTO recent (series_id, time, value, interval_s, version)
SELECT series_id, time, value, interval_s, version FROM series CROSS JOIN by_series ON series_id = id
WHERE time >= :hour AND time < :hour + 3600
"""


@dataclass(frozen=True)
class Destination:
    """Where rows are sent; what is pending is counted for each of these apart."""

    host: str
    org: str
    bucket: str


@dataclass(frozen=True)
class PendingBatch:
    """Pending rows: a readings frame ordered by hour, then version, with each row's version and hour (unix s).

    `resends` is how often rows had been marked for resending when the batch was made.
    """

    frame: pd.DataFrame
    versions: npt.NDArray[np.int64]
    hours: npt.NDArray[np.int64]
    resends: int


class Outbox(Transactions):
    """What is pending, for each destination apart."""

    def pending_hours(
        self,
        destination: Destination,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
    ) -> list[datetime]:
        """Return the hours (UTC starts) that the range touches and that have pending rows, oldest first."""
        start_s = BEGINNING_S if start is None else hour_of(unix_s(start))
        end_s = END_S if end is None else unix_s(end)
        with self._reading() as execute:
            destination_id = _destination_id(execute, destination)
            rows = execute(PENDING_HOURS, (destination_id, start_s, end_s, NO_LIMIT if limit is None else limit))
            return [datetime_of(hour) for (hour,) in rows]

    def pending_count(self, destination: Destination) -> int:
        """Return the number of hours with pending rows."""
        return len(self.pending_hours(destination))

    def pending_rows(self, destination: Destination, hours: Sequence[datetime], limit: int) -> PendingBatch:
        """Return at most `limit` pending rows of these hours (UTC starts), by hour, then version."""
        with self._reading() as execute:
            resends = meta(execute, "resends")
            series = all_series(execute)
            parameters: dict[str, Any] = {"destination": _destination_id(execute, destination)}
            rows: list[tuple[Any, ...]] = []
            for hour in sorted({hour_of(unix_s(hour)) for hour in hours}):
                if len(rows) < limit:
                    parameters |= {"hour": hour, "limit": limit - len(rows)}
                    rows += of_both(execute, PENDING_ROWS, parameters)
            table = table_of(rows, [*ROW, ("version", "i8")])
            return PendingBatch(
                frame_of(series, table), table["version"], table["time"] // HOUR_S * HOUR_S, resends
            )

    @again
    def acknowledge(self, destination: Destination, batch: PendingBatch, upto: int) -> None:
        """Take the first `upto` rows of the batch as settled: written, or set aside.

        Nothing happens when rows were marked for resending after the batch was made: it may have been written
        before the bucket was emptied, so all of it is sent again.
        """
        # Versions rise within an hour, so the last one seen of it stands.
        last = dict(zip(batch.hours[:upto].tolist(), batch.versions[:upto].tolist(), strict=True))
        with self._changing() as execute:
            if batch.resends != meta(execute, "resends"):
                return
            destination_id = _registered(execute, destination)
            for hour, version in last.items():
                execute(ACKNOWLEDGE, (destination_id, hour, version))

    @again
    def set_aside(
        self, destination: Destination, batch: PendingBatch, start: int, stop: int, reason: str, at: datetime
    ) -> None:
        """Note that the server will never take rows [start, stop) of the batch, and why; `acknowledge` follows.

        A row that changes afterwards is no longer set aside. As in `acknowledge`, resending comes first.
        """
        hours, versions = batch.hours[start:stop], batch.versions[start:stop]
        with self._changing() as execute:
            if batch.resends != meta(execute, "resends"):
                return
            destination_id = _registered(execute, destination)
            for hour in np.unique(hours).tolist():
                of_hour = versions[hours == hour].tolist()
                key = (destination_id, hour, of_hour[0])
                # What a run that was cut off noted about these rows is replaced.
                execute(DROP_SET_ASIDE, (*key, of_hour[-1]))
                values = (*key, of_hour[-1], reason, int(unix_s(at)))
                execute("INSERT INTO set_aside VALUES (?, ?, ?, ?, ?, ?)", values)

    def set_aside_rows(self, destination: Destination, limit: int = 10_000) -> pd.DataFrame:
        """Return the rows set aside, at most `limit`, by hour, then version.

        A readings frame's columns, then `reason` (str) and `at` (datetime64[ns, UTC]).
        """
        with self._reading() as execute:
            rows = of_both(execute, SET_ASIDE_ROWS, (_destination_id(execute, destination), limit))
            # By hour again; within one the order is right, because its rows are all of one place.
            rows = sorted(rows, key=lambda row: hour_of(row[1]))[:limit]
            table = table_of(rows, [*ROW, ("reason", "O"), ("at", "i8")])
            frame = frame_of(all_series(execute), table)
        frame["reason"] = pd.Series(table["reason"], dtype="str")
        frame["at"] = times_of(table["at"])
        return frame

    @again
    def resend(
        self, start: datetime | None = None, end: datetime | None = None, destination: Destination | None = None
    ) -> int:
        """Mark all rows of the hours that the range touches as pending, rows set aside included.

        For one destination, or for all. Returns the number of these hours that have rows.
        """
        start_s = BEGINNING_S if start is None else hour_of(unix_s(start))
        end_s = END_S if end is None else unix_s(end)
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


def _destination_id(execute: Execute, destination: Destination) -> int | None:
    """Return the id, None where the destination has never acknowledged anything."""
    sql = "SELECT id FROM destinations WHERE host = ? AND org = ? AND bucket = ?"
    row = execute(sql, astuple(destination)).fetchone()
    return None if row is None else int(row[0])


def _registered(execute: Execute, destination: Destination) -> int | None:
    execute("INSERT OR IGNORE INTO destinations (host, org, bucket) VALUES (?, ?, ?)", astuple(destination))
    return _destination_id(execute, destination)


class Series(NamedTuple):
    """A row of `series`."""

    id: int
    kind: str
    name: str
    unit: str


def of_both(execute: Execute, sql: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
    """Return the rows that a question has of both places, those of `recent` last."""
    return [row for place in (BY_SERIES, RECENT) for row in execute(sql.format_map(place), parameters)]


def recent_hour(execute: Execute, times: Sequence[int], intervals: Sequence[int]) -> int | None:
    """Return the hour that `recent` has the rows of; it becomes that of these rows where they are live ones of one hour."""
    (first,) = execute("SELECT min(time) FROM recent").fetchone()
    recent = None if first is None else hour_of(first)
    hours = {hour_of(time) for time in times}
    if hours == {recent} or len(hours) != 1 or 0 not in intervals:
        return recent
    (hour,) = hours
    execute(FROM_RECENT)
    execute("DELETE FROM recent")
    execute(TO_RECENT, {"hour": hour})
    for one in all_series(execute):
        execute(
            "DELETE FROM by_series WHERE series_id = ? AND time >= ? AND time < ?", (one.id, hour, hour + HOUR_S)
        )
    return hour


def all_series(execute: Execute) -> list[Series]:
    """Return all series in order of first sight."""
    return [Series(*row) for row in execute("SELECT id, kind, name, unit FROM series ORDER BY id")]


def register(execute: Execute, labels: Sequence[tuple[str, str, str]]) -> list[int]:
    """Return the series id of each (kind, name, unit), making those that are new."""
    known = {(one.kind, one.name): one for one in all_series(execute)}
    for kind, name, unit in labels:
        if (kind, name) not in known:
            sql = "INSERT INTO series (kind, name, unit) VALUES (?, ?, ?)"
            series_id = execute(sql, (kind, name, unit)).lastrowid or 0
            known[kind, name] = Series(series_id, kind, name, unit)
        elif known[kind, name].unit != unit:
            raise ValueError(f"the readings of {kind} {name} are in {known[kind, name].unit!r}, not in {unit!r}")
    return [known[kind, name].id for kind, name, _ in labels]


def table_of(rows: list[tuple[Any, ...]], dtype: list[tuple[str, str]]) -> npt.NDArray[Any]:
    """Return a result's rows as an array."""
    try:
        return np.array(rows, dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise DamageFoundError(str(error)) from error


def frame_of(series: Sequence[Series], table: npt.NDArray[Any]) -> pd.DataFrame:
    """Return a result's rows as a readings frame, in their order."""
    try:
        labels = pd.DataFrame(series, columns=Series._fields).set_index("id").loc[table["series_id"]]
    except KeyError as error:
        raise DamageFoundError(f"rows of an unknown series, {error}") from error
    columns = {
        "time": times_of(table["time"]),
        "kind": labels["kind"].array,
        "name": labels["name"].array,
        "value": table["value"],
        "unit": labels["unit"].array,
        "interval_s": table["interval_s"],
    }
    return pd.DataFrame(columns, columns=COLUMNS).astype(DTYPES)


def times_of(seconds: npt.NDArray[np.int64]) -> pd.DatetimeIndex:
    """Return unix seconds as times in UTC."""
    return pd.to_datetime(seconds * NS_PER_S, unit="ns", utc=True)
