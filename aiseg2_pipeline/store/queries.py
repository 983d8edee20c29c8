"""What a page reads of a store, as tuples on a read-only connection.

It imports nothing of the project and no pandas, so that a small process can serve pages. It creates no file, and what it
raises is sqlite3.Error. Days are those of Japan, which has no daylight saving time. Frames belong in `readings`.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

HOUR_S, DAY_S, TOKYO_OFFSET_S = 3600, 86_400, 9 * 3600
# The version of the tables that these queries are for, as in `schema`.
TABLES_VERSION = 4

# The running hour is not in `hourly` yet; energy is not there at all, because its rows are hours.
HOURS = """
SELECT hour, series_id, n, sum, min, max FROM hourly WHERE hour >= :start AND hour < :stop AND {series}
UNION ALL
SELECT time / 3600 * 3600, series_id, count(*), sum(value), min(value), max(value) FROM reading_rows
WHERE time >= max(:start, (SELECT coalesce(max(hour) + 3600, :start) FROM hourly)) AND time < :stop AND {series}
GROUP BY 1, 2
"""
ONE = "series_id = (SELECT id FROM series WHERE kind = :kind AND name = :name)"
ALL_OF_KIND = "series_id IN (SELECT id FROM series WHERE kind = :kind)"
DAY_OF = f"(hour + {TOKYO_OFFSET_S}) / {DAY_S} * {DAY_S} - {TOKYO_OFFSET_S}"
BY_HOUR = f"SELECT hour, name, n, sum, min, max FROM ({HOURS}) JOIN series ON id = series_id ORDER BY hour, id"
OF_A_DAY = f"""
SELECT :start, name, sum(n), sum(sum), min(min), max(max) FROM ({HOURS}) JOIN series ON id = series_id
GROUP BY id ORDER BY id
"""
COVERAGE_BY_DAY = f"""
SELECT {DAY_OF} AS day, sum(live_minutes), sum(filled_minutes) FROM hours
WHERE hour >= :start AND hour < :stop AND live_minutes + filled_minutes > 0 GROUP BY day ORDER BY day
"""

COVERAGE_BY_HOUR = """
SELECT hour, live_minutes, filled_minutes FROM hours
WHERE hour >= :start AND hour < :stop AND live_minutes + filled_minutes > 0 ORDER BY hour
"""
# In the order of the primary key: nothing is sorted.
MINUTE_VALUES = """
SELECT time, series_id, 1, value, value, value, interval_s FROM reading_rows
WHERE time >= :start AND time < :stop AND {series} ORDER BY time, series_id
"""
HOUR_VALUES = f"SELECT hour, series_id, n, sum, min, max, 0 FROM ({HOURS})"
# The hours of one series are sought, each by its key, as the rows between them are of all other series.
SOUGHT = f"""
WITH RECURSIVE every(start) AS (
    SELECT max(:start, (SELECT min(hour) FROM hourly)) UNION ALL SELECT start + 3600 FROM every
    WHERE start + 3600 < min(:stop, (SELECT max(hour) + 3600 FROM hourly))
)
SELECT hour, series_id, n, sum, min, max, 0 FROM every CROSS JOIN hourly ON hour = every.start AND {ONE}
UNION ALL {HOUR_VALUES.replace(":start", "max(:start, (SELECT coalesce(max(hour) + 3600, :start) FROM hourly))")}
"""
SUMS = """
SELECT ?, kind, name, sum(value), count(*) FROM reading_rows JOIN series ON id = series_id
WHERE time >= ? AND time < ? AND interval_s = ? AND kind IN ({kinds}) GROUP BY series_id ORDER BY series_id
"""
# `hours` is small: the newest hour with a live reading is found at once, however long the filled stretch after it.
NEWEST_LIVE = """
SELECT max(time) FROM reading_rows WHERE interval_s = 0 AND time >= :hour AND time < :hour + 3600
"""
NEWEST_LIVE_HOUR = "SELECT hour FROM hours WHERE live_minutes > 0 ORDER BY hour DESC LIMIT 1"
VALUES_AT = (
    "SELECT kind, name, unit, value FROM reading_rows JOIN series ON id = series_id WHERE time = ? ORDER BY id"
)
# Later names replace earlier ones; the one in force comes last.
CIRCUIT_NAMES = "SELECT circuit_id, name FROM circuits ORDER BY valid_to IS NULL, valid_from, rowid"
IN_FORCE = "SELECT circuit_id, name FROM circuits WHERE valid_to IS NULL ORDER BY rowid"
REMOVED = "SELECT max(start, :start), min(stop, at, :stop) FROM removed WHERE stop > :start AND start < :stop"
COVERED_MINUTES = f"""
SELECT count(DISTINCT time / 60) FROM reading_rows WHERE time >= :start AND time < :stop AND {ONE}
"""
# As `outbox` counts them: rows that the bucket does not keep are not pending.
PENDING = """
SELECT count(*), min(hours.hour) FROM hours
LEFT JOIN destinations ON host = :host AND org = :org AND bucket = :bucket
LEFT JOIN acknowledged ON acknowledged.hour = hours.hour AND destination_id = destinations.id
WHERE max_version > coalesce(version, 0) AND hours.hour < :stop
AND (retention_s IS NULL OR hours.hour >= (SELECT max(hour) FROM hours) + 7200 - retention_s)
"""

OLDEST_HOUR = "SELECT min(hour) FROM hours"
HAS_LIVE = "SELECT EXISTS (SELECT 1 FROM reading_rows WHERE time >= ? AND time < ? AND interval_s = 0)"


class Summary(NamedTuple):
    """The number, sum, smallest and largest of a series' values, in its unit, from `start` (unix s) on."""

    start: int
    name: str
    n: int
    sum: float
    min: float
    max: float


class Covered(NamedTuple):
    """The numbers of live and of filled minutes of the day that begins at `start` (unix s)."""

    start: int
    live_minutes: int
    filled_minutes: int


class Values(NamedTuple):
    """What is stored of a series for a minute's reading or an hour from `start` (unix s) on; the interval is that of a minute."""

    start: int
    series_id: int
    n: int
    sum: float
    min: float
    max: float
    interval_s: int


class Sum(NamedTuple):
    """The sum and the number of a series' values of a period that begins at `start` (unix s)."""

    start: int
    kind: str
    name: str
    sum: float
    n: int


class Value(NamedTuple):
    """One value of a reading."""

    kind: str
    name: str
    unit: str
    value: float


class Queries:
    """The queries of one store. Ranges are [start_s, end_s) in unix s, from the start of an hour."""

    def __init__(self, path: Path) -> None:
        """Open the file, which must exist."""
        self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)

    def __enter__(self) -> Self:
        """Return the queries."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._connection.close()

    def by_hour(self, kind: str, start_s: int, end_s: int, name: str | None = None) -> list[Summary]:
        """Return the hours of one series, or of all series of a kind, in order of time, then of appearance."""
        return list(self._summaries(BY_HOUR, kind, start_s, end_s, name))

    def by_day(self, kind: str, start_s: int, end_s: int, name: str | None = None) -> list[Summary]:
        """Return the days of one series, or of all series of a kind, in order of time, then of appearance.

        A day without values is not there. `start_s` is the start of a day.
        """
        # A query for each day: one for all days sorts every hour of every series, which takes 1.6 times as long.
        starts = range(start_s, end_s, DAY_S)
        days = (self._summaries(OF_A_DAY, kind, start, min(start + DAY_S, end_s), name) for start in starts)
        return [summary for day in days for summary in day]

    def coverage_by_day(self, start_s: int, end_s: int) -> list[Covered]:
        """Return the days of the range that have covered minutes."""
        rows = self._connection.execute(COVERAGE_BY_DAY, {"start": start_s, "stop": end_s})
        return [Covered(*row) for row in rows]

    def coverage_by_hour(self, start_s: int, end_s: int) -> list[Covered]:
        """Return the hours of the range that have covered minutes."""
        rows = self._connection.execute(COVERAGE_BY_HOUR, {"start": start_s, "stop": end_s})
        return [Covered(*row) for row in rows]

    def values(
        self, kind: str, start_s: int, end_s: int, name: str | None = None, *, by_hour: bool = False
    ) -> Iterator[Values]:
        """Yield the readings, or the hours, of one series or of all series of a kind, in order of time."""
        parameters: dict[str, Any] = {"kind": kind, "name": name, "start": start_s, "stop": end_s}
        sql = MINUTE_VALUES if not by_hour else HOUR_VALUES if name is None else SOUGHT
        chosen = sql.format(series=ALL_OF_KIND if name is None else ONE)
        return (Values(*row) for row in self._connection.execute(chosen, parameters))

    def sums(self, kinds: Sequence[str], interval_s: int, periods: Iterable[tuple[int, int]]) -> list[Sum]:
        """Return the sums of the series of these kinds in each period, of rows of this interval."""
        sql = SUMS.format(kinds=", ".join("?" * len(kinds)))
        # A query for each period, as in `by_day`.
        return [
            Sum(*row)
            for start, end in periods
            for row in self._connection.execute(sql, (start, start, end, interval_s, *kinds))
        ]

    def newest_live(self) -> int | None:
        """Return the time of the newest live reading (unix s)."""
        hour = self._connection.execute(NEWEST_LIVE_HOUR).fetchone()
        if hour is None:
            return None
        (time,) = self._connection.execute(NEWEST_LIVE, {"hour": hour[0]}).fetchone()
        return None if time is None else int(time)

    def values_at(self, time_s: int) -> list[Value]:
        """Return the values of the reading of a second."""
        return [Value(*row) for row in self._connection.execute(VALUES_AT, (time_s,))]

    def series(self) -> list[tuple[int, str, str, str]]:
        """Return id, kind, name and unit of every series, in order of appearance."""
        return self._connection.execute("SELECT id, kind, name, unit FROM series ORDER BY id").fetchall()

    def circuit_names(self) -> dict[str, str]:
        """Return the newest name of each circuit by its id."""
        return dict(self._connection.execute(CIRCUIT_NAMES))

    def circuits_in_force(self) -> list[tuple[str, str]]:
        """Return id and name of the circuits that the device shows now."""
        return self._connection.execute(IN_FORCE).fetchall()

    def removed(self, start_s: int, end_s: int) -> list[tuple[int, int]]:
        """Return the parts of the range that a person removed."""
        return self._connection.execute(REMOVED, {"start": start_s, "stop": end_s}).fetchall()

    def covered_minutes(self, start_s: int, end_s: int, kind: str, name: str) -> int:
        """Return the number of the range's minutes that have a value of a series."""
        parameters = {"start": start_s, "stop": end_s, "kind": kind, "name": name}
        (count,) = self._connection.execute(COVERED_MINUTES, parameters).fetchone()
        return int(count)

    def pending(self, host: str, org: str, bucket: str, before_s: int) -> tuple[int, int | None]:
        """Return the number of hours before a time with rows that are pending for a bucket, and the oldest of them."""
        parameters = {"host": host, "org": org, "bucket": bucket, "stop": before_s}
        count, oldest = self._connection.execute(PENDING, parameters).fetchone()
        return count, oldest

    def attempts(self, what: str, start_s: int, end_s: int) -> set[int]:
        """Return the hours or days for which the device did not have this."""
        sql = "SELECT time FROM fetch_attempts WHERE what = ? AND time >= ? AND time < ?"
        return {time for (time,) in self._connection.execute(sql, (what, start_s, end_s))}

    def tables_version(self) -> int:
        """Return the version of the tables, 0 for a file without any."""
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def is_upgrading(self) -> bool:
        """Return whether rows of an older version may be left."""
        sql = "SELECT count(*) FROM sqlite_master WHERE name = 'old_rows'"
        return bool(self._connection.execute(sql).fetchone()[0])

    def oldest_hour(self) -> int | None:
        """Return the start of the first hour that has rows (unix s)."""
        (hour,) = self._connection.execute(OLDEST_HOUR).fetchone()
        return None if hour is None else int(hour)

    def has_live(self, start_s: float, end_s: float) -> bool:
        """Return whether there is a live reading in the range, whose limits may be any times."""
        (found,) = self._connection.execute(HAS_LIVE, (start_s, end_s)).fetchone()
        return bool(found)

    def _summaries(self, sql: str, kind: str, start_s: int, end_s: int, name: str | None) -> Iterator[Summary]:
        parameters: dict[str, Any] = {"kind": kind, "name": name, "start": start_s, "stop": end_s}
        chosen = sql.format(series=ALL_OF_KIND if name is None else ONE)
        return (Summary(*row) for row in self._connection.execute(chosen, parameters))
