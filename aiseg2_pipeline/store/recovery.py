"""Brings the rows that can still be read of a damaged store into the one that has taken its place.

A row that is there already stays. What comes back is pending again for every destination, because what was acknowledged is
not taken from a damaged file; sending a row twice is harmless. The damaged file is only read.

SQLite reads a damaged file up to the first bad page. So a series is read from both ends towards the damage, and what
is left between is halved, until what cannot be read is shorter than what one page holds.
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

CHUNK_ROWS = 5000
SAID_EVERY_S = 10.0
ROOM_BYTES = 50_000_000
MB = 1e6
PAGE_BYTES = 4096
# A page of a series holds some three hours of minutes, one of the running hour some three minutes.
SHORTEST_S, SHORTEST_RECENT_S = 3600, 60
BEGINNING_S, END_S = -(1 << 53), 1 << 53
# Within which the gap is searched where not even its ends can be read: AiSEG2 units exist since about then.
EARLIEST_S = int(datetime(2010, 1, 1, tzinfo=UTC).timestamp())
# The units that the numbers of a kind are in, by the shape's name.
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
_Found = tuple[int, int, float, int]


@dataclass
class Salvaged:
    """Rows that were read, and those of them that were not there yet; the stretches (unix s) that could not be read."""

    read: int = 0
    added: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)
    unreadable: str | None = None

    def sentence(self) -> str:
        """Return what came back."""
        if self.unreadable is not None:
            return f"Nothing of it can be read ({self.unreadable})."
        told = f"{self.added} rows came back of it, {self.read - self.added} were there already"
        if not self.lost:
            return f"{told}; all of it could be read."
        first, last = min(start for start, _ in self.lost), max(end for _, end in self.lost)
        return f"{told}; {len(self.lost)} stretches could not be read, between {_at(first)} and {_at(last)}."


def salvage(
    damaged: DamagedFile, store: Store, say: Callable[[str], object], sleep: Callable[[float], None] = time.sleep
) -> str:
    """Bring what can be read of the damaged file into the store; return what came back, which is noted beside the file.

    `say` gets how far it is. Half of the time is left to the live minute. It may be done again, and goes on where it was
    cut off. Raise StoreError.
    """
    path = damaged.path
    try:
        with FileLock(f"{path}.lock", timeout=0, mode=0o600):
            size = sum(one.stat().st_size for one in _parts(path))
            _check_room(store.path, 1.2 * size)
            told = _Salvage(store, say, sleep).bring(path).sentence()
            note_salvaged(damaged, told)
    except Timeout:
        raise StoreError(f"{path} is being salvaged by another process: wait for that one.") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be salvaged ({error.strerror}): see that this user may read it."
        ) from error
    return told


@dataclass
class _Salvage:
    store: Store
    say: Callable[[str], object]
    sleep: Callable[[float], None]
    result: Salvaged = field(default_factory=Salvaged)

    def bring(self, path: Path) -> Salvaged:
        """Bring the rows, and the circuits that they are of."""
        try:
            with _opened(path) as connection:
                self._bring(connection, path)
        except sqlite3.Error as first:
            # The first page says where everything is, and is the same in all stores.
            self.say(f"The beginning of {path.name} is damaged ({first}): a copy is made that has another one.")
            with tempfile.TemporaryDirectory(dir=self.store.path.resolve().parent, prefix="salvage-") as folder:
                _check_room(self.store.path, 2.2 * path.stat().st_size)
                copy = _with_another_beginning(path, Path(folder))
                try:
                    with _opened(copy) as connection:
                        self._bring(connection, path)
                except sqlite3.Error as error:
                    self.result.unreadable = str(error)
        return self.result

    def _bring(self, connection: sqlite3.Connection, path: Path) -> None:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        series = _series(connection, self.store, self.result.lost)
        by_series = "by_series" if "by_series" in tables else "readings"
        said = time.monotonic()
        for number, series_id in enumerate(series, 1):
            rows = f"{by_series} WHERE series_id = {series_id} AND"
            self._take(connection, rows, series, SHORTEST_S)
            if time.monotonic() - said > SAID_EVERY_S:
                said = time.monotonic()
                self.say(
                    f"{path.name}: {number} of {len(series)} series, {self.result.added} rows came back so far."
                )
        if "recent" in tables:
            self._take(connection, "recent WHERE", series, SHORTEST_RECENT_S)
        with contextlib.suppress(sqlite3.Error):
            circuits = connection.execute(
                "SELECT circuit_id, name, valid_from, valid_to FROM circuits ORDER BY rowid"
            )
            self.store.add_circuits([row for row in circuits if _is_circuit(*row)])

    def _take(self, connection: sqlite3.Connection, rows: str, series: _Series, shortest_s: int) -> None:
        """Bring what can be read of these rows, in chunks."""
        chunk: list[_Found] = []
        for row in _readable(connection, rows, shortest_s, self.result.lost):
            chunk.append(row)
            if len(chunk) == CHUNK_ROWS:
                self._add(chunk, series)
                chunk = []
        self._add(chunk, series)

    def _add(self, chunk: list[_Found], series: _Series) -> None:
        began = time.monotonic()
        shape = self.store.shape
        whole = {row[:2]: row for row in chunk if _is_row(row, series, shape)}.values()
        if not whole:
            return
        labels = [(series[row[0]], row) for row in whole]
        rows = (
            Row(datetime.fromtimestamp(time_s, UTC), kind, name, value, unit, interval_s)
            for (kind, name, unit), (_, time_s, value, interval_s) in labels
        )
        try:
            added = self.store.add(frame(rows, shape))
        except ValueError:
            # What looks like a good page and is none must not keep the rest from coming back.
            times = [time_s for _, time_s, _, _ in whole]
            self.result.lost.append((min(times), max(times) + 1))
            return
        self.result.read += added.rows
        self.result.added += added.changed
        self.sleep(time.monotonic() - began)


def _readable(
    connection: sqlite3.Connection, rows: str, shortest_s: int, lost: list[tuple[int, int]]
) -> Iterator[_Found]:
    """Yield the rows that can be read, some perhaps twice; the stretches that cannot are added to `lost`."""
    sql = f"SELECT series_id, time, value, interval_s FROM {rows} time >= ? AND time < ? ORDER BY time"  # noqa: S608 - a table of ours and a number
    stretches = [(BEGINNING_S, END_S)]
    while stretches:
        low, high = stretches.pop()
        try:
            for row in connection.execute(f"{sql} ASC", (low, high)):
                yield row
                low = _inside(row[1], low, high)
            continue
        except sqlite3.Error:
            # The damage lies beyond what was read.
            pass
        with contextlib.suppress(sqlite3.Error):
            for row in connection.execute(f"{sql} DESC", (low, high)):
                yield row
                high = _inside(row[1], low, high) + 1
        if low == BEGINNING_S or high == END_S:
            first, last = _span(connection)
            low, high = max(low, first), min(high, last)
        if high - low > shortest_s:
            middle = (low + high) // 2
            stretches += [(low, middle), (middle, high)]
        elif high > low + 1:
            _lose(lost, low, high)


def _inside(time_s: object, low: int, high: int) -> int:
    """Return a row's time, which on a bad page can be anything."""
    if isinstance(time_s, int) and low <= time_s < high:
        return time_s
    raise sqlite3.DatabaseError("rows are out of order")


def _span(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the first and the last time of which there are rows."""
    with contextlib.suppress(sqlite3.Error):
        first, last = connection.execute("SELECT min(hour), max(hour) + 3600 FROM hours").fetchone()
        if isinstance(first, int) and isinstance(last, int):
            return first, last
    return EARLIEST_S, int(time.time())


def _lose(lost: list[tuple[int, int]], low: int, high: int) -> None:
    if lost and lost[-1][0] == high:
        lost[-1] = (low, lost[-1][1])
    else:
        lost.append((low, high))


def _is_row(row: _Found, series: _Series, shape: Shape) -> bool:
    """Return whether it is what a store holds: a bad page can look like a good one."""
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


def _series(connection: sqlite3.Connection, store: Store, lost: list[tuple[int, int]]) -> _Series:
    """Return kind, name and unit of each series by its id, without those that no store of ours has.

    A series that the store knows has its unit. Where one is left out, the whole time of the file is added to `lost`.
    """
    units = {(kind, name): unit for kind, name, unit in store.series()}
    found: list[tuple[int, str, str, str]]
    try:
        found = connection.execute("SELECT id, kind, name, unit FROM series ORDER BY id").fetchall()
    except sqlite3.Error:
        # The names are in an index as well, which has no units: only what the store knows comes back then.
        names = connection.execute(
            "SELECT id, kind, name FROM series INDEXED BY sqlite_autoindex_series_1"
        ).fetchall()
        found = [(*one, "unknown") for one in names]
    labels: dict[tuple[str, str], tuple[int, str]] = {}
    for series_id, kind, name, unit in found:
        known = units.get((kind, name), unit)
        if isinstance(series_id, int) and _is_name(name) and known in UNITS[store.shape.name].get(kind, ()):
            labels.setdefault((kind, name), (series_id, known))
    if len(labels) < len(found):
        lost.append(_span(connection))
    return {series_id: (kind, name, unit) for (kind, name), (series_id, unit) in labels.items()}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file so that nothing of it changes."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        # A name that is no UTF-8 is no name of ours, and must not hide those that are.
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        yield connection


def _with_another_beginning(path: Path, folder: Path) -> Path:
    """Return a copy of the file, which has the first page of a new store."""
    copy = folder / path.name
    for part in _parts(path):
        shutil.copyfile(part, folder / part.name)
    with Store.open(folder / "new.sqlite"):
        pass
    page = bytearray((folder / "new.sqlite").read_bytes()[:PAGE_BYTES])
    # How many pages there are, and that none is free.
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


def _at(unix_s: int) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC).astimezone(TOKYO):%Y-%m-%d %H:%M}"
