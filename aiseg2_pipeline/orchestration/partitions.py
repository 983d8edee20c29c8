"""Hours as partitions, in Asia/Tokyo, the running hour included.

Hours under a minute schedule, because Dagster's pages do not draw at a year of minutes; which minutes are there is
the store's to know.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from dagster import DailyPartitionsDefinition, HourlyPartitionsDefinition, TimeWindowPartitionsDefinition

from aiseg2_pipeline.japan_time import TOKYO, hour_of

# Before this program existed, no clock that shows the time was right.
CLOCK_IS_SET = datetime(2026, 1, 1, tzinfo=UTC)
KEY_FORMAT = "%Y-%m-%d-%H:%M"
DAY_FORMAT = "%Y-%m-%d"


def hourly(first: datetime) -> HourlyPartitionsDefinition:
    """Return the hours from `first` on; the running hour is one of them."""
    return HourlyPartitionsDefinition(
        start_date=hour_key(first), timezone=str(TOKYO), fmt=KEY_FORMAT, end_offset=1
    )


def daily(first: datetime) -> DailyPartitionsDefinition:
    """Return the days in Japan from that of `first` on; today is one of them."""
    return DailyPartitionsDefinition(start_date=day_key(first), timezone=str(TOKYO), fmt=DAY_FORMAT, end_offset=1)


def day_key(moment: datetime) -> str:
    """Return the partition key of the day in Japan that `moment` lies in."""
    return moment.astimezone(TOKYO).strftime(DAY_FORMAT)


def day_from_key(key: str) -> datetime:
    """Return the UTC start of the day of a partition key."""
    return datetime.strptime(key, DAY_FORMAT).replace(tzinfo=TOKYO).astimezone(UTC)


def hour_key(moment: datetime) -> str:
    """Return the partition key of the hour that `moment` lies in."""
    return hour_of(moment).astimezone(TOKYO).strftime(KEY_FORMAT)


def hour_from_key(key: str) -> datetime:
    """Return the UTC start of the hour of a partition key."""
    return datetime.strptime(key, KEY_FORMAT).replace(tzinfo=TOKYO).astimezone(UTC)


def hours_from_keys(keys: Sequence[str]) -> list[datetime]:
    """Return the UTC starts of the hours of partition keys."""
    return [hour_from_key(key) for key in keys]


def first_of(partitions: TimeWindowPartitionsDefinition) -> datetime:
    """Return the UTC start of the first partition."""
    return partitions.start.astimezone(UTC)


def first_hour(data_dir: Path, now: datetime, start: date | None = None) -> datetime:
    """Return the first partition of this data directory: the hour in which it was first asked for.

    `start` is a day in Japan that someone set to have an earlier past. The hour is noted in a file of its own beside
    the store, so that it moves neither with a restart nor with a store that had to be replaced. A note from a clock
    that was ahead is corrected, and none is made by a clock that is unset.
    """
    note = data_dir / "first_partition"
    first = hour_of(now)
    if start is not None:
        first = min(first, datetime(start.year, start.month, start.day, tzinfo=TOKYO).astimezone(UTC))
    try:
        noted = hour_from_key(note.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        noted = None
    if noted is not None and noted <= first:
        return noted
    if now >= CLOCK_IS_SET:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(hour_key(first) + "\n", encoding="ascii")
    return first
