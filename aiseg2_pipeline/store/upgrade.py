"""The upgrade of an older store to the tables of `schema`, in place.

Rows of version 1 or 2 are upgraded in pieces. When such a store is opened, its table of rows gets the name `old_rows` beside the new tables, in one transaction. Every use of a
range of hours moves the rows of these hours first, and the job `salvage_the_record` moves all others. A piece is one
transaction, so a killed process loses nothing, and several processes can move rows at the same time. Between pieces, the
other processes get as much time as a piece took.
"""

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from aiseg2_pipeline.store.hours import HOUR_S, count_minutes, newest_hour, summarize
from aiseg2_pipeline.store.schema import NEW_IN_3, NEW_IN_4, NEW_IN_5, VERSION, VIEW

PIECE_S = 6 * HOUR_S
PROGRESS_EVERY_S = 10.0
# The rows take the space that the old ones free, except for parts of pages.
ROOM_SHARE, ROOM_BYTES, MB = 0.25, 20_000_000, 1e6

TO_OLD_ROWS = {
    1: "ALTER TABLE readings RENAME TO old_rows;",
    2: """
    DROP VIEW readings;
    ALTER TABLE by_series RENAME TO old_rows;
    INSERT INTO old_rows (series_id, time, value, interval_s, version)
        SELECT series_id, time, value, interval_s, version FROM recent;
    DROP TABLE recent;
    """,
}
# Requests in vain were rows of the kind `no_data`, with the time of the request as value, 0 once it was settled.
BEGIN = f"""
ALTER TABLE hours ADD COLUMN live_minutes INTEGER;
ALTER TABLE hours ADD COLUMN filled_minutes INTEGER;
ALTER TABLE hours ADD COLUMN filled_by_hour INTEGER;
{NEW_IN_3}
INSERT INTO fetch_attempts (time, what, at)
    SELECT time, name, CAST(value AS INTEGER) FROM series CROSS JOIN old_rows ON series_id = id
    WHERE kind = 'no_data' AND value > 0;
DELETE FROM old_rows WHERE series_id IN (SELECT id FROM series WHERE kind = 'no_data');
DELETE FROM series WHERE kind = 'no_data';
DROP VIEW readings;
{VIEW.strip().removesuffix(";")}
    UNION ALL SELECT time, kind, name, value, unit, interval_s FROM series CROSS JOIN old_rows ON series_id = id;
"""
UNMOVED = "SELECT 1 FROM hours WHERE live_minutes IS NULL LIMIT 1"
PIECES = """
SELECT DISTINCT hour / :piece * :piece FROM hours WHERE live_minutes IS NULL AND hour >= :start AND hour < :stop ORDER BY 1
"""
MOVE = """
INSERT INTO reading_rows (time, series_id, value, interval_s, version)
SELECT time, series_id, value, interval_s, version FROM series CROSS JOIN old_rows ON series_id = id
WHERE time >= :start AND time < :stop ORDER BY time, series_id
"""
# An older version has never left such rows; the others are dropped with the table.
KEEP_UNLISTED = """
INSERT INTO hours (hour, max_version) SELECT time / 3600 * 3600, max(version) FROM old_rows GROUP BY 1
ON CONFLICT (hour) DO UPDATE SET live_minutes = NULL
"""

Say = Callable[[str], object]


class NoRoomError(Exception):
    """The disk has too little free space for the upgrade; the message says how much is needed."""


def begin(connection: sqlite3.Connection, version: int, path: Path) -> None:
    """Make the tables of this version, beside the rows of version 1 or 2. Raise NoRoomError."""
    steps = "" if version not in TO_OLD_ROWS else _to_old_rows(version, path)
    steps += NEW_IN_5 if version == 4 else NEW_IN_4 + NEW_IN_5  # noqa: PLR2004 - a version of the past
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")


def _to_old_rows(version: int, path: Path) -> str:
    needed = ROOM_SHARE * path.stat().st_size + ROOM_BYTES
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise NoRoomError(
            f"is from an older aiseg2-pipeline, and its upgrade needs {needed / MB:.0f} MB of free space on its disk, "
            f"which has {free / MB:.0f} MB: free some"
        )
    return TO_OLD_ROWS[version] + BEGIN


def is_upgrading(connection: sqlite3.Connection) -> bool:
    """Return whether rows of an older version may be left."""
    sql = "SELECT count(*) FROM sqlite_master WHERE name = 'old_rows'"
    return bool(connection.execute(sql).fetchone()[0])


def move(
    connection: sqlite3.Connection, start_s: float, stop_s: float, say: Say, *, summarized: bool = True
) -> None:
    """Move the rows of the hours that overlap [start_s, stop_s); `summarized` says whether the store has `hourly`."""
    bounds = {"piece": PIECE_S, "start": start_s // HOUR_S * HOUR_S, "stop": stop_s}
    reported = time.monotonic()
    while pieces := connection.execute(PIECES, bounds).fetchall():
        for n, (piece,) in enumerate(pieces):
            began = time.monotonic()
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                if is_upgrading(connection):
                    _move_piece(connection, piece, summarized=summarized)
            if time.monotonic() - reported > PROGRESS_EVERY_S:
                reported = time.monotonic()
                say(
                    f"is being upgraded: {(n + 1) * PIECE_S // HOUR_S} of {len(pieces) * PIECE_S // HOUR_S} hours are done."
                )
            time.sleep(time.monotonic() - began)
    if connection.execute(UNMOVED).fetchone() is None:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            _finish(connection)


def _move_piece(connection: sqlite3.Connection, piece: int, *, summarized: bool) -> None:
    execute = connection.execute
    span = {"start": piece, "stop": piece + PIECE_S}
    execute(MOVE, span)
    execute(
        "DELETE FROM old_rows WHERE series_id IN (SELECT id FROM series) AND time >= :start AND time < :stop", span
    )
    newest = newest_hour(execute)
    hours = execute("SELECT hour FROM hours WHERE hour >= :start AND hour < :stop", span).fetchall()
    for (hour,) in hours:
        count_minutes(execute, hour)
        if summarized and hour != newest:
            summarize(execute, hour)


def _finish(connection: sqlite3.Connection) -> None:
    """Drop the old table if all its rows are moved."""
    execute = connection.execute
    if not is_upgrading(connection) or execute(UNMOVED).fetchone():
        return
    if execute("SELECT 1 FROM old_rows WHERE series_id IN (SELECT id FROM series) LIMIT 1").fetchone():
        execute(KEEP_UNLISTED)
        return
    execute("DROP VIEW readings")
    execute("DROP TABLE old_rows")
    execute(VIEW)
