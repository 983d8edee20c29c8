"""Every row of the store reaches a real InfluxDB once, despite outages, refusals and changes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.frames.readings import KEY, Row, frame
from aiseg2_pipeline.influxdb.client import Misconfigured, Unavailable
from aiseg2_pipeline.influxdb.delivery import MAX_SPLIT_REQUESTS, Delivery, deliver
from aiseg2_pipeline.store import Destination, Store
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.influxdb_proxy import Exchange, Fault

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
RUNNING = datetime(2026, 7, 14, 8, tzinfo=UTC)
NOW = RUNNING + 30 * MINUTE


def reading(time: datetime, value: float = 0.5) -> pd.DataFrame:
    """One reading of four rows."""
    return frame(
        [
            Row(time, "total", "総消費電力", value, "kW", 0),
            Row(time, "total", "売買電力", -value, "kW", 0),
            Row(time, "usage", "ＬＤ", 100 * value, "W", 0),
            Row(time, "battery", "充電率", 80, "%", 0),
        ]
    )


def readings(start: datetime, minutes: int) -> pd.DataFrame:
    return pd.concat([reading(start + n * MINUTE, value=n + 0.5) for n in range(minutes)], ignore_index=True)


@dataclass
class Home:
    """A store and its destination."""

    store: Store
    influx: Influx

    @property
    def destination(self) -> Destination:
        return self.influx.destination

    def deliver(self, to: Influx | None = None, **options: Any) -> Delivery:
        to = to or self.influx
        with to.writer() as writer:
            return deliver(self.store, writer, to.destination, **({"now": NOW} | options))

    def stored(self) -> pd.DataFrame:
        everything = self.store.read(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
        return everything.sort_values(KEY, ignore_index=True)

    def conflict(self, time: datetime = RUNNING) -> None:
        """Let the battery's value be an integer in the bucket, so that ours, a float, is refused on that day."""
        with self.influx.writer() as writer:
            writer.write([f"battery,detail-section=x value=1i {int(time.timestamp())}000000000"])


@pytest.fixture
def home(influx: Influx, tmp_path: Path) -> Iterator[Home]:
    with Store.open(tmp_path / "readings.db") as store:
        yield Home(store, influx)


def line_times(exchange: Exchange) -> list[datetime]:
    return [datetime.fromtimestamp(int(line.rsplit(" ", 1)[1]) // 10**9, UTC) for line in exchange.lines]


def test_a_delivered_frame_reads_back_equal_and_is_not_sent_again(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 3))
    home.store.upsert(
        frame(
            [
                Row(RUNNING - 2 * HOUR, "total", "総消費電力", 0.25, "kW", 3600),
                Row(RUNNING - 2 * HOUR, "usage", "a, b=\\", 12.5, "W", 1800),
                Row(RUNNING - 2 * HOUR, "battery", "状態", -1, "", 0),
            ]
        )
    )
    delivery = home.deliver()
    assert home.influx.readings().equals(home.stored())
    assert delivery == Delivery(
        rows=15,
        points=17,
        hours=(RUNNING - 2 * HOUR, RUNNING),
        set_aside=0,
        requests=3,
        left_hours=0,
        stopped=None,
    )
    home.influx.proxy.requests.clear()
    assert home.deliver() == Delivery(0, 0, (), 0, 0, 0, None)
    assert home.influx.proxy.requests == []


def test_after_an_outage_every_reading_is_there_once(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 1))
    home.deliver()
    home.influx.server.stop()
    for minute in range(1, 4):
        home.store.upsert(reading(RUNNING + minute * MINUTE))
        with pytest.raises(Unavailable):
            home.deliver()
    home.influx.server.start()
    assert home.deliver().rows == 12
    assert home.influx.readings().equals(home.stored())


def test_a_write_that_was_taken_without_an_answer_leaves_nothing_twice(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 2))
    home.influx.proxy.fault = lambda _: Fault(take=True, cut=True)
    with pytest.raises(Unavailable):
        home.deliver()
    assert home.store.pending_hours(home.destination) == [RUNNING]
    home.influx.proxy.fault = None
    assert home.deliver().rows == 8
    assert home.influx.readings().equals(home.stored())


def test_an_error_carries_the_delivery_before_it(home: Home) -> None:
    home.store.upsert(readings(RUNNING - HOUR, 61))
    home.influx.proxy.fault = lambda exchange: Fault(503) if line_times(exchange)[0] < RUNNING else None
    with pytest.raises(Unavailable) as raised:
        home.deliver()
    assert raised.value.delivery == Delivery(4, 4, (RUNNING,), 0, 2, 1, str(raised.value))


def test_a_wrong_bucket_settles_nothing(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 1))
    home.influx.server.drop_bucket(home.influx.bucket)
    with pytest.raises(Misconfigured, match="INFLUXDB_BUCKET"):
        home.deliver()
    home.influx.server.create_bucket(home.influx.bucket)
    assert home.store.pending_hours(home.destination) == [RUNNING]
    assert home.store.set_aside_rows(home.destination).empty


def test_a_row_that_changes_while_it_is_sent_stays_pending(home: Home) -> None:
    home.store.upsert(reading(RUNNING, value=1))

    def change(_: Exchange) -> None:
        home.influx.proxy.fault = lambda _: Fault(503)
        with Store.open(home.store.path) as other:
            other.upsert(reading(RUNNING, value=2))

    home.influx.proxy.fault = change
    with pytest.raises(Unavailable):
        home.deliver()
    assert home.store.pending_hours(home.destination) == [RUNNING]
    home.influx.proxy.fault = None
    # The battery's charge is the same in both.
    assert home.deliver().rows == 3
    assert home.influx.readings().equals(home.stored())


def test_the_newest_hour_goes_first_and_alone_then_older_days_and_no_request_spans_a_day(home: Home) -> None:
    for day in range(3):
        for hour in (0, 5, 23):
            home.store.upsert(readings(RUNNING - timedelta(days=day) - hour * HOUR, 2))
    home.deliver()
    sent = [line_times(exchange) for exchange in home.influx.proxy.requests]
    assert set(sent[0]) == {RUNNING, RUNNING + MINUTE}
    assert all(max(times) - min(times) < timedelta(days=1) for times in sent)
    days = [times[0].date() for times in sent]
    assert days == sorted(days, reverse=True)
    assert home.influx.readings().equals(home.stored())


def test_only_the_hours_asked_for_are_sent(home: Home) -> None:
    home.store.upsert(readings(RUNNING - 2 * HOUR, 150))
    delivery = home.deliver(hours=[RUNNING - HOUR])
    assert delivery.hours == (RUNNING - HOUR,)
    assert home.store.pending_hours(home.destination) == [RUNNING - 2 * HOUR, RUNNING]


def test_no_request_starts_after_the_deadline_and_settled_rows_stay_settled(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 10))
    ticks = iter(range(100))
    delivery = home.deliver(deadline=4, clock=lambda: float(next(ticks)), batch_rows=8)
    assert delivery.stopped is not None
    assert "time" in delivery.stopped
    assert 0 < delivery.rows < 40
    assert home.deliver().rows == 40 - delivery.rows
    assert home.influx.readings().equals(home.stored())


def test_one_request_at_a_time_to_a_destination(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 1))
    entered, resume = threading.Event(), threading.Event()

    def hold(_: Exchange) -> None:
        entered.set()
        assert resume.wait(180)

    home.influx.proxy.fault = hold
    first = threading.Thread(target=home.deliver)
    first.start()
    assert entered.wait(180)
    try:
        second = home.deliver(deadline=0, clock=lambda: 0.0)
    finally:
        resume.set()
        first.join()
    assert second.requests == 0
    assert second.stopped is not None
    assert home.influx.bucket in second.stopped
    assert home.store.pending_hours(home.destination) == []


def test_rows_of_now_do_not_wait_for_the_end_of_a_delivery_of_the_past(home: Home) -> None:
    home.store.upsert(pd.concat([readings(RUNNING - n * HOUR, 1) for n in range(1, 40)], ignore_index=True))
    past = threading.Thread(target=home.deliver, kwargs={"batch_rows": 4})
    past.start()
    while not home.influx.proxy.requests:
        time.sleep(0.01)
    try:
        home.store.upsert(readings(RUNNING, 1))
        delivery = home.deliver(hours=[RUNNING], deadline=time.monotonic() + 60)
        assert (delivery.rows, delivery.stopped) == (4, None)
        assert home.store.pending_count(home.destination) > 1
    finally:
        past.join()
    assert home.influx.readings().equals(home.stored())


def test_a_request_too_large_is_halved_and_a_row_too_large_is_set_aside(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 10))
    home.influx.proxy.fault = lambda exchange: Fault(413) if len(exchange.lines) > 7 else None
    progress: list[int] = []
    delivery = home.deliver(batch_rows=15, on_progress=progress.append)
    assert (delivery.rows, delivery.set_aside, delivery.stopped) == (40, 0, None)
    assert progress == [15, 30, 40]
    assert home.influx.readings().equals(home.stored())
    home.store.upsert(readings(RUNNING + 20 * MINUTE, 2))
    home.influx.proxy.fault = lambda exchange: Fault(413) if "battery" in str(exchange.lines) else None
    delivery = home.deliver()
    assert (delivery.rows, delivery.set_aside) == (6, 2)
    assert set(home.store.set_aside_rows(home.destination)["name"]) == {"充電率"}


def test_points_that_influxdb_will_never_take_are_set_aside_and_all_others_go_through(home: Home) -> None:
    home.conflict()
    home.store.upsert(readings(RUNNING, 3))
    delivery = home.deliver()
    assert (delivery.rows, delivery.set_aside, delivery.left_hours) == (9, 3, 0)
    aside = home.store.set_aside_rows(home.destination)
    assert list(aside["name"]) == ["充電率"] * 3
    assert aside["reason"].str.contains("field type conflict").all()
    assert (aside["at"] == NOW).all()
    written = home.influx.points("power")
    assert len(written) == 9
    assert home.deliver().requests == 0


def test_a_filled_value_is_not_written_when_its_mark_is_refused(home: Home) -> None:
    with home.influx.writer() as writer:
        writer.write([f'power_fill,summary=x interval_s="1" {int(RUNNING.timestamp())}000000000'])
    filled = [Row(RUNNING + n * MINUTE, "total", "総消費電力", 0.25, "kW", 3600) for n in range(2)]
    home.store.upsert(frame([*filled, Row(RUNNING + 2 * MINUTE, "total", "総消費電力", 0.5, "kW", 0)]))
    delivery = home.deliver()
    assert (delivery.rows, delivery.set_aside) == (1, 2)
    assert [point["value"] for point in home.influx.points("power")] == [0.5]


def test_splitting_ends_after_a_bounded_number_of_requests_and_continues_in_the_next_run(home: Home) -> None:
    home.store.upsert(readings(RUNNING, 60))
    home.conflict()
    first = home.deliver()
    assert first.requests == MAX_SPLIT_REQUESTS + 1
    assert first.stopped is not None
    assert 0 < first.rows + first.set_aside < 240
    second = home.deliver()
    assert (first.rows + second.rows, first.set_aside + second.set_aside) == (180, 60)
    assert (second.left_hours, second.stopped) == (0, None)


# InfluxDB before 2.8 names no duration.
WITHOUT_DURATION = (
    b'{"code":"unprocessable entity","message":"partial write: points beyond retention policy dropped=1"}'
)


@pytest.mark.parametrize("is_named", [True, False], ids=["named in the answer", "asked for"])
def test_rows_older_than_the_bucket_keeps_are_not_pending_and_go_out_within_a_day_when_it_keeps_them(
    home: Home, *, is_named: bool
) -> None:
    now = datetime.now(UTC)
    running = now.replace(minute=0, second=0, microsecond=0)
    hours = [running - n * HOUR for n in (5, 4, 1)]
    with Influx(home.influx.server, "short", retention=3 * HOUR) as short:
        kept = Home(home.store, short)
        if not is_named:
            short.proxy.fault = lambda exchange: (
                Fault(422, body=WITHOUT_DURATION) if min(line_times(exchange)) < now - 3 * HOUR else None
            )
        for hour in hours:
            home.store.upsert(readings(hour, 10))
        home.store.upsert(reading(running))
        delivery = kept.deliver(now=now)
        assert (delivery.rows, delivery.set_aside, delivery.left_hours) == (44, 0, 0)
        home.store.upsert(reading(hours[0], value=7))
        assert kept.deliver(now=now + 23 * HOUR).requests == 0
        assert home.store.set_aside_rows(short.destination).empty
        short.proxy.fault = None
        short.server.set_retention("short", 30 * HOUR)
        delivery = kept.deliver(now=now + 24 * HOUR)
        assert (delivery.rows, delivery.left_hours) == (80, 0)
        assert short.readings().equals(home.stored())


def test_where_the_retention_is_unknown_hours_beyond_it_are_set_aside_and_all_others_are_written(
    home: Home,
) -> None:
    now = datetime.now(UTC)
    running = now.replace(minute=0, second=0, microsecond=0)
    hours = [running - n * HOUR for n in (4, 3, 2, 1)]
    # The retention ends with the first hour; of the last one, InfluxDB refuses the battery.
    retention = timedelta(seconds=(now - hours[1] + 5 * MINUTE).total_seconds() // 1)
    with Influx(home.influx.server, "short", retention=retention) as short:
        kept = Home(home.store, short)
        kept.conflict(hours[3])
        short.proxy.token = short.server.create_token("short", read=False)
        short.proxy.fault = lambda exchange: (
            Fault(422, body=WITHOUT_DURATION) if min(line_times(exchange)) < now - retention else None
        )
        for hour in hours:
            home.store.upsert(readings(hour, 10))
        delivery = kept.deliver(now=now)
        assert (delivery.rows, delivery.set_aside, delivery.left_hours) == (110, 50, 0)
        aside = home.store.set_aside_rows(short.destination)
        beyond = aside["reason"].str.contains("retention")
        assert set(aside[beyond]["time"].dt.floor("h")) == {hours[0]}
        assert set(aside[~beyond]["name"]) == {"充電率"}
        refused = (home.stored()["kind"] == "battery") & (home.stored()["time"] >= hours[3])
        taken = home.stored()[(home.stored()["time"] >= hours[1]) & ~refused].reset_index(drop=True)
        written = short.readings()
        assert written[written["name"] != "x"].reset_index(drop=True).equals(taken)
