"""The minute job and the schedule that starts it."""

from datetime import UTC

from dagster import (
    AssetSelection,
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    define_asset_job,
    schedule,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from aiseg2_pipeline.orchestration.checks import POWER_READINGS
from aiseg2_pipeline.orchestration.influxdb_power import INFLUXDB_POWER
from aiseg2_pipeline.orchestration.partitions import hour_key
from aiseg2_pipeline.orchestration.write_out import MINUTE_TAG

# Readings to second 50, ten seconds of write-out, and what starting takes. Run monitoring ends a run at this age.
MINUTE_RUNTIME_S = 80


def minute_job() -> UnresolvedAssetJobDefinition:
    """Return the job of one minute: read, keep, write out."""
    return define_asset_job(
        "power_minute",
        selection=AssetSelection.assets(POWER_READINGS, INFLUXDB_POWER).without_checks(),
        tags={"dagster/max_runtime": str(MINUTE_RUNTIME_S)},
        # A logger that no config names is not used: Dagster's own would print every event.
        config={"loggers": {"console": {}}},
        description="Reads the AiSEG2 now, keeps the readings, and writes what is pending to InfluxDB.",
    )


def every_minute(job: UnresolvedAssetJobDefinition) -> ScheduleDefinition:
    """Return the schedule that reads every minute, running from the start."""

    @schedule(
        name="every_minute",
        job=job,
        cron_schedule="* * * * *",
        execution_timezone="Asia/Tokyo",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Takes the readings of every minute.",
    )
    def tick(context: ScheduleEvaluationContext) -> RunRequest:
        # From the tick, never from now: the tick at the full hour belongs to the new hour however late it is.
        minute = context.scheduled_execution_time.astimezone(UTC)
        stamp = minute.isoformat(timespec="minutes")
        return RunRequest(run_key=stamp, partition_key=hour_key(minute), tags={MINUTE_TAG: stamp})

    return tick
