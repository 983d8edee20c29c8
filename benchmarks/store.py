"""The store at a year's size, against the same rows in one ordinary table with an index on their time.

Both are filled day by day with 45 series, in SQLite with the same settings, and are in the page cache when they are read.
A minute is appended as a run does it: open, write, on disk, close, while the daemon keeps the file open.

    python -m benchmarks.store [--days 365] [--per-minute 1]
"""

import argparse
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES
from aiseg2_pipeline.store import Destination, Store
from aiseg2_pipeline.store.queries import Queries
from benchmarks.home import SERIES, readings
from benchmarks.side import markdown, median_s, say

START = datetime(2025, 1, 1, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
# As far as `record_complete` looks back every minute.
RECENT_D = 35
# Two hours, so that what is done once an hour is in the mean.
MINUTES = 120
REPEATS = 7
CIRCUIT = str(SERIES["name"].iloc[-1])
INFLUX = Destination("influx", "home", "power")
BLOCK = 512
ROW = [("series_id", "i8"), ("time", "i8"), ("value", "f8"), ("interval_s", "i4")]
MB = 1e6


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

    def upsert(self, table: pd.DataFrame) -> None:
        """Insert the rows of a readings frame, which begins with the first series and has all of them."""
        series_ids = np.tile(np.arange(len(SERIES)), len(table) // len(SERIES))
        times = table["time"].astype("int64") // 10**9
        rows = zip(series_ids.tolist(), times.tolist(), table["value"], table["interval_s"], strict=True)
        with self._connection:
            self._connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?)", rows)

    def delete(self, start: datetime, end: datetime) -> None:
        """Delete the rows of a range."""
        with self._connection:
            span = start.timestamp(), end.timestamp() - 1
            self._connection.execute("DELETE FROM readings WHERE time BETWEEN ? AND ?", span)

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


Side = Store | OneTable
Open = Callable[[Path], Side]


def appended(opened: Open, path: Path, tables: list[pd.DataFrame]) -> tuple[float, float]:
    """Return the median seconds of appending a table, and the mean bytes that went to the disk for each."""

    def append() -> None:
        with closing(opened(path)) as side:
            side.upsert(tables.pop(0))

    count = len(tables)
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as daemon:
        daemon.execute("SELECT count(*) FROM sqlite_master").fetchone()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_oublock
        seconds = median_s(append, count)
        written = (resource.getrusage(resource.RUSAGE_SELF).ru_oublock - before) * BLOCK
    return seconds, written / count


def minutes(start: datetime, per_minute: int) -> Iterator[pd.DataFrame]:
    """Yield the tables that a run stores, a minute each."""
    for n in range(MINUTES):
        times = [start + n * MINUTE + k * MINUTE / per_minute for k in range(per_minute)]
        yield pd.concat([readings(time, 1) for time in times], ignore_index=True)


def filled_again(side: Side, end: datetime) -> float:
    """Remove 30 days, and return the seconds of storing them again as a fill does, day by day."""
    days = [end - n * DAY for n in range(30, 0, -1)]
    tables = [readings(day).assign(interval_s=np.int32(3600)) for day in days]
    side.delete(days[0], end)
    return median_s(lambda: side.upsert(tables.pop(0)), len(tables)) * len(days)


def against(ours: Path, theirs: Path, end: datetime, per_minute: int) -> list[Sequence[str]]:
    """Return the rows of the table of both sides."""
    rows = []
    rows.append(_row("the file", ours.stat().st_size / MB, theirs.stat().st_size / MB, "MB"))
    our_s, our_bytes = appended(Store.open, ours, list(minutes(end + DAY, per_minute)))
    their_s, their_bytes = appended(OneTable, theirs, list(minutes(end + DAY, per_minute)))
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
            our_read, their_read = (
                partial(store.read, start, stop, names=names),
                partial(one.read, start, stop, names),
            )
            pd.testing.assert_frame_equal(our_read(), their_read())
            rows.append(_row(words, median_s(our_read, REPEATS) * 1e3, median_s(their_read, REPEATS) * 1e3, "ms"))
        rows.append(_row("fill 30 days again", filled_again(store, end), filled_again(one, end), "s"))
    return rows


def of_ours(path: Path, end: datetime) -> list[Sequence[str]]:
    """Return the rows of the table of what only the store has to do."""
    with Store.open(path) as store:
        work: dict[str, Callable[[], object]] = {
            "the hours pending, all of them": partial(store.pending_hours, INFLUX),
            "the rows of one": partial(store.pending_rows, INFLUX, [end - HOUR], 100_000),
            f"coverage of {RECENT_D} days": partial(store.coverage, end - RECENT_D * DAY, end),
            "coverage of all days": partial(store.coverage, START, end),
        }
        seconds = {name: median_s(query, REPEATS) for name, query in work.items()}
    span = int(START.timestamp()), int(end.timestamp())
    with Queries(path) as queries:
        work = {
            "one series by hour": partial(queries.by_hour, "usage", *span, CIRCUIT),
            "one series by day": partial(queries.by_day, "usage", *span, CIRCUIT),
            "all circuits by day": partial(queries.by_day, "usage", *span),
            "coverage by day": partial(queries.coverage_by_day, *span),
        }
        seconds |= {name: median_s(query, REPEATS) for name, query in work.items()}
    return [(name, f"{time * 1e3:.1f} ms") for name, time in seconds.items()]


def _row(words: str, ours: float, theirs: float, unit: str) -> Sequence[str]:
    return words, f"{ours:.1f} {unit}", f"{theirs:.1f} {unit}", f"{ours / theirs:.2f}"


def main() -> None:
    """Fill both and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--per-minute", type=int, default=1, help="readings a minute of the appended minutes")
    arguments = parser.parse_args()
    days = arguments.days
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.sqlite", Path(folder) / "theirs.sqlite"
        with Store.open(ours) as store, closing(OneTable(theirs)) as one:
            for n in range(days):
                if n % RECENT_D == 0:
                    say(f"{n} of {days} days are stored.")
                table = readings(START + n * DAY)
                store.upsert(table)
                one.upsert(table)
        end = START + days * DAY
        rows = against(ours, theirs, end, arguments.per_minute)
        print(markdown((f"{days} days of {len(SERIES)} series", "the store", "one table", "ratio"), rows))
        print()
        print(markdown((f"asked of {days} days", "the store"), of_ours(ours, end)))
        print(f"\nMemory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB at most.")


if __name__ == "__main__":
    main()
