"""The schedules of the jobs: the minute, the energy, the filling of ended hours, the climate, and the maintenance."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import (
    DefaultScheduleStatus,
    JobDefinition,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)

from aiseg2_pipeline.ingest.climate import NO_SENSORS, NOT_VERIFIED, Sensors
from aiseg2_pipeline.japan_time import DAY, HOUR, TOKYO, hour_key
from aiseg2_pipeline.orchestration.jobs import Job
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.tags import MINUTE_TAG

RUNNING: Any = {"execution_timezone": str(TOKYO), "default_status": DefaultScheduleStatus.RUNNING}
YESTERDAY = DAY, day_key


def every_minute(job: Job) -> ScheduleDefinition:
    """Return the schedule that reads every minute."""

    @schedule(
        name="every_minute",
        job=job,
        cron_schedule="* * * * *",
        **RUNNING,
        description="Takes the readings of every minute.",
    )
    def tick(context: ScheduleEvaluationContext) -> RunRequest:
        minute = _tick(context)
        stamp = minute.astimezone(TOKYO).isoformat(timespec="minutes")
        return RunRequest(run_key=stamp, partition_key=hour_key(minute), tags={MINUTE_TAG: stamp})

    return tick


def background_schedules(energy: Job, fill: Job, first: datetime) -> list[ScheduleDefinition]:
    """Return the schedules of energy and filling, from the partition of `first` on.

    They tick some minutes after the hour, which the device needs to complete it. Each requests the partition of a time
    before its tick; the nightly one of energy reads the day's last hour.
    """
    today, last_hour = (HOUR, day_key), (HOUR, hour_key)
    hourly = "Reads today's energy after every hour."
    nightly = "Reads yesterday's energy, circuits included, every night."
    settling = "Fills the missing minutes of the hour that has just ended."
    return [
        partition_schedule("energy_of_the_hour", energy, "5 1-23 * * *", today, hourly, first),
        partition_schedule("energy_of_yesterday", energy, "5 0 * * *", YESTERDAY, nightly, first),
        partition_schedule("settle_the_hour", fill, "8 * * * *", last_hour, settling, first),
    ]


def climate_schedule(job: Job, sensors: Sensors, first: datetime) -> ScheduleDefinition:
    """Return the schedule of the rooms' climate; it skips while `sensors` has found none and is not due."""
    description = (
        f"Reads the rooms' sensors every five minutes; without any, the AiSEG2 is read once a day. {NOT_VERIFIED}"
    )
    return partition_schedule(
        "climate_every_five_minutes",
        job,
        # Between the hour's energy (minute 5) and its filling (minute 8).
        "2-59/5 * * * *",
        (timedelta(), day_key),
        description,
        first,
        lambda planned: None if sensors.due(planned) else NO_SENSORS,
    )


def history_schedules(close: JobDefinition, prune: JobDefinition) -> list[ScheduleDefinition]:
    """Return the schedules of the maintenance: after yesterday's last hour, and between two hours' filling."""
    return [
        ScheduleDefinition(
            name="close_yesterday",
            job=close,
            cron_schedule="40 0 * * *",
            description="Closes yesterday, and older days that are still open.",
            **RUNNING,
        ),
        # Four times a day, so that there are few runs older than the days to keep.
        ScheduleDefinition(
            name="prune_history",
            job=prune,
            cron_schedule="15 1,7,13,19 * * *",
            description="Deletes old runs and returns their space to the disk.",
            **RUNNING,
        ),
    ]


def partition_schedule(
    name: str,
    job: Job,
    cron: str,
    before: tuple[timedelta, Callable[[datetime], str]],
    description: str,
    first: datetime,
    reason_to_skip: Callable[[datetime], str | None] = lambda _: None,
) -> ScheduleDefinition:
    """Return a schedule that requests the partition of a time `before` its tick: how long before, and the key of a time.

    It skips partitions before that of `first`, and while `reason_to_skip` returns a reason for the planned time.
    """
    length, key = before

    @schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        **RUNNING,
        description=description,
    )
    def tick(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        planned = _tick(context)
        if reason := reason_to_skip(planned):
            return SkipReason(reason)
        partition = key(planned - length)
        # Keys sort by time. Dagster logs a request for a partition that does not exist as an error.
        if partition < key(first):
            return SkipReason("That was before this pipeline's first partition, so there is nothing to do.")
        return RunRequest(run_key=planned.astimezone(TOKYO).isoformat(timespec="minutes"), partition_key=partition)

    return tick


def _tick(context: ScheduleEvaluationContext) -> datetime:
    # The planned time, never the time now: the tick at the full hour belongs to the new hour, however late it runs.
    return context.scheduled_execution_time.astimezone(UTC)
