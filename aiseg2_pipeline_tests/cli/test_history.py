"""`gaps`, `fill` and `history` as a person uses them: their output, the rows they keep, and their exit code.

The commands use the machine's clock, so the simulated device shows the present.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.server import Running, running
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.support.simulator_client import JAPAN

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
TOTALS = ["generation", "consumption", "bought", "sold"]


class Home:
    """A running device, the settings for it, and the pipeline's stores."""

    def __init__(self, served: Running, folder: Path) -> None:
        self.served = served
        self.given = {
            "AISEG2_HOST": served.address,
            "AISEG2_USER": served.user,
            "AISEG2_PASSWORD": served.password,
            "AISEG2_DATA_DIR": str(folder),
        }
        self.settings = Settings.from_environment(self.given)
        self.now = datetime.now(UTC).replace(microsecond=0)

    def invoke(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, env=self.given)

    def succeed(self, *arguments: str) -> str:
        result = self.invoke(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    def read_live(self, ago: timedelta) -> None:
        """Store a live reading of `ago` before now."""
        then = self.now - ago
        with (
            Store.open(self.settings.store_path) as store,
            Aiseg2Client(
                self.settings.device_url,
                self.served.user,
                self.served.password,
                state_dir=self.settings.device_state_dir,
                clock=lambda: then,
            ) as client,
        ):
            assert take_minute(client, store, minute=then.replace(second=0), samples=1, clock=lambda: then).frames

    def window(self, start: int = 7, end: int = 3) -> list[str]:
        """Return the options for the settled hours from `start` to `end` hours ago."""
        return ["--from", stamp(self.now - start * HOUR), "--to", stamp(self.now - end * HOUR)]

    def rows(self) -> pd.DataFrame:
        with Store.open(self.settings.store_path) as store:
            return store.read(self.now - 50 * DAY, self.now + DAY).sort_values(KEY, ignore_index=True)

    def energy(self) -> pd.DataFrame:
        with EnergyStore.open(self.settings.energy_path) as store:
            return store.read(self.now - 50 * DAY, self.now + DAY)

    def requests(self) -> int:
        return sum(self.served.tally.requests.values())


@contextmanager
def home_of(folder: Path, **options: Any) -> Iterator[Home]:
    with running(**options) as served:
        yield Home(served, folder / "data")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A device without a card that was read once, seven hours ago."""
    with home_of(tmp_path) as home:
        home.read_live(7 * HOUR)
        yield home


def stamp(moment: datetime) -> str:
    return moment.astimezone(JAPAN).strftime("%Y-%m-%dT%H:%M")


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0)


# gaps


def test_gaps_as_json_are_the_hours_with_missing_minutes(home: Home) -> None:
    hours = json.loads(home.succeed("gaps", *home.window(), "--format", "json"))
    assert hours[0] == {
        "hour": hour_of(home.now - 7 * HOUR).astimezone(JAPAN).isoformat(),
        "live": 1,
        "filled": 0,
        "missing": 59,
        "removed": 0,
        "fillable": True,
    }
    assert [hour["missing"] for hour in hours] == [59, 60, 60, 60, 60]
    # By default until the last hour that has settled.
    hours = json.loads(home.succeed("gaps", "--format", "json"))
    assert datetime.fromisoformat(hours[-1]["hour"]) + HOUR + 5 * MINUTE <= datetime.now(UTC)


@pytest.mark.parametrize("command", [["gaps"], ["fill", "--dry-run"]], ids=" ".join)
def test_gaps_and_a_dry_run_print_the_gaps_and_the_requests_and_change_nothing(
    home: Home, command: list[str]
) -> None:
    rows, requests = home.rows(), home.requests()
    table = home.succeed(*command, *home.window())
    assert f"{hour_of(home.now - 7 * HOUR).astimezone(JAPAN):%Y-%m-%d %H:%M}" in table
    assert "may have it" in table
    # 32 circuits and six more for each of one or two days, and four once.
    assert any(f"at most {days * 38 + 4} requests" in table for days in (1, 2))
    assert home.requests() == requests
    pd.testing.assert_frame_equal(home.rows(), rows)
    assert home.energy().empty


# fill


def test_a_fill_completes_the_hours_and_keeps_the_live_rows(home: Home) -> None:
    live = home.rows()
    result = home.invoke("fill", *home.window())
    assert result.exit_code == 0, result.output
    assert "minutes filled, 0 still missing" in result.stderr
    rows = home.rows()
    pd.testing.assert_frame_equal(rows[rows["interval_s"] == 0].reset_index(drop=True), live)
    minutes = rows.loc[rows["name"] == "総消費電力", "time"].dt.floor("min")
    assert minutes.is_unique
    assert len(minutes) == 5 * 60
    requests = home.requests()
    assert home.succeed("fill", *home.window()) == "No minute is missing.\n"
    assert home.requests() == requests
    pd.testing.assert_frame_equal(home.rows(), rows)
    assert "No minute is missing." in home.succeed("gaps", *home.window())
    assert json.loads(home.succeed("gaps", *home.window(), "--format", "json")) == []


def test_removed_minutes_are_filled_again_with_refill_alone(home: Home) -> None:
    home.succeed("fill", *home.window())
    before = len(home.rows())
    removed = home.window(6, 5)
    home.succeed("remove", *removed, "--yes")
    after = len(home.rows())
    assert after < before
    hours = json.loads(home.succeed("gaps", *removed, "--format", "json"))
    assert (sum(hour["missing"] for hour in hours), sum(hour["removed"] for hour in hours)) == (0, 61)
    fills = r"fills up to 61 minutes of \S+ \d\d:00 to \S+ \d\d:00, as far as the AiSEG2 has kept their energy\."
    assert re.search(
        f"would be removed.*Then --refill {fills}", home.succeed("remove", *removed, "--refill"), re.DOTALL
    )
    assert len(home.rows()) == after
    assert re.search(f"Now --refill {fills}", home.succeed("remove", *removed, "--refill", "--yes"))
    assert len(home.rows()) == before


@pytest.mark.parametrize("command", ["gaps", "fill"])
def test_a_range_that_ends_before_the_record_starts_is_refused(home: Home, command: str) -> None:
    result = home.invoke(command, "--to", stamp(home.now - 2 * DAY))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "ends before that" in result.stderr


def test_a_fill_of_a_given_range_may_start_before_the_first_reading(home: Home) -> None:
    home.succeed("fill", *home.window(30, 29))
    assert len(set(home.rows()["time"])) == 1 + 120


def test_hours_without_energy_on_the_device_are_marked_and_not_requested_again(tmp_path: Path) -> None:
    with home_of(tmp_path, memory_days=0) as home:
        home.read_live(3 * HOUR)
        then = stamp(home.now - 3 * DAY)
        day = ("--from", then, "--to", then)
        assert "has no energy of" in home.invoke("fill", *day).stderr
        requests = home.requests()
        (hour,) = json.loads(home.succeed("gaps", *day, "--format", "json"))
        assert hour["fillable"] is False
        table = home.succeed("gaps", *day)
        assert "had nothing" in table
        assert "Filling takes no request." in table
        home.succeed("fill", *day)
        assert home.requests() == requests


def test_a_fill_needs_a_live_reading(tmp_path: Path) -> None:
    with home_of(tmp_path) as home:
        result = home.invoke("fill", "--from", stamp(home.now - 3 * HOUR))
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: There is no live reading yet")
        assert home.requests() == 0


# history


def day_rows(home: Home, *arguments: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(home.succeed("history", *arguments, "--format", "json"))
    return rows


def yesterday(home: Home) -> str:
    return stamp(home.now - DAY)[:10]


def check_rows(rows: list[dict[str, Any]], day: str, interval_s: int) -> None:
    """Check that each series has each interval of the day once, and that there is no other row."""
    starts = [f"{day}T{n // 3600:02}:{n // 60 % 60:02}:00+09:00" for n in range(0, 86_400, interval_s)]
    series: list[tuple[str, str, str | None]] = [("total", name, None) for name in TOTALS]
    series += [("circuit", each.name.replace("・", ""), str(each.circuit_id)) for each in CIRCUITS]
    assert all(list(row) == ["time", "interval_s", "kind", "name", "circuit_id", "wh"] for row in rows)
    assert Counter(tuple(row.values())[:-1] for row in rows) == Counter(
        (start, interval_s, *each) for start in starts for each in series
    )


def test_a_day_as_json_has_a_row_for_each_hour_and_series(home: Home) -> None:
    rows = day_rows(home, yesterday(home))
    check_rows(rows, yesterday(home), 3600)
    wh = {(row["time"], row["name"]): row["wh"] for row in rows if row["kind"] == "total"}
    for time in {row["time"] for row in rows}:
        generated, used, bought, sold = (wh[time, name] for name in TOTALS)
        assert bought + generated - sold == used


def test_a_cards_half_hours_add_up_to_the_pages_hours(tmp_path: Path) -> None:
    with home_of(tmp_path, sd_card=True) as home:
        day = yesterday(home)
        halves, hours = (day_rows(home, day, "--source", source) for source in ("sd", "web"))
        assert day_rows(home, day) == halves
        assert "SD card, half hours" in home.succeed("history", "yesterday")
        card, web = (
            home.succeed("history", day, "--format", "lp", "--source", source).splitlines()
            for source in ("sd", "web")
        )
    check_rows([row for row in halves if row["kind"] == "circuit" or row["name"] in TOTALS], day, 1800)
    check_rows(hours, day, 3600)
    for key in [("generation", None), ("consumption", None), *((None, str(c.circuit_id)) for c in CIRCUITS)]:
        sums = [
            sum(row["wh"] for row in rows if key in ((row["name"], None), (None, row["circuit_id"])))
            for rows in (halves, hours)
        ]
        assert sums[0] == sums[1]
    # Line protocol is hourly in both.
    assert set(web) <= set(card)
    assert len(card) == len(set(card))


@pytest.mark.parametrize("sd_card", [False, True], ids=["web", "card"])
def test_with_a_tariff_a_day_has_its_cost(tmp_path: Path, *, sd_card: bool) -> None:
    path = tmp_path / "tariff.toml"
    prices = '[[plan]]\nname = "flat"\nvalid_from = 2020-01-01\nprice = [{ name = "energy", yen = 30 }]'
    path.write_text(prices, encoding="utf-8")
    with home_of(tmp_path, sd_card=sd_card) as home:
        home.given["AISEG2_TARIFF"] = str(path)
        day = yesterday(home)
        kwh = sum(row["wh"] for row in day_rows(home, day) if row["name"] == "bought") / 1000
        assert f"By the tariff: bought {kwh * 30:.0f} yen" in home.succeed("history", day)


def test_a_day_is_printed_as_line_protocol_and_as_a_line_for_each_series_and_nothing_is_kept(home: Home) -> None:
    rows, day = home.rows(), yesterday(home)
    lines = home.succeed("history", day, "--format", "lp").splitlines()
    assert len(lines) == 24 * (4 + len(CIRCUITS))
    start = int(datetime.fromisoformat(f"{day}T00:00+09:00").timestamp()) * 10**9
    first = [line.split(" ")[0] for line in lines if line.endswith(f" {start}")]
    assert "energy,detail-section=consumption,detail-type=consumption" in first
    assert "energy,circuit-id=10,detail-section=ＬＤ,detail-type=usage" in first
    table = home.succeed("history", day)
    for text in (f"{day}, kWh (graph pages, hours)", *TOTALS, "ＬＤ (10)", "ＬＤ (11)"):
        assert text in table
    wh = {row["name"]: row["wh"] for row in day_rows(home, day) if row["time"].startswith(f"{day}T19:")}
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines()]
    assert [cell[0] for cell in cells if re.fullmatch(r"\d\d:\d\d", "".join(cell[:1]))] == [
        f"{n:02}:00" for n in range(24)
    ]
    assert ["19:00", *(f"{wh[name] / 1000:.2f}" for name in TOTALS)] in cells
    assert not home.settings.energy_path.exists()
    pd.testing.assert_frame_equal(home.rows(), rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["2021-01-01"], "2021-01-01"),
        (["2121-01-01"], "2121-01-01 is in the future"),
        (["--source", "sd"], "no SD card"),
    ],
    ids=["too long ago", "in the future", "no card"],
)
def test_a_day_without_energy_on_the_device_is_one_message(home: Home, arguments: list[str], words: str) -> None:
    day = [] if arguments[0].startswith("2") else [yesterday(home)]
    result = home.invoke("history", *day, *arguments, "--format", "json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
