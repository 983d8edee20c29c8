"""Whether the pipeline's own processes work, asked without Dagster: its import would cost more than a minute's run.

Healthy: the code server answers, and the daemon, which starts every minute's run, showed itself within the last two
minutes. Whether the device and InfluxDB answer is not asked here, because no restart of ours would help them: the
checks in Dagster's pages, the alerts and `doctor` tell that.
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

ANSWERS_WITHIN_S = 5
# The daemon shows itself every 30 s; later than that where the machine is busy.
SILENT_S = 120
# What Dagster's code server calls itself, and where its daemon notes when the part that starts the minutes last worked.
CODE_SERVER = "DagsterApi"
HEARTBEAT = "SELECT body FROM daemon_heartbeats WHERE daemon_type = 'SCHEDULER'"


def problems(settings: Settings, now: datetime) -> list[str]:
    """Return a sentence for each of the two that does not work; none when both do."""
    return [*_code_server(settings.code_server_socket), *_daemon(settings, now)]


def _code_server(path: Path) -> list[str]:
    with grpc.insecure_channel(f"unix:{path}") as channel:
        try:
            # An answer other than "serving" comes as an error, too: the server knows its service only once it serves.
            HealthStub(channel).Check(HealthCheckRequest(service=CODE_SERVER), timeout=ANSWERS_WITHIN_S)
        except grpc.RpcError:
            return [
                f"No code server answers at {path}: wait a minute if the pipeline is starting, or start it again."
            ]
    return []


def _daemon(settings: Settings, now: datetime) -> list[str]:
    try:
        body = _postgres(settings.run_history) if settings.run_history else _sqlite(settings.dagster_home)
    except OSError as error:
        return [
            f"Dagster's run history cannot be read ({error}): start the pipeline, and its PostgreSQL where AISEG2_POSTGRES_URL is set."
        ]
    if body is None:
        return [
            "Dagster's daemon has not shown itself yet: wait two minutes if the pipeline is starting, or start it."
        ]
    silent_s = now.timestamp() - float(json.loads(body)["timestamp"])
    if silent_s > SILENT_S:
        return [
            f"Dagster's daemon has been silent for {silent_s:.0f} s and starts no minute: start the pipeline again."
        ]
    return []


def _sqlite(home: Path) -> str | None:
    path = home / "history" / "runs.db"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return _body(connection.execute(HEARTBEAT).fetchone())
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from error


def _postgres(url: SecretStr) -> str | None:
    try:
        import psycopg2  # noqa: PLC0415 - the extra `postgres`
    except ImportError:
        raise OSError("the extra `postgres` is not installed") from None
    try:
        with (
            contextlib.closing(
                psycopg2.connect(
                    url.get_secret_value().replace("+psycopg2", "", 1), connect_timeout=ANSWERS_WITHIN_S
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(HEARTBEAT)
            return _body(cursor.fetchone())
    except psycopg2.Error as error:
        # The server's own words, which do not hold the password.
        raise OSError(" ".join(str(error).split())) from error


def _body(row: tuple[str] | None) -> str | None:
    return row[0] if row else None
