"""In any order of events, each destination gets exactly the rows of the store."""

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aiseg2_pipeline.frames.readings import COLUMNS, Row, frame
from aiseg2_pipeline.store import Destination, PendingBatch, Store
from aiseg2_pipeline.store.queries import Queries

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
END = START + timedelta(hours=3)
SERIES = (("total", "売買電力", "kW"), ("usage", "台所", "W"), ("usage", "車", "W"))

Key = tuple[datetime, str, str]

times = st.integers(0, 8).map(lambda n: START + n * timedelta(minutes=20))
ranges = st.tuples(times, times).map(lambda ends: (min(ends), max(ends)))
rows = st.builds(
    lambda time, series, value, interval_s: Row(time, series[0], series[1], value, series[2], interval_s),
    times,
    st.sampled_from(SERIES),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([0, 1800]),
)
frames = st.lists(rows, min_size=1, max_size=12, unique_by=lambda row: (row.time, row.name)).map(frame)


def hour_of(time: datetime) -> datetime:
    return time.replace(minute=0)


def by_key(table: pd.DataFrame) -> dict[Key, Row]:
    return {(row.time, row.kind, row.name): row for row in map(Row._make, table[COLUMNS].itertuples(index=False))}


class Outbox(RuleBasedStateMachine):
    """A store, a model of its rows, and a server that keeps the rows that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name) / "store.sqlite")
        self.stored: dict[Key, Row] = {}
        self.changes: dict[Key, int] = {}
        self.change = 0
        self.server: dict[Key, Row] = {}
        self.refused: dict[Key, int] = {}
        self.buckets = 0
        self.batch: PendingBatch | None = None
        self.changes_sent: dict[Key, int] = {}

    def teardown(self) -> None:
        if self.stored:
            self.drain(10)
        self.store.close()
        self.folder.cleanup()

    @property
    def destination(self) -> Destination:
        return Destination("host", "org", f"bucket-{self.buckets}")

    @initialize(table=frames)
    def begin(self, table: pd.DataFrame) -> None:
        self.upsert(table)

    @rule(table=frames)
    def upsert(self, table: pd.DataFrame) -> None:
        changed = {key: row for key, row in by_key(table).items() if self.stored.get(key) != row}
        self.change += 1
        assert self.store.upsert(table).changed == len(changed)
        self.stored |= changed
        self.changes |= dict.fromkeys(changed, self.change)

    @rule(deleted=ranges)
    def delete(self, deleted: tuple[datetime, datetime]) -> None:
        gone = [key for key in self.stored if deleted[0] <= key[0] < deleted[1]]
        assert self.store.count(*deleted) == self.store.delete(*deleted) == len(gone)
        for key in gone:
            del self.stored[key], self.changes[key]

    @precondition(lambda self: self.batch is None)
    @rule(limit=st.integers(1, 10), hours=st.integers(1, 3), limits=ranges)
    def send(self, limit: int, hours: int, limits: tuple[datetime, datetime]) -> None:
        """Send a batch; the answer follows later, after any other events."""
        pending = self.store.pending_hours(self.destination)
        assert pending == sorted(pending)
        first, end = hour_of(limits[0]), limits[1]
        assert self.store.pending_hours(self.destination, *limits) == [
            hour for hour in pending if first <= hour < end
        ]
        pending = pending[:hours]
        assert self.store.pending_hours(self.destination, limit=hours) == pending
        batch = self.batch = self.store.pending_rows(self.destination, pending[::-1], limit)
        order = list(zip(batch.hours.tolist(), batch.versions.tolist(), strict=True))
        # In the order of the hours that were asked for, and by version in each.
        assert order == sorted(set(order), key=lambda row: (-row[0], row[1]))
        assert len(order) <= limit
        assert {hour_of(row.time) for row in by_key(batch.frame).values()} <= set(pending)
        self.changes_sent = dict(self.changes)

    @precondition(lambda self: self.batch is not None)
    @rule(accepted=st.integers(0, 6), refused=st.integers(0, 6), accepted_then=st.integers(0, 6))
    def answer(self, accepted: int, refused: int, accepted_then: int) -> None:
        """Accept the first rows of the batch, refuse some for good, accept some more, leave the rest unanswered."""
        assert self.batch is not None
        batch, self.batch = self.batch, None
        start, stop, upto = (
            min(n, len(batch.frame)) for n in np.cumsum([accepted, refused, accepted_then]).tolist()
        )
        self.server |= by_key(pd.concat([batch.frame[:start], batch.frame[stop:upto]]))
        self.refused |= {key: self.changes_sent[key] for key in by_key(batch.frame[start:stop])}
        self.store.set_aside(self.destination, batch, start, stop, "refused", START)
        self.store.acknowledge(self.destination, batch, upto)

    @precondition(lambda self: self.batch is not None)
    @rule()
    def be_killed_before_acknowledging(self) -> None:
        """Write a batch, and be killed before it is acknowledged."""
        assert self.batch is not None
        self.server |= by_key(self.batch.frame)
        self.batch = None

    @rule(emptied=ranges)
    def empty_the_bucket_and_resend(self, emptied: tuple[datetime, datetime]) -> None:
        """Empty hours of the bucket and resend them; the answer to a batch that is on its way is ignored."""
        first, last = hour_of(emptied[0]), emptied[1]
        keys = {key for key in self.stored if first <= hour_of(key[0]) < last}
        if self.batch is not None:
            self.server |= by_key(self.batch.frame)
        assert self.store.resend(*emptied) == len({hour_of(time) for time, _, _ in keys})
        for key in keys:
            self.server.pop(key, None)
            self.refused.pop(key, None)
        if self.batch is not None:
            self.store.set_aside(self.destination, self.batch, 0, len(self.batch.frame), "late", START)
            self.store.acknowledge(self.destination, self.batch, len(self.batch.frame))
            self.batch = None

    @rule()
    def change_the_bucket(self) -> None:
        self.buckets += 1
        self.server, self.refused, self.batch = {}, {}, None

    @rule(limit=st.integers(1, 10))
    def drain(self, limit: int) -> None:
        """Send until nothing is pending: the server then has every row except those that it refused."""
        batches = 0
        while hours := self.store.pending_hours(self.destination):
            batches += 1
            assert batches <= len(self.stored)
            batch = self.store.pending_rows(self.destination, hours, limit)
            self.server |= by_key(batch.frame)
            self.store.acknowledge(self.destination, batch, len(batch.frame))
        self.batch = None
        assert by_key(self.store.read(START, END)) == self.stored
        assert self.store.hours_with_rows(START, END) == sorted({hour_of(time) for time, _, _ in self.stored})
        self.compare_hours()
        aside = {key: row for key, row in self.stored.items() if self.refused.get(key) == self.changes[key]}
        assert by_key(self.store.set_aside_rows(self.destination)) == aside
        for key in self.stored.keys() - aside.keys():
            assert self.server[key] == self.stored[key]

    def compare_hours(self) -> None:
        """Compare what the store keeps of each hour with the rows."""
        minutes: dict[datetime, list[int]] = {}
        values: dict[datetime, list[float]] = {}
        for (time, _, name), row in self.stored.items():
            if name == SERIES[0][1]:
                minutes.setdefault(hour_of(time), []).append(row.interval_s)
                values.setdefault(hour_of(time), []).append(row.value)
        assert self.store.coverage(START, END) == {
            hour: (intervals.count(0), len(intervals) - intervals.count(0), 0)
            for hour, intervals in minutes.items()
        }
        with Queries(self.store.path) as queries:
            shown = queries.by_hour("total", int(START.timestamp()), int(END.timestamp()), SERIES[0][1])
        assert {
            datetime.fromtimestamp(hour.start, UTC): (hour.n, hour.sum, hour.min, hour.max) for hour in shown
        } == {hour: (len(of_hour), sum(of_hour), min(of_hour), max(of_hour)) for hour, of_hour in values.items()}


TestOutbox = Outbox.TestCase
TestOutbox.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
