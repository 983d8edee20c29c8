"""A store of an older version is upgraded as a whole, and one of a newer version is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.store import ClimateStore, EnergyStore, Store, StoreError
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.schema import UPGRADES, VERSION
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
Kind = type[Store]
# Two series of each store, the second with twice the value of the first, and their interval (s).
SERIES = {
    Store: ([("total", "売買電力", "kW"), ("usage", "台所", "W")], 0),
    EnergyStore: ([("consumption", "総消費電力", "Wh"), ("usage", "1", "Wh")], EnergyStore.shape.intervals_s[-1]),
    ClimateStore: ([("temperature", "居間", "℃"), ("humidity", "居間", "%")], 0),
}
KINDS = pytest.mark.parametrize("kind", SERIES)
MINUTES = 150


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.sqlite"


def make_version_1(path: Path, kind: Kind = Store) -> None:
    """Make a store of 2.5 hours: the first acknowledged but for its last rows, two rows of the second set aside."""
    series, interval_s = SERIES[kind]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.executemany("INSERT INTO series (kind, name, unit) VALUES (?, ?, ?)", series)
        rows = (
            (series_id, START_S + 60 * minute, minute * series_id, interval_s, 2 * minute + series_id)
            for minute in range(MINUTES)
            for series_id in (1, 2)
        )
        connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", rows)
        hours = (START_S, START_S + 3600, START_S + 7200)
        connection.execute("INSERT INTO hours VALUES (?, 120), (?, 240), (?, 300)", hours)
        connection.execute("UPDATE meta SET value = 300 WHERE key = 'version'")
        to = (INFLUX.host, INFLUX.org, INFLUX.bucket)
        connection.execute("INSERT INTO destinations VALUES (1, ?, ?, ?)", to)
        connection.execute("INSERT INTO acknowledged VALUES (1, ?, 110), (1, ?, 240)", hours[:2])
        connection.execute("INSERT INTO set_aside VALUES (1, ?, 131, 132, 'no', ?)", (hours[1], START_S))
        connection.execute(
            "INSERT INTO circuits VALUES ('1', '台所', ?, ?), ('1', '居間', ?, NULL)", (*hours[:2], hours[1])
        )
    path.chmod(0o600)


def rows_of(kind: Kind, first: int, last: int) -> pd.DataFrame:
    series, interval_s = SERIES[kind]
    rows = (
        Row(START + n * MINUTE, label, name, float(n * number), unit, interval_s)
        for n in range(first, last)
        for number, (label, name, unit) in enumerate(series, 1)
    )
    return frame(rows, kind.shape)


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def assert_upgraded_without_loss(path: Path, kind: Kind = Store) -> None:
    with kind.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + DAY), rows_of(kind, 0, MINUTES))
        assert store.hours_with_rows(START, START + DAY) == [START, START + HOUR, START + 2 * HOUR]
        assert store.pending_hours(INFLUX) == [START, START + 2 * HOUR]
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), 1000)
        assert batch.versions.tolist() == [*range(111, 121), *range(241, 301)]
        pending = pd.concat([rows_of(kind, 55, 60), rows_of(kind, 120, 150)], ignore_index=True)
        pd.testing.assert_frame_equal(batch.frame, pending)
        assert store.set_aside_rows(INFLUX)["value"].tolist() == [65.0, 130.0]
        assert store.circuits_at(START) == [Circuit("1", "台所")]
        assert store.circuits_at(START + DAY) == [Circuit("1", "居間")]
        store.look_over()
    assert version_of(path) == VERSION
    assert damaged_files(path) == []


@KINDS
def test_an_older_store_is_upgraded_without_loss_and_continues_within_an_hour(path: Path, kind: Kind) -> None:
    make_version_1(path, kind)
    assert_upgraded_without_loss(path, kind)
    with kind.open(path) as store:
        assert store.upsert(rows_of(kind, 149, 152)).changed == 4
        assert store.upsert(rows_of(kind, 149, 152)).changed == 0
        pd.testing.assert_frame_equal(store.read(START, START + DAY), rows_of(kind, 0, 152))
        batch = store.pending_rows(INFLUX, [START + 2 * HOUR], 1000)
        assert batch.versions.tolist() == [*range(241, 305)]
        assert store.delete(START + 149 * MINUTE, START + 151 * MINUTE) == 4


def test_an_upgraded_store_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    old, new = tmp_path / "old.sqlite", tmp_path / "new.sqlite"
    make_version_1(old)
    schemas = []
    for path in (old, new):
        Store.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
        schemas.append([(kind, name, (sql or "").replace('"', "")) for kind, name, sql in tables])
    assert schemas[0] == schemas[1]
    assert sorted(UPGRADES) == list(range(1, VERSION))


def open_until(path: Path, statement: str) -> None:
    """Open the store, and be killed when SQLite begins that statement."""

    def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*args, **kwargs)
        connection.set_trace_callback(lambda sql: kill_this_process() if statement in sql else None)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    Store.open(path)


@pytest.mark.parametrize(
    "statement", ["BEGIN", "ALTER", "CREATE TABLE recent", "PRAGMA user_version = ", "COMMIT"]
)
def test_a_killed_upgrade_leaves_the_old_store_whole(path: Path, statement: str) -> None:
    make_version_1(path)
    assert in_another_process(open_until, path, statement) == -SIGKILL
    assert version_of(path) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM readings").fetchone() == (2 * MINUTES,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert_upgraded_without_loss(path)


def open_repeatedly(path: Path) -> None:
    for _ in range(20):
        with Store.open(path) as store:
            assert len(store.read(START, START + DAY)) == 2 * MINUTES


def test_an_older_store_can_be_opened_by_several_processes_at_the_same_time(path: Path) -> None:
    make_version_1(path)
    processes = [FORK.Process(target=open_repeatedly, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert_upgraded_without_loss(path)


def test_a_newer_store_is_refused_and_not_changed(path: Path) -> None:
    Store.open(path).close()
    execute_in(path, f"PRAGMA user_version = {VERSION + 1}", "DROP VIEW readings")
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert str(error.value) == (
        f"{path} is from a newer aiseg2-pipeline (store version {VERSION + 1}, this program supports {VERSION}): install the newer one "
        "again, or set AISEG2_DATA_DIR to another folder."
    )
    assert path.read_bytes() == before
    assert damaged_files(path) == []
