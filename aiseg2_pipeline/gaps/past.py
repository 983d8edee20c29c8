"""Where the record begins, and the search for the past that the device remembers since AISEG2_START_DATE.

The record begins with the first live reading. A start date extends it: until the search has ended, every hour since that
date belongs to it; afterwards it begins with the oldest row, so that no hours are shown that nobody can fill. The
first hour is stored in a file, the start date whose search has ended in a second one beside it; neither a restart nor a
new store changes them. A lost first hour is restored from the oldest row. Which minutes are missing belongs in
`find`.
"""

import sqlite3
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Self

from aiseg2_pipeline.ingest.energy import TOTALS
from aiseg2_pipeline.japan_time import CLOCK_IS_SET, HOUR, day_of, day_start, hour_from_key, hour_key, hour_of
from aiseg2_pipeline.small_files import replace_text
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.store.queries import Queries

SEARCHED = "searched_since"
# So many days in a row without energy end the search: the device remembers nothing older.
FORGOTTEN_DAYS = 30
BEGINNING = datetime.fromtimestamp(0, UTC)


def note_first_hour(path: Path, now: datetime, store: Path | None = None) -> None:
    """Store the record's first hour in the file `path`: this one, unless an earlier one is stored.

    Where none is stored, it is that of the oldest row of the file `store`. A clock that is not set stores none.
    """
    if now < CLOCK_IS_SET:
        return
    stored = _stored_hour(path)
    try:
        first = stored or (_oldest_hour(store) if store and store.exists() else None) or hour_of(now)
    except sqlite3.Error:
        # The next start may be able to read the store, or it is restored by then.
        return
    if min(first, hour_of(now)) != stored:
        _store_hour(path, min(first, hour_of(now)))


def _oldest_hour(store: Path) -> datetime | None:
    with Queries(store) as queries:
        hour = queries.oldest_hour()
    return None if hour is None else datetime.fromtimestamp(hour, UTC)


def first_hour(path: Path, now: datetime, start_date: date | None = None) -> datetime:
    """Return the start of the first partition: the stored hour, or the first of an unfinished search."""
    first = _stored_hour(path) or hour_of(now)
    if start_date is not None and is_searching(path, start_date):
        first = min(first, day_start(start_date))
    return min(first, hour_of(now))


@dataclass(frozen=True)
class Record:
    """Where the record begins: the first partition, AISEG2_START_DATE, and the file with the first hour."""

    path: Path
    first: datetime
    start_date: date | None

    @classmethod
    def of(cls, path: Path, start_date: date | None, now: datetime) -> Self:
        """Return the record whose first hour is in the file `path`."""
        return cls(path, first_hour(path, now, start_date), start_date)

    def start(self, store: Store, now: datetime) -> datetime:
        """Return the first hour: the first partition if there is a start date, else that of the first live reading."""
        if self.start_date is not None:
            return self.first
        return hour_of(store.live_near(BEGINNING) or now)

    def known_from(self, store: Store, now: datetime) -> datetime:
        """Return the first hour whose coverage is known: while the past is searched, that of the oldest row."""
        start = self.start(store, now)
        if is_searching(self.path, self.start_date):
            return max(start, store.oldest_hour() or start)
        return start

    def end_search(self, store: Store, now: datetime) -> None:
        """Store that the past was searched, and let the record begin with its oldest row."""
        _store_hour(self.path, store.oldest_hour() or hour_of(now))
        if self.start_date is not None:
            replace_text(self.path.with_name(SEARCHED), self.start_date.isoformat() + "\n")


def is_searching(path: Path, start_date: date | None) -> bool:
    """Return whether the past since this date is still searched."""
    searched = _read(path.with_name(SEARCHED))
    # Dates sort as text.
    return start_date is not None and not (searched and searched <= start_date.isoformat())


def unsearched(readings: Store, energy: EnergyStore, start: datetime, end: datetime) -> list[datetime]:
    """Return the hours of [start, end), in order, that have neither rows nor an attempt to read their energy.

    Empty once the search has ended: hours older than `FORGOTTEN_DAYS` days in a row without energy are omitted.
    """
    with_rows = set(readings.hours_with_rows(start, end))
    tried = {attempt.time for attempt in energy.attempts(start, end) if attempt.what == TOTALS}
    hours: list[datetime] = []
    in_vain: set[date] = set()
    hour = end - HOUR
    while hour >= start and len(in_vain) < FORGOTTEN_DAYS:
        day = day_of(hour)
        if hour in with_rows or hour not in tried:
            in_vain.clear()
        if hour not in with_rows and hour not in tried:
            hours.append(hour)
        elif hour == day_start(day) and hour in tried:
            in_vain.add(day)
        hour -= HOUR
    return hours[::-1]


def _stored_hour(path: Path) -> datetime | None:
    try:
        return hour_from_key(_read(path))
    except ValueError:
        return None


def _store_hour(path: Path, hour: datetime) -> None:
    replace_text(path, hour_key(hour) + "\n")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
