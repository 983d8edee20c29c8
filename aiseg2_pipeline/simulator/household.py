"""The household: how much power it makes and takes at any moment, from time and seed alone, and the energy of it.

Power is constant within each step of 10 seconds, so that energy is an exact sum of power. Which circuits are
registered at the unit, and under which names, is part of it, since people change that in the course of time. What is on a circuit
belongs in `appliances`, rounding as a meter does it in `meter`, and everything about pages in `pages` and `graphs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS, Moments, hot_water_l_per_h
from aiseg2_pipeline.simulator.chance import BoolArray, FloatArray, IntArray
from aiseg2_pipeline.simulator.weather import DAY_S, STEP_S, Weather

GENERATOR_NAME = "太陽光発電"

Rename = tuple[datetime, int, str | None]  # from when (aware), circuit id, its name; None: no longer registered

_ORDER = {circuit.circuit_id: index for index, circuit in enumerate(CIRCUITS)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP = timedelta(seconds=STEP_S)
_PANELS_W = 4300
_STEPS_AT_ONCE = DAY_S // STEP_S


def step_of(time: datetime) -> int:
    """Return the number of the step that an aware time lies in, counted from 1970 UTC."""
    return (time - _EPOCH) // _STEP


def step_start(step: int) -> datetime:
    """Return when a step begins (UTC)."""
    return _EPOCH + step * _STEP


@dataclass(frozen=True)
class Power:
    """Whole watts (litres an hour) at n steps: circuits (n, 32) in the order of `CIRCUITS`, all else (n,)."""

    circuits_w: IntArray
    generation_w: IntArray
    consumption_w: IntArray
    hot_water_l_per_h: IntArray

    @cached_property
    def own_w(self) -> IntArray:
        """Generation that the household uses itself."""
        return np.minimum(self.generation_w, self.consumption_w)

    @property
    def bought_w(self) -> IntArray:
        """Consumption that the grid provides."""
        return self.consumption_w - self.own_w

    @property
    def sold_w(self) -> IntArray:
        """Generation that the grid takes."""
        return self.generation_w - self.own_w


@dataclass(frozen=True)
class Energy:
    """Energy of an interval in Wh; circuits (32,) in the order of `CIRCUITS`."""

    circuits_wh: FloatArray
    generation_wh: float
    consumption_wh: float
    own_wh: float
    bought_wh: float
    sold_wh: float


class Household:
    """A household of the given seed: the same seed is the same household, at any time, in any process."""

    def __init__(self, seed: int = 1, *, renames: Sequence[Rename] = (), battery: bool = False) -> None:
        """Make a household; nothing is computed before it is asked for. ValueError: a rename of no circuit.

        With a `battery` the live page shows one; it takes and gives no power (see there).
        """
        self.seed = seed
        self.has_battery = battery
        self._renames = sorted(renames, key=lambda rename: rename[0])
        for _, circuit_id, _ in renames:
            if circuit_id not in _ORDER:
                raise ValueError(
                    f"the simulated household has no circuit {circuit_id}: choose one of {list(_ORDER)}"
                )

    def names(self, now: datetime) -> dict[int, str]:
        """Return the names of the circuits that are registered at `now` (aware), by id, in the order of `CIRCUITS`."""
        names: dict[int, str | None] = {circuit.circuit_id: circuit.name for circuit in CIRCUITS}
        names |= {circuit_id: name for time, circuit_id, name in self._renames if time <= now}
        return {circuit_id: name for circuit_id, name in names.items() if name is not None}

    def is_registered(self, steps: IntArray) -> BoolArray:
        """Tell for each step and circuit (n, 32) whether the unit measures it; power is taken all the same."""
        is_registered = np.ones((len(steps), len(CIRCUITS)), np.bool_)
        for time, circuit_id, name in self._renames:
            is_registered[steps * STEP_S >= time.timestamp(), _ORDER[circuit_id]] = name is not None
        return is_registered

    def power(self, steps: IntArray) -> Power:
        """Return the power at the steps (`step_of`), which may come in any order."""
        moments = Moments(self.seed, steps)
        circuits_w = np.rint(np.stack([circuit.takes_w(moments) for circuit in CIRCUITS], axis=1)).astype(np.int64)
        circuits_sum_w = circuits_w.sum(axis=1)
        # What no circuit measures is about 5 %.
        rest_w = 5 + circuits_sum_w * (0.035 + 0.02 * moments.drift("unmeasured", 3600))
        return Power(
            circuits_w=circuits_w,
            generation_w=_generation_w(moments.weather),
            consumption_w=circuits_sum_w + np.rint(rest_w).astype(np.int64),
            hot_water_l_per_h=np.rint(hot_water_l_per_h(moments)).astype(np.int64),
        )

    def circuits_w(self, steps: IntArray) -> IntArray:
        """Return the circuits' power at the steps: (n, 32) whole watts."""
        return self.power(steps).circuits_w

    def generation_w(self, steps: IntArray) -> IntArray:
        """Return the solar plant's power at the steps: (n,) whole watts."""
        return _generation_w(Weather(self.seed, steps))

    def consumption_w(self, steps: IntArray) -> IntArray:
        """Return the household's power at the steps: (n,) whole watts, what no circuit measures included."""
        return self.power(steps).consumption_w

    def energy_wh(self, start: datetime, end: datetime) -> Energy:
        """Return the exact energy from `start` to `end` (aware; any length; none if `end` is not later)."""
        total = np.zeros(len(CIRCUITS) + 5)
        last = step_of(end)
        for first in range(step_of(start), last + 1, _STEPS_AT_ONCE):
            steps = np.arange(first, min(first + _STEPS_AT_ONCE, last + 1))
            seconds = np.full(len(steps), float(STEP_S))
            # The first and the last step may count in part only.
            if step_start(first) < start:
                seconds[0] -= (start - step_start(first)).total_seconds()
            if step_start(int(steps[-1]) + 1) > end:
                seconds[-1] -= (step_start(int(steps[-1]) + 1) - end).total_seconds()
            power = self.power(steps)
            parts_w = [power.generation_w, power.consumption_w, power.own_w, power.bought_w, power.sold_w]
            total += seconds @ np.column_stack([power.circuits_w, *parts_w])
        total /= 3600
        return Energy(total[: len(CIRCUITS)], *(float(value) for value in total[len(CIRCUITS) :]))


def _generation_w(weather: Weather) -> IntArray:
    heat_loss = 1 - 0.004 * np.maximum(weather.temperature_c - 20, 0)
    power_w = _PANELS_W * weather.sunshine * heat_loss
    # A low sun is below the inverter's start.
    return np.where(power_w < 8, 0, np.rint(power_w)).astype(np.int64)
