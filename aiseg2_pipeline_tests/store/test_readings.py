"""Readings and circuit lists in the store, what is pending, and the store's file under several processes."""

import sqlite3
import stat
from collections.abc import Iterator
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.readings import COLUMNS, Row, frame
from aiseg2_pipeline.store import Destination, Store, UpsertResult
from aiseg2_pipeline_tests.support.store import (
    DAY,
    HOUR,
    INFLUX,
    MINUTE,
    SPAWN,
    START,
    Reporter,
    readings,
    record_connections,
)

OTHER = Destination("https://influx.example", "home", "power-2")


def send(store: Store, destination: Destination = INFLUX) -> pd.DataFrame:
    """Acknowledge everything that is pending; return it."""
    sent = []
    while hours := store.pending_hours(destination):
        batch = store.pending_rows(destination, hours, 10_000)
        store.acknowledge(destination, batch, len(batch.frame))
        sent.append(batch.frame)
    return pd.concat(sent, ignore_index=True) if sent else frame([])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


# Readings


def test_a_frame_is_read_as_it_was_stored(path: Path) -> None:
    table = frame(
        [
            Row(START, "total", "総発電電力", 2.1, "kW", 0),
            Row(START, "total", "総消費電力", 1.2, "kW", 0),
            Row(START, "generation", "太陽光発電", 2130.0, "W", 0),
            Row(START, "usage", 'a, =\\"\0😀', -0.1, "W", 0),
            Row(START, "battery", "充電率", 55.0, "%", 0),
            Row(START, "battery", "状態", -1.0, "", 0),
            Row(START + MINUTE, "usage", 'a, =\\"\0😀', 1e300, "W", 1800),
        ]
    )
    with Store.open(path) as store:
        assert store.upsert(table) == UpsertResult(rows=7, changed=7)
        assert store.upsert(frame([])) == UpsertResult(rows=0, changed=0)
        pd.testing.assert_frame_equal(store.read(START, START + HOUR), table)
    with Store.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + HOUR), table)
        pd.testing.assert_frame_equal(store.read(START + HOUR, START + DAY), frame([]))


def test_rows_are_ordered_by_time_then_kind_then_first_appearance_of_the_name(store: Store) -> None:
    later = START + MINUTE
    store.upsert(frame([Row(later, "battery", "充電率", 1, "%", 0), Row(later, "usage", "b", 1, "W", 0)]))
    store.upsert(frame([Row(START, "usage", "a", 1, "W", 0), Row(START, "usage", "b", 1, "W", 0)]))
    store.upsert(frame([Row(START, "total", "売買電力", 1, "kW", 0)]))
    rows = store.read(START, START + HOUR)
    assert rows["kind"].tolist() == ["total", "usage", "usage", "usage", "battery"]
    assert rows["name"].tolist() == ["売買電力", "b", "a", "b", "充電率"]


def test_a_read_can_be_limited_to_a_range_to_kinds_and_to_names(store: Store) -> None:
    store.upsert(readings(START, 4))
    rows = store.read(START + MINUTE, START + 3 * MINUTE)
    assert rows["time"].drop_duplicates().tolist() == [START + MINUTE, START + 2 * MINUTE]
    end = START + MINUTE
    assert store.read(START, end, kinds=["usage"])["name"].tolist() == ["回路0", "回路1", "回路2"]
    assert store.read(START, end, names=["回路1", "売買電力"])["kind"].tolist() == ["total", "usage"]
    assert store.read(START, end, kinds=["usage"], names=["売買電力"]).empty


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (readings(START + timedelta(milliseconds=1)), "whole seconds"),
        (readings(START).drop(columns="unit"), "readings frame"),
        (frame([Row(START, "usage", name, 1, "kW", 0) for name in ("new", "回路0")]), "'W', not in 'kW'"),
    ],
    ids=["part of a second", "column missing", "another unit"],
)
def test_a_refused_frame_or_time_changes_nothing(store: Store, table: pd.DataFrame, message: str) -> None:
    store.upsert(readings(START))
    with pytest.raises(ValueError, match=message):
        store.upsert(table)
    pd.testing.assert_frame_equal(store.read(START, START + HOUR), readings(START))
    assert len(store.series()) == 5
    with pytest.raises(ValueError, match="zone"):
        store.read(START.replace(tzinfo=None), START)


def test_the_last_time_is_that_of_the_latest_live_total(store: Store) -> None:
    store.upsert(frame([Row(START + 2 * MINUTE, "usage", "a", 1, "W", 0)]))
    store.upsert(frame([Row(START + 3 * MINUTE, "total", "総消費電力", 1, "kW", 1800)]))
    assert store.last_time() is None
    store.upsert(frame([Row(START, "total", "総消費電力", 1, "kW", 0)]))
    store.upsert(frame([Row(START + MINUTE, "total", "売買電力", 1, "kW", 0)]))
    assert store.last_time() == START + MINUTE


def test_times_and_hours_with_rows_are_listed_in_order(store: Store) -> None:
    store.upsert(readings(START + 57 * MINUTE, 3))
    store.upsert(readings(START + 2 * HOUR))
    assert store.times_after(START + 57 * MINUTE) == [START + 58 * MINUTE, START + 59 * MINUTE, START + 2 * HOUR]
    assert store.times_after(START, limit=1) == [START + 57 * MINUTE]
    assert store.times_after(START + DAY) == []
    assert store.hours_with_rows(START, START + 2 * HOUR) == [START]
    assert store.hours_with_rows(START + 30 * MINUTE, START + 3 * HOUR) == [START, START + 2 * HOUR]


def test_a_minute_is_covered_once_and_only_with_all_its_totals(store: Store) -> None:
    store.upsert(readings(START, 2))
    store.upsert(readings(START + timedelta(seconds=30)))
    store.upsert(frame([Row(START + 2 * MINUTE, "total", "総消費電力", 1, "kW", 0)]))
    store.upsert(frame([Row(START + 3 * MINUTE, "usage", "回路0", 1, "W", 0)]))
    store.upsert(readings(START + 2 * HOUR))
    assert store.coverage(START, START + DAY) == {START: (2, 0, 0), START + 2 * HOUR: (1, 0, 0)}


# Pending rows: `test_outbox` holds them against a model; here is what that does not reach.


def test_an_acknowledgement_is_never_lowered(store: Store) -> None:
    store.upsert(readings(START, 2))
    early = store.pending_rows(INFLUX, [START], limit=3)
    send(store)
    store.acknowledge(INFLUX, early, 3)
    assert store.pending_hours(INFLUX) == []


def test_rows_are_resent_by_whole_hours_to_one_destination_or_to_all(store: Store) -> None:
    store.upsert(readings(START, 180))
    send(store)
    send(store, OTHER)
    assert store.resend(START + 70 * MINUTE, START + 80 * MINUTE, INFLUX) == 1
    assert store.pending_hours(OTHER) == []
    pd.testing.assert_frame_equal(send(store), readings(START + HOUR, 60))
    assert store.resend() == 3
    assert store.pending_count(INFLUX) == store.pending_count(OTHER) == 3
    assert store.resend(destination=Destination("never", "used", "before")) == 3


def test_rows_set_aside_are_listed_with_the_newest_reason_and_are_pending_until_acknowledged(store: Store) -> None:
    store.upsert(readings(START, 61))
    batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=10_000)
    # The first of these runs was killed before it acknowledged.
    for reason in ("first", "beyond retention"):
        store.set_aside(INFLUX, batch, 298, 302, reason, START + DAY)
        assert store.pending_count(INFLUX) == 2
    store.acknowledge(INFLUX, batch, len(batch.frame))
    assert store.pending_count(INFLUX) == 0
    rows = store.set_aside_rows(INFLUX)
    pd.testing.assert_frame_equal(rows[COLUMNS], batch.frame[298:302].reset_index(drop=True))
    assert rows["reason"].tolist() == ["beyond retention"] * 4
    assert rows["at"].tolist() == [START + DAY] * 4
    assert len(store.set_aside_rows(INFLUX, limit=3)) == 3
    assert store.set_aside_rows(OTHER).empty


# The circuit list


def test_a_circuit_list_is_valid_until_the_next_one(store: Store) -> None:
    old = [Circuit("1", "寝室"), Circuit("2", "台所"), Circuit("3", "台所")]
    new = [Circuit("3", "台所"), Circuit("1", "子供部屋"), Circuit("4", "車")]
    assert store.circuits_at(START) == []
    store.record_circuits(old, START)
    store.record_circuits(old, START + HOUR)
    store.record_circuits(new, START + DAY)
    # There is no older list for what is filled before the first one.
    assert store.circuits_at(START - MINUTE) == old
    assert store.circuits_at(START) == store.circuits_at(START + DAY - MINUTE) == old
    store.record_circuits(old, START + 2 * DAY)
    assert set(store.circuits_at(START + DAY)) == set(new)
    assert set(store.circuits_at(START + 2 * DAY)) == set(old)


def test_an_unchanged_circuit_list_writes_nothing(store: Store, path: Path) -> None:
    store.record_circuits([Circuit("1", "a"), Circuit("2", "b")], START)
    before = Path(f"{path}-wal").read_bytes()
    store.record_circuits([Circuit("2", "b"), Circuit("1", "a")], START + DAY)
    assert Path(f"{path}-wal").read_bytes() == before


def test_a_circuit_list_dated_by_a_clock_that_was_ahead_is_dropped(store: Store) -> None:
    store.record_circuits([Circuit("1", "a")], START)
    store.record_circuits([Circuit("1", "b")], START + 1000 * DAY)
    store.record_circuits([Circuit("1", "b")], START + DAY)
    assert store.circuits_at(START + HOUR) == [Circuit("1", "a")]
    assert store.circuits_at(START + DAY) == store.circuits_at(START + 2000 * DAY) == [Circuit("1", "b")]


# SQLite


def test_only_its_owner_may_read_the_store(store: Store, path: Path) -> None:
    store.upsert(readings(START))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert {path.name, f"{path.name}-wal", f"{path.name}-shm"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_no_statement_reads_all_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = record_connections(monkeypatch)
    statements: list[str] = []
    with Store.open(path) as store:
        opened[0].set_trace_callback(statements.append)
        store.upsert(readings(START, 61))
        store.upsert(readings(START + 61 * MINUTE))
        store.read(START, START + HOUR)
        store.last_time()
        store.live_near(START)
        store.times_after(START)
        store.hours_with_rows(START, START + HOUR)
        store.coverage(START, START + HOUR)
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=200)
        store.set_aside(INFLUX, batch, 0, 2, "no", START)
        store.acknowledge(INFLUX, batch, 4)
        store.set_aside_rows(INFLUX)
        store.resend(START, START + HOUR)
        store.delete(START, START + MINUTE)
    explained = [
        sql
        for sql in statements
        if "reading_rows" in sql and not sql.lstrip().startswith("INSERT INTO reading_rows")
    ]
    with sqlite3.connect(path) as connection:
        plans = [row[3] for sql in explained for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    of_rows = [plan for plan in plans if "reading_rows" in plan]
    assert len(of_rows) >= len(explained) > 10
    # The last live row is looked for from the end.
    assert [plan for plan in of_rows if "USING PRIMARY KEY (time" not in plan] == ["SCAN reading_rows"]


# Several processes


def upsert_minutes(path: Path, connection: "Connection[Any, Any]") -> None:
    with Store.open(path) as store:
        for n in range(1_000_000):
            store.upsert(readings(START + n * MINUTE))
            connection.send(n)


def test_nothing_that_was_reported_as_stored_is_lost_by_kill(path: Path) -> None:
    for count in (100, 150, 200):
        writer = Reporter(SPAWN, upsert_minutes, path)
        writer.receive(count)
        end = START + (writer.kill()[-1] + 1) * MINUTE
        with Store.open(path) as store:
            pd.testing.assert_frame_equal(store.read(START, end), readings(START, (end - START) // MINUTE))
            # The minute after it is stored as a whole or not at all.
            assert len(store.read(end, end + MINUTE)) in {0, 5}


def upsert_and_reopen(path: Path, first_s: int) -> None:
    for n in range(150):
        with Store.open(path) as store:
            store.upsert(readings(START + timedelta(seconds=first_s) + n * MINUTE))


def test_two_processes_write_to_one_new_store_at_the_same_time(path: Path) -> None:
    processes = [SPAWN.Process(target=upsert_and_reopen, args=(path, first_s)) for first_s in (0, 30)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with Store.open(path) as store:
        rows = store.read(START, START + DAY)
        assert len(rows) == 2 * 150 * 5
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=10_000)
        assert len(set(batch.versions.tolist())) == len(rows)
