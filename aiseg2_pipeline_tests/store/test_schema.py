"""A store of an older version becomes one of this version, whole; one of a newer version is refused."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.climate import CLIMATE
from aiseg2_pipeline.frames.energy import ENERGY
from aiseg2_pipeline.frames.readings import READINGS, Row, frame
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store, StoreError, database, schema
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.schema import UPGRADES, VERSION, Upgrade

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
START_S = int(START.timestamp())
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
INFLUX = Destination("influx:8086", "home", "power")
FORK = multiprocessing.get_context("fork")

# As it was, word for word.
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
SERIES = {
    Store: [("total", "売買電力", "kW"), ("usage", "台所", "W")],
    EnergyStore: [("consumption", "総消費電力", "Wh"), ("usage", "1", "Wh")],
    ClimateStore: [("temperature", "居間", "℃"), ("humidity", "居間", "%")],
}
SHAPES = {Store: READINGS, EnergyStore: ENERGY, ClimateStore: CLIMATE}
MINUTES = 150
Kind = type[Store]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.sqlite"


def make_version_1(path: Path, kind: Kind = Store) -> None:
    """A store of version 1: two and a half hours, the first acknowledged but for its last rows, two rows of the second refused."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(VERSION_1)
        connection.executemany("INSERT INTO series (kind, name, unit) VALUES (?, ?, ?)", SERIES[kind])
        version = 0
        for minute in range(MINUTES):
            for series_id in (1, 2):
                version += 1
                row = (series_id, START_S + 60 * minute, float(minute * series_id), interval_s(kind), version)
                connection.execute("INSERT INTO readings VALUES (?, ?, ?, ?, ?)", row)
        hours = [(START_S, 120), (START_S + 3600, 240), (START_S + 7200, 300)]
        connection.executemany("INSERT INTO hours VALUES (?, ?)", hours)
        connection.execute("UPDATE meta SET value = 300 WHERE key = 'version'")
        connection.execute(
            "INSERT INTO destinations VALUES (1, ?, ?, ?)", (INFLUX.host, INFLUX.org, INFLUX.bucket)
        )
        connection.execute("INSERT INTO acknowledged VALUES (1, ?, 110), (1, ?, 240)", (START_S, START_S + 3600))
        connection.execute("INSERT INTO set_aside VALUES (1, ?, 131, 132, 'no', ?)", (START_S + 3600, START_S))
        connection.execute("INSERT INTO circuits VALUES ('1', '台所', ?, ?)", (START_S, START_S + 3600))
        connection.execute("INSERT INTO circuits VALUES ('1', '居間', ?, NULL)", (START_S + 3600,))
    path.chmod(0o600)


def interval_s(kind: Kind) -> int:
    return SHAPES[kind].intervals_s[-1] if kind is EnergyStore else 0


def rows_of(kind: Kind, first: int, last: int) -> pd.DataFrame:
    return frame(
        (
            Row(START + n * MINUTE, what, name, float(n * number), unit, interval_s(kind))
            for n in range(first, last)
            for number, (what, name, unit) in enumerate(SERIES[kind], 1)
        ),
        SHAPES[kind],
    )


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def assert_is_as_it_was(path: Path, kind: Kind = Store) -> None:
    with kind.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + DAY), rows_of(kind, 0, MINUTES))
        assert store.hours_with_rows(START, START + DAY) == [START, START + HOUR, START + 2 * HOUR]
        assert store.pending_hours(INFLUX) == [START, START + 2 * HOUR]
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), 1000)
        assert batch.versions.tolist() == [*range(111, 121), *range(241, 301)]
        pd.testing.assert_frame_equal(
            batch.frame, pd.concat([rows_of(kind, 55, 60), rows_of(kind, 120, 150)], ignore_index=True)
        )
        assert store.set_aside_rows(INFLUX)["value"].tolist() == [65.0, 130.0]
        assert store.circuits_at(START) == [Circuit("1", "台所")]
        assert store.circuits_at(START + DAY) == [Circuit("1", "居間")]
        store.look_over()


@pytest.mark.parametrize("kind", [Store, EnergyStore, ClimateStore])
def test_an_older_store_is_brought_up_to_date_and_everything_is_the_same(path: Path, kind: Kind) -> None:
    make_version_1(path, kind)
    assert_is_as_it_was(path, kind)
    assert version_of(path) == VERSION
    assert_is_as_it_was(path, kind)
    assert damaged_files(path) == []


@pytest.mark.parametrize("kind", [Store, EnergyStore, ClimateStore])
def test_an_older_store_goes_on_in_the_middle_of_an_hour(path: Path, kind: Kind) -> None:
    make_version_1(path, kind)
    with kind.open(path) as store:
        assert store.upsert(rows_of(kind, 149, 152)).changed == 4
        assert store.upsert(rows_of(kind, 149, 152)).changed == 0
        pd.testing.assert_frame_equal(store.read(START, START + DAY), rows_of(kind, 0, 152))
        batch = store.pending_rows(INFLUX, [START + 2 * HOUR], 1000)
        assert batch.versions.tolist() == [*range(241, 305)]
        assert store.delete(START + 149 * MINUTE, START + 151 * MINUTE) == 4
        store.look_over()


def test_an_upgraded_store_is_like_a_new_one(tmp_path: Path) -> None:
    make_version_1(tmp_path / "old.sqlite")
    found = []
    for name in ("old", "new"):
        Store.open(tmp_path / f"{name}.sqlite").close()
        with closing(sqlite3.connect(tmp_path / f"{name}.sqlite")) as connection:
            tables = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
            found.append([(kind, name, (sql or "").replace('"', "")) for kind, name, sql in tables])
    assert found[0] == found[1]


def test_there_is_a_step_from_every_version_to_the_next() -> None:
    assert sorted(UPGRADES) == list(range(1, VERSION))


def in_another_process(work: Callable[..., None], *arguments: Any) -> int:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


def upgrade_until(path: Path, statement: str) -> None:
    """Open it, and be killed when SQLite begins that statement."""

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*args, **kwargs)
        connection.set_trace_callback(
            lambda sql: os.kill(os.getpid(), signal.SIGKILL) if statement in sql else None
        )
        return connection

    sqlite3.connect = traced  # type: ignore[assignment]
    Store.open(path)


@pytest.mark.parametrize(
    "statement", ["BEGIN", "ALTER", "CREATE TABLE recent", "PRAGMA user_version = ", "COMMIT"]
)
def test_killed_in_the_middle_the_old_store_is_whole(path: Path, statement: str) -> None:
    make_version_1(path)
    assert in_another_process(upgrade_until, path, statement) == -signal.SIGKILL
    assert version_of(path) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM readings").fetchone() == (2 * MINUTES,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert_is_as_it_was(path)


def open_often(path: Path) -> None:
    for _ in range(20):
        with Store.open(path) as store:
            assert len(store.read(START, START + DAY)) == 2 * MINUTES


def test_processes_that_open_an_older_store_at_once_all_get_it(path: Path) -> None:
    make_version_1(path)
    processes = [FORK.Process(target=open_often, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert_is_as_it_was(path)


def test_an_older_store_that_is_held_by_another_is_one_sentence(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version_1(path)
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="was held by another process"):
            Store.open(path)
    assert version_of(path) == 1
    assert_is_as_it_was(path)


def test_a_step_that_writes_the_file_anew_needs_room_and_says_what_it_does(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version_1(path)
    monkeypatch.setitem(schema.UPGRADES, 1, Upgrade(UPGRADES[1].sql, copies=1))
    usage = shutil.disk_usage(path.parent)
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=path.stat().st_size))
        with pytest.raises(StoreError, match="MB on its disk: free that much, or install"):
            Store.open(path, told.append)
        assert version_of(path) == 1
        assert told == []
    Store.open(path, told.append).close()
    assert told == [f"{path} is being brought up to date (store version 1 to {VERSION})."]
    assert_is_as_it_was(path)


# Newer


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory whose three stores are of a later program."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "AISEG2_HOST": "127.0.0.1:9",
        "AISEG2_PASSWORD": "x",
        "INFLUXDB_HOST": "127.0.0.1:9",
        "INFLUXDB_TOKEN": "x",
        "INFLUXDB_ORG": "x",
        "INFLUXDB_BUCKET": "x",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for kind, name in ((Store, "readings"), (EnergyStore, "energy"), (ClimateStore, "climate")):
        file = tmp_path / "data" / f"{name}.sqlite"
        kind.open(file).close()
        with closing(sqlite3.connect(file)) as connection:
            connection.executescript(f"PRAGMA user_version = {VERSION + 1}; DROP VIEW readings;")
    return tmp_path / "data"


@pytest.mark.parametrize("kind", [Store, EnergyStore, ClimateStore])
def test_a_newer_store_is_refused_and_stays_as_it_is(newer: Path, kind: Kind) -> None:
    path = newer / {Store: "readings", EnergyStore: "energy", ClimateStore: "climate"}[kind]
    path = path.with_suffix(".sqlite")
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        kind.open(path)
    assert str(error.value) == (
        f"{path} is from a newer aiseg2-pipeline (store version {VERSION + 1}, this one knows {VERSION}): install the newer one "
        "again, or set AISEG2_DATA_DIR to another folder."
    )
    assert path.read_bytes() == before
    assert damaged_files(path) == []


@pytest.mark.parametrize(
    "command",
    [
        "gaps",
        "fill --dry-run",
        "resend",
        "remove --from 2026-03-01 --to 2026-03-01",
        "report 2026-03-01",
    ],
)
def test_every_command_that_needs_the_store_says_that_it_is_newer(newer: Path, command: str) -> None:
    told = CliRunner().invoke(main, command.split())
    assert told.exit_code == 1
    assert f"{newer.name}/readings.sqlite is from a newer aiseg2-pipeline" in told.output
    assert "Traceback" not in told.output
