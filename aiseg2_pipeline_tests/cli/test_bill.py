"""The commands on cost, on a store of energy."""

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.energy import frame, interval
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.store import EnergyStore

EXAMPLES = Path(__file__).parents[2] / "docs" / "tariffs"
HOURS = 30 * 24


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a home that bought 1 kWh in every hour of September 2026 but the last, and has a tariff."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AISEG2_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AISEG2_HOST", "192.0.2.1")
    monkeypatch.setenv("AISEG2_PASSWORD", "secret")
    monkeypatch.setenv("AISEG2_TARIFF", str(EXAMPLES / "steps.toml"))
    start = datetime(2026, 9, 1, tzinfo=TOKYO).astimezone(UTC)
    data = tmp_path / "data"
    data.mkdir()
    with EnergyStore.open(data / "energy.sqlite") as store:
        times = [start + n * timedelta(hours=1) for n in range(HOURS - 1)]
        values = (("consumption", 1500.0), ("bought", 1000.0), ("sold", 0.0))
        store.upsert(frame(interval(time, kind, kind, wh, 3600) for time in times for kind, wh in values))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.mark.usefixtures("home")
def test_a_month_is_billed_line_by_line_in_three_formats() -> None:
    shown = json.loads(run("bill", "--month", "2026-09", "--format", "json").stdout)
    # 719 kWh: 1247.00 + 3576.00 + 6552.00 + 419 × 40.49, no adjustment before October, and 719 × 3.98.
    assert (shown["total_yen"], shown["missing_hours"]) == (31201, 1)
    assert (shown["from"], shown["to"]) == ("2026-09-01", "2026-09-30")
    rows = list(csv.DictReader(run("bill", "--month", "2026-09", "--format", "csv").stdout.splitlines()))
    assert rows == shown["lines"]
    table = run("bill", "--month", "2026-09").stdout
    assert "31201" in table
    assert "energy of 1 h is missing" in table


@pytest.mark.usefixtures("home")
def test_another_tariff_shows_what_it_would_have_cost() -> None:
    table = run("bill", "--month", "2026-09", "--tariff", str(EXAMPLES / "night.toml")).stdout
    assert "By AISEG2_TARIFF it is 31201 yen: this tariff is" in table.replace("\n", " ")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", ["steps", "night", "smart", "market"])
def test_a_check_says_what_a_kwh_costs_now(name: str) -> None:
    result = run("tariff", "check", str(EXAMPLES / f"{name}.toml"))
    assert result.exit_code == 0, result.output
    assert "the bill of" in result.stdout
    assert "yen" in result.stdout


@pytest.mark.usefixtures("home")
def test_a_missing_setting_and_a_wrong_month_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("bill", "--month", "September")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "write it like 2026-11" in result.stderr
    monkeypatch.delenv("AISEG2_TARIFF")
    result = run("bill")
    assert result.exit_code == 2
    assert "AISEG2_TARIFF" in result.stderr
