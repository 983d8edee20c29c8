"""Times of the API: ISO 8601 with Japan's zone, and the hours, days and months of Japan as unix seconds.

Japan has no daylight saving time, so an hour or a day is a fixed number of seconds.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Literal

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
# A fixed offset takes a tenth of the time of a zone's rules, for thousands of times.
JAPAN = timezone(timedelta(hours=9))
OFFSET_S = 9 * HOUR_S
By = Literal["hour", "day", "month"]
DECEMBER = 12
# A `+` in an address is a space.
_SPACE_FOR_PLUS = re.compile(r" (?=\d{2}:?\d{2}$)")
_MONTH = re.compile(r"\d{4}-\d{2}")
EARLIEST_YEAR, LATEST_YEAR = 2000, 2099


def iso(time_s: float) -> str:
    """Return a time as ISO 8601 text."""
    return datetime.fromtimestamp(time_s, JAPAN).isoformat(timespec="seconds")


def parsed(text: str) -> int:
    """Return a month, a day or a time; one without a zone is Japan's. Raise ValueError."""
    text = f"{text}-01" if _MONTH.fullmatch(text) else _SPACE_FOR_PLUS.sub("+", text)
    moment = datetime.fromisoformat(text)
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        raise ValueError
    return int((moment if moment.tzinfo else moment.replace(tzinfo=JAPAN)).timestamp())


def start_of(by: By, time_s: float) -> int:
    """Return the start of the hour, day or month of a time."""
    if by == "hour":
        return int(time_s // HOUR_S * HOUR_S)
    if by == "day":
        return int((time_s + OFFSET_S) // DAY_S * DAY_S - OFFSET_S)
    moment = datetime.fromtimestamp(time_s, JAPAN)
    return int(datetime(moment.year, moment.month, 1, tzinfo=JAPAN).timestamp())


def end_of(by: By, start_s: int) -> int:
    """Return the end of the hour, day or month that begins at `start_s`."""
    if by == "hour":
        return start_s + HOUR_S
    if by == "day":
        return start_s + DAY_S
    first = datetime.fromtimestamp(start_s, JAPAN)
    december = first.month == DECEMBER
    year, month = (first.year + 1, 1) if december else (first.year, first.month + 1)
    return int(datetime(year, month, 1, tzinfo=JAPAN).timestamp())


def periods(by: By, start_s: int, end_s: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of the hours, days or months that overlap a range."""
    start = start_of(by, start_s)
    while start < end_s:
        end = end_of(by, start)
        yield start, end
        start = end
