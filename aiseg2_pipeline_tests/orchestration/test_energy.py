"""The device's energy, fills, their checks and the backfill sensor in Dagster, with the simulator as the device."""

import gc
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

import pandas as pd
import pytest
from dagster import AssetMaterialization, DagsterRunStatus

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps import past
from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.assets import influxdb as write_out
from aiseg2_pipeline.orchestration.assets import power_readings
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, INFLUXDB_ENERGY, INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import day_key, hourly
from aiseg2_pipeline.orchestration.sensors import backfill
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.login import Answer, DigestLogin
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.tags import BACKGROUND_TAG, MINUTE_TAG
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.pipeline import DAY, HOUR, MINUTE, failure
from aiseg2_pipeline_tests.support.simulated_pipeline import (
    NOW,
    TODAY,
    YESTERDAY,
    SimulatedPipeline,
    hour_keys,
    simulated_pipeline,
)
from aiseg2_pipeline_tests.support.simulator_client import JAPAN

MEMORY_DAYS = 10
# Requests to the device in which it answers those of one day, but not those of two.
OF_ONE_DAY = 50


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[SimulatedPipeline]:
    """A pipeline without an InfluxDB, and a device that was off yesterday from two to five."""
    off = (YESTERDAY + 2 * HOUR, YESTERDAY + 5 * HOUR)
    with simulated_pipeline(tmp_path, {}, outages=[off], memory_days=MEMORY_DAYS) as pipeline:
        yield pipeline


@pytest.fixture
def pipeline(tmp_path: Path, influx: Influx) -> Iterator[SimulatedPipeline]:
    """A pipeline that writes to an empty bucket of the real server."""
    with simulated_pipeline(tmp_path, influx.settings, memory_days=MEMORY_DAYS) as writing:
        yield writing


def hours_from(first: datetime, count: int) -> set[str]:
    return hour_keys(*(first + n * HOUR for n in range(count)))


def refuse_login_after(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    """Let the device refuse the login after this number of requests."""
    left = [requests]
    check = DigestLogin.check

    def counting(login: DigestLogin, method: str, target: str, authorization: str) -> Answer:
        left[0] -= 1
        return check(login, method, target, authorization) if left[0] >= 0 else Answer.REFUSED

    monkeypatch.setattr(DigestLogin, "check", counting)


# Energy


def test_a_past_day_is_stored_with_its_circuits_and_written_and_again_without_a_change(
    pipeline: SimulatedPipeline, influx: Influx
) -> None:
    assert pipeline.run("energy_day", day_key(TODAY - (MEMORY_DAYS + 1) * DAY)).success
    for changed in (True, False):
        requests = pipeline.requests()
        assert pipeline.run("energy_day", day_key(YESTERDAY)).success
        assert pipeline.requests() > requests
        # The older day has no energy, so that it is green in neither asset.
        assert pipeline.green(ENERGY_HISTORY) == pipeline.green(INFLUXDB_ENERGY) == {day_key(YESTERDAY)}
        rows = pipeline.energy()
        rows = rows[rows["time"] >= YESTERDAY]
        assert len(rows[rows["kind"] == "usage"]) == 24 * 32
        metadata = pipeline.metadata(ENERGY_HISTORY, day_key(YESTERDAY))
        assert metadata["source"] == "graph pages, hours"
        assert metadata["rows"] == len(rows)
        assert metadata["changed"] == (len(rows) if changed else 0)
        assert len(influx.points("energy")) == len(rows[rows["interval_s"] == 3600])


def test_today_is_stored_without_its_circuits(alone: SimulatedPipeline) -> None:
    assert alone.run("energy_day", day_key(TODAY)).success
    assert alone.requests("/page/graph/584") == 0
    rows = alone.energy()
    hours = rows.loc[rows["kind"] == "consumption", "time"]
    assert [time.tz_convert(JAPAN).hour for time in hours] == list(range(12))


def test_a_range_of_days_is_one_run_and_only_days_with_energy_are_green(alone: SimulatedPipeline) -> None:
    oldest = TODAY - MEMORY_DAYS * DAY
    result = alone.run("energy_day", day_key(oldest - DAY), day_key(oldest + DAY))
    assert result.success
    assert alone.green(ENERGY_HISTORY) == {day_key(oldest), day_key(oldest + DAY)}
    assert alone.metadata(ENERGY_HISTORY, day_key(oldest + DAY))["rows"] > 24 * 36
    assert "3 of 3 days done" in alone.log(result)


def test_a_device_that_fails_during_a_range_of_days_keeps_the_days_before(
    alone: SimulatedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_login_after(monkeypatch, OF_ONE_DAY)
    first = TODAY - 4 * DAY
    result = alone.run("energy_day", day_key(first), day_key(first + 2 * DAY))
    assert not result.success
    assert "AISEG2_PASSWORD" in failure(result)
    assert "Traceback" not in failure(result)
    assert alone.green(ENERGY_HISTORY) == {day_key(time) for time in alone.energy()["time"]} == {day_key(first)}


def test_while_the_clocks_differ_nothing_is_stored_and_the_run_fails_with_the_difference(
    alone: SimulatedPipeline,
) -> None:
    alone.minute(NOW - 3 * HOUR)
    alone.set_clock(NOW)
    alone.unit.set_clock(NOW + 3 * MINUTE)
    for job, key in (("energy_day", day_key(YESTERDAY)), ("power_fill", hour_key(NOW - 3 * HOUR))):
        result = alone.run(job, key)
        assert not result.success
        assert "180 s ahead" in failure(result)
    assert alone.energy().empty
    assert set(alone.rows()["interval_s"]) == {0}


@pytest.mark.parametrize(("device_ahead", "agree"), [(timedelta(), True), (-2 * MINUTE, False)])
def test_the_clocks_are_compared_at_the_time_of_the_request(
    alone: SimulatedPipeline, *, device_ahead: timedelta, agree: bool
) -> None:
    alone.minute(NOW - 3 * HOUR)
    times: Iterator[datetime] = repeat(NOW)
    alone.definitions = build_definitions(alone.settings, lambda: next(times))
    # The run reads its clock twice before its first request, which is two minutes later.
    times = chain([NOW, NOW], repeat(NOW + 2 * MINUTE))
    alone.unit.set_clock(NOW + 2 * MINUTE + device_ahead)
    assert alone.run("power_fill", hour_key(NOW - 3 * HOUR)).success == agree
    assert alone.energy().empty == (not agree)


# Fills


def test_a_fill_adds_the_missing_minutes_of_an_hour_and_keeps_the_live_one(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - 3 * HOUR)
    live = alone.rows()
    alone.set_clock(NOW)
    key = hour_key(NOW - 3 * HOUR)
    assert alone.run("power_fill", key).success
    metadata = alone.metadata(POWER_READINGS, key)
    assert (metadata["live_minutes"], metadata["filled_minutes"], metadata["missing_minutes"]) == (1, 59, 0)
    assert metadata["device_kwh"] > 0
    assert abs(metadata["difference_percent"]) < 0.1
    # Under the names of a live reading, so that the plots of an hour continue.
    assert metadata["consumption_kw"] == pytest.approx(metadata["device_kwh"], abs=0.001)
    assert metadata["generation_kw"] > 0
    rows = alone.rows()
    pd.testing.assert_frame_equal(rows[rows["interval_s"] == 0].reset_index(drop=True), live)
    assert metadata["rows"] == len(rows)


def test_a_range_of_hours_is_one_run_and_only_hours_with_rows_are_green(alone: SimulatedPipeline) -> None:
    first, last = YESTERDAY - HOUR, YESTERDAY + 6 * HOUR
    alone.minute(first + 5 * MINUTE)
    alone.set_clock(last + HOUR + 10 * MINUTE)
    result = alone.run("power_fill", hour_key(first), hour_key(last))
    assert result.success
    assert "1 of 8 hours done" in alone.log(result)
    # The device was off from two to five.
    missing = hours_from(YESTERDAY + 2 * HOUR, 3)
    assert alone.green(POWER_READINGS) == hours_from(first, 8) - missing
    metadata = alone.metadata(POWER_READINGS, hour_key(last))
    assert (metadata["live_minutes"], metadata["filled_minutes"], metadata["missing_minutes"]) == (0, 60, 0)
    assert metadata["difference_percent"] == 0
    passed, text = alone.checks()["record_complete"]
    assert not passed
    assert {key for key in hours_from(first, 8) if key in text} == missing
    rows, requests = alone.rows(), alone.requests()
    assert alone.run("power_fill", hour_key(first), hour_key(last)).success
    pd.testing.assert_frame_equal(alone.rows(), rows)
    assert alone.requests() == requests


def test_a_fill_holds_as_much_memory_on_its_last_day_as_on_its_second(
    alone: SimulatedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def count(*_: object, **__: object) -> None:
        gc.collect()
        # They are what a fill makes for each hour.
        held.append(sum(isinstance(one, AssetMaterialization) for one in gc.get_objects()))

    first = TODAY - 4 * DAY
    alone.minute(first)
    alone.set_clock(NOW)
    monkeypatch.setattr(power_readings, "log_line", count)
    assert alone.run("power_fill", hour_key(first), hour_key(first + 95 * HOUR)).success
    assert len(held) == 4
    assert held[-1] <= held[1]
    assert len(alone.green(POWER_READINGS)) == 93


def test_filled_rows_are_written_by_the_next_minute(pipeline: SimulatedPipeline, influx: Influx) -> None:
    pipeline.minute(NOW - 3 * HOUR)
    pipeline.set_clock(NOW)
    assert pipeline.run("power_fill", hour_key(NOW - 3 * HOUR), hour_key(NOW - HOUR)).success
    pipeline.minute(NOW)
    rows = pipeline.rows()
    pd.testing.assert_frame_equal(influx.readings(), rows)
    assert len(set(rows["time"].dt.floor("min"))) == 3 * 60 + 1
    assert pipeline.green(INFLUXDB_POWER) == pipeline.green(POWER_READINGS)


def test_the_flow_of_a_home_with_a_battery_is_written_and_neither_filled_nor_missed(
    tmp_path: Path, influx: Influx
) -> None:
    key = hour_key(NOW - 3 * HOUR)
    with simulated_pipeline(tmp_path, influx.settings, household=Household(battery=True)) as pipeline:
        pipeline.minute(NOW - 3 * HOUR)
        pipeline.set_clock(NOW)
        assert pipeline.run("power_fill", key).success
        assert pipeline.metadata(POWER_READINGS, key)["missing_minutes"] == 0
        pipeline.minute(NOW)
        rows = pipeline.rows()
    flow = rows[rows["kind"] == "flow"]
    assert flow["time"].tolist() == [time for time in (NOW - 3 * HOUR, NOW) for _ in range(3)]
    assert set(flow["interval_s"]) == {0}
    pd.testing.assert_frame_equal(influx.readings(), rows)
    assert {point["summary"] for point in influx.points("flow")} == {"太陽光(kW)", "系統(kW)", "蓄電池(kW)"}


def test_an_hour_is_not_filled_before_the_fifth_minute_after_it(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - HOUR)
    hour = TODAY + 11 * HOUR
    for minutes, stored in ((4, 1), (8, 60)):
        alone.set_clock(hour + HOUR + minutes * MINUTE)
        assert alone.run("power_fill", hour_key(hour)).success
        assert len(set(alone.rows()["time"])) == stored


def test_a_device_that_fails_during_a_fill_keeps_the_days_before(
    alone: SimulatedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = TODAY - 4 * DAY
    alone.minute(first)
    alone.set_clock(NOW)
    refuse_login_after(monkeypatch, OF_ONE_DAY)
    result = alone.run("power_fill", hour_key(first), hour_key(first + 47 * HOUR))
    assert not result.success
    assert "AISEG2_PASSWORD" in failure(result)
    assert "Traceback" not in failure(result)
    assert alone.green(POWER_READINGS) == hours_from(first, 24)


# Checks


def test_record_complete_names_the_incomplete_hours_since_the_first_reading(alone: SimulatedPipeline) -> None:
    assert alone.run_checks().success
    assert alone.checks()["record_complete"][0]
    alone.minute(TODAY - 2 * DAY + 30 * MINUTE)
    alone.set_clock(NOW)
    assert alone.run("power_fill", hour_key(YESTERDAY), hour_key(YESTERDAY + HOUR)).success
    after_the_fill = alone.checks()["record_complete"]
    alone.run_checks()
    assert alone.checks()["record_complete"] == after_the_fill
    passed, text = after_the_fill
    assert not passed
    assert hour_key(TODAY - 2 * DAY) in text
    assert hour_key(TODAY - 2 * DAY + 23 * HOUR) in text
    assert hour_key(YESTERDAY) not in text


def test_record_complete_passes_where_every_minute_is_stored(alone: SimulatedPipeline) -> None:
    alone.minute(TODAY + 9 * HOUR)
    alone.set_clock(NOW)
    assert alone.run("power_fill", hour_key(TODAY + 9 * HOUR), hour_key(TODAY + 11 * HOUR)).success
    alone.run_checks()
    assert alone.checks()["record_complete"] == (True, "Nothing is missing; 179 of 180 minutes were filled.")


def test_energy_adds_up_names_the_hours_whose_energy_does_not(alone: SimulatedPipeline) -> None:
    alone.run_checks()
    assert "Not judged" in alone.checks()["energy_adds_up"][1]
    assert alone.run("energy_day", day_key(YESTERDAY)).success
    alone.run_checks()
    assert alone.checks()["energy_adds_up"] == (True, "All hours add up.")
    hour = YESTERDAY + 12 * HOUR
    with EnergyStore.open(alone.settings.energy_path) as store:
        store.upsert(energy.frame([Row(hour, "consumption", "consumption", 5.0, "Wh", 3600)]))
        alone.run_checks()
        passed, text = alone.checks()["energy_adds_up"]
        assert not passed
        assert hour_key(hour) in text
        # What charges a storage battery is not consumed.
        store.upsert(energy.frame([Row(hour, "battery-charge", "battery-charge", 500.0, "Wh", 3600)]))
        alone.run_checks()
        assert alone.checks()["energy_adds_up"][0]


# The backfill sensor


def test_each_contiguous_range_of_missing_hours_is_requested_once(alone: SimulatedPipeline) -> None:
    alone.minute(NOW - 30 * HOUR)
    alone.set_clock(NOW)
    assert alone.run("power_fill", hour_key(NOW - 12 * HOUR), hour_key(NOW - 11 * HOUR)).success
    requests = alone.healing()
    assert [(request.job_name, request.partition_key) for request in requests] == [("power_fill", None)] * 2
    assert [
        (request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"])
        for request in requests
    ] == [
        (hour_key(NOW - 30 * HOUR), hour_key(NOW - 13 * HOUR)),
        (hour_key(NOW - 10 * HOUR), hour_key(NOW - HOUR)),
    ]


def test_the_requested_runs_complete_the_record_and_the_rest_is_requested_again_a_day_later(
    alone: SimulatedPipeline,
) -> None:
    alone.minute(YESTERDAY + 30 * MINUTE)
    later = YESTERDAY + 7 * HOUR + 30 * MINUTE
    alone.set_clock(later)
    alone.execute_requests()
    # The device was off for three of these hours.
    assert len(alone.rows()["time"].dt.floor("h").value_counts()) == 7 - 3
    assert "Nothing is missing" in alone.heal()
    alone.set_clock(later + 25 * HOUR)
    assert hour_key(YESTERDAY + 2 * HOUR) in alone.requested_starts()


def test_half_an_hour_that_the_card_does_not_have_is_not_requested_again(tmp_path: Path) -> None:
    off = (TODAY + 3.5 * HOUR, TODAY + 4 * HOUR)
    with simulated_pipeline(tmp_path, {}, outages=[off], sd_card=True, card_days=2) as pipeline:
        pipeline.minute(TODAY + 2 * HOUR)
        pipeline.set_clock(TODAY + 5 * HOUR + 30 * MINUTE)
        pipeline.execute_requests()
        metadata = pipeline.metadata(POWER_READINGS, hour_key(TODAY + 3 * HOUR))
        assert (metadata["filled_minutes"], metadata["missing_minutes"]) == (30, 30)
        assert "Nothing is missing" in pipeline.heal()


def test_nothing_is_requested_before_the_first_reading_while_an_hour_settles_or_during_a_background_run(
    alone: SimulatedPipeline,
) -> None:
    assert "Nothing is missing" in alone.heal()
    alone.minute(TODAY + 10 * HOUR)
    alone.set_clock(TODAY + 11 * HOUR + 15 * MINUTE)
    assert "Nothing is missing" in alone.heal()
    alone.set_clock(TODAY + 11 * HOUR + 25 * MINUTE)
    assert alone.requested_starts() == [hour_key(TODAY + 10 * HOUR)]
    job = alone.definitions.resolve_job_def("power_fill")
    run = alone.instance.create_run_for_job(job, tags={BACKGROUND_TAG: "1"}, status=DagsterRunStatus.STARTED)
    assert "background run" in alone.heal()
    alone.instance.report_run_canceled(run)
    assert alone.healing()


def test_the_energy_of_a_day_that_was_not_read_at_its_end_is_requested(alone: SimulatedPipeline) -> None:
    names = ("総発電電力", "総消費電力", "売買電力")
    minutes = [YESTERDAY + n * MINUTE for n in range(36 * 60)]
    with Store.open(alone.settings.store_path) as store:
        store.upsert(frame([Row(minute, "total", name, 1.0, "kW", 0) for minute in minutes for name in names]))
    alone.set_clock(TODAY - 2 * HOUR)
    assert alone.run("energy_day", day_key(YESTERDAY)).success
    # The night's own run comes first.
    alone.set_clock(TODAY + 15 * MINUTE)
    assert "Nothing is missing" in alone.heal()
    alone.set_clock(TODAY + 12 * HOUR)
    (request,) = alone.healing()
    assert (request.job_name, request.partition_key) == ("energy_day", day_key(YESTERDAY))
    alone.execute_requests()
    assert "Nothing is missing" in alone.heal()


def test_a_minutes_run_writes_its_own_hour_then_other_stores_and_older_hours_while_there_is_time(
    pipeline: SimulatedPipeline, influx: Influx
) -> None:
    hours = [NOW.replace(minute=0, second=0) - n * HOUR for n in range(1, 61)]
    pipeline.store_rows(*hours)
    with EnergyStore.open(pipeline.settings.energy_path) as store:
        store.upsert(energy.frame([Row(YESTERDAY, "consumption", "consumption", 5.0, "Wh", 3600)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_out, "OLDER_END_S", 0)
        patch.setattr(write_out, "OLDER_LEAST_S", 0)
        pipeline.minute()
    assert pipeline.green(INFLUXDB_POWER) == {hour_key(NOW)}
    assert pipeline.green(INFLUXDB_ENERGY) == set()
    pipeline.minute(NOW + MINUTE)
    assert pipeline.green(INFLUXDB_POWER) == hour_keys(NOW, *hours)
    assert pipeline.green(INFLUXDB_ENERGY) == {day_key(YESTERDAY)}
    assert pipeline.metadata(INFLUXDB_POWER)["hours_pending"] == 0
    with Store.open(pipeline.settings.store_path) as readings:
        assert readings.pending_count(influx.destination) == 0


def test_pending_rows_are_written_while_the_device_gives_no_reading(
    pipeline: SimulatedPipeline, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiseg2_pipeline.orchestration.resources.WRITE_OUT_S", 1.0)
    influx.server.stop()
    minute = NOW.replace(second=0).isoformat(timespec="minutes")
    assert not pipeline.run("power_minute", hour_key(NOW), **{MINUTE_TAG: minute}).success
    influx.server.start()
    pipeline.set_clock(NOW + 1 * MINUTE)
    assert "Nothing is missing" in pipeline.heal()
    pipeline.set_clock(NOW + 3 * MINUTE)
    (request,) = pipeline.healing()
    assert request.job_name == "power_pending"
    pipeline.execute_requests()
    assert pipeline.green(INFLUXDB_POWER) == {hour_key(NOW)}


def test_a_start_date_years_ago_is_searched_in_short_runs_until_the_device_remembers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A month a run, 35 days that are checked again and again, and a month in vain take minutes.
    monkeypatch.setattr(backfill, "MOST_HOURS", 3 * 24)
    monkeypatch.setattr(backfill, "LOOK_BACK", 2 * DAY)
    monkeypatch.setattr(past, "FORGOTTEN_DAYS", 3)
    setting = {"AISEG2_START_DATE": "2018-04-01"}
    with simulated_pipeline(tmp_path, setting, memory_days=4) as pipeline:
        assert "Nothing is missing" in pipeline.heal()
        pipeline.minute(NOW - HOUR)
        pipeline.set_clock(NOW)
        assert pipeline.requested_starts() == [hour_key(NOW - 3 * DAY)]
        for _ in range(3):
            pipeline.execute_requests("power_fill")
        assert "Nothing is missing" in pipeline.heal()
        oldest = TODAY - 4 * DAY
        assert min(pipeline.green(POWER_READINGS)) == hour_key(oldest)
        # A fill that reads a day of energy materializes that day.
        assert pipeline.green(ENERGY_HISTORY) == {day_key(oldest + n * DAY) for n in range(5)}
        # After a restart the partitions begin there, and nothing is searched again.
        pipeline.configure(**setting)
        assert pipeline.definitions.resolve_asset_graph().get(POWER_READINGS).partitions_def == hourly(oldest)
        pipeline.set_clock(NOW + 2 * MINUTE)
        assert "Nothing is missing" in pipeline.heal()


def test_without_influxdb_there_are_no_influxdb_assets(alone: SimulatedPipeline) -> None:
    assert {key.to_user_string() for key in alone.definitions.resolve_asset_graph().materializable_asset_keys} == {
        "power_readings",
        "energy_history",
        "climate",
        "daily_report",
    }
