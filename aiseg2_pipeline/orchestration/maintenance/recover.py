"""The run that brings back what can still be read of a damaged store. How that is done is in `store/recovery`.

The healing sensor starts it where a damaged file is kept that nobody has looked at. Nothing is filled and no energy goes out
before: minutes that are about to come back would be filled, and circuits have names that they did not have then.
"""

from collections.abc import Callable

from dagster import Failure, JobDefinition, Nothing, OpExecutionContext, Out, job, op

from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, LOGGED
from aiseg2_pipeline.orchestration.resources import ReadingsStore
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.damage import unsalvaged
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.store.recovery import salvage


def salvage_job() -> JobDefinition:
    """Return the job."""

    @op(name="bring_back", out=Out(Nothing), description="Copies the rows that can be read into the store.")
    def bring_back(context: OpExecutionContext, store: ReadingsStore) -> None:
        opens: list[Callable[[], Store]] = [store.open, store.open_energy, store.open_climate]
        try:
            for path, open_store in zip(store.paths, opens, strict=True):
                for damaged in unsalvaged(path):
                    with open_store() as opened:
                        told = salvage(damaged, opened, context.log.info)
                    context.log.warning(f"{damaged.path.name}: {told}")
                    log_line("salvage", file=damaged.path.name, told=told)
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None

    @job(
        name="salvage_the_record",
        tags=BACKGROUND,
        config=LOGGED,
        description="Brings the rows that can still be read of a damaged store into the one that has taken its place. Rows that are there stay.",
    )
    def salvage_the_record() -> None:
        bring_back()

    return salvage_the_record
