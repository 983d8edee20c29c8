"""Dagster's home before anything starts, on SQLite and on a real PostgreSQL."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from dagster import DagsterInstance, Definitions, asset, in_process_executor
from dagster._core.scheduler.instigation import InstigatorStatus

from aiseg2_pipeline.orchestration.maintenance.prune import Pace, prune
from aiseg2_pipeline.runtime import health
from aiseg2_pipeline.runtime.dagster_home import DagsterHomeError, make
from aiseg2_pipeline.settings import Settings, environment
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline_tests.support.damage import zero_table
from aiseg2_pipeline_tests.support.postgres import PASSWORD, address
from aiseg2_pipeline_tests.support.switches import switch_minutes

PROJECT = Path(__file__).parents[2]
DEVICE = {"AISEG2_HOST": "device", "AISEG2_PASSWORD": "p"}


def prepare_home(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> Path:
    """Prepare the home and set the environment that the services have; return the home."""
    settings = Settings.from_environment(DEVICE | {"AISEG2_DATA_DIR": str(folder)} | more)
    monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    if settings.run_history:
        monkeypatch.setenv("AISEG2_POSTGRES_URL", settings.run_history.get_secret_value())
    problems: list[str] = []
    make(settings, PROJECT, environment(folder), problems.append)
    assert problems == []
    return settings.dagster_home


@asset
def something() -> None:
    """An asset whose run leaves a history."""


def run_once(instance: DagsterInstance) -> str:
    job = Definitions(assets=[something], executor=in_process_executor).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance).run_id


def test_the_demo_uses_sqlite_files_that_can_shrink_and_a_second_start_keeps_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens at this address: only the demo does not use it.
    demo = {"AISEG2_HOST": "", "AISEG2_POSTGRES_URL": address(1)}
    home = prepare_home(tmp_path, monkeypatch, **demo)
    assert "POSTGRES" not in (home / "dagster.yaml").read_text(encoding="utf-8")
    files = sorted(path.relative_to(home).as_posix() for path in home.rglob("*.db"))
    assert files == ["event_log.db", "history/runs.db", "schedules/schedules.db"]
    for name in files:
        with closing(sqlite3.connect(home / name)) as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    with DagsterInstance.get() as instance:
        run_id = run_once(instance)
    prepare_home(tmp_path, monkeypatch, **demo)
    with DagsterInstance.get() as instance:
        assert [run.run_id for run in instance.get_runs()] == [run_id]


def test_with_postgres_the_history_is_stored_and_pruned_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_port: int
) -> None:
    home = prepare_home(tmp_path, monkeypatch, AISEG2_POSTGRES_URL=address(postgres_port))
    with DagsterInstance.get() as instance:
        run_ids = [run_once(instance), run_once(instance)]
        assert list(home.rglob("*.db")) == []
        later = datetime.now(UTC) + timedelta(days=100)
        pace = Pace(end=float("inf"), sleep=lambda _: None)
        pruned = prune(instance, later, 3, pace, lambda _: None)
        # The server is shared with other tests, whose runs may be pruned as well.
        assert (pruned.kept, pruned.left) == (1, 0)
        assert [run.run_id for run in instance.get_runs()] == run_ids[1:]
        events = instance.fetch_materializations(something.key, limit=10).records
        assert [event.run_id for event in events] == run_ids[1:]
    assert PASSWORD not in "".join(path.read_text(encoding="utf-8") for path in home.rglob("*.yaml"))


@pytest.mark.parametrize(
    ("password", "options", "reason"),
    [("another-secret", "", "password authentication failed"), (PASSWORD, "?colour=red", "colour")],
)
def test_an_unusable_postgres_is_reported_with_its_setting_and_without_its_password(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_port: int,
    password: str,
    options: str,
    reason: str,
) -> None:
    url = address(postgres_port, password) + options
    with pytest.raises(DagsterHomeError, match=f"AISEG2_POSTGRES_URL cannot be used .*{reason}") as raised:
        prepare_home(tmp_path, monkeypatch, AISEG2_POSTGRES_URL=url)
    for secret in (password, quote(password, safe="")):
        assert secret not in str(raised.value)
        assert secret not in repr(raised.value.__context__)


@pytest.mark.parametrize("damaged", ["schedules/schedules.db", "history/runs.db", "event_log.db"])
def test_a_damaged_file_of_dagsters_is_kept_with_a_note_and_switches_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    home = prepare_home(tmp_path, monkeypatch)
    with DagsterInstance.get() as instance:
        run_once(instance)
        assert instance.schedule_storage
        switch_minutes(instance.schedule_storage, InstigatorStatus.STOPPED)
        states = instance.all_instigator_state()
    zero_table(home / damaged, {"event_log.db": "event_logs", "history/runs.db": "runs"}.get(damaged, "job_ticks"))
    settings = Settings.from_environment(DEVICE | {"AISEG2_DATA_DIR": str(tmp_path)})
    found = health.damaged(settings)
    assert found
    assert str(home / damaged) in found
    said: list[str] = []
    make(settings, PROJECT, environment(tmp_path), said.append)
    assert [damaged in line for line in said] == [True]
    (kept,) = damaged_files(home / damaged)
    assert kept.reason.startswith(f"{damaged}: ")
    assert health.damaged(settings) is None
    with DagsterInstance.get() as instance:
        assert instance.all_instigator_state() == states
        # The events belong to the runs.
        assert instance.get_runs_count() == (1 if "schedules" in damaged else 0)
        run_once(instance)
