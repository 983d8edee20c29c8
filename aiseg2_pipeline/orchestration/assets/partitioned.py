"""The skeleton of the assets that read the device or the store: partitions, and how one is materialized."""

from collections.abc import Callable, Iterator
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    AssetsDefinition,
    BackfillPolicy,
    OpExecutionContext,
    Output,
    TimeWindowPartitionsDefinition,
    asset,
)


def partitioned_asset(
    key: AssetKey, partitions: TimeWindowPartitionsDefinition, **more: Any
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Return Dagster's `asset` decorator for an asset with partitions.

    One run covers a whole range. A partition without rows has no output and so is not materialized.
    """
    decorator: Callable[[Callable[..., Any]], AssetsDefinition] = asset(
        key=key,
        partitions_def=partitions,
        backfill_policy=BackfillPolicy.single_run(),
        output_required=False,
        **more,
    )
    return decorator


def materialize(
    context: AssetExecutionContext, partition: str, metadata: dict[str, Any], output: Any = None
) -> Iterator[Output[Any]]:
    """Materialize a partition: with the asset's output if it is the run's only one, else with an event."""
    if len(context.partition_keys) == 1:
        # Metadata of the output would be stored twice.
        context.add_asset_metadata(metadata)
        yield Output(output)
    else:
        log_materialization(context, context.asset_key, partition, metadata)


def log_materialization(
    context: AssetExecutionContext | OpExecutionContext,
    key: AssetKey,
    partition: str,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Materialize one of many partitions with an event, which is stored at once, and release its memory."""
    context.log_event(AssetMaterialization(key, partition=partition, metadata=metadata))
    # Dagster would keep the events of a step until it ends: 60 kB for each day of a fill.
    for _ in context.consume_events():
        pass
