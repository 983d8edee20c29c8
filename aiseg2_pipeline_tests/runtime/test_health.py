"""What Docker's health check says, of Dagster's real run storage and of its real code server."""

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

NOW = datetime(2026, 7, 14, 3, 0, tzinfo=UTC)
NO_SERVER = "No code server answers at "
SERVES = "import dagster\ndefs = dagster.Definitions()\n"


def settings_of(folder: Path, **given: str) -> Settings:
    return Settings.from_environment(
        {"AISEG2_DATA_DIR": str(folder), "AISEG2_HOST": "unit", "AISEG2_PASSWORD": "p"} | given
    )


def sqlite(settings: Settings) -> RunStorage:
    settings.dagster_home.mkdir()
    return DagsterInstance.local_temp(str(settings.dagster_home)).run_storage


def note(storage: RunStorage, ago_s: float, kind: str = "SCHEDULER") -> None:
    """Note a sign of life as Dagster's daemon does."""
    seen = NOW - timedelta(seconds=ago_s)
    storage.add_daemon_heartbeat(DaemonHeartbeat(seen.timestamp(), kind, "id", None))


def daemon_problems(settings: Settings) -> list[str]:
    return [problem for problem in health.problems(settings, NOW) if not problem.startswith(NO_SERVER)]


@pytest.fixture
def code_server(tmp_path: Path) -> Iterator[Settings]:
    settings = settings_of(tmp_path)
    served = tmp_path / "served.py"
    served.write_text(SERVES, encoding="utf-8")
    command = [sys.executable, "-m", "dagster", "api", "grpc", "-f", str(served)]
    with subprocess.Popen([*command, "--socket", str(settings.code_server_socket)], cwd=tmp_path) as process:  # noqa: S603 - Dagster's own
        yield settings
        # Dagster's server can miss a signal to end that comes while it starts.
        process.kill()


def test_where_no_pipeline_runs_both_are_told(tmp_path: Path) -> None:
    server, daemon = health.problems(settings_of(tmp_path), NOW)
    assert server.startswith(f"{NO_SERVER}{tmp_path / 'code.sock'}: ")
    assert "runs.db" in daemon
    assert not (tmp_path / "dagster").exists()


def test_a_code_server_that_serves_and_a_daemon_that_works_are_healthy(code_server: Settings) -> None:
    storage = sqlite(code_server)
    note(storage, ago_s=1)
    end = datetime.now(UTC) + timedelta(seconds=60)
    while problems := health.problems(code_server, NOW):
        assert datetime.now(UTC) < end, problems
    note(storage, ago_s=3600)
    (daemon,) = health.problems(code_server, NOW)
    assert daemon.startswith("Dagster's daemon has been silent for 3600 s")


@pytest.fixture(params=["sqlite", "postgres"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Settings, RunStorage]]:
    """Give the settings of a pipeline, and the storage of its run history."""
    if request.param == "sqlite":
        settings = settings_of(tmp_path)
        yield settings, sqlite(settings)
        return
    url = address(request.getfixturevalue("postgres_port"))
    settings = settings_of(tmp_path, AISEG2_POSTGRES_URL=url)
    assert settings.postgres_url
    yield settings, PostgresRunStorage.create_clean_storage(settings.postgres_url.get_secret_value())


def test_the_daemon_is_asked_for_by_the_history_it_writes(history: tuple[Settings, RunStorage]) -> None:
    settings, storage = history
    assert daemon_problems(settings) == [
        "Dagster's daemon has not shown itself yet: wait two minutes if the pipeline is starting, or start it."
    ]
    note(storage, ago_s=5, kind="SENSOR")
    assert len(daemon_problems(settings)) == 1
    note(storage, ago_s=90)
    assert daemon_problems(settings) == []
    note(storage, ago_s=150)
    (silent,) = daemon_problems(settings)
    assert silent.startswith("Dagster's daemon has been silent for 150 s")


def test_a_postgres_that_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, AISEG2_POSTGRES_URL="postgresql://me:top-secret@127.0.0.1:1/db")
    (told,) = daemon_problems(settings)
    assert told.startswith("Dagster's run history cannot be read (")
    assert "refused" in told
    assert "top-secret" not in told


def test_the_command_fails_with_one_sentence_each(tmp_path: Path) -> None:
    ended = CliRunner().invoke(
        cli.main, ["health"], env={"AISEG2_DATA_DIR": str(tmp_path), "AISEG2_HOST": "unit", "AISEG2_PASSWORD": "p"}
    )
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"Error: {NO_SERVER}")
    assert ended.stderr.count("\n") == 1


def test_it_asks_without_importing_dagster() -> None:
    code = "import sys, aiseg2_pipeline.cli.main, aiseg2_pipeline.runtime.health; print([m for m in ('dagster', 'pandas', 'sqlalchemy') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - our own code
    assert told.stdout == "[]\n"
