"""What every change of the store and every look at it goes through: one transaction on the file that is the store now.

What is asked of which tables belongs in `readings.py` and the rooms that it is made of; the file itself, in `database.py`.
"""

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Concatenate, ParamSpec, Self, TypeVar

from aiseg2_pipeline.store.database import DamageFoundError, ReplacedError, Say, StoreFile

HOUR_S = 3600
BEGINNING_S = -(1 << 53)
END_S = 1 << 53

Execute = Callable[..., sqlite3.Cursor]
_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T", bound="Transactions")


def again(method: Callable[Concatenate[_T, _P], _R]) -> Callable[Concatenate[_T, _P], _R]:
    """Let a method, one transaction, do its work in the file that has replaced a damaged one."""

    @functools.wraps(method)
    def done(self: _T, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        # Once for a file that another process has replaced, once for one that is damaged.
        for _ in range(2):
            with contextlib.suppress(ReplacedError):
                return method(self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return done


class Transactions:
    """An open file of the store; a context manager that closes it."""

    def __init__(self, file: StoreFile) -> None:
        """Take over an open file; use `Store.open`."""
        self.path = file.path
        self._file = file
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path, say: Say | None = None) -> Self:
        """Open the store at `path`; a new file, and a new folder for it, are for this user alone.

        `say` gets a sentence when the file is damaged and a new one takes its place (default: it is logged as a warning).
        """
        return cls(StoreFile(path, say))

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    @again
    def check(self) -> None:
        """Raise StoreError unless the store can be read and written now."""
        with self._changing() as execute:
            execute("UPDATE meta SET value = value")

    def look_over(self) -> None:
        """Read the whole file for damage; raise ReplacedError where there is any.

        It takes as long as reading the file does, seconds for a year; others go on meanwhile.
        """
        with self._reading() as execute:
            (found,) = execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DamageFoundError(found)

    def _reading(self) -> contextlib.AbstractContextManager[Execute]:
        """One state of the file for everything read inside."""
        return self._transaction("BEGIN")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Execute]:
        """All or nothing of what is written inside, and nobody else writes meanwhile."""
        with self._transaction("BEGIN IMMEDIATE") as execute:
            yield execute
        # Written to a file that was put aside meanwhile, it is not in the record.
        self._file.follow()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Execute]:
        with self._lock:
            self._file.follow()
            with self._file.guarded():
                connection = self._file.connection
                connection.execute(begin)
                try:
                    yield connection.execute
                    connection.execute("COMMIT")
                except BaseException:
                    # SQLite has rolled back by itself after some errors; and that this fails too, tells less than the error.
                    if connection.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                    raise


def meta(execute: Execute, key: str) -> int:
    """Return what the file counts under that name."""
    return int(execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def hour_of(unix_s: float) -> int:
    """Return the start of the hour; Tokyo's hours start when UTC's do."""
    return int(unix_s // HOUR_S) * HOUR_S


def unix_s(moment: datetime) -> float:
    """Return a time as the tables have it; raise ValueError where it has no zone."""
    if moment.tzinfo is None:
        raise ValueError(f"the store needs a time with its zone, not {moment}")
    return moment.timestamp()


def datetime_of(unix_s: int) -> datetime:
    """Return a time of the tables in UTC."""
    return datetime.fromtimestamp(unix_s, UTC)
