"""The simulator's SD card: the format of real files, exact sums, and agreement with the web pages."""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest

from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline_tests.support.device import CAPTURES, needs_captures
from aiseg2_pipeline_tests.support.simulator_client import CARD_PAGE, JAPAN, Unit, simulated

NOW = datetime(2026, 7, 3, 12, 35, tzinfo=JAPAN)
TODAY = NOW.date()
YESTERDAY = TODAY - timedelta(days=1)
DAYS = [date(2026, 6, 28) + timedelta(days=number) for number in range(6)]
OUTAGE = (datetime(2026, 7, 1, 8, 10, tzinfo=JAPAN), datetime(2026, 7, 1, 11, 40, tzinfo=JAPAN))
HOT_WATER = 66

Row = list[int | None]
EMPTY: Row = [None] * 72


@pytest.fixture(scope="module")
def unit() -> Iterator[Unit]:
    """A card of six days across the end of a month, with an outage."""
    with simulated(NOW, sd_card=True, card_days=len(DAYS), outages=[OUTAGE]) as unit:
        yield unit


@pytest.fixture(scope="module")
def card(unit: Unit) -> dict[str, str]:
    return unit.card()


def cells(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.removeprefix("\ufeff").splitlines()]


def rows(text: str) -> dict[str, Row]:
    """Return the rows by label, with None for no reading; the index of a value is its column."""
    return {row[0]: [None if cell == "-" else int(cell) for cell in ["-", *row[1:]]] for row in cells(text)[1:]}


def half_hours(card: dict[str, str], day: date) -> dict[str, Row]:
    return rows(card[f"30minhistory_rc_{day:%Y%m%d}.csv"])


def hours(card: dict[str, str], day: date) -> dict[str, Row]:
    return rows(card[f"hourhistory_rc_{day:%Y%m%d}.csv"])


def total(parts: list[Row]) -> Row:
    columns = [[value for value in column if value is not None] for column in zip(*parts, strict=True)]
    return [sum(column) if column else None for column in columns]


# The format


def test_the_export_has_its_csv_files_and_settings(card: dict[str, str]) -> None:
    expected = {f"{kind}history_rc_{day:%Y%m%d}.csv" for kind in ("30min", "hour") for day in DAYS}
    for kind in ("history", "cost"):
        expected |= {f"day{kind}_rc_202606.csv", f"day{kind}_rc_202607.csv"}
        expected.add(f"month{kind}_rc_2026.csv")
    assert set(card) == {"setting.ini"} | expected
    for name in expected:
        text = card[name]
        assert text.startswith("\ufeff計測日時,")
        assert text.endswith("\n")
        assert not set('\r"') & set(text)
        assert {len(row) for row in cells(text)} == {68 if "cost" in name else 72}


def test_labels_are_the_starts_of_the_intervals(card: dict[str, str]) -> None:
    times = [f"20260702{hour:02}{minute:02}+0900" for hour in range(24) for minute in (0, 30)]
    assert list(half_hours(card, YESTERDAY)) == times
    assert list(hours(card, YESTERDAY)) == [f"20260702{hour:02}+0900" for hour in range(24)]
    for kind in ("history", "cost"):
        assert list(rows(card[f"day{kind}_rc_202606.csv"])) == [f"202606{day:02}" for day in range(1, 31)]
        assert list(rows(card[f"month{kind}_rc_2026.csv"])) == [f"2026{month:02}" for month in range(1, 13)]


def test_titles_have_reversed_names_and_cost_files_no_hot_water(card: dict[str, str]) -> None:
    history, cost = cells(card["dayhistory_rc_202607.csv"])[0], cells(card["daycost_rc_202607.csv"])[0]
    names = [history[circuit_id + 12] for circuit_id in (8, 23, 24, 25, 33, 37)]
    assert names == ["キッチン　パントリー", *["電子レンジ"] * 3, "エアコン・ＬＤＫ", "未使用"]
    free = [title for title in history if title.startswith("無効")]
    assert free == [f"無効{number}" for number in range(1, 51 - 32 + 1)]
    assert cost[:66] == history[:66]
    assert cost[63:] == ["使用電力量", "ガス使用量", "水使用量", "燃料電池ガス使用量", "補助熱源ガス使用量"]


@needs_captures
def test_files_have_the_titles_labels_and_unmeasured_columns_of_real_ones() -> None:
    with simulated(datetime(2026, 4, 13, 9, tzinfo=JAPAN), sd_card=True, card_days=2) as unit:
        card = unit.card()
    # Two circuits were registered after the day of the capture, and its hot water was measured from the evening.
    columns = [column for column in range(72) if column not in {36 + 12, 38 + 12}]
    for name in ("30minhistory_rc_20260412.csv", "hourhistory_rc_20260412.csv"):
        real, ours = (CAPTURES / "sd_export" / name).read_text(encoding="utf-8"), card[name]
        titles = [
            [re.sub(r"無効\d+", "無効", cells(text)[0][column]) for column in columns] for text in (ours, real)
        ]
        assert titles[0] == titles[1]
        assert list(rows(ours)) == list(rows(real))
        first, real_first = next(iter(rows(ours).values())), next(iter(rows(real).values()))
        for column in set(columns) - {HOT_WATER}:
            assert (first[column] is None) == (real_first[column] is None)


# The numbers


def test_the_rows_of_each_file_are_sums_of_the_rows_of_the_finer_file(card: dict[str, str]) -> None:
    for day in DAYS:
        halves, of_hours = list(half_hours(card, day).values()), list(hours(card, day).values())
        ended = 12 if day == TODAY else 24
        assert of_hours[:ended] == [total(halves[2 * hour : 2 * hour + 2]) for hour in range(ended)]
        if day != TODAY:
            assert rows(card[f"dayhistory_rc_{day:%Y%m}.csv"])[f"{day:%Y%m%d}"] == total(of_hours)
    june = list(rows(card["dayhistory_rc_202606.csv"]).values())
    assert rows(card["monthhistory_rc_2026.csv"])["202606"] == total(june)


def test_only_measured_intervals_that_have_ended_have_values(card: dict[str, str]) -> None:
    def measured(by_label: dict[str, Row]) -> list[int]:
        return [number for number, row in enumerate(by_label.values()) if row != EMPTY]

    assert measured(half_hours(card, TODAY)) == list(range(25))
    assert measured(hours(card, TODAY)) == list(range(12))
    assert measured(half_hours(card, OUTAGE[0].date())) == [*range(17), *range(23, 48)]
    assert measured(hours(card, OUTAGE[0].date())) == [*range(9), *range(11, 24)]
    assert measured(rows(card["dayhistory_rc_202607.csv"])) == [0, 1]
    assert measured(rows(card["monthhistory_rc_2026.csv"])) == [5]


# The request


def test_without_a_card_or_a_valid_token_the_export_is_the_settings_page(unit: Unit) -> None:
    with simulated() as without_card:
        responses = [without_card.get(CARD_PAGE, downType="1", csrftoken=without_card.token())]
    responses += [unit.get(CARD_PAGE, downType="1", csrftoken="x"), unit.get(CARD_PAGE, downType="1")]
    responses += [unit.get(CARD_PAGE, downType="0", csrftoken=unit.token())]
    for response in responses:
        assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
        assert b'NAME="csrftoken"' in response.content
    assert unit.get(CARD_PAGE, downType="1", csrftoken=unit.token()).headers["Content-Type"] == "application/zip"


def test_the_export_changes_when_a_half_hour_ends_or_a_name_changes() -> None:
    later = NOW + timedelta(minutes=10)
    with simulated(NOW, Household(1, renames=[(later, 20, "書斎,・机")]), sd_card=True, card_days=2) as unit:
        first = unit.card()
        unit.set_clock(later - timedelta(seconds=1))
        assert unit.card() == first
        unit.set_clock(later)
        renamed = unit.card()
        unit.set_clock(NOW + timedelta(minutes=25))
        following = unit.card()
    # Files of earlier days have the new name too; the format cannot contain a comma.
    for name in (f"hourhistory_rc_{YESTERDAY:%Y%m%d}.csv", f"daycost_rc_{TODAY:%Y%m}.csv"):
        assert (cells(first[name])[0][32], cells(renamed[name])[0][32]) == ("洋室１", "机・書斎 ")
        assert rows(first[name]) == rows(renamed[name])
    before, after = (list(half_hours(card, TODAY).values()) for card in (renamed, following))
    assert (before[25], after[25] != EMPTY, after[:25]) == (EMPTY, True, before[:25])


def test_a_circuit_has_readings_only_while_it_is_registered() -> None:
    removed, added = NOW.replace(hour=3, minute=40), NOW.replace(hour=9, minute=10)
    household = Household(1, renames=[(removed, 20, None), (added, 20, "書斎")])
    with simulated(NOW.replace(hour=8), household, sd_card=True, card_days=1) as unit:
        name = f"30minhistory_rc_{TODAY:%Y%m%d}.csv"
        assert cells(unit.card()[name])[0][32] == "無効9"
        unit.set_clock(NOW)
        card = unit.card()
    assert cells(card[name])[0][32] == "書斎"
    missing = [number for number, row in enumerate(half_hours(card, TODAY).values()) if row[32] is None]
    assert missing == [*range(8, 18), *range(25, 48)]
