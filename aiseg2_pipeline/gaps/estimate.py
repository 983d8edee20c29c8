"""Estimates the missing minutes of an ended hour: each gets the mean power of the device's interval that it lies in.

Pure functions: from an energy frame and the home to a readings frame, whose rows have the interval in `interval_s`. An
interval without a live minute therefore adds up to the device's energy.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import sum_by_name
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.energy import HALF, HALF_HOUR_S, HOUR_S, USAGE
from aiseg2_pipeline.frames.readings import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION, Row, frame
from aiseg2_pipeline.japan_time import MINUTE

MINUTES_OF_HALF = 30
W_PER_KW = 1000
CONSUMPTION = ("consumption", "consumption")
GENERATION = ("generation", "generation")
_Wh = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Home:
    """The home at the time of a fill.

    `generating`: whether a generating device is registered; `generator`: its name, None if there are several.
    """

    circuits: Sequence[Circuit]
    generating: bool
    generator: str | None


@dataclass(frozen=True)
class _Half:
    """Half of an hour, with the energy in Wh by (kind, name) of its interval: itself or its hour."""

    start: datetime
    interval_s: int
    wh: dict[tuple[str, str], float]

    @property
    def minutes(self) -> list[datetime]:
        """Return its minutes' starts."""
        return [self.start + n * MINUTE for n in range(MINUTES_OF_HALF)]


def filled_frame(hour: datetime, energy: pd.DataFrame, live: Collection[datetime], home: Home) -> pd.DataFrame:
    """Return rows for the minutes of `hour` (UTC start) that are not in `live`, as far as their energy is known.

    `energy` is the hour's energy frame; half hours are preferred. A minute is filled if its totals are known: without
    consumption, or without generation if a generating device is registered, it stays missing.
    """
    return frame(
        Row(minute, kind, name, value, unit, half.interval_s)
        for half in _halves(hour, energy)
        if (power := _power(half, home))
        for minute in half.minutes
        if minute not in live
        for kind, name, value, unit in power
    )


def known_minutes(hour: datetime, energy: pd.DataFrame, home: Home) -> set[datetime]:
    """Return the minutes of `hour` that `filled_frame` can fill."""
    return {minute for half in _halves(hour, energy) if _power(half, home) for minute in half.minutes}


def _halves(hour: datetime, energy: pd.DataFrame) -> list[_Half]:
    by_interval: dict[tuple[datetime, int], _Wh] = {}
    for time, kind, name, wh, interval_s in zip(
        energy["time"].dt.to_pydatetime(),
        energy["kind"],
        energy["name"],
        energy["value"],
        energy["interval_s"],
        strict=True,
    ):
        if interval_s <= HOUR_S:
            by_interval.setdefault((time, interval_s), {})[kind.removesuffix(HALF), name] = wh
    whole = by_interval.get((hour, HOUR_S), {})
    first, second = hour, hour + timedelta(seconds=HALF_HOUR_S)
    halves = []
    for start, other_start in ((first, second), (second, first)):
        own, other = (by_interval.get((half, HALF_HOUR_S), {}) for half in (start, other_start))
        if CONSUMPTION in own:
            halves.append(_Half(start, HALF_HOUR_S, own))
        elif CONSUMPTION in other:
            halves.append(_Half(start, HALF_HOUR_S, _rest(whole, other)))
        else:
            halves.append(_Half(start, HOUR_S, whole))
    return halves


def _rest(whole: _Wh, other: _Wh) -> _Wh:
    """Return the hour's energy minus the other half's; empty if no consumption is left, because the device was off."""
    rest = {key: max(0.0, wh - other[key]) for key, wh in whole.items() if key in other}
    return rest if rest.get(CONSUMPTION) else {}


def _power(half: _Half, home: Home) -> list[tuple[str, str, float, str]]:
    """Return (kind, name, value, unit) of the interval's mean power; empty if its totals are unknown."""
    hours = half.interval_s / HOUR_S
    power_w = {key: wh / hours for key, wh in half.wh.items()}
    consumption_w = power_w.get(CONSUMPTION)
    generation_w = power_w.get(GENERATION) if home.generating else 0.0
    # A home always consumes something: without consumption, the device was off for almost all of the interval.
    if not consumption_w or generation_w is None:
        return []
    values = [
        ("total", TOTAL_CONSUMPTION, consumption_w / W_PER_KW, "kW"),
        ("total", TOTAL_EXCHANGE, (generation_w - consumption_w) / W_PER_KW, "kW"),
    ]
    if home.generating:
        values.insert(0, ("total", TOTAL_GENERATION, generation_w / W_PER_KW, "kW"))
    if home.generator is not None:
        values.append(("generation", home.generator, generation_w, "W"))
    circuits = sum_by_name((circuit.name, power_w.get((USAGE, circuit.circuit_id))) for circuit in home.circuits)
    values += [(USAGE, name, value_w, "W") for name, value_w in circuits.items() if value_w is not None]
    return values
