"""Check that the pipeline's own processes work, without importing Dagster, which costs more than a minute's run.

Healthy means: the code server answers, the daemon has stored a heartbeat within the last two minutes, no tick lies in the
future, Dagster's files are not damaged, and the minutes' runs are started. The device and InfluxDB are not checked here, because restarting the pipeline does not repair them: the
checks in Dagster's pages, the alerts and `doctor` report them.
"""

import contextlib
import json
import socket
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from pydantic import SecretStr

from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import RUNS, SCHEDULES, damage_in
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store.queries import Queries

TIMEOUT_S = 5
# The daemon stores a heartbeat every 30 s; later than that on a busy machine.
SILENT_S = 120
# Without a reading for so long, Dagster's files are read to find damage.
UNREAD = timedelta(minutes=2)
# The service name of Dagster's code server.
CODE_SERVER = "DagsterApi"
# The last heartbeat of the daemon's part that starts the minutes, the newest start of a minute's run, and the schedules
# that somebody has switched on or off.
HEARTBEAT = "SELECT body FROM daemon_heartbeats WHERE daemon_type = 'SCHEDULER'"
NEWEST_RUN = "SELECT max(start_time) FROM runs WHERE pipeline_name = 'power_minute' AND start_time <= {now_s}"
SWITCHED_OFF = "SELECT instigator_body FROM instigators WHERE instigator_type = 'SCHEDULE' AND status = 'STOPPED'"
MINUTE_SCHEDULE = "every_minute"
# The times after which Dagster continues, in UTC; a clock that is corrected by less costs at most that much.
NEWEST_TICK = "SELECT max(timestamp) FROM job_ticks"
STATES = "SELECT instigator_body FROM instigators"
CORRECTION = timedelta(seconds=60)


def problems(settings: Settings, now: datetime) -> list[str]:
    """Return a sentence for each of the two processes that does not work, else for runs that are not started."""
    found = [_code_server(settings.code_server_socket)]
    try:
        found += [_daemon(settings, now), _future(settings, now)]
        if not any(found) and not _has_live(settings, now - UNREAD, now):
            found.append(damaged(settings) or _runs(settings, now))
    except OSError as error:
        postgres = ", and the PostgreSQL of AISEG2_POSTGRES_URL" if settings.run_history else ""
        unreadable = f"Dagster's run history cannot be read ({error}): start the pipeline{postgres}."
        found.append(damaged(settings) or unreadable)
    return [problem for problem in found if problem]


def is_listening(path: Path) -> bool:
    """Return whether a code server listens there; a killed one leaves a file to which nothing listens."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def damaged(settings: Settings) -> str | None:
    """Return a sentence if one of Dagster's SQLite files is damaged. This reads all of them."""
    for name, reason in ({} if settings.run_history else damage_in(settings.dagster_home)).items():
        return (
            f"Dagster's file {settings.dagster_home / name} is damaged ({reason}), so its runs fail: the pipeline replaces it within a "
            "minute, or when it is started, and no reading is lost."
        )
    return None


def read_lately(settings: Settings, now: datetime) -> bool:
    """Return whether there is a live reading of the last AISEG2_ALERT_AFTER_MINUTES, or the pipeline started since."""
    since = now - timedelta(minutes=settings.alert_after_minutes)
    with contextlib.suppress(OSError):
        # The code server creates its socket when it starts.
        if settings.code_server_socket.stat().st_mtime > since.timestamp():
            return True
    return _has_live(settings, since, now)


def _has_live(settings: Settings, since: datetime, now: datetime) -> bool:
    with contextlib.suppress(sqlite3.Error), Queries(settings.store_path) as queries:
        return queries.has_live(since.timestamp(), now.timestamp())
    return False


def ahead(settings: Settings, now: datetime) -> datetime | None:
    """Return the time after which Dagster's schedules continue, if it lies in the future. Raise OSError."""
    ((newest,),) = _rows(settings, SCHEDULES, NEWEST_TICK)
    times = [datetime.fromisoformat(str(newest)).replace(tzinfo=UTC)] if newest else []
    for (body,) in _rows(settings, SCHEDULES, STATES):
        data = json.loads(body).get("job_specific_data") or {}
        of_state = [value for name, value in data.items() if name.endswith("_timestamp") and value]
        times += [datetime.fromtimestamp(value, UTC) for value in of_state]
    latest = max(times, default=now)
    return latest if latest > now + CORRECTION else None


def _future(settings: Settings, now: datetime) -> str | None:
    if (latest := ahead(settings, now)) is None:
        return None
    return (
        f"Dagster's newest tick lies in the future ({latest.astimezone(TOKYO):%Y-%m-%d %H:%M}), so no minute is read: set this machine's "
        "clock. Where it is right, the pipeline corrects this within a minute, and otherwise at its next start."
    )


def _runs(settings: Settings, now: datetime) -> str | None:
    """Return why no run of a minute is started, if nothing was read lately.

    Runs that are started but cannot read the device are no problem here.
    """
    if read_lately(settings, now):
        return None
    ((newest,),) = _rows(settings, RUNS, NEWEST_RUN.format(now_s=now.timestamp()))
    since = now - timedelta(minutes=settings.alert_after_minutes)
    if newest is not None and datetime.fromtimestamp(newest, UTC) > since:
        return None
    nothing = f"nothing has been read for {settings.alert_after_minutes} minutes or more"
    bodies = [json.loads(body) for (body,) in _rows(settings, SCHEDULES, SWITCHED_OFF)]
    if any(body["origin"]["job_name"] == MINUTE_SCHEDULE for body in bodies):
        return f"The schedule {MINUTE_SCHEDULE} is switched off, so {nothing}: switch it on in Dagster's pages, under Automation."
    return f"Dagster's daemon works but starts no run, so {nothing}: start the pipeline again."


def _code_server(path: Path) -> str | None:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            # Any status but "serving" raises as well: the server registers its service only when it serves.
            HealthStub(channel).Check(HealthCheckRequest(service=CODE_SERVER), timeout=TIMEOUT_S)
        except grpc.RpcError:
            return (
                f"No code server answers at {path}: wait a minute if the pipeline is starting, or start it again."
            )
    return None


def _daemon(settings: Settings, now: datetime) -> str | None:
    rows = _rows(settings, RUNS, HEARTBEAT)
    if not rows:
        return "Dagster's daemon has not sent a heartbeat yet: wait two minutes if the pipeline is starting, or start it."
    silent_s = now.timestamp() - float(json.loads(rows[0][0])["timestamp"])
    if silent_s > SILENT_S:
        return (
            f"Dagster's daemon has been silent for {silent_s:.0f} s and starts no run: start the pipeline again."
        )
    return None


def _rows(settings: Settings, file: str, sql: str) -> list[Any]:
    """Return the rows of Dagster's storage: of this file of its home, or of the PostgreSQL. Raise OSError."""
    return (
        _postgres(settings.run_history, sql)
        if settings.run_history
        else _sqlite(settings.dagster_home / file, sql)
    )


def _sqlite(path: Path, sql: str) -> list[Any]:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error


def _postgres(url: SecretStr, sql: str) -> list[Any]:
    try:
        import psycopg2  # noqa: PLC0415 - the extra `postgres`
    except ImportError:
        raise OSError("the extra `postgres` is not installed") from None
    dsn = url.get_secret_value().replace("+psycopg2", "", 1)
    try:
        with (
            contextlib.closing(psycopg2.connect(dsn, connect_timeout=TIMEOUT_S)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return list(cursor.fetchall())
    except psycopg2.Error as error:
        # The server's message, which does not hold the password.
        raise OSError(" ".join(str(error).split())) from error
