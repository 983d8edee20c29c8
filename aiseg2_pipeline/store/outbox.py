"""Which rows of a store are pending for a destination, or set aside.

A destination acknowledges an hour up to a version; nothing else is stored for it. For a new destination every row is
pending; this needs no extra storage. `schema` explains the tables. Delivery belongs in `influxdb/delivery`.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from aiseg2_pipeline.store.hours import HOUR_S, Execute, newest_hour
from aiseg2_pipeline.store.rows import ROW, Rows, all_series, frame_of, table_of, times_of
from aiseg2_pipeline.store.transactions import (
    BEGINNING_S,
    END_S,
    datetime_of,
    hour_of,
    meta,
    repeated,
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
SELECT series_id, time, value, interval_s, version FROM reading_rows
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
SELECT series_id, time, value, interval_s, reason, at FROM set_aside CROSS JOIN reading_rows
WHERE destination_id = ? AND time >= hour AND time < hour + 3600
    AND version BETWEEN first_version AND last_version
ORDER BY hour, version LIMIT ?
"""


@dataclass(frozen=True)
class Destination:
    """A bucket that rows are written to; each has pending rows of its own."""

    host: str
    org: str
    bucket: str


class Retention(NamedTuple):
    """For how long a bucket keeps points, and when that was found out."""

    duration: timedelta
    at: datetime


@dataclass(frozen=True)
class PendingBatch:
    """Pending rows: a readings frame, hour by hour and by version, with each row's version and hour (unix s).

    `resends` is the store's counter of resends when the batch was made.
    """

    frame: pd.DataFrame
    versions: npt.NDArray[np.int64]
    hours: npt.NDArray[np.int64]
    resends: int


class Outbox(Rows):
    """The pending rows and those set aside, by destination."""

    def pending_hours(
        self,
        destination: Destination,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int | None = None,
    ) -> list[datetime]:
        """Return the hours (UTC starts) within or overlapping the range that have pending rows, oldest first.

        Hours that the bucket does not keep have none.
        """
        start_s, end_s = _hour_range(start, end)
        with self._reading() as execute:
            destination_id = destination_id_of(execute, destination)
            start_s = max(start_s, kept_from(execute, destination_id, newest_hour(execute)))
            sql_limit = NO_LIMIT if limit is None else limit
            rows = execute(PENDING_HOURS, (destination_id, start_s, end_s, sql_limit))
            return [datetime_of(hour) for (hour,) in rows]

    def pending_count(self, destination: Destination) -> int:
        """Return the number of hours with pending rows."""
        return len(self.pending_hours(destination))

    def retention(self, destination: Destination) -> Retention | None:
        """Return for how long the bucket keeps points; None if that is unknown."""
        with self._reading() as execute:
            known = _retention(execute, destination_id_of(execute, destination))
        return known and Retention(timedelta(seconds=known[0]), datetime_of(known[1]))

    @repeated
    def note_retention(self, destination: Destination, duration: timedelta | None, at: datetime) -> None:
        """Store for how long the bucket keeps points; None if that is unknown."""
        seconds = duration and int(duration.total_seconds())
        with self._changing() as execute:
            values = (seconds, int(unix_s(at)), registered(execute, destination))
            execute("UPDATE destinations SET retention_s = ?, retention_at = ? WHERE id = ?", values)

    def kept_from(self, destination: Destination, now: datetime) -> datetime | None:
        """Return the first hour that the bucket keeps; None if its retention is unknown."""
        with self._reading() as execute:
            kept = kept_from(execute, destination_id_of(execute, destination), hour_of(unix_s(now)))
        return None if kept == BEGINNING_S else datetime_of(kept)

    def pending_rows(self, destination: Destination, hours: Sequence[datetime], limit: int) -> PendingBatch:
        """Return at most `limit` pending rows of these hours (UTC starts), in their order, then by version."""
        starts = list(dict.fromkeys(hour_of(unix_s(hour)) for hour in hours))
        with self._reading(*((hour, hour + HOUR_S) for hour in starts)) as execute:
            parameters: dict[str, Any] = {"destination": destination_id_of(execute, destination)}
            rows: list[tuple[Any, ...]] = []
            for hour in starts:
                if len(rows) < limit:
                    rows += execute(PENDING_ROWS, parameters | {"hour": hour, "limit": limit - len(rows)})
            table = table_of(rows, [*ROW, ("version", "i8")])
            return PendingBatch(
                frame_of(all_series(execute), table),
                table["version"],
                table["time"] // HOUR_S * HOUR_S,
                meta(execute, "resends"),
            )

    @repeated
    def acknowledge(self, destination: Destination, batch: PendingBatch, upto: int) -> None:
        """Acknowledge the first `upto` rows of the batch, which were written or set aside.

        If `resend` was called after the batch was made, this does nothing: the batch may have been written
        before the bucket was emptied, so all of it stays pending.
        """
        # Versions rise within an hour, so its last one counts.
        last = dict(zip(batch.hours[:upto].tolist(), batch.versions[:upto].tolist(), strict=True))
        with self._changing() as execute:
            if batch.resends != meta(execute, "resends"):
                return
            destination_id = registered(execute, destination)
            for hour, version in last.items():
                execute(ACKNOWLEDGE, (destination_id, hour, version))

    @repeated
    def set_aside(
        self, destination: Destination, batch: PendingBatch, start: int, stop: int, reason: str, at: datetime
    ) -> None:
        """Store that the server refuses rows [start, stop) of the batch for good, and why; `acknowledge` follows.

        A row that changes afterwards is no longer set aside. After a `resend` this does nothing, as in `acknowledge`.
        """
        hours, versions = batch.hours[start:stop], batch.versions[start:stop]
        with self._changing() as execute:
            if batch.resends != meta(execute, "resends"):
                return
            destination_id = registered(execute, destination)
            for hour in np.unique(hours).tolist():
                changed = versions[hours == hour].tolist()
                first, last = changed[0], changed[-1]
                # Entries of a run that was killed before it acknowledged these rows are replaced.
                execute(DROP_SET_ASIDE, (destination_id, hour, first, last))
                values = (destination_id, hour, first, last, reason, int(unix_s(at)))
                execute("INSERT INTO set_aside VALUES (?, ?, ?, ?, ?, ?)", values)

    def set_aside_rows(self, destination: Destination, limit: int = 10_000) -> pd.DataFrame:
        """Return the rows set aside, at most `limit`, by hour, then version.

        A readings frame's columns, then `reason` (str) and `at` (datetime64[ns, UTC]).
        """
        with self._reading() as execute:
            destination_id = destination_id_of(execute, destination)
            sql = "SELECT hour, hour + 3600 FROM set_aside WHERE destination_id = ? ORDER BY hour LIMIT ?"
            hours = execute(sql, (destination_id, limit)).fetchall()
        with self._reading(*hours) as execute:
            table = table_of(
                execute(SET_ASIDE_ROWS, (destination_id, limit)), [*ROW, ("reason", "O"), ("at", "i8")]
            )
            frame = frame_of(all_series(execute), table)
        frame["reason"] = pd.Series(table["reason"], dtype="str")
        frame["at"] = times_of(table["at"])
        return frame

    @repeated
    def resend(
        self, start: datetime | None = None, end: datetime | None = None, destination: Destination | None = None
    ) -> int:
        """Make all rows of the hours within or overlapping the range pending, including rows set aside.

        This applies to one destination or to all, whose retentions are found out anew. Returns the number of these hours that have rows.
        """
        start_s, end_s = _hour_range(start, end)
        with self._changing() as execute:
            if destination is None:
                destination_ids = [row[0] for row in execute("SELECT id FROM destinations")]
            else:
                destination_ids = [destination_id_of(execute, destination)]
            for destination_id in destination_ids:
                hours = (destination_id, start_s, end_s)
                for table in ("acknowledged", "set_aside", "coverage_acknowledged"):
                    execute(f"DELETE FROM {table} WHERE destination_id = ? AND hour >= ? AND hour < ?", hours)
                execute("UPDATE destinations SET retention_s = NULL WHERE id = ?", (destination_id,))
            execute("UPDATE meta SET value = value + 1 WHERE key = 'resends'")
            counted = execute("SELECT count(*) FROM hours WHERE hour >= ? AND hour < ?", (start_s, end_s))
            return int(counted.fetchone()[0])


def _hour_range(start: datetime | None, end: datetime | None) -> tuple[float, float]:
    """Return a range from the start of its first hour (unix s); None leaves a side open."""
    return BEGINNING_S if start is None else hour_of(unix_s(start)), END_S if end is None else unix_s(end)


def destination_id_of(execute: Execute, destination: Destination) -> int | None:
    """Return the id, None if the destination has acknowledged nothing yet."""
    sql = "SELECT id FROM destinations WHERE host = ? AND org = ? AND bucket = ?"
    row = execute(sql, astuple(destination)).fetchone()
    return None if row is None else int(row[0])


def registered(execute: Execute, destination: Destination) -> int | None:
    """Return the id, after adding a destination that is new."""
    execute("INSERT OR IGNORE INTO destinations (host, org, bucket) VALUES (?, ?, ?)", astuple(destination))
    return destination_id_of(execute, destination)


def _retention(execute: Execute, destination_id: int | None) -> tuple[int, int] | None:
    sql = "SELECT retention_s, retention_at FROM destinations WHERE id = ? AND retention_s IS NOT NULL"
    row: tuple[int, int] | None = execute(sql, (destination_id,)).fetchone()
    return row


def kept_from(execute: Execute, destination_id: int | None, running_hour: int | None) -> int:
    """Return the first hour that the bucket keeps throughout the running hour, and an hour more for clocks that differ."""
    known = _retention(execute, destination_id)
    if known is None or running_hour is None:
        return BEGINNING_S
    return min(running_hour, running_hour + 2 * HOUR_S - known[0])
