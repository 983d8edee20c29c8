"""Dagster's SQLite files: they give back to the disk what they no longer need. No Dagster here; other databases do it themselves.

A SQLite file keeps the pages of deleted rows and uses them again. Only with `auto_vacuum` set can it also become
smaller, and that is decided when the file is made, or by writing it anew once (VACUUM).
"""

import sqlite3
from contextlib import closing
from pathlib import Path

FILES = ("event_log.db", "history/runs.db", "schedules/schedules.db")
INCREMENTAL = 2
# 1 MB at SQLite's page size: moved in a few milliseconds, for which nobody else can write.
BITE_PAGES = 256
# Between two nights some room is used and freed; giving that back every time would only wear a memory card.
SPARE_OF_USED = 0.5


def prepare_storage(home: Path) -> list[str]:
    """Let the SQLite files of a Dagster home shrink; call it when they exist and nothing uses them.

    New files are done at once; an older history is written anew, once. Returns a sentence for each file that could
    not be changed: it works as before, and only never shrinks.
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
    """Give a bite of unused pages back to the disk; return whether there was one."""
    (pages,), (free,), (mode,) = (
        connection.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "auto_vacuum")
    )
    spare = int((pages - free) * SPARE_OF_USED)
    if mode != INCREMENTAL or free <= spare:
        return False
    # As a script: `execute` would end with the first page.
    connection.executescript(f"PRAGMA incremental_vacuum({min(BITE_PAGES, free - spare)})")
    return True
