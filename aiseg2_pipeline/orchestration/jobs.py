"""The jobs, and the schedules that start them: the minute, the energy of each hour and night, the settling, the climate.

What the two jobs of the night do to Dagster's own history is in `closing` and `retention`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import (
    AssetKey,
    AssetSelection,
    DefaultScheduleStatus,
    JobDefinition,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    define_asset_job,
    schedule,
)

from aiseg2_pipeline.dagster_internals import AssetJob
from aiseg2_pipeline.ingest.climate import NO_SENSORS, NOT_VERIFIED, Sensors
from aiseg2_pipeline.japan_time import DAY, HOUR, TOKYO
from aiseg2_pipeline.orchestration.keys import (
    CLIMATE,
    ENERGY_HISTORY,
    INFLUXDB_CLIMATE,
    INFLUXDB_ENERGY,
    INFLUXDB_POWER,
    POWER_READINGS,
)
from aiseg2_pipeline.orchestration.partitions import day_key, hour_key
from aiseg2_pipeline.tags import BACKGROUND_TAG, MINUTE_TAG, PENDING_TAG

# Readings to second 50, ten seconds of write-out, and what starting takes. Run monitoring ends a run at this age.
MINUTE_RUNTIME_S = 80
# Two runs of the climate never go at once.
CLIMATE_RUNTIME_S = 240
BACKGROUND = {BACKGROUND_TAG: "1"}

# A logger that no config names is not used: Dagster's own would print every event.
LOGGED: dict[str, Any] = {"loggers": {"console": {}}}

NOT_YET = "That was before this pipeline's first partition, so there is nothing to do."

MINUTE_JOB, ENERGY_JOB, CLIMATE_JOB = "power_minute", "energy_day", "climate_rooms"

Job = AssetJob


def minute_job() -> Job:
    """Return the job of one minute: read, keep, write out."""
    return _job(
        MINUTE_JOB,
        [POWER_READINGS, INFLUXDB_POWER],
        "Reads the AiSEG2 now, keeps the readings, and writes what is pending to InfluxDB.",
        {"dagster/max_runtime": str(MINUTE_RUNTIME_S)},
    )


def fill_job() -> Job:
    """Return the job that fills ended hours; what it stores is pending and goes out with the minute runs."""
    description = "Fills the missing minutes of hours that have ended from what the AiSEG2 remembers."
    return _job("power_fill", [POWER_READINGS], description, BACKGROUND)


def pending_job() -> Job:
    """Return the job that writes what is pending of older hours."""
    description = "Writes to InfluxDB what many hours still owe it."
    return _job("power_pending", [INFLUXDB_POWER], description, BACKGROUND | {PENDING_TAG: "1"})


def energy_job() -> Job:
    """Return the job of a day's energy: ask, keep, write out."""
    description = (
        "Asks the AiSEG2 for the energy of a day, keeps it, and writes what is pending of it to InfluxDB."
    )
    assets = [ENERGY_HISTORY, INFLUXDB_ENERGY]
    return _job(ENERGY_JOB, assets, description, BACKGROUND | {PENDING_TAG: "1"})


def climate_job() -> Job:
    """Return the job of the rooms' climate: read, keep, write out."""
    description = (
        "Reads the temperature and humidity of the rooms, keeps them, and writes what is pending of them to "
        f"InfluxDB. {NOT_VERIFIED}"
    )
    # No background work, which waits for its turn: what the sensors tell is of now.
    tags = {PENDING_TAG: "1", "dagster/max_runtime": str(CLIMATE_RUNTIME_S)}
    return _job(CLIMATE_JOB, [CLIMATE, INFLUXDB_CLIMATE], description, tags)


def _job(name: str, assets: list[AssetKey], description: str, tags: dict[str, str]) -> Job:
    return define_asset_job(
        name,
        selection=AssetSelection.assets(*assets).without_checks(),
        tags=tags,
        config=LOGGED,
        description=description,
    )


def every_minute(job: Job) -> ScheduleDefinition:
    """Return the schedule that reads every minute, running from the start."""

    @schedule(
        name="every_minute",
        job=job,
        cron_schedule="* * * * *",
        execution_timezone=str(TOKYO),
        default_status=DefaultScheduleStatus.RUNNING,
        description="Takes the readings of every minute.",
    )
    def tick(context: ScheduleEvaluationContext) -> RunRequest:
        minute = _tick(context)
        stamp = minute.isoformat(timespec="minutes")
        return RunRequest(run_key=stamp, partition_key=hour_key(minute), tags={MINUTE_TAG: stamp})

    return tick


def background_schedules(energy: Job, fill: Job, first: datetime) -> list[ScheduleDefinition]:
    """Return the schedules beside the minute, from the partition of `first` on.

    The device needs some minutes to finish an hour.
    """
    energy_hour = _partition_of(
        "energy_of_the_hour",
        energy,
        "5 1-23 * * *",
        HOUR,
        day_key,
        "Renews today's energy after every hour.",
        first,
    )
    # The day's last hour comes with its night.
    energy_night = _partition_of(
        "energy_of_yesterday",
        energy,
        "5 0 * * *",
        DAY,
        day_key,
        "Asks for yesterday's energy, circuits included, every night.",
        first,
    )
    settle = _partition_of(
        "settle_the_hour",
        fill,
        "8 * * * *",
        HOUR,
        hour_key,
        "Fills what is missing of the hour that has just ended.",
        first,
    )
    return [energy_hour, energy_night, settle]


def climate_schedule(job: Job, sensors: Sensors) -> ScheduleDefinition:
    """Return the schedule of the rooms' climate; it starts nothing while `sensors` knows that there are none."""

    @schedule(
        name="climate_every_five_minutes",
        job=job,
        # Between the hour's energy (minute 5) and its settling (minute 8).
        cron_schedule="2-59/5 * * * *",
        execution_timezone=str(TOKYO),
        default_status=DefaultScheduleStatus.RUNNING,
        description=f"Reads the rooms' sensors every five minutes; a home without any is asked once a day. {NOT_VERIFIED}",
    )
    def tick(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        planned = _tick(context)
        if not sensors.due(planned):
            return SkipReason(NO_SENSORS)
        return RunRequest(run_key=planned.isoformat(timespec="minutes"), partition_key=day_key(planned))

    return tick


def history_schedules(close: JobDefinition, prune: JobDefinition) -> list[ScheduleDefinition]:
    """Return the schedules of Dagster's own history: after yesterday's energy and last hour, and between two hours' settling."""
    return [
        _nightly("close_yesterday", close, "40 0 * * *", "Closes yesterday, and what is still open before it."),
        # Four times, so that little more than the days to be kept is there at any time.
        _nightly("prune_history", prune, "15 1,7,13,19 * * *", "Deletes old runs and gives their room back."),
    ]


def _nightly(name: str, job: JobDefinition, cron: str, description: str) -> ScheduleDefinition:
    return ScheduleDefinition(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=str(TOKYO),
        default_status=DefaultScheduleStatus.RUNNING,
        description=description,
    )


def _partition_of(
    name: str,
    job: Job,
    cron: str,
    before: timedelta,
    key: Callable[[datetime], str],
    description: str,
    first: datetime,
) -> ScheduleDefinition:
    @schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=str(TOKYO),
        default_status=DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def tick(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        planned = _tick(context)
        partition = key(planned - before)
        # Keys sort by time. Dagster logs a request for a partition that does not exist as an error.
        if partition < key(first):
            return SkipReason(NOT_YET)
        return RunRequest(run_key=planned.isoformat(timespec="minutes"), partition_key=partition)

    return tick


def _tick(context: ScheduleEvaluationContext) -> datetime:
    # From the tick, never from now: the tick at the full hour belongs to the new hour however late it is.
    return context.scheduled_execution_time.astimezone(UTC)
