"""Switch the schedule of the minutes on or off, as Dagster's pages do."""

from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.storage.schedules.base import ScheduleStorage

from aiseg2_pipeline.orchestration.jobs import minute_job
from aiseg2_pipeline.orchestration.schedules import every_minute


def switch_minutes(storage: ScheduleStorage, status: InstigatorStatus) -> None:
    code = GrpcServerCodeLocationOrigin("localhost", socket="/code.sock", location_name="aiseg2-pipeline")
    schedule = every_minute(minute_job(influxdb=True))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "__repository__"), schedule.name)
    data = ScheduleInstigatorData(str(schedule.cron_schedule))
    state = InstigatorState(origin, InstigatorType.SCHEDULE, status, data)
    known = storage.get_instigator_state(origin.get_id(), state.selector_id)
    (storage.update_instigator_state if known else storage.add_instigator_state)(state)
