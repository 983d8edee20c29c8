"""The answer `series`: the values of one series or of all series of a kind, in steps of equal length.

A long range comes in pieces, or down-sampled to `points` steps with the mean, the smallest and the largest of each. A step
without values is None.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiseg2_pipeline.store.queries import Covered, Queries, Slot, Summary
from aiseg2_pipeline.web.times import DAY_S, HOUR_S, MINUTE_S, iso, start_of

MINUTES_UP_TO_S, HOURS_UP_TO_S = 8 * DAY_S, 2 * 366 * DAY_S
STEPS = (MINUTE_S, HOUR_S, DAY_S)
# The most steps of an answer, and the most values of one that has all series of a kind.
MOST_STEPS, MOST_VALUES = 12_000, 100_000


@dataclass(frozen=True)
class Grid:
    """Steps of `step_s` from `start_s` on, in which values of every `base_s` are combined."""

    start_s: int
    end_s: int
    base_s: int
    step_s: int

    def __len__(self) -> int:
        """Return the number of steps."""
        return max(0, -(-(self.end_s - self.start_s) // self.step_s))

    def place(self, time_s: int) -> int:
        """Return the number of the step of a time."""
        return (time_s - self.start_s) // self.step_s

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
    most = min(MOST_STEPS, max(1, MOST_VALUES // max(1, series)))
    stop_s = start_s + most * step_s
    return Grid(start_s, min(end_s, stop_s), base_s, step_s), stop_s if stop_s < end_s else None


def of_one(queries: Queries | None, kind: str, name: str, steps: Grid) -> dict[str, Any]:
    """Return the columns of one series."""
    cells: list[_Cell | None] = [None] * len(steps)
    for start, _, cell in _cells(queries, kind, name, steps):
        place = steps.place(start)
        cells[place] = cell if (other := cells[place]) is None else other.joined(cell)
    return {
        "time": steps.times(),
        "mean": [cell and _rounded(cell.sum / cell.n) for cell in cells],
        "min": [cell and _rounded(cell.min) for cell in cells],
        "max": [cell and _rounded(cell.max) for cell in cells],
        "interval_s": _intervals(queries, steps, cells),
    }


def of_kind(queries: Queries | None, kind: str, steps: Grid) -> dict[str, Any]:
    """Return the means of all series of a kind, in the order in which they appeared."""
    count = len(steps)
    sums: dict[str, list[float | None]] = {}
    counts: dict[str, list[int]] = {}
    first: list[_Cell | None] = [None] * count
    for start, name, cell in _cells(queries, kind, None, steps):
        place = steps.place(start)
        if name not in sums:
            sums[name], counts[name] = [None] * count, [0] * count
        sums[name][place] = (sums[name][place] or 0.0) + cell.sum
        counts[name][place] += cell.n
        first[place] = first[place] or cell
    known = queries.series() if queries else []
    return {
        "time": steps.times(),
        "interval_s": _intervals(queries, steps, first),
        "series": [
            {
                "name": name,
                "unit": unit,
                "mean": [
                    None if total is None else _rounded(total / n)
                    for total, n in zip(sums[name], counts[name], strict=True)
                ],
            }
            for of, name, unit in known
            if of == kind and name in sums
        ],
    }


@dataclass
class _Cell:
    sum: float
    n: int
    min: float
    max: float
    interval_s: int = 0

    def joined(self, other: "_Cell") -> "_Cell":
        return _Cell(
            self.sum + other.sum,
            self.n + other.n,
            min(self.min, other.min),
            max(self.max, other.max),
            min(self.interval_s, other.interval_s),
        )


def _cells(queries: Queries | None, kind: str, name: str | None, steps: Grid) -> Iterator[tuple[int, str, _Cell]]:
    """Yield start, name and values of the stored minutes, hours or days."""
    if queries is None:
        return
    if steps.base_s == MINUTE_S:
        slots: Iterable[Slot] = queries.slots(kind, steps.start_s, steps.end_s, steps.step_s, name)
        for slot in slots:
            yield slot.start, slot.name, _Cell(slot.mean, 1, slot.min, slot.max, slot.interval_s)
        return
    read = queries.by_hour if steps.base_s == HOUR_S else queries.by_day
    summaries: Iterable[Summary] = read(kind, steps.start_s, steps.end_s, name)
    for one in summaries:
        yield one.start, one.name, _Cell(one.sum, one.n, one.min, one.max)


def _intervals(queries: Queries | None, steps: Grid, cells: list[_Cell | None]) -> list[int | None]:
    """Return 0 for each step with readings, more where it is the device's mean; of hours and days, what most minutes are."""
    if queries is None or steps.base_s == MINUTE_S:
        return [None if cell is None else cell.interval_s for cell in cells]
    found: list[int | None] = [None] * len(steps)
    covered: Iterable[Covered] = queries.coverage_by_hour(steps.start_s, steps.end_s)
    read, filled = [0] * len(steps), [0] * len(steps)
    for hour in covered:
        place = steps.place(hour.start)
        read[place] += hour.live_minutes
        filled[place] += hour.filled_minutes
    for place, cell in enumerate(cells):
        if cell is not None:
            found[place] = HOUR_S if filled[place] > read[place] else 0
    return found


def _rounded(value: float) -> float:
    return round(value, 3)
