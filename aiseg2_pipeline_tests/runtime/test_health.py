"""The health check, with Dagster's real run storage and its real code server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.storage.runs.base import RunStorage
from dagster._core.storage.schedules.base import ScheduleStorage
from dagster._core.utils import make_new_run_id
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from grpc_health.v1 import health as grpc_health
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from aiseg2_pipeline.aiseg2.errors import Unreachable
from aiseg2_pipeline.cli import doctor
from aiseg2_pipeline.cli import main as cli
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.orchestration.jobs import MINUTE_JOB
from aiseg2_pipeline.runtime import health
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store, incidents
from aiseg2_pipeline_tests.support.postgres import address
from aiseg2_pipeline_tests.support.running_pipeline import WITHIN_S
from aiseg2_pipeline_tests.support.switches import switch_minutes

HOUR_S = 3600
NOW = datetime(2026, 7, 14, 3, 0, tzinfo=UTC)
NO_SERVER = "No code server answers at "
NO_HEARTBEAT = "Dagster's daemon has not sent a heartbeat yet"
SILENT = "Dagster's daemon has been silent for "
SWITCHED_OFF = "The schedule every_minute is switched off, so nothing has been read for 10 minutes or more"
STARTS_NO_RUN = "Dagster's daemon works but starts no run, so nothing has been read for 10 minutes or more"


def settings_in(folder: Path, **more: str) -> Settings:
    return Settings.from_environment(
        {"AISEG2_DATA_DIR": str(folder), "AISEG2_HOST": "device", "AISEG2_PASSWORD": "p"} | more
    )


# The run history, and the switches of the schedules.
Storages = tuple[RunStorage, ScheduleStorage]


def sqlite(settings: Settings) -> Storages:
    settings.dagster_home.mkdir()
    instance = DagsterInstance.local_temp(str(settings.dagster_home))
    assert instance.schedule_storage
    return instance.run_storage, instance.schedule_storage


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
    storage, _ = sqlite(settings)
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
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Settings, Storages]]:
    """The settings of a pipeline, and its Dagster's storages."""
    if request.param == "sqlite":
        settings = settings_in(tmp_path)
        yield settings, sqlite(settings)
        return
    settings = settings_in(tmp_path, AISEG2_POSTGRES_URL=address(request.getfixturevalue("postgres_port")))
    assert settings.postgres_url
    url = settings.postgres_url.get_secret_value()
    yield (
        settings,
        (PostgresRunStorage.create_clean_storage(url), PostgresScheduleStorage.create_clean_storage(url)),
    )


def test_the_last_heartbeat_of_the_scheduler_is_read_from_the_run_history(
    history: tuple[Settings, Storages],
) -> None:
    settings, (storage, _) = history
    assert daemon_problem(settings).startswith(NO_HEARTBEAT)
    add_heartbeat(storage, ago_s=5, daemon="SENSOR")
    assert daemon_problem(settings).startswith(NO_HEARTBEAT)
    add_heartbeat(storage, ago_s=90)
    assert daemon_problem(settings) == ""
    add_heartbeat(storage, ago_s=150)
    assert daemon_problem(settings).startswith(f"{SILENT}150 s")


@pytest.fixture
def running(history: tuple[Settings, Storages]) -> Iterator[tuple[Settings, Storages]]:
    """A pipeline whose code server has answered for an hour, and whose daemon works."""
    settings, storages = history
    answers = grpc_health.HealthServicer()
    answers.set(health.CODE_SERVER, HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    add_HealthServicer_to_server(answers, server)
    server.add_insecure_port(f"unix:{settings.code_server_socket}")
    server.start()
    set_age(settings.code_server_socket, HOUR_S)
    add_heartbeat(storages[0], ago_s=1)
    yield settings, storages
    server.stop(None).wait()


def set_age(path: Path, age_s: float) -> None:
    os.utime(path, times=(NOW.timestamp() - age_s,) * 2)


def add_reading(settings: Settings, ago_s: float, interval_s: int = 0) -> None:
    time = NOW - timedelta(seconds=ago_s)
    with Store.open(settings.store_path) as store:
        store.upsert(frame([Row(time, "total", "売買電力", 1.0, "kW", interval_s)]))


def add_run(storage: RunStorage, started_ago_s: float | None) -> None:
    run = storage.add_run(DagsterRun(job_name=MINUTE_JOB, run_id=make_new_run_id()))
    if started_ago_s is not None:
        event = DagsterEvent(DagsterEventType.RUN_START.value, MINUTE_JOB)
        storage.handle_run_event(run.run_id, event, NOW - timedelta(seconds=started_ago_s))


def test_where_no_run_is_started_for_ten_minutes_the_reason_is_a_problem(
    running: tuple[Settings, Storages],
) -> None:
    settings, (runs, schedules) = running

    def problem() -> str:
        return " ".join(health.problems(settings, NOW))

    assert problem().startswith(STARTS_NO_RUN)
    # A pipeline that has just been started.
    set_age(settings.code_server_socket, 540)
    assert problem() == ""
    set_age(settings.code_server_socket, HOUR_S)
    add_reading(settings, ago_s=660)
    add_reading(settings, ago_s=60, interval_s=3600)
    add_run(runs, started_ago_s=660)
    add_run(runs, started_ago_s=None)
    assert problem().startswith(STARTS_NO_RUN)
    switch_minutes(schedules, InstigatorStatus.STOPPED)
    assert problem().startswith(SWITCHED_OFF)
    switch_minutes(schedules, InstigatorStatus.RUNNING)
    assert problem().startswith(STARTS_NO_RUN)
    add_reading(settings, ago_s=540)
    assert problem() == ""


def test_a_device_that_is_silent_fails_doctor_and_not_health(
    running: tuple[Settings, Storages], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, (runs, _) = running
    add_reading(settings, ago_s=660)
    add_run(runs, started_ago_s=60)
    incidents.note(settings.data_dir, incidents.DEVICE, Unreachable("The AiSEG2 does not answer."), NOW)
    assert health.problems(settings, NOW) == []
    monkeypatch.setattr(doctor, "load_settings", lambda: settings)
    monkeypatch.setattr(doctor, "READING_TIMEOUT_S", 0.1)
    lines: list[str] = []
    assert not doctor.examine(lambda: NOW, lines.append)
    readings = "readings: none for 10 minutes or more, though runs are started: The AiSEG2 does not answer."
    assert [click.unstyle(line) for line in lines if "readings: " in line] == [f"FAIL {readings}"]
    assert "ok   pipeline: the code server answers, and the daemon works" in map(click.unstyle, lines)


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
