"""The stores of the device's energy and of the rooms' climate, with the file format and guarantees of `readings`."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import NamedTuple

import pandas as pd

from aiseg2_pipeline.frames.climate import CLIMATE
from aiseg2_pipeline.frames.energy import ENERGY
from aiseg2_pipeline.store.hours import count_minutes
from aiseg2_pipeline.store.outbox import Outbox
from aiseg2_pipeline.store.transactions import ALL_TIMES, datetime_of, hour_of, repeated, unix_s

OLDEST = """
SELECT time FROM reading_rows WHERE series_id = (SELECT id FROM series WHERE kind = 'consumption') ORDER BY time LIMIT 1
"""
OF_KIND = """
SELECT time, name, series_id FROM reading_rows JOIN series ON id = series_id
WHERE kind = ? AND time >= ? AND time < ?
"""


class FetchAttempt(NamedTuple):
    """What the device did not have (`what`) of the hour or day that begins at `time`, when it was requested `at`."""

    time: datetime
    what: str
    at: datetime


class EnergyStore(Outbox):
    """An open store of energy frames, and of the requests for energy that were in vain."""

    shape = ENERGY
    # Its rows are hours and days.
    summarized = False

    def oldest(self) -> datetime | None:
        """Return the first hour that has a consumption, None if there is none."""
        with self._reading(ALL_TIMES) as execute:
            row = execute(OLDEST).fetchone()
        return datetime_of(row[0]) if row else None

    @repeated
    def note_attempts(self, attempts: Iterable[FetchAttempt]) -> None:
        """Store requests that were in vain, each in place of an earlier one for the same."""
        rows = [(unix_s(time), what, int(unix_s(at))) for time, what, at in attempts]
        with self._changing() as execute:
            for row in rows:
                execute("INSERT OR REPLACE INTO fetch_attempts (time, what, at) VALUES (?, ?, ?)", row)

    @repeated
    def forget_attempts(self, time: datetime, what: Collection[str]) -> None:
        """Delete the attempts of an hour or day, because the device has this by now or will not have it."""
        with self._changing() as execute:
            for name in what:
                execute("DELETE FROM fetch_attempts WHERE time = ? AND what = ?", (unix_s(time), name))

    def attempts(self, start: datetime, end: datetime) -> list[FetchAttempt]:
        """Return the attempts for the hours and days of the range, in order."""
        sql = "SELECT time, what, at FROM fetch_attempts WHERE time >= ? AND time < ? ORDER BY time, what"
        with self._reading() as execute:
            rows = execute(sql, (unix_s(start), unix_s(end)))
            return [FetchAttempt(datetime_of(time), what, datetime_of(at)) for time, what, at in rows]

    @repeated
    def keep_only(self, table: pd.DataFrame, kind: str, start: datetime, end: datetime) -> int:
        """Delete the rows of a kind in a range that a frame does not have, and return their number; points in InfluxDB stay."""
        times = unix_s(start), unix_s(end)
        kept = {(int(time.timestamp()), name) for time, name in zip(table["time"], table["name"], strict=True)}
        with self._changing(times) as execute:
            stored = execute(OF_KIND, (kind, *times)).fetchall()
            gone = [(time, series_id) for time, name, series_id in stored if (time, name) not in kept]
            for key in gone:
                execute("DELETE FROM reading_rows WHERE time = ? AND series_id = ?", key)
            for hour in {hour_of(time) for time, _ in gone}:
                count_minutes(execute, hour)
        return len(gone)


class ClimateStore(Outbox):
    """An open store of climate frames."""

    shape = CLIMATE
