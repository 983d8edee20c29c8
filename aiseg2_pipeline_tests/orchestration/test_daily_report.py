"""The picture of a day: its asset, its schedule and its command."""

import base64
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from dagster import (
    DagsterInstance,
    DefaultScheduleStatus,
    ExecuteInProcessResult,
    RunRequest,
)

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.orchestration.keys import DAILY_REPORT, POWER_READINGS
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.tags import BACKGROUND_TAG
from aiseg2_pipeline_tests.support.pipeline import Pipeline, failure
from aiseg2_pipeline_tests.support.report_days import DAY, HOUR, LATER, START, device_energy, readings

pytest.importorskip("matplotlib", reason="matplotlib is not installed: it is the extra `report`")

from PIL import Image

from aiseg2_pipeline.orchestration.assets import daily_report as orchestrated

OF_DEVICE = device_energy(generation=1400, consumption=1000, bought=250, sold=650)
NEXT_DAY = DAY + timedelta(days=1)


class Home(Pipeline):
    """A pipeline on a data directory with a day of readings; its device is not used."""

    def __init__(self, folder: Path, instance: DagsterInstance) -> None:
        environment = {
            "AISEG2_HOST": "nowhere.invalid",
            "AISEG2_PASSWORD": "secret",
            "AISEG2_DATA_DIR": str(folder),
        }
        super().__init__(environment, instance, LATER)
        note_first_hour(self.settings.first_partition_path, START + 6 * HOUR)
        self.store(readings())
        with EnergyStore.open(self.settings.energy_path) as energy:
            energy.upsert(OF_DEVICE)

    def store(self, table: pd.DataFrame) -> None:
        with Store.open(self.settings.store_path) as store:
            store.upsert(table)

    def delete_readings(self) -> None:
        with Store.open(self.settings.store_path) as store:
            store.delete(START, LATER)

    def draw(self, first: date, last: date | None = None) -> ExecuteInProcessResult:
        """Run the job for a day, or for a range of days."""
        return self.run("draw_the_day", str(first), str(last) if last else None)

    def picture(self, day: date = DAY) -> Path:
        return self.settings.data_dir / "reports" / f"{day}.png"

    def invoke(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["report", *arguments], env=self.environment)

    def in_a_process(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - the test's own code
            [sys.executable, "-c", code, *arguments],
            env=os.environ | self.environment,
            cwd=self.settings.data_dir,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    for setting in Settings.model_fields.values():
        monkeypatch.delenv(str(setting.alias), raising=False)
    monkeypatch.chdir(tmp_path)
    # As if it were set before: a draw sets it for its process.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    with DagsterInstance.ephemeral() as instance:
        yield Home(tmp_path / "data", instance)


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def is_picture(png: bytes) -> bool:
    with Image.open(io.BytesIO(png)) as image:
        return image.format == "PNG" and image.width > 1000


# The asset


def test_a_day_has_its_picture_in_a_file_and_in_dagster_beside_its_numbers(home: Home) -> None:
    assert home.draw(DAY).success
    assert home.green(DAILY_REPORT) == {str(DAY)}
    metadata = home.metadata(DAILY_REPORT, str(DAY))
    path = home.picture()
    assert metadata["file"] == str(path)
    assert is_picture(path.read_bytes())
    before, png = metadata["picture"].removesuffix(")").split("base64,")
    assert before == "![2026-07-14](data:image/png;"
    assert base64.b64decode(png) == path.read_bytes()
    assert metadata["generation_kwh"] == pytest.approx(33.6)
    assert metadata["consumption_kwh"] == pytest.approx(24)
    assert metadata["bought_kwh"] == pytest.approx(6)
    assert metadata["sold_kwh"] == pytest.approx(15.6)
    assert metadata["self_sufficiency_percent"] == pytest.approx(75)
    assert metadata["energy_from"] == "the AiSEG2's own Wh"
    assert (metadata["live_minutes"], metadata["filled_minutes"], metadata["missing_minutes"]) == (1440, 0, 0)


def test_a_day_is_drawn_again_after_a_fill(home: Home) -> None:
    home.delete_readings()
    home.store(readings(range(12)))
    home.draw(DAY)
    path = home.picture()
    with_gap = path.read_bytes()
    home.store(readings(range(12, 24), filled=range(12, 24)))
    home.draw(DAY)
    assert path.read_bytes() != with_gap
    assert home.metadata(DAILY_REPORT, str(DAY))["filled_minutes"] == 720
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_day_without_readings_is_a_warning_and_not_green(home: Home) -> None:
    result = home.draw(NEXT_DAY)
    assert result.success
    assert home.green(DAILY_REPORT) == set()
    assert not home.picture().parent.exists()
    warnings = [entry.user_message for entry in home.instance.all_logs(result.run_id) if entry.level == 30]
    assert warnings == [f"There is no reading of {NEXT_DAY}, so no picture of it is drawn: choose another day."]


def test_a_range_is_drawn_day_by_day(home: Home) -> None:
    table = readings(range(3))
    home.store(table.assign(time=table["time"] + timedelta(days=2)))
    assert home.draw(DAY, DAY + timedelta(days=3)).success
    assert home.green(DAILY_REPORT) == {"2026-07-14", "2026-07-16"}
    files = sorted(path.name for path in home.picture().parent.iterdir())
    assert files == ["2026-07-14.png", "2026-07-16.png"]
    assert home.metadata(DAILY_REPORT, "2026-07-16")["live_minutes"] == 180


def test_a_picture_that_is_too_large_for_dagster_is_a_file_only(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrated, "MOST_BYTES_SHOWN", 1000)
    home.draw(DAY)
    assert "2026-07-14.png" in home.metadata(DAILY_REPORT, str(DAY))["picture"]
    assert "base64" not in home.metadata(DAILY_REPORT, str(DAY))["picture"]


def test_a_folder_that_cannot_be_written_is_one_sentence(home: Home) -> None:
    home.picture().parent.write_text("a file where the folder should be")
    result = home.draw(DAY)
    assert not result.success
    assert "reports/2026-07-14.png" in failure(result)


def test_the_first_day_can_be_drawn_although_its_first_hours_have_no_partitions(home: Home) -> None:
    graph = home.definitions.resolve_asset_graph()
    days, hours = (graph.get(key).partitions_def for key in (DAILY_REPORT, POWER_READINGS))
    assert days is not None
    assert hours is not None
    assert days.get_first_partition_key() == str(DAY)
    first = days.subset_with_partition_keys([str(DAY)])
    needed = graph.get_partition_mapping(
        DAILY_REPORT, POWER_READINGS
    ).get_upstream_mapped_partitions_result_for_partitions(first, days, hours)
    assert len(needed.partitions_subset) == 18
    assert needed.required_but_nonexistent_subset.is_empty


# The schedule


def test_the_schedule_requests_yesterday_as_background_work(home: Home) -> None:
    schedule = home.schedule("report_of_yesterday")
    assert schedule.default_status == DefaultScheduleStatus.RUNNING
    assert schedule.execution_timezone == "Asia/Tokyo"
    request = home.tick("report_of_yesterday", datetime(2026, 7, 14, 15, 50, tzinfo=UTC))
    assert isinstance(request, RunRequest)
    assert request.partition_key == str(DAY)
    assert home.definitions.resolve_job_def("draw_the_day").tags[BACKGROUND_TAG] == "1"


# Without matplotlib


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_asset_and_the_schedule_name_the_extra(home: Home) -> None:
    result = home.draw(DAY)
    assert not result.success
    assert "aiseg2-pipeline[report]" in failure(result)
    assert "aiseg2-pipeline[report]" in str(home.tick("report_of_yesterday", LATER))
    description = home.definitions.resolve_asset_graph().get(DAILY_REPORT).description
    assert "aiseg2-pipeline[report]" in str(description)


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_the_command_names_the_extra(home: Home) -> None:
    result = home.invoke(str(DAY))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "aiseg2-pipeline[report]" in result.stderr


def test_loading_the_definitions_does_not_import_matplotlib(home: Home) -> None:
    code = (
        "import sys; from aiseg2_pipeline.runtime import preload as preloaded; "
        "print('aiseg2_pipeline.definitions' in sys.modules, 'matplotlib' in sys.modules, 'PIL' in sys.modules)"
    )
    result = home.in_a_process(code)
    assert result.stdout.splitlines()[-1] == "True False False", result.stderr


# The command


def test_the_command_writes_a_day_and_prints_the_path(home: Home) -> None:
    result = home.invoke(str(DAY))
    assert result.exit_code == 0, result.output
    path = home.picture()
    assert result.stdout == f"{path}\n"
    assert is_picture(path.read_bytes())
    assert not path.stat().st_mode & 0o077


def test_the_command_writes_to_its_option_output(home: Home, tmp_path: Path) -> None:
    result = home.invoke("2026-07-14T08:15", "--output", "pictures/day.png")
    assert result.stdout == "pictures/day.png\n"
    assert is_picture((tmp_path / "pictures" / "day.png").read_bytes())
    assert not home.picture().parent.exists()


def test_the_command_draws_yesterday_by_default(home: Home) -> None:
    yesterday = (datetime.now(UTC) + timedelta(hours=9)).date() - timedelta(days=1)
    table = readings([12])
    home.store(table.assign(time=table["time"] + (yesterday - DAY)))
    result = home.invoke()
    assert result.stdout.endswith(f"{yesterday}.png\n")
    assert is_picture(Path(result.stdout.strip()).read_bytes())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([str(NEXT_DAY)], 1, "There is no reading of 2026-07-15"),
        ([str(DAY), "--output", "."], 1, "cannot be written"),
        (["tomorrow"], 2, "is not a date"),
    ],
    ids=["no readings", "a folder", "no date"],
)
def test_the_command_fails_with_one_sentence(home: Home, arguments: list[str], code: int, words: str) -> None:
    result = home.invoke(*arguments)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stdout == ""
    assert not home.picture().parent.exists()


def test_the_command_prints_no_warning_of_matplotlib_where_only_the_data_directory_is_writable(
    home: Home, tmp_path: Path
) -> None:
    home.environment |= {"MPLCONFIGDIR": "", "HOME": str(tmp_path / "nowhere"), "XDG_CACHE_HOME": ""}
    result = home.in_a_process("from aiseg2_pipeline.cli.main import main; main()", "report", str(DAY))
    assert result.returncode == 0
    assert result.stderr == ""
    assert (home.settings.data_dir / "matplotlib").is_dir()
