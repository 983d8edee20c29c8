"""The virtual unit's SD card: the format of real files, exact identities, and agreement with the web pages."""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline_tests.support.simulator_client import CAPTURES, CARD_PAGE, JAPAN, Unit, simulated

NOW = datetime(2026, 7, 3, 12, 35, tzinfo=JAPAN)
TODAY = NOW.date()
YESTERDAY = TODAY - timedelta(days=1)
DAYS = [date(2026, 6, 28) + timedelta(days=number) for number in range(6)]
OUTAGE = (datetime(2026, 7, 1, 8, 10, tzinfo=JAPAN), datetime(2026, 7, 1, 11, 40, tzinfo=JAPAN))
CIRCUIT_COLUMNS = [circuit.circuit_id + 12 for circuit in CIRCUITS]
BOUGHT, SOLD, SOLAR, CONSUMPTION, HOT_WATER = 4, 5, 6, 63, 66
ENERGY = [BOUGHT, SOLD, SOLAR, CONSUMPTION, *CIRCUIT_COLUMNS]

Row = list[int | None]


@pytest.fixture(scope="module")
def unit() -> Iterator[Unit]:
    """A unit with a card of six days over the end of a month, three and a half hours of them without electricity."""
    with simulated(NOW, sd_card=True, card_days=len(DAYS), outages=[OUTAGE]) as unit:
        yield unit


@pytest.fixture(scope="module")
def card(unit: Unit) -> dict[str, str]:
    return unit.card()


def cells(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.removeprefix("\ufeff").splitlines()]


def rows(text: str) -> dict[str, Row]:
    """Return the rows by label; None is no reading. A value stands at its column's number."""
    return {row[0]: [None if cell == "-" else int(cell) for cell in ["-", *row[1:]]] for row in cells(text)[1:]}


def added_up(parts: list[Row]) -> Row:
    columns = [[value for value in column if value is not None] for column in zip(*parts, strict=True)]
    return [sum(column) if column else None for column in columns]


def titles(text: str) -> list[str]:
    return cells(text)[0]


# The format


def test_the_export_has_its_files_and_settings_among_them(card: dict[str, str]) -> None:
    days = [f"{day:%Y%m%d}" for day in DAYS]
    expected = {f"{kind}history_rc_{day}.csv" for kind in ("30min", "hour") for day in days}
    for kind in ("history", "cost"):
        expected |= {f"day{kind}_rc_202606.csv", f"day{kind}_rc_202607.csv"}
        expected |= {f"month{kind}_rc_2026.csv", f"year{kind}_total_rc.csv"}
    assert {name for name in card if name.endswith(".csv")} == expected
    assert [name for name in card if not name.endswith(".csv")] == ["setting.ini"]


def test_files_are_utf_8_with_bom_with_no_quotes_and_a_fixed_width(card: dict[str, str]) -> None:
    for name, text in card.items():
        if name.endswith(".csv"):
            assert text.startswith("\ufeff計測日時,")
            assert text.endswith("\n")
            assert "\r" not in text
            assert '"' not in text
            assert {len(row) for row in cells(text)} == {68 if "cost" in name else 72}


def test_labels_are_the_starts_of_the_intervals(card: dict[str, str]) -> None:
    halves = list(rows(card["30minhistory_rc_20260702.csv"]))
    assert (len(halves), halves[:2], halves[-1]) == (
        48,
        ["202607020000+0900", "202607020030+0900"],
        "202607022330+0900",
    )
    hours = list(rows(card["hourhistory_rc_20260702.csv"]))
    assert (len(hours), hours[0], hours[-1]) == (24, "2026070200+0900", "2026070223+0900")
    for kind in ("history", "cost"):
        assert list(rows(card[f"day{kind}_rc_202606.csv"])) == [f"202606{day:02}" for day in range(1, 31)]
        assert list(rows(card[f"month{kind}_rc_2026.csv"])) == [f"2026{month:02}" for month in range(1, 13)]
        years = [row[0] for row in cells(card[f"year{kind}_total_rc.csv"])[1:]]
        assert years == ["2014", "2026", *["-"] * 9]


def test_circuits_stand_at_their_id_with_their_names_turned_round(card: dict[str, str]) -> None:
    head = titles(card["hourhistory_rc_20260702.csv"])
    assert (head[8 + 12], head[33 + 12], head[37 + 12]) == ("キッチン　パントリー", "エアコン・ＬＤＫ", "未使用")
    assert [head[circuit_id + 12] for circuit_id in (23, 24, 25)] == ["電子レンジ"] * 3
    free = [title for title in head if title.startswith("無効")]
    assert free == [f"無効{number}" for number in range(1, 51 - 32 + 1)]


def test_a_cost_file_has_no_hot_water(card: dict[str, str]) -> None:
    history, cost = titles(card["dayhistory_rc_202607.csv"]), titles(card["daycost_rc_202607.csv"])
    assert cost[:66] == history[:66]
    assert cost[63:] == ["使用電力量", "ガス使用量", "水使用量", "燃料電池ガス使用量", "補助熱源ガス使用量"]


@pytest.fixture(scope="module")
def same_day() -> Iterator[dict[str, str]]:
    """A card with the day of the captures on it."""
    with simulated(datetime(2026, 4, 13, 9, tzinfo=JAPAN), sd_card=True, card_days=2) as unit:
        yield unit.card()


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="needs captures of a real unit")
class TestAgainstCaptures:
    @pytest.mark.parametrize("kind", ["30min", "hour"])
    def test_a_day_has_the_titles_labels_and_unmeasured_columns_of_a_real_one(
        self, same_day: dict[str, str], kind: str
    ) -> None:
        name = f"{kind}history_rc_20260412.csv"
        real, ours = (CAPTURES / "sd_export" / name).read_text(encoding="utf-8"), same_day[name]
        # Two circuits were registered after the day of the capture, and its hot water was measured from the evening.
        circuits_of_then = [column for column in range(72) if column not in {36 + 12, 38 + 12}]

        def head(text: str) -> list[str]:
            return [re.sub(r"無効\d+", "無効", titles(text)[column]) for column in circuits_of_then]

        def unmeasured(text: str) -> set[int]:
            (first, *_) = rows(text).values()
            return {column for column in circuits_of_then if first[column] is None} - {HOT_WATER}

        assert head(ours) == head(real)
        assert list(rows(ours)) == list(rows(real))
        assert unmeasured(ours) == unmeasured(real)

    def test_the_file_of_the_years_is_filled_up_alike(self, same_day: dict[str, str]) -> None:
        real = (CAPTURES / "sd_export" / "yearhistory_total_rc.csv").read_text(encoding="utf-8")
        ours = same_day["yearhistory_total_rc.csv"]
        assert len(cells(ours)) == len(cells(real))
        assert cells(ours)[1] == cells(real)[1]
        assert cells(ours)[-1] == cells(real)[-1]


# The numbers


def test_what_comes_in_is_what_is_used_in_every_row(card: dict[str, str]) -> None:
    checked = 0
    for name, text in card.items():
        for row in rows(text).values() if "history" in name else ():
            bought, sold, solar, used = row[BOUGHT], row[SOLD], row[SOLAR], row[CONSUMPTION]
            if bought is None or sold is None or solar is None or used is None:
                assert (bought, sold, solar, used) == (None, None, None, None)
                continue
            checked += 1
            assert bought + solar - sold == used
            assert 0 < sum(row[column] or 0 for column in CIRCUIT_COLUMNS) <= used
    assert checked > 300


def test_half_hours_are_the_hour_hours_the_day_days_the_month_and_months_the_year(card: dict[str, str]) -> None:
    for day in DAYS:
        halves = list(rows(card[f"30minhistory_rc_{day:%Y%m%d}.csv"]).values())
        hours = list(rows(card[f"hourhistory_rc_{day:%Y%m%d}.csv"]).values())
        ended = 12 if day == TODAY else 24
        assert hours[:ended] == [added_up(halves[2 * hour : 2 * hour + 2]) for hour in range(ended)]
        if day != TODAY:
            assert rows(card[f"dayhistory_rc_{day:%Y%m}.csv"])[f"{day:%Y%m%d}"] == added_up(hours)
    of_june = list(rows(card["dayhistory_rc_202606.csv"]).values())
    of_july = list(rows(card["dayhistory_rc_202607.csv"]).values())
    today = list(rows(card[f"30minhistory_rc_{TODAY:%Y%m%d}.csv"]).values())
    assert rows(card["monthhistory_rc_2026.csv"])["202606"] == added_up(of_june)
    assert rows(card["yearhistory_total_rc.csv"])["2026"] == added_up([*of_june, *of_july, *today])


def test_costs_are_thousandths_of_a_yen_at_a_fixed_price(card: dict[str, str]) -> None:
    for period, rest in (("day", "rc_202607"), ("month", "rc_2026"), ("year", "total_rc")):
        energy = rows(card[f"{period}history_{rest}.csv"])
        for label, row in rows(card[f"{period}cost_{rest}.csv"]).items():
            for column in ENERGY:
                wh, price = energy[label][column], 16 if column == SOLD else 31
                assert row[column] == (None if wh is None else wh * price)


def test_only_intervals_that_have_ended_have_values(card: dict[str, str]) -> None:
    halves = rows(card["30minhistory_rc_20260703.csv"])
    assert [label for label, row in halves.items() if row[CONSUMPTION] is not None] == list(halves)[:25]
    hours = rows(card["hourhistory_rc_20260703.csv"])
    assert [label for label, row in hours.items() if row[CONSUMPTION] is not None] == list(hours)[:12]
    empty = [None] * 72
    assert list(halves.values())[25] == list(hours.values())[12] == empty
    of_july = rows(card["dayhistory_rc_202607.csv"])
    assert [label for label, row in of_july.items() if row != empty] == ["20260701", "20260702"]
    months = rows(card["monthhistory_rc_2026.csv"])
    assert [label for label, row in months.items() if row != empty] == ["202606"]


@pytest.mark.parametrize("day", [YESTERDAY, TODAY, OUTAGE[0].date()])
def test_web_pages_and_card_agree_in_every_hour(unit: Unit, card: dict[str, str], day: date) -> None:
    hours = list(rows(card[f"hourhistory_rc_{day:%Y%m%d}.csv"]).values())
    columns = {"51111": SOLAR, "52111": CONSUMPTION, "53111": BOUGHT, "54111": SOLD, "55111": HOT_WATER}
    pages = [(column, unit.graph(page_id, day)) for page_id, column in columns.items()]
    pages += [(column, unit.graph("584", day, str(column - 12))) for column in CIRCUIT_COLUMNS]
    ended = 12 if day == TODAY else 24
    for column, page in pages:
        unit_of_page = 1 if column == HOT_WATER else 1000
        parts = zip(page["total1"], page["val2"] or [0] * 24, strict=True)
        shown = [round(sum(hour) * unit_of_page) for hour in parts]
        assert shown[:ended] == [hour[column] or 0 for hour in hours[:ended]]


def test_half_hours_without_electricity_are_no_readings(card: dict[str, str]) -> None:
    halves = list(rows(card["30minhistory_rc_20260701.csv"]).values())
    assert [number for number, row in enumerate(halves) if row == [None] * 72] == [17, 18, 19, 20, 21, 22]
    cut = Household(1).energy_wh(OUTAGE[0] - timedelta(minutes=10), OUTAGE[0])
    assert halves[16][CONSUMPTION] == pytest.approx(cut.consumption_wh, abs=2)
    hours = list(rows(card["hourhistory_rc_20260701.csv"]).values())
    assert [number for number, row in enumerate(hours) if row == [None] * 72] == [9, 10]


# Asking for it


def test_a_unit_without_a_card_and_a_token_that_is_not_its_own_get_a_page(unit: Unit) -> None:
    with simulated() as without_card:
        answers = [without_card.get(CARD_PAGE, downType="1", csrftoken=without_card.token())]
    answers += [unit.get(CARD_PAGE, downType="1", csrftoken="x"), unit.get(CARD_PAGE, downType="1")]
    answers += [unit.get(CARD_PAGE, downType="0", csrftoken=unit.token())]
    for answer in answers:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
        assert b'NAME="csrftoken"' in answer.content
    assert unit.get(CARD_PAGE, downType="1", csrftoken=unit.token()).headers["Content-Type"] == "application/zip"


def test_the_export_changes_when_a_half_hour_has_ended_or_a_name_has_changed() -> None:
    later = NOW + timedelta(minutes=10)
    with simulated(NOW, Household(1, renames=[(later, 20, "書斎,・机")]), sd_card=True, card_days=2) as unit:
        first = unit.card()
        unit.set_clock(later - timedelta(seconds=1))
        assert unit.card() == first
        unit.set_clock(later)
        named = unit.card()
        unit.set_clock(NOW + timedelta(minutes=25))
        following = unit.card()
    # Files of older days are headed by the new name too; a comma is nothing that the format could hold.
    for name in (f"hourhistory_rc_{YESTERDAY:%Y%m%d}.csv", f"daycost_rc_{TODAY:%Y%m}.csv"):
        assert (titles(first[name])[32], titles(named[name])[32]) == ("洋室１", "机・書斎 ")
        assert rows(first[name]) == rows(named[name])
    halves = f"30minhistory_rc_{TODAY:%Y%m%d}.csv"
    before, after = list(rows(named[halves]).values()), list(rows(following[halves]).values())
    assert (before[25], after[25] != [None] * 72, after[:25]) == ([None] * 72, True, before[:25])


def test_a_circuit_has_readings_only_while_it_is_registered() -> None:
    removed, added = NOW.replace(hour=3, minute=40), NOW.replace(hour=9, minute=10)
    renames = [(removed, 20, None), (added, 20, "書斎")]
    with simulated(NOW.replace(hour=8), Household(1, renames=renames), sd_card=True, card_days=1) as unit:
        name = f"30minhistory_rc_{TODAY:%Y%m%d}.csv"
        assert titles(unit.card()[name])[32] == "無効9"
        unit.set_clock(NOW)
        card = unit.card()[name]
        assert titles(card)[32] == "書斎"
        without = [number for number, row in enumerate(rows(card).values()) if row[32] is None]
        assert without == [*range(8, 18), *range(25, 48)]


def test_a_card_keeps_sixty_days_where_nothing_else_is_said() -> None:
    with simulated(NOW, sd_card=True) as unit:
        halves = [name for name in unit.card() if name.startswith("30min")]
    assert (len(halves), min(halves)) == (60, f"30minhistory_rc_{TODAY - timedelta(days=59):%Y%m%d}.csv")
