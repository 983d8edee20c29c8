"""Dagster's definitions on a data directory, run in the test's process at a chosen time.

`device`, `environment`, `alone` and `pipeline` are fixtures; their device answers with fixed pages. A device that
computes its values belongs in `simulated_pipeline`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import (
    AssetKey,
    AssetRecordsFilter,
    DagsterEventType,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    RunRequest,
    ScheduleDefinition,
    TableMetadataValue,
    build_schedule_context,
    build_sensor_context,
)

from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.keys import INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.tags import MINUTE_TAG, PENDING_TAG
from aiseg2_pipeline_tests.support.device import PASSWORD, USER, Device, household, serving
from aiseg2_pipeline_tests.support.device_pages import empty_graph
from aiseg2_pipeline_tests.support.influxdb import Influx

PROJECT = Path(__file__).parents[2]
# The fixed pages' own clock shows 23:15:53 UTC.
NOW = datetime(2026, 7, 13, 23, 15, 20, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
HOME = [("ＬＤ<br />", " 224W"), ("a,b=c \\d🔌", " 80W"), ("ＩＨ<br />", ""), ("ＩＨ<br />", "")]


class Pipeline:
    """The definitions of an environment, with the instance that stores their runs and events."""

    def __init__(
        self, environment: dict[str, str], instance: DagsterInstance | None = None, now: datetime = NOW
    ) -> None:
        self.environment = environment
        self.settings = Settings.from_environment(environment)
        self.instance = instance or DagsterInstance.ephemeral()
        self.now = now

    @cached_property
    def definitions(self) -> Definitions:
        return build_definitions(self.settings, lambda: self.now)

    def set_clock(self, now: datetime) -> None:
        self.now = now

    def run(self, job: str, first: str, last: str | None = None, **tags: str) -> ExecuteInProcessResult:
        """Run a job for a partition key, or for a range of them."""
        if last is not None:
            tags |= partition_range(first, last)
        return self.execute(job, None if last is not None else first, tags)

    def execute(self, job: str, key: str | None, tags: dict[str, str]) -> ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            partition_key=key, tags=tags, instance=self.instance, raise_on_error=False
        )

    def minute(self, now: datetime = NOW, minute: datetime | None = None) -> ExecuteInProcessResult:
        """Run the job of a minute as its schedule does."""
        self.set_clock(now)
        minute = minute or now.replace(second=0)
        return self.run("power_minute", hour_key(minute), **{MINUTE_TAG: minute.isoformat(timespec="minutes")})

    def pending(self, now: datetime = NOW) -> ExecuteInProcessResult:
        """Run the background job that writes pending rows."""
        self.set_clock(now)
        return self.run("power_pending", hour_key(now), **{PENDING_TAG: "1"})

    def by_hand(
        self,
        first: datetime,
        last: datetime | None = None,
        assets: Sequence[AssetKey] = (POWER_READINGS, INFLUXDB_POWER),
    ) -> ExecuteInProcessResult:
        """Materialize one hour, or a range of hours, as a person does in Dagster's UI."""
        job = self.definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(assets))
        return job.execute_in_process(
            partition_key=hour_key(first) if last is None else None,
            tags={} if last is None else partition_range(hour_key(first), hour_key(last)),
            instance=self.instance,
            raise_on_error=False,
        )

    def run_checks(self) -> ExecuteInProcessResult:
        """Run all asset checks as a person does in Dagster's UI."""
        checks = set(self.definitions.resolve_asset_graph().asset_check_keys)
        job = self.definitions.resolve_implicit_global_asset_job_def()
        subset = job.get_subset(asset_selection=set(), asset_check_selection=checks)
        return subset.execute_in_process(instance=self.instance)

    def checks(self) -> dict[str, tuple[bool, str]]:
        """Return of each check that was evaluated whether it passed, and its description."""
        keys = list(self.definitions.resolve_asset_graph().asset_check_keys)
        records = self.instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        evaluations = {}
        for key, record in records.items():
            assert record.event is not None
            evaluation = record.event.asset_check_evaluation
            assert evaluation is not None
            evaluations[key.name] = (evaluation.passed, evaluation.description or "")
        return evaluations

    def heal(self) -> list[RunRequest] | str:
        """Evaluate the sensor `heal_the_record`; return its requests, or the reason why there are none."""
        resources = {name: (self.definitions.resources or {})[name] for name in ("store", "influxdb")}
        context = build_sensor_context(
            instance=self.instance, repository_def=self.definitions.get_repository_def(), resources=resources
        )
        data = self.definitions.resolve_sensor_def("heal_the_record").evaluate_tick(context)
        return list(data.run_requests or []) or data.skip_message or ""

    def healing(self) -> list[RunRequest]:
        """Return the requests of the sensor `heal_the_record`, of which there must be at least one."""
        requests = self.heal()
        assert isinstance(requests, list), requests
        return requests

    def requested_starts(self) -> list[str]:
        """Return the first partition of each range that the sensor requests."""
        return [request.tags["dagster/asset_partition_range_start"] for request in self.healing()]

    def execute_requests(self, *jobs: str) -> None:
        """Execute the runs that the sensor requests, of these jobs or of all, as the daemon does."""
        requests = [request for request in self.healing() if not jobs or request.job_name in jobs]
        assert requests
        for request in requests:
            assert request.job_name is not None
            tags = {**self.definitions.resolve_job_def(request.job_name).tags, **request.tags}
            assert self.execute(request.job_name, request.partition_key, tags).success

    def schedule(self, name: str) -> ScheduleDefinition:
        schedule = self.definitions.resolve_schedule_def(name)
        assert isinstance(schedule, ScheduleDefinition)
        return schedule

    def tick(self, schedule: str, planned: datetime) -> RunRequest | str:
        """Evaluate a schedule; return its request, or the reason why there is none."""
        context = build_schedule_context(
            scheduled_execution_time=planned,
            repository_def=self.definitions.get_repository_def(),
            instance=self.instance,
        )
        data = self.schedule(schedule).evaluate_tick(context)
        (request,) = data.run_requests or (None,)
        return request or data.skip_message or ""

    def green(self, key: AssetKey) -> set[str]:
        return self.instance.get_materialized_partitions(key)

    def metadata(self, key: AssetKey, partition: str | None = None) -> dict[str, Any]:
        """Return the metadata of the last materialization of an asset, or of one of its partitions."""
        wanted = AssetRecordsFilter(asset_key=key, asset_partitions=[partition] if partition else None)
        (record,) = self.instance.fetch_materializations(wanted, limit=1).records
        assert record.asset_materialization is not None
        return {
            name: value.records if isinstance(value, TableMetadataValue) else value.value
            for name, value in record.asset_materialization.metadata.items()
        }

    def log(self, result: ExecuteInProcessResult) -> str:
        return "\n".join(entry.user_message for entry in self.instance.all_logs(result.run_id))

    def rows(self) -> pd.DataFrame:
        with Store.open(self.settings.store_path) as store:
            return store.read(NOW - 60 * DAY, NOW + 60 * DAY).sort_values(KEY, ignore_index=True)


def partition_range(first: str, last: str) -> dict[str, str]:
    """Return the tags of a run over a range of partitions."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


def failure(result: ExecuteInProcessResult) -> str:
    """Return the message that Dagster's UI shows for a failed step."""
    events = [event for event in result.all_events if event.event_type == DagsterEventType.STEP_FAILURE]
    error = events[-1].step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    assert error is not None
    description = events[-1].step_failure_data.user_failure_data
    return (description.description if description else None) or error.message


@contextmanager
def pipeline_in(
    environment: dict[str, str], influx: Influx, instance: DagsterInstance | None = None
) -> Iterator[Pipeline]:
    """Return a pipeline that writes to this bucket of the real server."""
    pipeline = Pipeline(environment | influx.settings, instance)
    with pipeline.instance:
        yield pipeline


@pytest.fixture
def device() -> Iterator[Device]:
    with serving(household(HOME) | empty_graph(date(2026, 7, 14))) as served:
        yield served


@pytest.fixture
def environment(device: Device, tmp_path: Path) -> dict[str, str]:
    return {
        "AISEG2_HOST": device.address.removeprefix("http://"),
        "AISEG2_USER": USER,
        "AISEG2_PASSWORD": PASSWORD,
        "AISEG2_DATA_DIR": str(tmp_path / "data"),
    }


@pytest.fixture
def alone(environment: dict[str, str]) -> Iterator[Pipeline]:
    """A pipeline without an InfluxDB."""
    pipeline = Pipeline(environment)
    with pipeline.instance:
        yield pipeline


@pytest.fixture
def pipeline(environment: dict[str, str], influx: Influx) -> Iterator[Pipeline]:
    """A pipeline that writes to an empty bucket of the real server."""
    with pipeline_in(environment, influx) as writing:
        yield writing
