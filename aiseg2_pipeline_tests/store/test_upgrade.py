"""A store of an older version is upgraded in place and in pieces, without loss; one of a newer version is refused."""

import random
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.readings import Row, Shape, frame
from aiseg2_pipeline.store import ClimateStore, EnergyStore, FetchAttempt, Outbox, Store, StoreError
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.schema import VERSION
from aiseg2_pipeline_tests.support.damage import execute_in
from aiseg2_pipeline_tests.support.store import (
    DAY,
    FORK,
    HOUR,
    INFLUX,
    MINUTE,
    START,
    in_another_process,
    kill_this_process,
    readings,
    record_connections,
)

START_S = int(START.timestamp())
# The tables of version 1 as that version created them.
VERSION_1 = """
BEGIN IMMEDIATE;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, UNIQUE (kind, name)
);
CREATE TABLE readings (
    series_id INTEGER NOT NULL, time INTEGER NOT NULL, value REAL NOT NULL, interval_s INTEGER NOT NULL,
    version INTEGER NOT NULL, PRIMARY KEY (series_id, time)
) WITHOUT ROWID;
CREATE TABLE hours (hour INTEGER PRIMARY KEY, max_version INTEGER NOT NULL);
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, org TEXT NOT NULL, bucket TEXT NOT NULL, UNIQUE (host, org, bucket)
);
CREATE TABLE acknowledged (
    destination_id INTEGER NOT NULL, hour INTEGER NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (destination_id, hour)
) WITHOUT ROWID;
CREATE TABLE set_aside (
    destination_id INTEGER NOT NULL, hour INTEGER NOT NULL, first_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (destination_id, hour, first_version)
) WITHOUT ROWID;
CREATE TABLE circuits (
    circuit_id TEXT NOT NULL, name TEXT NOT NULL, valid_from INTEGER NOT NULL, valid_to INTEGER
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('version', 0), ('resends', 0);
PRAGMA user_version = 1;
COMMIT;
"""
# Version 2 had the rows of the running hour in `recent`.
VERSION_2 = """
BEGIN IMMEDIATE;
ALTER TABLE readings RENAME TO by_series;
CREATE TABLE recent (
    time INTEGER NOT NULL, series_id INTEGER NOT NULL, value REAL NOT NULL, interval_s INTEGER NOT NULL,
    version INTEGER NOT NULL, PRIMARY KEY (time, series_id)
) WITHOUT ROWID;
INSERT INTO recent SELECT time, series_id, value, interval_s, version FROM by_series
    WHERE time >= (SELECT max(hour) FROM hours);
DELETE FROM by_series WHERE time >= (SELECT max(hour) FROM hours);
CREATE VIEW readings AS
    SELECT time, kind, name, value, unit, interval_s FROM series CROSS JOIN by_series ON series_id = id
    UNION ALL
    SELECT time, kind, name, value, unit, interval_s FROM series CROSS JOIN recent ON series_id = id;
PRAGMA user_version = 2;
COMMIT;
"""
VERSIONS = pytest.mark.parametrize("version", [1, 2])
# Two series of each store, and their interval (s).
SERIES: dict[type[Outbox], tuple[list[tuple[str, str, str]], int]] = {
    Store: ([("total", "売買電力", "kW"), ("usage", "台所", "W")], 0),
    EnergyStore: ([("consumption", "総消費電力", "Wh"), ("usage", "1", "Wh")], EnergyStore.shape.intervals_s[-1]),
    ClimateStore: ([("temperature", "居間", "℃"), ("humidity", "居間", "%")], 0),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.sqlite"


def make_old(path: Path, version: int, table: pd.DataFrame, *statements: str) -> None:
    """Make a store of an older version with these rows, whose versions are their places in the frame, from 1 on."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        series = {
            key: n
            for n, key in enumerate(
                dict.fromkeys(zip(table["kind"], table["name"], table["unit"], strict=True)), 1
            )
        }
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO series (kind, name, unit) VALUES (?, ?, ?)", series)
        rows = (
            (series[row.kind, row.name, row.unit], int(row.time.timestamp()), row.value, row.interval_s, n)
            for n, row in enumerate(map(Row._make, table.itertuples(index=False)), 1)
        )
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute(
            "INSERT INTO hours SELECT time / 3600 * 3600, max(version) FROM readings GROUP BY time / 3600"
        )
        connection.execute("UPDATE meta SET value = (SELECT max(version) FROM readings) WHERE key = 'version'")
        connection.execute("COMMIT")
        if version == 2:
            connection.executescript(VERSION_2)
        for statement in statements:
            connection.execute(statement)
    path.chmod(0o600)


def rows_of(kind: type[Outbox], minutes: Iterable[int]) -> pd.DataFrame:
    series, interval_s = SERIES[kind]
    rows = (
        Row(START + n * MINUTE, label, name, float(n * number), unit, interval_s)
        for n in minutes
        for number, (label, name, unit) in enumerate(series, 1)
    )
    return frame(rows, kind.shape)


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


@VERSIONS
@pytest.mark.parametrize("kind", SERIES)
def test_rows_what_is_pending_and_circuits_are_the_same_after_an_upgrade(
    path: Path, version: int, kind: type[Outbox]
) -> None:
    # The first hour is acknowledged but for its last rows; two rows of the second one are set aside.
    make_old(
        path,
        version,
        rows_of(kind, range(150)),
        f"INSERT INTO destinations VALUES (1, '{INFLUX.host}', '{INFLUX.org}', '{INFLUX.bucket}')",
        f"INSERT INTO acknowledged VALUES (1, {START_S}, 110), (1, {START_S + 3600}, 240)",
        f"INSERT INTO set_aside VALUES (1, {START_S + 3600}, 131, 132, 'no', {START_S})",
        f"INSERT INTO circuits VALUES ('1', '１階・台所', {START_S}, {START_S + 3600}), ('1', '居間', {START_S + 3600}, NULL)",
    )
    with kind.open(path) as store:
        assert store.pending_hours(INFLUX) == [START, START + 2 * HOUR]
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), 1000)
        assert batch.versions.tolist() == [*range(111, 121), *range(241, 301)]
        pd.testing.assert_frame_equal(batch.frame, rows_of(kind, [*range(55, 60), *range(120, 150)]))
        assert store.set_aside_rows(INFLUX)["value"].tolist() == [65.0, 130.0]
        pd.testing.assert_frame_equal(store.read(START, START + DAY), rows_of(kind, range(150)))
        assert store.hours_with_rows(START, START + DAY) == [START, START + HOUR, START + 2 * HOUR]
        assert store.upsert(rows_of(kind, range(149, 152))).changed == 4
        assert store.upsert(rows_of(kind, range(149, 152))).changed == 0
        batch = store.pending_rows(INFLUX, [START + 2 * HOUR], 1000)
        assert batch.versions.tolist() == [*range(241, 305)]
        if isinstance(store, Store):
            assert store.coverage(START, START + DAY) == {
                START: (60, 0, 0),
                START + HOUR: (60, 0, 0),
                START + 2 * HOUR: (32, 0, 0),
            }
            # That version stored page 734's spelling, this one stores page 1113's.
            assert store.circuits_at(START) == [Circuit("1", "１階台所")]
            assert store.circuits_at(START + DAY) == [Circuit("1", "居間")]
            store.record_circuits([Circuit("1", "２階・居間")], START + DAY)
            assert store.circuits_at(START) == [Circuit("1", "１階台所")]
            assert store.circuits_at(START + DAY) == [Circuit("1", "２階・居間")]
        store.check_integrity()
        assert store.is_upgraded
    assert damaged_files(path) == []


def test_rows_set_aside_because_of_a_retention_are_pending_after_an_upgrade(path: Path) -> None:
    make_old(
        path,
        2,
        rows_of(Store, range(150)),
        f"INSERT INTO destinations VALUES (1, '{INFLUX.host}', '{INFLUX.org}', '{INFLUX.bucket}')",
        f"INSERT INTO acknowledged VALUES (1, {START_S}, 120), (1, {START_S + 3600}, 240)",
        f"INSERT INTO set_aside VALUES (1, {START_S}, 1, 120, 'dropped 1 points outside retention policy', {START_S}), "
        f"(1, {START_S + 3600}, 121, 122, 'no', {START_S})",
    )
    with Store.open(path) as store:
        assert store.pending_hours(INFLUX) == [START, START + 2 * HOUR]
        assert set(store.set_aside_rows(INFLUX)["reason"]) == {"no"}


@VERSIONS
def test_an_upgraded_store_has_the_tables_of_a_new_one(tmp_path: Path, version: int) -> None:
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    make_old(old, version, readings(START, 3))
    schemas = []
    for path in (old, new):
        with Store.open(path) as store:
            store.upgrade()
        with closing(sqlite3.connect(path)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
            schemas.append({name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in names})
            (view,) = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'view'").fetchone()
            schemas[-1]["view"] = [view.strip()]
        assert version_of(path) == VERSION
    assert schemas[0] == schemas[1]


@VERSIONS
def test_requests_in_vain_are_attempts_after_an_upgrade(path: Path, version: int) -> None:
    class OldEnergyStore(EnergyStore):
        shape = Shape("energy", (*EnergyStore.shape.kinds, "no_data"), EnergyStore.shape.intervals_s)

    at = float(START_S + 7200)
    table = frame(
        [
            Row(START, "no_data", "totals", at, "", 86_400),
            Row(START, "no_data", "circuits/9", 0.0, "", 86_400),
            Row(START + HOUR, "consumption", "consumption", 300.0, "Wh", 3600),
        ],
        OldEnergyStore.shape,
    )
    make_old(path, version, table)
    with EnergyStore.open(path) as store:
        assert store.attempts(START, START + DAY) == [FetchAttempt(START, "totals", START + 2 * HOUR)]
        assert len(store.read(START, START + DAY)) == 1
        assert store.series() == [("consumption", "consumption", "Wh")]
        assert store.hours_with_rows(START, START + DAY) == [START + HOUR]


def upgrade_until(path: Path, statements: int) -> None:
    """Upgrade the store, and be killed at that statement."""
    left = iter(range(statements))

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*args, **kwargs)
        connection.set_trace_callback(lambda _: kill_this_process() if next(left, None) is None else None)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    with Store.open(path) as store:
        store.upgrade()


@VERSIONS
def test_a_month_is_upgraded_without_loss_by_processes_that_are_killed_while_live_minutes_are_stored(
    path: Path, version: int
) -> None:
    old = readings(START, 30 * 1440, circuits=0)
    make_old(path, version, old)
    now, seed = START + 31 * DAY, random.Random(version)  # noqa: S311 - the same in each run
    for n in range(50):
        assert in_another_process(upgrade_until, path, seed.randrange(1, 160)) == -SIGKILL
        with Store.open(path) as store:
            assert store.upsert(readings(now + n * MINUTE, circuits=0)).changed == 2
    with Store.open(path) as store:
        assert not store.is_upgraded
        store.upgrade()
        assert store.is_upgraded
        both = pd.concat([old, readings(now, 50, circuits=0)], ignore_index=True)
        pd.testing.assert_frame_equal(store.read(START, now + DAY), both)
        assert set(store.coverage(START, START + 30 * DAY).values()) == {(60, 0, 0)}
        store.check_integrity()


@VERSIONS
def test_what_is_asked_of_an_old_store_is_upgraded_first(path: Path, version: int) -> None:
    make_old(path, version, readings(START, 10 * 1440, circuits=1))
    end = START + 10 * DAY
    with Store.open(path) as store:
        assert store.last_time() == store.live_near(end) == end - MINUTE
        middle = START + 5 * DAY
        assert store.live_near(middle) == middle
        assert len(store.read(middle, middle + HOUR)) == 180
        assert store.coverage(middle, middle + HOUR) == {middle: (60, 0, 0)}
        assert store.delete(middle, middle + MINUTE) == 3
        # The rows of the hour after a removal may still be in the old table.
        for end_of_piece in (start := START + 7 * DAY).replace(hour=12), start.replace(hour=18):
            assert store.delete(end_of_piece - MINUTE, end_of_piece) == 3
            assert store.hours_with_rows(end_of_piece, end_of_piece + HOUR) == [end_of_piece]
        assert not store.is_upgraded
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM readings").fetchone() == (10 * 1440 * 3 - 9,)


def open_repeatedly(path: Path, end: datetime) -> None:
    for _ in range(10):
        with Store.open(path) as store:
            assert len(store.read(START, end)) == 450


def test_an_older_store_can_be_opened_by_several_processes_at_the_same_time(path: Path) -> None:
    make_old(path, 1, readings(START, 150, circuits=1))
    processes = [FORK.Process(target=open_repeatedly, args=(path, START + DAY)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


@VERSIONS
def test_a_disk_that_is_full_in_the_middle_of_an_upgrade_loses_nothing(
    path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = readings(START, 3 * 1440, circuits=1)
    make_old(path, version, table)
    opened = record_connections(monkeypatch)
    with Store.open(path) as store:
        store.read(START, START + HOUR)
        (pages,) = opened[-1].execute("PRAGMA page_count").fetchone()
        opened[-1].execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="its disk is full: free some space"):
            store.upgrade()
        opened[-1].execute("PRAGMA max_page_count = 1000000")
        store.upgrade()
        pd.testing.assert_frame_equal(store.read(START, START + 3 * DAY), table)


def refusal(path: Path) -> str:
    """Return the message with which the store is refused, and check that its file is unchanged."""
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert path.read_bytes() == before
    return str(error.value)


def test_an_upgrade_without_room_is_refused_with_the_space_that_it_needs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(path, 2, readings(START, 3))
    usage = shutil.disk_usage(path.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5_000_000))
        refused = refusal(path)
    assert refused == (
        f"{path} is from an older aiseg2-pipeline, and its upgrade needs 20 MB of free space on its disk, which has 5 MB: free some, "
        "or set AISEG2_DATA_DIR to another folder."
    )
    with Store.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + DAY), readings(START, 3))


def test_a_newer_store_is_refused_and_not_changed(path: Path) -> None:
    Store.open(path).close()
    execute_in(path, f"PRAGMA user_version = {VERSION + 1}", "DROP VIEW readings")
    assert refusal(path) == (
        f"{path} is from a newer aiseg2-pipeline (store version {VERSION + 1}, this program supports {VERSION}): install the newer one "
        "again, or set AISEG2_DATA_DIR to another folder."
    )
    assert damaged_files(path) == []
