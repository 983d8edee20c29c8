"""Energy, fills, checks, schedules and healing in Dagster, with the simulator as the device and stores on disk."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

import pandas as pd
import pytest
from dagster import (
    DagsterRunStatus,
)

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, INFLUXDB_ENERGY, INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import day_key, hour_from_key, hour_key
from aiseg2_pipeline.simulator.login import Answer, DigestLogin
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.tags import BACKGROUND_TAG, MINUTE_TAG
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.pipeline import DAY, HOUR, MINUTE, failure
from aiseg2_pipeline_tests.support.simulated_pipeline import NOW, TODAY, SimulatedPipeline, simulated_pipeline
from aiseg2_pipeline_tests.support.simulator_client import JAPAN

OF_CIRCUIT, OF_CONSUMPTION = "/page/graph/584", "/page/graph/52111"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[SimulatedPipeline]:
    """A pipeline without an InfluxDB, and a device that was off for three hours of yesterday's night."""
    off = (TODAY - DAY + 2 * HOUR, TODAY - DAY + 5 * HOUR)
    with simulated_pipeline(tmp_path, {}, outages=[off], memory_days=10) as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(tmp_path: Path, influx: Influx) -> Iterator[SimulatedPipeline]:
    """A pipeline that writes to an empty bucket of the real server."""
    with simulated_pipeline(tmp_path, influx.settings, memory_days=10) as writing:
        yield writing


def keys(first: datetime, hours: int) -> list[str]:
    return [hour_key(first + n * HOUR) for n in range(hours)]


# The device's energy


def test_yesterday_is_kept_with_its_circuits_and_written_out(pipeline: SimulatedPipeline, influx: Influx) -> None:
    assert pipeline.run("energy_day", "2026-07-13").success
    assert pipeline.green(ENERGY_HISTORY) == pipeline.green(INFLUXDB_ENERGY) == {"2026-07-13"}
    rows = pipeline.energy()
    assert len(rows[rows["kind"] == "usage"]) == 24 * 32
    told = pipeline.metadata(ENERGY_HISTORY, "2026-07-13")
    assert told["source"] == "graph pages, hours"
    assert told["rows"] == told["changed"] == len(rows)
    in_influx = influx.points("energy")
    assert len(in_influx) == len(rows[rows["interval_s"] == 3600])
    asked = pipeline.requests()
    assert pipeline.run("energy_day", "2026-07-13").success
    assert pipeline.requests() > asked
    assert pipeline.metadata(ENERGY_HISTORY, "2026-07-13")["changed"] == 0
    assert influx.points("energy") == in_influx


def test_today_is_kept_without_its_circuits(pipeline: SimulatedPipeline) -> None:
    assert pipeline.run("energy_day", "2026-07-14").success
    assert pipeline.requests(OF_CIRCUIT) == 0
    rows = pipeline.energy()
    hours = rows.loc[rows["kind"] == "consumption", "time"]
    assert [time.tz_convert(JAPAN).hour for time in hours] == list(range(12))
    assert pipeline.green(INFLUXDB_ENERGY) == {"2026-07-14"}


def test_a_range_of_days_is_one_run_and_days_without_energy_are_never_green(alone: SimulatedPipeline) -> None:
    result = alone.run("energy_day", "2026-07-01", "2026-07-07")
    assert result.success
    # Ten days back is what this device remembers.
    assert alone.green(ENERGY_HISTORY) == {"2026-07-04", "2026-07-05", "2026-07-06", "2026-07-07"}
    assert alone.metadata(ENERGY_HISTORY, "2026-07-05")["rows"] > 24 * 36
    assert "7 of 7 days done" in alone.log(result)


def test_a_day_of_which_the_device_has_nothing_is_not_green_in_influxdb_either(
    pipeline: SimulatedPipeline,
) -> None:
    assert pipeline.run("energy_day", "2026-07-01").success
    assert pipeline.run("energy_day", "2026-07-13").success
    assert pipeline.green(ENERGY_HISTORY) == pipeline.green(INFLUXDB_ENERGY) == {"2026-07-13"}


def test_a_device_that_fails_in_the_middle_is_one_sentence_and_the_days_before_are_kept(
    alone: SimulatedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked_after(monkeypatch, requests=90)
    result = alone.run("energy_day", "2026-07-08", "2026-07-12")
    assert not result.success
    assert "AISEG2_PASSWORD" in failure(result)
    assert "Traceback" not in failure(result)
    assert alone.green(ENERGY_HISTORY) == {"2026-07-08", "2026-07-09"}
    rows = alone.energy()
    assert {day_key(time) for time in rows["time"]} == {"2026-07-08", "2026-07-09"}


def test_while_the_clocks_differ_nothing_is_kept_and_the_run_says_so(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - 3 * HOUR)
    alone.set_clock(NOW)
    alone.unit.set_clock(NOW + 3 * MINUTE)
    for job, key in (("energy_day", "2026-07-13"), ("power_fill", hour_key(NOW - 3 * HOUR))):
        result = alone.run(job, key)
        assert not result.success
        assert "180 s ahead" in failure(result)
    assert alone.energy().empty
    assert set(alone.rows()["interval_s"]) == {0}


@pytest.mark.parametrize(("unit_ahead", "agree"), [(timedelta(), True), (-2 * MINUTE, False)])
def test_clocks_are_compared_when_the_device_is_asked_however_long_the_run_goes(
    alone: SimulatedPipeline, *, unit_ahead: timedelta, agree: bool
) -> None:
    alone.minute(NOW - 3 * HOUR)
    times: Iterator[datetime] = repeat(NOW)
    alone.definitions = build_definitions(alone.settings, lambda: next(times))
    # The run looks at its clock twice before it asks the device, two minutes later.
    times = chain([NOW, NOW], repeat(NOW + 2 * MINUTE))
    alone.unit.set_clock(NOW + 2 * MINUTE + unit_ahead)
    result = alone.run("power_fill", hour_key(NOW - 3 * HOUR))
    assert result.success == agree
    assert alone.energy().empty == (not agree)


# Filling


def test_an_hour_is_filled_around_what_was_read_live(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - 3 * HOUR)
    before = alone.rows()
    alone.set_clock(NOW)
    key = hour_key(NOW - 3 * HOUR)
    assert alone.run("power_fill", key).success
    told = alone.metadata(POWER_READINGS, key)
    assert (told["live_minutes"], told["filled_minutes"], told["missing_minutes"]) == (1, 59, 0)
    assert told["device_kwh"] > 0
    assert abs(told["difference_percent"]) < 5
    after = alone.rows()
    live = after[after["interval_s"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(live, before)
    assert told["rows"] == len(after)


def test_a_range_fills_in_one_run_and_only_hours_with_rows_are_green(alone: SimulatedPipeline) -> None:
    alone.minute(TODAY - DAY + 5 * MINUTE)
    alone.set_clock(NOW)
    first = TODAY - DAY
    result = alone.run("power_fill", hour_key(first), hour_key(first + 35 * HOUR))
    assert result.success
    # The device was off from two to five.
    assert alone.green(POWER_READINGS) == set(keys(first, 2) + keys(first + 5 * HOUR, 31))
    told = alone.metadata(POWER_READINGS, hour_key(first + 7 * HOUR))
    assert (told["live_minutes"], told["filled_minutes"], told["missing_minutes"]) == (0, 60, 0)
    assert told["difference_percent"] == 0
    assert "24 of 36 hours done" in alone.log(result)
    passed, words = alone.checks()["record_complete"]
    assert not passed
    for key in keys(first + 2 * HOUR, 3):
        assert key in words
    rows, asked = alone.rows(), alone.requests()
    assert alone.run("power_fill", hour_key(first), hour_key(first + 35 * HOUR)).success
    pd.testing.assert_frame_equal(alone.rows(), rows)
    assert alone.requests() == asked


def test_a_fill_goes_out_with_the_next_minute(pipeline: SimulatedPipeline, influx: Influx) -> None:
    pipeline.minute(NOW - 3 * HOUR)
    pipeline.set_clock(NOW)
    assert pipeline.run("power_fill", *[hour_key(NOW - hours * HOUR) for hours in (3, 1)]).success
    pipeline.minute(NOW)
    stored = pipeline.rows()
    pd.testing.assert_frame_equal(influx.readings(), stored)
    assert len(set(stored["time"].dt.floor("min"))) == 3 * 60 + 1
    assert pipeline.green(INFLUXDB_POWER) == pipeline.green(POWER_READINGS)


def test_an_hour_is_not_filled_before_its_fifth_minute_after(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - HOUR)
    hour = TODAY + 11 * HOUR
    alone.set_clock(hour + HOUR + 4 * MINUTE)
    assert alone.run("power_fill", hour_key(hour)).success
    assert len(set(alone.rows()["time"])) == 1
    alone.set_clock(hour + HOUR + 8 * MINUTE)
    assert alone.run("power_fill", hour_key(hour)).success
    assert len(set(alone.rows()["time"])) == 60


def test_a_device_that_fails_during_a_fill_costs_no_day_before(
    alone: SimulatedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone.minute(NOW - 5 * DAY)
    alone.set_clock(NOW)
    start = TODAY - 4 * DAY
    locked_after(monkeypatch, requests=90)
    result = alone.run("power_fill", hour_key(start), hour_key(start + 71 * HOUR))
    assert not result.success
    assert "AISEG2_PASSWORD" in failure(result)
    assert "Traceback" not in failure(result)
    assert {hour_from_key(key) for key in alone.green(POWER_READINGS)} - {
        NOW.replace(minute=0, second=0) - 5 * DAY
    } == {start + n * HOUR for n in range(48)}


# Checks


def test_the_record_is_judged_over_its_last_35_days(alone: SimulatedPipeline) -> None:
    alone.minute(TODAY - 2 * DAY + 30 * MINUTE)
    alone.set_clock(NOW)
    assert alone.run("power_fill", hour_key(TODAY - DAY), hour_key(TODAY - DAY + HOUR)).success
    for judged in (alone.checks()["record_complete"], (alone.run_checks(), alone.checks()["record_complete"])[1]):
        passed, words = judged
        assert not passed
        # Its very first hour is incomplete too, and so is all of the day that was not filled.
        assert hour_key(TODAY - 2 * DAY) in words
        assert hour_key(TODAY - 2 * DAY + 23 * HOUR) in words
        assert hour_key(TODAY - DAY) not in words
        assert "12 more" not in words


def test_a_whole_record_passes(alone: SimulatedPipeline) -> None:
    alone.minute(TODAY + 9 * HOUR)
    alone.set_clock(NOW)
    assert alone.run("power_fill", hour_key(TODAY + 9 * HOUR), hour_key(TODAY + 11 * HOUR)).success
    alone.run_checks()
    assert alone.checks()["record_complete"] == (True, "Nothing is missing.")


def test_before_the_first_reading_nothing_is_missing(alone: SimulatedPipeline) -> None:
    assert alone.run_checks().success
    assert alone.checks()["record_complete"][0]
    assert "Not judged" in alone.checks()["energy_adds_up"][1]


def test_the_devices_energy_adds_up_and_where_it_does_not_the_hours_are_named(alone: SimulatedPipeline) -> None:
    assert alone.run("energy_day", "2026-07-13").success
    alone.run_checks()
    assert alone.checks()["energy_adds_up"] == (True, "All hours add up.")
    hour = TODAY - DAY + 12 * HOUR
    with EnergyStore.open(alone.settings.energy_path) as store:
        store.upsert(energy.frame([Row(hour, "consumption", "consumption", 5.0, "Wh", 3600)]))
    alone.run_checks()
    passed, words = alone.checks()["energy_adds_up"]
    assert not passed
    assert hour_key(hour) in words
    # With a storage battery, what is charged is not consumed.
    with EnergyStore.open(alone.settings.energy_path) as store:
        store.upsert(energy.frame([Row(hour, "battery-charge", "battery-charge", 500.0, "Wh", 3600)]))
    alone.run_checks()
    assert alone.checks()["energy_adds_up"][0]


# Schedules


# Healing


def test_there_is_one_request_for_each_contiguous_range(alone: SimulatedPipeline) -> None:
    for hours_ago in (30, 20, 5):
        alone.minute(NOW - hours_ago * HOUR)
    alone.set_clock(NOW)
    # Between the readings of 20 hours ago and now all is missing; then two hours are filled.
    assert alone.run("power_fill", hour_key(NOW - 12 * HOUR), hour_key(NOW - 11 * HOUR)).success
    requests = alone.heal()
    assert isinstance(requests, list)
    ranges = [
        (request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"])
        for request in requests
    ]
    assert ranges == [
        (hour_key(NOW - 30 * HOUR), hour_key(NOW - 13 * HOUR)),
        (hour_key(NOW - 10 * HOUR), hour_key(NOW - HOUR)),
    ]
    assert {request.job_name for request in requests} == {"power_fill"}
    assert {request.partition_key for request in requests} == {None}


def test_what_the_sensor_asks_for_heals_the_record(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - 40 * HOUR)
    alone.set_clock(NOW)
    requests = alone.heal()
    assert isinstance(requests, list)
    for request in requests:
        assert request.job_name is not None
        assert alone.execute(request.job_name, request.partition_key, dict(request.tags)).success
    # What is left are the three hours in which the device was off; nobody asks for them again today.
    counts = alone.rows()["time"].dt.floor("h").value_counts()
    assert len(counts) == 40 - 3
    said = alone.heal()
    assert isinstance(said, str)
    assert "Nothing is missing" in said
    alone.set_clock(NOW + 25 * HOUR)
    again = alone.heal()
    assert isinstance(again, list)
    starts = [request.tags["dagster/asset_partition_range_start"] for request in again]
    assert hour_key(TODAY - DAY + 2 * HOUR) in starts


def test_a_half_hour_that_the_card_does_not_have_is_not_asked_for_again_and_again(tmp_path: Path) -> None:
    off = (TODAY + 3.5 * HOUR, TODAY + 4 * HOUR)
    with simulated_pipeline(tmp_path, {}, outages=[off], sd_card=True) as pipeline:
        pipeline.minute(TODAY + 2 * HOUR)
        pipeline.set_clock(NOW)
        assert pipeline.run("power_fill", hour_key(TODAY + 2 * HOUR), hour_key(NOW - HOUR)).success
        told = pipeline.metadata(POWER_READINGS, hour_key(TODAY + 3 * HOUR))
        assert (told["filled_minutes"], told["missing_minutes"]) == (30, 30)
        assert isinstance(pipeline.heal(), str)


def test_nothing_is_healed_while_a_background_run_goes(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - 5 * HOUR)
    alone.set_clock(NOW)
    job = alone.definitions.resolve_job_def("power_fill")
    run = alone.instance.create_run_for_job(job, tags={BACKGROUND_TAG: "1"}, status=DagsterRunStatus.STARTED)
    said = alone.heal()
    assert isinstance(said, str)
    assert "still active" in said
    alone.instance.report_run_canceled(run)
    assert isinstance(alone.heal(), list)


def test_before_the_first_reading_there_is_nothing_to_heal(alone: SimulatedPipeline) -> None:
    assert isinstance(alone.heal(), str)
    alone.minute(NOW - 2 * HOUR)
    alone.set_clock(NOW)
    requests = alone.heal()
    assert isinstance(requests, list)
    (request,) = requests
    assert request.tags["dagster/asset_partition_range_start"] == hour_key(NOW - 2 * HOUR)


def test_the_hour_that_is_being_settled_is_left_to_its_run(alone: SimulatedPipeline) -> None:
    alone.minute(TODAY + 10 * HOUR)
    alone.set_clock(TODAY + 11 * HOUR + 15 * MINUTE)
    assert isinstance(alone.heal(), str)
    alone.set_clock(TODAY + 11 * HOUR + 25 * MINUTE)
    assert isinstance(alone.heal(), list)


def test_the_energy_of_a_day_that_nobody_asked_for_at_its_end_is_asked_for(alone: SimulatedPipeline) -> None:
    yesterday = TODAY - DAY
    minutes = [yesterday + n * MINUTE for n in range(36 * 60)]
    names = ("総発電電力", "総消費電力", "売買電力")
    rows = (Row(minute, "total", name, 1.0, "kW", 0) for minute in minutes for name in names)
    with Store.open(alone.settings.store_path) as store:
        store.upsert(frame(rows))
    alone.set_clock(TODAY - 2 * HOUR)
    assert alone.run("energy_day", day_key(yesterday)).success
    alone.set_clock(TODAY + 15 * MINUTE)
    # The night's own run comes first.
    assert isinstance(alone.heal(), str)
    alone.set_clock(TODAY + 12 * HOUR)
    requests = alone.heal()
    assert isinstance(requests, list)
    (request,) = requests
    assert (request.job_name, request.partition_key) == ("energy_day", day_key(yesterday))
    assert alone.run("energy_day", day_key(yesterday)).success
    assert isinstance(alone.heal(), str)


def test_what_many_hours_owe_to_influxdb_is_written_out(pipeline: SimulatedPipeline, influx: Influx) -> None:
    pipeline.minute(NOW - 60 * HOUR)
    pipeline.set_clock(NOW)
    assert pipeline.run("power_fill", hour_key(NOW - 60 * HOUR), hour_key(NOW - HOUR)).success
    requests = pipeline.heal()
    assert isinstance(requests, list)
    (request,) = requests
    assert request.job_name == "power_pending"
    tags = {**pipeline.definitions.resolve_job_def("power_pending").tags, **request.tags}
    assert pipeline.execute("power_pending", None, tags).success
    with Store.open(pipeline.settings.store_path) as store:
        assert store.pending_count(influx.destination) == 0
    assert pipeline.green(INFLUXDB_POWER) == pipeline.green(POWER_READINGS)
    assert isinstance(pipeline.heal(), str)


def test_what_is_owed_goes_out_while_the_device_gives_no_reading(
    pipeline: SimulatedPipeline, influx: Influx
) -> None:
    influx.server.stop()
    pipeline.set_clock(NOW)
    minute = NOW.replace(second=0).isoformat(timespec="minutes")
    assert not pipeline.run("power_minute", hour_key(NOW), **{MINUTE_TAG: minute}).success
    influx.server.start()
    pipeline.set_clock(NOW + 9 * MINUTE)
    assert isinstance(pipeline.heal(), str)
    pipeline.set_clock(NOW + 11 * MINUTE)
    requests = pipeline.heal()
    assert isinstance(requests, list)
    (request,) = requests
    tags = {**pipeline.definitions.resolve_job_def("power_pending").tags, **request.tags}
    assert pipeline.execute("power_pending", None, tags).success
    assert pipeline.green(INFLUXDB_POWER) == {hour_key(NOW)}


def locked_after(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    """Let the device refuse the login after so many requests from now on."""
    left = [requests]
    check = DigestLogin.check

    def counting(login: DigestLogin, method: str, target: str, authorization: str) -> Answer:
        left[0] -= 1
        return check(login, method, target, authorization) if left[0] >= 0 else Answer.REFUSED

    monkeypatch.setattr(DigestLogin, "check", counting)


def test_a_start_date_brings_the_past_once(tmp_path: Path) -> None:
    start = (TODAY - 50 * DAY).astimezone(JAPAN).date()
    known = hour_key(TODAY - 44 * DAY)
    with simulated_pipeline(tmp_path, {"AISEG2_START_DATE": str(start)}, memory_days=45) as pipeline:
        assert isinstance(pipeline.heal(), str)
        pipeline.minute(NOW - HOUR)
        pipeline.set_clock(NOW)
        assert _range_starts(pipeline)[0] == f"{start}-00:00"
        assert pipeline.run("power_fill", f"{start}-00:00", known).success
        assert known in pipeline.green(POWER_READINGS)
        # What lies before the device's memory is noted, and not asked for again, not after a day either.
        following = hour_key(TODAY - 44 * DAY + HOUR)
        assert _range_starts(pipeline)[0] == following
        pipeline.set_clock(NOW + 2 * DAY)
        assert _range_starts(pipeline)[0] == following


def _range_starts(pipeline: SimulatedPipeline) -> list[str]:
    requests = pipeline.heal()
    assert isinstance(requests, list)
    return [request.tags["dagster/asset_partition_range_start"] for request in requests]
