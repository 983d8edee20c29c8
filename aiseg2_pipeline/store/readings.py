"""The store of readings on disk, with the pending rows of each destination.

It is archive and outbox in one. Each change of a row gives it a new version, in commit order, and a destination
acknowledges an hour up to a version, so a row that changes meanwhile stays pending. `rows` has the rows, `outbox` the
pending ones, `coverage` the covered minutes, `circuits` the circuit lists and `database` the file; this module has the
nearest live reading, and what a person removed. InfluxDB's format and requests belong in `influxdb`. The clock is never read here.

Every change is one transaction that is on disk when the call returns; any number of processes may use the store at the
same time. Time ranges are half open, [start, end). Every method raises StoreError if the file cannot be used, and
ValueError for a time without a zone. A Store must not be used after a fork.

A damaged file is replaced by a new one. A method that changes the store is then repeated in the new file; one that only
reads raises ReplacedError, because the caller may have read from the old file before.
"""

from collections.abc import Collection
from datetime import datetime

from aiseg2_pipeline.frames.readings import READINGS
from aiseg2_pipeline.store.circuits import CircuitLists
from aiseg2_pipeline.store.coverage import REMOVED, CoverageStore, coverage_changed
from aiseg2_pipeline.store.hours import HOUR_S, of_hour, of_range
from aiseg2_pipeline.store.transactions import datetime_of, hour_of, repeated, unix_s

# The nearest hour that may have a live reading (the rows of one may still be in an older table), its nearest reading, and
# the step to the hour after it.
LIVE = """
FROM reading_rows WHERE interval_s = 0 AND time >= :start AND time < :stop
AND series_id = (SELECT id FROM series WHERE kind = 'total' AND name = :exchange)
"""
LIVE_HOUR = "FROM hours WHERE (live_minutes > 0 OR live_minutes IS NULL)"
BEFORE = f"SELECT max(hour) {LIVE_HOUR} AND hour <= ?", f"SELECT max(time) {LIVE} AND time <= :moment", -1
AFTER = f"SELECT min(hour) {LIVE_HOUR} AND hour >= ?", f"SELECT min(time) {LIVE} AND time > :moment", 1


class Store(CoverageStore, CircuitLists):
    """An open store of readings; a context manager that closes it."""

    shape = READINGS

    def live_near(self, moment: datetime) -> datetime | None:
        """Return the time of the last live reading with all totals up to a time, or of the first one after it."""
        return self._nearest_live(unix_s(moment), *BEFORE) or self._nearest_live(unix_s(moment), *AFTER)

    def _nearest_live(self, moment_s: float, hour_sql: str, time_sql: str, step: int) -> datetime | None:
        bound = hour_of(moment_s)
        while True:
            with self._reading() as execute:
                (hour,) = execute(hour_sql, (bound,)).fetchone()
            if hour is None:
                return None
            with self._reading((hour, hour + HOUR_S)) as execute:
                (time,) = execute(time_sql, of_hour(hour) | {"moment": moment_s}).fetchone()
            if time is not None:
                return datetime_of(time)
            bound = hour + step

    @repeated
    def remove(self, start: datetime, end: datetime, at: datetime) -> int:
        """Delete the rows of a range and return their number; the minutes stay empty until `allow_fill`."""
        times = unix_s(start), unix_s(end)
        with self._changing(times) as execute:
            execute("INSERT INTO removed (start, stop, at) VALUES (?, ?, ?)", (*times, int(unix_s(at))))
            coverage_changed(execute, *times)
            return self._delete(execute, *times)

    @repeated
    def allow_fill(self, start: datetime, end: datetime) -> None:
        """Let the removed minutes of a range be filled."""
        start_s, end_s = unix_s(start), unix_s(end)
        with self._changing() as execute:
            coverage_changed(execute, start_s, end_s)
            for row_id, first, stop, at in execute(REMOVED, of_range(start_s, end_s)).fetchall():
                execute("DELETE FROM removed WHERE rowid = ?", (row_id,))
                for rest in ((first, start_s, at), (end_s, stop, at)):
                    execute("INSERT INTO removed (start, stop, at) SELECT ?1, ?2, ?3 WHERE ?1 < ?2", rest)

    @repeated
    def add_removed(self, ranges: Collection[tuple[int, int, int]]) -> None:
        """Add ranges that were removed from an older file: start, end, and when they were removed (unix s)."""
        with self._changing() as execute:
            for row in set(ranges) - set(execute("SELECT start, stop, at FROM removed")):
                execute("INSERT INTO removed (start, stop, at) VALUES (?, ?, ?)", row)
                coverage_changed(execute, *row[:2])
