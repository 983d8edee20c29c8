"""Asia/Tokyo, the time zone of the device: the starts of its days and hours, and an hour as text.

All times in the package are UTC. Partitions belong in `orchestration/partitions`. Nothing here reads the clock.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

TOKYO = ZoneInfo("Asia/Tokyo")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# This program did not exist before: a clock with an earlier time is not set.
CLOCK_IS_SET = datetime(2026, 1, 1, tzinfo=UTC)
# An hour in Japan, as partition keys and the file of the first one have it.
HOUR_FORMAT = "%Y-%m-%d-%H:%M"


def day_start(day: date) -> datetime:
    """Return the UTC start of a day in Japan."""
    return datetime(day.year, day.month, day.day, tzinfo=TOKYO).astimezone(UTC)


def day_of(moment: datetime) -> date:
    """Return the date of `moment` in Japan."""
    return moment.astimezone(TOKYO).date()


def hour_of(moment: datetime) -> datetime:
    """Return the UTC start of the hour of `moment`; UTC and Japan have the same hours."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hour_key(moment: datetime) -> str:
    """Return the partition key of the hour that `moment` lies in."""
    return hour_of(moment).astimezone(TOKYO).strftime(HOUR_FORMAT)


def hour_from_key(key: str) -> datetime:
    """Return the UTC start of the hour of a partition key."""
    return datetime.strptime(key, HOUR_FORMAT).replace(tzinfo=TOKYO).astimezone(UTC)
