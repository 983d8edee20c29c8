"""What is kept of each hour: the covered minutes in `hours`, and the values of each series in `hourly`.

Both are computed again from the hour's rows in the transaction that changes them.
"""

from collections.abc import Callable
from sqlite3 import Cursor
from typing import Any

from aiseg2_pipeline.frames.names import TOTAL_EXCHANGE

HOUR_S = 3600

Execute = Callable[..., Cursor]

# A minute is covered by its shortest interval: live if it has a live reading with all totals.
MINUTES = """
SELECT time / 60 * 60 AS minute, min(interval_s) AS interval_s FROM reading_rows
WHERE time >= :start AND time < :stop AND series_id = (SELECT id FROM series WHERE kind = 'total' AND name = :exchange)
GROUP BY minute
"""
COUNT = f"""
INSERT OR REPLACE INTO hours (hour, max_version, live_minutes, filled_minutes, filled_by_hour)
SELECT :start, :version, count(*) FILTER (WHERE interval_s = 0), count(*) FILTER (WHERE interval_s > 0),
    count(*) FILTER (WHERE interval_s = 3600) FROM ({MINUTES})
"""
SUMMARIZE = """
INSERT INTO hourly (hour, series_id, n, sum, min, max)
SELECT :start, series_id, count(*), sum(value), min(value), max(value) FROM reading_rows
WHERE time >= :start AND time < :stop GROUP BY series_id
"""


def newest_hour(execute: Execute) -> int | None:
    """Return the newest hour with rows (unix s)."""
    (hour,) = execute("SELECT max(hour) FROM hours").fetchone()
    return None if hour is None else int(hour)


def count_minutes(execute: Execute, hour: int, version: int | None = None) -> None:
    """Write an hour's entry in `hours`; without its newest `version`, look for it, and delete the entry if it has no rows."""
    parameters = of_hour(hour)
    if version is None:
        sql = "SELECT max(version) FROM reading_rows WHERE time >= :start AND time < :stop"
        (version,) = execute(sql, parameters).fetchone()
    if version is None:
        execute("DELETE FROM hours WHERE hour = :start", parameters)
    else:
        execute(COUNT, parameters | {"version": version})


def summarize(execute: Execute, hour: int) -> None:
    """Write the entries of an ended hour in `hourly`."""
    execute("DELETE FROM hourly WHERE hour = :start", of_hour(hour))
    execute(SUMMARIZE, of_hour(hour))


def of_hour(hour: int) -> dict[str, Any]:
    """Return the parameters of the statements above."""
    return of_range(hour, hour + HOUR_S)


def of_range(start_s: float, end_s: float) -> dict[str, Any]:
    """Return the parameters of `MINUTES`."""
    return {"start": start_s, "stop": end_s, "exchange": TOTAL_EXCHANGE}
