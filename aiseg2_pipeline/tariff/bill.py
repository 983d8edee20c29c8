"""The bill of a period, line by line as a power company prints it.

Rounding follows TEPCO Energy Partner's terms (units and fractions): amounts of a line have two decimals, the levy and the
sum have whole yen, and fractions are dropped. What an hour costs belongs in `cost`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal

from aiseg2_pipeline.tariff.calendar import Period, period_of_month
from aiseg2_pipeline.tariff.cost import (
    EnergyHour,
    Markets,
    Part,
    PeriodCost,
    by_month,
    cost_of_period,
    plan_shares,
)
from aiseg2_pipeline.tariff.load import TOKYO
from aiseg2_pipeline.tariff.plans import Plan, Tariff

YEN, SEN = Decimal(1), Decimal("0.01")
PERCENT = 100
MAY = 5
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Line:
    """A line: its name, its kWh and the price of one (None where there is none), and its amount in yen."""

    name: str
    kwh: Decimal | None
    yen_per_kwh: Decimal | None
    yen: Decimal


@dataclass(frozen=True)
class Bill:
    """The bill of a period: its lines, their sum, what was earned by selling, and how many hours are missing.

    `notes` say which amounts are of an earlier month, because the month's own are not in the tariff.
    """

    period: Period
    lines: tuple[Line, ...]
    total_yen: Decimal
    sold: tuple[Line, ...]
    sold_yen: Decimal
    missing_hours: int
    notes: tuple[str, ...]


def bill_of_month(
    tariff: Tariff, month: str, hours: Sequence[EnergyHour], markets: Markets, now: datetime
) -> Bill:
    """Return the bill of a month (YYYY-MM) for its hours until `now`; a missing hour is counted, not estimated."""
    period = period_of_month(month, tariff.meter_day)
    of_period = [hour for hour in hours if period.first <= hour.start.astimezone(TOKYO).date() < period.end]
    cost = cost_of_period(tariff, period, of_period, markets)
    lines = tuple(_lines(tariff, cost))
    sold = tuple(
        Line("sold", kwh, yen, _down(kwh * yen, SEN)) for yen, kwh in sorted(cost.sold.items(), reverse=True)
    )
    start = datetime(period.first.year, period.first.month, period.first.day, tzinfo=TOKYO)
    end = datetime(period.end.year, period.end.month, period.end.day, tzinfo=TOKYO)
    expected = max(0, int((min(end, now) - start) / HOUR))
    return Bill(
        period,
        lines,
        _down(sum((line.yen for line in lines), Decimal(0)), YEN),
        sold,
        _down(sum((line.yen for line in sold), Decimal(0)), YEN),
        expected - sum(hour.bought_yen is not None for hour in cost.hours),
        tuple(_notes(tariff, period.month)),
    )


def _lines(tariff: Tariff, cost: PeriodCost) -> Iterator[Line]:
    month = cost.period.month
    shares = plan_shares(tariff, cost.period)
    discounts_yen = taxes_yen = Decimal(0)
    for plan in tariff.plan:
        if plan.valid_from not in shares:
            continue
        share = shares[plan.valid_from]
        base = Line(f"{plan.name}: base fee", None, None, _down(plan.base.monthly_yen * share, SEN))
        energy = [
            Line(_name_of(plan, part), kwh, part.yen, _down(yen, SEN))
            for part, (kwh, yen) in cost.parts.items()
            if part.plan == plan.valid_from
        ]
        yield base
        yield from energy
        subtotal = base.yen + sum((line.yen for line in energy), Decimal(0))
        discount = plan.discount_yen * share + subtotal * plan.discount_percent / PERCENT
        discounts_yen += discount
        taxes_yen += (subtotal - discount) * plan.tax_percent / PERCENT
    if tariff.fuel_adjustment:
        yen = by_month(tariff.fuel_adjustment, month).yen
        yield Line("fuel adjustment", cost.bought_kwh, yen, _down(cost.bought_kwh * yen, SEN))
    if discounts_yen:
        yield Line("discount", None, None, -_down(discounts_yen, SEN))
    if taxes_yen:
        yield Line("tax", None, None, _down(taxes_yen, SEN))
    if tariff.levy:
        yen = by_month(tariff.levy, month).yen
        yield Line("levy", cost.bought_kwh, yen, _down(cost.bought_kwh * yen, YEN))


def _name_of(plan: Plan, part: Part) -> str:
    steps = next(price.steps for price in plan.price if price.name == part.price)
    return f"{part.price}, step {part.step + 1}" if steps else part.price


def _notes(tariff: Tariff, month: str) -> Iterator[str]:
    for name, table in (("fuel adjustment", tariff.fuel_adjustment), ("levy", tariff.levy)):
        known = by_month(table, month).month
        # The levy is set for the bills of May to April.
        holds = known == month or (name == "levy" and known and _levy_year(known) == _levy_year(month))
        if table and not holds:
            yield (
                f"The {name} of {month} is not in the tariff; that of {known} was used."
                if known
                else f"The {name} is not in the tariff before {min(table)}; 0 was used."
            )


def _levy_year(month: str) -> int:
    return int(month[:4]) - (int(month[5:]) < MAY)


def _down(yen: Decimal, unit: Decimal) -> Decimal:
    # Adding 0 turns -0 into 0.
    return yen.quantize(unit, ROUND_DOWN) + 0
