"""A damaged store is kept aside, readings go on in a new one, and what can still be read comes back."""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store, StoreError, database
from aiseg2_pipeline.store.damage import damaged_files, unsalvaged
from aiseg2_pipeline.store.database import ReplacedError
from aiseg2_pipeline.store.recovery import salvage

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
LATER = datetime(2026, 4, 1, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
INFLUX = Destination("https://influx.example", "home", "power")
PAGE = 4096
INDEX_LEAF = 0x0A
ROUNDS = 3
# A process of its own, but at once: nothing of a store is open when it begins.
FORK = multiprocessing.get_context("fork")


def readings(start: datetime, count: int, circuits: int = 3) -> pd.DataFrame:
    rows = []
    for minute in (start + n * MINUTE for n in range(count)):
        rows += [Row(minute, "total", name, 0.1, "kW", 0) for name in ("総消費電力", "売買電力")]
        rows += [Row(minute, "usage", f"回路{n}", 100.0 + n, "W", 0) for n in range(circuits)]
    return frame(rows)


def in_another_process(work: Callable[..., None], *arguments: Any) -> int:
    """Do it in another process, whose closing of a file drops no locks of this one; return its exit code."""
    process = FORK.Process(target=work, args=arguments)
    process.start()
    process.join()
    return process.exitcode or 0


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def garbage(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)  # noqa: S311 - the same in each run


def zero_the_end(path: Path) -> None:
    half = path.stat().st_size // PAGE // 2 * PAGE
    overwrite(path, half, bytes(path.stat().st_size - half))


def garble_all_but_the_beginning(path: Path) -> None:
    overwrite(path, PAGE, garbage(1, path.stat().st_size - PAGE))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE + 100)


def garble_the_header(path: Path) -> None:
    overwrite(path, 0, garbage(2, 100))


def garble_the_first_page(path: Path) -> None:
    overwrite(path, 0, garbage(3, PAGE))


def empty_the_list_of_tables(path: Path) -> None:
    overwrite(path, 103, bytes(2))


def empty(path: Path) -> None:
    os.truncate(path, 0)


DAMAGES = [
    zero_the_end,
    garble_all_but_the_beginning,
    cut_in_half,
    garble_the_header,
    garble_the_first_page,
    empty_the_list_of_tables,
    empty,
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "readings.sqlite"


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three days, some of them acknowledged, that nobody touches."""
    path = tmp_path_factory.mktemp("three days") / "readings.sqlite"
    with Store.open(path) as store:
        store.record_circuits([Circuit("1", "回路0")], START)
        store.upsert(readings(START, 3 * 1440))
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX, limit=5), 10_000)
        store.acknowledge(INFLUX, batch, len(batch.frame))
    return path


@pytest.fixture
def filled(path: Path, three_days: Path) -> Path:
    """A copy of that, which was in use."""
    path.parent.mkdir()
    shutil.copyfile(three_days, path)
    path.chmod(0o600)
    Store.open(path).close()
    return path


# Kept aside


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_kept_and_the_next_reading_is_in_a_new_one(
    filled: Path, damage: Callable[[Path], None]
) -> None:
    damage(filled)
    content = filled.read_bytes()
    told: list[str] = []
    with Store.open(filled, told.append) as store:
        with suppress(ReplacedError):
            store.look_over()
        assert store.upsert(readings(LATER, 1)).changed == 5
        pd.testing.assert_frame_equal(store.read(START, LATER + DAY), readings(LATER, 1))
        store.look_over()
    with Store.open(filled, told.append) as store:
        assert store.last_time() == LATER
    (kept,) = damaged_files(filled)
    assert kept.path.name.startswith("readings-damaged-20")
    assert kept.path.read_bytes() == content
    assert kept.salvaged is None
    (sentence,) = told
    assert str(filled) in sentence
    assert kept.path.name in sentence
    assert "aiseg2-pipeline salvage" in sentence
    assert {stat.S_IMODE(file.stat().st_mode) for file in filled.parent.iterdir()} == {0o600}


def test_damage_that_a_write_meets_loses_no_reading(filled: Path) -> None:
    told: list[str] = []
    with Store.open(filled, told.append) as store:
        in_another_process(garble_all_but_the_beginning, filled)
        assert store.upsert(readings(LATER, 2)).changed == 10
        pd.testing.assert_frame_equal(store.read(START, LATER + DAY), readings(LATER, 2))
    assert len(told) == len(damaged_files(filled)) == 1


def test_damage_that_a_read_meets_is_told_and_the_next_one_is_of_the_new_file(filled: Path) -> None:
    with Store.open(filled) as store:
        in_another_process(garble_all_but_the_beginning, filled)
        with pytest.raises(ReplacedError, match="readings go on in a new file"):
            store.read(START, LATER)
        assert store.read(START, LATER).empty
        assert store.last_time() is None


def test_the_journal_is_kept_with_the_damaged_file(filled: Path) -> None:
    with Store.open(filled) as store:
        store.upsert(readings(LATER, 1))
        in_another_process(garble_all_but_the_beginning, filled)
        with pytest.raises(ReplacedError):
            store.read(START, START + DAY)
        (kept,) = damaged_files(filled)
        assert Path(f"{kept.path}-wal").stat().st_size > 0
        assert stat.S_IMODE(Path(f"{kept.path}-wal").stat().st_mode) == 0o600


def test_a_second_damaged_file_does_not_take_the_name_of_the_first(filled: Path) -> None:
    for n in range(4):
        with Store.open(filled) as store:
            store.upsert(readings(LATER + n * DAY, 10))
        garble_the_header(filled)
    with Store.open(filled) as store:
        assert store.last_time() is None
    assert len({kept.path for kept in damaged_files(filled)}) == 4
    assert len({kept.path.stat().st_ino for kept in damaged_files(filled)}) == 4


def test_a_disk_on_which_nothing_lasts_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MOST_DAMAGED", 3)
    for _ in range(3):
        Store.open(path).close()
        garble_the_header(path)
    Store.open(path).close()
    garble_the_header(path)
    with pytest.raises(StoreError, match="after 3 damaged files, so its disk is failing"):
        Store.open(path)
    assert len(damaged_files(path)) == 3


@pytest.mark.parametrize("kind", [Store, EnergyStore, ClimateStore])
def test_each_store_has_its_own_damaged_files(tmp_path: Path, kind: type[Store]) -> None:
    paths = [tmp_path / f"{name}.sqlite" for name in ("readings", "energy", "climate")]
    for one in paths:
        kind.open(one).close()
    garble_the_header(paths[1])
    kind.open(paths[1]).close()
    assert [len(damaged_files(one)) for one in paths] == [0, 1, 0]
    assert len(unsalvaged(*paths)) == 1


def test_a_batch_of_the_damaged_file_acknowledges_nothing_of_the_new_one(filled: Path) -> None:
    with Store.open(filled) as store:
        batch = store.pending_rows(INFLUX, store.pending_hours(INFLUX), 100_000)
        in_another_process(garble_all_but_the_beginning, filled)
        hour = batch.hours[-1].item()
        newer = datetime.fromtimestamp(hour, UTC) + timedelta(minutes=30)
        with pytest.raises(ReplacedError):
            store.look_over()
        store.upsert(readings(newer, 1))
        store.set_aside(INFLUX, batch, 0, 10, "no", START)
        store.acknowledge(INFLUX, batch, len(batch.frame))
        assert len(store.pending_rows(INFLUX, store.pending_hours(INFLUX), 100).frame) == 5
        assert store.set_aside_rows(INFLUX).empty


def test_a_store_that_somebody_removed_goes_on_in_a_new_file(filled: Path) -> None:
    with Store.open(filled) as store, Store.open(filled) as other:
        filled.unlink()
        assert store.upsert(readings(LATER, 1)).changed == 5
        assert other.upsert(readings(LATER + MINUTE, 1)).changed == 5
    with Store.open(filled) as store:
        assert len(store.read(LATER, LATER + DAY)) == 10
    filled.unlink()
    # A new file may get the number of the old one.
    Store.open(filled).close()
    assert damaged_files(filled) == []


def test_a_link_to_another_disk_stays_there(filled: Path, tmp_path: Path) -> None:
    (elsewhere := tmp_path / "usb").mkdir()
    filled.rename(elsewhere / "big.sqlite")
    filled.symlink_to(elsewhere / "big.sqlite")
    Store.open(filled).close()
    garble_the_header(filled)
    with Store.open(filled) as store:
        store.upsert(readings(LATER, 1))
    assert filled.resolve().parent == elsewhere
    (kept,) = damaged_files(filled)
    assert kept.path.parent == elsewhere


# Left alone


def test_errors_that_are_no_damage_put_nothing_aside(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(sqlite3.Connection(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    with Store.open(filled) as store:
        opened[-1].execute("PRAGMA query_only = 1")
        with pytest.raises(StoreError, match="read-only"):
            store.upsert(readings(LATER, 1))
        opened[-1].execute("PRAGMA query_only = 0")
        opened[-1].execute("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="disk is full"):
            store.upsert(readings(LATER, 3000))
        holder = sqlite3.Connection(filled, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="held by another process"):
            store.upsert(readings(LATER, 1))
        holder.close()

        def broken(*_: Any) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_READ, "SQLITE_IOERR_READ"
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("aiseg2_pipeline.store.readings.all_series", broken)
            with pytest.raises(StoreError, match="SQLITE_IOERR_READ"):
                store.read(START, LATER)
        store.look_over()
    assert damaged_files(filled) == []


def test_a_full_disk_keeps_the_damaged_file_in_its_place(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    garble_the_header(filled)
    content = filled.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(StoreError, match="disk is full: free some space"):
            Store.open(filled)
    assert filled.read_bytes() == content
    assert damaged_files(filled) == []
    assert {file.name for file in filled.parent.glob("*.sqlite")} == {"readings.sqlite"}
    with Store.open(filled) as store:
        store.upsert(readings(LATER, 1))
    assert len(damaged_files(filled)) == 1


def test_a_file_that_never_was_a_store_is_refused_and_stays(path: Path) -> None:
    path.parent.mkdir()
    for content in (b"notes " * 3000, b"\0" * 8192):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(StoreError, match="is not a store of aiseg2-pipeline"):
            Store.open(path)
        assert path.read_bytes() == content
    assert damaged_files(path) == []


def test_a_database_of_another_program_with_a_version_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(StoreError, match="is not a store of aiseg2-pipeline"):
        Store.open(path)


# Killed in the middle, and several at once


def open_until_step(path: Path, steps: int) -> None:
    """Open it, and be killed at that step of what is done to the files."""
    left = itertools.count(steps, -1)

    def counted(name: str, owner: Any) -> None:
        real = getattr(owner, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(owner, name, step)

    for name in ("symlink_to", "replace", "unlink", "touch", "write_text"):
        counted(name, Path)
    counted("link", os)
    counted("fsync", os)
    Store.open(path, lambda _: None).close()


def test_killed_at_any_step_of_putting_it_aside_nothing_is_lost_and_the_next_one_goes_on(
    path: Path, tmp_path: Path
) -> None:
    everything, filled = readings(START, 200), path
    with Store.open(filled) as store:
        store.upsert(everything)
    garble_the_header(filled)
    steps = 0
    while True:
        folder = tmp_path / f"killed-{steps}"
        folder.mkdir()
        for file in filled.parent.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        path = folder / filled.name
        (folder / "readings.sqlite.known").write_text(str(path.stat().st_ino))
        code = in_another_process(open_until_step, path, steps)
        with Store.open(path, lambda _: None) as store:
            store.upsert(readings(LATER, 1))
            (kept,) = damaged_files(path)
            salvage(kept, store, lambda _: None, lambda _: None)
            pd.testing.assert_frame_equal(store.read(START, LATER), everything)
            assert store.last_time() == LATER
        if code == 0:
            break
        assert code == -signal.SIGKILL
        steps += 1
    assert steps > 10


def test_what_is_committed_to_a_file_that_is_put_aside_meanwhile_is_in_the_new_one(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_aside() -> None:
        garble_the_header(filled)
        Store.open(filled, lambda _: None).close()

    def commits(sql: str) -> None:
        if sql == "COMMIT" and not damaged_files(filled):
            assert in_another_process(put_aside) == 0

    opened: list[sqlite3.Connection] = []

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(sqlite3.Connection(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    with Store.open(filled) as store:
        opened[-1].set_trace_callback(commits)
        assert store.upsert(readings(LATER, 1)).changed == 5
        assert len(damaged_files(filled)) == 1
    with Store.open(filled) as store:
        pd.testing.assert_frame_equal(store.read(START, LATER + DAY), readings(LATER, 1))


class Writer:
    """A process that stores a row a turn and tells of it."""

    def __init__(self, path: Path, number: int, old: datetime) -> None:
        self.told: set[datetime] = set()
        self.listener, teller = FORK.Pipe(duplex=False)
        self.process = FORK.Process(target=take_minutes, args=(path, number, old, teller), daemon=True)
        self.process.start()
        teller.close()

    def listen(self, turns: int) -> None:
        self.told.update(self.listener.recv() for _ in range(turns))

    def end(self) -> set[datetime]:
        """Kill it; return the times of all rows that it told of."""
        self.process.kill()
        self.process.join()
        with suppress(EOFError):
            while True:
                self.listen(1)
        return self.told


def take_minutes(path: Path, number: int, old: datetime, told: "Connection[Any, Any]") -> None:
    """Store a row a turn and tell of it; now and then read what may be damaged."""
    store = Store.open(path, lambda _: None)
    for n in itertools.count():
        with suppress(ReplacedError):
            if n % 3 == number % 3:
                store.read(old, old + DAY)
        if n % 7 == number:
            store.close()
            store = Store.open(path, lambda _: None)
        row = Row(LATER + n * MINUTE, "usage", f"process {number}", float(n), "W", 0)
        store.upsert(frame([row]))
        told.send(row.time)


def test_processes_that_all_find_the_damage_put_it_aside_once_and_lose_no_row_that_they_told_of(
    path: Path,
) -> None:
    old = START - 100 * DAY
    Store.open(path).close()
    writers = [Writer(path, number, old) for number in range(3)]
    for round_ in range(1, ROUNDS + 1):
        assert in_another_process(put_old_rows_and_damage_them, path, old) == 0
        assert len(damaged_files(path)) == round_
        for writer in writers:
            writer.listen(20)
    told = [writer.end() for writer in writers]
    assert len(damaged_files(path)) == ROUNDS
    with Store.open(path) as store:
        store.look_over()
        for kept in unsalvaged(path):
            salvage(kept, store, lambda _: None, lambda _: None)
        for number, times in enumerate(told):
            stored = store.read(LATER, LATER + 1000 * DAY, names=[f"process {number}"])
            assert len(times) >= 20 * ROUNDS
            assert times <= {time.to_pydatetime() for time in stored["time"]}
            assert (stored["value"] == (stored["time"] - LATER) / MINUTE).all()


def put_old_rows_and_damage_them(path: Path, old: datetime) -> None:
    """Damage a page of rows of long ago, until somebody has found it."""
    with Store.open(path, lambda _: None) as store:
        store.upsert(readings(old, 1440, circuits=1))
    before = len(damaged_files(path))
    for _ in range(200):
        with closing(sqlite3.connect(path.resolve())) as connection, suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        if len(damaged_files(path)) > before:
            return
        if page := page_of(path.read_bytes(), old):
            overwrite(path, page * PAGE, bytes(PAGE))
        time.sleep(0.05)
    os._exit(1)


def page_of(content: bytes, start: datetime) -> int | None:
    """Return a leaf page on which all rows are of the day that begins then."""
    times = [
        second.to_bytes(4, "big") for second in range(int(start.timestamp()), int((start + DAY).timestamp()), 60)
    ]
    for number in range(1, len(content) // PAGE):
        page = content[number * PAGE : (number + 1) * PAGE]
        rows = int.from_bytes(page[3:5], "big")
        if page[0] == INDEX_LEAF and rows > 50 and sum(second in page for second in times) >= rows:
            return number
    return None


# What can still be read


def by_key(table: pd.DataFrame) -> set[tuple[Any, ...]]:
    return set(table.itertuples(index=False, name=None))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_can_be_read_comes_back_once_and_is_pending(
    filled: Path, three_days: Path, damage: Callable[[Path], None]
) -> None:
    with Store.open(three_days) as store:
        everything = store.read(START, LATER)
    damage(filled)
    with Store.open(filled, lambda _: None) as store:
        with suppress(ReplacedError):
            store.look_over()
        store.record_circuits([Circuit("1", "台所")], LATER)
        store.upsert(readings(LATER, 3))
        (kept,) = damaged_files(filled)
        content = kept.path.read_bytes()
        said: list[str] = []
        told = salvage(kept, store, said.append, lambda _: None)
        assert kept.path.read_bytes() == content
        assert [one.salvaged for one in damaged_files(filled)] == [told]
        back = store.read(START, LATER)
        assert by_key(back) <= by_key(everything)
        pd.testing.assert_frame_equal(store.read(LATER, LATER + DAY), readings(LATER, 3))
        pending = sum(
            len(store.pending_rows(INFLUX, [hour], 100_000).frame) for hour in store.pending_hours(INFLUX)
        )
        assert pending == len(back) + 15
        before = store.pending_hours(INFLUX)
        assert salvage(kept, store, said.append, lambda _: None).startswith("0 rows came back of it") or back.empty
        assert store.pending_hours(INFLUX) == before
        share = len(back) / len(everything)
    if damage in (garble_the_header, garble_the_first_page, empty_the_list_of_tables):
        assert share == 1
        assert told == f"{len(everything)} rows came back of it, 0 were there already; all of it could be read."
        assert "a copy is made" in said[0]
    elif damage in (zero_the_end, cut_in_half):
        assert 0.25 < share < 1
        assert "stretches could not be read, between 2026-03-0" in told
    else:
        assert back.empty
        assert "Nothing of it can be read" in told


def test_pages_here_and_there_lose_their_own_rows_alone(filled: Path, three_days: Path) -> None:
    with Store.open(three_days) as store:
        everything = store.read(START, LATER)
    pages = filled.stat().st_size // PAGE
    for page in range(20, pages, pages // 5):
        overwrite(filled, page * PAGE, bytes(PAGE))
    with Store.open(filled, lambda _: None) as store:
        with pytest.raises(ReplacedError):
            store.look_over()
        (kept,) = damaged_files(filled)
        salvage(kept, store, lambda _: None, lambda _: None)
        back = store.read(START, LATER)
        assert by_key(back) < by_key(everything)
        # A page holds less than 300 rows.
        assert len(everything) - len(back) < 6 * 300


def test_the_running_hour_comes_back_too(filled: Path) -> None:
    with Store.open(filled) as store:
        store.upsert(readings(LATER, 1))
        store.upsert(readings(LATER + MINUTE, 1))
    garble_the_header(filled)
    with Store.open(filled, lambda _: None) as store:
        (kept,) = damaged_files(filled)
        salvage(kept, store, lambda _: None, lambda _: None)
        pd.testing.assert_frame_equal(store.read(LATER, LATER + DAY), readings(LATER, 2))


def test_circuits_come_back_for_their_time(filled: Path) -> None:
    with Store.open(filled) as store:
        store.record_circuits([Circuit("1", "台所"), Circuit("2", "車")], START + DAY)
    overwrite(filled, filled.stat().st_size - PAGE, bytes(PAGE))
    with Store.open(filled, lambda _: None) as store:
        with pytest.raises(ReplacedError):
            store.look_over()
        store.record_circuits([Circuit("1", "台所"), Circuit("2", "電気自動車")], LATER)
        (kept,) = damaged_files(filled)
        for _ in range(2):
            salvage(kept, store, lambda _: None, lambda _: None)
        assert store.circuits_at(START) == [Circuit("1", "回路0")]
        assert store.circuits_at(START + 2 * DAY) == [Circuit("1", "台所"), Circuit("2", "車")]
        assert store.circuits_at(LATER) == [Circuit("1", "台所"), Circuit("2", "電気自動車")]


def change_by_hand(path: Path, *statements: str) -> None:
    """Change what a file holds as a bad disk may, to what a store never writes."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for sql in statements:
            connection.execute(sql)


@pytest.mark.parametrize("known", [set(), {"回路0"}], ids=["a new series", "a series that the new store knows"])
def test_a_damaged_unit_or_name_keeps_no_other_row_from_coming_back_and_no_reading_from_being_stored(
    filled: Path, known: set[str]
) -> None:
    change_by_hand(
        filled,
        "UPDATE series SET unit = 'V' WHERE name = '回路0'",
        "UPDATE series SET name = CAST(x'ff57' AS TEXT) WHERE name = '回路1'",
        "UPDATE series SET kind = x'00' WHERE name = '売買電力'",
    )
    garble_the_header(filled)
    with Store.open(filled, lambda _: None) as store:
        if known:
            store.upsert(readings(LATER, 1))
        (kept,) = damaged_files(filled)
        told = salvage(kept, store, lambda _: None, lambda _: None)
        assert "1 stretches could not be read, between 2026-03-01 18:00 and 2026-03-04 18:00" in told
        assert unsalvaged(filled) == []
        assert set(store.read(START, LATER)["name"]) == {"総消費電力", "回路2"} | known
        assert store.upsert(readings(LATER + MINUTE, 1)).rows == 5


def test_rows_that_the_store_does_not_take_are_told_as_those_that_could_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "energy.sqlite"

    def day(name: str, unit: str, start: datetime = START) -> pd.DataFrame:
        return energy.frame([Row(start, energy.DAILY_TOTAL, name, 1.0, unit, energy.DAY_S)])

    with EnergyStore.open(path) as store:
        for name in ("a", "b", "c"):
            store.upsert(day(name, "L"))
    garble_the_header(path)
    with EnergyStore.open(path, lambda _: None) as store:
        (kept,) = damaged_files(path)

        def meanwhile(_: float) -> None:
            store.upsert(day("b", "kWh", LATER))

        told = salvage(kept, store, lambda _: None, meanwhile)
        assert "1 stretches could not be read" in told
        assert set(store.read(START, LATER)["name"]) == {"a", "c"}
    assert unsalvaged(path) == []


def test_damaged_circuits_keep_no_others_from_coming_back(filled: Path) -> None:
    change_by_hand(
        filled,
        "INSERT INTO circuits VALUES ('2', '車', 'x', NULL)",
        "INSERT INTO circuits VALUES ('3', CAST(x'ff57' AS TEXT), 0, NULL)",
        "INSERT INTO circuits VALUES (x'00', '車', 0, x'00')",
    )
    garble_the_header(filled)
    with Store.open(filled, lambda _: None) as store:
        store.record_circuits([Circuit("1", "台所")], LATER)
        (kept,) = damaged_files(filled)
        salvage(kept, store, lambda _: None, lambda _: None)
        assert store.circuits_at(START) == [Circuit("1", "回路0")]
        assert store.circuits_at(LATER) == [Circuit("1", "台所")]
    assert unsalvaged(filled) == []


def test_a_row_that_is_there_is_not_replaced(filled: Path) -> None:
    garble_the_header(filled)
    mine = frame([Row(START, "total", "売買電力", 9.0, "kW", 0)])
    with Store.open(filled, lambda _: None) as store:
        store.upsert(mine)
        (kept,) = damaged_files(filled)
        told = salvage(kept, store, lambda _: None, lambda _: None)
        assert "1 were there already" in told
        assert store.read(START, START + MINUTE, names=["売買電力"])["value"].tolist() == [9.0]


def test_salvaging_that_was_killed_goes_on_where_it_was(filled: Path, three_days: Path) -> None:
    garble_the_header(filled)
    with Store.open(filled, lambda _: None):
        pass

    def killed() -> None:
        turns = itertools.count()

        def sleep(_: float) -> None:
            if next(turns) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        with Store.open(filled) as store:
            salvage(damaged_files(filled)[0], store, lambda _: None, sleep)

    assert in_another_process(killed) == -signal.SIGKILL
    (kept,) = unsalvaged(filled)
    with Store.open(filled) as store, Store.open(three_days) as whole:
        there = len(store.read(START, LATER))
        assert there > 0
        told = salvage(kept, store, lambda _: None, lambda _: None)
        assert f"{there} were there already" in told
        assert by_key(store.read(START, LATER)) == by_key(whole.read(START, LATER))


def test_without_room_nothing_is_salvaged(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    garble_the_header(filled)
    with Store.open(filled, lambda _: None) as store:
        (kept,) = damaged_files(filled)
        usage = shutil.disk_usage(filled.parent)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(StoreError, match="free that much, then run `aiseg2-pipeline salvage`"):
            salvage(kept, store, lambda _: None, lambda _: None)
    assert len(unsalvaged(filled)) == 1
