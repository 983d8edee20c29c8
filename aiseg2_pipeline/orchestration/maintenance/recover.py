"""The job that restores the readable rows of a damaged store, and upgrades the rows of an older one.

`store/recovery` and `store/upgrade` do it. The sensor `heal_the_record` starts it for a damaged file that was not recovered yet. Until then nothing is filled and no
energy is written to InfluxDB: a fill would store minutes that are about to be restored, and circuits may have had other names.
"""

from collections.abc import Callable

from dagster import Failure, JobDefinition, Nothing, OpExecutionContext, Out, job, op

from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, LOGGED
from aiseg2_pipeline.orchestration.resources import ReadingsStore
from aiseg2_pipeline.store import Outbox
from aiseg2_pipeline.store.damage import unrecovered
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.store.recovery import recover


def salvage_job() -> JobDefinition:
    """Return the job."""

    @op(
        name="bring_back",
        out=Out(Nothing),
        description="Copies the readable rows into the store, and upgrades the rows of an older version.",
    )
    def bring_back(context: OpExecutionContext, store: ReadingsStore) -> None:
        opens: list[Callable[[], Outbox]] = [store.open, store.open_energy, store.open_climate]
        try:
            for path, open_store in zip(store.paths, opens, strict=True):
                for damaged in unrecovered(path):
                    with open_store() as opened:
                        result = recover(damaged, opened, context.log.info)
                    context.log.warning(f"{damaged.path.name}: {result}")
                    log_line("salvage", file=damaged.path.name, told=result)
                with open_store() as opened:
                    opened.upgrade()
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None

    @job(
        name="salvage_the_record",
        tags=BACKGROUND,
        config=LOGGED,
        description="Restores the readable rows of a damaged store into the store that replaced it, and upgrades the rows of an older version. "
        "Stored values are not changed.",
    )
    def salvage_the_record() -> None:
        bring_back()

    return salvage_the_record
