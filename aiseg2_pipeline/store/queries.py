"""What a page reads of a store, as tuples on a read-only connection.

It imports nothing of the project and no pandas, so that a small process can serve pages. It creates no file, and what it
raises is sqlite3.Error. Days are those of Japan, which has no daylight saving time. Frames belong in `readings`.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

HOUR_S, DAY_S, TOKYO_OFFSET_S = 3600, 86_400, 9 * 3600

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
