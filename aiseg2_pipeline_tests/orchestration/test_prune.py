"""Closing the day and deleting old runs: real runs, on the project's own dagster.yaml and its SQLite files."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    DagsterRunStatus,
    OpExecutionContext,
    job,
    op,
)
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

from aiseg2_pipeline.frames.energy import ENERGY
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, INFLUXDB_ENERGY, INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.maintenance import prune as retention
from aiseg2_pipeline.orchestration.maintenance.prune import Pace
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import prepare_storage
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.store import EnergyStore, FetchAttempt
from aiseg2_pipeline_tests.support.pipeline import DAY, HOUR, MINUTE, PROJECT
from aiseg2_pipeline_tests.support.simulated_pipeline import (
    DESTINATION_SETTINGS,
    NIGHT,
    NOW,
    TODAY,
    YESTERDAY,
    DatedPipeline,
    dated_pipeline,
)
from aiseg2_pipeline_tests.support.simulated_pipeline import hour_keys as keys


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a new storage, which takes a second."""
    home = tmp_path_factory.mktemp("dagster")
    shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        DagsterInstance.from_config(str(home)).dispose()
    assert prepare_storage(home) == []
    return home


@pytest.fixture
def home(new_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "data" / "dagster"
    shutil.copytree(new_home, home)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


@pytest.fixture
def pipeline(home: Path, tmp_path: Path) -> Iterator[DatedPipeline]:  # noqa: ARG001 - creates its folder
    """A pipeline without an InfluxDB."""
    with dated_pipeline(tmp_path, memory_days=10) as pipeline:
        yield pipeline


@pytest.fixture
def writing(pipeline: DatedPipeline) -> DatedPipeline:
    """The same with an InfluxDB in its settings; the test marks the rows that it has acknowledged."""
    pipeline.configure(**DESTINATION_SETTINGS)
    return pipeline


# Closing the day


def test_the_closing_run_materializes_every_ended_hour_with_rows_and_no_other(
    pipeline: DatedPipeline, home: Path
) -> None:
    pipeline.store_rows(YESTERDAY, YESTERDAY + 5 * HOUR, TODAY)
    requests = pipeline.requests()
    run = pipeline.close()
    assert pipeline.green(POWER_READINGS) == keys(YESTERDAY, YESTERDAY + 5 * HOUR)
    assert pipeline.requests() == requests
    records = pipeline.instance.fetch_materializations(POWER_READINGS, limit=9).records
    assert {record.run_id for record in records} == {run.run_id}
    assert pipeline.metadata(POWER_READINGS, hour_key(YESTERDAY)) == {
        "live_minutes": 1,
        "filled_minutes": 0,
        "missing_minutes": 59,
    }
    assert pipeline.green(INFLUXDB_POWER) == pipeline.green(ENERGY_HISTORY) == set()
    assert not (home / "storage").exists()
    # TODAY has ended by then; the hours of YESTERDAY are not materialized again.
    pipeline.close(NIGHT + DAY)
    assert len(pipeline.instance.fetch_materializations(POWER_READINGS, limit=9).records) == 3


def test_an_hour_is_closed_in_influxdb_once_all_its_rows_are_acknowledged(writing: DatedPipeline) -> None:
    hours = (YESTERDAY, YESTERDAY + HOUR)
    writing.store_rows(*hours)
    writing.acknowledge(YESTERDAY)
    writing.close()
    assert writing.green(POWER_READINGS) == keys(*hours)
    assert writing.green(INFLUXDB_POWER) == keys(YESTERDAY)
    writing.acknowledge(YESTERDAY + HOUR)
    writing.close(NIGHT + 6 * DAY)
    assert writing.green(INFLUXDB_POWER) == keys(*hours)


def test_a_day_of_energy_is_closed_where_energy_is_stored(writing: DatedPipeline) -> None:
    rows = [Row(YESTERDAY + n * HOUR, "consumption", "consumption", 500.0, "Wh", 3600) for n in range(2)]
    with EnergyStore.open(writing.settings.energy_path) as energy:
        energy.upsert(frame(rows, ENERGY))
        energy.note_attempts([FetchAttempt(YESTERDAY - DAY, "totals", YESTERDAY)])
    writing.acknowledge(YESTERDAY)
    writing.close()
    assert writing.green(ENERGY_HISTORY) == {day_key(YESTERDAY)}
    assert writing.green(INFLUXDB_ENERGY) == set()
    writing.acknowledge(YESTERDAY + HOUR)
    writing.close()
    assert writing.green(INFLUXDB_ENERGY) == {day_key(YESTERDAY)}


def test_all_hours_are_green_again_after_the_dagster_home_was_deleted(
    pipeline: DatedPipeline, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = [YESTERDAY - n * 7 * HOUR for n in range(40)]
    pipeline.store_rows(*hours)
    pipeline.close()
    for path in home.glob("**/*.db*"):
        path.unlink()
    with DagsterInstance.from_config(str(home)) as instance:
        pipeline.instance = instance
        assert pipeline.green(POWER_READINGS) == set()
        # Too little time for all hours: the newest first, the rest in the next night.
        monkeypatch.setattr("aiseg2_pipeline.orchestration.maintenance.close_day.CLOSE_S", 0.0)
        pipeline.close(NIGHT + DAY)
        newest = hours[0]
        assert hour_key(newest) in pipeline.green(POWER_READINGS)
        assert pipeline.green(POWER_READINGS) < keys(*hours)
        monkeypatch.undo()
        pipeline.close(NIGHT + 2 * DAY)
        assert pipeline.green_in_ui(POWER_READINGS) == keys(*hours)


def test_an_hour_whose_later_run_failed_is_green_again_after_the_next_closing(
    pipeline: DatedPipeline,
) -> None:
    pipeline.store_rows(YESTERDAY)
    pipeline.close()
    with pipeline.refused():
        assert not pipeline.run("power_fill", hour_key(YESTERDAY)).success
    assert pipeline.green_in_ui(POWER_READINGS) == set()
    pipeline.close(NIGHT + DAY)
    assert pipeline.green_in_ui(POWER_READINGS) == keys(YESTERDAY)


# Deleting


def test_hours_stay_green_when_their_runs_are_deleted(pipeline: DatedPipeline) -> None:
    read = [YESTERDAY + 3 * HOUR + n * MINUTE for n in range(2)] + [YESTERDAY + 4 * HOUR]
    for minute in read:
        pipeline.minute(minute)
    with pipeline.refused():
        pipeline.set_clock(YESTERDAY + 5 * HOUR)
        failed = pipeline.run("power_minute", hour_key(YESTERDAY + 5 * HOUR)).run_id
    assert failed in pipeline.runs("power_minute")
    pipeline.close()
    assert len(pipeline.runs("power_minute")) == 4
    pipeline.prune_history(NIGHT + 2 * DAY)
    assert len(pipeline.runs("power_minute")) == 4
    pipeline.prune_history(NIGHT + 4 * DAY)
    assert pipeline.runs("power_minute") == set()
    assert pipeline.green_in_ui(POWER_READINGS) == keys(*read)


def test_the_last_materialization_of_an_hour_is_never_deleted(pipeline: DatedPipeline) -> None:
    for n in range(3):
        pipeline.minute(YESTERDAY + n * MINUTE)
    last = pipeline.instance.get_runs()[0].run_id
    pipeline.prune_history(NOW + 400 * DAY)
    assert pipeline.runs("power_minute") == {last}
    assert pipeline.green_in_ui(POWER_READINGS) == keys(YESTERDAY)
    # The same holds for another partition, and for an asset without partitions.
    ids = [log_event(pipeline, AssetKey("other"), key) for key in ("a", "a", "b", None, None)]
    pipeline.prune_history(NOW + 400 * DAY)
    assert pipeline.runs("one_op_job") == {ids[1], ids[2], ids[4]}


def test_a_run_with_the_last_materialization_of_one_of_its_hours_is_not_deleted(pipeline: DatedPipeline) -> None:
    hours = [YESTERDAY + n * HOUR for n in range(3)]
    pipeline.store_rows(*hours)
    assert pipeline.run("power_fill", hour_key(hours[0]), hour_key(hours[2])).success
    (fill,) = pipeline.runs()
    for hour in hours[:2]:
        log_event(pipeline, POWER_READINGS, hour_key(hour))
    pipeline.prune(NOW + 40 * DAY)
    assert fill in pipeline.runs()


def test_an_hour_filled_after_its_day_was_closed_is_closed_again_and_its_run_is_deleted(
    pipeline: DatedPipeline,
) -> None:
    pipeline.minute(YESTERDAY + HOUR)
    pipeline.close()
    pipeline.set_clock(NOW)
    assert pipeline.run("power_fill", hour_key(YESTERDAY + HOUR)).success
    (fill,) = pipeline.runs("power_fill")
    pipeline.prune_history(NOW + 40 * DAY)
    assert pipeline.runs("power_fill") == {fill}
    pipeline.close(NIGHT + 41 * DAY)
    pipeline.prune_history(NOW + 41 * DAY)
    assert pipeline.runs("power_fill") == set()
    assert pipeline.green_in_ui(POWER_READINGS) == keys(YESTERDAY + HOUR)
    assert pipeline.metadata(POWER_READINGS, hour_key(YESTERDAY + HOUR))["missing_minutes"] == 0


def test_other_runs_are_kept_for_thirty_days_and_unfinished_ones_always(pipeline: DatedPipeline) -> None:
    definition = pipeline.definitions.resolve_job_def("power_fill")
    # A queued run cannot be made without a queue.
    statuses = set(DagsterRunStatus) - {DagsterRunStatus.QUEUED}
    old = {status: pipeline.instance.create_run_for_job(definition, status=status).run_id for status in statuses}
    for run_id in old.values():
        pipeline.date(run_id, NOW - 31 * DAY)
    recent = pipeline.instance.create_run_for_job(definition, status=DagsterRunStatus.FAILURE).run_id
    pipeline.date(recent, NOW - 29 * DAY)
    pipeline.prune(NOW)
    finished = {DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED}
    assert pipeline.runs() == {recent} | {run_id for status, run_id in old.items() if status not in finished}


def test_a_deletion_stops_when_its_time_is_up_and_the_next_one_continues(
    pipeline: DatedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH_RUNS", 2)
    # A run that must be kept is skipped.
    pipeline.minute(YESTERDAY)
    definition = pipeline.definitions.resolve_job_def("power_minute")
    ids = [
        pipeline.instance.create_run_for_job(definition, status=DagsterRunStatus.FAILURE).run_id for _ in range(5)
    ]
    for run_id in ids:
        pipeline.date(run_id, NOW - 9 * DAY)
    log: list[str] = []
    later = NOW + 9 * DAY
    done = pipeline.prune(later, Pace(end=0), log)
    assert (done.runs, done.kept, done.left) == (1, 1, 4)
    assert pipeline.runs() & set(ids) == set(ids[1:])
    assert "4 old runs are left for the next run" in log[-1]
    monkeypatch.setattr(retention, "LOG_EVERY", 2)
    done = pipeline.prune(later, log=log)
    assert (done.runs, done.kept, done.left) == (4, 1, 0)
    assert not pipeline.runs() & set(ids)
    assert any("4 runs deleted, up to those of" in sentence for sentence in log)


def test_an_interrupted_deletion_is_completed_by_the_next_one(pipeline: DatedPipeline) -> None:
    pipeline.minute(YESTERDAY)
    pipeline.close()
    (minute,) = pipeline.runs("power_minute")
    pipeline.instance.event_log_storage.delete_events(minute)
    pipeline.prune(NOW + 9 * DAY)
    assert pipeline.runs("power_minute") == set()


def test_each_pause_is_as_long_as_the_work_before_it() -> None:
    slept: list[float] = []
    pace = Pace(end=time.monotonic() + 60, sleep=slept.append)
    time.sleep(0.05)
    assert not pace.over()
    assert 0.05 <= slept[0] < 10
    assert Pace(end=0, sleep=slept.append).over()


# Other data in the storage


def test_old_evaluations_of_checks_are_deleted_but_the_newest_of_each(pipeline: DatedPipeline) -> None:
    for n in range(3):
        pipeline.minute(YESTERDAY + n * MINUTE)
    names = {"circuits_within_total", "device_clock", "every_circuit_present", "no_rows_from_the_future"}
    names |= {"record_complete"}
    assert rows(pipeline, "event_log.db", AssetCheckExecutionsTable.name) == 3 * len(names)
    before = {name: pipeline.checks()[name] for name in names}
    pipeline.prune(datetime.now(tz=NOW.tzinfo) + timedelta(hours=11))
    assert rows(pipeline, "event_log.db", AssetCheckExecutionsTable.name) == 3 * len(names)
    pipeline.prune(datetime.now(tz=NOW.tzinfo) + 400 * DAY)
    assert rows(pipeline, "event_log.db", AssetCheckExecutionsTable.name) == len(names)
    assert {name: pipeline.checks()[name] for name in names} == before


@pytest.mark.parametrize("of_older_version", [False, True])
def test_the_files_shrink_after_large_runs_were_deleted(
    pipeline: DatedPipeline, home: Path, *, of_older_version: bool
) -> None:
    if of_older_version:
        for path in home.rglob("*.db"):
            with sqlite3.connect(path, isolation_level=None) as connection:
                connection.execute("PRAGMA auto_vacuum = 0")
                connection.execute("VACUUM")
    run_op(pipeline, log_megabytes)
    # What each start does.
    assert prepare_storage(home) == []
    assert size(home) > 3_000_000
    assert pipeline.prune(NOW + 40 * DAY).runs == 1
    assert size(home) < 1_000_000


def test_a_history_that_cannot_be_rewritten_is_reported(home: Path) -> None:
    (home / "event_log.db").write_bytes(b"no database, but longer than the header of one" * 99)
    (problem,) = prepare_storage(home)
    assert "event_log.db will not become smaller" in problem


def test_files_of_dagsters_default_storage_are_deleted(pipeline: DatedPipeline, home: Path) -> None:
    left = home / "history" / "runs"
    left.mkdir(exist_ok=True)
    for name in ("a.db", "a.db-wal", "index.db"):
        (left / name).touch()
    (home / "history" / "runs" / "note").touch()
    assert pipeline.prune(NOW).files == 3
    assert [path.name for path in left.iterdir()] == ["note"]


def test_files_of_the_default_storage_in_use_are_kept(tmp_path: Path, pipeline: DatedPipeline) -> None:
    (tmp_path / "default").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "default")) as instance:
        pipeline.instance = instance
        pipeline.minute(YESTERDAY)
        assert pipeline.prune(NOW).files == 0
        assert pipeline.green(POWER_READINGS) == keys(YESTERDAY)


def run_op(pipeline: DatedPipeline, body: Callable[[OpExecutionContext], None]) -> str:
    """Run a job that has only this op; return the run's id."""

    @op
    def one_op(context: OpExecutionContext) -> None:
        body(context)

    @job
    def one_op_job() -> None:
        one_op()

    run_id = one_op_job.execute_in_process(instance=pipeline.instance).run_id
    pipeline.date(run_id, NOW)
    return run_id


def log_event(pipeline: DatedPipeline, key: AssetKey, partition: str | None) -> str:
    """Run a job that materializes only this; return the run's id."""
    return run_op(pipeline, lambda context: context.log_event(AssetMaterialization(key, partition=partition)))


def log_megabytes(context: OpExecutionContext) -> None:
    for _ in range(100):
        context.log.info("x" * 30_000)


def rows(pipeline: DatedPipeline, file: str, table: str) -> int:
    with sqlite3.connect(Path(pipeline.instance.root_directory) / file) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def size(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("**/*.db*"))
