"""The store at a year's size, against the same rows in one ordinary table with an index on their time.

Both are filled day by day with 45 series a minute, in SQLite with the same settings, and are in the page cache when they
are read. A minute is appended as a run does it: open, write, on disk, close.

    python -m benchmarks.store [--days 365]
"""

import argparse
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES
from aiseg2_pipeline.store import Destination, Store
from aiseg2_pipeline.store.rows import ROW
from benchmarks.home import SERIES, readings
from benchmarks.side import markdown, median_s, say

START = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
# As far as `record_complete` looks back every minute.
RECENT_D = 35
# Two hours, because what an hour has brought is put in its place once an hour.
MINUTES = 120
REPEATS = 7
CIRCUIT = str(SERIES["name"].iloc[-1])
INFLUX = Destination("influx", "home", "power")
BLOCK = 512

Append = Callable[[Path, pd.DataFrame], object]


class OneTable:
    """The baseline: rows in the order in which they came, and an index on their time."""

    def __init__(self, path: Path) -> None:
        """Open it, made where absent."""
        self._connection = sqlite3.connect(path)
        self._connection.executescript("""
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS readings (
                series_id INTEGER NOT NULL, time INTEGER NOT NULL, value REAL NOT NULL, interval_s INTEGER NOT NULL
            );
            CREATE INDEX IF NOT EXISTS by_time ON readings (time);
        """)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def append(self, table: pd.DataFrame) -> None:
        """Insert the rows of a readings frame, which begins with the first series and has all of them."""
        series_ids = np.tile(np.arange(len(SERIES)), len(table) // len(SERIES))
        times = table["time"].astype("int64") // 10**9
        rows = zip(series_ids.tolist(), times.tolist(), table["value"], table["interval_s"], strict=True)
        with self._connection:
            self._connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)

    def read(self, start: datetime, end: datetime, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the readings frame of a range, of all series or of those of these names."""
        wanted = SERIES.index[SERIES["name"].isin(SERIES["name"] if names is None else names)].tolist()
        sql = "SELECT series_id, time, value, interval_s FROM readings WHERE time BETWEEN ? AND ?"
        if names is not None:
            sql += f" AND series_id IN ({', '.join(map(str, wanted))})"
        span = int(start.timestamp()), int(end.timestamp()) - 1
        table = np.array(self._connection.execute(sql, span).fetchall(), dtype=ROW)
        labels = SERIES.take(table["series_id"]).reset_index(drop=True)
        times = pd.to_datetime(table["time"], unit="s", utc=True)
        columns = labels.assign(time=times, value=table["value"], interval_s=table["interval_s"])
        return columns[COLUMNS].astype(DTYPES)


def append_ours(path: Path, table: pd.DataFrame) -> None:
    """Add rows to our store."""
    with Store.open(path) as store:
        store.upsert(table)


def append_theirs(path: Path, table: pd.DataFrame) -> None:
    """Add rows to the one table."""
    with closing(OneTable(path)) as one:
        one.append(table)


def acknowledge_all(path: Path) -> None:
    """Note that InfluxDB has everything, as it is in use; by SQL, because sending a year is no part of this."""
    with Store.open(path) as store:
        hour = store.hours_with_rows(START, START + DAY)[:1]
        store.acknowledge(INFLUX, store.pending_rows(INFLUX, hour, 1), 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT OR REPLACE INTO acknowledged SELECT 1, hour, max_version FROM hours")


def asked_every_minute(path: Path, end: datetime) -> dict[str, float]:
    """Return the seconds of what a minute's run asks of the store besides, by name."""
    acknowledge_all(path)
    with Store.open(path) as store:
        store.upsert(readings(end, 1))
        work: dict[str, Callable[[], object]] = {
            "the hours that InfluxDB is owed": partial(store.pending_hours, INFLUX),
            "the rows of them": partial(store.pending_rows, INFLUX, [end], 5000),
            f"the minutes covered in {RECENT_D} days": partial(store.coverage, end - RECENT_D * DAY, end),
        }
        return {name: median_s(query, REPEATS) for name, query in work.items()}


def appended(append: Append, path: Path, start: datetime) -> tuple[float, float]:
    """Return the median seconds of appending a minute, and the mean bytes that went to the disk for it."""
    minutes = [readings(start + timedelta(minutes=n), 1) for n in range(MINUTES)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_oublock
    seconds = median_s(lambda: append(path, minutes.pop(0)), MINUTES)
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_oublock - before) * BLOCK / MINUTES


def against(ours: Path, theirs: Path, end: datetime) -> list[Sequence[str]]:
    """Return the rows of the table of both sides."""
    rows = []
    our_s, our_bytes = appended(append_ours, ours, end + DAY)
    their_s, their_bytes = appended(append_theirs, theirs, end + DAY)
    rows.append(_row("append a minute", our_s * 1e3, their_s * 1e3, "ms"))
    rows.append(_row("… written to the disk for it", our_bytes / 1e3, their_bytes / 1e3, "kB"))
    middle = START + (end - START) // DAY // 2 * DAY
    with Store.open(ours) as store, closing(OneTable(theirs)) as one:
        for words, start, names in (
            ("read a day of one series", middle, [CIRCUIT]),
            ("read a day of all", middle, None),
            ("read the last 30 days of one series", max(START, end - 30 * DAY), [CIRCUIT]),
        ):
            stop = start + DAY if start == middle else end
            our_read = partial(store.read, start, stop, names=names)
            their_read = partial(one.read, start, stop, names)
            pd.testing.assert_frame_equal(our_read(), their_read())
            rows.append(_row(words, median_s(our_read, REPEATS) * 1e3, median_s(their_read, REPEATS) * 1e3, "ms"))
    rows.append(_row("the file", ours.stat().st_size / 1e6, theirs.stat().st_size / 1e6, "MB"))
    return rows


def _row(words: str, ours: float, theirs: float, unit: str) -> Sequence[str]:
    return words, f"{ours:.1f} {unit}", f"{theirs:.1f} {unit}", f"{ours / theirs:.2f}"


def main() -> None:
    """Fill both and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    days = parser.parse_args().days
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.sqlite", Path(folder) / "theirs.sqlite"
        early: dict[str, float] = {}
        with Store.open(ours) as store, closing(OneTable(theirs)) as one:
            for n in range(days):
                if n % RECENT_D == 0:
                    say(f"{n} of {days} days are stored.")
                if n == RECENT_D:
                    early = asked_every_minute(ours, START + n * DAY)
                table = readings(START + n * DAY)
                store.upsert(table)
                one.append(table)
        end = START + days * DAY
        rows = against(ours, theirs, end)
        late = asked_every_minute(ours, end)
    head = (f"{days} days of {len(SERIES)} series", "the store", "one table", "ratio")
    print(markdown(head, rows))
    print()
    head = ("asked every minute", f"at {days} days", f"at {min(days, RECENT_D)} days", "ratio")
    print(markdown(head, (_row(name, late[name] * 1e3, early.get(name, late[name]) * 1e3, "ms") for name in late)))


if __name__ == "__main__":
    main()
