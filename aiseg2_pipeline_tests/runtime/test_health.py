"""The health check, with Dagster's real run storage and its real code server."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster import DagsterInstance
from dagster._core.storage.runs.base import RunStorage
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres.run_storage import PostgresRunStorage

from aiseg2_pipeline.cli import main as cli
from aiseg2_pipeline.runtime import health
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline_tests.support.postgres import address
from aiseg2_pipeline_tests.support.running_pipeline import WITHIN_S

NOW = datetime(2026, 7, 14, 3, 0, tzinfo=UTC)
NO_SERVER = "No code server answers at "
NO_HEARTBEAT = "Dagster's daemon has not sent a heartbeat yet"
SILENT = "Dagster's daemon has been silent for "


def settings_in(folder: Path, **more: str) -> Settings:
    return Settings.from_environment(
        {"AISEG2_DATA_DIR": str(folder), "AISEG2_HOST": "device", "AISEG2_PASSWORD": "p"} | more
    )


def sqlite(settings: Settings) -> RunStorage:
    settings.dagster_home.mkdir()
    return DagsterInstance.local_temp(str(settings.dagster_home)).run_storage


def add_heartbeat(storage: RunStorage, ago_s: float, daemon: str = "SCHEDULER") -> None:
    seen = NOW - timedelta(seconds=ago_s)
    storage.add_daemon_heartbeat(DaemonHeartbeat(seen.timestamp(), daemon, "id", None))


def daemon_problem(settings: Settings) -> str:
    """Return the problem of the daemon, with a code server that does not run."""
    server, *daemon = health.problems(settings, NOW)
    assert server.startswith(f"{NO_SERVER}{settings.code_server_socket}: ")
    return "".join(daemon)


def test_a_serving_code_server_and_a_recent_heartbeat_are_healthy(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    served = tmp_path / "served.py"
    served.write_text("import dagster\ndefs = dagster.Definitions()\n", encoding="utf-8")
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-f", str(served)]
    storage = sqlite(settings)
    add_heartbeat(storage, ago_s=1)
    with subprocess.Popen([*command, "--socket", str(settings.code_server_socket)], cwd=tmp_path) as process:  # noqa: S603 - Dagster's own
        end = datetime.now(UTC) + timedelta(seconds=WITHIN_S)
        try:
            while problems := health.problems(settings, NOW):
                assert datetime.now(UTC) < end, problems
            add_heartbeat(storage, ago_s=3600)
            (problem,) = health.problems(settings, NOW)
        finally:
            # Dagster's server can miss a SIGTERM while it starts.
            process.kill()
    assert problem.startswith(f"{SILENT}3600 s")


@pytest.fixture(params=["sqlite", "postgres"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Settings, RunStorage]]:
    """The settings of a pipeline, and the storage of its run history."""
    if request.param == "sqlite":
        settings = settings_in(tmp_path)
        yield settings, sqlite(settings)
        return
    settings = settings_in(tmp_path, AISEG2_POSTGRES_URL=address(request.getfixturevalue("postgres_port")))
    assert settings.postgres_url
    yield settings, PostgresRunStorage.create_clean_storage(settings.postgres_url.get_secret_value())


def test_the_last_heartbeat_of_the_scheduler_is_read_from_the_run_history(
    history: tuple[Settings, RunStorage],
) -> None:
    settings, storage = history
    assert daemon_problem(settings).startswith(NO_HEARTBEAT)
    add_heartbeat(storage, ago_s=5, daemon="SENSOR")
    assert daemon_problem(settings).startswith(NO_HEARTBEAT)
    add_heartbeat(storage, ago_s=90)
    assert daemon_problem(settings) == ""
    add_heartbeat(storage, ago_s=150)
    assert daemon_problem(settings).startswith(f"{SILENT}150 s")


def test_an_unreachable_postgres_is_reported_without_its_password(tmp_path: Path) -> None:
    url = "postgresql://me:top-secret@127.0.0.1:1/db"
    problem = daemon_problem(settings_in(tmp_path, AISEG2_POSTGRES_URL=url))
    assert problem.startswith("Dagster's run history cannot be read (")
    assert "refused" in problem
    assert "top-secret" not in problem


def test_the_command_fails_where_no_pipeline_runs_and_creates_nothing(tmp_path: Path) -> None:
    environment = {"AISEG2_DATA_DIR": str(tmp_path), "AISEG2_HOST": "device", "AISEG2_PASSWORD": "p"}
    ended = CliRunner().invoke(cli.main, ["health"], env=environment)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"Error: {NO_SERVER}")
    assert "runs.db" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_check_does_not_import_dagster() -> None:
    code = "import sys, aiseg2_pipeline.cli.main, aiseg2_pipeline.runtime.health; print([m for m in ('dagster', 'pandas', 'sqlalchemy') if m in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert ended.stdout == "[]\n"
