"""The schedules that start the jobs: the minute, the energy of each hour and night, the settling, the climate, the nightly work."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

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
from aiseg2_pipeline.japan_time import DAY, HOUR, TOKYO
from aiseg2_pipeline.orchestration.jobs import Job
from aiseg2_pipeline.orchestration.partitions import day_key, hour_key
from aiseg2_pipeline.tags import MINUTE_TAG

NOT_YET = "That was before this pipeline's first partition, so there is nothing to do."


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
