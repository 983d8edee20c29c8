"""Holidays and billing periods, in Japan's dates."""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

import jpholiday

SATURDAY = 5
DAY = timedelta(days=1)


@cache
def is_holiday(day: date, extra: tuple[str, ...] = ()) -> bool:
    """Return whether a day is a Saturday, a Sunday, a national holiday, or one of `extra` (MM-DD)."""
    return day.weekday() >= SATURDAY or jpholiday.is_holiday(day) or f"{day:%m-%d}" in extra


@dataclass(frozen=True)
class Period:
    """A billing period: its first day, and the day after its last one, on which the meter is read."""

    first: date
    end: date

    @property
    def month(self) -> str:
        """Return the month of the bill: that of the period's last day."""
        return f"{self.last:%Y-%m}"

    @property
    def last(self) -> date:
        """Return the last day."""
        return self.end - DAY

    @property
    def days(self) -> int:
        """Return the number of days."""
        return (self.end - self.first).days

    def each(self) -> Iterator[date]:
        """Yield the days."""
        return (self.first + n * DAY for n in range(self.days))


def period_of(day: date, meter_day: int) -> Period:
    """Return the billing period of a day. Where a month is too short for `meter_day`, its last day is the meter's."""
    read = _meter_read(day.year, day.month, meter_day)
    if day >= read:
        return Period(read, _meter_read(*_next_month(read.year, read.month), meter_day))
    before = day.replace(day=1) - DAY
    return Period(_meter_read(before.year, before.month, meter_day), read)


def period_of_month(month: str, meter_day: int) -> Period:
    """Return the billing period of a bill's month (YYYY-MM)."""
    year, number = (int(part) for part in month.split("-"))
    if meter_day == 1:
        return period_of(date(year, number, 1), meter_day)
    return period_of(_meter_read(year, number, meter_day) - DAY, meter_day)


def _meter_read(year: int, month: int, meter_day: int) -> date:
    return date(year, month, min(meter_day, monthrange(year, month)[1]))


def _next_month(year: int, month: int) -> tuple[int, int]:
    return (year + 1, 1) if month == 12 else (year, month + 1)  # noqa: PLR2004 - December
