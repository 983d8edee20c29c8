"""Where the store's rows are, and how what SQLite tells of them becomes a readings frame.

The rows of one hour are in `recent`, all others in `by_series`; `schema.py` says why.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES
from aiseg2_pipeline.store.database import DamageFoundError
from aiseg2_pipeline.store.transactions import HOUR_S, Execute, hour_of

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
