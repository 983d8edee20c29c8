"""Judges a record against the household that it is a record of: nothing lost, nothing false, nothing twice.

The simulated household knows every true value, so each point that a bucket holds is looked up there:

- A live row is true when the unit showed this number at that second of the host's clock, as a meter shows it: totals in
  steps of 0.1 kW, circuits in whole W, those of one name added up. Circuits are read after the flow, so theirs may be of
  any moment of the reading's 20 s.
- A filled row is true when it is its share of the interval that it names, as the device measured it, and stands in a
  minute that has no whole live reading: the mean, or, where at least half of the interval has no live value, what was
  measured less what was read live.
- Energy is true when the device's meter counted it.
- All else of the span has to be reported missing, minute by minute.

Where the device itself cannot be known to lie, it is believed:

- The energy of an hour in which the unit had no electricity for a part is what it measured in the rest of it.
- Where the warm reading knows a circuit from the list alone, because it takes nothing, a new name is noticed with the
  next full read, an hour later at most. So 0 W under a name that was right within the last hour is true; and a fill
  may use the names that the record knew for that time, which may be as much behind.
- The day's total of a circuit that was removed is what the device last told of it.
- A reading that the host's clock dated wrongly is judged where the clock put it. So are the names that it showed: a
  fill uses those that the record knew for that time by the host's clock.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import shown_name
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.gaps.find import Hour, hours_between
from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.ingest.energy_rows import TITLES
from aiseg2_pipeline.japan_time import day_of
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import GENERATOR_NAME, Household
from aiseg2_pipeline.simulator.meter import Day, Meter, Outages
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline_tests.support.influxdb import InfluxServer

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# What passes between the moment that is shown and the moment that the answer is dated, while others are served.
ANSWERED_LATER_S = 4
READING_S = 20
NAME_LAGS = timedelta(seconds=3600 + 120)
NAMED = 8
MANY = 1_000_000

Key = tuple[int, str, str]  # time (unix s), kind, name


@dataclass(frozen=True)
class Offset:
    """From `start` (true time) on, the host's clock was ahead by `ahead`."""

    start: datetime
    ahead: timedelta


@dataclass
class Verdict:
    """What is wrong, sentence by sentence, and what there is. Only an empty verdict is a pass."""

    lost: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unreported: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def wrong(self) -> dict[str, list[str]]:
        """Return the lists that are not empty, by name."""
        lists = {
            "lost": self.lost,
            "false": self.false,
            "duplicated": self.duplicated,
            "unreported": self.unreported,
        }
        return {name: sentences for name, sentences in lists.items() if sentences}

    def __str__(self) -> str:
        """Name what is wrong, the first ones of each kind."""
        return "\n".join(
            f"{len(sentences)} {name}: " + "; ".join(sentences[:NAMED]) for name, sentences in self.wrong.items()
        )


@dataclass
class Acknowledged:
    """The rows that stores have taken, each with its latest value and interval; `remove` forgets what a person removed."""

    readings: dict[Key, tuple[float, int]] = field(default_factory=dict)
    energy: dict[Key, tuple[float, int]] = field(default_factory=dict)
    rows: int = 0

    def add(self, kind: str, frame: pd.DataFrame) -> None:
        """Note a frame that a store of this kind (`readings`, `energy`) has taken."""
        ledger = self.readings if kind == "readings" else self.energy
        ledger.update(_rows(frame))
        self.rows += len(frame)

    def remove(self, start: datetime, end: datetime) -> None:
        """Forget the readings of [start, end)."""
        gone = [key for key in self.readings if start.timestamp() <= key[0] < end.timestamp()]
        for key in gone:
            del self.readings[key]


class Oracle:
    """Knows a household, when its circuits were named anew, when its unit was off, and how the host's clock ran.

    `offsets` are in order of time and begin before everything else.
    """

    def __init__(
        self,
        household: Household,
        *,
        outages: Outages = (),
        changes: Sequence[datetime] = (),
        offsets: Sequence[Offset],
        now: datetime,
    ) -> None:
        """Know all of it as it is at `now`, a true time."""
        self._household = household
        # The names on both sides of each change.
        self._changes = [moment for change in changes for moment in (change - timedelta(seconds=1), change)]
        self._meter = Meter(household, outages=outages)
        self._offsets = offsets
        self._now = now
        self._days: dict[date, Day] = {}
        self._halves: dict[date, np.ndarray] = {}
        self._expected: dict[int, dict[tuple[str, str], float]] = {}
        self._live: dict[tuple[str, str], dict[int, list[float]]] = {}
        self._power_from = 0
        self._power: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def judge(
        self,
        store: Store,
        energy_store: EnergyStore,
        server: InfluxServer,
        destination: Destination,
        acknowledged: Acknowledged,
        *,
        start: datetime,
        end: datetime,
        now: datetime,
    ) -> Verdict:
        """Judge a record whose minutes [start, end) (host's time) have to be accounted for; `now` is the host's.

        Rows that the server refused for good and that are noted as such count as if they were in the bucket.
        """
        verdict = Verdict()
        bucket = destination.bucket
        refused = _rows(store.set_aside_rows(destination, MANY))
        refused_energy = _rows(energy_store.set_aside_rows(destination, MANY))
        verdict.counts["rows set aside"] = len(refused) + len(refused_energy)
        everything = datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(2**32, UTC)
        rows = _rows(store.read(*everything))
        shown = server.readings(bucket)
        # What was refused may have an older value in the bucket, which was true when it was written.
        in_bucket = _rows(shown) | refused
        doubled = shown[shown.duplicated(["time", "kind", "name"])]
        verdict.duplicated += [f"two points of {_told(key)}" for key in _rows(doubled)]
        _compare(verdict, "readings", acknowledged.readings, rows, in_bucket)
        self._readings(verdict, refused | _rows(shown))
        hours = hours_between(store, start, end, now)
        self._minutes(verdict, in_bucket, hours, start, end)
        refused_coverage = store.refused_coverage(destination)
        verdict.counts["rows set aside"] += len(refused_coverage)
        _coverage(verdict, hours, refused_coverage, server.points(bucket, "coverage"))
        energy_rows = _rows(energy_store.read(*everything))
        _compare(verdict, "energy", acknowledged.energy, energy_rows, energy_rows)
        self._energy(verdict, energy_rows)
        _energy_points(verdict, energy_rows, refused_energy, server, bucket)
        verdict.counts["rows acknowledged"] = acknowledged.rows
        return verdict

    # Readings

    def _readings(self, verdict: Verdict, rows: Mapping[Key, tuple[float, int]]) -> None:
        """Judge each value that the bucket holds."""
        self._look_at(rows)
        for (time, kind, name), (value, interval_s) in rows.items():
            if not interval_s:
                self._live.setdefault((kind, name), {}).setdefault(time // 60, []).append(value)
        whole = {
            time // 60
            for (time, _, name), (_, interval_s) in rows.items()
            if not interval_s and name == TOTAL_EXCHANGE
        }
        for (time, kind, name), (value, interval_s) in rows.items():
            told = f"{_told((time, kind, name))} = {value}"
            if interval_s == 0:
                verdict.counts["live rows"] += 1
                if not self._was_shown(time, kind, name, value):
                    verdict.false.append(f"live {told}")
            else:
                verdict.counts["filled rows"] += 1
                if not self._was_measured(time, kind, name, value, interval_s):
                    verdict.false.append(f"filled {told} ({interval_s} s)")
                if time // 60 in whole:
                    verdict.duplicated.append(f"filled beside a live reading: {told}")

    def _look_at(self, rows: Mapping[Key, tuple[float, int]]) -> None:
        """Compute the household's power for all steps that can be asked for, at once."""
        times = {
            int(moment.timestamp())
            for (time, _, _), (_, interval_s) in rows.items()
            if not interval_s
            for moment in self._true_times(time)
        }
        if times:
            self._power_from = min(times) // 10 - 3
            power = self._household.power(np.arange(self._power_from, max(times) // 10 + 6))
            self._power = power.circuits_w, power.generation_w, power.consumption_w

    def _true_times(self, time: int) -> list[datetime]:
        """Return the true times at which the host's clock showed this second."""
        shown = datetime.fromtimestamp(time, UTC)
        moments = []
        for offset, following in itertools.zip_longest(self._offsets, self._offsets[1:]):
            true = shown - offset.ahead
            # A second shown at the moment of the step may have been dated just before it.
            if offset.start - timedelta(seconds=2) <= true and (following is None or true < following.start):
                moments.append(true)
        return moments

    def _was_shown(self, time: int, kind: str, name: str, value: float) -> bool:
        for moment in self._true_times(time):
            second = int(moment.timestamp())
            for step in range((second - ANSWERED_LATER_S) // 10, second // 10 + 1):
                if self._of_step(step).get((kind, name)) == value:
                    return True
            if kind == "usage" and self._was_shown_later(moment, name, value):
                return True
        return False

    def _was_shown_later(self, moment: datetime, name: str, value: float) -> bool:
        """Return whether a circuit's page showed it in the course of the reading."""
        second = int(moment.timestamp())
        steps = range((second - ANSWERED_LATER_S) // 10, (second + READING_S) // 10 + 1)
        assert self._power is not None
        for when in (moment, moment + timedelta(seconds=READING_S)):
            indexes = self._indexes(when).get(name)
            if indexes is None:
                continue
            circuits_w = self._power[0]
            of_each = [{int(circuits_w[step - self._power_from, index]) for step in steps} for index in indexes]
            if any(sum(watts) == value for watts in itertools.product(*of_each)):
                return True
        lagging = (name in self._indexes(moment - n * MINUTE) for n in range(int(NAME_LAGS / MINUTE) + 1))
        return value == 0 and any(lagging)

    def _of_step(self, step: int) -> dict[tuple[str, str], float]:
        """Return what the unit shows in a step of ten seconds, as a reading keeps it, without circuits' `-`."""
        if step not in self._expected:
            assert self._power is not None
            circuits_w, generation_w, consumption_w = (part[step - self._power_from] for part in self._power)
            generation_kw, consumption_kw = (
                float(f"{watts / 1000:.1f}") for watts in (generation_w, consumption_w)
            )
            values = {
                ("total", TOTAL_GENERATION): generation_kw,
                ("total", TOTAL_CONSUMPTION): consumption_kw,
                ("total", TOTAL_EXCHANGE): round(generation_kw - consumption_kw, 6),
                ("generation", GENERATOR_NAME): float(generation_w),
            }
            named = self._indexes(datetime.fromtimestamp(step * 10, UTC))
            values |= {("usage", name): float(circuits_w[indexes].sum()) for name, indexes in named.items()}
            self._expected[step] = values
        return self._expected[step]

    def _indexes(self, moment: datetime) -> dict[str, list[int]]:
        """Return for each name as page 1113 shows it the places in `CIRCUITS` of those that bear it."""
        registered = self._household.names(moment)
        named: dict[str, list[int]] = {}
        for index, circuit in enumerate(CIRCUITS):
            if circuit.circuit_id in registered:
                named.setdefault(shown_name(registered[circuit.circuit_id]), []).append(index)
        return named

    def _was_measured(self, time: int, kind: str, name: str, value: float, interval_s: int) -> bool:
        """Return whether a fill is the mean power of the device's interval that it lies in."""
        start = datetime.fromtimestamp(time // interval_s * interval_s, UTC)
        for own, bought, sold, circuits in self._intervals(start, interval_s):
            consumption, generation = own + bought, own + sold
            if not consumption > 0 or np.isnan(consumption):
                continue
            if kind == "usage":
                # The record has names by the host's clock, too.
                moments = [datetime.fromtimestamp(time, UTC), *self._true_times(time)]
                told = {
                    tuple(self._indexes(when).get(name, ()))
                    for when in [*moments, *(change for change in self._changes if change <= max(moments))]
                }
                energies = [float(np.sum(circuits[list(indexes)])) for indexes in told if indexes]
                powers = [self._missing(start, interval_s, kind, name, wh) for wh in energies]
            else:
                totals = [
                    self._missing(start, interval_s, "total", total, wh / 1000)
                    for total, wh in ((TOTAL_GENERATION, generation), (TOTAL_CONSUMPTION, consumption))
                ]
                powers = [
                    {
                        TOTAL_GENERATION: totals[0],
                        TOTAL_CONSUMPTION: totals[1],
                        TOTAL_EXCHANGE: totals[0] - totals[1],
                        GENERATOR_NAME: self._missing(start, interval_s, kind, name, generation),
                    }[name]
                ]
            if any(abs(power - value) < 1e-6 for power in powers):
                return True
        return False

    def _missing(self, start: datetime, interval_s: int, kind: str, name: str, energy_of_hours: float) -> float:
        """Return the power of the minutes without a live value of a series with this energy (Wh or kWh)."""
        first, minutes = int(start.timestamp()) // 60, interval_s // 60
        by_minute = self._live.get((kind, name), {})
        live = [np.mean(by_minute[minute]) for minute in range(first, first + minutes) if minute in by_minute]
        if not 0 < 2 * len(live) <= minutes:
            return energy_of_hours * 60 / minutes
        return max(0.0, energy_of_hours * 60 - float(np.sum(live))) / (minutes - len(live))

    def _intervals(self, start: datetime, interval_s: int) -> Iterator[tuple[float, float, float, np.ndarray]]:
        """Yield own use, bought, sold and circuits in Wh of an hour or a half hour."""
        day, hour = day_of(start), (start + 9 * HOUR).hour
        if interval_s == energy.HOUR_S:
            shown = self._day(day)
            if shown.is_known:
                yield (
                    float(shown.own_wh[hour]),
                    float(shown.bought_wh[hour]),
                    float(shown.sold_wh[hour]),
                    shown.circuits_wh[hour].astype(float),
                )
        else:
            if day not in self._halves:
                self._halves[day] = self._meter.half_hours(day, self._now)
            own, bought, sold, _, *circuits = self._halves[day][hour * 2 + start.minute // 30]
            yield float(own), float(bought), float(sold), np.array(circuits)

    def _day(self, day: date) -> Day:
        if day not in self._days:
            self._days[day] = self._meter.day(day, self._now)
        return self._days[day]

    # Minutes

    @staticmethod
    def _minutes(
        verdict: Verdict,
        rows: Mapping[Key, tuple[float, int]],
        hours: Sequence[Hour],
        start: datetime,
        end: datetime,
    ) -> None:
        """Hold the minutes that the bucket covers against what the record says of itself."""
        live: set[int] = set()
        covered: set[int] = set()
        for (time, _, name), (_, interval_s) in rows.items():
            if name == TOTAL_EXCHANGE:
                covered.add(time // 60)
                if interval_s == 0:
                    live.add(time // 60)
        told = {hour.start: hour for hour in hours}
        hour = start
        while hour < end:
            minutes = range(int(hour.timestamp()) // 60, int((hour + HOUR).timestamp()) // 60)
            of_live, of_all = len(live.intersection(minutes)), len(covered.intersection(minutes))
            counts = {"minutes live": of_live, "minutes filled": of_all - of_live, "minutes missing": 60 - of_all}
            verdict.counts.update(counts)
            of_record = told.get(hour)
            if of_record is None:
                verdict.unreported.append(f"nothing is said of the hour {hour:%m-%d %H:%M}")
            elif (of_record.live, of_record.filled, of_record.missing) != tuple(counts.values()):
                said = f"{of_record.live} live, {of_record.filled} filled, {of_record.missing} missing"
                verdict.unreported.append(f"of the hour {hour:%m-%d %H:%M} is said {said}, and there is {counts}")
            hour += HOUR

    # Energy

    def _energy(self, verdict: Verdict, rows: Mapping[Key, tuple[float, int]]) -> None:
        """Judge each value of the energy store, but costs, which nobody can measure."""
        for (time, kind, name), (value, interval_s) in rows.items():
            if kind == energy.DAILY_COST:
                continue
            verdict.counts["energy rows"] += 1
            start = datetime.fromtimestamp(time, UTC)
            measured = self._measured(start, kind.removesuffix(energy.HALF), name, interval_s)
            goes_on = day_of(start) == day_of(self._now)
            if measured is not None and interval_s == energy.DAY_S and (goes_on or self._was_removed(name, start)):
                # It was so much when it was asked for.
                measured = min(value, measured)
            if measured is None or abs(measured - value) > 1e-6:
                verdict.false.append(f"energy {_told((time, kind, name))} = {value}, measured {measured}")

    def _was_removed(self, circuit_id: str, since: datetime) -> bool:
        """Return whether a circuit was not registered at some time since then, so that nobody could ask for it."""
        moments = [since, *(change for change in self._changes if change > since), self._now]
        return circuit_id in _INDEXES and any(
            int(circuit_id) not in self._household.names(moment) for moment in moments
        )

    def _measured(self, start: datetime, kind: str, name: str, interval_s: int) -> float | None:
        if interval_s == energy.DAY_S:
            return self._of_day(start, kind, name)
        for own, bought, sold, circuits in self._intervals(start, interval_s):
            if kind == energy.USAGE:
                return float(circuits[_INDEXES[name]])
            # The card has columns for a heat pump and a car, which tell this unit nothing.
            nothing = 0.0 * own
            return {
                "generation": own + sold,
                "consumption": own + bought,
                "bought": bought,
                "sold": sold,
                "heatpump": nothing,
                "ev-charge": nothing,
            }.get(kind)
        return None

    def _of_day(self, start: datetime, kind: str, name: str) -> float | None:
        day = self._day(day_of(start))
        if kind == energy.CIRCUIT_DAILY_TOTAL:
            return float(day.circuits_wh[:, _INDEXES[name]].sum()) / 1000
        totals = {
            "generation": day.generation_wh,
            "consumption": day.own_wh + day.bought_wh,
            "bought": day.bought_wh,
            "sold": day.sold_wh,
        }
        by_title = {f"{title}(kWh)": float(totals[series].sum()) / 1000 for series, title in TITLES.items()}
        return (by_title | {"湯(L)": float(day.hot_water_l.sum())}).get(name)


_INDEXES = {str(circuit.circuit_id): index for index, circuit in enumerate(CIRCUITS)}


def _rows(frame: pd.DataFrame) -> dict[Key, tuple[float, int]]:
    seconds = (frame["time"].astype("int64") // 10**9).tolist()
    keys = zip(seconds, frame["kind"].tolist(), frame["name"].tolist(), strict=True)
    return dict(zip(keys, zip(frame["value"].tolist(), frame["interval_s"].tolist(), strict=True), strict=True))


def _told(key: Key) -> str:
    time, kind, name = key
    return f"{kind} {name} at {datetime.fromtimestamp(time, UTC):%m-%d %H:%M:%S}"


def _compare(
    verdict: Verdict,
    what: str,
    acknowledged: Mapping[Key, tuple[float, int]],
    stored: Mapping[Key, tuple[float, int]],
    in_bucket: Mapping[Key, tuple[float, int]],
) -> None:
    """Hold what was reported as taken, what is stored, and what the bucket holds against each other."""
    for place, rows in (("store", stored), ("bucket", in_bucket)):
        for key, row in acknowledged.items():
            if rows.get(key) != row:
                verdict.lost.append(f"{what}: {_told(key)} = {row}, in the {place}: {rows.get(key)}")
    for key, row in stored.items():
        if in_bucket.get(key) != row and acknowledged.get(key) != row:
            verdict.lost.append(f"{what}: stored, but not in the bucket: {_told(key)} = {row}")
    for key in in_bucket.keys() - stored.keys():
        verdict.duplicated.append(f"{what}: in the bucket, but in no store: {_told(key)} = {in_bucket[key]}")


def _coverage(
    verdict: Verdict,
    hours: Sequence[Hour],
    refused: Collection[datetime],
    points: Sequence[Mapping[str, Any]],
) -> None:
    """Hold the bucket's points of coverage against what the record says of its hours."""
    shown: dict[datetime, dict[str, Any]] = {}
    for point in points:
        shown.setdefault(point["time"], {}).update(point)
    for hour in hours:
        of_bucket = tuple(shown.get(hour.start, {}).get(name) for name in ("read", "filled", "missing"))
        if of_bucket != (hour.live, hour.filled, hour.missing) and hour.start not in refused:
            verdict.lost.append(
                f"coverage of {hour.start:%m-%d %H:%M}: {(hour.live, hour.filled, hour.missing)}, in the bucket: {of_bucket}"
            )
    verdict.counts["hours of coverage"] += len(hours)


def _energy_points(
    verdict: Verdict,
    rows: Mapping[Key, tuple[float, int]],
    refused: Mapping[Key, tuple[float, int]],
    server: InfluxServer,
    bucket: str,
) -> None:
    """Hold the bucket's points of energy against the store: each row is one point of one series."""
    shown: dict[Key, float] = {}
    for measurement in line_protocol.ENERGY_MEASUREMENTS:
        for point in server.points(bucket, measurement):
            key = (int(point["time"].timestamp()), *_energy_key(measurement, point))
            if key in shown:
                verdict.duplicated.append(f"energy: two series of {_told(key)}")
            shown[key] = next(point[name] for name in ("wh", "value", "yen") if name in point)
    for key, (value, _) in rows.items():
        _, kind, _ = key
        if kind.endswith(energy.HALF):
            continue
        if shown.pop(key, None) != value and refused.get(key, (None,))[0] != value:
            verdict.lost.append(f"energy: not in the bucket: {_told(key)} = {value}")
    verdict.duplicated += [f"energy: in no store: {_told(key)} = {value}" for key, value in shown.items()]


def _energy_key(measurement: str, point: Mapping[str, Any]) -> tuple[str, str]:
    """Return kind and name of the row that a point is of."""
    circuit_id = point.get("circuit-id")
    if measurement == "energy":
        return point["detail-type"], circuit_id or point["detail-type"]
    if measurement == energy.DAILY_COST and circuit_id:
        return measurement, energy.COST_OF_CIRCUIT + circuit_id
    return measurement, circuit_id or point["detail-section"]
