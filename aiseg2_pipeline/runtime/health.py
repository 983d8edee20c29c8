"""Check that the pipeline's own processes work, without importing Dagster, which costs more than a minute's run.

Healthy means: the code server answers, and the daemon, which starts every minute's run, has stored a heartbeat within
the last two minutes. The device and InfluxDB are not checked here, because restarting the pipeline does not repair
them: the checks in Dagster's pages, the alerts and `doctor` report them.
"""

import contextlib
import json
import sqlite3
from datetime import datetime
from pathlib import Path

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from pydantic import SecretStr

from aiseg2_pipeline.settings import Settings

TIMEOUT_S = 5
# The daemon stores a heartbeat every 30 s; later than that on a busy machine.
SILENT_S = 120
# The service name of Dagster's code server, and the last heartbeat of the daemon's part that starts the minutes.
CODE_SERVER = "DagsterApi"
HEARTBEAT = "SELECT body FROM daemon_heartbeats WHERE daemon_type = 'SCHEDULER'"


def problems(settings: Settings, now: datetime) -> list[str]:
    """Return a sentence for each of the two processes that does not work."""
    found = (_code_server(settings.code_server_socket), _daemon(settings, now))
    return [problem for problem in found if problem]


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
    try:
        row = _postgres(settings.run_history) if settings.run_history else _sqlite(settings.dagster_home)
    except OSError as error:
        return f"Dagster's run history cannot be read ({error}): start the pipeline, and its PostgreSQL where AISEG2_POSTGRES_URL is set."
    if row is None:
        return "Dagster's daemon has not sent a heartbeat yet: wait two minutes if the pipeline is starting, or start it."
    silent_s = now.timestamp() - float(json.loads(row[0])["timestamp"])
    if silent_s > SILENT_S:
        return (
            f"Dagster's daemon has been silent for {silent_s:.0f} s and starts no run: start the pipeline again."
        )
    return None


def _sqlite(home: Path) -> tuple[str] | None:
    path = home / "history" / "runs.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row: tuple[str] | None = connection.execute(HEARTBEAT).fetchone()
            return row
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error


def _postgres(url: SecretStr) -> tuple[str] | None:
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
            cursor.execute(HEARTBEAT)
            row: tuple[str] | None = cursor.fetchone()
            return row
    except psycopg2.Error as error:
        # The server's message, which does not hold the password.
        raise OSError(" ".join(str(error).split())) from error
