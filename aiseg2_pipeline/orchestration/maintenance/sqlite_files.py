"""Dagster's SQLite files: return unused pages to the disk. Dagster is not imported here; other databases do this themselves.

SQLite keeps the pages of deleted rows for new ones. A file can only shrink with `auto_vacuum`, which is set when the file
is created, or later with a VACUUM.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

FILES = ("event_log.db", "history/runs.db", "schedules/schedules.db")
INCREMENTAL = 2
# 1 MB at SQLite's page size: a few milliseconds in which no other process can write.
BATCH_PAGES = 256
# Between two nights some pages are freed and used again; returning all of them would only wear a memory card.
SPARE_OF_USED = 0.5


def prepare_storage(home: Path) -> list[str]:
    """Set `auto_vacuum` in the SQLite files of a Dagster home; they must exist and be unused.

    A new file takes no time; an old one gets one VACUUM. Return a message for each file that could not be changed: it
    works as before, but never shrinks.
    """
    problems = []
    for path in (home / name for name in FILES):
        if path.is_file():
            try:
                _prepare(path)
            except sqlite3.Error as error:
                problems.append(
                    f"{path} will not become smaller when old runs are deleted ({error}): free as much space as it takes, "
                    "and start again."
                )
    return problems


def _prepare(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if connection.execute("PRAGMA auto_vacuum").fetchone()[0] != INCREMENTAL:
            connection.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            connection.execute("VACUUM")


def give_back(connection: sqlite3.Connection) -> bool:
    """Return a batch of unused pages to the disk; return whether there was one."""
    (pages,), (free,), (mode,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "auto_vacuum")
    )
    spare = int((pages - free) * SPARE_OF_USED)
    if mode != INCREMENTAL or free <= spare:
        return False
    # `execute` would stop after the first page.
    connection.executescript(f"PRAGMA incremental_vacuum({min(BATCH_PAGES, free - spare)})")
    return True
