"""Schedules and jobs: for which partition a tick is, and which ticks Dagster deletes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, DefaultScheduleStatus, RunRequest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget

from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.past import first_hour, note_first_hour
from aiseg2_pipeline.japan_time import TOKYO, hour_of
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.jobs import MINUTE_RUNTIME_S
from aiseg2_pipeline.runtime.run_coordinator import MinuteFirstRunCoordinator
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.tags import BACKGROUND_TAG, MINUTE_TAG
from aiseg2_pipeline_tests.support.pipeline import DAY, HOUR, MINUTE, NOW, PROJECT, Pipeline

# 2026-07-14 00:00 in Japan.
TODAY = datetime(2026, 7, 13, 15, 0, tzinfo=UTC)


@pytest.fixture
def offline(tmp_path: Path) -> Pipeline:
    """A pipeline whose device is never asked; its first partition is 40 days ago."""
    pipeline = Pipeline(
        {"AISEG2_HOST": "nowhere.invalid", "AISEG2_PASSWORD": "secret", "AISEG2_DATA_DIR": str(tmp_path / "data")}
    )
    note_first_hour(pipeline.settings.first_partition_path, NOW - 40 * DAY)
    return pipeline


@pytest.mark.parametrize(
    ("schedule", "cron", "tick", "key"),
    [
        ("every_minute", "* * * * *", 8 * HOUR, "2026-07-14-08:00"),
        ("every_minute", "* * * * *", 8 * HOUR - MINUTE, "2026-07-14-07:00"),
        ("every_minute", "* * * * *", 0 * HOUR, "2026-07-14-00:00"),
        ("energy_of_the_hour", "5 1-23 * * *", HOUR + 5 * MINUTE, "2026-07-14"),
        ("energy_of_yesterday", "5 0 * * *", 5 * MINUTE, "2026-07-13"),
        ("settle_the_hour", "8 * * * *", 8 * MINUTE, "2026-07-13-23:00"),
        ("settle_the_hour", "8 * * * *", HOUR + 8 * MINUTE, "2026-07-14-00:00"),
        ("climate_every_five_minutes", "2-59/5 * * * *", DAY - 3 * MINUTE, "2026-07-14"),
        ("climate_every_five_minutes", "2-59/5 * * * *", DAY + 2 * MINUTE, "2026-07-15"),
        ("close_yesterday", "40 0 * * *", 40 * MINUTE, None),
        ("prune_history", "15 1,7,13,19 * * *", HOUR + 15 * MINUTE, None),
    ],
)
def test_a_tick_requests_the_partition_of_its_planned_time_in_japan(
    offline: Pipeline, schedule: str, cron: str, tick: timedelta, key: str | None
) -> None:
    found = offline.schedule(schedule)
    assert found.cron_schedule == cron
    assert found.default_status == DefaultScheduleStatus.RUNNING
    assert found.execution_timezone == "Asia/Tokyo"
    request = offline.tick(schedule, TODAY + tick)
    assert isinstance(request, RunRequest)
    assert request.partition_key == key
    if schedule == "every_minute":
        assert request.tags[MINUTE_TAG] == (TODAY + tick).astimezone(TOKYO).isoformat(timespec="minutes")


@pytest.mark.parametrize("schedule", ["settle_the_hour", "energy_of_yesterday", "report_of_yesterday"])
def test_a_tick_before_the_first_partition_is_skipped(tmp_path: Path, schedule: str) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: it is the extra `report`")
    pipeline = Pipeline({"AISEG2_DATA_DIR": str(tmp_path)}, now=TODAY + MINUTE)
    assert "before this pipeline's first partition" in str(pipeline.tick(schedule, TODAY + 8 * MINUTE))


def test_jobs_run_in_the_background_but_for_the_minute_and_the_climate_which_end_in_time(
    offline: Pipeline,
) -> None:
    # `get_all_jobs` also fails on a name that is taken twice.
    jobs = {job.name: job.tags for job in offline.definitions.get_repository_def().get_all_jobs()}
    foreground = {name for name, tags in jobs.items() if BACKGROUND_TAG not in tags and not name.startswith("__")}
    assert foreground == {"power_minute", "climate_rooms"}
    assert int(jobs["power_minute"]["dagster/max_runtime"]) == MINUTE_RUNTIME_S
    assert int(jobs["climate_rooms"]["dagster/max_runtime"]) < 5 * 60


def test_the_first_partition_does_not_move_but_for_a_clock_that_was_ahead(tmp_path: Path) -> None:
    path, hour = tmp_path / "data" / "first_partition", NOW.replace(minute=0, second=0)
    for now, first in ((NOW, hour), (NOW + 400 * DAY, hour), (NOW - 3 * HOUR, hour - 3 * HOUR)):
        note_first_hour(path, now)
        assert first_hour(path, now) == first
    assert first_hour(path, NOW + DAY) == hour - 3 * HOUR


@pytest.mark.parametrize("lost", ["", None], ids=["empty", "missing"])
def test_a_first_partition_that_was_lost_is_that_of_the_oldest_row(tmp_path: Path, lost: str | None) -> None:
    settings = Settings(AISEG2_DATA_DIR=tmp_path, AISEG2_HOST="device", AISEG2_PASSWORD="p")
    with Store.open(settings.store_path) as store:
        store.upsert(frame([Row(NOW - days * DAY, "total", "売買電力", 1.0, "kW", 0) for days in (3, 2)]))
    if lost is not None:
        settings.first_partition_path.write_text(lost, encoding="ascii")
    build_definitions(settings, lambda: NOW)
    assert first_hour(settings.first_partition_path, NOW) == hour_of(NOW) - 3 * DAY


def test_dagster_accepts_the_instance_and_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("AISEG2_CODE_SERVER", str(tmp_path / "code.sock"))
    written = (PROJECT / "dagster.yaml").read_text(encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text(written, encoding="utf-8")
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().run_queue_config is not None
        assert isinstance(instance.run_coordinator, MinuteFirstRunCoordinator)
        # Dagster's daemon deletes older ticks itself; without this setting it keeps those of schedules for ever.
        for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
            assert set(instance.get_tick_retention_settings(kind).values()) == {7}
    assert yaml.safe_load(written)["run_monitoring"] == {"enabled": True, "poll_interval_seconds": 10}
    (origin,) = WorkspaceFileTarget([str(PROJECT / "workspace.yaml")]).create_origins()
    assert isinstance(origin, GrpcServerCodeLocationOrigin)
    assert origin.socket == str(tmp_path / "code.sock")
