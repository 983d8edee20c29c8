"""Damage to a store's file, as failing disks and power cuts leave it."""

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.database import ReplacedError

PAGE = 4096


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def _random_bytes(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)  # noqa: S311 - the same in each run


def zero_second_half(path: Path) -> None:
    half = path.stat().st_size // PAGE // 2 * PAGE
    overwrite(path, half, bytes(path.stat().st_size - half))


def scramble_all_but_first_page(path: Path) -> None:
    overwrite(path, PAGE, _random_bytes(1, path.stat().st_size - PAGE))


def zero_five_pages(path: Path) -> None:
    pages = path.stat().st_size // PAGE
    for page in range(20, pages, (pages - 20) // 4 - 1)[:5]:
        overwrite(path, page * PAGE, bytes(PAGE))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // PAGE * PAGE + 100)


def scramble_header(path: Path) -> None:
    overwrite(path, 0, _random_bytes(2, 100))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def execute_in(path: Path, *statements: str) -> None:
    """Change a file by SQL, past the store."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for sql in statements:
            connection.execute(sql)


def replace(path: Path) -> None:
    """Damage a table that a recovery does not read, and let a check of the file replace it."""
    zero_table(path, "set_aside")
    with Store.open(path, lambda _: None) as store, suppress(ReplacedError):
        store.check_integrity()


def zero_table(path: Path, table: str) -> None:
    """Overwrite the first page of a table."""
    overwrite(path, _first_page(path, table), bytes(PAGE))


def zero_table_until(path: Path, table: str, replaced: Callable[[], bool]) -> Iterator[bool]:
    """Overwrite the first page of a table for each item, with its copies in the journal and in other processes."""
    start = _first_page(path, table)
    with path.open("r+b", buffering=0) as file:
        while not replaced():
            with (
                suppress(sqlite3.Error),
                closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection,
            ):
                # Every process then reads the file again.
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            os.pwrite(file.fileno(), bytes(PAGE), start)
            yield False
    yield True


def _first_page(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path.resolve())) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return int(page - 1) * PAGE
