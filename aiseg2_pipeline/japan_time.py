"""Asia/Tokyo, the zone of the device and its household, and where days and hours start in it.

Times are UTC everywhere inside. Partition keys belong in `orchestration/partitions`. Nothing here reads the clock.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

TOKYO = ZoneInfo("Asia/Tokyo")
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def day_start(day: date) -> datetime:
    """Return the UTC start of a day in Japan."""
    return datetime(day.year, day.month, day.day, tzinfo=TOKYO).astimezone(UTC)


def day_of(moment: datetime) -> date:
    """Return the day in Japan that `moment` lies in."""
    return moment.astimezone(TOKYO).date()


def hour_of(moment: datetime) -> datetime:
    """Return the UTC start of the hour that `moment` lies in; hours in Japan start at the same times."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
