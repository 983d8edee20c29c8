"""Hours and days as partitions, in Asia/Tokyo, the running ones included.

A partition is an hour although the schedule ticks every minute, because Dagster's UI cannot draw a year of minutes. Which
minutes have readings is in the store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from dagster import DailyPartitionsDefinition, HourlyPartitionsDefinition, TimeWindowPartitionsDefinition

from aiseg2_pipeline.japan_time import DAY, HOUR, HOUR_FORMAT, TOKYO, day_of, day_start, hour_from_key, hour_key


def hourly(first: datetime) -> HourlyPartitionsDefinition:
    """Return the hours from `first` on; the running hour is one of them."""
    return HourlyPartitionsDefinition(
        start_date=hour_key(first), timezone=str(TOKYO), fmt=HOUR_FORMAT, end_offset=1
    )


def daily(first: datetime) -> DailyPartitionsDefinition:
    """Return the days in Japan from that of `first` on; today is one of them."""
    return DailyPartitionsDefinition(start_date=day_key(first), timezone=str(TOKYO), end_offset=1)


def day_key(moment: datetime) -> str:
    """Return the partition key of the day in Japan that `moment` lies in."""
    return day_of(moment).isoformat()


def day_from_key(key: str) -> datetime:
    """Return the UTC start of the day of a partition key."""
    return day_start(date.fromisoformat(key))


@dataclass(frozen=True)
class Period:
    """The hour or the day as a partition: its key, its UTC start from the key, and its length."""

    name: str
    key: Callable[[datetime], str]
    start: Callable[[str], datetime]
    length: timedelta


HOURS = Period("hour", hour_key, hour_from_key, HOUR)
DAYS = Period("day", day_key, day_from_key, DAY)


def first_of(partitions: TimeWindowPartitionsDefinition) -> datetime:
    """Return the UTC start of the first partition."""
    return partitions.start.astimezone(UTC)
