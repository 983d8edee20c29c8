"""Finds missing minutes, those that can be filled, and the days to request from the device.

Filling them belongs in `fill`, computing a filled minute in `estimate`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby

import pandas as pd

from aiseg2_pipeline.frames.energy import HOUR_S, USAGE
from aiseg2_pipeline.frames.names import TOTAL_GENERATION
from aiseg2_pipeline.gaps import retries
from aiseg2_pipeline.gaps.estimate import Home, known_minutes
from aiseg2_pipeline.ingest.energy import CARD, CIRCUITS, TOTALS, tried_lately
from aiseg2_pipeline.ingest.energy_rows import settled as interval_settled
from aiseg2_pipeline.ingest.sd_card import ASK_AGAIN
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start, hour_of
from aiseg2_pipeline.store import EnergyStore, Store

MINUTES_AN_HOUR = 60
# Four totals, hot water and gas; and once the circuit list, the login, and the request for a card.
REQUESTS_A_DAY, REQUESTS_ONCE = 6, 4


@dataclass(frozen=True)
class Hour:
    """The number of an hour's minutes (UTC start) that are live, filled, filled with an hour's mean, missing, and removed.

    Minutes that a person removed are not missing.
    """

    start: datetime
    live: int
    filled: int
    filled_by_hour: int
    missing: int
    removed: int = 0


def hours_between(store: Store, start: datetime, end: datetime, now: datetime) -> list[Hour]:
    """Return the state of every hour that overlaps [start, end) and has settled."""
    hour = start.replace(minute=0, second=0, microsecond=0)
    coverage = store.coverage(hour, end + HOUR)
    removed = Counter(hour_of(minute) for minute in store.removed_minutes(hour, end + HOUR))
    hours = []
    while hour < end and settled(hour, now):
        live, filled, by_hour = coverage.get(hour, (0, 0, 0))
        missing = MINUTES_AN_HOUR - live - filled - removed[hour]
        hours.append(Hour(hour, live, filled, by_hour, missing, removed[hour]))
        hour += HOUR
    return hours


def settled(hour: datetime, now: datetime) -> bool:
    """Return whether the hour has ended long enough ago: no live run of it is running, and the device has its energy."""
    return interval_settled(hour, HOUR_S, now)


def fillable(store: Store, energy: EnergyStore, hours: Sequence[Hour], now: datetime) -> list[Hour]:
    """Return the hours with missing minutes that may be filled.

    Either their known energy covers such a minute, or the device has not reported within a day that it has none. Also
    return the filled hours of a day that lacks a circuit whose page failed, a day later.
    """
    late = retries.days(energy, hours[0].start, hours[-1].start + HOUR, now) if hours else set()
    chosen = {hour.start for hour in _with_missing(store, energy, hours, now)}
    return [hour for hour in hours if hour.start in chosen or (hour.filled and day_of(hour.start) in late)]


def _with_missing(store: Store, energy: EnergyStore, hours: Sequence[Hour], now: datetime) -> list[Hour]:
    missing = [hour for hour in hours if hour.missing]
    if not missing:
        return []
    table = energy.read(missing[0].start, missing[-1].start + HOUR)
    homes = Homes(store)
    by_hour = table.groupby(table["time"].dt.floor("h"))
    with_energy = _known(table, "consumption")
    attempts = energy.attempts(missing[0].start, missing[-1].start + HOUR)
    without_energy = tried_lately(attempts, TOTALS, now)
    return [
        hour
        for hour in missing
        if (
            _covers_missing(store, homes, hour.start, by_hour.get_group(pd.Timestamp(hour.start)))
            if hour.start in with_energy
            else hour.start not in without_energy
        )
    ]


def days_to_ask(energy: EnergyStore, start: datetime, now: datetime) -> list[date]:
    """Return the settled days since `start` of which an hour's energy, a circuit or the card is to be requested.

    It was never requested, or unsuccessfully more than a day ago. Otherwise a day would keep totals that predate its end.
    """
    first = day_start(day_of(start))
    attempts = energy.attempts(first, now)
    done = _known(energy.read(first, now), "consumption") | tried_lately(attempts, TOTALS, now)
    late = {day_of(time) for time, what, at in attempts if what == CARD and at <= now - ASK_AGAIN}
    days = []
    begins = first
    while settled(begins + DAY - HOUR, now):
        day = day_of(begins)
        _, due = retries.of_day(energy, day, now)
        if due or day in late or any(begins + n * HOUR not in done for n in range(24)):
            days.append(day)
        begins += DAY
    return days


@dataclass(frozen=True)
class Gaps:
    """The hours with missing minutes: `fillable` may be filled, for `hopeless` the device reported lately that it has no energy.

    `removed` are the hours with minutes that a person removed.

    `requests` is the maximum number of requests to the device: without an SD card, a day has one for each circuit and six
    more. `oldest_energy` is the time of the oldest known energy.
    """

    fillable: tuple[Hour, ...]
    hopeless: tuple[Hour, ...]
    requests: int
    oldest_energy: datetime | None
    removed: tuple[Hour, ...] = ()


def find_gaps(store: Store, energy: EnergyStore, start: datetime, end: datetime, now: datetime) -> Gaps:
    """Return the gaps of [start, end)."""
    every = hours_between(store, start, end, now)
    missing = [hour for hour in every if hour.missing]
    may = fillable(store, energy, missing, now)
    days: dict[date, list[Hour]] = {
        day: list(hours) for day, hours in groupby(may, key=lambda hour: day_of(hour.start))
    }
    to_request = sum(must_request(energy, day, hours, now) for day, hours in days.items())
    circuits = len(store.circuit_names_at(now))
    chosen = set(may)
    return Gaps(
        tuple(may),
        tuple(hour for hour in missing if hour not in chosen),
        to_request * (circuits + REQUESTS_A_DAY) + REQUESTS_ONCE if to_request else 0,
        energy.oldest(),
        tuple(hour for hour in every if hour.removed),
    )


def _covers_missing(store: Store, homes: "Homes", hour: datetime, energy: pd.DataFrame) -> bool:
    """Return whether the hour's energy can fill a missing minute."""
    home = homes.at(hour)
    # Before the first live reading the home is unknown, so any hour may be fillable.
    return home is None or not known_minutes(hour, energy, home) <= store.minutes(hour, hour + HOUR).keys()


def must_request(energy: EnergyStore, day: date, missing: Sequence[Hour], now: datetime) -> bool:
    """Return whether an hour's totals or circuits are unknown, and the device has not reported lately that it has none."""
    span = day_start(day), day_start(day) + DAY
    table, attempts = energy.read(*span), energy.attempts(*span)
    done = (
        _known(table, kind) | tried_lately(attempts, what, now)
        for kind, what in (("consumption", TOTALS), (USAGE, CIRCUITS))
    )
    return any(hour.start not in hours for hours in done for hour in missing)


def _known(table: pd.DataFrame, kind: str) -> set[datetime]:
    rows = table[(table["kind"] == kind) & (table["interval_s"] == HOUR_S)]
    return {time.to_pydatetime() for time in rows["time"]}


class Homes:
    """The home at any time, from the nearest live reading, which is read once."""

    def __init__(self, store: Store) -> None:
        """Use this store of readings."""
        self._store = store
        self._generators: dict[datetime, tuple[bool, str | None]] = {}
        self._names: dict[date, set[str]] = {}

    def at(self, moment: datetime) -> Home | None:
        """Return the home at that time; None if there is no live reading at all."""
        near = self._store.live_near(moment)
        if near is None:
            return None
        if near not in self._generators:
            shown = self._store.read(near, near + timedelta(seconds=1), kinds=["total", "generation"])
            names = set(shown.loc[shown["kind"] == "generation", "name"])
            generating = bool((shown["name"] == TOTAL_GENERATION).any())
            # A generating device without a value at that moment still contributes to the total.
            alone = len(names) == 1 and names == self._generators_around(day_of(near))
            self._generators[near] = generating, next(iter(names)) if alone else None
        return Home(self._store.circuits_at(moment), *self._generators[near])

    def _generators_around(self, day: date) -> set[str]:
        """Return the generating devices of a day, the day before and the day after."""
        if day not in self._names:
            start = day_start(day)
            self._names[day] = set(self._store.read(start - DAY, start + 2 * DAY, kinds=["generation"])["name"])
        return self._names[day]
