"""The store's tables, and their upgrade from older versions.

The file contains the version number of its tables. When it is opened, a newer version than the program's is refused, and
an older one is upgraded in one transaction, so that a killed upgrade leaves the old version.
"""

import sqlite3

VERSION = 2

# `recent` has the rows of the running hour by time, so that a minute writes one page instead of one for each series.
# `by_series` has all others, so that a range of a series is one contiguous read. An hour is wholly in one of them.
# The view `readings` has the rows of both with their names, for people who read the file with SQL.
# A row is pending for a destination while its version is above the acknowledged one of its hour (0 if there is none).
# A row is set aside while its version is within a range set aside for its hour, so that a refused hour is one entry.
# Tables of a later version are created last, in the order of an upgraded file: recovery relies on it.
# `resends` begins at a random number, so that no batch of another file is acknowledged in this one.
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


# The steps from each version to the next.
UPGRADES = {1: f"ALTER TABLE readings RENAME TO by_series; {RECENT}"}


def make_tables(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty file."""
    connection.executescript(
        f"BEGIN IMMEDIATE; {TABLES} {RECENT} {FIRST_ROWS} PRAGMA user_version = {VERSION}; COMMIT;"
    )


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Upgrade the tables of an older version in one transaction."""
    script = "".join(UPGRADES[step] for step in range(version, VERSION))
    connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {VERSION}; COMMIT;")
