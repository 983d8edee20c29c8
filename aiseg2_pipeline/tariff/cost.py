"""What the hours of a billing period cost: each kWh by the price, the step, the adjustment and the levy of its hour.

Amounts are exact. Base fee, discount, tax and the rounding of yen belong to the `bill`, not to an hour.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiseg2_pipeline.tariff.calendar import Period, is_holiday
from aiseg2_pipeline.tariff.load import TOKYO, MarketPrices
from aiseg2_pipeline.tariff.plans import Plan, Price, Tariff

if TYPE_CHECKING:
    import pandas as pd

WH_PER_KWH, HOUR_S = 1000, 3600
HALF_HOUR = timedelta(minutes=30)
KINDS = ("bought", "sold", "consumption")
Markets = Mapping[Path, MarketPrices]


class EnergyHour(NamedTuple):
    """An hour's energy in Wh from `start` (UTC): bought, sold, and generated and used at home. None: unknown."""

    start: datetime
    bought_wh: float | None
    sold_wh: float | None = None
    own_wh: float | None = None


class HourCost(NamedTuple):
    """What an hour cost, in yen, with adjustment and levy; None where its energy or the market's price is unknown."""

    start: datetime
    bought_yen: Decimal | None
    sold_yen: Decimal | None
    saved_yen: Decimal | None


class Part(NamedTuple):
    """A line of a bill's energy: the plan's start, the name and the step of a price, and a kWh's price (None: the market's)."""

    plan: date
    price: str
    step: int
    yen: Decimal | None


@dataclass
class PeriodCost:
    """The sums of a billing period: kWh and yen by part, the sold energy by price, and what every hour cost."""

    period: Period
    hours: list[HourCost] = field(default_factory=list)
    parts: dict[Part, tuple[Decimal, Decimal]] = field(default_factory=dict)
    sold: dict[Decimal, Decimal] = field(default_factory=dict)
    bought_kwh: Decimal = Decimal(0)

    def add(self, part: Part, kwh: Decimal, yen: Decimal) -> None:
        """Add bought energy to a part."""
        before_kwh, before_yen = self.parts.get(part, (Decimal(0), Decimal(0)))
        self.parts[part] = before_kwh + kwh, before_yen + yen


def hours_of(energy: "pd.DataFrame") -> list[EnergyHour]:
    """Return the hours of an energy frame (columns `time`, `kind`, `value` in Wh, `interval_s`), in order of time."""
    hourly = energy[(energy["interval_s"] == HOUR_S) & energy["kind"].isin(KINDS)]
    return hours_of_rows(zip(hourly["time"].dt.to_pydatetime(), hourly["kind"], hourly["value"], strict=True))


def hours_of_rows(rows: Iterable[tuple[datetime, str, float]]) -> list[EnergyHour]:
    """Return the hours of rows of start, one of `KINDS` and Wh, in order of time.

    What was generated and used at home is the consumption that was not bought.
    """
    by_hour: dict[datetime, dict[str, float]] = defaultdict(dict)
    for time, kind, wh in rows:
        by_hour[time][kind] = wh
    return [
        EnergyHour(
            time,
            wh.get("bought"),
            wh.get("sold"),
            max(0.0, wh["consumption"] - wh["bought"]) if {"consumption", "bought"} <= wh.keys() else None,
        )
        for time, wh in sorted(by_hour.items())
    ]


def cost_of_period(tariff: Tariff, period: Period, hours: Iterable[EnergyHour], markets: Markets) -> PeriodCost:
    """Return the cost of a billing period's hours, in order of time; a late hour moves the steps of those after it."""
    result = PeriodCost(period)
    extra_yen = by_month(tariff.fuel_adjustment, period.month).yen + by_month(tariff.levy, period.month).yen
    shares = plan_shares(tariff, period)
    used_kwh: dict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for hour in hours:
        local = hour.start.astimezone(TOKYO)
        plan = tariff.plan_at(local.date())
        bought_yen = saved_yen = None
        if plan is not None:
            price = price_at(plan, local)
            yen = market_yen(price, hour.start, markets)
            key, share = (plan.valid_from, price.name), shares[plan.valid_from]
            is_known = price.market is None or yen is not None
            if is_known and hour.bought_wh is not None:
                bought_kwh = _kwh(hour.bought_wh)
                bought_yen = bought_kwh * extra_yen
                for part, kwh, kwh_yen in _pieces(plan, price, used_kwh[key], bought_kwh, share, yen):
                    result.add(part, kwh, kwh * kwh_yen)
                    bought_yen += kwh * kwh_yen
                used_kwh[key] += bought_kwh
                result.bought_kwh += bought_kwh
            if is_known and hour.own_wh is not None:
                # What would have been bought on top of what was.
                own_kwh = _kwh(hour.own_wh)
                pieces = _pieces(plan, price, used_kwh[key], own_kwh, share, yen)
                saved_yen = own_kwh * extra_yen + sum(kwh * kwh_yen for _, kwh, kwh_yen in pieces)
        sold_yen = _sold(tariff, local.date(), hour.sold_wh, result)
        result.hours.append(HourCost(hour.start, bought_yen, sold_yen, saved_yen))
    return result


def price_at(plan: Plan, local: datetime) -> Price:
    """Return the first price that applies at a time in Japan; a plan has one for every hour."""
    holiday = is_holiday(local.date(), plan.holidays)
    return next(price for price in plan.price if price.applies(local.month, local.hour, holiday=holiday))


def market_yen(price: Price, start: datetime, markets: Markets) -> Decimal | None:
    """Return the hour's price where it follows a market: the mean of its half hours; None where one of them is unknown."""
    if price.market is None:
        return None
    prices = markets.get(price.market, {})
    halves = [prices.get(start), prices.get(start + HALF_HOUR)]
    known = [yen for yen in halves if yen is not None]
    return (price.yen or Decimal(0)) + price.factor * sum(known) / 2 if len(known) == len(halves) else None


def plan_shares(tariff: Tariff, period: Period) -> dict[date, Decimal]:
    """Return for each plan of a period, by its start, its share of the days: base fee and steps are in proportion to it."""
    days = Counter(plan.valid_from for day in period.each() if (plan := tariff.plan_at(day)))
    return {start: Decimal(count) / period.days for start, count in days.items()}


class ByMonth(NamedTuple):
    """An amount by the month of the bill, and the month that it is of: an earlier one if that is the last known."""

    yen: Decimal
    month: str | None


def by_month(table: Mapping[str, Decimal], month: str) -> ByMonth:
    """Return the amount of a month; the last known one holds on; 0 before the first one."""
    known = max((one for one in table if one <= month), default=None)
    return ByMonth(Decimal(0) if known is None else table[known], known)


def _pieces(
    plan: Plan, price: Price, begin_kwh: Decimal, kwh: Decimal, share: Decimal, market: Decimal | None
) -> Iterator[tuple[Part, Decimal, Decimal]]:
    """Yield part, kWh and yen per kWh of energy that begins after `begin_kwh` of the period, split at the steps."""
    if not price.steps:
        unit_yen = price.yen if market is None else market
        yield (
            Part(plan.valid_from, price.name, 0, price.yen if market is None else None),
            kwh,
            unit_yen or Decimal(0),
        )
        return
    for number, step in enumerate(price.steps):
        end_kwh = begin_kwh + kwh if step.to_kwh is None else step.to_kwh * share
        piece = min(kwh, end_kwh - begin_kwh)
        if piece > 0:
            yield Part(plan.valid_from, price.name, number, step.yen), piece, step.yen
            begin_kwh, kwh = begin_kwh + piece, kwh - piece
        if kwh <= 0:
            return


def _sold(tariff: Tariff, day: date, sold_wh: float | None, result: PeriodCost) -> Decimal | None:
    yen = tariff.sell_yen(day)
    if sold_wh is None or yen is None:
        return None
    kwh = _kwh(sold_wh)
    result.sold[yen] = result.sold.get(yen, Decimal(0)) + kwh
    return kwh * yen


def _kwh(wh: float) -> Decimal:
    # The device counts whole Wh; a float's binary digits are not energy.
    return Decimal(repr(round(wh, 3))) / WH_PER_KWH
