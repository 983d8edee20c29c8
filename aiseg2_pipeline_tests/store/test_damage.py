"""A damaged store is kept aside, readings continue in a new file, and what can still be read is restored."""

import itertools
import os
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from signal import SIGKILL
from typing import Any

import filelock
import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.store import Outbox, Store, StoreError, database, recovery
from aiseg2_pipeline.store.damage import damaged_files, unrecovered
from aiseg2_pipeline.store.database import ReplacedError
from aiseg2_pipeline_tests.support import damage
from aiseg2_pipeline_tests.support.damage import replace, scramble_all_but_first_page, scramble_header
from aiseg2_pipeline_tests.support.store import (
    DAY,
    FORK,
    HOUR,
    INFLUX,
    MINUTE,
    START,
    Reporter,
    in_another_process,
    kill_this_process,
    readings,
    record_connections,
)

START_S = int(START.timestamp())
LATER = datetime(2026, 4, 1, 9, tzinfo=UTC)
# Damage, and the share of the rows (more than, up to) that can be restored after it.
DAMAGES = [
    (damage.zero_second_half, 0.25, 0.999),
    # Five pages, each of two hours at most.
    (damage.zero_five_pages, 1 - 10 / 72, 0.999),
    (damage.cut_in_half, 0.25, 0.999),
    (lambda path: damage.zero_table(path, "series"), 0.999, 1),
    (damage.scramble_header, -1, 0),
    (damage.scramble_all_but_first_page, -1, 0),
    (damage.empty, -1, 0),
]
ROUNDS = 3


def ignore(_: object) -> None:
    """Drop a message, or do not sleep."""


def recover(path: Path, store: Outbox, sleep: Callable[[float], None] = ignore) -> str:
    """Restore what can be read of the only damaged file."""
    (kept,) = damaged_files(path)
    return recovery.recover(kept, store, ignore, sleep)


def rows_of(table: pd.DataFrame) -> set[tuple[Any, ...]]:
    return set(table.itertuples(index=False, name=None))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "readings.sqlite"


@pytest.fixture(scope="module")
def everything() -> pd.DataFrame:
    return readings(START, 3 * 1440)


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory, everything: pd.DataFrame) -> Path:
    """A store of three days, whose last hour is the running one, some of them acknowledged; not to be changed."""
    path = tmp_path_factory.mktemp("three days") / "readings.sqlite"
    with Store.open(path) as store:
        store.record_circuits([Circuit("1", "回路0")], START)
        store.upsert(everything[:-5])
        store.upsert(everything[-5:])
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX, limit=5), 10_000)
        store.acknowledge(INFLUX, batch, len(batch.frame))
    return path


@pytest.fixture
def filled(path: Path, three_days: Path) -> Path:
    """A copy of that store, which was opened once."""
    path.parent.mkdir()
    shutil.copyfile(three_days, path)
    path.chmod(0o600)
    Store.open(path).close()
    return path


# The damaged file is kept aside


@pytest.mark.parametrize("harm", [harm for harm, _, _ in DAMAGES])
def test_a_damaged_store_is_kept_and_the_next_reading_is_in_a_new_one(
    filled: Path, harm: Callable[[Path], None]
) -> None:
    harm(filled)
    content = filled.read_bytes()
    messages: list[str] = []
    with Store.open(filled, messages.append) as store:
        with suppress(ReplacedError):
            store.check_integrity()
        assert store.upsert(readings(LATER)).changed == 5
        pd.testing.assert_frame_equal(store.read(START, LATER + DAY), readings(LATER))
        store.check_integrity()
    with Store.open(filled, messages.append) as store:
        assert store.last_time() == LATER
    (kept,) = damaged_files(filled)
    assert kept.path.name.startswith("readings-damaged-20")
    assert kept.path.read_bytes() == content
    assert kept.salvaged is None
    (message,) = messages
    assert message.startswith(f"{filled} was damaged (")
    assert f"is kept as {kept.path.name}; readings continue in a new file. " in message
    assert "`aiseg2-pipeline salvage`" in message
    assert {stat.S_IMODE(file.stat().st_mode) for file in filled.parent.iterdir()} == {0o600}


def test_a_write_that_finds_damage_stores_its_reading_in_the_new_file(filled: Path) -> None:
    with Store.open(filled, ignore) as store:
        in_another_process(scramble_all_but_first_page, filled)
        assert store.upsert(readings(LATER, 2)).changed == 10
        pd.testing.assert_frame_equal(store.read(START, LATER + DAY), readings(LATER, 2))
    assert len(damaged_files(filled)) == 1


def test_a_read_that_finds_damage_fails_once_and_the_journal_is_kept(filled: Path) -> None:
    with Store.open(filled) as store:
        store.upsert(readings(LATER))
        in_another_process(scramble_all_but_first_page, filled)
        with pytest.raises(ReplacedError, match="readings continue in a new file"):
            store.read(START, START + DAY)
        assert store.read(START, LATER).empty
        (kept,) = damaged_files(filled)
        journal = Path(f"{kept.path}-wal").stat()
        assert journal.st_size > 0
        assert stat.S_IMODE(journal.st_mode) == 0o600


def test_damaged_files_have_names_of_their_own_and_no_more_than_the_limit_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MOST_DAMAGED", 3)
    for _ in range(4):
        Store.open(path).close()
        scramble_header(path)
    with pytest.raises(StoreError, match="after 3 damaged files, so its disk is failing"):
        Store.open(path)
    kept = damaged_files(path)
    assert len({damaged.path.stat().st_ino for damaged in kept}) == len(kept) == 3
    # Each store lists its own ones.
    assert damaged_files(path.with_name("energy.sqlite")) == []


def test_a_batch_of_the_damaged_file_acknowledges_nothing_of_the_new_one(filled: Path) -> None:
    with Store.open(filled) as store:
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), 100_000)
        in_another_process(scramble_all_but_first_page, filled)
        with pytest.raises(ReplacedError):
            store.check_integrity()
        store.upsert(readings(datetime.fromtimestamp(batch.hours[-1].item(), UTC) + timedelta(minutes=30)))
        store.set_aside(INFLUX, batch, 0, 10, "no", START)
        store.acknowledge(INFLUX, batch, len(batch.frame))
        assert len(store.pending_rows(INFLUX, store.pending_hours(INFLUX), 100).frame) == 5
        assert store.set_aside_rows(INFLUX).empty


def test_a_store_whose_file_was_removed_continues_in_a_new_file(filled: Path) -> None:
    with Store.open(filled) as store, Store.open(filled) as other:
        filled.unlink()
        assert store.upsert(readings(LATER)).changed == 5
        assert other.upsert(readings(LATER + MINUTE)).changed == 5
    with Store.open(filled) as store:
        assert len(store.read(LATER, LATER + DAY)) == 10
    filled.unlink()
    # A new file may get the inode of the old one.
    Store.open(filled).close()
    assert damaged_files(filled) == []


def test_a_store_behind_a_link_is_replaced_in_the_folder_that_the_link_leads_to(
    filled: Path, tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "usb").mkdir()
    filled.rename(elsewhere / "big.sqlite")
    filled.symlink_to(elsewhere / "big.sqlite")
    Store.open(filled).close()
    scramble_header(filled)
    Store.open(filled).close()
    assert filled.resolve().parent == elsewhere
    (kept,) = damaged_files(filled)
    assert kept.path.parent == elsewhere


def test_without_room_for_a_new_file_the_damaged_one_stays_in_its_place(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scramble_header(filled)
    content = filled.read_bytes()

    def disk_full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", disk_full)
        with pytest.raises(StoreError, match="disk is full: free some space"):
            Store.open(filled)
    assert filled.read_bytes() == content
    assert [file.name for file in filled.parent.glob("*.sqlite")] == ["readings.sqlite"]
    Store.open(filled).close()
    assert len(damaged_files(filled)) == 1


# Killed processes, and several at once


def open_until_step(path: Path, steps: int) -> None:
    """Open the store, and be killed at that step of what is done to the files."""
    left = itertools.count(steps, -1)

    def kill_at_step(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if next(left) == 0:
                kill_this_process()
            return original(*args, **kwargs)

        setattr(owner, name, step)

    for name in ("symlink_to", "replace", "unlink", "touch", "write_text"):
        kill_at_step(Path, name)
    kill_at_step(os, "link")
    kill_at_step(os, "fsync")
    with Store.open(path, ignore) as store, suppress(ReplacedError):
        store.check_integrity()


def test_a_process_killed_at_any_step_of_the_replacement_loses_no_row(path: Path, tmp_path: Path) -> None:
    rows = readings(START, 200)
    with Store.open(path) as store:
        store.upsert(rows)
    damage.zero_table(path, "set_aside")
    for steps in itertools.count():
        copy = shutil.copytree(path.parent, tmp_path / f"killed-{steps}") / path.name
        copy.with_name("readings.sqlite.known").write_text(str(copy.stat().st_ino))
        code = in_another_process(open_until_step, copy, steps)
        with Store.open(copy, ignore) as store:
            with suppress(ReplacedError):
                store.check_integrity()
            store.upsert(readings(LATER))
            recover(copy, store)
            pd.testing.assert_frame_equal(store.read(START, LATER), rows)
            assert store.last_time() == LATER
        if code == 0:
            break
        assert code == -SIGKILL
    assert steps > 10


def test_a_commit_to_a_file_that_is_replaced_at_the_same_time_is_in_the_new_one(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        scramble_header(filled)
        Store.open(filled, ignore).close()

    def replace_before_commit(sql: str) -> None:
        if sql == "COMMIT" and not damaged_files(filled):
            assert in_another_process(replace) == 0

    opened = record_connections(monkeypatch)
    with Store.open(filled) as store:
        opened[-1].set_trace_callback(replace_before_commit)
        assert store.upsert(readings(LATER)).changed == 5
        assert len(damaged_files(filled)) == 1
    with Store.open(filled) as store:
        pd.testing.assert_frame_equal(store.read(START, LATER + DAY), readings(LATER))


def store_minutes(path: Path, number: int, connection: "Connection[Any, Any]") -> None:
    """Store one row after another and report its time; sometimes read the table that may be damaged."""
    store = Store.open(path, ignore)
    for n in itertools.count():
        with suppress(ReplacedError):
            if n % 3 == number % 3:
                store.circuits_at(START)
        if n % 7 == number:
            store.close()
            store = Store.open(path, ignore)
        row = Row(LATER + n * MINUTE, "usage", f"process {number}", float(n), "W", 0)
        store.upsert(frame([row]))
        connection.send(row.time)


def test_several_processes_that_find_the_damage_replace_the_file_once_and_lose_no_reported_row(
    path: Path,
) -> None:
    Store.open(path).close()
    writers = [Reporter(FORK, store_minutes, path, number) for number in range(3)]
    for round_ in range(1, ROUNDS + 1):
        damage.zero_table(path, "circuits")
        end = time.monotonic() + 60
        while len(damaged_files(path)) < round_ and time.monotonic() < end:
            time.sleep(0.01)
        for writer in writers:
            writer.receive(20)
    reported = [set(writer.kill()) for writer in writers]
    assert len(damaged_files(path)) == ROUNDS
    with Store.open(path) as store:
        store.check_integrity()
        for kept in unrecovered(path):
            recovery.recover(kept, store, ignore, ignore)
        for number, times in enumerate(reported):
            stored = store.read(LATER, LATER + 1000 * DAY, names=[f"process {number}"])
            assert len(times) >= 20 * ROUNDS
            assert times <= {time.to_pydatetime() for time in stored["time"]}
            assert (stored["value"] == (stored["time"] - LATER) / MINUTE).all()


# What can be read is restored


@pytest.mark.parametrize(("harm", "above", "at_most"), DAMAGES)
def test_what_can_be_read_is_restored_once_and_is_pending(
    filled: Path, everything: pd.DataFrame, harm: Callable[[Path], None], above: float, at_most: float
) -> None:
    harm(filled)
    with Store.open(filled, ignore) as store:
        with suppress(ReplacedError):
            store.check_integrity()
        store.upsert(readings(LATER, 3))
        (kept,) = damaged_files(filled)
        content = kept.path.read_bytes()
        result = recover(filled, store)
        assert kept.path.read_bytes() == content
        assert [damaged.salvaged for damaged in damaged_files(filled)] == [result]
        restored = store.read(START, LATER)
        assert rows_of(restored) <= rows_of(everything)
        assert above < len(restored) / len(everything) <= at_most
        pd.testing.assert_frame_equal(store.read(LATER, LATER + DAY), readings(LATER, 3))
        hours = store.pending_hours(INFLUX)
        assert sum(len(store.pending_rows(INFLUX, [hour], 1000).frame) for hour in hours) == len(restored) + 15
        again = recover(filled, store)
        assert again.startswith("0 rows were restored") or restored.empty
        assert store.pending_hours(INFLUX) == hours
    if at_most == 1:
        assert result == f"{len(everything)} rows were restored, 0 were stored already; all of it could be read."
    elif at_most == 0:
        assert result.startswith("Nothing of it can be read (")
    else:
        assert "hours could not be read in full, between 2026-03-0" in result


def test_circuits_are_restored_for_their_time_without_the_damaged_ones(filled: Path) -> None:
    with Store.open(filled) as store:
        store.record_circuits([Circuit("1", "台所"), Circuit("2", "車")], START + DAY)
    damage.execute_in(
        filled,
        "INSERT INTO circuits VALUES ('2', '車', 'x', NULL)",
        "INSERT INTO circuits VALUES ('3', CAST(x'ff57' AS TEXT), 0, NULL)",
        "INSERT INTO circuits VALUES (x'00', '車', 0, x'00')",
    )
    replace(filled)
    with Store.open(filled, ignore) as store:
        store.record_circuits([Circuit("1", "台所"), Circuit("2", "電気自動車")], LATER)
        for _ in range(2):
            recover(filled, store)
        assert store.circuits_at(START) == [Circuit("1", "回路0")]
        assert store.circuits_at(START + 2 * DAY) == [Circuit("1", "台所"), Circuit("2", "車")]
        assert store.circuits_at(LATER) == [Circuit("1", "台所"), Circuit("2", "電気自動車")]
    assert unrecovered(filled) == []


@pytest.mark.parametrize("known", [set(), {"回路0"}], ids=["a new series", "a series that the new store has"])
def test_a_damaged_unit_or_name_costs_only_its_own_rows(filled: Path, known: set[str]) -> None:
    damage.execute_in(
        filled,
        "UPDATE series SET unit = 'V' WHERE name = '回路0'",
        "UPDATE series SET name = CAST(x'ff57' AS TEXT) WHERE name = '回路1'",
        "UPDATE series SET kind = x'00' WHERE name = '売買電力'",
    )
    replace(filled)
    with Store.open(filled, ignore) as store:
        if known:
            store.upsert(readings(LATER))
        result = recover(filled, store)
        assert "72 hours could not be read in full, between 2026-03-01 18:00 and 2026-03-04 18:00" in result
        assert unrecovered(filled) == []
        assert set(store.read(START, LATER)["name"]) == {"総消費電力", "回路2"} | known
        assert store.upsert(readings(LATER + MINUTE)).rows == 5


def test_rows_that_no_store_can_have_are_listed_as_unreadable(filled: Path) -> None:
    damage.execute_in(
        filled,
        f"UPDATE reading_rows SET interval_s = 7 WHERE time = {START_S}",
        f"UPDATE reading_rows SET value = 'x' WHERE time = {START_S + 3600}",
        f"UPDATE reading_rows SET series_id = 99 WHERE time = {START_S + 7200} AND series_id = 1",
    )
    replace(filled)
    with Store.open(filled, ignore) as store:
        assert "3 hours could not be read in full, between 2026-03-01 18:00 and 2026-03-01 21:00" in recover(
            filled, store
        )
        assert rows_of(store.read(START + 3 * HOUR, LATER)) == rows_of(readings(START + 3 * HOUR, 69 * 60))


def test_a_stored_row_is_not_replaced_by_a_restored_one(filled: Path) -> None:
    replace(filled)
    with Store.open(filled, ignore) as store:
        store.upsert(frame([Row(START, "total", "売買電力", 9.0, "kW", 0)]))
        assert "1 were stored already" in recover(filled, store)
        assert store.read(START, START + MINUTE, names=["売買電力"])["value"].tolist() == [9.0]


def test_a_killed_recovery_is_repeated_and_adds_the_rest(filled: Path, everything: pd.DataFrame) -> None:
    replace(filled)

    def recover_until_killed() -> None:
        chunks = itertools.count()
        with Store.open(filled) as store:
            recover(filled, store, lambda _: kill_this_process() if next(chunks) == 2 else None)

    assert in_another_process(recover_until_killed) == -SIGKILL
    assert len(unrecovered(filled)) == 1
    with Store.open(filled) as store:
        stored = len(store.read(START, LATER))
        assert stored > 0
        assert f"{stored} were stored already" in recover(filled, store)
        assert rows_of(store.read(START, LATER)) == rows_of(everything)


def test_a_recovery_without_room_or_at_the_same_time_as_another_is_refused(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(filled)
    with Store.open(filled, ignore) as store:
        (kept,) = damaged_files(filled)
        with (
            filelock.FileLock(f"{kept.path}.lock"),
            pytest.raises(StoreError, match="being salvaged by another process"),
        ):
            recover(filled, store)
        usage = shutil.disk_usage(filled.parent)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(StoreError, match="free that much, then run `aiseg2-pipeline salvage`"):
            recover(filled, store)
    assert len(unrecovered(filled)) == 1
