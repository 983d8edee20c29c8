"""A damaged store in the pipeline: the live reading is stored, the household gets a message, and rows are restored."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.fill import NOT_SALVAGED
from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.assets.energy_history import lines
from aiseg2_pipeline.orchestration.keys import POWER_READINGS
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.damage import DamagedFile, damaged_files
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.store.schema import VERSION
from aiseg2_pipeline_tests.support.alerts import Telephone, Watch, phone, settings, watch
from aiseg2_pipeline_tests.support.damage import execute_in, replace, zero_table
from aiseg2_pipeline_tests.support.pipeline import (
    NOW,
    Pipeline,
    alone,
    device,
    environment,
)

# Fixtures of other modules.
__all__ = ["alone", "device", "environment", "phone", "settings", "watch"]

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NO_DEVICE = {"AISEG2_HOST": "127.0.0.1:1", "AISEG2_PASSWORD": "x"}


def run_after_damage(pipeline: Pipeline) -> DamagedFile:
    """Read a minute two hours ago, damage the store, and read a minute now; return the damaged file."""
    assert pipeline.minute(NOW - 2 * HOUR).success
    zero_table(pipeline.settings.store_path, "meta")
    assert pipeline.minute(NOW).success
    (kept,) = damaged_files(pipeline.settings.store_path)
    return kept


def requested_jobs(pipeline: Pipeline) -> list[str | None]:
    """Return the jobs that the backfill sensor requests."""
    requests = pipeline.heal()
    return [request.job_name for request in requests] if isinstance(requests, list) else []


def restore(pipeline: Pipeline) -> None:
    job = pipeline.definitions.resolve_job_def("salvage_the_record")
    assert job.execute_in_process(instance=pipeline.instance).success


def test_the_run_that_finds_the_damage_stores_its_reading_in_the_new_file_and_warns(alone: Pipeline) -> None:
    kept = run_after_damage(alone)
    assert set(alone.rows()["time"]) == {NOW}
    assert hour_key(NOW) in alone.green(POWER_READINGS)
    (run,) = alone.instance.get_run_records(limit=1)
    logs = alone.instance.all_logs(run.dagster_run.run_id)
    (warning,) = [entry for entry in logs if "was damaged" in entry.user_message]
    assert kept.path.name in warning.user_message
    assert str(warning.level) == "30"


def test_nothing_is_filled_and_no_energy_is_written_before_rows_and_circuits_are_restored(alone: Pipeline) -> None:
    run_after_damage(alone)
    assert requested_jobs(alone) == ["salvage_the_record"]
    fill = alone.by_hand(NOW - 2 * HOUR, assets=[POWER_READINGS])
    assert any(NOT_SALVAGED in entry.user_message for entry in alone.instance.all_logs(fill.run_id))
    table = energy.frame([energy.interval(NOW - 3 * HOUR, energy.USAGE, "10", 5.0, energy.HOUR_S)])
    with Store.open(alone.settings.store_path) as store:
        with pytest.raises(StoreError, match="names of the circuits may be recoverable"):
            lines(store, table)
        restore(alone)
        ((line,),) = lines(store, table)
    assert "detail-section=ＩＨ," in line
    assert set(alone.rows()["time"]) == {NOW - 2 * HOUR, NOW}
    (kept,) = damaged_files(alone.settings.store_path)
    assert (kept.salvaged or "").endswith("all of it could be read.")
    assert "salvage_the_record" not in requested_jobs(alone)


def test_the_circuits_of_several_damaged_files_are_restored(alone: Pipeline) -> None:
    path = alone.settings.store_path
    circuits = {
        NOW - n * DAY: [Circuit("1", name)] for n, name in ((3, "居間"), (2, "書斎"), (1, "寝室"), (0, "洋室"))
    }
    for at, of_day in circuits.items():
        with Store.open(path, lambda _: None) as store:
            store.record_circuits(of_day, at)
        if at != NOW:
            replace(path)
        if at == NOW - 2 * DAY:
            # The first and the second file are damaged in different seconds, the second and the third in one.
            time.sleep(1 - time.time() % 1)
    restore(alone)
    with Store.open(path) as store:
        assert {at: store.circuits_at(at) for at in circuits} == circuits


def test_closing_the_day_checks_all_files(alone: Pipeline) -> None:
    alone.minute(NOW)
    job = alone.definitions.resolve_job_def("close_the_day")
    assert job.execute_in_process(instance=alone.instance).success
    # No run reads this table.
    zero_table(alone.settings.energy_path, "circuits")
    result = job.execute_in_process(instance=alone.instance, raise_on_error=False)
    assert not result.success
    assert "energy-damaged-" in str(result.all_events)
    assert len(damaged_files(alone.settings.energy_path)) == 1


def test_a_newer_store_fails_the_run_with_its_message(alone: Pipeline) -> None:
    alone.minute(NOW - MINUTE)
    execute_in(alone.settings.store_path, f"PRAGMA user_version = {VERSION + 1}")
    result = alone.minute(NOW)
    assert not result.success
    assert "is from a newer aiseg2-pipeline" in str(result.failure_data_for_node("power_readings"))
    assert requested_jobs(alone) == []


def test_the_household_gets_a_message_for_the_damage_the_restored_rows_and_the_deletion(
    watch: Watch, phone: Telephone
) -> None:
    path = watch.settings.store_path
    watch.read(NOW)
    watch.look(NOW)
    zero_table(path, "meta")
    watch.read(NOW + MINUTE)
    then = watch.look_for(3, NOW + MINUTE)
    (kept,) = damaged_files(path)
    watch.restart()
    environment = NO_DEVICE | {"AISEG2_DATA_DIR": str(path.parent)}
    assert CliRunner().invoke(main, ["salvage"], env=environment).exit_code == 0
    watch.read(then)
    then = watch.look_for(3, then)
    for file in path.parent.glob("readings-damaged-*"):
        file.unlink()
    watch.read(then)
    watch.look_for(2, then)
    assert phone.titles == [
        "記録ファイルが壊れました",
        "壊れた記録ファイルから読み出せる記録を戻しました",
        "壊れた記録ファイルは削除されました",
    ]
    assert kept.path.name in phone.got[0][1]
    assert "1 rows were restored" in phone.got[1][1]


def test_the_commands_list_damaged_files_and_restore_one_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Do not wait for the device.
    monkeypatch.setattr("aiseg2_pipeline.cli.doctor.READING_TIMEOUT_S", 0.1)
    path = tmp_path / "data" / "readings.sqlite"
    for n in range(3):
        with Store.open(path, lambda _: None) as store:
            store.upsert(frame([Row(NOW - n * DAY, "total", "売買電力", 1.0, "kW", 0)]))
        replace(path)
    first = damaged_files(path)[0].path

    def invoke(*arguments: str) -> str:
        return CliRunner().invoke(main, arguments, env=NO_DEVICE).output

    assert f"Rows of the damaged store {first} may be recoverable" in invoke("gaps")
    report = invoke("doctor")
    assert f"FAIL damaged store: {first} is a damaged store" in report
    assert "aiseg2-pipeline salvage" in report
    one = f"{first.name}: 1 rows were restored, 0 were stored already; all of it could be read."
    assert one in invoke("salvage", str(first))
    assert [kept.salvaged is None for kept in damaged_files(path)] == [False, True, True]
    assert invoke("salvage").count("1 rows were restored") == 2
    with Store.open(path) as store:
        assert len(store.read(NOW - 9 * DAY, NOW + DAY)) == 3
    assert "There is no damaged store" in invoke("salvage")
    assert "0 rows were restored, 1 were stored already" in invoke("salvage", str(first))
    assert "is not a damaged store of" in invoke("salvage", str(path))
    assert "may be recoverable" not in invoke("gaps")
    report = invoke("doctor")
    assert f"--   damaged store: {first} is kept and may be deleted. " in report
    assert "FAIL damaged" not in report
