"""The plans of a tariff file, as validated models. Reading the file belongs in `load`."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


def _like(form: str, example: str) -> AfterValidator:
    """Return a check that a text completes `form` to a date."""

    def check(value: str) -> str:
        try:
            date.fromisoformat(form.format(value))
        except ValueError:
            raise ValueError(f"write it like {example}") from None
        return value

    return AfterValidator(check)


Month = Annotated[str, _like("{}-01", "2026-11")]
# In a leap year, for 02-29.
DayOfYear = Annotated[str, _like("2000-{}", "01-02")]
HourOfDay = Annotated[int, Field(ge=0, le=24)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Step(_Model):
    """The price of a kWh up to a number of kWh in a billing period; the last step has no end."""

    to_kwh: Annotated[Decimal, Field(gt=0)] | None = None
    yen: Decimal


class Price(_Model):
    """The price of a kWh in some hours of some days; a line of the bill.

    `hours` are pairs of the first hour and the hour after the last, over midnight if it is smaller; empty: all. `months` are
    those of a season; empty: all. Instead of `yen`, the price may have steps, which count the kWh of this price alone, or
    follow the half-hourly prices of a `market` file: yen + factor × market price.
    """

    name: str
    hours: tuple[tuple[HourOfDay, HourOfDay], ...] = ()
    days: Literal["all", "weekdays", "holidays"] = "all"
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = ()
    yen: Decimal | None = None
    steps: tuple[Step, ...] = ()
    market: Path | None = None
    factor: Decimal = Decimal(1)

    @model_validator(mode="after")
    def _has_one_price(self) -> Self:
        if self.steps and (self.yen is not None or self.market):
            raise ValueError("give either `yen` or `steps`")
        if not self.steps and self.yen is None:
            raise ValueError("give `yen` or `steps`")
        ends = [step.to_kwh for step in self.steps[:-1]]
        if None in ends or any(a >= b for a, b in pairwise(end for end in ends if end is not None)):
            raise ValueError("the steps rise, and each but the last has `to_kwh`")
        if self.steps and self.steps[-1].to_kwh is not None:
            raise ValueError("the last step has no `to_kwh`")
        return self

    def applies(self, month: int, hour: int, *, holiday: bool) -> bool:
        """Return whether this is the price of an hour of the day (0 to 23, Japan time)."""
        in_hours = not self.hours or any(
            start <= hour < end if start < end else hour >= start or hour < end for start, end in self.hours
        )
        on_day = self.days == "all" or (self.days == "holidays") == holiday
        return in_hours and on_day and (not self.months or month in self.months)


class Base(_Model):
    """The base fee of a month: in yen, or by ampere or kVA."""

    yen: Decimal = Decimal(0)
    ampere: Decimal = Decimal(0)
    yen_per_ampere: Decimal = Decimal(0)
    kva: Decimal = Decimal(0)
    yen_per_kva: Decimal = Decimal(0)

    @property
    def monthly_yen(self) -> Decimal:
        """Return the fee of a whole month."""
        return self.yen + self.ampere * self.yen_per_ampere + self.kva * self.yen_per_kva


class Plan(_Model):
    """A plan from a day on. Saturdays, Sundays, national holidays and `holidays` (MM-DD) are holidays.

    `discount_percent` is of base fee and energy; `tax_percent` is 0 where the prices include the tax.
    """

    name: str
    valid_from: date
    base: Base = Base()
    price: tuple[Price, ...] = Field(min_length=1)
    holidays: tuple[DayOfYear, ...] = ()
    discount_yen: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    discount_percent: Annotated[Decimal, Field(ge=0, le=100)] = Decimal(0)
    tax_percent: Annotated[Decimal, Field(ge=0, le=100)] = Decimal(0)

    @model_validator(mode="after")
    def _has_every_hour(self) -> Self:
        for month, hour, holiday in _hours_of_a_year():
            if not any(price.applies(month, hour, holiday=holiday) for price in self.price):
                kind = "holidays" if holiday else "weekdays"
                raise ValueError(f"no price applies on {kind} of month {month} from {hour}:00")
        names = [price.name for price in self.price]
        if len(set(names)) < len(names):
            raise ValueError("two prices have the same name")
        return self


class Sell(_Model):
    """The price of a sold kWh from a day to a day, both included."""

    valid_from: date
    valid_to: date | None = None
    yen: Decimal


class Tariff(_Model):
    """All plans of a home, the price of what it sells, and the yen per kWh that change by the month of the bill.

    `meter_day` is the day on which the meter is read: a billing period ends the day before.
    """

    plan: tuple[Plan, ...] = Field(min_length=1)
    meter_day: Annotated[int, Field(ge=1, le=31)] = 1
    sell: tuple[Sell, ...] = ()
    fuel_adjustment: dict[Month, Decimal] = {}
    levy: dict[Month, Decimal] = {}

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if any(a.valid_from >= b.valid_from for a, b in pairwise(self.plan)):
            raise ValueError("the plans are in the order of `valid_from`")
        return self

    def plan_at(self, day: date) -> Plan | None:
        """Return the plan of a day; None before the first one."""
        return next((plan for plan in reversed(self.plan) if plan.valid_from <= day), None)

    def sell_yen(self, day: date) -> Decimal | None:
        """Return the price of a sold kWh on a day, None if there is none: the last entry that includes the day."""
        return next(
            (
                one.yen
                for one in reversed(self.sell)
                if one.valid_from <= day and (one.valid_to is None or day <= one.valid_to)
            ),
            None,
        )


def _hours_of_a_year() -> Iterator[tuple[int, int, bool]]:
    return ((month, hour, holiday) for month in range(1, 13) for hour in range(24) for holiday in (False, True))
