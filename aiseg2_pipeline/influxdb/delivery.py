"""Sends a destination's pending rows from the store to InfluxDB, and acknowledges them in the store.

It chooses the rows of each request, and handles rejected ones. One request, its timeouts and its errors belong in
`client`; which rows are pending, in `store`. The caller retries: each answer is stored at once, so the next run
continues where this one stopped.
"""

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from aiseg2_pipeline.influxdb.client import BeyondRetention, InfluxError, InfluxWriter, Rejected, TooLarge
from aiseg2_pipeline.influxdb.line_protocol import coverage_lines
from aiseg2_pipeline.influxdb.line_protocol import lines as power_lines
from aiseg2_pipeline.japan_time import HOUR, hour_of
from aiseg2_pipeline.store import Destination, Outbox, PendingBatch, Store
from aiseg2_pipeline.store.coverage import CoverageBatch

MAX_SPLIT_REQUESTS = 200
# No request starts with less time left: its timeout would not mean that the server is down.
LEAST_REQUEST_S = 0.5
# A waiting delivery tries the lock this often. One without a deadline releases it for longer after each request, or the
# minute's rows would wait for seconds.
LOCK_POLL_S, GIVE_WAY_S = 0.02, 0.1
# A bucket's retention is found out anew after that time, so that rows go out if it was raised.
RETENTION_VALID = timedelta(days=1)
COVERAGE_A_REQUEST = 1_000


@dataclass(frozen=True)
class Delivery:
    """Sum up a delivery: rows and points acknowledged by the server, rows set aside, requests made.

    `hours` had rows written and have none pending now; `left_hours` counts the hours with pending rows, of those asked for;
    `stopped` says why the delivery ended early, None if it did not; `refusal` is the newest error of the rows set aside,
    None if all of them were beyond the bucket's retention, which is expected.
    """

    rows: int
    points: int
    hours: tuple[datetime, ...]
    set_aside: int
    requests: int
    left_hours: int
    stopped: str | None
    refusal: str | None = None

    def __add__(self, later: "Delivery") -> "Delivery":
        """Return the sums of this delivery and a later one of the same store, which was asked for all hours."""
        return Delivery(
            self.rows + later.rows,
            self.points + later.points,
            tuple(sorted({*self.hours, *later.hours})),
            self.set_aside + later.set_aside,
            self.requests + later.requests,
            later.left_hours,
            self.stopped or later.stopped,
            later.refusal or self.refusal,
        )


def deliver(  # noqa: PLR0913 - the limits of a run are the caller's
    store: Outbox,
    writer: InfluxWriter,
    destination: Destination,
    *,
    now: datetime,
    hours: Sequence[datetime] | None = None,
    deadline: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    batch_rows: int = 5_000,
    on_progress: Callable[[int], None] | None = None,
    lines: Callable[[pd.DataFrame], list[tuple[str, ...]]] = power_lines,
) -> Delivery:
    """Send the pending rows of `hours` (UTC starts; None: all), newest hours first.

    After `deadline`, a time of `clock`, no request or wait starts. `on_progress` gets the number of rows settled so far
    after each batch. A file lock allows one request at a time to a destination, across processes; without a deadline, a
    delivery gives way to others after each one.

    `lines` converts the store's rows to points. Rows that the server rejects for good are set aside with its reason; rows
    that are older than the bucket's retention stay in the store without being pending.
    Raises StoreError, and Unavailable and Misconfigured with the Delivery so far in `delivery`; acknowledged rows stay so.
    """
    known = store.retention(destination)
    if known is not None and now - known.at >= RETENTION_VALID:
        store.note_retention(destination, None, now)
    run = _Run(store, writer, destination, now, deadline, clock, lines, hours)
    stopped = None
    try:
        newest_first = run.pending()[::-1]
        if not newest_first:
            # Most deliveries have nothing to send. A second search for pending hours takes some 10 ms for each year.
            return Delivery(0, 0, (), 0, 0, 0, None)
        # The newest hour alone, so that its rows do not wait for others; then requests of at most one UTC day, as
        # InfluxDB's shards are.
        for _, group in itertools.groupby(newest_first, key=lambda hour: (hour != newest_first[0], hour.date())):
            run.settle(list(group), batch_rows, on_progress)
    except Timeout:
        stopped = (
            f"Another run is writing to the bucket {destination.bucket}; the next run sends the pending rows."
        )
    except _StoppedError as reason:
        stopped = str(reason)
    except InfluxError as error:
        error.delivery = run.delivery(str(error))
        raise
    return run.delivery(stopped)


def deliver_coverage(
    store: Store,
    writer: InfluxWriter,
    destination: Destination,
    *,
    now: datetime,
    since: datetime,
    deadline: float | None = None,
) -> str | None:
    """Send the pending coverage of the ended hours since `since`, newest first; return why points were refused, if any were.

    The limits are those of `deliver`, as are the errors raised, without a Delivery.
    """
    run = _Run(store, writer, destination, now, deadline, time.monotonic, power_lines, None)
    with contextlib.suppress(Timeout, _StoppedError):
        sent = True
        while sent:
            with delivery_lock(store, destination, run.patience_s()):
                start = max(since, store.kept_from(destination, now) or since)
                batch = store.pending_coverage(destination, start, hour_of(now), COVERAGE_A_REQUEST)
                if sent := bool(batch.hours):
                    run.send_coverage(store, batch)
    return run.refusal


def delivery_lock(store: Outbox, destination: Destination, patience_s: float) -> FileLock:
    """Return the lock that excludes all deliveries to a destination; entering it may raise filelock.Timeout.

    `patience_s` of -1 waits without end.
    """
    name = hashlib.sha256(repr(destination).encode()).hexdigest()[:12]
    path = store.path.with_name(f"outbox-{name}.lock")
    return FileLock(path, timeout=patience_s, mode=0o600, poll_interval=LOCK_POLL_S)


class _StoppedError(Exception):
    """Report why a delivery ends early."""


class _RetentionFoundError(Exception):
    """Report that rows of this batch are older than the bucket's retention, which is known now."""


@dataclass
class _Run:
    """One delivery: its limits and its progress."""

    store: Outbox
    writer: InfluxWriter
    destination: Destination
    now: datetime
    deadline: float | None
    clock: Callable[[], float]
    lines: Callable[[pd.DataFrame], list[tuple[str, ...]]]
    hours: Sequence[datetime] | None
    rows: int = 0
    points: int = 0
    set_aside: int = 0
    requests: int = 0
    split_requests: int = 0
    refusal: str | None = None
    retention_asked: bool = False
    written_hours: set[int] = field(default_factory=set)

    def pending(self) -> list[datetime]:
        """Return the hours with pending rows, of those asked for, oldest first."""
        if self.hours is None:
            return self.store.pending_hours(self.destination)
        wanted = set(self.hours)
        span = (min(wanted), max(wanted) + HOUR) if wanted else (None, None)
        return [hour for hour in self.store.pending_hours(self.destination, *span) if hour in wanted]

    def delivery(self, stopped: str | None) -> Delivery:
        """Return the delivery's sums."""
        pending = set(self.pending())
        written = (datetime.fromtimestamp(hour, UTC) for hour in sorted(self.written_hours))
        hours = tuple(hour for hour in written if hour not in pending)
        return Delivery(
            self.rows, self.points, hours, self.set_aside, self.requests, len(pending), stopped, self.refusal
        )

    def patience_s(self) -> float:
        """Return the seconds left as FileLock's timeout: -1 without a deadline."""
        return -1 if self.deadline is None else max(0.0, self.deadline - self.clock())

    def settle(
        self, hours: Sequence[datetime], batch_rows: int, on_progress: Callable[[int], None] | None
    ) -> None:
        """Write or set aside the pending rows of these hours, without those that the bucket does not keep."""
        while kept := self._kept(hours):
            with delivery_lock(self.store, self.destination, self.patience_s()):
                batch = self.store.pending_rows(self.destination, kept, batch_rows)
                if batch.frame.empty:
                    return
                with contextlib.suppress(_RetentionFoundError):
                    self._send(batch, self.lines(batch.frame), 0, len(batch.frame))
            if on_progress is not None:
                on_progress(self.rows + self.set_aside)
            if self.deadline is None:
                time.sleep(GIVE_WAY_S)

    def _kept(self, hours: Sequence[datetime]) -> Sequence[datetime]:
        """Return the hours that the bucket keeps."""
        kept_from = self.store.kept_from(self.destination, self.now)
        return hours if kept_from is None else [hour for hour in hours if hour >= kept_from]

    def _find_retention(self, refusal: BeyondRetention) -> None:
        """Store the bucket's retention, which the refusal names or else the server is asked for, once a delivery."""
        duration = refusal.duration
        if duration is None and not self.retention_asked:
            self.retention_asked = True
            duration = self.writer.retention()
        if duration is not None:
            self.store.note_retention(self.destination, duration, self.now)

    def _send(
        self, batch: PendingBatch, points: list[tuple[str, ...]], start: int, stop: int, *, split: bool = False
    ) -> None:
        """Send rows [start, stop) as one request; if it is refused, as several, in order.

        The settled rows are therefore always the batch's first ones, and are acknowledged at once.
        """
        try:
            self._request(points[start:stop], split=split)
        except (Rejected, TooLarge) as refusal:
            if isinstance(refusal, BeyondRetention):
                self._find_retention(refusal)
                hours = [datetime.fromtimestamp(hour, UTC) for hour in np.unique(batch.hours[start:stop]).tolist()]
                if self._kept(hours) != hours:
                    raise _RetentionFoundError from None
            if cuts := _cuts(batch, start, stop, refusal):
                for part_start, part_stop in itertools.pairwise([start, *cuts, stop]):
                    self._send(batch, points, part_start, part_stop, split=True)
                return
            reason = refusal.reason if isinstance(refusal, Rejected) else str(refusal)
            self.store.set_aside(self.destination, batch, start, stop, reason, self.now)
            self.set_aside += stop - start
            if not isinstance(refusal, BeyondRetention):
                self.refusal = str(refusal)
        else:
            self.rows += stop - start
            self.points += sum(len(row) for row in points[start:stop])
            sent = zip(batch.hours[start:stop].tolist(), points[start:stop], strict=True)
            self.written_hours.update(hour for hour, row in sent if row)
        self.store.acknowledge(self.destination, batch, stop)

    def send_coverage(self, store: Store, batch: CoverageBatch) -> None:
        """Send a batch as one request, of which the server stores what it does not refuse."""
        reason = None
        try:
            self._write(coverage_lines(batch.hours), split=False)
        except BeyondRetention as refusal:
            self._find_retention(refusal)
            if not self._kept([batch.hours[-1].start]):
                return
        except Rejected as refusal:
            self.refusal, reason = str(refusal), refusal.reason
        store.acknowledge_coverage(self.destination, batch, reason)

    def _request(self, points: list[tuple[str, ...]], *, split: bool) -> None:
        # The marks of filled rows first: of a request with a rejected point the server stores the other points, and a
        # filled value must not be in the bucket without its mark.
        marks = [mark for row in points for mark in row[1:]]
        for lines in (marks, [row[0] for row in points if row]):
            if lines:
                self._write(lines, split=split)

    def _write(self, lines: list[str], *, split: bool) -> None:
        if split:
            if self.split_requests == MAX_SPLIT_REQUESTS:
                raise _StoppedError(
                    f"InfluxDB refuses points, and {MAX_SPLIT_REQUESTS} requests did not identify them all; "
                    "the next run continues."
                )
            self.split_requests += 1
        left_s = None if self.deadline is None else self.deadline - self.clock()
        if left_s is not None and left_s < LEAST_REQUEST_S:
            raise _StoppedError("The time for this run is over; the next run sends the pending rows.")
        self.requests += 1
        self.writer.write(lines, left_s)


def _cuts(batch: PendingBatch, start: int, stop: int, refusal: Rejected | TooLarge) -> list[int]:
    """Return where to cut rows [start, stop) after a refusal; empty if it applies to all of them.

    Retention depends on time only, so those rows are cut by hour. Any others are halved, down to one row.
    """
    if isinstance(refusal, BeyondRetention):
        hours = batch.hours[start:stop]
        return [start + 1 + cut for cut in np.flatnonzero(hours[1:] != hours[:-1]).tolist()]
    return [(start + stop) // 2] if stop - start > 1 else []
