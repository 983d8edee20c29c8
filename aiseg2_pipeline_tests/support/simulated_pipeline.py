"""Dagster's definitions with the simulator as the device; both show the same time."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult
from dagster._core.storage.partition_status_cache import AssetPartitionStatus
from dagster._core.storage.runs.schema import RunsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE
from aiseg2_pipeline.frames.readings import KEY, Row, frame
from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.japan_time import day_start, hour_key
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.maintenance.prune import Pace, Pruned, prune
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline_tests.support.pipeline import DAY, MINUTE, PROJECT, Pipeline
from aiseg2_pipeline_tests.support.simulator_client import JAPAN, Unit, simulated

NOW = datetime(2026, 7, 14, 12, 30, 5, tzinfo=JAPAN).astimezone(UTC)
TODAY = day_start(NOW.astimezone(JAPAN).date())
YESTERDAY = TODAY - DAY
# When the schedule `close_yesterday` ticks.
NIGHT = TODAY + 40 * MINUTE
# An InfluxDB that is in the settings and does not exist.
DESTINATION = Destination("nowhere.invalid:8086", "home", "energy")
DESTINATION_SETTINGS = {
    "INFLUXDB_HOST": DESTINATION.host,
    "INFLUXDB_TOKEN": "token",
    "INFLUXDB_ORG": DESTINATION.org,
    "INFLUXDB_BUCKET": DESTINATION.bucket,
}


class SimulatedPipeline(Pipeline):
    """A pipeline over a simulated device; its first partition is 40 days ago."""

    def __init__(self, environment: dict[str, str], unit: Unit, instance: DagsterInstance) -> None:
        super().__init__(environment, instance)
        self.unit = unit
        self.set_clock(NOW)
        note_first_hour(self.settings.first_partition_path, NOW - 40 * DAY)

    def set_clock(self, now: datetime) -> None:
        super().set_clock(now)
        self.unit.set_clock(now)

    def configure(self, **more: str) -> None:
        """Continue with other settings."""
        self.settings = Settings.from_environment(self.environment | more)
        self.definitions = build_definitions(self.settings, lambda: self.now)

    @contextmanager
    def refused(self) -> Iterator[None]:
        """Use a password that the device refuses."""
        self.configure(AISEG2_PASSWORD="wrong")
        yield
        self.configure()

    def minute(self, now: datetime = NOW, minute: datetime | None = None) -> ExecuteInProcessResult:
        result = super().minute(now, minute)
        assert result.success
        return result

    def energy(self) -> pd.DataFrame:
        with EnergyStore.open(self.settings.energy_path) as store:
            return store.read(NOW - 50 * DAY, NOW + DAY).sort_values(KEY, ignore_index=True)

    def requests(self, path: str | None = None) -> int:
        """Return how many requests the device has had, in all or for a path."""
        counts = self.unit.served.tally.requests
        return counts[path] if path else sum(counts.values())

    def store_rows(self, *hours: datetime) -> None:
        """Store a live minute in each hour, without a run."""
        rows = [
            Row(hour, "total", name, 0.5, "kW", 0)
            for hour in hours
            for name in (TOTAL_CONSUMPTION, TOTAL_EXCHANGE)
        ]
        with Store.open(self.settings.store_path) as store:
            store.upsert(frame(rows))


class DatedPipeline(SimulatedPipeline):
    """A pipeline whose runs are stored with the time of its own clock, not of the machine's."""

    def execute(self, job: str, key: str | None, tags: dict[str, str]) -> ExecuteInProcessResult:
        result = super().execute(job, key, tags)
        self.date(result.run_id, self.now)
        return result

    def date(self, run_id: str, at: datetime) -> None:
        storage = self.instance.run_storage
        assert isinstance(storage, SqlRunStorage)
        with storage.connect() as connection:
            of_run = RunsTable.update().where(RunsTable.c.run_id == run_id)
            connection.execute(of_run.values(create_timestamp=at.replace(tzinfo=None)))

    def close(self, now: datetime = NIGHT) -> ExecuteInProcessResult:
        """Run the job that closes the day."""
        self.set_clock(now)
        result = self.execute("close_the_day", None, {})
        assert result.success
        return result

    def prune_history(self, now: datetime) -> None:
        """Run the job that deletes old runs."""
        self.set_clock(now)
        assert self.execute("prune_history", None, {}).success

    def prune(self, now: datetime, pace: Pace | None = None, log: list[str] | None = None) -> Pruned:
        """Delete old runs, with AISEG2_KEEP_RUNS_DAYS=3 and without pauses."""
        pace = pace or Pace(time.monotonic() + 600, sleep=lambda _: None)
        return prune(self.instance, now, 3, pace, (log if log is not None else []).append)

    def acknowledge(self, *hours: datetime) -> None:
        """Mark all rows of these hours as written to `DESTINATION`."""
        for kind, path in ((Store, self.settings.store_path), (EnergyStore, self.settings.energy_path)):
            with kind.open(path) as store:
                batch = store.pending_rows(DESTINATION, hours, 1000)
                store.acknowledge(DESTINATION, batch, len(batch.frame))

    def runs(self, *jobs: str) -> set[str]:
        return {run.run_id for run in self.instance.get_runs() if not jobs or run.job_name in jobs}

    def green_in_ui(self, asset: AssetKey) -> set[str]:
        """Return the partitions that Dagster's UI shows as materialized, with and without its status cache."""
        partitions = self.definitions.resolve_asset_graph().get(asset).partitions_def
        assert partitions is not None
        keys = self.green(asset)
        shown = []
        for _ in ("cached", "uncached"):
            status = self.instance.get_status_by_partition(asset, sorted(keys), partitions) or {}
            shown.append({key for key in keys if status.get(key) == AssetPartitionStatus.MATERIALIZED})
            self.instance.wipe_asset_cached_status([asset])
        assert shown[0] == shown[1]
        return shown[0]


@contextmanager
def simulated_pipeline(tmp_path: Path, more: dict[str, str], **options: Any) -> Iterator[SimulatedPipeline]:
    """Return a pipeline with these settings; `options` are the simulator's."""
    with simulated(NOW, **options) as unit, DagsterInstance.ephemeral() as instance:
        yield SimulatedPipeline(settings_of(unit, tmp_path / "data") | more, unit, instance)


@contextmanager
def dated_pipeline(tmp_path: Path, **options: Any) -> Iterator[DatedPipeline]:
    """Return a pipeline on the project's own dagster.yaml in a new Dagster home; set DAGSTER_HOME."""
    home = tmp_path / "data" / "dagster"
    if not home.exists():
        home.mkdir(parents=True)
        shutil.copyfile(PROJECT / "dagster.yaml", home / "dagster.yaml")
    with (
        pytest.MonkeyPatch.context() as patch,
        simulated(NOW, **options) as unit,
    ):
        patch.setenv("DAGSTER_HOME", str(home))
        with DagsterInstance.from_config(str(home)) as instance:
            yield DatedPipeline(settings_of(unit, tmp_path / "data"), unit, instance)


def settings_of(unit: Unit, data_dir: Path) -> dict[str, str]:
    """Return the settings of a pipeline that reads this unit."""
    return {
        "AISEG2_HOST": unit.served.address,
        "AISEG2_USER": unit.served.user,
        "AISEG2_PASSWORD": unit.served.password,
        "AISEG2_DATA_DIR": str(data_dir),
    }


def hour_keys(*hours: datetime) -> set[str]:
    return {hour_key(hour) for hour in hours}
