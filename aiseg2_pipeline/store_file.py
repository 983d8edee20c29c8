"""The store's file: its tables, how it is opened, and SQLite's errors as sentences that a person can act on.

What is asked of the tables belongs in `store.py`. Everything here is about the file: that it is ours, that only
its owner may read it, that several processes can use it at once, and that a commit is on disk when it returns.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

SCHEMA_VERSION = 1
BUSY_S = 10.0
FULL_BELOW_BYTES = 1 << 20

# `readings` is ordered by series, so that a series' range is one contiguous read.
# A row is pending for a destination while its version is above what is acknowledged for its hour (nothing: 0).
# A row is set aside while its version is within a range set aside for its hour: a refused hour is one entry.
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE series (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, UNIQUE (kind, name)
);
CREATE TABLE readings (
    series_id INTEGER NOT NULL, time INTEGER NOT NULL, value REAL NOT NULL, interval_s INTEGER NOT NULL,
    version INTEGER NOT NULL, PRIMARY KEY (series_id, time)
) WITHOUT ROWID;
CREATE TABLE hours (hour INTEGER PRIMARY KEY, max_version INTEGER NOT NULL);
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY, host TEXT NOT NULL, org TEXT NOT NULL, bucket TEXT NOT NULL, UNIQUE (host, org, bucket)
);
CREATE TABLE acknowledged (
    destination_id INTEGER NOT NULL, hour INTEGER NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (destination_id, hour)
) WITHOUT ROWID;
CREATE TABLE set_aside (
    destination_id INTEGER NOT NULL, hour INTEGER NOT NULL, first_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL, reason TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (destination_id, hour, first_version)
) WITHOUT ROWID;
CREATE TABLE circuits (
    circuit_id TEXT NOT NULL, name TEXT NOT NULL, valid_from INTEGER NOT NULL, valid_to INTEGER
);
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('version', 0), ('resends', 0);
PRAGMA user_version = 1;
COMMIT;
"""


class StoreError(Exception):
    """The store cannot be used; one sentence that names the file and says what to do."""


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
        raise StoreError(
            f"{path} cannot be opened ({error.strerror}): let this user write to its folder, "
            "or set AISEG2_DATA_DIR to another one."
        ) from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the store's file, made with its folder where absent; raise StoreError where it cannot be used."""
    with sentences(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One at a time, because SQLite's switch to WAL does not wait for others.
        with FileLock(f"{path}.lock", timeout=BUSY_S, mode=0o600):
            if not path.exists():  # A file in use must not be opened here: closing it would drop SQLite's locks.
                path.touch(mode=0o600)
            connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                _prepare(connection, path)
            except BaseException:
                connection.close()
                raise
            return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours, make the tables in an empty file, and set how commits reach the disk."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} is from a newer aiseg2-pipeline (store version {version}, this one knows "
            f"{SCHEMA_VERSION}): install the newer one again, or set AISEG2_DATA_DIR to another folder."
        )
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(_foreign(path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if version == 0:
        connection.executescript(SCHEMA)


def _sentence(error: sqlite3.Error, path: Path) -> str:
    other_folder = "or set AISEG2_DATA_DIR to another folder"
    # Python's own errors (a closed store, say) carry no code.
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_IOERR if shutil.disk_usage(path.parent).free >= FULL_BELOW_BYTES:
            what = f"could not be read or written ({error.sqlite_errorname})"
            remedy = "see that its disk has no fault, no quota and free space"
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            what, remedy = "cannot grow because its disk is full", f"free some space on it, {other_folder}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _busy(path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            what, remedy = "is read-only for this user", "let the user write to it and to its folder"
        case sqlite3.SQLITE_CANTOPEN:
            what, remedy = "cannot be opened", "see that it is a file and that this user may write to it"
        case sqlite3.SQLITE_NOTADB:
            return _foreign(path)
        case sqlite3.SQLITE_CORRUPT:
            what, remedy = "is damaged", f"move it away and put a copy of it back, {other_folder}"
        case _:
            what, remedy = f"cannot be used ({error})", f"start again, {other_folder}"
    return f"{path} {what}: {remedy}."


def _busy(path: Path) -> str:
    return f"{path} was held by another process for {BUSY_S:.0f} s: end the process that hangs, and try again."


def _foreign(path: Path) -> str:
    return f"{path} is not a store of aiseg2-pipeline: move it away, or set AISEG2_DATA_DIR to another folder."
