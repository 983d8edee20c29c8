"""The household: its power at any moment, from time and seed alone.

Power is constant within each step of 10 seconds, so that energy is an exact sum of power. The circuits' registration
and names on the device belong here too, because people change them over time. Each circuit's power belongs in
`appliances`, the meter's rounding in `meter`, pages in `pages` and `graphs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS, Moments, hot_water_l_per_h
from aiseg2_pipeline.simulator.chance import BoolArray, IntArray
from aiseg2_pipeline.simulator.weather import STEP_S, Weather

GENERATOR_NAME = "太陽光発電"

Rename = tuple[datetime, int, str | None]  # from when (aware), circuit id, its name; None: no longer registered

_ORDER = {circuit.circuit_id: index for index, circuit in enumerate(CIRCUITS)}
_PANELS_W = 4300


def step_of(time: datetime) -> int:
    """Return the number of the step that contains an aware time, counted from 1970 UTC."""
    return int(time.timestamp() // STEP_S)


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
        """Consumption from the grid."""
        return self.consumption_w - self.own_w

    @property
    def sold_w(self) -> IntArray:
        """Generation that is sold to the grid."""
        return self.generation_w - self.own_w


class Household:
    """A household; the same seed gives the same household, at any time, in any process."""

    def __init__(self, seed: int = 1, *, renames: Sequence[Rename] = (), battery: bool = False) -> None:
        """Make a household. ValueError: a rename has an unknown circuit id.

        With a `battery` the live pages show one, which changes no energy (see `battery`).
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
        """Return for each step and circuit (n, 32) whether it is measured; other circuits still use power."""
        is_registered = np.ones((len(steps), len(CIRCUITS)), np.bool_)
        for time, circuit_id, name in self._renames:
            is_registered[steps * STEP_S >= time.timestamp(), _ORDER[circuit_id]] = name is not None
        return is_registered

    def power(self, steps: IntArray) -> Power:
        """Return the power at the steps (`step_of`), in any order."""
        moments = Moments(self.seed, steps)
        circuits_w = np.rint(np.stack([circuit.takes_w(moments) for circuit in CIRCUITS], axis=1)).astype(np.int64)
        circuits_sum_w = circuits_w.sum(axis=1)
        # About 5 % is on no circuit.
        rest_w = 5 + circuits_sum_w * (0.035 + 0.02 * moments.drift("unmeasured", 3600))
        return Power(
            circuits_w=circuits_w,
            generation_w=_generation_w(moments.weather),
            consumption_w=circuits_sum_w + np.rint(rest_w).astype(np.int64),
            hot_water_l_per_h=np.rint(hot_water_l_per_h(moments)).astype(np.int64),
        )


def _generation_w(weather: Weather) -> IntArray:
    heat_loss = 1 - 0.004 * np.maximum(weather.temperature_c - 20, 0)
    power_w = _PANELS_W * weather.sunshine * heat_loss
    # The inverter does not start below this power.
    return np.where(power_w < 8, 0, np.rint(power_w)).astype(np.int64)
