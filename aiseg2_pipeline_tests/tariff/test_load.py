"""A tariff file is read whole, or refused in one sentence with line and key."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from aiseg2_pipeline.tariff.bill import bill_of_month
from aiseg2_pipeline.tariff.cost import EnergyHour
from aiseg2_pipeline.tariff.load import TOKYO, TariffError, load_markets, load_tariff

EXAMPLES = Path(__file__).parents[2] / "docs" / "tariffs"
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def november() -> list[EnergyHour]:
    """Return the hours of October and November 2026: 1 kWh bought in every hour, and 1 kWh sold at noon."""
    start = datetime(2026, 10, 1, tzinfo=TOKYO).astimezone(UTC)
    times = [start + n * timedelta(hours=1) for n in range(61 * 24)]
    return [EnergyHour(time, 1000, 1000 if time.astimezone(TOKYO).hour == 12 else 0) for time in times]


@pytest.mark.parametrize(
    ("name", "amounts", "total", "sold"),
    [
        (
            "steps",
            # 720 kWh: 120, 180, 420. 720 × 7.11, 720 × 3.98. 30 kWh × 26 yen.
            ["1247.00", "3576.00", "6552.00", "17005.80", "-5119.20", "2865"],
            26126,
            780,
        ),
        (
            "night",
            # 31 days from 12 October: 8 and 16 hours a day.
            ["1384.02", "7154.80", "21129.60", "-5289.84", "-55.00", "2961"],
            27284,
            0,
        ),
        (
            "smart",
            # 19 weekdays, 11 weekend days and holidays (3 and 23 November). Night 10 h, day 7 h of weekdays, home the rest:
            # 300, 133 and 287 kWh. 2600 + 4560 + 4136.30 + 7289.80 = 18586.10, 3 % of it, and a tenth of the rest.
            ["2600.00", "4560.00", "4136.30", "7289.80", "-557.58", "1802.85", "2865"],
            22696,
            255,
        ),
    ],
)
def test_the_bill_of_each_example_is_what_a_person_calculates(
    name: str, amounts: list[str], total: int, sold: int
) -> None:
    bill = bill_of_month(load_tariff(EXAMPLES / f"{name}.toml"), "2026-11", november(), {}, LATER)
    assert sorted(line.yen for line in bill.lines) == sorted(Decimal(amount) for amount in amounts)
    assert (int(bill.total_yen), int(bill.sold_yen), bill.missing_hours) == (total, sold, 0)


def test_the_example_that_follows_the_market_has_the_hours_of_its_prices() -> None:
    path = EXAMPLES / "market.toml"
    tariff = load_tariff(path)
    bill = bill_of_month(tariff, "2026-11", november(), load_markets(path, tariff), LATER)
    # (11.53 + 11.21) ÷ 2 and (10.98 + 10.64) ÷ 2, each × 1.1 + 11.20.
    assert [line.yen for line in bill.lines] == [Decimal("1518.00"), Decimal("46.79"), Decimal(7)]
    assert bill.missing_hours == 718


GOOD = (EXAMPLES / "steps.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("meter_day = 1", "meter_day = 40", "line 4, `meter_day`: Input should be less than or equal to 31"),
        (
            "{ yen = 40.49 }",
            "{ to_kwh = 500, yen = 40.49 }",
            "line 11, `plan[1].price[1]`: the last step has no `to_kwh`",
        ),
        ("yen = 8.5", 'yen = "cheap"', "line 35, `sell[2].yen`: Input should be a valid decimal"),
        ("[levy]", "[lewy]", "line 24, `lewy`: there is no such key"),
        ('"2025-05"', '"2025-13"', "line 25, `levy.2025-13`: write it like 2026-11"),
        ("valid_from = 2024-04-01", "valid_from = 2024-04-31", "is no TOML"),
        ("steps = [", "hours = [[0, 23]]\nsteps = [", "no price applies on weekdays of month 1 from 23:00"),
    ],
)
def test_a_wrong_file_is_one_sentence_with_line_and_key(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = tmp_path / "tariff.toml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(TariffError) as raised:
        load_tariff(path)
    assert sentence in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("day,price\n", "need the columns time, yen"),
        ("time,yen\n2026-11-26T00:00,much\n", "line 2 has no time or no number"),
    ],
)
def test_wrong_market_prices_are_one_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "market.csv").write_text(content, encoding="utf-8")
    with pytest.raises(TariffError, match=sentence):
        load_markets(tmp_path / "tariff.toml", load_tariff(EXAMPLES / "market.toml"))
    with pytest.raises(TariffError, match="AISEG2_TARIFF"):
        load_tariff(tmp_path / "missing.toml")
