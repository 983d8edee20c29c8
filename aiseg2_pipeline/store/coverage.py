"""How complete each hour is, and which hours' coverage is pending for a destination.

An hour's coverage is pending while its minutes differ from those that the destination has acknowledged, so it follows
every change of the rows. `remove` and `allow_fill` change what is missing, and call `coverage_changed`. Counting the
minutes belongs in `hours`.
"""

from dataclasses import dataclass
from datetime import datetime

from aiseg2_pipeline.store.hours import HOUR_S, MINUTES, Execute, newest_hour, of_range
from aiseg2_pipeline.store.outbox import (
    Destination,
    Outbox,
    destination_id_of,
    kept_from,
    registered,
)
from aiseg2_pipeline.store.transactions import datetime_of, hour_of, meta, repeated, unix_s

COVERAGE = """
SELECT hour, live_minutes, filled_minutes, filled_by_hour FROM hours
WHERE hour >= ? AND hour < ? AND live_minutes + filled_minutes > 0
"""
REMOVED = "SELECT rowid, start, stop, at FROM removed WHERE stop > :start AND start < :stop"
# The minutes of an hour whose rows are still in an older table are unknown.
PENDING_COVERAGE = """
SELECT every.hour, coalesce(hours.live_minutes, 0), coalesce(hours.filled_minutes, 0) FROM (
    WITH RECURSIVE every(hour) AS (
        SELECT :start WHERE :start < :stop UNION ALL SELECT hour + 3600 FROM every WHERE hour + 3600 < :stop
    ) SELECT hour FROM every
) AS every LEFT JOIN hours ON hours.hour = every.hour
LEFT JOIN coverage_acknowledged AS done ON done.destination_id = :destination AND done.hour = every.hour
WHERE (hours.hour IS NULL OR hours.live_minutes IS NOT NULL) AND (
    done.hour IS NULL OR done.live_minutes != coalesce(hours.live_minutes, 0)
    OR done.filled_minutes != coalesce(hours.filled_minutes, 0)
)
ORDER BY every.hour DESC LIMIT :limit
"""
REFUSED_COVERAGE = """
SELECT hour, refused FROM coverage_acknowledged WHERE destination_id = ? AND refused IS NOT NULL ORDER BY hour DESC
"""


@dataclass(frozen=True)
class HourCoverage:
    """The number of an hour's minutes that were read, filled, and are missing; removed minutes are not missing."""

    start: datetime
    read: int
    filled: int
    missing: int


@dataclass(frozen=True)
class CoverageBatch:
    """The pending coverage of hours, newest first. `resends` is the store's counter when the batch was made."""

    hours: tuple[HourCoverage, ...]
    resends: int


class CoverageStore(Outbox):
    """The coverage of the hours of an open store of readings."""

    def minutes(self, start: datetime, end: datetime) -> dict[datetime, int]:
        """Return the covered minutes of the range, each with its shortest interval (s): 0 for a live reading."""
        times = unix_s(start), unix_s(end)
        with self._reading(times) as execute:
            return {datetime_of(minute): interval_s for minute, interval_s in execute(MINUTES, of_range(*times))}

    def coverage(self, start: datetime, end: datetime) -> dict[datetime, tuple[int, int, int]]:
        """Return the numbers of live minutes, of filled ones, and of those filled by an hour's mean.

        The keys are the hours (UTC starts) within or overlapping the range that have any.
        """
        times = hour_of(unix_s(start)), unix_s(end)
        with self._reading(times) as execute:
            return {
                datetime_of(hour): (live, filled, by_hour)
                for hour, live, filled, by_hour in execute(COVERAGE, times)
            }

    def removed_minutes(self, start: datetime, end: datetime) -> set[datetime]:
        """Return the minutes of the range that a person removed, in whole or in part, and that are empty."""
        start_s, end_s = unix_s(start), unix_s(end)
        with self._reading() as execute:
            removed = execute(REMOVED, of_range(start_s, end_s)).fetchall()
        minutes = {
            datetime_of(minute)
            for _, first, stop, at in removed
            # Minutes that were still to come were not removed.
            for minute in range(int(max(first, start_s)) // 60 * 60, int(min(stop, end_s, at)), 60)
        }
        return minutes - self.minutes(start, end).keys() if minutes else minutes

    def pending_coverage(
        self, destination: Destination, start: datetime, end: datetime, limit: int
    ) -> CoverageBatch:
        """Return at most `limit` hours of [start, end) whose coverage is pending, those without rows included."""
        with self._reading() as execute:
            destination_id = destination_id_of(execute, destination)
            first = max(hour_of(unix_s(start)), kept_from(execute, destination_id, newest_hour(execute)))
            parameters = {
                "start": first,
                "stop": hour_of(unix_s(end)),
                "destination": destination_id,
                "limit": limit,
            }
            counted = execute(PENDING_COVERAGE, parameters).fetchall()
            resends = meta(execute, "resends")
        return CoverageBatch(tuple(self._with_missing(*counts) for counts in counted), resends)

    def _with_missing(self, hour_s: int, read: int, filled: int) -> HourCoverage:
        hour = datetime_of(hour_s)
        removed = self.removed_minutes(hour, datetime_of(hour_s + HOUR_S))
        return HourCoverage(hour, read, filled, HOUR_S // 60 - read - filled - len(removed))

    @repeated
    def acknowledge_coverage(
        self, destination: Destination, batch: CoverageBatch, refused: str | None = None
    ) -> None:
        """Acknowledge a batch, or store why the server refused it for good.

        Do nothing if what is missing, or the bucket, may have changed since it was made.
        """
        with self._changing() as execute:
            if batch.resends != meta(execute, "resends"):
                return
            destination_id = registered(execute, destination)
            for hour in batch.hours:
                values = (destination_id, unix_s(hour.start), hour.read, hour.filled, refused)
                execute("INSERT OR REPLACE INTO coverage_acknowledged VALUES (?, ?, ?, ?, ?)", values)

    def refused_coverage(self, destination: Destination) -> dict[datetime, str]:
        """Return the hours whose coverage the server refused for good, newest first, each with the reason."""
        with self._reading() as execute:
            rows = execute(REFUSED_COVERAGE, (destination_id_of(execute, destination),))
            return {datetime_of(hour): reason for hour, reason in rows}


def coverage_changed(execute: Execute, start_s: float, end_s: float) -> None:
    """Make the coverage of the hours within or overlapping a range pending for every destination."""
    execute("DELETE FROM coverage_acknowledged WHERE hour >= ? AND hour < ?", (hour_of(start_s), end_s))
    execute("UPDATE meta SET value = value + 1 WHERE key = 'resends'")
