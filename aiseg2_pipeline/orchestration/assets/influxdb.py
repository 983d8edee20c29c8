"""The InfluxDB assets, and their op, which delivers a store's rows with retries.

A minute's run delivers the pending rows of its own hour, then those of the other stores, then those of older hours, newest
first, until second 50 of its minute. Any other scheduled run delivers all pending rows of its store. A run that a person
started writes all rows of its partitions again. Batches and refusals belong in `influxdb/delivery`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from dagster import (
    AssetIn,
    AssetKey,
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

from aiseg2_pipeline.gaps.past import Record
from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.influxdb.client import InfluxError, InfluxWriter, Unavailable
from aiseg2_pipeline.influxdb.delivery import LEAST_REQUEST_S, Delivery, deliver, deliver_coverage
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.assets.partitioned import log_materialization
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.keys import INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import HOURS, Period, first_of
from aiseg2_pipeline.orchestration.resources import WRITE_OUT_S, InfluxDB, ReadingsStore
from aiseg2_pipeline.store import Destination, Outbox, Store, incidents
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.tags import MINUTE_TAG, PENDING_TAG

# Older rows go out until this second of the minute, or for some seconds where several readings fill the minute.
OLDER_END_S, OLDER_LEAST_S = 50, 5.0
RECENT = timedelta(days=35)
KEPT = "The rows are kept and go out with a later run."
# Waits of about 0.5, 1.5, 3.5 and 7.5 s; in a minute's write-out the last one ends sooner, see `_retry`.
RETRIES = RetryPolicy(max_retries=4, delay=0.5, backoff=Backoff.EXPONENTIAL, jitter=Jitter.PLUS_MINUS)
# Other background runs wait for this one, and `Retry-After` may be days.
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Rows:
    """The rows that an asset writes: how their store is opened, their points, and their partitions.

    `lines` also gets the store of readings, which has the circuits' names. With a `record`, the coverage of its hours is
    written as well.
    """

    asset: AssetKey
    upstream: AssetKey
    group: str
    description: str
    partitions: TimeWindowPartitionsDefinition
    period: Period
    open: Callable[[ReadingsStore], Outbox]
    lines: Callable[[Store, pd.DataFrame], list[tuple[str, ...]]]
    record: Record | None = None


def influxdb_asset(rows: Rows, clock: Callable[[], datetime], others: Sequence[Rows] = ()) -> AssetsDefinition:
    """Return the asset that writes these rows; `clock` gives the host's time.

    Its minute runs also deliver the pending rows of `others`.
    """
    unit = rows.period.name
    write_out = _write_out_op(rows, clock, others)

    @graph_asset(
        name=rows.asset.to_user_string(),
        ins={"upstream": AssetIn(key=rows.upstream, dagster_type=Nothing)},
        partitions_def=rows.partitions,
        backfill_policy=BackfillPolicy.single_run(),
        group_name=rows.group,
        kinds={"influxdb"},
        description=f"{rows.description} Green: InfluxDB has acknowledged every row that the store holds of that {unit}. "
        f"Materializing {'an' if unit == 'hour' else 'a'} {unit} by hand writes all its rows again.",
    )
    def written(upstream: None) -> Any:
        return write_out(upstream)

    return written


def power_rows(hours: HourlyPartitionsDefinition, record: Record) -> Rows:
    """Return what the asset `influxdb_power` writes."""
    return Rows(
        asset=INFLUXDB_POWER,
        upstream=POWER_READINGS,
        group="power",
        description="The readings in InfluxDB.",
        partitions=hours,
        period=HOURS,
        open=lambda store: store.open(),
        lines=lambda _, table: line_protocol.lines(table),
        record=record,
    )


def _write_out_op(rows: Rows, clock: Callable[[], datetime], others: Sequence[Rows]) -> OpDefinition:
    @op(
        name=f"write_out_{rows.asset.to_user_string()}",
        ins={"upstream": In(Nothing)},
        out=Out(Nothing, is_required=False),
        retry_policy=RETRIES,
        description="Writes pending rows, and stores which ones InfluxDB has acknowledged. Retried while InfluxDB does not answer.",
    )
    def write_out(context: OpExecutionContext, influxdb: InfluxDB, store: ReadingsStore) -> Iterator[Output[None]]:
        destination = influxdb.destination
        assert destination is not None  # noqa: S101 - without an InfluxDB there is no such asset
        deadline = influxdb.minute_deadline() if MINUTE_TAG in context.run.tags else None
        try:
            with (
                failures(),
                rows.open(store) as opened,
                store.open() as readings,
                influxdb.writer() as writer,
            ):
                writing = _Writing(context, store, readings, writer, destination, rows.asset, clock)
                own = _deliver_all(writing, rows, opened, others, deadline)
        except InfluxError as error:
            _note_incident(store, error.delivery, error, clock())
            _retry(error, context, deadline)
            raise Failure(f"{error} {KEPT}", allow_retries=False) from None
        if own.stopped and not own.rows and context.retry_number:
            raise Failure(
                f"InfluxDB did not answer within {WRITE_OUT_S:.0f} s: see that it is running. {KEPT}",
                allow_retries=False,
            )
        writing.report()
        if writing.own_is_settled:
            yield Output(None, metadata=_metadata(writing.done[rows.asset]))

    return write_out


def _deliver_all(
    writing: "_Writing", rows: Rows, store: Outbox, others: Sequence[Rows], deadline: float | None
) -> Delivery:
    """Deliver what the run has to write; return the delivery of its own partitions."""
    context = writing.context
    if deadline is None:
        own = writing.deliver(rows, store, _hours(context, rows, store, writing.destination), None)
        writing.deliver_coverage(rows, None)
        return own
    older_end = _older_end(context, writing.clock())
    own = writing.deliver(rows, store, [rows.period.start(context.partition_key)], deadline)
    writing.deliver_coverage(rows, older_end)
    for other in others:
        try:
            with other.open(writing.stores) as opened:
                writing.deliver(other, opened, None, older_end)
        except StoreError as error:
            context.log.warning(str(error))
    writing.deliver(rows, store, None, older_end)
    return own


@dataclass
class _Writing:
    """The deliveries of a run of `asset`: their sums by asset, and whether the run's only partition is settled."""

    context: OpExecutionContext
    stores: ReadingsStore
    readings: Store
    writer: InfluxWriter
    destination: Destination
    asset: AssetKey
    clock: Callable[[], datetime]
    done: dict[AssetKey, Delivery] = field(default_factory=dict)
    own_is_settled: bool = False

    def deliver(
        self, rows: Rows, store: Outbox, hours: Sequence[datetime] | None, deadline: float | None
    ) -> Delivery:
        """Deliver the pending rows of these hours (None: all), and materialize the partitions that have none left."""
        try:
            delivery = deliver(
                store,
                self.writer,
                self.destination,
                now=self.clock(),
                hours=hours,
                deadline=deadline,
                on_progress=None if deadline else lambda n: self.context.log.info(f"{n} rows settled so far."),
                lines=lambda table: rows.lines(self.readings, table),
            )
        except InfluxError as error:
            if error.delivery:
                self._materialize(rows, store, error.delivery)
            raise
        self._materialize(rows, store, delivery)
        _note_incident(self.stores, delivery, None, self.clock())
        before = self.done.get(rows.asset)
        self.done[rows.asset] = before + delivery if before else delivery
        return delivery

    def deliver_coverage(self, rows: Rows, deadline: float | None) -> None:
        """Deliver the pending coverage of the record's hours."""
        if rows.record is None:
            return
        now = self.clock()
        since = rows.record.known_from(self.readings, now)
        if deadline is not None and now.minute % 10:
            # Most minutes look for changed hours in the last weeks only: each year takes some 10 ms.
            since = max(since, now - RECENT)
        refusal = deliver_coverage(
            self.readings, self.writer, self.destination, now=now, since=since, deadline=deadline
        )
        if refusal:
            self.context.log.warning(refusal)

    def _materialize(self, rows: Rows, store: Outbox, delivery: Delivery) -> None:
        """Materialize partitions; the run's only one is left to the op's output."""
        context = self.context
        own = context.partition_keys[0] if len(context.partition_keys) == 1 else None
        for key in _settled_keys(rows, store, self.destination, delivery):
            if key == own and rows.asset == self.asset:
                self.own_is_settled = True
            else:
                log_materialization(context, rows.asset, key)

    def report(self) -> None:
        """Log what was written of each store, and why a delivery ended early."""
        for asset, delivery in self.done.items():
            if delivery.stopped:
                self.context.log.info(delivery.stopped)
            if delivery.set_aside:
                self.context.log.warning(
                    f"{delivery.set_aside} rows were refused for good and set aside; `aiseg2-pipeline doctor` lists them. {delivery.refusal or ''}".rstrip()
                )
            if asset == self.asset or delivery.requests:
                log_line(
                    "write_out", asset=asset.to_user_string(), **_metadata(delivery), stopped=delivery.stopped
                )


def _older_end(context: OpExecutionContext, now: datetime) -> float:
    """Return the end (time.monotonic) of writing older rows in a minute's run."""
    minute = datetime.fromisoformat(context.run.tags[MINUTE_TAG])
    left_s = (minute - now).total_seconds() + OLDER_END_S
    return time.monotonic() + max(OLDER_LEAST_S, left_s)


def _note_incident(
    store: ReadingsStore, delivery: Delivery | None, error: InfluxError | None, now: datetime
) -> None:
    """Store or clear the incident of InfluxDB: points that it accepted before an error end the earlier one."""
    folder = store.settings.data_dir
    if delivery and delivery.points:
        incidents.clear(folder, incidents.INFLUXDB)
    elif delivery and delivery.refusal and error is None:
        error = InfluxError(delivery.refusal)
    if error is not None:
        incidents.note(folder, incidents.INFLUXDB, error, now)


def _hours(
    context: OpExecutionContext, rows: Rows, store: Outbox, destination: Destination
) -> list[datetime] | None:
    """Return the hours to write; None in a scheduled run, which writes pending rows of all hours.

    In any other run all rows of its partitions become pending again.
    """
    if not {MINUTE_TAG, PENDING_TAG}.isdisjoint(context.run.tags):
        return None
    start = rows.period.start(context.partition_keys[0])
    end = rows.period.start(context.partition_keys[-1]) + rows.period.length
    if context.retry_number == 0:
        store.resend(start, end, destination)
    return store.hours_with_rows(start, end)


def _settled_keys(rows: Rows, store: Outbox, destination: Destination, delivery: Delivery) -> list[str]:
    """Return the partitions of which rows were written and none is left pending."""
    key, start = rows.period.key, rows.period.start
    written = {key(hour) for hour in delivery.hours if hour >= first_of(rows.partitions)}
    # One query for each: all pending hours, of years, take longer than a minute's one or two.
    return sorted(
        one
        for one in written
        if not store.pending_hours(destination, start(one), start(one) + rows.period.length, limit=1)
    )


def _retry(error: InfluxError, context: OpExecutionContext, deadline: float | None) -> None:
    """Raise RetryRequested if a retry can succeed.

    The wait is the server's or the policy's, cut so that a request fits before the deadline, which Dagster does not have.
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


def _metadata(delivery: Delivery) -> dict[str, Any]:
    return {
        "rows": delivery.rows,
        "points": delivery.points,
        "requests": delivery.requests,
        "rows_set_aside": delivery.set_aside,
        "hours_pending": delivery.left_hours,
    }
