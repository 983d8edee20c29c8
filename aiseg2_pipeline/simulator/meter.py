"""The device's history: the energy of each half hour, in whole Wh, as a meter would have counted it.

A meter counts up from midnight and is read at full half hours. So parts add up to the whole without rounding errors,
and bought, sold and own use balance generation and consumption exactly, as in a real device's files. Web pages and card
use the same count, so they agree to the Wh. The pages belong in `graphs`, the card's files in `card`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.chance import BoolArray, FloatArray, IntArray
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline.simulator.weather import DAY_S, STEP_S

JAPAN = ZoneInfo("Asia/Tokyo")
MEMORY_D = 400

Outages = Sequence[tuple[datetime, datetime]]  # from, to (aware): the device has no electricity

_HALF_STEPS = 1800 // STEP_S
_DAY_STEPS = DAY_S // STEP_S
_SERIES = 4 + len(CIRCUITS)  # own use, bought, sold, hot water, circuits


@dataclass(frozen=True)
class Day:
    """A day's 24 hours in Wh; future hours are 0, the current hour has its energy so far.

    `circuits_wh` is (24, 32) in the order of `CIRCUITS`, all else (24,). All are 0 without `is_known`, in an hour in
    which the device was off, and for a circuit before it was registered.
    """

    is_known: bool
    own_wh: IntArray
    bought_wh: IntArray
    sold_wh: IntArray
    hot_water_l: IntArray
    circuits_wh: IntArray

    @property
    def generation_wh(self) -> IntArray:
        """Generation: used by the household, or sold."""
        return self.own_wh + self.sold_wh


def is_off(outages: Outages, now: datetime) -> bool:
    """Return whether the device has no electricity at `now` (aware)."""
    return any(start <= now < end for start, end in outages)


class Meter:
    """Count a household's energy while the device is on; ended half hours are computed once."""

    def __init__(self, household: Household, *, outages: Outages = (), memory_days: int = MEMORY_D) -> None:
        """Make a meter for web pages that cover today and the `memory_days` days before it."""
        self._household = household
        self._outages = outages
        self._memory = timedelta(days=memory_days)
        self._halves: dict[int, IntArray] = {}  # by half hours since 1970: sum of the watts of the steps

    def day(self, day: date, now: datetime) -> Day:
        """Return the hours of a day in Japan as the web pages show them at `now` (aware)."""
        today = now.astimezone(JAPAN).date()
        is_known = today - self._memory <= day <= today
        halves = self._half_hours(day, step_of(now)) if is_known else np.zeros((48, _SERIES), np.int64)
        hours = halves.reshape(24, 2, _SERIES).sum(axis=1)
        own, bought, sold, hot_water = hours.T[:4]
        return Day(is_known, own, bought, sold, hot_water, circuits_wh=hours[:, 4:])

    def half_hours(self, day: date, now: datetime) -> FloatArray:
        """Return (48, 36): a day's half hours that have ended at `now`, for any day.

        Columns are own use, bought and sold in Wh, hot water in L, and the circuits in the order of `CIRCUITS` in
        Wh, all whole. NaN where nothing was measured: the half hour has not ended, the device was off for all of it,
        or the circuit was not registered.
        """
        first = _first_step(day)
        ended = min(max(step_of(now) - first, 0), _DAY_STEPS) // _HALF_STEPS
        measured = self._is_measured(np.arange(first, first + _DAY_STEPS))
        is_known = measured.reshape(48, _HALF_STEPS, _SERIES).any(axis=1) & (np.arange(48) < ended)[:, None]
        return np.where(is_known, self._half_hours(day, first + ended * _HALF_STEPS), np.nan)

    def _half_hours(self, day: date, until_step: int) -> IntArray:
        first = _first_step(day)
        past = min(until_step - first, _DAY_STEPS)  # steps of the day that have ended
        ended = past // _HALF_STEPS
        sums = np.zeros((48, _SERIES), np.int64)
        sums[:ended] = self._ended_halves(first // _HALF_STEPS, ended)
        if past % _HALF_STEPS:
            sums[ended] = self._count(first + ended * _HALF_STEPS, past % _HALF_STEPS).sum(axis=0)
        counter_wh = np.cumsum(sums, axis=0) * STEP_S // 3600
        return np.diff(counter_wh, axis=0, prepend=0)

    def _ended_halves(self, first: int, count: int) -> IntArray:
        missing = [half for half in range(first, first + count) if half not in self._halves]
        if missing:
            start, end = missing[0], missing[-1] + 1
            counted = self._count(start * _HALF_STEPS, (end - start) * _HALF_STEPS)
            by_half = counted.reshape(end - start, _HALF_STEPS, _SERIES).sum(axis=1)
            self._halves.update(zip(range(start, end), by_half, strict=True))
        return np.array([self._halves[half] for half in range(first, first + count)]).reshape(count, _SERIES)

    def _count(self, first_step: int, steps: int) -> IntArray:
        numbers = np.arange(first_step, first_step + steps)
        power = self._household.power(numbers)
        totals = [power.own_w, power.bought_w, power.sold_w, power.hot_water_l_per_h]
        return np.column_stack([*totals, power.circuits_w]) * self._is_measured(numbers)

    def _is_measured(self, steps: IntArray) -> BoolArray:
        """Return for each step and series whether the device was on and the circuit registered."""
        seconds = steps * STEP_S
        is_on = np.ones(len(steps), np.bool_)
        for start, end in self._outages:
            is_on &= (seconds < start.timestamp()) | (seconds >= end.timestamp())
        totals = np.ones((len(steps), _SERIES - len(CIRCUITS)), np.bool_)
        is_measured: BoolArray = np.hstack([totals, self._household.is_registered(steps)]) & is_on[:, None]
        return is_measured


def _first_step(day: date) -> int:
    return step_of(datetime(day.year, day.month, day.day, tzinfo=JAPAN))
