"""Restore the readable rows of a damaged store into the store that replaced it.

Rows that are stored already stay. Restored rows are pending for every destination, because acknowledgements are not
copied from a damaged file; writing a row twice is harmless. The damaged file is only read.

SQLite reads a damaged file up to the first bad page. So a series is read from both ends towards the damage, and the range
in between is halved until the unreadable part is shorter than the rows of one page.
"""

import contextlib
import math
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.frames.climate import CLIMATE, HUMIDITY, TEMPERATURE
from aiseg2_pipeline.frames.energy import CIRCUIT_DAILY_TOTAL, DAILY_COST, DAILY_TOTAL, ENERGY, NO_DATA
from aiseg2_pipeline.frames.readings import READINGS, Row, Shape, frame
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.store import Store, StoreError
from aiseg2_pipeline.store.damage import DamagedFile, journals, note_salvaged
from aiseg2_pipeline.store.transactions import BEGINNING_S, END_S, datetime_of

CHUNK_ROWS = 5000
PROGRESS_EVERY_S = 10.0
ROOM_BYTES = 50_000_000
MB = 1e6
PAGE_BYTES = 4096
# A page of `by_series` has the minutes of about three hours, one of `recent` about three minutes.
SHORTEST_S, SHORTEST_RECENT_S = 3600, 60
# The range that is searched if not even the hours can be read: the first AiSEG2 was sold after that.
EARLIEST_S = int(datetime(2010, 1, 1, tzinfo=UTC).timestamp())
# The possible units of each kind, by the name of the shape.
UNITS: dict[str, dict[str, tuple[str, ...]]] = {
    READINGS.name: {"total": ("kW",), "generation": ("W",), "usage": ("W",), "battery": ("%", "")},
    CLIMATE.name: {TEMPERATURE: ("℃",), HUMIDITY: ("%",)},
    ENERGY.name: dict.fromkeys(ENERGY.kinds, ("Wh",))
    | {
        DAILY_TOTAL: ("kWh", "L", "㎥"),
        CIRCUIT_DAILY_TOTAL: ("kWh",),
        DAILY_COST: ("yen",),
        NO_DATA: ("",),
    },
}

_Series = dict[int, tuple[str, str, str]]
_StoredRow = tuple[int, int, float, int]
_Ranges = list[tuple[int, int]]


def salvage(
    damaged: DamagedFile, store: Store, say: Callable[[str], object], sleep: Callable[[float], None] = time.sleep
) -> str:
    """Restore the readable rows of a damaged file; return a message, which is also noted beside the file.

    `say` gets the progress. Half of the time is left to the live readings. A recovery can be repeated, also one that was
    killed. Raise StoreError.
    """
    path = damaged.path
    try:
        with FileLock(f"{path}.lock", timeout=0, mode=0o600):
            size = sum(part.stat().st_size for part in _parts(path))
            _check_room(store.path, 1.2 * size)
            message = _Recovery(store, say, sleep).run(path)
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
    """A recovery into a store: the rows that were read, those that were new, and the unreadable ranges (unix s)."""

    store: Store
    say: Callable[[str], object]
    sleep: Callable[[float], None]
    read: int = 0
    added: int = 0
    lost: _Ranges = field(default_factory=list)

    def run(self, path: Path) -> str:
        """Restore rows and circuits; return the message about them."""
        try:
            with _opened(path) as connection:
                self._copy(connection, path)
        except sqlite3.Error as first:
            # The first page has the list of tables, which is the same in all stores.
            self.say(f"The first page of {path.name} is damaged ({first}): a copy is made that has a new one.")
            with tempfile.TemporaryDirectory(dir=self.store.path.resolve().parent, prefix="salvage-") as folder:
                _check_room(self.store.path, 2.2 * path.stat().st_size)
                try:
                    with _opened(_copy_with_new_first_page(path, Path(folder))) as connection:
                        self._copy(connection, path)
                except sqlite3.Error as error:
                    return f"Nothing of it can be read ({error})."
        message = f"{self.added} rows were restored, {self.read - self.added} were stored already"
        if not self.lost:
            return f"{message}; all of it could be read."
        first_s, last_s = min(start for start, _ in self.lost), max(end for _, end in self.lost)
        return (
            f"{message}; {len(self.lost)} time ranges could not be read, "
            f"between {_tokyo_minute(first_s)} and {_tokyo_minute(last_s)}."
        )

    def _copy(self, connection: sqlite3.Connection, path: Path) -> None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        series = _series(connection, self.store, self.lost)
        by_series = "by_series" if "by_series" in tables else "readings"
        reported = time.monotonic()
        for number, series_id in enumerate(series, 1):
            self._copy_rows(connection, f"{by_series} WHERE series_id = {series_id} AND", series, SHORTEST_S)
            if time.monotonic() - reported > PROGRESS_EVERY_S:
                reported = time.monotonic()
                self.say(f"{path.name}: {number} of {len(series)} series, {self.added} rows restored so far.")
        if "recent" in tables:
            self._copy_rows(connection, "recent WHERE", series, SHORTEST_RECENT_S)
        with contextlib.suppress(sqlite3.Error):
            circuits = connection.execute(
                "SELECT circuit_id, name, valid_from, valid_to FROM circuits ORDER BY rowid"
            )
            self.store.add_circuits([row for row in circuits if _is_circuit(*row)])

    def _copy_rows(self, connection: sqlite3.Connection, rows: str, series: _Series, shortest_s: int) -> None:
        chunk: list[_StoredRow] = []
        for row in _readable(connection, rows, shortest_s, self.lost):
            chunk.append(row)
            if len(chunk) == CHUNK_ROWS:
                self._add(chunk, series)
                chunk = []
        self._add(chunk, series)

    def _add(self, chunk: list[_StoredRow], series: _Series) -> None:
        began = time.monotonic()
        shape = self.store.shape
        valid = {row[:2]: row for row in chunk if _is_row(row, series, shape)}.values()
        if not valid:
            return
        rows = []
        for series_id, time_s, value, interval_s in valid:
            kind, name, unit = series[series_id]
            rows.append(Row(datetime_of(time_s), kind, name, value, unit, interval_s))
        try:
            added = self.store.add(frame(rows, shape))
        except ValueError:
            # A page that looks valid and is not must not prevent the recovery of the others.
            times = [time_s for _, time_s, _, _ in valid]
            self.lost.append((min(times), max(times) + 1))
            return
        self.read += added.rows
        self.added += added.changed
        self.sleep(time.monotonic() - began)


def _readable(connection: sqlite3.Connection, rows: str, shortest_s: int, lost: _Ranges) -> Iterator[_StoredRow]:
    """Yield the readable rows, some perhaps twice; add the unreadable ranges to `lost`."""
    sql = f"SELECT series_id, time, value, interval_s FROM {rows} time >= ? AND time < ? ORDER BY time"  # noqa: S608 - a table of ours and a number
    ranges = [(BEGINNING_S, END_S)]
    while ranges:
        low, high = ranges.pop()
        try:
            for row in connection.execute(f"{sql} ASC", (low, high)):
                yield row
                low = _checked_time(row[1], low, high)
            continue
        except sqlite3.Error:
            # The damage is after the rows that were read.
            pass
        with contextlib.suppress(sqlite3.Error):
            for row in connection.execute(f"{sql} DESC", (low, high)):
                yield row
                high = _checked_time(row[1], low, high) + 1
        if low == BEGINNING_S or high == END_S:
            first, last = _span(connection)
            low, high = max(low, first), min(high, last)
        if high - low > shortest_s:
            middle = (low + high) // 2
            ranges += [(low, middle), (middle, high)]
        elif high > low + 1:
            if lost and lost[-1][0] == high:
                high = lost.pop()[1]
            lost.append((low, high))


def _checked_time(time_s: object, low: int, high: int) -> int:
    """Return a row's time; raise sqlite3.DatabaseError if it is out of order, as on a damaged page."""
    if isinstance(time_s, int) and low <= time_s < high:
        return time_s
    raise sqlite3.DatabaseError("rows are out of order")


def _span(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the range of time (unix s) in which the file has rows."""
    with contextlib.suppress(sqlite3.Error):
        first, last = connection.execute("SELECT min(hour), max(hour) + 3600 FROM hours").fetchone()
        if isinstance(first, int) and isinstance(last, int):
            return first, last
    return EARLIEST_S, int(time.time())


def _is_row(row: _StoredRow, series: _Series, shape: Shape) -> bool:
    """Return whether a store can have this row; a damaged page can have any."""
    series_id, time_s, value, interval_s = row
    return (
        series_id in series
        and _is_time(time_s)
        and isinstance(value, float)
        and math.isfinite(value)
        and interval_s in shape.intervals_s
    )


def _is_circuit(circuit_id: object, name: object, valid_from: object, valid_to: object) -> bool:
    in_time = _is_time(valid_from) and (valid_to is None or _is_time(valid_to))
    return in_time and _is_name(circuit_id) and _is_name(name)


def _is_time(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 33


def _is_name(value: object) -> bool:
    return isinstance(value, str) and clean_name(value) == value


def _series(connection: sqlite3.Connection, store: Store, lost: _Ranges) -> _Series:
    """Return kind, name and unit of each series by its id, without those that no store can have.

    A series of the store has the unit that it has there. If one is left out, the whole range of the file is added to `lost`.
    """
    units = {(kind, name): unit for kind, name, unit in store.series()}
    stored: list[tuple[int, str, str, str]]
    try:
        stored = connection.execute("SELECT id, kind, name, unit FROM series ORDER BY id").fetchall()
    except sqlite3.Error:
        # The index has the names without the units, so only series of the store are restored.
        names = connection.execute(
            "SELECT id, kind, name FROM series INDEXED BY sqlite_autoindex_series_1"
        ).fetchall()
        stored = [(*row, "unknown") for row in names]
    labels: dict[tuple[str, str], tuple[int, str]] = {}
    for series_id, kind, name, unit in stored:
        known = units.get((kind, name), unit)
        if isinstance(series_id, int) and _is_name(name) and known in UNITS[store.shape.name].get(kind, ()):
            labels.setdefault((kind, name), (series_id, known))
    if len(labels) < len(stored):
        lost.append(_span(connection))
    return {series_id: (kind, name, unit) for (kind, name), (series_id, unit) in labels.items()}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file read-only."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        # A name that is not UTF-8 is no name of a store, and must not prevent reading the others.
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        yield connection


def _copy_with_new_first_page(path: Path, folder: Path) -> Path:
    """Return a copy of the file that has the first page of a new store."""
    copy = folder / path.name
    for part in _parts(path):
        shutil.copyfile(part, folder / part.name)
    Store.open(folder / "new.sqlite").close()
    page = bytearray((folder / "new.sqlite").read_bytes()[:PAGE_BYTES])
    # The header's number of pages; and that there are no free pages.
    page[28:32] = (path.stat().st_size // PAGE_BYTES).to_bytes(4, "big")
    page[32:40] = bytes(8)
    with copy.open("r+b") as file:
        file.write(page)
    return copy


def _parts(path: Path) -> list[Path]:
    wal, _ = journals(path)
    return [part for part in (path, wal) if part.exists()]


def _check_room(store: Path, needed_bytes: float) -> None:
    if shutil.disk_usage(store.resolve().parent).free < needed_bytes + ROOM_BYTES:
        raise StoreError(
            f"Salvaging takes {(needed_bytes + ROOM_BYTES) / MB:.0f} MB on the disk of {store}: free that much, then run "
            "`aiseg2-pipeline salvage`."
        )


def _tokyo_minute(unix_s: int) -> str:
    return f"{datetime_of(unix_s).astimezone(TOKYO):%Y-%m-%d %H:%M}"
