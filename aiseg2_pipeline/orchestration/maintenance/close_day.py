"""The nightly job that closes the day: it materializes ended partitions again, so that all other runs may be deleted.

An ended hour or day that has rows and whose last materialization is of another job is materialized once more. This needs
no state of its own: a night without power, an hour that was filled later, and a deleted Dagster home are corrected the
next night. Only the stores are read, not the device.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime

from dagster import (
    AssetKey,
    DagsterInstance,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    job,
    op,
)

from aiseg2_pipeline.frames.energy import COST
from aiseg2_pipeline.gaps.find import MINUTES_AN_HOUR
from aiseg2_pipeline.japan_time import DAY, hour_key
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.assets.partitioned import log_materialization
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, LOGGED
from aiseg2_pipeline.orchestration.keys import (
    CLIMATE,
    DAILY_REPORT,
    ENERGY_COST,
    ENERGY_HISTORY,
    INFLUXDB_CLIMATE,
    INFLUXDB_ENERGY,
    INFLUXDB_POWER,
    POWER_READINGS,
)
from aiseg2_pipeline.orchestration.maintenance.storage import last_materialized_by
from aiseg2_pipeline.orchestration.partitions import day_from_key, day_key
from aiseg2_pipeline.orchestration.resources import InfluxDB, ReadingsStore
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store

CLOSE_STEP = "carry_the_status"
# A year takes about five minutes; the next night continues with the remaining days.
CLOSE_S = 600.0

# Closing drops a picture from Dagster's storage, where it takes much space; its file stays.
PICTURES_KEPT = 30 * DAY

# The key of an hour begins with the key of its day.
DAY_CHARACTERS = len("2026-07-14")
_ByDay = dict[str, list[tuple[AssetKey, str]]]


def close_job(first: datetime, clock: Callable[[], datetime], *, cost: bool) -> JobDefinition:
    """Return the job; `first` is the first partition, `cost` whether there is the asset `energy_cost`."""

    @op(
        name=CLOSE_STEP,
        out=Out(Nothing),
        description="Materializes ended partitions that have rows, newest day first.",
    )
    def carry_the_status(context: OpExecutionContext, store: ReadingsStore, influxdb: InfluxDB) -> None:
        today = day_from_key(day_key(clock()))
        with (
            failures("The day is not closed"),
            store.open() as readings,
            store.open_energy() as energy,
            store.open_climate() as climate,
        ):
            ended = dict(_ended(readings, energy, climate, influxdb.destination, first, today))
            if cost:
                times = energy.read(day_from_key(day_key(first)), today, [COST])["time"]
                ended[ENERGY_COST] = {day_key(time) for time in times.dt.to_pydatetime()}
            drawn = context.instance.get_materialized_partitions(DAILY_REPORT)
            ended[DAILY_REPORT] = {key for key in drawn if key < day_key(today - PICTURES_KEPT)}
            _close(context, readings, _due(context.instance, ended))
            for opened in (readings, energy, climate):
                opened.check_integrity()
            context.log.info("All files were checked: none is damaged.")

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


def _ended(
    readings: Store,
    energy: EnergyStore,
    climate: ClimateStore,
    destination: Destination | None,
    first: datetime,
    today: datetime,
) -> Iterator[tuple[AssetKey, set[str]]]:
    """Yield each asset's partitions before today that have rows; in InfluxDB, those without pending rows."""
    first_day = day_from_key(day_key(first))
    # Every home has consumption; a day with only a note that the device has no data does not count.
    consumption = energy.read(first_day, today, kinds=["consumption"])["time"]
    for asset, written, store, key, times in (
        (POWER_READINGS, INFLUXDB_POWER, readings, hour_key, readings.hours_with_rows(first, today)),
        (ENERGY_HISTORY, INFLUXDB_ENERGY, energy, day_key, consumption.dt.to_pydatetime()),
        (CLIMATE, INFLUXDB_CLIMATE, climate, day_key, climate.hours_with_rows(first_day, today)),
    ):
        keys = {key(time) for time in times}
        yield asset, keys
        if destination is not None:
            yield written, keys - {key(hour) for hour in store.pending_hours(destination, end=today)}


def _due(instance: DagsterInstance, ended: dict[AssetKey, set[str]]) -> _ByDay:
    """Return, by day, the partitions that no closing run has materialized last."""
    due: _ByDay = defaultdict(list)
    for asset, keys in ended.items():
        for key in sorted(keys - _closed(instance, asset)):
            due[key[:DAY_CHARACTERS]].append((asset, key))
    return due


def _closed(instance: DagsterInstance, asset: AssetKey) -> set[str]:
    """Return the partitions that a closing run materialized last, without those that failed later and are shown as failed."""
    storage = instance.event_log_storage
    failed = storage.get_latest_asset_partition_materialization_attempts_without_materializations(asset)
    return last_materialized_by(instance, asset, CLOSE_STEP) - failed.keys()


def _close(context: OpExecutionContext, readings: Store, due: _ByDay) -> None:
    started = time.monotonic()
    closed = partitions = 0
    for day in sorted(due, reverse=True):
        began = time.monotonic()
        for asset, key, metadata in _with_metadata(readings, day, due[day]):
            log_materialization(context, asset, key, metadata)
        closed, partitions = closed + 1, partitions + len(due[day])
        # Half of the time the database is free for the events of the minute runs.
        time.sleep(time.monotonic() - began)
        if time.monotonic() - started > CLOSE_S:
            break
    left = len(due) - closed
    context.log.info(f"{closed} days closed, {partitions} partitions in all.")
    if left:
        context.log.info(f"The time is up; {left} older days are left for the next night.")
    log_line("close", days=closed, partitions=partitions, days_left=left)


def _with_metadata(
    readings: Store, day: str, partitions: list[tuple[AssetKey, str]]
) -> Iterator[tuple[AssetKey, str, dict[str, int]]]:
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
        yield asset, key, metadata
