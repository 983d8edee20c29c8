"""The answer `series`: the values of one series or of all series of a kind, in steps of equal length.

A long range comes in pieces, or down-sampled to `points` steps with the mean, the smallest and the largest of each. A step
without values is None.
"""

from array import array
from dataclasses import dataclass
from typing import Any

from aiseg2_pipeline.store.queries import Queries
from aiseg2_pipeline.web.times import DAY_S, HOUR_S, MINUTE_S, iso, start_of

MINUTES_UP_TO_S, HOURS_UP_TO_S = 8 * DAY_S, 2 * 366 * DAY_S
STEPS = (MINUTE_S, HOUR_S, DAY_S)
# The most steps of an answer, and the most values of one that has all series of a kind: a day of 45.
MOST_STEPS, MOST_VALUES = 12_000, 65_000
# The most minutes, and the most rows of hours, that are read for an answer, however few steps they become.
MOST_MINUTES, MOST_ROWS = 12_000, 1_000_000
DIGITS = 3


@dataclass(frozen=True)
class Grid:
    """Steps of `step_s` from `start_s` on, a multiple of `base_s`."""

    start_s: int
    end_s: int
    base_s: int
    step_s: int

    def __len__(self) -> int:
        """Return the number of steps."""
        return max(0, -(-(self.end_s - self.start_s) // self.step_s))

    @property
    def is_of_hours(self) -> bool:
        """Whether hours are read instead of minutes."""
        return self.base_s > MINUTE_S

    def times(self) -> list[str]:
        """Return the start of each step."""
        return [iso(self.start_s + n * self.step_s) for n in range(len(self))]


def grid(start_s: int, end_s: int, step_s: int | None, points: int | None, series: int) -> tuple[Grid, int | None]:
    """Return the steps of an answer for so many series, and where the next one begins, None if it has all."""
    length_s = end_s - start_s
    base_s = step_s or (
        MINUTE_S if length_s <= MINUTES_UP_TO_S else HOUR_S if length_s <= HOURS_UP_TO_S else DAY_S
    )
    start_s = start_of("day" if base_s == DAY_S else "hour", start_s)
    step_s = base_s
    if points:
        step_s *= max(1, -(-(end_s - start_s) // (base_s * points)))
    series = max(1, series)
    read_s = MOST_MINUTES * MINUTE_S if base_s == MINUTE_S else MOST_ROWS // series * HOUR_S
    most = max(1, min(MOST_STEPS, MOST_VALUES // series, read_s // step_s))
    stop_s = start_s + most * step_s
    return Grid(start_s, min(end_s, stop_s), base_s, step_s), stop_s if stop_s < end_s else None


def of_one(queries: Queries | None, kind: str, name: str, steps: Grid) -> dict[str, Any]:
    """Return the columns of one series."""
    count = len(steps)
    sums, counts = array("d", bytes(8 * count)), array("l", bytes(8 * count))
    intervals = array("l", bytes(8 * count))
    lows: list[float | None] = [None] * count
    highs: list[float | None] = [None] * count
    if queries is not None:
        start_s, step_s = steps.start_s, steps.step_s
        for start, _, n, total, low, high, interval_s in queries.values(
            kind, start_s, steps.end_s, name, by_hour=steps.is_of_hours
        ):
            place = (start - start_s) // step_s
            known_low, known_high = lows[place], highs[place]
            lows[place] = low if known_low is None or low < known_low else known_low
            highs[place] = high if known_high is None or high > known_high else known_high
            intervals[place] = min(intervals[place], interval_s) if counts[place] else interval_s
            sums[place] += total
            counts[place] += n
    return {
        "time": steps.times(),
        "mean": _means(sums, counts),
        "min": [None if low is None else round(low, DIGITS) for low in lows],
        "max": [None if high is None else round(high, DIGITS) for high in highs],
        "interval_s": _intervals(queries, steps, intervals, counts),
    }


def of_kind(queries: Queries | None, kind: str, steps: Grid) -> dict[str, Any]:
    """Return the means of all series of a kind, in the order in which they appeared."""
    count = len(steps)
    known = {
        number: (name, unit) for number, of, name, unit in (queries.series() if queries else ()) if of == kind
    }
    sums = {number: array("d", bytes(8 * count)) for number in known}
    counts = {number: array("l", bytes(8 * count)) for number in known}
    intervals, found = array("l", bytes(8 * count)), array("l", bytes(8 * count))
    if queries is not None:
        start_s, step_s = steps.start_s, steps.step_s
        for start, number, n, total, _, _, interval_s in queries.values(
            kind, start_s, steps.end_s, by_hour=steps.is_of_hours
        ):
            place = (start - start_s) // step_s
            intervals[place] = min(intervals[place], interval_s) if found[place] else interval_s
            found[place] = 1
            sums[number][place] += total
            counts[number][place] += n
    return {
        "time": steps.times(),
        "interval_s": _intervals(queries, steps, intervals, found),
        "series": [
            {"name": name, "unit": unit, "mean": _means(sums[number], counts[number])}
            for number, (name, unit) in known.items()
            if any(counts[number])
        ],
    }


def _means(sums: "array[float]", counts: "array[int]") -> list[float | None]:
    return [round(total / n, DIGITS) if n else None for total, n in zip(sums, counts, strict=True)]


def _intervals(
    queries: Queries | None, steps: Grid, intervals: "array[int]", counts: "array[int]"
) -> list[int | None]:
    """Return 0 for each step with readings, more where it is the device's mean; of hours and days, what most minutes are."""
    if queries is not None and steps.is_of_hours:
        more_filled = array("l", bytes(8 * len(steps)))
        for hour in queries.coverage_by_hour(steps.start_s, steps.end_s):
            more_filled[(hour.start - steps.start_s) // steps.step_s] += hour.filled_minutes - hour.live_minutes
        intervals = array("l", (HOUR_S if more > 0 else 0 for more in more_filled))
    return [interval_s if n else None for interval_s, n in zip(intervals, counts, strict=True)]
