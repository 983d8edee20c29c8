"""A damaged store met by the pipeline: the minute goes on, the household is told, and the rows come back by themselves."""

import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from dagster import RunRequest, build_sensor_context

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.fill import NOT_SALVAGED
from aiseg2_pipeline.orchestration.assets.energy_history import lines
from aiseg2_pipeline.orchestration.partitions import hour_key
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.damage import DamagedFile, damaged_files
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.store.recovery import salvage
from aiseg2_pipeline.store.schema import VERSION
from aiseg2_pipeline_tests.alerts.test_alerts import Telephone, Watch, phone, settings, watch
from aiseg2_pipeline_tests.orchestration.test_power import (
    NOW,
    POWER_READINGS,
    Pipeline,
    alone,
    device,
    environment,
)

# Fixtures of other modules: a device, the definitions over it, a telephone and the sensor that rings it.
__all__ = ["alone", "device", "environment", "phone", "settings", "watch"]

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def a_damaged_hour_ago(pipeline: Pipeline) -> DamagedFile:
    """Have a reading of an hour ago in a file that is damaged, and one of now in the new one."""
    pipeline.minute(NOW - 2 * HOUR)
    damage(pipeline.settings.store_path)
    pipeline.minute(NOW)
    (kept,) = damaged_files(pipeline.settings.store_path)
    return kept


def heal(pipeline: Pipeline) -> list[RunRequest]:
    resources = {name: (pipeline.definitions.resources or {})[name] for name in ("store", "influxdb")}
    context = build_sensor_context(
        instance=pipeline.instance, repository_def=pipeline.definitions.get_repository_def(), resources=resources
    )
    data = pipeline.definitions.resolve_sensor_def("heal_the_record").evaluate_tick(context)
    return list(data.run_requests or [])


def test_the_minute_that_finds_the_damage_has_its_reading_in_the_new_file_and_warns(alone: Pipeline) -> None:
    alone.minute(NOW - MINUTE)
    damage(alone.settings.store_path)
    result = alone.minute(NOW)
    assert result.success
    (kept,) = damaged_files(alone.settings.store_path)
    assert set(alone.rows()["time"]) == {NOW}
    assert hour_key(NOW) in alone.green(POWER_READINGS)
    logs = alone.instance.all_logs(result.run_id)
    (warning,) = [entry for entry in logs if "was damaged" in entry.user_message]
    assert kept.path.name in warning.user_message
    assert str(warning.level) == "30"


def test_nothing_is_filled_before_what_can_be_read_came_back_by_itself(alone: Pipeline) -> None:
    kept = a_damaged_hour_ago(alone)
    (request,) = heal(alone)
    assert request.job_name == "salvage_the_record"
    filling = alone.by_hand(NOW - 2 * HOUR, assets=[POWER_READINGS])
    assert any(NOT_SALVAGED in entry.user_message for entry in alone.instance.all_logs(filling.run_id))
    salvaging = alone.definitions.resolve_job_def("salvage_the_record")
    assert salvaging.execute_in_process(instance=alone.instance).success
    assert set(alone.rows()["time"]) == {NOW - 2 * HOUR, NOW}
    (kept,) = damaged_files(alone.settings.store_path)
    assert kept.salvaged is not None
    assert "all of it could be read" in kept.salvaged
    assert "salvage_the_record" not in {request.job_name for request in heal(alone)}


@pytest.mark.parametrize("by_hand", [["salvage"], []], ids=["by the command", "by itself"])
def test_each_of_several_damaged_files_gives_its_circuits_names_back(alone: Pipeline, by_hand: list[str]) -> None:
    path = alone.settings.store_path
    names = {NOW - 3 * DAY: "居間", NOW - 2 * DAY: "書斎", NOW - DAY: "寝室", NOW: "洋室"}
    for at, name in names.items():
        with Store.open(path, lambda _: None) as store:
            store.record_circuits([Circuit("1", name)], at)
        if at != NOW:
            damage(path)
        if at == NOW - 2 * DAY:
            # The first and the second are of different seconds, the third may be of the second's.
            time.sleep(1 - time.time() % 1)
    if by_hand:
        assert CliRunner().invoke(main, by_hand, env=alone.environment).exit_code == 0
    else:
        salvaging = alone.definitions.resolve_job_def("salvage_the_record")
        assert salvaging.execute_in_process(instance=alone.instance).success
    with Store.open(path) as store:
        assert {at: store.circuits_at(at) for at in names} == {
            at: [Circuit("1", name)] for at, name in names.items()
        }


def test_no_energy_goes_out_before_the_circuits_names_came_back(alone: Pipeline) -> None:
    a_damaged_hour_ago(alone)
    told = energy.frame([energy.interval(NOW - 3 * HOUR, energy.USAGE, "10", 5.0, energy.HOUR_S)])
    with Store.open(alone.settings.store_path) as readings:
        with pytest.raises(StoreError, match="names of the circuits may come back"):
            lines(readings, told)
        (kept,) = damaged_files(alone.settings.store_path)
        salvage(kept, readings, lambda _: None)
        ((line,),) = lines(readings, told)
    assert "detail-section=ＩＨ," in line


def test_the_night_reads_all_files_over(alone: Pipeline) -> None:
    alone.minute(NOW)
    closing_job = alone.definitions.resolve_job_def("close_the_day")
    assert closing_job.execute_in_process(instance=alone.instance).success
    with closing(sqlite3.connect(alone.settings.energy_path)) as connection:
        # What no run asks for.
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'circuits'").fetchone()
    with alone.settings.energy_path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(bytes(4096))
    result = closing_job.execute_in_process(instance=alone.instance, raise_on_error=False)
    assert not result.success
    assert "energy-damaged-" in str(result.all_events)
    assert len(damaged_files(alone.settings.energy_path)) == 1


def test_a_newer_store_fails_the_run_with_its_sentence(alone: Pipeline) -> None:
    alone.minute(NOW - MINUTE)
    with closing(sqlite3.connect(alone.settings.store_path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    result = alone.minute(NOW)
    assert not result.success
    assert "is from a newer aiseg2-pipeline" in str(result.failure_data_for_node("power_readings"))
    assert heal(alone) == []


def test_the_household_is_told_of_the_damage_once_of_the_rows_that_came_back_and_of_the_end(
    watch: Watch, phone: Telephone
) -> None:
    watch.read(NOW)
    watch.look(NOW)
    assert phone.got == []
    damage(watch.settings.store_path)
    watch.read(NOW + MINUTE)
    then = watch.look_for(3, NOW + MINUTE)
    assert phone.titles == ["記録ファイルが壊れました"]
    (kept,) = damaged_files(watch.settings.store_path)
    assert kept.path.name in phone.got[0][1]
    watch.restart()
    told = CliRunner().invoke(main, ["salvage"], env={"AISEG2_DATA_DIR": str(watch.settings.data_dir)} | OTHERS)
    assert told.exit_code == 0, told.output
    watch.read(then)
    then = watch.look_for(3, then)
    assert phone.titles[1:] == ["壊れた記録ファイルから読み出せる記録を戻しました"]
    assert "1 rows came back of it" in phone.got[1][1]
    for file in kept.path.parent.glob("readings-damaged-*"):
        file.unlink()
    watch.read(then)
    watch.look_for(2, then)
    assert phone.titles[2:] == ["壊れた記録ファイルは削除されました"]


def test_doctor_names_a_damaged_file_until_it_is_gone(
    alone: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = a_damaged_hour_ago(alone)
    told = CliRunner().invoke(main, ["doctor"], env=alone.environment)
    assert told.exit_code == 1
    assert f"FAIL damaged store: {kept.path} is a damaged store" in told.output
    assert "aiseg2-pipeline salvage" in told.output
    assert CliRunner().invoke(main, ["salvage"], env=alone.environment).exit_code == 0
    after = CliRunner().invoke(main, ["doctor"], env=alone.environment)
    assert f"--   damaged store: {kept.path} is kept and may be deleted. " in after.output
    assert "FAIL damaged" not in after.output
    assert "FAIL store" not in after.output


OTHERS = {"AISEG2_HOST": "127.0.0.1:1", "AISEG2_PASSWORD": "x"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data directory of a household that has three damaged files."""
    monkeypatch.chdir(tmp_path)
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "data" / "readings.sqlite"
    for n in range(3):
        with Store.open(path, lambda _: None) as store:
            store.upsert(frame([Row(NOW - n * DAY, "total", "売買電力", 1.0, "kW", 0)]))
        damage(path)
    Store.open(path, lambda _: None).close()
    return tmp_path / "data"


def test_the_command_brings_back_one_file_or_all_and_says_what_came_back(folder: Path) -> None:
    path = folder / "readings.sqlite"
    first = damaged_files(path)[0].path
    gaps = CliRunner().invoke(main, ["gaps"])
    assert f"Rows of the damaged store {first} may come back" in gaps.stderr
    one = CliRunner().invoke(main, ["salvage", str(first)])
    assert one.exit_code == 0
    assert f"{first.name}: 1 rows came back of it, 0 were there already; all of it could be read." in one.output
    assert [kept.salvaged is None for kept in damaged_files(path)] == [False, True, True]
    others = CliRunner().invoke(main, ["salvage"])
    assert others.output.count("1 rows came back of it") == 2
    with Store.open(path) as store:
        assert len(store.read(NOW - 9 * DAY, NOW + DAY)) == 3
    again = CliRunner().invoke(main, ["salvage"])
    assert "There is no damaged store" in again.output
    assert "may come back" not in CliRunner().invoke(main, ["gaps"]).stderr
    once_more = CliRunner().invoke(main, ["salvage", str(first)])
    assert "0 rows came back of it, 1 were there already" in once_more.output
    wrong = CliRunner().invoke(main, ["salvage", str(path)])
    assert wrong.exit_code == 1
    assert "is no damaged store of" in wrong.output
