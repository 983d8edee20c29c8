"""The unit's memory: the energy of each hour, in whole Wh, as a meter would have counted it.

A meter counts up and is read at full hours; so parts add up to the whole with no rounding left over, and bought,
sold and own use balance generation and consumption exactly, as in a real unit's files. How a page shows an hour
belongs in `graphs`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.chance import IntArray
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline.simulator.weather import STEP_S

JAPAN = ZoneInfo("Asia/Tokyo")
MEMORY_D = 400

_HOUR_STEPS = 3600 // STEP_S
_SERIES = 3 + len(CIRCUITS)


@dataclass(frozen=True)
class Day:
    """A day's 24 hours in Wh; hours that have not come are 0, the running hour holds what has come so far.

    `circuits_wh` is (24, 32) in the order of `CIRCUITS`, all else (24,). Without `is_known` all is 0.
    """

    is_known: bool
    own_wh: IntArray
    bought_wh: IntArray
    sold_wh: IntArray
    circuits_wh: IntArray

    @property
    def generation_wh(self) -> IntArray:
        """What the plant made: used here or sold."""
        return self.own_wh + self.sold_wh

    @property
    def consumption_wh(self) -> IntArray:
        """What the household used: its own or bought."""
        return self.own_wh + self.bought_wh


class Meter:
    """Counts a household's energy; hours that have ended are counted once."""

    def __init__(self, household: Household) -> None:
        """Make a meter that has counted nothing yet."""
        self._household = household
        self._hours: dict[int, IntArray] = {}  # by hours since 1970: watts added up over the steps

    def day(self, day: date, now: datetime) -> Day:
        """Return the hours of a day in Japan as they are known at `now` (aware)."""
        today = now.astimezone(JAPAN).date()
        sums = np.zeros((24, _SERIES), np.int64)
        is_known = today - timedelta(days=MEMORY_D) <= day <= today
        if is_known:
            midnight = datetime(day.year, day.month, day.day, tzinfo=JAPAN).astimezone(UTC)
            first = step_of(midnight)
            past = min(step_of(now) - first, 24 * _HOUR_STEPS)  # steps of the day that have ended
            ended = past // _HOUR_STEPS
            sums[:ended] = self._ended_hours(first // _HOUR_STEPS, ended)
            if past % _HOUR_STEPS:
                sums[ended] = self._count(first + ended * _HOUR_STEPS, past % _HOUR_STEPS).sum(axis=0)
        counter_wh = np.cumsum(sums, axis=0) * STEP_S // 3600
        hours_wh = np.diff(counter_wh, axis=0, prepend=0)
        return Day(is_known, hours_wh[:, 0], hours_wh[:, 1], hours_wh[:, 2], hours_wh[:, 3:])

    def _ended_hours(self, first: int, count: int) -> IntArray:
        missing = [hour for hour in range(first, first + count) if hour not in self._hours]
        if missing:
            start, end = missing[0], missing[-1] + 1
            counted = self._count(start * _HOUR_STEPS, (end - start) * _HOUR_STEPS)
            by_hour = counted.reshape(end - start, _HOUR_STEPS, _SERIES).sum(axis=1)
            self._hours.update(zip(range(start, end), by_hour, strict=True))
        return np.array([self._hours[hour] for hour in range(first, first + count)]).reshape(count, _SERIES)

    def _count(self, first_step: int, steps: int) -> IntArray:
        power = self._household.power(np.arange(first_step, first_step + steps))
        return np.column_stack([power.own_w, power.bought_w, power.sold_w, power.circuits_w])
