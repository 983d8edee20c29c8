"""Whether the past of the demo's simulated home is to be stored, or has been, from two small files in the data directory.

A new data directory gets the first file with the time of the first start, the second one when all is stored. So a first
start that was killed is completed up to its own time, and a data directory of an earlier version is left alone. Computing
and storing the past belongs in `demo`.
"""

from datetime import UTC, date, datetime
from pathlib import Path

from aiseg2_pipeline.japan_time import CLOCK_IS_SET, DAY, day_of, day_start, hour_key
from aiseg2_pipeline.small_files import replace_text

UNTIL, STORED = "simulated_until", "simulated_past"
DAYS_OF_MINUTES, MONTHS_OF_HOURS, MONTHS_OF_DAYS = 7, 3, 12


def begin(data_dir: Path, first_partition: Path, store: Path, now: datetime) -> None:
    """Note that the past up to now is to be stored, if there is neither such a note, nor a record, nor its first hour.

    The record then begins with the first of the minutes, as it does for a home that was read since then. The energy before
    it is what the device remembers of an earlier time.
    """
    is_new = not (has_begun(data_dir) or first_partition.exists() or store.exists())
    if is_new and now >= CLOCK_IS_SET:
        replace_text(data_dir / UNTIL, now.astimezone(UTC).isoformat() + "\n")
        replace_text(first_partition, hour_key(first_minute(now)) + "\n")


def has_begun(data_dir: Path) -> bool:
    """Return whether a past of a simulated home is, or is to be, in the stores of this folder."""
    return (data_dir / UNTIL).exists()


def due(data_dir: Path) -> datetime | None:
    """Return the time (UTC) up to which the past is to be stored; None if there is nothing to store."""
    if stored_at(data_dir):
        return None
    try:
        return datetime.fromisoformat((data_dir / UNTIL).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def done(data_dir: Path, until: datetime) -> None:
    """Note that all of the past is stored."""
    replace_text(data_dir / STORED, until.isoformat() + "\n")


def stored_at(data_dir: Path) -> datetime | None:
    """Return when all of the past was stored; None if it was not."""
    try:
        return datetime.fromtimestamp((data_dir / STORED).stat().st_mtime, UTC)
    except OSError:
        return None


def first_minute(until: datetime) -> datetime:
    """Return the first minute of a past (UTC)."""
    return day_start(day_of(until) - DAYS_OF_MINUTES * DAY)


def months_before(day: date, months: int) -> date:
    """Return the first day of the month so many months before that of `day`."""
    years, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return date(years, month + 1, 1)
