"""The assets, checks and schedule in Dagster, with a device over HTTP, a store on disk and a real InfluxDB."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dagster import (
    BackfillPolicy,
    DagsterEventType,
    Definitions,
    asset,
)
from filelock import FileLock

from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.gaps.past import first_hour, note_first_hour
from aiseg2_pipeline.influxdb.delivery import LEAST_REQUEST_S
from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.keys import INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import hourly
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.device import (
    FLOW,
    FLOW_HTML,
    LIST,
    Answer,
    Device,
    circuit_list,
    circuits_path,
    flow_json,
    household,
)
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.influxdb_proxy import Fault
from aiseg2_pipeline_tests.support.pipeline import (
    HOME,
    HOUR,
    NOW,
    Pipeline,
    alone,
    device,
    environment,
    failure,
    partition_range,
    pipeline,
    pipeline_in,
)

# Fixtures of `support.pipeline`.
__all__ = ["alone", "device", "environment", "pipeline"]


def test_a_minute_stores_a_frame_that_influxdb_returns_unchanged_and_shows_its_numbers(
    pipeline: Pipeline, influx: Influx
) -> None:
    assert pipeline.minute().success
    rows = pipeline.rows()
    assert set(rows["time"]) == {pd.Timestamp(NOW)}
    assert rows.set_index("name")["value"].to_dict() == {
        "総発電電力": 2.1,
        "総消費電力": 1.2,
        "売買電力": 0.9,
        "太陽光発電": 2130,
        "ＬＤ": 224,
        "a,b=c \\d🔌": 80,
        "ＩＨ": 0,
    }
    pd.testing.assert_frame_equal(influx.readings().sort_values(KEY, ignore_index=True), rows)
    assert pipeline.green(POWER_READINGS) == pipeline.green(INFLUXDB_POWER) == {"2026-07-14-08:00"}
    metadata = pipeline.metadata(POWER_READINGS)
    assert metadata["rows"] == metadata["series"] == pipeline.metadata(INFLUXDB_POWER)["rows"] == 7
    assert metadata["readings"] == 1
    assert (metadata["generation_kw"], metadata["consumption_kw"], metadata["grid"]) == (2.1, 1.2, "selling")
    assert metadata["device_latency_s"] > 0
    assert [record.data["circuit"] for record in metadata["circuits"]][:2] == ["ＬＤ", "a,b=c \\d🔌"]


def test_several_readings_of_one_second_are_one(alone: Pipeline) -> None:
    several = Pipeline(alone.environment | {"AISEG2_SAMPLES_PER_MINUTE": "3"})
    assert several.minute(NOW.replace(second=49)).success
    assert several.metadata(POWER_READINGS)["readings"] == 3
    assert len(several.rows()) == several.metadata(POWER_READINGS)["series"]


def test_the_checks_are_evaluated_for_each_reading(alone: Pipeline, device: Device) -> None:
    alone.minute()
    assert {name: passed for name, (passed, _) in alone.checks().items()} == {
        "circuits_within_total": True,
        "device_clock": True,
        "every_circuit_present": True,
        "no_rows_from_the_future": True,
        "record_complete": True,
    }
    device.pages[FLOW] = flow_json(u_capacity="0.1")
    device.pages[circuits_path(1)] = b"<html>busy</html>"
    alone.minute(NOW + timedelta(minutes=5))
    failed = {name: text for name, (passed, text) in alone.checks().items() if not passed}
    assert set(failed) == {"every_circuit_present"}
    assert "ＬＤ" in failed["every_circuit_present"]
    device.pages |= {circuits_path(1): household(HOME)[circuits_path(1)]}
    alone.minute(NOW + timedelta(minutes=6))
    checks = alone.checks()
    assert not checks["circuits_within_total"][0]
    assert not checks["device_clock"][0]
    assert "behind" in checks["device_clock"][1]


def test_names_that_do_not_match_the_list_fail_their_check_and_cost_no_circuit(
    alone: Pipeline, device: Device
) -> None:
    device.pages[LIST] = circuit_list(["ＬＤ", "ＩＨ", "ＩＨ", "納戸", "書斎"])
    alone.minute()
    assert list(alone.rows()["kind"]).count("usage") == 3
    failed = {name: text for name, (passed, text) in alone.checks().items() if not passed}
    assert set(failed) == {"every_circuit_present"}
    assert "(page 734: 書斎, 納戸; page 1113: a,b=c \\d🔌)" in failed["every_circuit_present"]


def test_rows_from_the_future_fail_their_check_with_the_command_that_removes_them(alone: Pipeline) -> None:
    alone.minute(NOW - HOUR)
    alone.minute(NOW + timedelta(days=1))
    alone.minute(NOW)
    passed, text = alone.checks()["no_rows_from_the_future"]
    assert not passed
    assert "aiseg2-pipeline remove --from 2026-07-15T08:15:20+09:00 --to 2026-07-15T08:15:20+09:00" in text
    assert len(set(alone.rows()["time"])) == 3


def test_without_an_influxdb_nothing_is_written_and_all_checks_can_be_run(alone: Pipeline) -> None:
    assert alone.minute().success
    assert (alone.green(POWER_READINGS), alone.green(INFLUXDB_POWER)) == ({"2026-07-14-08:00"}, set())
    evaluations = {each.check_name: each.passed for each in alone.run_checks().get_asset_check_evaluations()}
    checks = alone.definitions.resolve_asset_graph().asset_check_keys
    assert evaluations == {key.name: True for key in checks}


def test_a_run_that_starts_after_its_minute_takes_no_reading_and_succeeds(alone: Pipeline, device: Device) -> None:
    result = alone.minute(NOW + timedelta(minutes=1), minute=NOW.replace(second=0))
    assert result.success
    assert device.requests == 0
    assert alone.green(POWER_READINGS) == set()


def test_an_hour_without_rows_is_not_green_alone_or_in_a_range(pipeline: Pipeline) -> None:
    pipeline.minute(NOW - 3 * HOUR)
    pipeline.minute(NOW - HOUR)
    pipeline.now = NOW
    hours = {"2026-07-14-05:00", "2026-07-14-07:00"}
    assert pipeline.green(POWER_READINGS) == hours
    assert pipeline.by_hand(NOW - 3 * HOUR, NOW - HOUR).success
    assert pipeline.by_hand(NOW - 3 * HOUR, NOW - HOUR, [INFLUXDB_POWER]).success
    assert pipeline.by_hand(NOW - 2 * HOUR).success
    assert pipeline.green(POWER_READINGS) == pipeline.green(INFLUXDB_POWER) == hours


def test_materializing_the_running_hour_by_hand_takes_a_reading(pipeline: Pipeline) -> None:
    note_first_hour(pipeline.settings.first_partition_path, NOW - 2 * HOUR)
    pipeline.now = NOW
    assert pipeline.by_hand(NOW).success
    assert len(set(pipeline.rows()["time"])) == 1
    assert pipeline.by_hand(NOW - 2 * HOUR, NOW).success
    assert pipeline.green(POWER_READINGS) == {"2026-07-14-08:00"}


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ({FLOW: b"<html>login</html>", FLOW_HTML: b"<html>login</html>"}, "electricflow/111"),
        ({FLOW: Answer(b"", 404), FLOW_HTML: Answer(b"", 404)}, "AISEG2_HOST"),
        ({FLOW: Answer(b"", 403)}, "AISEG2_PASSWORD"),
        ({FLOW: flow_json(g_capacity=None)}, "g_capacity"),
        ({FLOW: flow_json(measReg=0)}, "measuring unit"),
    ],
)
def test_a_minute_without_a_reading_fails_with_one_sentence_and_no_point(
    pipeline: Pipeline, device: Device, influx: Influx, pages: dict[str, Any], words: str
) -> None:
    device.pages |= pages
    result = pipeline.minute()
    assert not result.success
    assert words in failure(result)
    assert "Traceback" not in failure(result)
    assert pipeline.green(POWER_READINGS) == pipeline.green(INFLUXDB_POWER) == set()
    assert pipeline.rows().empty
    assert influx.proxy.requests == []


def test_what_influxdb_missed_while_it_was_away_is_there_afterwards_once(
    pipeline: Pipeline, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.minute(NOW - 2 * HOUR)
    monkeypatch.setattr("aiseg2_pipeline.orchestration.resources.WRITE_OUT_S", 1.0)
    influx.server.stop()
    for minutes in (59, 0):
        result = pipeline.minute(NOW - timedelta(minutes=minutes))
        assert not result.success
        assert "kept" in failure(result)
    assert pipeline.green(INFLUXDB_POWER) == {"2026-07-14-06:00"}
    assert pipeline.green(POWER_READINGS) == {"2026-07-14-06:00", "2026-07-14-07:00", "2026-07-14-08:00"}
    influx.server.start()
    monkeypatch.undo()
    assert pipeline.minute(NOW + timedelta(minutes=1)).success
    assert pipeline.green(INFLUXDB_POWER) == pipeline.green(POWER_READINGS)
    pd.testing.assert_frame_equal(influx.readings().sort_values(KEY, ignore_index=True), pipeline.rows())


def test_a_write_is_retried_within_its_ten_seconds(pipeline: Pipeline, influx: Influx) -> None:
    answers = [Fault(503), Fault(429, {"Retry-After": "1"})]
    influx.proxy.fault = lambda _: answers.pop() if answers else None
    result = pipeline.minute()
    assert result.success
    retried = [event for event in result.all_events if event.event_type == DagsterEventType.STEP_RESTARTED]
    assert len(retried) == 2
    assert pipeline.green(INFLUXDB_POWER) == {"2026-07-14-08:00"}


def test_the_retries_of_a_write_end_before_its_time_does(
    pipeline: Pipeline, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiseg2_pipeline.orchestration.resources.WRITE_OUT_S", 3.0)
    influx.proxy.fault = lambda _: Fault(503)
    result = pipeline.minute()
    assert not result.success
    waits_s = [
        event.step_retry_data.seconds_to_wait or 0
        for event in result.all_events
        if event.event_type == DagsterEventType.STEP_UP_FOR_RETRY
    ]
    # The policy's own are 0.5, 1.5 and 3.5 s, more or less.
    assert len(waits_s) >= 2
    assert sum(waits_s) <= 3.0 - LEAST_REQUEST_S
    assert "kept" in failure(result)


def test_a_background_run_waits_as_long_as_the_server_asks_but_not_for_days(
    pipeline: Pipeline, influx: Influx
) -> None:
    influx.proxy.token = "another"
    pipeline.minute()
    influx.proxy.token = None
    answers = [Fault(503, {"Retry-After": "61"})]
    influx.proxy.fault = lambda _: answers.pop() if answers else None
    result = pipeline.pending()
    assert not result.success
    assert "kept" in failure(result)
    answers = [Fault(503, {"Retry-After": "1"})]
    assert pipeline.pending().success
    assert pipeline.green(INFLUXDB_POWER) == {"2026-07-14-08:00"}


def test_a_refused_token_is_not_retried_and_the_message_names_its_setting(
    pipeline: Pipeline, influx: Influx
) -> None:
    influx.server.allow(influx.token, active=False)
    result = pipeline.minute()
    assert not result.success
    assert "INFLUXDB_TOKEN" in failure(result)
    assert influx.token not in failure(result)
    assert len(influx.proxy.requests) == 1
    influx.server.allow(influx.token, active=True)
    assert pipeline.minute(NOW + timedelta(minutes=1)).success


def test_a_refusal_is_reported_even_while_another_process_holds_the_store(
    pipeline: Pipeline, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiseg2_pipeline.store.database.BUSY_S", 0.05)
    held = FileLock(f"{pipeline.settings.store_path}.lock", thread_local=False)

    def hold() -> None:
        held.acquire()

    influx.proxy.token = "another"
    influx.proxy.fault = lambda _: Fault(None, take=True, then=hold)
    try:
        result = pipeline.minute()
    finally:
        held.release(force=True)
    assert not result.success
    assert "INFLUXDB_TOKEN" in failure(result)


def test_every_row_is_pending_for_a_bucket_of_another_name(
    pipeline: Pipeline,
    environment: dict[str, str],
    influx: Influx,
) -> None:
    pipeline.minute(NOW - 2 * HOUR)
    pipeline.minute(NOW - HOUR)
    with Influx(influx.server, "another") as another, pipeline_in(environment, another) as moved:
        assert moved.minute().success
        pd.testing.assert_frame_equal(another.readings().sort_values(KEY, ignore_index=True), pipeline.rows())
        # The first partition was noted with the first run, so every hour can turn green.
        assert moved.green(INFLUXDB_POWER) == {"2026-07-14-06:00", "2026-07-14-07:00", "2026-07-14-08:00"}


def test_nothing_of_the_demo_ever_reaches_a_configured_influxdb(pipeline: Pipeline, influx: Influx) -> None:
    simulated = running(Household(), clock=lambda: NOW - timedelta(minutes=1))
    with simulated as unit:
        demo = Pipeline(
            {
                "AISEG2_SIMULATOR_PORT": unit.address.rpartition(":")[2],
                "AISEG2_DATA_DIR": pipeline.environment["AISEG2_DATA_DIR"],
            }
        )
        assert demo.minute(NOW - timedelta(minutes=1)).success
    assert len(demo.rows()) > 0
    assert pipeline.minute().success
    pd.testing.assert_frame_equal(influx.readings().sort_values(KEY, ignore_index=True), pipeline.rows())
    assert set(pipeline.rows()["time"]) == {pd.Timestamp(NOW)}


def test_materializing_an_hour_by_hand_writes_all_its_rows_again(pipeline: Pipeline, influx: Influx) -> None:
    pipeline.minute(NOW - HOUR)
    pipeline.minute()
    influx.empty()
    pipeline.minute(NOW + timedelta(minutes=1))
    assert len(set(influx.readings()["time"])) == 1
    assert pipeline.by_hand(NOW - HOUR, NOW, [INFLUXDB_POWER]).success
    pd.testing.assert_frame_equal(influx.readings().sort_values(KEY, ignore_index=True), pipeline.rows())


def test_an_unusable_store_is_one_sentence(alone: Pipeline, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "readings.sqlite").mkdir()
    result = alone.minute()
    assert not result.success
    assert str(data / "readings.sqlite") in failure(result)


def test_a_reading_a_write_and_an_error_are_each_logged_as_a_json_line(
    pipeline: Pipeline, device: Device, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline.minute()
    device.pages[FLOW] = Answer(b"", 403)
    pipeline.minute(NOW + timedelta(minutes=1))
    printed = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    by_event: dict[str, dict[str, Any]] = {line["event"]: line for line in printed}
    assert by_event["reading"]["rows"] == 7
    assert by_event["write_out"]["points"] == 7
    assert "AISEG2_PASSWORD" in by_event["error"]["message"]


def test_an_asset_of_another_author_gets_a_frame_of_any_partition_range(alone: Pipeline) -> None:
    for hours in (3, 2, 1, 0):
        alone.minute(NOW - hours * HOUR)
    loaded: list[pd.DataFrame] = []

    @asset(
        partitions_def=hourly(first_hour(alone.settings.first_partition_path, NOW)),
        backfill_policy=BackfillPolicy.single_run(),
    )
    def theirs(power_readings: pd.DataFrame) -> None:
        loaded.append(power_readings)

    job = Definitions.merge(alone.definitions, Definitions([theirs])).resolve_implicit_global_asset_job_def()
    theirs_alone = job.get_subset(asset_selection={theirs.key})
    tags = partition_range(hour_key(NOW - 2 * HOUR), hour_key(NOW - HOUR))
    assert theirs_alone.execute_in_process(instance=alone.instance, tags=tags).success
    assert set(loaded[0]["time"]) == {pd.Timestamp(NOW - 2 * HOUR), pd.Timestamp(NOW - HOUR)}
    expected = alone.rows()
    ours = expected[expected["time"].isin(loaded[0]["time"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(loaded[0].sort_values(KEY, ignore_index=True), ours)
