"""The asset `influxdb_power`, and what all InfluxDB assets are made of: an op that delivers a store's rows with retries.

A scheduled run delivers pending rows: those of its own partition, and a limited number of older ones. Any other run
writes all rows of its partitions again. Batches and refusals belong in `influxdb/delivery`.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from dagster import (
    AssetIn,
    AssetKey,
    AssetMaterialization,
    AssetsDefinition,
    BackfillPolicy,
    Backoff,
    Failure,
    HourlyPartitionsDefinition,
    In,
    Jitter,
    Nothing,
    OpDefinition,
    OpExecutionContext,
    Out,
    Output,
    RetryPolicy,
    RetryRequested,
    TimeWindowPartitionsDefinition,
    graph_asset,
    op,
)

from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.influxdb.client import InfluxError, Unavailable
from aiseg2_pipeline.influxdb.delivery import LEAST_REQUEST_S, Delivery, deliver
from aiseg2_pipeline.japan_time import HOUR, hour_of
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.keys import INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import first_of, hour_from_key, hour_key
from aiseg2_pipeline.orchestration.resources import WRITE_OUT_S, InfluxDB, ReadingsStore
from aiseg2_pipeline.store import Store, incidents
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.tags import MINUTE_TAG, PENDING_TAG

OLDER_ROWS_A_MINUTE = 10_000
KEPT = "The rows are kept and go out with a later run."
# Waits of about 0.5, 1.5, 3.5 and 7.5 s; in a minute's write-out the last one ends sooner, see `_try_again`.
RETRIES = RetryPolicy(max_retries=4, delay=0.5, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)
# A background run that waits holds up healing and salvaging, and a server may ask for days.
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Rows:
    """Which rows an asset writes out: how their store is opened, their points, and the partitions they lie in.

    `lines` gets the store of readings as well, which knows the circuits' names.
    """

    asset: AssetKey
    upstream: AssetKey
    open: Callable[[ReadingsStore], Store]
    lines: Callable[[Store, pd.DataFrame], list[tuple[str, ...]]]
    key: Callable[[datetime], str]
    start: Callable[[str], datetime]
    length: timedelta
    first: datetime


def influxdb_asset(
    rows: Rows,
    partitions: TimeWindowPartitionsDefinition,
    clock: Callable[[], datetime],
    *,
    group: str,
    description: str,
) -> AssetsDefinition:
    """Return the asset that writes these rows out; `clock` gives the host's time."""
    write_out = _write_out_op(rows, clock)

    @graph_asset(
        name=rows.asset.to_user_string(),
        ins={"upstream": AssetIn(key=rows.upstream, dagster_type=Nothing)},
        partitions_def=partitions,
        backfill_policy=BackfillPolicy.single_run(),
        group_name=group,
        kinds={"influxdb"},
        description=description,
    )
    def written(upstream: None) -> Any:
        return write_out(upstream)

    return written


def influxdb_power_asset(hours: HourlyPartitionsDefinition, *, clock: Callable[[], datetime]) -> AssetsDefinition:
    """Return the asset, partitioned by `hours`."""
    rows = Rows(
        asset=INFLUXDB_POWER,
        upstream=POWER_READINGS,
        open=lambda store: store.open(),
        lines=lambda _, table: line_protocol.lines(table),
        key=hour_key,
        start=hour_from_key,
        length=HOUR,
        first=first_of(hours),
    )
    return influxdb_asset(
        rows,
        hours,
        clock,
        group="power",
        description="The readings in InfluxDB. Green: InfluxDB has acknowledged every row that the store holds of that hour. Materializing an "
        "hour by hand writes all its rows again.",
    )


def _write_out_op(rows: Rows, clock: Callable[[], datetime]) -> OpDefinition:
    @op(
        name=f"write_out_{rows.asset.to_user_string()}",
        ins={"upstream": In(Nothing)},
        out=Out(Nothing, is_required=False),
        retry_policy=RETRIES,
        description="Writes what is pending, and notes what InfluxDB has acknowledged. Tried again while InfluxDB is away.",
    )
    def write_out(context: OpExecutionContext, influxdb: InfluxDB, store: ReadingsStore) -> Iterator[Output[None]]:
        if influxdb.destination is None:
            context.log.info(
                "No InfluxDB is configured (INFLUXDB_HOST), so nothing was written; the rows are kept."
            )
            return
        folder = Path(store.path).parent
        deadline = influxdb.minute_deadline() if MINUTE_TAG in context.run.tags else None
        try:
            with rows.open(store) as opened, store.open() as readings:
                delivery = _deliver(context, rows, opened, readings, influxdb, clock(), deadline)
                keys = _settled_keys(rows, opened, influxdb, delivery)
        except InfluxError as error:
            if error.delivery and error.delivery.points:
                # It worked until now.
                incidents.clear(folder, incidents.INFLUXDB)
            incidents.note(folder, incidents.INFLUXDB, error, clock())
            # A store that fails as well has its own sentence in the next run; here InfluxDB's is to be told.
            with contextlib.suppress(StoreError), rows.open(store) as opened:
                _materialize(context, rows, _settled_keys(rows, opened, influxdb, error.delivery))
            _try_again(error, context, deadline)
            raise Failure(f"{error} {KEPT}", allow_retries=False) from None
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None
        if delivery.points:
            incidents.clear(folder, incidents.INFLUXDB)
        elif delivery.refusal:
            incidents.note(folder, incidents.INFLUXDB, InfluxError(delivery.refusal), clock())
        _report(context, rows, delivery)
        if delivery.stopped and not delivery.rows and context.retry_number:
            raise Failure(
                f"InfluxDB did not come back within {WRITE_OUT_S:.0f} s: see that it is running. {KEPT}",
                allow_retries=False,
            )
        if _materialize(context, rows, keys):
            yield Output(None, metadata=_metadata(delivery))

    return write_out


def _deliver(
    context: OpExecutionContext,
    rows: Rows,
    store: Store,
    readings: Store,
    influxdb: InfluxDB,
    now: datetime,
    deadline: float | None,
) -> Delivery:
    destination = influxdb.destination
    if destination is None:
        raise ValueError("there is no destination")
    scheduled = not {MINUTE_TAG, PENDING_TAG}.isdisjoint(context.run.tags)
    hours = None
    if not scheduled:
        start, end = rows.start(context.partition_keys[0]), rows.start(context.partition_keys[-1]) + rows.length
        hours = store.hours_with_rows(start, end)
        if context.retry_number == 0:
            store.resend(start, end, destination)
    with influxdb.writer() as writer:
        return deliver(
            store,
            writer,
            destination,
            now=now,
            running_hour=hour_of(now),
            hours=hours,
            max_older_rows=sys.maxsize if deadline is None else OLDER_ROWS_A_MINUTE,
            deadline=deadline,
            on_progress=None if deadline else lambda done: context.log.info(f"{done} rows settled so far."),
            lines=lambda table: rows.lines(readings, table),
        )


def _settled_keys(rows: Rows, store: Store, influxdb: InfluxDB, delivery: Delivery | None) -> list[str]:
    """Return the partitions of which rows were written and none is left pending."""
    destination = influxdb.destination
    if delivery is None or destination is None:
        return []
    written = {rows.key(hour): rows.start(rows.key(hour)) for hour in delivery.hours if hour >= rows.first}
    # Each is looked at alone: all that is pending, of years, takes longer than a minute's one or two.
    return sorted(
        key
        for key, start in written.items()
        if not store.pending_hours(destination, start, start + rows.length, limit=1)
    )


def _materialize(context: OpExecutionContext, rows: Rows, keys: list[str]) -> bool:
    """Turn partitions green; return whether the run's only one is left to the op's output."""
    own = context.partition_keys[0] if len(context.partition_keys) == 1 else None
    for key in keys:
        if key != own:
            context.log_event(AssetMaterialization(rows.asset, partition=key))
    return own in keys


def _try_again(error: InfluxError, context: OpExecutionContext, deadline: float | None) -> None:
    """Raise what makes Dagster try again, unless that is hopeless.

    The wait is the server's or the policy's, but its end leaves time for a request: Dagster itself knows no deadline.
    """
    if not isinstance(error, Unavailable) or context.retry_number >= RETRIES.max_retries:
        return
    left_s = LONGEST_WAIT_S if deadline is None else deadline - time.monotonic() - LEAST_REQUEST_S
    if left_s <= 0 or (error.retry_after_s or 0) > left_s:
        return
    wait_s = error.retry_after_s
    if wait_s is None:
        wait_s = min(RETRIES.calculate_delay(context.retry_number + 1), left_s)
    raise RetryRequested(RETRIES.max_retries, wait_s) from Failure(f"{error} {KEPT}")


def _report(context: OpExecutionContext, rows: Rows, delivery: Delivery) -> None:
    if delivery.stopped:
        context.log.warning(delivery.stopped)
    if delivery.set_aside:
        context.log.warning(
            f"{delivery.set_aside} rows were refused by InfluxDB for good and set aside: run `aiseg2-pipeline doctor`, which lists them with the reason."
        )
    log_line("write_out", asset=rows.asset.to_user_string(), **_metadata(delivery), stopped=delivery.stopped)


def _metadata(delivery: Delivery) -> dict[str, Any]:
    return {
        "rows": delivery.rows,
        "points": delivery.points,
        "requests": delivery.requests,
        "rows_set_aside": delivery.set_aside,
        "hours_pending": delivery.left_hours,
    }
