"""Keep the stores open while the pipeline runs, so that no run is the last one to close them.

When its last connection closes, SQLite copies the journal into the file and deletes it. With every minute's run that is
86 instead of 28 kB written to the disk (`python -m benchmarks.store`). The daemon keeps the stores open, because it is
always there and is never forked; reading and writing them belongs in `store`.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path

POLL_S = 60.0
VARIABLE = "AISEG2_STORES"


def variable(paths: Iterable[Path]) -> dict[str, str]:
    """Return the environment variable with the paths of the stores for the daemon."""
    return {VARIABLE: os.pathsep.join(map(str, paths))}


def keep_open(paths: Iterable[Path], poll_s: float = POLL_S) -> None:
    """Keep these stores open from a thread until the process ends, also those that are created or replaced later."""
    threading.Thread(target=_keep_open, args=(list(paths), poll_s), daemon=True).start()


def keep_those_of_environment_open() -> None:
    """Keep the stores open that the environment variable names."""
    keep_open(Path(path) for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path)


def close_journals(paths: Iterable[Path]) -> None:
    """Copy the journals into the files, so that a stopped pipeline's stores are one file each."""
    for path in paths:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_connection(path, "rw")) as connection:
            _read(connection)


def _keep_open(paths: list[Path], poll_s: float) -> None:
    connections: dict[Path, tuple[int, sqlite3.Connection]] = {}
    while True:
        for path in paths:
            # A store that cannot be read is reported by those that use it.
            with contextlib.suppress(OSError, sqlite3.Error):
                inode = path.stat().st_ino
                if path in connections and connections[path][0] != inode:
                    connections.pop(path)[1].close()
                if path not in connections:
                    connections[path] = inode, _connection(path, "ro")
                _read(connections[path][1])
        time.sleep(poll_s)


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True)


def _read(connection: sqlite3.Connection) -> None:
    """Read something: only then does SQLite open the journal."""
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
