"""Restore the readable rows of a damaged store into the store that replaced it, hour by hour with plain SQL.

Rows that are stored already stay. Restored rows are pending for every destination, because acknowledgements are not
copied; writing a row twice is harmless. The damaged file is only read. Of an hour on a damaged page, the rows before the
damage are restored; the hour is listed, and what is missing of it is filled from the device like any other gap. Reading
damaged pages themselves is SQLite's `.recover`, which docs/operations.md names.
"""

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.frames.climate import CLIMATE, HUMIDITY, TEMPERATURE
from aiseg2_pipeline.frames.energy import CIRCUIT_DAILY_TOTAL, DAILY_COST, DAILY_TOTAL, ENERGY
from aiseg2_pipeline.frames.readings import READINGS, Row, frame
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.store import Outbox, Store, StoreError
from aiseg2_pipeline.store.damage import DamagedFile, note_salvaged
from aiseg2_pipeline.store.hours import HOUR_S
from aiseg2_pipeline.store.transactions import datetime_of, hour_of

PROGRESS_EVERY_S = 10.0
ROOM_BYTES, MB = 50_000_000, 1e6
# Searched if not even the list of hours can be read: the first AiSEG2 was sold after that.
EARLIEST_S = int(datetime(2010, 1, 1, tzinfo=UTC).timestamp())
# The possible units of each kind, by the name of the shape.
UNITS: dict[str, dict[str, tuple[str, ...]]] = {
    READINGS.name: {
        "total": ("kW",),
        "generation": ("W",),
        "usage": ("W",),
        "battery": ("%", ""),
        "flow": ("kW",),
    },
    CLIMATE.name: {TEMPERATURE: ("℃",), HUMIDITY: ("%",)},
    ENERGY.name: dict.fromkeys(ENERGY.kinds, ("Wh",))
    | {DAILY_TOTAL: ("kWh", "L", "㎥"), CIRCUIT_DAILY_TOTAL: ("kWh",), DAILY_COST: ("yen",)},
}
# The tables of rows of this and of older versions, with those in the order of series.
BY_TIME, BY_SERIES = ("reading_rows", "recent"), ("old_rows", "by_series", "readings")
ROWS_OF_HOUR = "SELECT series_id, time, value, interval_s FROM {} time >= ? AND time < ?"


def recover(
    damaged: DamagedFile, store: Outbox, say: Callable[[str], object], sleep: Callable[[float], None] = time.sleep
) -> str:
    """Restore the readable rows of a damaged file; return a message, which is also noted beside the file.

    `say` gets the progress. Half of the time is left to the live readings. A recovery can be repeated, also one that was
    killed. Raise StoreError.
    """
    path = damaged.path
    try:
        with FileLock(f"{path}.lock", timeout=0, mode=0o600):
            _check_room(store.path, path.stat().st_size)
            try:
                with contextlib.closing(
                    sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
                ) as connection:
                    message = _Recovery(connection, store, say, sleep).run()
            except sqlite3.Error as error:
                message = f"Nothing of it can be read ({error}): restore a backup, or try SQLite's `.recover`."
            note_salvaged(damaged, message)
    except Timeout:
        raise StoreError(f"{path} is being salvaged by another process: wait for that one.") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be salvaged ({error.strerror}): see that this user may read it."
        ) from error
    return message


@dataclass
class _Recovery:
    """A recovery from a damaged file: the rows that were read, those that were new, and the hours with damage."""

    damaged: sqlite3.Connection
    store: Outbox
    say: Callable[[str], object]
    sleep: Callable[[float], None]
    read: int = 0
    added: int = 0
    lost: set[int] = field(default_factory=set)

    def run(self) -> str:
        """Restore the rows, the circuits, and what was removed; return the message about them."""
        # So that a file that was cut off can be read.
        self.damaged.execute("PRAGMA writable_schema = ON")
        # A name that is not UTF-8 is no name of a store, and must not prevent reading the others.
        self.damaged.text_factory = lambda text: text.decode(errors="surrogateescape")
        tables = {name for (name,) in self.damaged.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        series = self._series()
        ids = ", ".join(map(str, series))
        sources = [ROWS_OF_HOUR.format(f"{table} WHERE") for table in BY_TIME if table in tables] + [
            ROWS_OF_HOUR.format(f"{table} WHERE series_id IN ({ids}) AND")
            for table in BY_SERIES
            if table in tables
        ]
        hours, reported = self._hours(), time.monotonic()
        for n, hour in enumerate(hours, 1):
            began = time.monotonic()
            self._restore(hour, sources, series)
            if began - reported > PROGRESS_EVERY_S:
                reported = began
                self.say(f"{n} of {len(hours)} hours are read, {self.added} rows restored so far.")
            self.sleep(time.monotonic() - began)
        self._restore_circuits()
        message = f"{self.added} rows were restored, {self.read - self.added} were stored already"
        if not self.lost:
            return f"{message}; all of it could be read."
        return (
            f"{message}; {len(self.lost)} hours could not be read in full, "
            f"between {_tokyo_minute(min(self.lost))} and {_tokyo_minute(max(self.lost) + HOUR_S)}."
        )

    def _series(self) -> dict[int, tuple[str, str, str]]:
        """Return kind, name and unit of each series by its id, without those that no store can have."""
        try:
            rows = self.damaged.execute("SELECT id, kind, name, unit FROM series ORDER BY id").fetchall()
        except sqlite3.Error:
            # The index has the names without the units.
            sql = "SELECT id, kind, name, NULL FROM series INDEXED BY sqlite_autoindex_series_1"
            rows = self.damaged.execute(sql).fetchall()
        known = {(kind, name): unit for kind, name, unit in self.store.series()}
        series = {}
        for series_id, kind, name, unit in rows:
            units = UNITS[self.store.shape.name].get(kind, ())
            named = known.get((kind, name), units[0] if unit is None and len(units) == 1 else unit)
            if named in units and _is_name(name):
                series[series_id] = kind, name, named
        return series

    def _hours(self) -> list[int]:
        """Return the hours to read, in order: those of the file, or all since EARLIEST_S if that list is damaged."""
        try:
            return [
                hour for (hour,) in self.damaged.execute("SELECT hour FROM hours ORDER BY hour") if _is_time(hour)
            ]
        except sqlite3.Error:
            return list(range(EARLIEST_S, hour_of(time.time()) + HOUR_S, HOUR_S))

    def _restore(self, hour: int, sources: list[str], series: dict[int, tuple[str, str, str]]) -> None:
        """Add the hour's readable rows to the store."""
        rows = []
        for source in sources:
            try:
                for series_id, time_s, value, interval_s in self.damaged.execute(source, (hour, hour + HOUR_S)):
                    if series_id in series:
                        kind, name, unit = series[series_id]
                        rows.append(Row(datetime_of(time_s), kind, name, value, unit, interval_s))
                    else:
                        self.lost.add(hour)
            except (sqlite3.Error, TypeError):
                self.lost.add(hour)
        if not rows:
            return
        try:
            added = self.store.add(frame(rows, self.store.shape))
        except (TypeError, ValueError):
            # A damaged page can have any content.
            self.lost.add(hour)
            return
        self.read += added.rows
        self.added += added.changed

    def _restore_circuits(self) -> None:
        """Add the circuits of the past, and the ranges that a person removed."""
        if isinstance(self.store, Store):
            with contextlib.suppress(sqlite3.Error):
                self.store.add_circuits([row for row in self._rows_of("circuits") if _is_circuit(*row)])
            with contextlib.suppress(sqlite3.Error):
                self.store.add_removed([row for row in self._rows_of("removed") if all(map(_is_time, row))])

    def _rows_of(self, table: str) -> Iterator[tuple[Any, ...]]:
        return self.damaged.execute(f"SELECT * FROM {table} ORDER BY rowid")


def _is_circuit(circuit_id: object, name: object, valid_from: object, valid_to: object) -> bool:
    in_time = _is_time(valid_from) and (valid_to is None or _is_time(valid_to))
    return in_time and _is_name(circuit_id) and _is_name(name)


def _is_time(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 33


def _is_name(value: object) -> bool:
    return isinstance(value, str) and clean_name(value) == value


def _check_room(store: Path, needed_bytes: float) -> None:
    if shutil.disk_usage(store.resolve().parent).free < needed_bytes + ROOM_BYTES:
        raise StoreError(
            f"Salvaging takes {(needed_bytes + ROOM_BYTES) / MB:.0f} MB on the disk of {store}: free that much, then run "
            "`aiseg2-pipeline salvage`."
        )


def _tokyo_minute(unix_s: int) -> str:
    return f"{datetime_of(unix_s).astimezone(TOKYO):%Y-%m-%d %H:%M}"
