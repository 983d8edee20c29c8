"""The demo's first start: everything that a newcomer looks at is there at once, and a killed one is completed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import AssetKey, DagsterInstance

from aiseg2_pipeline.gaps import simulated
from aiseg2_pipeline.japan_time import DAY, day_of, day_start, hour_key, hour_of
from aiseg2_pipeline.orchestration.keys import CLIMATE, ENERGY_COST, ENERGY_HISTORY, POWER_READINGS
from aiseg2_pipeline.report.saving import report_path
from aiseg2_pipeline_tests.support.running_pipeline import free_ports, live_times, refusal, started

# Three minutes were promised; a machine that runs other tests beside this one is slower.
WITHIN_S = 400


def green(asset: AssetKey) -> set[str]:
    with DagsterInstance.get() as instance:
        return instance.get_materialized_partitions(asset)


def test_a_real_device_is_not_read_into_the_folder_of_a_simulated_home(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / simulated.UNTIL).touch()
    real = free_ports() | {"AISEG2_HOST": "192.0.2.1", "AISEG2_PASSWORD": "secret"}
    assert f"{tmp_path / 'data'} has readings of a simulated home" in refusal(tmp_path, real)


def test_a_demo_has_its_past_its_picture_and_green_assets_within_minutes_even_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = tmp_path / "a folder" / "data" / "demo", free_ports()
    monkeypatch.setenv("DAGSTER_HOME", str(data / "dagster"))
    with started(tmp_path, settings, past=True) as pipeline:
        pipeline.wait((data / "energy.sqlite").exists)
    until = simulated.due(data)
    assert until is not None
    with started(tmp_path, settings, past=True) as pipeline:
        began = datetime.now(UTC)
        today = day_of(until)
        pipeline.wait(lambda: any(time > began for time in live_times(data / "readings.sqlite")), WITHIN_S)
        pipeline.wait(lambda: report_path(data, today - DAY).exists(), WITHIN_S)
        days = {(today - n * DAY).isoformat() for n in range(8)}
        pipeline.wait(lambda: days <= green(ENERGY_HISTORY), WITHIN_S)
        pipeline.wait(lambda: days <= green(ENERGY_COST), WITHIN_S)
        week = day_start(today - 7 * DAY)
        hours = {
            hour_key(week + timedelta(hours=n))
            for n in range(7 * 24 + (until - day_start(today)) // timedelta(hours=1))
        }
        pipeline.wait(lambda: hours <= green(POWER_READINGS), WITHIN_S)
        assert {(today - n * DAY).isoformat() for n in range(1, 8)} <= green(CLIMATE)
        assert simulated.stored_at(data)
        assert hour_of(until) in {hour_of(time) for time in live_times(data / "readings.sqlite")}
