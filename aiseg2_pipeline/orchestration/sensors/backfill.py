"""The sensor that finds gaps: missing minutes, days whose energy was not read, and rows that stay pending.

It only requests runs of the jobs that fill and write, one background run at a time, so that neither the minute run nor the
device is slowed down.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    JobDefinition,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)

from aiseg2_pipeline.gaps import past, simulated
from aiseg2_pipeline.gaps.find import days_to_ask, fillable, hours_between
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start, hour_key, hour_of
from aiseg2_pipeline.orchestration.checks import LOOK_BACK
from aiseg2_pipeline.orchestration.jobs import LOGGED, Job
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import EVENTS
from aiseg2_pipeline.orchestration.resources import InfluxDB, ReadingsStore
from aiseg2_pipeline.report.saving import installed
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline.store.damage import damaged_files, unrecovered
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.tags import BACKGROUND_TAG

# The schedule `settle_the_hour` fills the newest hour.
SETTLING = timedelta(minutes=20)
# A minute run without a reading writes nothing.
QUIET = timedelta(minutes=2)
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
]
INTERVAL_S = 60
# Dagster stores an event for each partition of a run when it starts: a run over nine years stopped all sensors for minutes.
MOST_HOURS = 31 * 24


@dataclass(frozen=True)
class _Backfill:
    """The jobs that fill and write (`pending` only with an InfluxDB), and the record's beginning."""

    fill: Job
    energy: Job
    pending: Job | None
    record: past.Record

    def requests(
        self, readings: Store, known: EnergyStore, destination: Destination | None, now: datetime
    ) -> Iterator[RunRequest]:
        """Yield a request for each contiguous range of hours, each day, and the pending rows."""
        # The first live reading gives the home's series.
        if readings.live_near(now) is not None:
            start = max(self.record.first, self.record.start(readings, now))
            hours = self._searched(readings, known, start, now) + hours_to_fill(readings, known, start, now)
            for range_start, range_end in contiguous(hours[-MOST_HOURS:]):
                yield _range(self.fill, range_start, range_end, now)
            for day in days_to_renew(known, hours, start, now):
                yield _request(self.energy, day.isoformat(), now, partition_key=day.isoformat())
        if self.pending and must_write(readings, destination, now, self.record):
            yield _request(self.pending, "", now, partition_key=hour_key(now), run_config=LOGGED)

    def _searched(self, readings: Store, energy: EnergyStore, start: datetime, now: datetime) -> list[datetime]:
        """Return the hours since AISEG2_START_DATE that were not searched, in order; store the end of the search."""
        if not past.is_searching(self.record.path, self.record.start_date):
            return []
        recent = hour_of(now - LOOK_BACK)
        hours = past.unsearched(readings, energy, start, recent)
        if not hours and not hours_to_fill(readings, energy, start, now):
            self.record.end_search(readings, now)
        return hours


def healing_sensor(
    fill: Job,
    energy: Job,
    pending: Job | None,
    salvage: JobDefinition,
    close: JobDefinition,
    report: Job,
    record: past.Record,
    clock: Callable[[], datetime],
) -> SensorDefinition:
    """Return the sensor: it checks the last 35 days, and searches the past since AISEG2_START_DATE, newest first.

    It also starts `close`, which materializes the past days again, after Dagster's history was damaged, and with `report`
    when the past of the demo's simulated home was stored.
    """
    backfill = _Backfill(fill, energy, pending, record)

    @sensor(
        name="heal_the_record",
        jobs=[fill, energy, salvage, close, report, *([pending] if pending else [])],
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Finds hours with missing minutes that the AiSEG2 may still have, and fills them; reads the energy of days that were not read; "
        "writes rows that are pending since InfluxDB was away; recovers the rows that can be read of a damaged file, and upgrades a store of an older version; shows past days as green again when Dagster's history was damaged.",
    )
    def heal(
        context: SensorEvaluationContext, store: ReadingsStore, influxdb: InfluxDB
    ) -> Iterator[RunRequest | SkipReason]:
        now = clock()
        if context.instance.get_runs(RunsFilter(statuses=UNFINISHED, tags={BACKGROUND_TAG: "1"}), limit=1):
            yield SkipReason("A background run is still active.")
            return
        try:
            with store.open() as readings, store.open_energy() as known, store.open_climate() as climate:
                old = [one for one in (readings, known, climate) if not one.is_upgraded]
                if names := [one.path.stem for one in (*unrecovered(*store.paths), *old)]:
                    requests = [_request(salvage, ":".join(names), now, run_config=LOGGED)]
                else:
                    requests = list(backfill.requests(readings, known, influxdb.destination, now))
        except (StoreError, OSError) as error:
            yield SkipReason(str(error))
            return
        if _is_new_after_damage(context.instance, close):
            requests.append(_request(close, "", now, run_config=LOGGED))
        elif _is_not_shown(context.instance, close, store.settings.data_dir):
            requests += _all_of_the_past(fill, energy, report, close, record.first, now)
        yield from requests
        if not requests:
            yield SkipReason("Nothing is missing that the AiSEG2 may have.")

    return heal


def _is_new_after_damage(instance: DagsterInstance, close: JobDefinition) -> bool:
    """Return whether a damaged history was replaced, and the new one has no closing run yet."""
    damaged = damaged_files(Path(instance.root_directory) / EVENTS)
    return bool(damaged) and not instance.get_runs_count(RunsFilter(job_name=close.name))


def _is_not_shown(instance: DagsterInstance, close: JobDefinition, data_dir: Path) -> bool:
    """Return whether the past of the simulated home was stored, and no closing run has begun since."""
    stored_at = simulated.stored_at(data_dir)
    return stored_at is not None and not instance.get_runs_count(
        RunsFilter(job_name=close.name, created_after=stored_at)
    )


def _all_of_the_past(
    fill: Job, energy: Job, report: Job, close: JobDefinition, first: datetime, now: datetime
) -> Iterator[RunRequest]:
    """Yield the runs that show stored rows as green: today's day and hours, yesterday's picture, the days before."""
    today, yesterday = (day_of(now - age).isoformat() for age in (timedelta(), DAY))
    yield _request(energy, today, now, partition_key=today)
    yield _request(close, "", now, run_config=LOGGED)
    if first < (begins := day_start(day_of(now))) < (running := hour_of(now)):
        yield _range(fill, begins, running - HOUR, now)
    if installed():
        yield _request(report, yesterday, now, partition_key=yesterday)


def must_write(
    readings: Store, destination: Destination | None, now: datetime, record: past.Record | None = None
) -> bool:
    """Return whether rows, or the coverage of a record's hours, are pending while the device gives no reading: no minute run writes them."""
    last = readings.last_time()
    if destination is None or last is None or now - last <= QUIET:
        return False
    if readings.pending_hours(destination, limit=1):
        return True
    if record is None:
        return False
    start = record.known_from(readings, now)
    return bool(readings.pending_coverage(destination, start, hour_of(now), limit=1).hours)


def hours_to_fill(readings: Store, energy: EnergyStore, start: datetime, now: datetime) -> list[datetime]:
    """Return the hours of the last 35 days to fill, in order; `start` is the record's."""
    hours = hours_between(readings, max(start, hour_of(now - LOOK_BACK)), hour_of(now - SETTLING), now)
    return [hour.start for hour in fillable(readings, energy, hours, now)]


def days_to_renew(energy: EnergyStore, to_fill: Sequence[datetime], start: datetime, now: datetime) -> list[date]:
    """Return the days whose energy is to be read, without those of `to_fill`: filling reads the whole day."""
    filled = {day_of(hour) for hour in to_fill}
    # The nightly schedule reads the day first.
    return [day for day in days_to_ask(energy, max(start, now - LOOK_BACK), now - SETTLING) if day not in filled]


def contiguous(hours: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the first and the last hour of each contiguous range."""
    for _, numbered in groupby(enumerate(hours), lambda item: item[1] - item[0] * HOUR):
        run = [hour for _, hour in numbered]
        yield run[0], run[-1]


def _range(job: Job, first: datetime, last: datetime, now: datetime) -> RunRequest:
    keys = {"start": hour_key(first), "end": hour_key(last)}
    tags = {f"dagster/asset_partition_range_{end}": key for end, key in keys.items()}
    # Dagster does not apply the job's config to a run over a range.
    return _request(job, ":".join(keys.values()), now, tags=tags, run_config=LOGGED)


def _request(job: Job | JobDefinition, what: str, now: datetime, **more: Any) -> RunRequest:
    # At most once an hour for the same range: a failed run is repeated, but not at every evaluation.
    return RunRequest(run_key=f"{job.name}:{what}:{hour_key(now)}", job_name=job.name, **more)
