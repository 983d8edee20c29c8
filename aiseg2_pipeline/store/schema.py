"""The store's tables, and how those of an older version become these.

Each version of the tables has a number, kept in the file. A newer version than the program's is refused where the file is
opened; an older one is brought up to date there, in one transaction: killed in the middle, it is the old one still.
"""

import sqlite3
from typing import NamedTuple

VERSION = 2

# Rows of one hour, the one that is being read, are in `recent`, by time: a minute's rows are one page to write, not one
# for each series. All others are in `by_series`, where a series' range is one contiguous read. An hour is wholly in one of them.
# `readings` is both with their names, for whoever reads the file with SQL.
# A row is pending for a destination while its version is above what is acknowledged for its hour (nothing: 0).
# A row is set aside while its version is within a range set aside for its hour: a refused hour is one entry.
# What came with a later version stands last, as in a file that was upgraded: salvaging relies on it.
# `resends` begins anywhere, so that a batch of rows of another file is never taken for one of this.
RECENT = """
CREATE TABLE recent (
    time INTEGER NOT NULL, series_id INTEGER NOT NULL, value REAL NOT NULL, interval_s INTEGER NOT NULL,
    version INTEGER NOT NULL, PRIMARY KEY (time, series_id)
) WITHOUT ROWID;
CREATE VIEW readings AS
    SELECT time, kind, name, value, unit, interval_s FROM series CROSS JOIN by_series ON series_id = id
    UNION ALL
    SELECT time, kind, name, value, unit, interval_s FROM series CROSS JOIN recent ON series_id = id;
"""
TABLES = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, UNIQUE (kind, name)
);
CREATE TABLE by_series (
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
"""
FIRST_ROWS = "INSERT INTO meta VALUES ('version', 0), ('resends', abs(random() / 2));"


class Upgrade(NamedTuple):
    """How a version becomes the next one; `copies` is how much of the file it writes anew, 1 for all of it."""

    sql: str
    copies: float = 0.0


UPGRADES = {
    1: Upgrade(f"ALTER TABLE readings RENAME TO by_series; {RECENT}"),
}


def make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables in an empty file."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {TABLES} {RECENT} {FIRST_ROWS} PRAGMA user_version = {VERSION}; COMMIT;"
    )


def growth_bytes(version: int, file_bytes: int) -> int:
    """Return how much room upgrading a file of that version takes: what is written anew is in the journal as well."""
    return int(sum(2 * UPGRADES[step].copies * file_bytes for step in range(version, VERSION)))


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Bring the tables of an older version up to date, all or nothing."""
    script = "".join(UPGRADES[step].sql for step in range(version, VERSION))
    connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {VERSION}; COMMIT;")
