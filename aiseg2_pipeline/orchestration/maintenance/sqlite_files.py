"""Dagster's SQLite files: replace damaged ones, and return unused pages to the disk. Dagster is not imported here.

A damaged file is renamed, and Dagster creates a new one: its history of runs is lost, but no reading. Another database
does all this itself.

SQLite keeps the pages of deleted rows for new ones. A file can only shrink with `auto_vacuum`, which is set when the file
is created, or later with a VACUUM.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path

from aiseg2_pipeline.store.damage import DamagedFile, damaged_files, journals, new_names, note_salvaged

EVENTS, RUNS, SCHEDULES = FILES = ("event_log.db", "history/runs.db", "schedules/schedules.db")
# The events belong to the runs, so both are replaced if one of them is damaged.
GROUPS = ((EVENTS, RUNS), (SCHEDULES,))
# The switches and cursors of schedules and sensors, which Dagster stores in two tables.
COPY_STATES = (
    """INSERT INTO main.jobs (job_origin_id, selector_id, repository_origin_id, status, job_type, job_body)
    SELECT job_origin_id, selector_id, repository_origin_id, status, job_type, job_body FROM old.jobs
    WHERE NOT EXISTS (SELECT 1 FROM main.jobs)""",
    """INSERT INTO main.instigators (selector_id, repository_selector_id, status, instigator_type, instigator_body)
    SELECT selector_id, repository_selector_id, status, instigator_type, instigator_body FROM old.instigators
    WHERE NOT EXISTS (SELECT 1 FROM main.instigators)""",
)
INCREMENTAL = 2
# 1 MB at SQLite's page size: a few milliseconds in which no other process can write.
BATCH_PAGES = 256
# Between two nights some pages are freed and used again; returning all of them would only wear a memory card.
SPARE_OF_USED = 0.5


def damage(path: Path) -> str | None:
    """Return what SQLite finds wrong with the content of a file; None if nothing, or if it cannot be read now."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            ((finding,),) = connection.execute("PRAGMA quick_check(1)")
    except sqlite3.Error as error:
        is_damage = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        return str(error) if is_damage else None
    return None if finding == "ok" else " ".join(finding.split())


def damage_in(home: Path) -> dict[str, str]:
    """Return what is wrong with each damaged file of a Dagster home."""
    found = {name: damage(home / name) for name in FILES}
    return {name: reason for name, reason in found.items() if reason}


def put_aside_damaged(home: Path, now: datetime) -> Iterator[str]:
    """Rename the damaged files, which must be unused, with a note beside each; yield a message about each damaged one."""
    reasons = damage_in(home)
    for group in GROUPS:
        damaged = [f"{name}: {reasons[name]}" for name in group if name in reasons]
        for path in (home / name for name in group if damaged):
            _, aside = new_names(path, now)
            # The file last: its journal must never be one of the new file.
            for old, new in (*zip(journals(path), journals(aside), strict=True), (path, aside)):
                with suppress(FileNotFoundError):
                    old.rename(new)
            note_salvaged(DamagedFile(aside, "; ".join(damaged), None), "Dagster's history begins anew.")
        for one in damaged:
            yield (
                f"A file of Dagster's in {home} was damaged ({one}) and is kept beside the new one: its history of runs begins "
                "anew, and no reading is lost."
            )


def restore_states(home: Path) -> None:
    """Copy the states of schedules and sensors from the newest damaged file into one without any, if they can be read."""
    for damaged in damaged_files(home / SCHEDULES)[-1:]:
        with closing(sqlite3.connect(home / SCHEDULES)) as connection:
            connection.execute("ATTACH ? AS old", (str(damaged.path),))
            # Without them, all are as the definitions say: running.
            with suppress(sqlite3.Error), connection:
                for copy in COPY_STATES:
                    connection.execute(copy)


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
