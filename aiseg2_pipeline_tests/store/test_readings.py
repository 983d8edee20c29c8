import multiprocessing
import resource
import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.readings import COLUMNS, Row, frame
from aiseg2_pipeline.store import Destination, Store, StoreError, UpsertResult
from aiseg2_pipeline.store.schema import VERSION

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
INFLUX = Destination("https://influx.example", "home", "power")
OTHER = Destination("https://influx.example", "home", "power-2")

# Processes of a test start afresh, as the pipeline's do.
SPAWN = multiprocessing.get_context("spawn")


def readings(start: datetime, count: int, watts: float = 100.0, circuits: int = 3) -> pd.DataFrame:
    rows = []
    for time in (start + n * MINUTE for n in range(count)):
        rows += [Row(time, "total", name, watts / 1000, "kW", 0) for name in ("総消費電力", "売買電力")]
        rows += [Row(time, "usage", f"回路{n}", watts + n, "W", 0) for n in range(circuits)]
    return frame(rows)


def reading(time: datetime, watts: float = 100.0, circuits: int = 3) -> pd.DataFrame:
    return readings(time, 1, watts, circuits)


def send(store: Store, destination: Destination = INFLUX, limit: int = 10_000) -> pd.DataFrame:
    """Acknowledge all that is pending; return what was sent."""
    sent = []
    while hours := store.pending_hours(destination):
        batch = store.pending_rows(destination, hours, limit)
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


def test_a_frame_comes_back_equal(store: Store) -> None:
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
    assert store.upsert(table) == UpsertResult(rows=7, changed=7)
    pd.testing.assert_frame_equal(store.read(START, START + HOUR), table)


def test_a_frame_comes_back_after_the_store_is_opened_again(path: Path) -> None:
    table = readings(START, 3)
    with Store.open(path) as store:
        store.upsert(table)
    with Store.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + HOUR), table)


def test_rows_come_by_time_then_kind_then_first_sight_of_the_name(store: Store) -> None:
    later = START + MINUTE
    store.upsert(frame([Row(later, "battery", "充電率", 1, "%", 0), Row(later, "usage", "b", 1, "W", 0)]))
    store.upsert(frame([Row(START, "usage", "a", 1, "W", 0), Row(START, "usage", "b", 1, "W", 0)]))
    store.upsert(frame([Row(START, "total", "売買電力", 1, "kW", 0)]))
    found = store.read(START, START + HOUR)
    assert found["kind"].tolist() == ["total", "usage", "usage", "usage", "battery"]
    assert found["name"].tolist() == ["売買電力", "b", "a", "b", "充電率"]


def test_a_range_holds_its_start_and_not_its_end(store: Store) -> None:
    store.upsert(readings(START, 4))
    found = store.read(START + MINUTE, START + 3 * MINUTE)
    assert found["time"].drop_duplicates().tolist() == [START + MINUTE, START + 2 * MINUTE]


def test_reading_can_be_limited_to_kinds_and_names(store: Store) -> None:
    store.upsert(reading(START))
    assert store.read(START, START + HOUR, kinds=["usage"])["name"].tolist() == ["回路0", "回路1", "回路2"]
    assert store.read(START, START + HOUR, names=["回路1", "売買電力"])["kind"].tolist() == ["total", "usage"]
    assert store.read(START, START + HOUR, kinds=["usage"], names=["売買電力"]).empty


def test_an_empty_frame_changes_nothing_and_an_empty_range_is_an_empty_frame(store: Store) -> None:
    assert store.upsert(frame([])) == UpsertResult(rows=0, changed=0)
    pd.testing.assert_frame_equal(store.read(START, START + HOUR), frame([]))


def test_the_same_rows_again_are_no_change(store: Store) -> None:
    store.upsert(reading(START))
    send(store)
    assert store.upsert(reading(START)) == UpsertResult(rows=5, changed=0)
    assert store.pending_hours(INFLUX) == []


def test_another_value_or_interval_is_a_change_of_that_row_alone(store: Store) -> None:
    table = reading(START)
    store.upsert(table)
    send(store)
    table.loc[1, "value"] = -7.5
    table.loc[3, "interval_s"] = 1800
    assert store.upsert(table).changed == 2
    pd.testing.assert_frame_equal(store.read(START, START + HOUR), table)
    assert send(store)["name"].tolist() == ["売買電力", "回路1"]


def test_times_within_a_second_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        store.upsert(reading(START + timedelta(milliseconds=1)))


def test_a_frame_that_is_no_readings_frame_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="readings frame"):
        store.upsert(reading(START).drop(columns="unit"))


def test_a_series_keeps_its_unit_and_a_refused_frame_leaves_nothing_behind(store: Store) -> None:
    store.upsert(reading(START))
    refused = frame(
        [Row(START + MINUTE, "usage", "new", 1, "W", 0), Row(START + MINUTE, "usage", "回路0", 1, "kW", 0)]
    )
    with pytest.raises(ValueError, match="'W', not in 'kW'"):
        store.upsert(refused)
    pd.testing.assert_frame_equal(store.read(START, START + HOUR), reading(START))


def test_a_time_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="zone"):
        store.read(START.replace(tzinfo=None), START)


def test_the_last_time_is_that_of_the_latest_live_total(store: Store) -> None:
    assert store.last_time() is None
    store.upsert(frame([Row(START + 2 * MINUTE, "usage", "a", 1, "W", 0)]))
    assert store.last_time() is None
    store.upsert(frame([Row(START + 3 * MINUTE, "total", "総消費電力", 1, "kW", 1800)]))
    assert store.last_time() is None
    store.upsert(frame([Row(START, "total", "総消費電力", 1, "kW", 0)]))
    store.upsert(frame([Row(START + MINUTE, "total", "売買電力", 1, "kW", 0)]))
    assert store.last_time() == START + MINUTE


def test_times_after_a_moment_are_told_once_each_in_order_and_bounded(store: Store) -> None:
    store.upsert(readings(START, 4))
    assert store.times_after(START + MINUTE) == [START + 2 * MINUTE, START + 3 * MINUTE]
    assert store.times_after(START, limit=1) == [START + MINUTE]
    assert store.times_after(START + DAY) == []


def test_hours_with_rows_are_those_that_the_range_touches(store: Store) -> None:
    store.upsert(reading(START + 59 * MINUTE))
    store.upsert(reading(START + 2 * HOUR))
    assert store.hours_with_rows(START, START + 2 * HOUR) == [START]
    assert store.hours_with_rows(START + 30 * MINUTE, START + 3 * HOUR) == [START, START + 2 * HOUR]


def test_a_minute_counts_once_and_only_with_all_its_totals(store: Store) -> None:
    store.upsert(reading(START))
    store.upsert(reading(START + timedelta(seconds=30)))
    store.upsert(reading(START + MINUTE))
    store.upsert(frame([Row(START + 2 * MINUTE, "total", "総消費電力", 1, "kW", 0)]))
    store.upsert(frame([Row(START + 3 * MINUTE, "usage", "回路0", 1, "W", 0)]))
    store.upsert(reading(START + 2 * HOUR))
    assert store.coverage(START, START + DAY) == {START: (2, 0, 0), START + 2 * HOUR: (1, 0, 0)}
    assert store.coverage(START, START + MINUTE) == {START: (1, 0, 0)}


def test_rows_are_counted_wherever_they_are(store: Store) -> None:
    for hour in range(3):
        store.upsert(readings(START + hour * HOUR, 4))
    assert store.count(START - HOUR, START + DAY) == 3 * 4 * 5
    assert store.count(START + MINUTE, START + 2 * HOUR + 2 * MINUTE) == (3 + 4 + 2) * 5


def test_deleting_removes_the_rows_of_the_range_alone(store: Store) -> None:
    store.upsert(readings(START, 150))
    assert store.delete(START + 30 * MINUTE, START + 130 * MINUTE) == 500
    expected = pd.concat([readings(START, 30), readings(START + 130 * MINUTE, 20)], ignore_index=True)
    pd.testing.assert_frame_equal(store.read(START, START + DAY), expected)
    assert store.hours_with_rows(START, START + DAY) == [START, START + 2 * HOUR]
    assert store.pending_hours(INFLUX) == [START, START + 2 * HOUR]


def test_deleting_what_is_pending_leaves_nothing_pending(store: Store) -> None:
    store.upsert(readings(START, 3))
    send(store)
    store.upsert(readings(START + 3 * MINUTE, 3))
    assert store.pending_hours(INFLUX) == [START]
    store.delete(START + 3 * MINUTE, START + 6 * MINUTE)
    assert store.pending_hours(INFLUX) == []


def test_a_row_that_was_deleted_and_comes_again_is_pending(store: Store) -> None:
    store.upsert(readings(START, 2))
    send(store)
    store.delete(START, START + MINUTE)
    store.upsert(reading(START))
    pd.testing.assert_frame_equal(send(store), reading(START))


# What a destination owes


def test_everything_is_pending_for_a_destination_never_seen_before(store: Store) -> None:
    table = readings(START, 61)
    store.upsert(table)
    pd.testing.assert_frame_equal(send(store), table)
    assert store.pending_hours(INFLUX) == []
    assert store.pending_hours(OTHER) == [START, START + HOUR]
    assert store.pending_count(OTHER) == 2
    pd.testing.assert_frame_equal(send(store, OTHER), table)


def test_pending_hours_are_the_oldest_first_within_range_and_limit(store: Store) -> None:
    for hours in (3, 1, 0, 2):
        store.upsert(reading(START + hours * HOUR))
    assert store.pending_hours(INFLUX) == [START + n * HOUR for n in range(4)]
    assert store.pending_hours(INFLUX, start=START + 90 * MINUTE, end=START + 3 * HOUR) == [
        START + HOUR,
        START + 2 * HOUR,
    ]
    assert store.pending_hours(INFLUX, limit=2) == [START, START + HOUR]


def test_a_batch_is_ordered_by_hour_then_version_and_limited(store: Store) -> None:
    store.upsert(reading(START + HOUR, circuits=0))
    store.upsert(reading(START + MINUTE, circuits=0))
    store.upsert(reading(START, circuits=0))
    batch = store.pending_rows(INFLUX, [START + HOUR, START], limit=5)
    assert batch.frame["time"].tolist() == [START + MINUTE] * 2 + [START] * 2 + [START + HOUR]
    assert batch.hours.tolist() == [int(START.timestamp())] * 4 + [int((START + HOUR).timestamp())]
    assert np.all(np.diff(batch.versions[:4]) > 0)
    assert batch.versions.dtype == batch.hours.dtype == np.int64
    assert batch.frame.columns.tolist() == COLUMNS


def test_a_batch_holds_only_the_hours_asked_for(store: Store) -> None:
    store.upsert(readings(START, 120))
    batch = store.pending_rows(INFLUX, [START + HOUR], limit=10_000)
    pd.testing.assert_frame_equal(batch.frame, readings(START + HOUR, 60))
    assert store.pending_rows(INFLUX, [], limit=10).frame.empty


def test_limited_batches_go_on_where_the_last_ended(store: Store) -> None:
    table = readings(START, 70)
    store.upsert(table)
    pd.testing.assert_frame_equal(send(store, limit=7), table)


def test_what_was_not_acknowledged_stays_pending(store: Store) -> None:
    table = readings(START, 70)
    store.upsert(table)
    batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=10_000)
    store.acknowledge(INFLUX, batch, 0)
    assert store.pending_hours(INFLUX) == [START, START + HOUR]
    store.acknowledge(INFLUX, batch, 12)
    pd.testing.assert_frame_equal(send(store), table[12:].reset_index(drop=True))


def test_a_row_changed_after_it_was_sent_stays_pending(store: Store) -> None:
    store.upsert(readings(START, 2))
    batch = store.pending_rows(INFLUX, [START], limit=100)
    store.upsert(reading(START, watts=200))
    store.acknowledge(INFLUX, batch, len(batch.frame))
    pd.testing.assert_frame_equal(send(store), reading(START, watts=200))


def test_an_acknowledgement_is_never_lowered(store: Store) -> None:
    store.upsert(readings(START, 2))
    early = store.pending_rows(INFLUX, [START], limit=3)
    send(store)
    store.acknowledge(INFLUX, early, 3)
    assert store.pending_hours(INFLUX) == []


def test_resending_marks_whole_hours_of_one_destination_or_of_all(store: Store) -> None:
    store.upsert(readings(START, 180))
    send(store)
    send(store, OTHER)
    assert store.resend(START + 70 * MINUTE, START + 80 * MINUTE, INFLUX) == 1
    assert store.pending_hours(INFLUX) == [START + HOUR]
    assert store.pending_hours(OTHER) == []
    pd.testing.assert_frame_equal(send(store), readings(START + HOUR, 60))
    assert store.resend() == 3
    assert store.pending_count(INFLUX) == store.pending_count(OTHER) == 3
    assert store.resend(destination=Destination("never", "seen", "before")) == 3


def test_resending_holds_against_a_batch_that_is_under_way(store: Store) -> None:
    store.upsert(readings(START, 2))
    send(store, limit=3)
    store.upsert(reading(START + 2 * MINUTE))
    batch = store.pending_rows(INFLUX, [START], limit=100)
    store.resend()
    store.set_aside(INFLUX, batch, 0, 1, "no", START)
    store.acknowledge(INFLUX, batch, len(batch.frame))
    assert store.set_aside_rows(INFLUX).empty
    pd.testing.assert_frame_equal(send(store), readings(START, 3))


def test_a_row_set_aside_is_told_with_its_reason_and_is_pending_until_acknowledged(store: Store) -> None:
    store.upsert(readings(START, 61))
    batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=10_000)
    store.set_aside(INFLUX, batch, 298, 302, "beyond\nretention \ud800", START + DAY)
    assert store.pending_count(INFLUX) == 2
    store.acknowledge(INFLUX, batch, len(batch.frame))
    assert store.pending_count(INFLUX) == 0
    found = store.set_aside_rows(INFLUX)
    pd.testing.assert_frame_equal(found[COLUMNS], batch.frame[298:302].reset_index(drop=True))
    assert found["reason"].tolist() == ["beyond retention \ufffd"] * 4
    assert found["at"].tolist() == [START + DAY] * 4
    assert len(store.set_aside_rows(INFLUX, limit=3)) == 3
    assert store.set_aside_rows(OTHER).empty


def test_a_row_set_aside_that_changes_is_pending_and_no_longer_set_aside(store: Store) -> None:
    store.upsert(reading(START))
    batch = store.pending_rows(INFLUX, [START], limit=100)
    store.set_aside(INFLUX, batch, 0, 5, "no", START)
    store.acknowledge(INFLUX, batch, 5)
    changed = reading(START)
    changed.loc[2, "value"] = 1.0
    store.upsert(changed)
    assert store.set_aside_rows(INFLUX)["name"].tolist() == ["総消費電力", "売買電力", "回路1", "回路2"]
    assert send(store)["value"].tolist() == [1.0]


def test_resending_and_deleting_take_back_what_was_set_aside(store: Store) -> None:
    store.upsert(readings(START, 180))
    batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=10_000)
    store.set_aside(INFLUX, batch, 0, len(batch.frame), "no", START)
    store.acknowledge(INFLUX, batch, len(batch.frame))
    store.resend(START, START + HOUR)
    store.delete(START + HOUR, START + 2 * HOUR)
    assert set(store.set_aside_rows(INFLUX)["time"].dt.floor("h")) == {START + 2 * HOUR}
    store.upsert(readings(START + HOUR, 60))
    assert set(store.set_aside_rows(INFLUX)["time"].dt.floor("h")) == {START + 2 * HOUR}


def test_a_row_set_aside_twice_by_a_run_that_was_cut_off_is_told_once(store: Store) -> None:
    store.upsert(reading(START))
    for start, stop, reason in ((0, 5, "first"), (2, 4, "second")):
        store.set_aside(INFLUX, store.pending_rows(INFLUX, [START], limit=100), start, stop, reason, START)
    assert store.set_aside_rows(INFLUX)["reason"].tolist() == ["second", "second"]


# The circuit list


def test_circuits_are_known_for_the_time_they_were_valid(store: Store) -> None:
    old = [Circuit("1", "寝室"), Circuit("2", "台所"), Circuit("3", "台所")]
    new = [Circuit("3", "台所"), Circuit("1", "子供部屋"), Circuit("4", "車")]
    assert store.circuits_at(START) == []
    store.record_circuits(old, START)
    store.record_circuits(old, START + HOUR)
    store.record_circuits(new, START + DAY)
    # A past that is filled later knows no older list.
    assert store.circuits_at(START - MINUTE) == old
    assert store.circuits_at(START) == store.circuits_at(START + DAY - MINUTE) == old
    assert set(store.circuits_at(START + DAY)) == set(new)
    store.record_circuits(old, START + 2 * DAY)
    assert set(store.circuits_at(START + DAY)) == set(new)
    assert set(store.circuits_at(START + 2 * DAY)) == set(old)


def test_a_circuit_list_that_did_not_change_writes_nothing(store: Store, path: Path) -> None:
    store.record_circuits([Circuit("1", "a"), Circuit("2", "b")], START)
    before = Path(f"{path}-wal").read_bytes()
    store.record_circuits([Circuit("2", "b"), Circuit("1", "a")], START + DAY)
    assert Path(f"{path}-wal").read_bytes() == before


def test_a_circuit_list_dated_by_a_clock_that_ran_ahead_does_not_stay(store: Store) -> None:
    store.record_circuits([Circuit("1", "a")], START)
    store.record_circuits([Circuit("1", "b")], START + 1000 * DAY)
    store.record_circuits([Circuit("1", "b")], START + DAY)
    assert store.circuits_at(START + HOUR) == [Circuit("1", "a")]
    assert store.circuits_at(START + DAY) == store.circuits_at(START + 2000 * DAY) == [Circuit("1", "b")]


# The file


def test_only_its_owner_may_read_the_store(store: Store, path: Path) -> None:
    store.upsert(reading(START))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = {
        file.name.removeprefix(path.name): stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()
    }
    assert {"", "-wal", "-shm"} <= set(files)
    assert set(files.values()) == {0o600}


def test_no_question_reads_all_readings(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []

    def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = sqlite3.Connection(*args, **kwargs)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    with Store.open(path) as store:
        statements.clear()
        store.upsert(readings(START, 61))
        store.upsert(reading(START + 61 * MINUTE))
        store.read(START, START + HOUR)
        store.last_time()
        store.times_after(START)
        store.hours_with_rows(START, START + HOUR)
        store.coverage(START, START + HOUR)
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=200)
        store.set_aside(INFLUX, batch, 0, 2, "no", START)
        store.acknowledge(INFLUX, batch, 4)
        store.set_aside_rows(INFLUX)
        store.resend(START, START + HOUR)
        store.delete(START, START + MINUTE)
    explained = [sql for sql in statements if "by_series" in sql and not sql.lstrip().startswith("INSERT")]
    with sqlite3.connect(path) as connection:
        plans = [row[3] for sql in explained for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
    # `recent` holds an hour, and may be read as a whole.
    of_readings = [plan for plan in plans if "by_series" in plan]
    assert len(of_readings) >= len(explained) > 10
    assert [plan for plan in of_readings if "USING PRIMARY KEY (series_id=?" not in plan] == []


def test_the_check_passes_on_a_working_store(store: Store) -> None:
    store.check()


def assert_one_sentence(error: pytest.ExceptionInfo[StoreError], path: Path, *words: str) -> None:
    text = str(error.value)
    assert str(path) in text
    assert text.endswith(".")
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert_one_sentence(error, path, "newer aiseg2-pipeline", f"version {VERSION + 1}")
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database " * 1000)
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert_one_sentence(error, path, "not a store", "AISEG2_DATA_DIR")
    assert path.read_text() == "not a database " * 1000


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert_one_sentence(error, path, "not a store")
    assert path.read_bytes() == before


def test_a_damaged_store_is_one_sentence(path: Path) -> None:
    with Store.open(path) as store:
        store.upsert(readings(START, 600))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError) as error, Store.open(path) as store:
        store.read(START, START + DAY)
    assert_one_sentence(error, path, "damaged")


def test_a_folder_in_the_file_s_place_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        Store.open(tmp_path)
    assert_one_sentence(error, tmp_path, "cannot be opened")


def test_a_file_in_the_folder_s_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    path = tmp_path / "data" / "store.sqlite"
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert_one_sentence(error, path, "cannot be opened", "AISEG2_DATA_DIR")


def test_a_store_held_by_another_is_one_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("aiseg2_pipeline.store.database.BUSY_S", 0.05)
    with Store.open(path) as store:
        with pytest.raises(StoreError) as error:
            store.upsert(reading(START))
        assert_one_sentence(error, path, "held by another process")
        assert store.read(START, START + HOUR).empty
        holder.execute("ROLLBACK")
        store.upsert(reading(START))
    holder.close()


def test_a_closed_store_is_one_sentence(path: Path) -> None:
    store = Store.open(path)
    store.close()
    with pytest.raises(StoreError) as error:
        store.check()
    assert_one_sentence(error, path, "closed")


def test_a_full_disk_is_one_sentence_and_the_store_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(sqlite3.Connection(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    with Store.open(path) as store:
        store.upsert(reading(START))
        # SQLite meets this bound as it meets the end of a disk.
        opened[0].execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError) as error:
            store.upsert(readings(START + MINUTE, 1000))
        assert_one_sentence(error, path, "disk is full")
        pd.testing.assert_frame_equal(store.read(START, START + DAY), reading(START))
        store.upsert(reading(START + MINUTE))
        opened[0].execute("PRAGMA max_page_count = 1000000")
        store.upsert(readings(START + MINUTE, 1000))
        assert store.coverage(START, START + HOUR) == {START: (60, 0, 0)}


def fill_up_to_a_file_size(path: Path, told: "Connection[Any, Any]") -> None:
    with Store.open(path) as store:
        store.upsert(reading(START))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
        try:
            store.upsert(readings(START + MINUTE, 2000))
        except StoreError as error:
            told.send(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.upsert(reading(START + MINUTE))


def test_a_disk_that_stops_taking_writes_is_one_sentence_and_the_store_goes_on(path: Path) -> None:
    told, teller = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=fill_up_to_a_file_size, args=(path, teller))
    process.start()
    teller.close()
    assert "see that its disk has no fault, no quota and free space." in told.recv()
    process.join()
    assert process.exitcode == 0
    with Store.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + DAY), readings(START, 2))


# Several processes


def upsert_minutes_until_killed(path: Path, told: "Connection[Any, Any]") -> None:
    with Store.open(path) as store:
        for n in range(1_000_000):
            store.upsert(reading(START + n * MINUTE))
            told.send(n)


def test_nothing_that_was_reported_as_stored_is_lost_by_kill(path: Path) -> None:
    for rounds in range(1, 4):
        told, teller = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=upsert_minutes_until_killed, args=(path, teller))
        process.start()
        teller.close()
        last = 0
        while last < 100 * rounds:
            last = told.recv()
        process.kill()
        process.join()
        while told.poll():
            try:
                last = told.recv()
            except EOFError:
                break
        with Store.open(path) as store:
            expected = readings(START, last + 1)
            found = store.read(START, START + (last + 1) * MINUTE)
            pd.testing.assert_frame_equal(found, expected)
            # The minute that was under way is there as a whole or not at all.
            assert len(store.read(START + (last + 1) * MINUTE, START + (last + 2) * MINUTE)) in {0, 5}


def upsert_often(path: Path, first_s: int, count: int) -> None:
    for n in range(count):
        with Store.open(path) as store:
            store.upsert(reading(START + timedelta(seconds=first_s) + n * MINUTE))


def test_two_processes_write_to_one_new_store_at_once(path: Path) -> None:
    processes = [SPAWN.Process(target=upsert_often, args=(path, first_s, 150)) for first_s in (0, 30)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    with Store.open(path) as store:
        found = store.read(START, START + DAY)
        assert len(found) == 2 * 150 * 5
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), limit=10_000)
        assert len(set(batch.versions.tolist())) == len(found)
