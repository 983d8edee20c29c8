"""What a store refuses to open, and errors of SQLite and of the disk: a message each, no damage done, and it works again."""

import resource
import sqlite3
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.store import Store, StoreError
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline_tests.support.damage import execute_in, overwrite
from aiseg2_pipeline_tests.support.store import DAY, MINUTE, SPAWN, START, Reporter, readings, record_connections


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "readings.sqlite"


def copy_damaged(path: Path) -> None:
    """Make a store whose first page is damaged, as a copy that was never opened here."""
    Store.open(path).close()
    overwrite(path, 100, b"\xff" * 3996)
    path.with_name("readings.sqlite.known").unlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"notes " * 3000), "is not a store of aiseg2-pipeline: move it away"),
        (lambda path: path.write_bytes(b"\0" * 8192), "is not a store of aiseg2-pipeline: move it away"),
        (lambda path: execute_in(path, "CREATE TABLE theirs (a)"), "is not a store of aiseg2-pipeline"),
        (
            lambda path: execute_in(path, "CREATE TABLE theirs (a)", "PRAGMA user_version = 1"),
            "is not a store of aiseg2-pipeline",
        ),
        (copy_damaged, "is damaged: move it away and put a copy of it back"),
    ],
    ids=["text", "zeros", "another program's", "another program's with a version", "a damaged copy"],
)
def test_a_file_that_was_no_store_here_is_refused_and_stays(
    path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(path)
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert str(error.value).startswith(f"{path} {message}")
    assert str(error.value).endswith(", or set AISEG2_DATA_DIR to another folder.")
    assert path.read_bytes() == before
    assert damaged_files(path) == []


def test_a_path_that_is_no_file_is_refused(path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be opened: see that it is a file .* AISEG2_DATA_DIR"):
        Store.open(path.parent)
    path.touch()
    with pytest.raises(StoreError, match=r"cannot be opened \(File exists\): .* AISEG2_DATA_DIR"):
        Store.open(path / "readings.sqlite")


def test_a_closed_store_is_refused(path: Path) -> None:
    store = Store.open(path)
    store.close()
    with pytest.raises(StoreError, match=r"cannot be used .*closed.*: start again"):
        store.check()


@pytest.mark.parametrize(
    ("begin", "end", "message"),
    [
        # SQLite meets this bound as it meets the end of a disk.
        ("PRAGMA max_page_count = 20", "PRAGMA max_page_count = 1000000", "its disk is full: free some space"),
        ("PRAGMA query_only = 1", "PRAGMA query_only = 0", "is read-only for this user: let the user write to it"),
    ],
)
def test_an_error_while_writing_changes_nothing_and_the_store_works_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, end: str, message: str
) -> None:
    opened = record_connections(monkeypatch)
    with Store.open(path) as store:
        store.upsert(readings(START))
        opened[0].execute(begin)
        with pytest.raises(StoreError, match=message):
            store.upsert(readings(START + MINUTE, 1000))
        pd.testing.assert_frame_equal(store.read(START, START + DAY), readings(START))
        opened[0].execute(end)
        store.upsert(readings(START + MINUTE))
        pd.testing.assert_frame_equal(store.read(START, START + DAY), readings(START, 2))
    assert damaged_files(path) == []


def test_a_store_held_by_another_process_can_be_read_and_is_written_afterwards(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiseg2_pipeline.store.database.BUSY_S", 0.05)
    with Store.open(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="was held by another process for 10 s: end the process that hangs"):
            store.upsert(readings(START))
        assert store.read(START, START + DAY).empty
        holder.execute("ROLLBACK")
        assert store.upsert(readings(START)).changed == 5
    assert damaged_files(path) == []


def write_up_to_a_file_size(path: Path, connection: "Connection[Any, Any]") -> None:
    with Store.open(path) as store:
        store.upsert(readings(START))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
        try:
            store.upsert(readings(START + MINUTE, 2000))
        except StoreError as error:
            connection.send(str(error))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        store.upsert(readings(START + MINUTE))
        connection.send("stored")


def test_a_quota_is_reported_and_the_store_works_again(path: Path) -> None:
    process = Reporter(SPAWN, write_up_to_a_file_size, path)
    process.receive(2)
    message, stored = process.kill()
    assert "see that its disk has no fault, no quota and free space." in message
    assert stored == "stored"
    with Store.open(path) as store:
        pd.testing.assert_frame_equal(store.read(START, START + DAY), readings(START, 2))
    assert damaged_files(path) == []
