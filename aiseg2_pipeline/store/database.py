"""The store's file: how it is opened, replaced when it is damaged, and SQLite's errors as sentences that a person can act on.

What is asked of the tables belongs in `readings.py` and its rooms, the tables in `schema.py`, the names of a damaged file in
`damage.py`. Everything here is about the file: that it is ours, that only its owner may read it, that several
processes can use it at once, that a commit is on disk when it returns, and that all of them use the same file.

Damaged is what SQLite calls so, and only where it was a store: a full disk, a fault in reading or writing, a lock
and a missing right never put a file aside, for the file behind them may be whole.
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

from aiseg2_pipeline.store import schema
from aiseg2_pipeline.store.damage import damaged_files, journals, new_names, point, put_aside

BUSY_S = 10.0
FULL_BELOW_BYTES = 1 << 20
MOST_DAMAGED = 20
MB = 1e6

Say = Callable[[str], object]


class StoreError(Exception):
    """The store cannot be used; one sentence that names the file and says what to do."""


class ReplacedError(StoreError):
    """The file was damaged; another one, which has none of its rows, is in its place and works."""


class DamageFoundError(sqlite3.DatabaseError):
    """The file holds what SQLite would not have written, though it did not say so itself."""


@contextlib.contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Turn what SQLite and the file system raise inside into a StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_sentence(error, path)) from error
    except Timeout as error:
        raise StoreError(_busy(path)) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise StoreError(_full(path)) from error
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}): let this user write to its folder, "
            "or set AISEG2_DATA_DIR to another one."
        ) from error


class StoreFile:
    """A file with the store's tables, open by one connection.

    `say` gets a sentence when the file is put aside as damaged, and when bringing it up to date takes long.
    """

    def __init__(self, path: Path, say: Say | None = None) -> None:
        """Open it, made with its folder where absent; raise StoreError where it cannot be used."""
        self.path = path
        # Where nobody has set up logging, as in the commands, that is stderr.
        self._say = say or logging.getLogger("aiseg2_pipeline").warning
        with sentences(path):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._alone():
                self.connection = self._opened()
                self._identity = _identity(path)

    def close(self) -> None:
        """Close it."""
        with sentences(self.path):
            self.connection.close()

    def follow(self) -> None:
        """Raise ReplacedError where the file at the path is another one than this; the next transaction is on that one."""
        with sentences(self.path):
            if _identity(self.path) != self._identity:
                raise ReplacedError(self._open_again(None))

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn errors into a StoreError; where they say that the file is damaged, it is replaced before."""
        with sentences(self.path):
            try:
                yield
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                raise ReplacedError(self._open_again(str(error))) from error

    def _open_again(self, damage: str | None) -> str:
        """Open the file that is the store now, which is a new one where this one is damaged; return what became of it."""
        with self._alone():
            told = f"{self.path} was replaced by another process: try again."
            if damage is not None and _identity(self.path) == self._identity:
                told = self._put_aside(damage)
            # Not before: the last one to close a file removes its journal, which is put aside with it.
            self.connection.close()
            self.connection = self._opened()
            self._identity = _identity(self.path)
        return told

    def _alone(self) -> FileLock:
        """One process at a time opens the file or puts it aside; SQLite's switch to WAL does not wait for others either."""
        return FileLock(f"{self.path}.lock", timeout=BUSY_S, mode=0o600)

    def _opened(self) -> sqlite3.Connection:
        if not self.path.exists():
            self._make_room()
        try:
            connection = self._connected(self.path.resolve())
        except sqlite3.Error as error:
            # A file that never was a store is refused, whatever is wrong with it.
            if not (is_damage(error) and self._is_known(self.path)):
                raise
            self._put_aside(str(error))
            connection = self._connected(self.path.resolve())
        self._remember()
        return connection

    def _make_room(self) -> None:
        """Make an empty file, for this user alone."""
        self._note.unlink(missing_ok=True)
        real = self.path.resolve()
        if any(journal.exists() for journal in journals(real)):
            # Somebody has removed the file, and another process still has it open: its journal keeps its name.
            real = new_names(self.path, datetime.now(UTC))[0]
            real.touch(mode=0o600)
            point(self.path, real)
        else:
            # A file in use must not be opened here: closing it would drop SQLite's locks.
            real.touch(mode=0o600)

    def _connected(self, real: Path) -> sqlite3.Connection:
        """Return a connection to the file, its tables made or brought up to date; refuse what is not ours."""
        if real.stat().st_size == 0 and self._is_known(real):
            raise DamageFoundError("the file is empty")
        connection = sqlite3.connect(real, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            version, is_new = self._looked_at(connection, real)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            if is_new:
                schema.make_tables(connection)
            elif version < schema.VERSION:
                self._upgrade(connection, version, real)
        except BaseException:
            connection.close()
            raise
        return connection

    def _looked_at(self, connection: sqlite3.Connection, real: Path) -> tuple[int, bool]:
        """Return the version of the tables, and whether there are none yet; raise StoreError where they are not ours to use."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise StoreError(
                f"{self.path} is from a newer aiseg2-pipeline (store version {version}, this one knows "
                f"{schema.VERSION}): install the newer one again, or set AISEG2_DATA_DIR to another folder."
            )
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        is_new = not (version or names)
        if not is_new and not (version and {"series", "readings", "meta"} <= names):
            if self._is_known(real):
                raise DamageFoundError("tables are gone")
            raise StoreError(_foreign(self.path))
        return version, is_new

    def _upgrade(self, connection: sqlite3.Connection, version: int, real: Path) -> None:
        growth = schema.growth_bytes(version, real.stat().st_size)
        if growth + FULL_BELOW_BYTES > shutil.disk_usage(real.parent).free:
            raise StoreError(
                f"{self.path} cannot be brought up to date, which takes {growth / MB + 1:.0f} MB on its disk: free that much, or "
                "install the older aiseg2-pipeline again."
            )
        if growth:
            self._say(f"{self.path} is being brought up to date (store version {version} to {schema.VERSION}).")
        schema.upgrade(connection, version)

    def _put_aside(self, damage: str) -> str:
        """Put a new file in the place of this one; return the sentence that says so."""
        if len(damaged_files(self.path)) >= MOST_DAMAGED:
            raise StoreError(
                f"{self.path} is damaged again, after {MOST_DAMAGED} damaged files, so its disk is failing: set AISEG2_DATA_DIR to a folder on "
                "another disk, or remove the damaged files beside it."
            )
        new, aside = new_names(self.path, datetime.now(UTC))
        try:
            new.touch(mode=0o600)
            self._connected(new).close()
            put_aside(self.path, new, aside, damage)
        except BaseException:
            if self.path.resolve() != new:
                for file in (new, *journals(new)):
                    file.unlink(missing_ok=True)
            raise
        told = (
            f"{self.path} was damaged ({damage}) and is kept as {aside.name}; readings go on in a new file. What can still be read of it comes "
            f"back by itself while the pipeline runs, or with `aiseg2-pipeline salvage`."
        )
        self._say(told)
        return told

    # Which file was a store, so that damage to it is told from a file that somebody has put there.

    def _is_known(self, path: Path) -> bool:
        with contextlib.suppress(OSError):
            return self._note.read_text() == str(path.stat().st_ino)
        return False

    def _remember(self) -> None:
        if not self._is_known(self.path):
            with contextlib.suppress(OSError):
                self._note.touch(mode=0o600)
                self._note.write_text(str(self.path.stat().st_ino))

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.known")


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether the error says that the file holds what a store cannot hold."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # That one is Python's own, and has no code.
    undecodable = str(error).startswith("Could not decode to UTF-8")
    return (
        isinstance(error, DamageFoundError)
        or undecodable
        or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at a path from any other that is there, None where there is none."""
    with contextlib.suppress(FileNotFoundError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def _sentence(error: sqlite3.Error, path: Path) -> str:
    other_folder = "or set AISEG2_DATA_DIR to another folder"
    # Python's own errors (a closed store, say) carry no code.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_IOERR if shutil.disk_usage(path.parent).free >= FULL_BELOW_BYTES:
            what = f"could not be read or written ({error.sqlite_errorname})"
            remedy = "see that its disk has no fault, no quota and free space"
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return _full(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _busy(path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            what, remedy = (
                "is read-only for this user",
                f"let the user write to it and to its folder, {other_folder}",
            )
        case sqlite3.SQLITE_CANTOPEN:
            what, remedy = (
                "cannot be opened",
                f"see that it is a file and that this user may write to it, {other_folder}",
            )
        case sqlite3.SQLITE_NOTADB:
            return _foreign(path)
        case sqlite3.SQLITE_CORRUPT:
            what, remedy = "is damaged", f"move it away and put a copy of it back, {other_folder}"
        case _:
            what, remedy = f"cannot be used ({error})", f"start again, {other_folder}"
    return f"{path} {what}: {remedy}."


def _full(path: Path) -> str:
    return f"{path} cannot grow because its disk is full: free some space on it, or set AISEG2_DATA_DIR to another folder."


def _busy(path: Path) -> str:
    return f"{path} was held by another process for {BUSY_S:.0f} s: end the process that hangs, and try again."


def _foreign(path: Path) -> str:
    return f"{path} is not a store of aiseg2-pipeline: move it away, or set AISEG2_DATA_DIR to another folder."
