"""The store's tables, and the numbers that are kept for each hour. Upgrading older tables belongs in `upgrade`.

`reading_rows` has all rows in the order of time, so that a minute is one page to write; the view `readings` has them with
their names, for people who read the file with SQL. `hours` and `hourly` are written in the transaction that changes the
rows, so that coverage and the charts of months are read from them.
"""

import sqlite3

VERSION = 5

# A row is pending for a destination while its version is above the acknowledged one of its hour (0 if there is none).
# A row is set aside while its version is within a range set aside for its hour, so that a refused hour is one entry.
# `resends` begins at a random number, so that no batch of another file is acknowledged in this one.
# hours.live_minutes is NULL while the hour's rows are still in the table of an older version.
# `hourly` has the hours before the newest one. `removed` has what a person removed, which only a person fills again.
# `destinations` has for how long the bucket keeps points, and when that was found out (`retention_at`).
# An hour's coverage is pending while its minutes differ from those in `coverage_acknowledged`, which also has the refused
# ones, with the reason.
# `fetch_attempts` has what the device did not have (`what`) of an hour or day (`time`), and when that was found out (`at`).
VIEW = """
CREATE VIEW readings AS
    SELECT time, kind, name, value, unit, interval_s FROM reading_rows CROSS JOIN series ON id = series_id;
"""
NEW_IN_3 = f"""
CREATE TABLE reading_rows (
    time INTEGER NOT NULL, series_id INTEGER NOT NULL, value REAL NOT NULL, interval_s INTEGER NOT NULL,
    version INTEGER NOT NULL, PRIMARY KEY (time, series_id)
) WITHOUT ROWID;
CREATE TABLE hourly (
    hour INTEGER NOT NULL, series_id INTEGER NOT NULL, n INTEGER NOT NULL, sum REAL NOT NULL, min REAL NOT NULL,
    max REAL NOT NULL, PRIMARY KEY (hour, series_id)
) WITHOUT ROWID;
CREATE TABLE removed (start INTEGER NOT NULL, stop INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE fetch_attempts (
    time INTEGER NOT NULL, what TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (time, what)
) WITHOUT ROWID;
{VIEW}
"""
# Rows beyond a bucket's retention were set aside.
NEW_IN_4 = """
ALTER TABLE destinations ADD COLUMN retention_s INTEGER;
ALTER TABLE destinations ADD COLUMN retention_at INTEGER;
CREATE TABLE coverage_acknowledged (
    destination_id INTEGER NOT NULL, hour INTEGER NOT NULL, live_minutes INTEGER NOT NULL, filled_minutes INTEGER NOT NULL,
    PRIMARY KEY (destination_id, hour)
) WITHOUT ROWID;
DELETE FROM acknowledged WHERE (destination_id, hour) IN (
    SELECT destination_id, hour FROM set_aside WHERE reason LIKE '%retention policy%'
);
DELETE FROM set_aside WHERE reason LIKE '%retention policy%';
"""
NEW_IN_5 = "ALTER TABLE coverage_acknowledged ADD COLUMN refused TEXT;"
TABLES = f"""
CREATE TABLE series (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL, UNIQUE (kind, name)
);
CREATE TABLE hours (
    hour INTEGER PRIMARY KEY, max_version INTEGER NOT NULL, live_minutes INTEGER, filled_minutes INTEGER,
    filled_by_hour INTEGER
);
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
{NEW_IN_3}
{NEW_IN_4}
{NEW_IN_5}
INSERT INTO meta VALUES ('version', 0), ('resends', abs(random() / 2));
"""


def make_tables(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty file."""
    connection.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
