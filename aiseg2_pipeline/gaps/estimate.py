"""Estimates the missing minutes of an ended hour from the energy of the device's interval that they lie in.

Pure functions: from an energy frame, the live minutes and the home to a readings frame, whose rows have the interval in
`interval_s`. Where at least half of an interval is missing, its missing minutes get what the device measured minus what was
read live, so that the interval adds up to the device's energy. Where less is missing, they get the interval's mean: a
small remainder divided by few minutes would turn one live sample of a kettle into an outlier.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import sum_by_name
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.energy import HALF, HALF_HOUR_S, HOUR_S, USAGE
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.japan_time import MINUTE

MINUTES_OF_HALF = 30
W_PER_KW = 1000
CONSUMPTION = ("consumption", "consumption")
GENERATION = ("generation", "generation")
_Wh = dict[tuple[str, str], float]
# The mean power in watts of each live minute, by (kind, name) of the readings frame.
Live = Mapping[tuple[str, str], Mapping[datetime, float]]


@dataclass(frozen=True)
class Home:
    """The home at the time of a fill.

    `generating`: whether a generating device is registered; `generator`: its name, None if there are several.
    """

    circuits: Sequence[Circuit]
    generating: bool
    generator: str | None


@dataclass(frozen=True)
class _Interval:
    """An interval of the device: its start, its length, and its energy in Wh by (kind, name) of the energy frame."""

    start: datetime
    interval_s: int
    wh: _Wh

    def missing_w(self, wh: float, live_w: Mapping[datetime, float]) -> float:
        """Return the power of a series' minutes without a live value, if the series' energy is `wh`."""
        values_w = self.values_w(live_w)
        if not self.uses_remainder(values_w):
            return wh * HOUR_S / self.interval_s
        return max(0.0, wh * 60 - sum(values_w)) / (self.minutes - len(values_w))

    def excess_wh(self, wh: float, live_w: Mapping[datetime, float]) -> float:
        """Return by how much a series' live minutes exceed its energy, so that its other minutes are 0."""
        values_w = self.values_w(live_w)
        return max(0.0, sum(values_w) / 60 - wh) if self.uses_remainder(values_w) else 0.0

    def uses_remainder(self, values_w: Sequence[float]) -> bool:
        """Return whether at least half of the minutes, but not all, lack a live value."""
        return 0 < 2 * len(values_w) <= self.minutes

    def values_w(self, live_w: Mapping[datetime, float]) -> list[float]:
        """Return the values of the live minutes in the interval."""
        end = self.start + timedelta(seconds=self.interval_s)
        return [value for minute, value in live_w.items() if self.start <= minute < end]

    @property
    def minutes(self) -> int:
        """Return the number of minutes."""
        return self.interval_s // 60


def live_minutes(readings: pd.DataFrame) -> Live:
    """Return the live minutes of a readings frame."""
    live = readings[readings["interval_s"] == 0]
    watts = live["value"].where(live["unit"] != "kW", live["value"] * W_PER_KW)
    of_minute = watts.groupby([live["kind"], live["name"], live["time"].dt.floor("min")]).mean().reset_index()
    by_series: dict[tuple[str, str], dict[datetime, float]] = {}
    for kind, name, minute, mean_w in of_minute.itertuples(index=False):
        by_series.setdefault((kind, name), {})[minute.to_pydatetime()] = mean_w
    return by_series


def filled_frame(
    hour: datetime, energy: pd.DataFrame, minutes: Collection[datetime], live: Live, home: Home
) -> pd.DataFrame:
    """Return rows for these minutes of `hour` (UTC start), as far as their energy is known.

    `energy` is the hour's energy frame; half hours are preferred. A minute is filled if its totals are known: without
    consumption, or without generation if a generating device is registered, it stays missing. Where a series has a live
    value, the minute gets no second one.
    """
    return frame(
        Row(minute, kind, name, value, unit, interval.interval_s)
        for half, interval in _halves(hour, energy)
        if (power := _power(interval, live, home))
        for minute in _minutes(half)
        if minute in minutes
        for kind, name, value, unit in power
        if minute not in live.get((kind, name), ())
    )


def known_minutes(hour: datetime, energy: pd.DataFrame, home: Home) -> set[datetime]:
    """Return the minutes of `hour` that `filled_frame` can fill."""
    return {
        minute
        for half, interval in _halves(hour, energy)
        if _power(interval, {}, home)
        for minute in _minutes(half)
    }


def excess_wh(hour: datetime, energy: pd.DataFrame, live: Live) -> float:
    """Return by how much (Wh) the live consumption exceeds the energy of the hour's intervals that were read in part."""
    live_w = live.get(("total", TOTAL_CONSUMPTION), {})
    intervals = {interval.start: interval for _, interval in _halves(hour, energy)}
    return sum(
        interval.excess_wh(interval.wh[CONSUMPTION], live_w)
        for interval in intervals.values()
        if CONSUMPTION in interval.wh
    )


def _minutes(half: datetime) -> list[datetime]:
    return [half + n * MINUTE for n in range(MINUTES_OF_HALF)]


def _halves(hour: datetime, energy: pd.DataFrame) -> list[tuple[datetime, _Interval]]:
    """Return both halves of the hour (UTC starts), each with the interval whose energy it gets."""
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
            interval = _Interval(start, HALF_HOUR_S, own)
        elif CONSUMPTION in other:
            interval = _Interval(start, HALF_HOUR_S, _rest(whole, other))
        else:
            interval = _Interval(hour, HOUR_S, whole)
        halves.append((start, interval))
    return halves


def _rest(whole: _Wh, other: _Wh) -> _Wh:
    """Return the hour's energy minus the other half's; empty if no consumption is left, because the device was off."""
    rest = {key: max(0.0, wh - other[key]) for key, wh in whole.items() if key in other}
    return rest if rest.get(CONSUMPTION) else {}


def _power(interval: _Interval, live: Live, home: Home) -> list[tuple[str, str, float, str]]:
    """Return (kind, name, value, unit) of the interval's missing minutes; empty if its totals are unknown."""
    wh = interval.wh
    # A home always consumes something: without consumption, the device was off for almost all of the interval.
    if not wh.get(CONSUMPTION) or (home.generating and GENERATION not in wh):
        return []

    def missing_w(kind: str, name: str, series_wh: float) -> float:
        return interval.missing_w(series_wh, live.get((kind, name), {}))

    consumption_w = missing_w("total", TOTAL_CONSUMPTION, wh[CONSUMPTION])
    generation_w = missing_w("total", TOTAL_GENERATION, wh[GENERATION]) if home.generating else 0.0
    values = [
        ("total", TOTAL_CONSUMPTION, consumption_w / W_PER_KW, "kW"),
        ("total", TOTAL_EXCHANGE, (generation_w - consumption_w) / W_PER_KW, "kW"),
    ]
    if home.generating:
        values.insert(0, ("total", TOTAL_GENERATION, generation_w / W_PER_KW, "kW"))
    if home.generator is not None and GENERATION in wh:
        values.append(("generation", home.generator, missing_w("generation", home.generator, wh[GENERATION]), "W"))
    circuits = sum_by_name((circuit.name, wh.get((USAGE, circuit.circuit_id))) for circuit in home.circuits)
    values += [
        (USAGE, name, missing_w(USAGE, name, circuit_wh), "W")
        for name, circuit_wh in circuits.items()
        if circuit_wh is not None
    ]
    return values
