"""A bill is what a person gets with pencil and paper, and its hours add up to it however they are split."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.tariff.bill import Bill, bill_of_month
from aiseg2_pipeline.tariff.calendar import is_holiday, period_of, period_of_month
from aiseg2_pipeline.tariff.cost import EnergyHour, Markets, PeriodCost, cost_of_period
from aiseg2_pipeline.tariff.load import TOKYO
from aiseg2_pipeline.tariff.plans import Tariff

HOUR = timedelta(hours=1)
LATER = datetime(2030, 1, 1, tzinfo=UTC)
STEPS = [
    {"to_kwh": 120, "yen": Decimal("29.80")},
    {"to_kwh": 300, "yen": Decimal("36.40")},
    {"yen": Decimal("40.49")},
]
FLAT = {
    "name": "従量電灯B",
    "valid_from": date(2024, 4, 1),
    "base": {"ampere": 40, "yen_per_ampere": Decimal("31.175")},
    "price": [{"name": "電力量料金", "steps": STEPS}],
}


def tariff(*plans: dict[str, object], **more: object) -> Tariff:
    return Tariff.model_validate({"plan": list(plans) or [FLAT]} | more)


def hours(first: date, end: date, wh: float = 1000.0, sold_wh: float | None = None) -> list[EnergyHour]:
    """Return an hour's energy for every hour of [first, end) in Japan."""
    start = datetime(first.year, first.month, first.day, tzinfo=TOKYO).astimezone(UTC)
    return [EnergyHour(start + n * HOUR, wh, sold_wh) for n in range((end - first).days * 24)]


def cost_of(home: Tariff, *energy: EnergyHour, markets: Markets = {}) -> PeriodCost:  # noqa: B006 - only read
    """Return the cost of hours of one billing period."""
    return cost_of_period(
        home, period_of(energy[0].start.astimezone(TOKYO).date(), home.meter_day), energy, markets
    )


def bill(of: Tariff, month: str, energy: Sequence[EnergyHour], now: datetime = LATER) -> Bill:
    return bill_of_month(of, month, energy, {}, now)


def amounts(of: Bill) -> dict[str, Decimal]:
    return {line.name: line.yen for line in of.lines}


def test_a_month_of_three_steps_with_adjustment_and_levy_is_what_a_person_calculates() -> None:
    home = tariff(fuel_adjustment={"2026-09": Decimal("-7.11")}, levy={"2025-05": Decimal("3.98")})
    shown = bill(home, "2026-09", hours(date(2026, 9, 1), date(2026, 10, 1), 500))
    # 720 hours of 0.5 kWh are 360 kWh: 120, 180 and 60 in the steps.
    assert amounts(shown) == {
        "従量電灯B: base fee": Decimal("1247.00"),
        "電力量料金, step 1": Decimal("3576.00"),
        "電力量料金, step 2": Decimal("6552.00"),
        "電力量料金, step 3": Decimal("2429.40"),
        "fuel adjustment": Decimal("-2559.60"),
        "levy": Decimal(1432),
    }
    assert shown.total_yen == Decimal(12676)
    assert (shown.missing_hours, shown.notes) == (
        0,
        ("The levy of 2026-09 is not in the tariff; that of 2025-05 was used.",),
    )


def test_a_step_is_crossed_within_an_hour() -> None:
    first = hours(date(2026, 9, 1), date(2026, 9, 6))[:120]
    cost = cost_of_period(
        tariff(), period_of(date(2026, 9, 1), 1), [*first[:119], first[119]._replace(bought_wh=2500)], {}
    )
    # 119 kWh, then one in the first step and one and a half in the second.
    assert cost.hours[-1].bought_yen == Decimal("29.80") + Decimal("1.5") * Decimal("36.40")


def test_zones_by_hour_holiday_and_season_have_the_price_of_each_hour() -> None:
    smart = tariff(
        {
            "name": "スマート",
            "valid_from": date(2026, 1, 1),
            "holidays": ["01-02"],
            "price": [
                {"name": "ナイト", "hours": [[23, 7]], "yen": 20},
                {"name": "夏デイ", "hours": [[10, 17]], "days": "weekdays", "months": [7, 8, 9], "yen": 42},
                {"name": "デイ", "hours": [[10, 17]], "days": "weekdays", "yen": 38},
                {"name": "ホーム", "yen": 30},
            ],
        }
    )

    def yen(month: int, day: int, hour: int) -> Decimal | None:
        start = datetime(2026, month, day, hour, tzinfo=TOKYO).astimezone(UTC)
        return cost_of(smart, EnergyHour(start, 1000)).hours[0].bought_yen

    assert [yen(8, 3, hour) for hour in (6, 7, 9, 10, 16, 17, 22, 23)] == [20, 30, 30, 42, 42, 30, 30, 20]
    assert yen(10, 1, 12) == 38
    # A Saturday, a national holiday, its substitute, and the plan's own holiday.
    assert [yen(*day, 12) for day in ((8, 1), (8, 11), (5, 6), (1, 2))] == [30] * 4
    assert is_holiday(date(2026, 11, 23))


def test_a_change_of_price_in_mid_period_divides_base_fee_and_steps_by_days() -> None:
    dearer = FLAT | {
        "valid_from": date(2026, 9, 16),
        "base": {"yen": 3000},
        "price": [{"name": "一律", "yen": 50}],
    }
    shown = bill(tariff(FLAT, dearer), "2026-09", hours(date(2026, 9, 1), date(2026, 10, 1)))
    # Half of the days each: 360 kWh, of which 60 and 90 in the first two steps.
    assert amounts(shown) == {
        "従量電灯B: base fee": Decimal("1500.00"),
        "電力量料金, step 1": Decimal("1788.00"),
        "電力量料金, step 2": Decimal("3276.00"),
        "電力量料金, step 3": 210 * Decimal("40.49"),
        "一律": Decimal(18000),
    }
    assert [line.yen for line in shown.lines if line.name.endswith("base fee")] == [
        Decimal("623.50"),
        Decimal("1500.00"),
    ]


def test_a_meter_read_on_the_31st_is_read_on_the_last_day_of_a_short_month() -> None:
    assert [
        (period_of_month(month, 31).first, period_of_month(month, 31).end) for month in ("2026-02", "2026-03")
    ] == [
        (date(2026, 1, 31), date(2026, 2, 28)),
        (date(2026, 2, 28), date(2026, 3, 31)),
    ]
    # A leap day, and calendar months.
    assert period_of(date(2028, 2, 29), 31).first == date(2028, 2, 29)
    assert period_of_month("2028-02", 1).days == 29


@given(day=st.dates(date(2020, 1, 1), date(2035, 12, 31)), meter_day=st.integers(1, 31))
def test_every_day_is_in_the_billing_period_of_its_bill(day: date, meter_day: int) -> None:
    period = period_of(day, meter_day)
    assert period.first <= day < period.end
    assert period_of_month(period.month, meter_day) == period


def test_a_missing_hour_has_no_cost_and_a_late_one_moves_the_steps_after_it() -> None:
    every = hours(date(2026, 9, 1), date(2026, 10, 1))
    late = [hour._replace(bought_wh=None) if n == 3 else hour for n, hour in enumerate(every)]
    before, after = bill(tariff(), "2026-09", late), bill(tariff(), "2026-09", every)
    assert (before.missing_hours, after.missing_hours) == (1, 0)
    assert after.total_yen - before.total_yen == pytest.approx(Decimal("40.49"), abs=1)
    cost = cost_of_period(tariff(), period_of(date(2026, 9, 1), 1), late, {})
    moved = cost_of_period(tariff(), period_of(date(2026, 9, 1), 1), every, {})
    assert cost.hours[3].bought_yen is None
    # The 120th kWh is now that of an hour earlier.
    assert (cost.hours[120].bought_yen, moved.hours[120].bought_yen) == (Decimal("29.80"), Decimal("36.40"))
    # A month that is not over expects only the hours until now.
    now = datetime(2026, 9, 2, tzinfo=TOKYO)
    assert bill(tariff(), "2026-09", every[:20], now).missing_hours == 4


def test_sold_energy_earns_the_price_of_its_day_until_the_feed_in_tariff_ends() -> None:
    home = tariff(
        sell=[
            {"valid_from": date(2016, 9, 16), "valid_to": date(2026, 9, 15), "yen": 31},
            {"valid_from": date(2026, 9, 16), "yen": Decimal("8.5")},
        ]
    )
    shown = bill(home, "2026-09", hours(date(2026, 9, 1), date(2026, 10, 1), 0, 100))
    assert [(line.kwh, line.yen) for line in shown.sold] == [
        (Decimal(36), Decimal(1116)),
        (Decimal(36), Decimal(306)),
    ]
    assert shown.sold_yen == 1422


def test_what_generation_saved_is_the_price_at_which_it_would_have_been_bought() -> None:
    home = tariff(levy={"2026-05": 4})
    start = datetime(2026, 9, 1, 12, tzinfo=TOKYO).astimezone(UTC)
    cost = cost_of(home, EnergyHour(start, 119_000, own_wh=2000))
    assert cost.hours[0].saved_yen == Decimal("29.80") + Decimal("36.40") + 8


def test_a_plan_that_follows_the_market_has_the_mean_of_the_half_hours_and_no_cost_without_them() -> None:
    prices = Path("jepx.csv")
    price = {"name": "市場", "market": prices, "yen": 7, "factor": Decimal("1.1")}
    market = tariff({"name": "市場連動", "valid_from": date(2026, 1, 1), "price": [price]})
    start = datetime(2026, 9, 1, tzinfo=TOKYO).astimezone(UTC)
    known = {prices: {start: Decimal(10), start + HOUR / 2: Decimal(20)}}
    cost = cost_of(market, EnergyHour(start, 2000), EnergyHour(start + HOUR, 2000), markets=known)
    assert [hour.bought_yen for hour in cost.hours] == [2 * (7 + Decimal("1.1") * 15), None]


def test_discount_and_tax_are_lines_of_the_bill() -> None:
    plan = FLAT | {
        "base": {"yen": 1000},
        "price": [{"name": "一律", "yen": 20}],
        "discount_percent": 10,
        "discount_yen": 55,
        "tax_percent": 10,
    }
    shown = bill(tariff(plan), "2026-09", hours(date(2026, 9, 1), date(2026, 9, 2)))
    # 1000 + 24 × 20 = 1480; less 148 and 55; and a tenth of 1277.
    assert amounts(shown) == {
        "従量電灯B: base fee": 1000,
        "一律": 480,
        "discount": -203,
        "tax": Decimal("127.70"),
    }
    assert shown.total_yen == 1404


@settings(deadline=None, max_examples=40)
@given(wh=st.lists(st.integers(0, 9000), min_size=720, max_size=720), stepped=st.booleans())
def test_the_hours_add_up_to_the_bill(wh: list[int], *, stepped: bool) -> None:
    price = {"name": "一律", "steps": STEPS} if stepped else {"name": "一律", "yen": Decimal("31.5")}
    home = tariff(FLAT | {"price": [price]}, levy={"2026-05": Decimal("3.98")})
    energy = [
        hour._replace(bought_wh=one)
        for hour, one in zip(hours(date(2026, 9, 1), date(2026, 10, 1)), wh, strict=True)
    ]
    cost = cost_of_period(home, period_of(date(2026, 9, 1), 1), energy, {})
    exact = sum((hour.bought_yen for hour in cost.hours if hour.bought_yen is not None), Decimal(0))
    lines = sum(yen for _, yen in cost.parts.values()) + cost.bought_kwh * Decimal("3.98")
    assert exact == lines
    kwh = Decimal(sum(wh)) / 1000
    ends = [Decimal(0), Decimal(120), Decimal(300), Decimal(10**6)]
    prices = [Decimal("29.80"), Decimal("36.40"), Decimal("40.49")] if stepped else [Decimal("31.5")] * 3
    by_step = (max(Decimal(0), min(kwh, end) - start) for start, end in pairwise(ends))
    assert exact == sum(one * yen for one, yen in zip(by_step, prices, strict=True)) + kwh * Decimal("3.98")
    shown = bill(home, "2026-09", energy)
    # Each line is at most a sen less, the levy and the sum a yen.
    assert 0 <= exact + Decimal("1247.00") - shown.total_yen < Decimal("2.05")
