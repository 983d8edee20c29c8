"""The asset `influxdb_power`: rows of the store, acknowledged by InfluxDB.

A run of the minute schedule writes what is pending: its own hour, and a bounded share of what older hours still owe.
Any other run writes all rows of its hours again.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from dagster import (
    AssetIn,
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
    graph_asset,
    op,
)

from aiseg2_pipeline.influx import InfluxError, Unavailable
from aiseg2_pipeline.orchestration.logs import log_line
from aiseg2_pipeline.orchestration.partitions import HOUR, hour_from_key, hour_key, hour_of, hours_from_keys
from aiseg2_pipeline.orchestration.power_readings import MINUTE_TAG
from aiseg2_pipeline.orchestration.resources import InfluxDB, ReadingsStore
from aiseg2_pipeline.outbox import LEAST_REQUEST_S, Delivery, deliver
from aiseg2_pipeline.store_file import StoreError

INFLUXDB_POWER = "influxdb_power"
OLDER_ROWS_A_MINUTE = 10_000
KEPT = "The rows are kept and go out with a later run."
# Waits of about 0.5, 1, 2 and 4 s fit the ten seconds of a minute's write-out.
RETRIES = RetryPolicy(max_retries=4, delay=0.5, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)


def influxdb_power_asset(hours: HourlyPartitionsDefinition, *, clock: Callable[[], datetime]) -> AssetsDefinition:
    """Return the asset, partitioned by `hours`."""
    first = hour_from_key(hours.get_first_partition_key() or hour_key(clock()))
    write_out = _write_out(first, clock)

    @graph_asset(
        name=INFLUXDB_POWER,
        ins={"power_readings": AssetIn(dagster_type=Nothing)},
        partitions_def=hours,
        backfill_policy=BackfillPolicy.single_run(),
        group_name="power",
        kinds={"influxdb"},
        description="The readings in InfluxDB. Green: InfluxDB has acknowledged every row that the store holds of that hour. Materializing an "
        "hour by hand writes all its rows again.",
    )
    def influxdb_power(power_readings: None) -> Any:
        return write_out(power_readings)

    return influxdb_power


def _write_out(first: datetime, clock: Callable[[], datetime]) -> OpDefinition:
    @op(
        ins={"power_readings": In(Nothing)},
        out=Out(Nothing, is_required=False),
        retry_policy=RETRIES,
        description="Writes what is pending, and notes what InfluxDB has acknowledged. Tried again while InfluxDB is away.",
    )
    def write_out(context: OpExecutionContext, influxdb: InfluxDB, store: ReadingsStore) -> Iterator[Output[None]]:
        destination = influxdb.destination
        if destination is None:
            context.log.info(
                "No InfluxDB is configured (INFLUXDB_HOST), so nothing was written; the rows are kept."
            )
            return
        asked = hours_from_keys(context.partition_keys)
        of_minute = MINUTE_TAG in context.run.tags
        now = clock()
        try:
            with store.open() as opened, influxdb.writer() as writer:
                if not of_minute and context.retry_number == 0:
                    opened.resend(asked[0], asked[-1] + HOUR, destination)
                delivery = deliver(
                    opened,
                    writer,
                    destination,
                    now=now,
                    running_hour=hour_of(now),
                    hours=None if of_minute else asked,
                    max_older_rows=OLDER_ROWS_A_MINUTE if of_minute else sys.maxsize,
                    deadline=influxdb.minute_deadline() if of_minute else None,
                    on_progress=None
                    if of_minute
                    else lambda rows: context.log.info(f"{rows} rows settled so far."),
                )
        except Unavailable as error:
            _materialize(context, error.delivery, asked, first)
            raise _try_again(error, context, influxdb.minute_deadline() if of_minute else None) from None
        except InfluxError as error:
            _materialize(context, error.delivery, asked, first)
            raise Failure(f"{error} {KEPT}", allow_retries=False) from None
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None
        _report(context, delivery)
        if asked == _materialize(context, delivery, asked, first):
            yield Output(None, metadata=_metadata(delivery))

    return write_out


def _materialize(
    context: OpExecutionContext, delivery: Delivery | None, asked: list[datetime], first: datetime
) -> list[datetime]:
    """Turn the written hours green; return the run's only hour where that is left to the op's output."""
    own = []
    for hour in delivery.hours if delivery else ():
        if [hour] == asked:
            own.append(hour)
        elif hour >= first:
            context.log_event(AssetMaterialization(INFLUXDB_POWER, partition=hour_key(hour)))
    return own


def _try_again(error: Unavailable, context: OpExecutionContext, deadline: float | None) -> Exception:
    """Return what makes Dagster try again, or give up where that would go beyond the minute's ten seconds."""
    left_s = math.inf if deadline is None else deadline - time.monotonic()
    if (
        context.retry_number >= RETRIES.max_retries
        or left_s < LEAST_REQUEST_S
        or (error.retry_after_s or 0) > left_s
    ):
        return Failure(f"{error} {KEPT}", allow_retries=False)
    if error.retry_after_s is not None:
        return RetryRequested(max_retries=RETRIES.max_retries, seconds_to_wait=error.retry_after_s)
    return Failure(f"{error} {KEPT}")


def _report(context: OpExecutionContext, delivery: Delivery) -> None:
    if delivery.stopped:
        context.log.warning(delivery.stopped)
    if delivery.set_aside:
        context.log.warning(
            f"{delivery.set_aside} rows were refused by InfluxDB for good and set aside: `aiseg2-pipeline doctor` lists them with the reason."
        )
    log_line(
        "write_out",
        rows=delivery.rows,
        points=delivery.points,
        requests=delivery.requests,
        set_aside=delivery.set_aside,
        hours_pending=delivery.left_hours,
        stopped=delivery.stopped,
    )


def _metadata(delivery: Delivery) -> dict[str, Any]:
    return {
        "rows": delivery.rows,
        "points": delivery.points,
        "requests": delivery.requests,
        "rows_set_aside": delivery.set_aside,
        "hours_pending": delivery.left_hours,
    }
