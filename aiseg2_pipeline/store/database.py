"""The store's file: opening, replacing a damaged file, and SQLite's errors as messages that say what to do.

Queries belong in `readings` and the modules that it consists of, the tables in `schema`, the names of damaged files in
`damage`. This module makes sure that the file is a store, that only its owner may read it, that several processes can
use it at the same time, that a commit is on disk when it returns, and that all processes use the same file.

A file is damaged when SQLite says so and it was a store before. A full disk, an I/O error, a lock and a missing
permission never replace a file, because its content may be whole.
"""

import contextlib
import errno
import logging
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from aiseg2_pipeline.small_files import replace_text
from aiseg2_pipeline.store import schema, upgrade
from aiseg2_pipeline.store.damage import damaged_files, journals, new_names, point, put_aside

BUSY_S = 10.0
FULL_BELOW_BYTES = 1 << 20
MOST_DAMAGED = 20
OTHER_FOLDER = "or set AISEG2_DATA_DIR to another folder"
FULL = f"cannot grow because its disk is full: free some space on it, {OTHER_FOLDER}"
HELD = f"was held by another process for {BUSY_S:.0f} s: end the process that hangs, and try again"
NO_STORE = f"is not a store of aiseg2-pipeline: move it away, {OTHER_FOLDER}"
READ_ONLY = f"is read-only for this user: let the user write to it and to its folder, {OTHER_FOLDER}"
PROBLEMS = {
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_IOERR: FULL,
    sqlite3.SQLITE_BUSY: HELD,
    sqlite3.SQLITE_LOCKED: HELD,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_PERM: READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: f"cannot be opened: see that it is a file and that this user may write to it, {OTHER_FOLDER}",
    sqlite3.SQLITE_NOTADB: NO_STORE,
    sqlite3.SQLITE_CORRUPT: f"is damaged: move it away and put a copy of it back, {OTHER_FOLDER}",
}

Say = Callable[[str], object]


class StoreError(Exception):
    """The store cannot be used; the message names the file and says what to do."""


class ReplacedError(StoreError):
    """The file was damaged and has been replaced by a new one, which can be used and has none of its rows."""


class DamageFoundError(sqlite3.DatabaseError):
    """The file has content that no store writes, though SQLite raised no error."""


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into a StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"{path} {_problem(error, path)}.") from error
    except Timeout as error:
        raise StoreError(f"{path} {HELD}.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(f"{path} {FULL}.") from error
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}): let this user write to its folder, "
            "or set AISEG2_DATA_DIR to another one."
        ) from error


class StoreFile:
    """A store's file, open on one connection; `upgrading` while rows of an older version may be left.

    `say` gets a message when the file is replaced because of damage, and the progress of an upgrade.
    """

    upgrading: bool

    def __init__(self, path: Path, say: Say | None = None) -> None:
        """Open the file, and create it and its folder where they are missing; raise StoreError where it cannot be used."""
        self.path = path
        # Without a logging configuration, as in the commands, this writes to stderr.
        self._say = say or logging.getLogger("aiseg2_pipeline").warning
        with store_errors(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._lock():
                self.connection = self._open()
                self._identity = _identity(path)

    def close(self) -> None:
        """Close the connection."""
        with store_errors(self.path):
            self.connection.close()

    def follow(self) -> None:
        """Raise ReplacedError if the path leads to another file by now; the next transaction uses that one."""
        with store_errors(self.path):
            if _identity(self.path) != self._identity:
                raise ReplacedError(self._reopen(None))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn errors into a StoreError; replace the file first if the error means damage."""
        with store_errors(self.path):
            try:
                yield
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                raise ReplacedError(self._reopen(str(error))) from error

    def move_old_rows(self, start_s: float, stop_s: float, *, summarized: bool) -> None:
        """Upgrade the rows of these hours; raise what SQLite raises."""
        if self.upgrading:
            upgrade.move(
                self.connection,
                start_s,
                stop_s,
                lambda progress: self._say(f"{self.path} {progress}"),
                summarized=summarized,
            )
            self.upgrading = upgrade.is_upgrading(self.connection)

    def _reopen(self, damage: str | None) -> str:
        """Open the present file, after replacing it if it is the damaged one; return a message about it."""
        with self._lock():
            message = f"{self.path} was replaced by another process: try again."
            if damage is not None and _identity(self.path) == self._identity:
                message = self._replace(damage)
            # Only now: the last connection that is closed removes the journal, which is kept with the damaged file.
            self.connection.close()
            self.connection = self._open()
            self._identity = _identity(self.path)
        return message

    def _lock(self) -> FileLock:
        """Return the lock under which one process opens or replaces the file; SQLite's switch to WAL does not wait."""
        return FileLock(f"{self.path}.lock", timeout=BUSY_S, mode=0o600)

    def _open(self) -> sqlite3.Connection:
        if not self.path.exists():
            self._create()
        try:
            connection = self._connect(self.path.resolve())
        except sqlite3.Error as error:
            # A file that never was a store is refused instead.
            if not (is_damage(error) and self._is_known(self.path)):
                raise
            self._replace(str(error))
            connection = self._connect(self.path.resolve())
        self.upgrading = upgrade.is_upgrading(connection)
        if not self._is_known(self.path):
            with contextlib.suppress(OSError):
                replace_text(self._note, str(self.path.stat().st_ino))
        return connection

    def _create(self) -> None:
        """Create an empty file that only its owner may read."""
        self._note.unlink(missing_ok=True)
        # A file in use must not be opened here: closing it would drop SQLite's locks.
        real = self.path.resolve()
        if not any(journal.exists() for journal in journals(real)):
            real.touch(mode=0o600)
            return
        # The file was deleted while another process has it open, whose journal keeps the name.
        new, _ = new_names(self.path, datetime.now(UTC))
        new.touch(mode=0o600)
        point(self.path, new)

    def _connect(self, real: Path) -> sqlite3.Connection:
        """Return a connection to the file, after creating or upgrading its tables; refuse a file that is no store."""
        if real.stat().st_size == 0 and self._is_known(real):
            raise DamageFoundError("the file is empty")
        connection = sqlite3.connect(real, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            version = self._version(connection, real)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if version is None:
                schema.make_tables(connection)
            elif version < schema.VERSION:
                upgrade.begin(connection, version, real)
        except upgrade.NoRoomError as error:
            connection.close()
            raise StoreError(f"{self.path} {error}, {OTHER_FOLDER}.") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _version(self, connection: sqlite3.Connection, real: Path) -> int | None:
        """Return the version of the tables, None for an empty file; raise StoreError if this program cannot use them."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise StoreError(
                f"{self.path} is from a newer aiseg2-pipeline (store version {version}, this program supports "
                f"{schema.VERSION}): install the newer one again, {OTHER_FOLDER}."
            )
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not (version or names):
            return None
        if not (version and {"series", "readings", "meta"} <= names):
            if self._is_known(real):
                raise DamageFoundError("tables are missing")
            raise StoreError(f"{self.path} {NO_STORE}.")
        return int(version)

    def _replace(self, damage: str) -> str:
        """Move the damaged file aside and put a new one in its place; return the message about it."""
        if len(damaged_files(self.path)) >= MOST_DAMAGED:
            raise StoreError(
                f"{self.path} is damaged again, after {MOST_DAMAGED} damaged files, so its disk is failing: set AISEG2_DATA_DIR to a folder on "
                "another disk, or remove the damaged files beside it."
            )
        new, aside = new_names(self.path, datetime.now(UTC))
        try:
            new.touch(mode=0o600)
            self._connect(new).close()
            put_aside(self.path, new, aside, damage)
        except BaseException:
            if self.path.resolve() != new:
                for file in (new, *journals(new)):
                    file.unlink(missing_ok=True)
            raise
        message = (
            f"{self.path} was damaged ({damage}) and is kept as {aside.name}; readings continue in a new file. "
            "A running pipeline restores its readable rows; without one, run `aiseg2-pipeline salvage`."
        )
        self._say(message)
        return message

    # The inode of the file that was a store: damage to it is repaired, any other file that is no store is refused.

    def _is_known(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return self._note.read_text() == str(path.stat().st_ino)
        return False

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.known")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error means that the file has content that no store writes."""
    # Python raises the error about UTF-8 itself, without a code.
    return (
        isinstance(error, DamageFoundError)
        or str(error).startswith("Could not decode to UTF-8")
        or _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 for an error that Python raised itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at a path, None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _problem(error: sqlite3.Error, path: Path) -> str:
    """Return what is wrong and what to do, as it follows the path in a message."""
    code = _code(error)
    if code == sqlite3.SQLITE_IOERR and shutil.disk_usage(path.parent).free >= FULL_BELOW_BYTES:
        return (
            f"could not be read or written ({error.sqlite_errorname}): "
            "see that its disk has no fault, no quota and free space"
        )
    return PROBLEMS.get(code, f"cannot be used ({error}): start again, {OTHER_FOLDER}")
