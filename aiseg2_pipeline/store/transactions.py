"""The transactions of a store, each on the file that is the store at the time.

Queries belong in `readings` and the modules that it consists of, the file itself in `database`.
"""

import contextlib
import functools
import sqlite3
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Concatenate, ParamSpec, Self, TypeVar

from aiseg2_pipeline.store.database import DamageFoundError, ReplacedError, Say, StoreFile
from aiseg2_pipeline.store.hours import HOUR_S, Execute

BEGINNING_S = -(1 << 53)
END_S = 1 << 53
ALL_TIMES = BEGINNING_S, END_S

# A range of time, [start, end) in unix s.
Range = tuple[float, float]
_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T", bound="Transactions")


def repeated(method: Callable[Concatenate[_T, _P], _R]) -> Callable[Concatenate[_T, _P], _R]:
    """Repeat a method, which is one transaction, in the file that has replaced a damaged one."""

    @functools.wraps(method)
    def repeat(self: _T, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        # Once for a file that another process has replaced, once for one that is damaged.
        for _ in range(2):
            with contextlib.suppress(ReplacedError):
                return method(self, *args, **kwargs)
        return method(self, *args, **kwargs)

    return repeat


class Transactions:
    """An open store; a context manager that closes it.

    A transaction names the range of time whose rows it uses: rows of an older version are upgraded before it begins.
    """

    # Whether the store keeps `hourly`.
    summarized: ClassVar[bool] = True

    def __init__(self, file: StoreFile) -> None:
        """Use an open file; callers use `Store.open`."""
        self.path = file.path
        self._file = file
        self._lock = threading.RLock()

    @classmethod
    def open(cls, path: Path, say: Say | None = None) -> Self:
        """Open the store at `path`; a new file and its folder get permissions for this user only.

        `say` gets a message when the file is damaged and is replaced (default: a warning is logged).
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

    @repeated
    def check(self) -> None:
        """Raise StoreError unless the store can be read and written now."""
        with self._changing() as execute:
            execute("UPDATE meta SET value = value")

    def check_integrity(self) -> None:
        """Check the whole file for damage; raise ReplacedError if it is damaged.

        It reads the whole file, which takes seconds for a year; other processes can use the store meanwhile.
        """
        with self._reading() as execute:
            (result,) = execute("PRAGMA quick_check(1)").fetchone()
            if result != "ok":
                raise DamageFoundError(result)

    @property
    def is_upgraded(self) -> bool:
        """Whether no rows of an older version are left to upgrade."""
        return not self._file.upgrading

    @repeated
    def upgrade(self) -> None:
        """Upgrade all rows of an older version; `say` gets the progress."""
        with self._reading(ALL_TIMES):
            pass

    def _reading(self, times: Range | None = None) -> contextlib.AbstractContextManager[Execute]:
        """Begin a transaction whose queries all read the same state."""
        return self._transaction("BEGIN", times)

    @contextlib.contextmanager
    def _changing(self, times: Range | None = None) -> Iterator[Execute]:
        """Begin a transaction that writes all or nothing, while no other process writes."""
        with self._transaction("BEGIN IMMEDIATE", times) as execute:
            yield execute
        # Rows that were committed to a file that was replaced meanwhile are not in the store.
        self._file.follow()

    @contextlib.contextmanager
    def _transaction(self, begin: str, times: Range | None) -> Iterator[Execute]:
        with self._lock:
            self._file.follow()
            with self._file.guarded():
                if times is not None:
                    self._file.move_old_rows(*times, summarized=self.summarized)
                connection = self._file.connection
                connection.execute(begin)
                try:
                    yield connection.execute
                    connection.execute("COMMIT")
                except BaseException:
                    # SQLite rolls back by itself after some errors; an error of the rollback would hide the first one.
                    if connection.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                    raise


def meta(execute: Execute, key: str) -> int:
    """Return a counter of the table `meta`."""
    return int(execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])


def hour_of(unix_s: float) -> int:
    """Return the start of the hour (unix s); the hours of Tokyo and UTC are the same."""
    return int(unix_s // HOUR_S) * HOUR_S


def unix_s(moment: datetime) -> float:
    """Return a time as unix seconds; raise ValueError if it has no zone."""
    if moment.tzinfo is None:
        raise ValueError(f"the store needs a time with its zone, not {moment}")
    return moment.timestamp()


def datetime_of(unix_s: int) -> datetime:
    """Return unix seconds as a time in UTC."""
    return datetime.fromtimestamp(unix_s, UTC)
