"""Hours and days as partitions, in Asia/Tokyo, the running ones included.

A partition is an hour although the schedule ticks every minute, because Dagster's UI cannot draw a year of minutes. Which
minutes have readings is in the store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dagster import DailyPartitionsDefinition, HourlyPartitionsDefinition, TimeWindowPartitionsDefinition

from aiseg2_pipeline.japan_time import DAY, HOUR, TOKYO, day_of, day_start, hour_of

# This program did not exist before: a clock with an earlier time is not set.
CLOCK_IS_SET = datetime(2026, 1, 1, tzinfo=UTC)
KEY_FORMAT = "%Y-%m-%d-%H:%M"


def hourly(first: datetime) -> HourlyPartitionsDefinition:
    """Return the hours from `first` on; the running hour is one of them."""
    return HourlyPartitionsDefinition(
        start_date=hour_key(first), timezone=str(TOKYO), fmt=KEY_FORMAT, end_offset=1
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


def hour_key(moment: datetime) -> str:
    """Return the partition key of the hour that `moment` lies in."""
    return hour_of(moment).astimezone(TOKYO).strftime(KEY_FORMAT)


def hour_from_key(key: str) -> datetime:
    """Return the UTC start of the hour of a partition key."""
    return datetime.strptime(key, KEY_FORMAT).replace(tzinfo=TOKYO).astimezone(UTC)


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


def first_hour(data_dir: Path, now: datetime, start: date | None = None) -> datetime:
    """Return the start of the first partition of this data directory: by default the hour of the first call.

    `start` is an earlier day in Japan (AISEG2_START_DATE). The hour is stored in a file beside the store, so that neither
    a restart nor a new store changes it. A stored hour later than now is corrected, and a clock that is not set stores none.
    """
    path = data_dir / "first_partition"
    first = hour_of(now)
    if start is not None:
        first = min(first, day_start(start))
    try:
        stored = hour_from_key(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        stored = None
    if stored is not None and stored <= first:
        return stored
    if now >= CLOCK_IS_SET:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(hour_key(first) + "\n", encoding="ascii")
    return first
