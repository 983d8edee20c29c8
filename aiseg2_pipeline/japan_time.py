"""Asia/Tokyo, the time zone of the device, and the starts of its days and hours.

All times in the package are UTC. Partition keys belong in `orchestration/partitions`. Nothing here reads the clock.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

TOKYO = ZoneInfo("Asia/Tokyo")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# This program did not exist before: a clock with an earlier time is not set.
CLOCK_IS_SET = datetime(2026, 1, 1, tzinfo=UTC)
# An hour in Japan, as partition keys and files have it.
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
