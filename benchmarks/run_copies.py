"""Copy the rows of a real run into a Dagster home many times, with other ids, partitions and times.

SQLite does not sync here, because the files are temporary.
"""

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from aiseg2_pipeline.orchestration.maintenance.sqlite_files import FILES

EVENTS, RUNS, SCHEDULES = FILES
Rows = list[dict[str, Any]]


@dataclass
class Template:
    """The rows of a real run in each table."""

    run_id: str
    partition: str
    rows: dict[str, Rows]

    @classmethod
    def of(cls, home: Path, job: str, status: str) -> Self:
        """Read the last run of this job and status from a Dagster home."""
        with connected(home / RUNS) as runs, connected(home / EVENTS) as events:
            (run,) = selected(
                runs, "runs WHERE pipeline_name = ? AND status = ? ORDER BY id DESC LIMIT 1", job, status
            )
            of_run = {
                "event_logs": selected(events, "event_logs WHERE run_id = ? ORDER BY id", run["run_id"]),
                "asset_check_executions": selected(
                    events, "asset_check_executions WHERE run_id = ? ORDER BY id", run["run_id"]
                ),
                "asset_event_tags": selected(
                    events,
                    "asset_event_tags WHERE event_id IN (SELECT id FROM event_logs WHERE run_id = ?)",
                    run["run_id"],
                ),
                "runs": [run],
                "run_tags": selected(runs, "run_tags WHERE run_id = ? ORDER BY id", run["run_id"]),
            }
        return cls(run["run_id"], run["partition"] or "", of_run)

    def of_job(self, job: str) -> Self:
        """Return a template with the name of another job."""
        (run,) = self.rows["runs"]
        return type(self)(self.run_id, self.partition, self.rows | {"runs": [run | {"pipeline_name": job}]})


@dataclass
class Copies:
    """Insert copies of runs into a Dagster home, many in one transaction."""

    home: Path
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Open the files."""
        self._events, self._runs, self._schedules = (
            self.stack.enter_context(connected(self.home / name)) for name in FILES
        )
        (self._event_id,) = self._events.execute("SELECT coalesce(max(id), 0) FROM event_logs").fetchone()
        return self

    def __exit__(self, *_: object) -> None:
        """Commit."""
        self.stack.close()

    def add(self, template: Template, at: datetime, partition: str) -> None:
        """Add a copy of a run that started at `at`."""
        run_id = str(uuid.uuid4())
        stamp = at.strftime("%Y-%m-%d %H:%M:%S")
        ids: dict[int, int] = {}

        def copied(row: dict[str, Any]) -> dict[str, Any]:
            new = {
                name: value.replace(template.run_id, run_id).replace(template.partition, partition)
                if isinstance(value, str)
                else value
                for name, value in row.items()
                if name != "id"
            }
            new |= {name: stamp for name in new if name.endswith("timestamp") and new[name] is not None}
            return new

        for row in template.rows["event_logs"]:
            self._event_id += 1
            ids[row["id"]] = self._event_id
            _insert(self._events, "event_logs", copied(row) | {"id": self._event_id})
        for row in template.rows["asset_event_tags"]:
            _insert(self._events, "asset_event_tags", copied(row) | {"event_id": ids[row["event_id"]]})
        for row in template.rows["asset_check_executions"]:
            _insert(self._events, "asset_check_executions", copied(row))
        for table in ("runs", "run_tags"):
            for row in template.rows[table]:
                _insert(self._runs, table, copied(row))

    def tick(self, row: dict[str, Any], at: datetime) -> None:
        """Add a copy of a tick."""
        stamp = at.strftime("%Y-%m-%d %H:%M:%S")
        new = {name: value for name, value in row.items() if name != "id"}
        _insert(self._schedules, "job_ticks", new | dict.fromkeys(("timestamp", "create_timestamp"), stamp))


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """Open one of Dagster's files; commit at the end."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        yield connection
    connection.close()


def selected(connection: sqlite3.Connection, what: str, *parameters: str) -> Rows:
    """Return the rows of `what`, a table with a condition."""
    return [dict(row) for row in connection.execute(f"SELECT * FROM {what}", parameters)]  # noqa: S608 - our own text


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    names = ", ".join(f'"{name}"' for name in row)
    sql = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(row))})"  # noqa: S608 - Dagster's own names
    connection.execute(sql, list(row.values()))
