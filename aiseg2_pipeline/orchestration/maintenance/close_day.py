"""The nightly run that closes the day: it carries the status of the hours for good, so that all other runs may be deleted.

Whatever hour or day has ended, has rows, and does not have its last materialization from here is materialized once
more. So nothing needs to be remembered: a night when the box was off, an hour that was filled or written out later, and
a Dagster home that was deleted are all made good the next night. The stores are read; the device is not asked.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime

from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterInstance,
    Failure,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    job,
    op,
)

from aiseg2_pipeline.dagster_internals import MissingInternalError
from aiseg2_pipeline.gaps.find import MINUTES_AN_HOUR
from aiseg2_pipeline.japan_time import DAY
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, LOGGED
from aiseg2_pipeline.orchestration.keys import (
    CLIMATE,
    DAILY_REPORT,
    ENERGY_HISTORY,
    INFLUXDB_CLIMATE,
    INFLUXDB_ENERGY,
    INFLUXDB_POWER,
    POWER_READINGS,
)
from aiseg2_pipeline.orchestration.maintenance.storage import last_materialized_by
from aiseg2_pipeline.orchestration.partitions import day_from_key, day_key, hour_key
from aiseg2_pipeline.orchestration.resources import InfluxDB, ReadingsStore
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store
from aiseg2_pipeline.store.database import StoreError

CLOSE_STEP = "carry_the_status"
# A year takes some five minutes; what is left has its turn the next night.
CLOSE_S = 600.0

# A picture is large for a history; its file stays.
PICTURES_KEPT = 30 * DAY

_ByDay = dict[str, list[tuple[AssetKey, str]]]


def close_job(first: datetime, clock: Callable[[], datetime]) -> JobDefinition:
    """Return the job; `first` is the first partition."""

    @op(
        name=CLOSE_STEP,
        out=Out(Nothing),
        description="Materializes what has ended and has rows, newest day first.",
    )
    def carry_the_status(context: OpExecutionContext, store: ReadingsStore, influxdb: InfluxDB) -> None:
        today = day_from_key(day_key(clock()))
        try:
            with store.open() as readings, store.open_energy() as energy, store.open_climate() as climate:
                due = _due(context.instance, readings, energy, climate, influxdb.destination, first, today)
                _close(context, readings, due)
                for store_of_a_kind in (readings, energy, climate):
                    store_of_a_kind.look_over()
                context.log.info("All files were read over: none is damaged.")
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None
        except MissingInternalError as error:
            raise Failure(
                f"The day is not closed, because {error}: install the pipeline's own versions again.",
                allow_retries=False,
            ) from None

    @job(
        name="close_the_day",
        tags=BACKGROUND,
        config=LOGGED,
        description="Closes the day that has ended, and older ones that are still open: its hours stay green when the runs that read them "
        "are deleted. The runs of this job are kept.",
    )
    def close_the_day() -> None:
        carry_the_status()

    return close_the_day


def _due(
    instance: DagsterInstance,
    readings: Store,
    energy: EnergyStore,
    climate: ClimateStore,
    destination: Destination | None,
    first: datetime,
    today: datetime,
) -> _ByDay:
    """Return the partitions before today that are to be materialized here, by day."""
    hours = readings.hours_with_rows(first, today)
    # A day counts by its consumption, which every home has; what is only noted about a day is no energy.
    consumption = energy.read(day_from_key(day_key(first)), today, kinds=["consumption"])["time"]
    days = [day_from_key(key) for key in sorted({day_key(time) for time in consumption.dt.to_pydatetime()})]
    climate_hours = climate.hours_with_rows(day_from_key(day_key(first)), today)
    climate_days = [day_from_key(key) for key in sorted({day_key(hour) for hour in climate_hours})]
    drawn = [day_from_key(key) for key in instance.get_materialized_partitions(DAILY_REPORT)]
    partitions = [
        (POWER_READINGS, hour_key, hours),
        (ENERGY_HISTORY, day_key, days),
        (CLIMATE, day_key, climate_days),
        (DAILY_REPORT, day_key, [day for day in drawn if day < today - PICTURES_KEPT]),
    ]
    if destination is not None:
        owed_hours = set(readings.pending_hours(destination, end=today))
        owed_days = {day_key(hour) for hour in energy.pending_hours(destination, end=today)}
        owed_climate = {day_key(hour) for hour in climate.pending_hours(destination, end=today)}
        partitions += [
            (INFLUXDB_POWER, hour_key, [hour for hour in hours if hour not in owed_hours]),
            (INFLUXDB_ENERGY, day_key, [day for day in days if day_key(day) not in owed_days]),
            (
                INFLUXDB_CLIMATE,
                day_key,
                [day for day in climate_days if day_key(day) not in owed_climate],
            ),
        ]
    due: _ByDay = defaultdict(list)
    for asset, key_of, starts in partitions:
        closed = _closed(instance, asset)
        for start in starts:
            if (key := key_of(start)) not in closed:
                due[day_key(start)].append((asset, key))
    return due


def _closed(instance: DagsterInstance, asset: AssetKey) -> set[str]:
    """Return the partitions that a closing run holds; not those that a later run tried in vain, which Dagster shows as failed."""
    storage = instance.event_log_storage
    tried = storage.get_latest_asset_partition_materialization_attempts_without_materializations(asset)
    return last_materialized_by(instance, asset, CLOSE_STEP) - tried.keys()


def _close(context: OpExecutionContext, readings: Store, due: _ByDay) -> None:
    started = time.monotonic()
    closed = partitions = 0
    for day in sorted(due, reverse=True):
        began = time.monotonic()
        for event in _materializations(readings, day, due[day]):
            context.log_event(event)
        closed, partitions = closed + 1, partitions + len(due[day])
        # Half of the time is left to the live minute's own events.
        time.sleep(time.monotonic() - began)
        if time.monotonic() - started > CLOSE_S:
            break
    left = len(due) - closed
    context.log.info(f"{closed} days closed, {partitions} partitions in all.")
    if left:
        context.log.info(f"The time is up; {left} older days are left for the next night.")
    log_line("close", days=closed, partitions=partitions, days_left=left)


def _materializations(
    readings: Store, day: str, partitions: list[tuple[AssetKey, str]]
) -> Iterator[AssetMaterialization]:
    start = day_from_key(day)
    coverage = {hour_key(hour): minutes for hour, minutes in readings.coverage(start, start + DAY).items()}
    for asset, key in partitions:
        metadata = {}
        if asset == POWER_READINGS:
            live, filled, _ = coverage.get(key, (0, 0, 0))
            metadata = {
                "live_minutes": live,
                "filled_minutes": filled,
                "missing_minutes": MINUTES_AN_HOUR - live - filled,
            }
        yield AssetMaterialization(asset, partition=key, metadata=metadata)
