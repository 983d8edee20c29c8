"""A live minute: when readings are taken, and which are stored or refused. A device over HTTP, simulated time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import tenacity

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.ingest.power import LiveMinute, take_minute
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline_tests.support.device import (
    BATTERY_FLOW,
    FLOW,
    PASSWORD,
    USER,
    Answer,
    Device,
    battery_flow,
    circuits_path,
    flow_json,
    household,
    serving,
)

# What the pages' clock shows, so that host and device agree.
MINUTE = datetime(2026, 7, 13, 23, 15, tzinfo=UTC)
HOME = [("ＬＤ<br />", " 224W"), ("ＩＨ<br />", "")]


class Time:
    """The host's time: it advances only when something sleeps, or when a slow page advances it."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def device() -> Iterator[Device]:
    with serving(household(HOME)) as served:
        yield served


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "readings.sqlite") as opened:
        yield opened


def take(device: Device, store: Store, time: Time, samples: int = 1, password: str = PASSWORD) -> LiveMinute:
    state_dir = store.path.parent / "device"
    with Aiseg2Client(device.address, USER, password, state_dir=state_dir, clock=time) as client:
        minute = time.now.replace(second=0)
        return take_minute(client, store, minute=minute, samples=samples, clock=time, sleep=time.sleep)


def stored_times(store: Store) -> list[datetime]:
    table = store.read(MINUTE - timedelta(days=1), MINUTE + timedelta(days=1))
    return sorted({time.to_pydatetime() for time in table["time"]})


@pytest.mark.parametrize(("samples", "start_s"), [(1, 4), (12, 2), (12, 26), (2, 11), (5, 49)])
def test_readings_are_spread_from_the_start_to_second_fifty(
    device: Device, store: Store, samples: int, start_s: int
) -> None:
    time = Time(MINUTE + timedelta(seconds=start_s))
    taken = take(device, store, time, samples)
    assert (len(taken.readings), taken.problems) == (samples, [])
    assert time.now < MINUTE + timedelta(seconds=50)
    expected = {int(start_s + n * (50 - start_s) / samples) for n in range(samples)}
    assert {(moment - MINUTE).seconds for moment in stored_times(store)} == expected


def test_readings_that_do_not_fit_are_left_out_and_reported(device: Device, store: Store) -> None:
    time = Time(MINUTE + timedelta(seconds=2))

    def slow() -> bytes:
        time.sleep(15)
        return flow_json()

    device.pages[FLOW] = slow
    taken = take(device, store, time, 12)
    assert len(taken.readings) + taken.left_out == 12
    assert taken.left_out >= 8
    assert any("AISEG2_SAMPLES_PER_MINUTE" in problem for problem in taken.problems)
    assert time.now < MINUTE + timedelta(seconds=66)


def test_a_run_that_starts_late_in_its_minute_takes_one_reading(device: Device, store: Store) -> None:
    taken = take(device, store, Time(MINUTE + timedelta(seconds=55)), 3)
    assert len(taken.readings) == 1
    assert taken.left_out == 2


def test_each_reading_is_stored_before_the_next_is_taken(device: Device, store: Store) -> None:
    seen: list[int] = []

    def counting() -> bytes:
        seen.append(len(stored_times(store)))
        return flow_json()

    device.pages[FLOW] = counting
    take(device, store, Time(MINUTE), 4)
    assert seen == [0, 1, 2, 3]


def test_a_failing_reading_does_not_affect_the_others(device: Device, store: Store) -> None:
    answers: list[bytes | Answer] = [flow_json(), Answer(b"", 404), flow_json()]
    device.pages[FLOW] = lambda: answers.pop()  # noqa: PLW0108 - pop takes an index too
    taken = take(device, store, Time(MINUTE), 3)
    assert len(taken.readings) == 2
    assert "404" in taken.problems[0]


def test_a_device_that_was_silent_for_ten_minutes_gets_one_request_a_minute_however_many_readings(
    device: Device, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(device, store, Time(MINUTE))
    device.pages[FLOW] = Answer(b"", cut=True)
    # One attempt instead of 20 s.
    monkeypatch.setattr("tenacity.stop_before_delay", lambda _: tenacity.stop_after_attempt(1))
    for minutes, requests in ((1, 3), (10, 3), (11, 1), (12, 1)):
        sent = device.requests
        take(device, store, Time(MINUTE + timedelta(minutes=minutes)), 3)
        assert device.requests == sent + requests


def test_totals_are_stored_when_the_circuits_cannot_be_read(device: Device, store: Store) -> None:
    device.pages[circuits_path(1)] = b"<html>busy</html>"
    taken = take(device, store, Time(MINUTE))
    assert "The circuits are missing" in taken.problems[0]
    assert set(store.read(MINUTE, MINUTE + timedelta(minutes=1))["kind"]) == {"total", "generation"}


def test_a_battery_flow_that_cannot_be_read_is_a_problem_of_its_own(device: Device, store: Store) -> None:
    device.pages |= {FLOW: flow_json(connSb=1, percent="80"), BATTERY_FLOW: b"{}"}
    (problem,) = take(device, store, Time(MINUTE)).problems
    assert "The power of sun, grid and battery is missing" in problem
    device.pages[BATTERY_FLOW] = battery_flow(lo_densen_lo_kw="-")
    assert take(device, store, Time(MINUTE + timedelta(seconds=20))).problems == []
    flow = store.read(MINUTE, MINUTE + timedelta(minutes=1), kinds=["flow"])
    assert dict(zip(flow["name"], flow["value"], strict=True)) == {"太陽光": 2.1, "蓄電池": 0.4}


def test_a_reading_without_any_number_is_not_stored(device: Device, store: Store) -> None:
    device.pages[FLOW] = flow_json(g_capacity="-", u_capacity="-", g_d_1_capacity="-")
    device.pages[circuits_path(1)] = b"<html>busy</html>"
    taken = take(device, store, Time(MINUTE))
    assert taken.readings == []
    assert "no number" in taken.problems[-1]
    assert stored_times(store) == []


def test_a_reading_earlier_than_the_last_one_is_refused(device: Device, store: Store) -> None:
    take(device, store, Time(MINUTE + timedelta(hours=10)))
    kept = stored_times(store)
    # The pages show 23:15:53; the host says two hours before that, so one of the two is wrong.
    taken = take(device, store, Time(MINUTE - timedelta(hours=2)))
    assert taken.readings == []
    assert "clock" in taken.problems[0]
    assert stored_times(store) == kept


def test_readings_continue_when_host_and_device_agree_that_stored_ones_lie_ahead(
    device: Device, store: Store
) -> None:
    take(device, store, Time(MINUTE + timedelta(hours=10)))
    taken = take(device, store, Time(MINUTE + timedelta(seconds=30)))
    assert len(taken.readings) == 1
    assert MINUTE + timedelta(seconds=30) in stored_times(store)
    assert len(store.times_after(MINUTE + timedelta(minutes=1))) == 1


def test_no_reading_is_taken_when_it_cannot_be_stored(device: Device, store: Store) -> None:
    store.close()
    with pytest.raises((StoreError, ValueError)):
        take(device, store, Time(MINUTE), 3)
    assert sum(path == FLOW for path, status in device.log if status == 200) == 1


def test_the_circuits_in_force_are_recorded(device: Device, store: Store) -> None:
    take(device, store, Time(MINUTE))
    assert [circuit.name for circuit in store.circuits_at(MINUTE)] == ["ＬＤ", "ＩＨ"]


@pytest.mark.parametrize("samples", [1, 12])
def test_a_wrong_password_costs_two_requests_a_minute_however_many_readings(
    device: Device, store: Store, samples: int
) -> None:
    for minute in range(1, 4):
        taken = take(device, store, Time(MINUTE + timedelta(seconds=2)), samples, password="battery staple")
        (problem,) = taken.problems
        assert "AISEG2_PASSWORD" in problem
        assert [status for _, status in device.log] == [401] * 2 * minute
