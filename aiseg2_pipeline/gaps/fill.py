"""Filling missing minutes with the energy that the device remembers, day by day.

The settling run, the backfill sensor, a person's backfill and the command all use it. Which minutes are missing belongs
in `find`, what a filled minute is in `estimate`, how the device is read in `ingest/energy`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby

import pandas as pd

from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.frames.energy import HALF_HOUR_S
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.gaps import retries
from aiseg2_pipeline.gaps.estimate import filled_frame
from aiseg2_pipeline.gaps.find import MINUTES_AN_HOUR, Homes, Hour, hours_between, must_ask
from aiseg2_pipeline.ingest.energy import DayEnergy, History
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.store.damage import unsalvaged

NOT_SALVAGED = (
    "Nothing was filled, because readings of a damaged store may come back first: wait for the job `salvage_the_record`, or run "
    "`aiseg2-pipeline salvage`."
)


@dataclass(frozen=True)
class FilledDay:
    """What filling a day did: its hours that were asked for as they now are, minutes filled, and what is missing and why."""

    day: date
    hours: tuple[Hour, ...]
    filled_minutes: int
    problems: tuple[str, ...]


def fill_hours(
    store: Store,
    energy: EnergyStore,
    hours: Sequence[datetime],
    *,
    now: datetime,
    history: Callable[[], History],
) -> Iterator[FilledDay]:
    """Fill the missing minutes of these hours (UTC starts), day by day, each stored before the next is asked for.

    `history` is called when the device must be asked for the first time. Live rows stay as they are; doing it again
    changes nothing. A day whose pages cannot be read costs that day. Raises any other Aiseg2Error and StoreError; the days
    before are kept.
    """
    opened: list[History] = []

    def device() -> History:
        if not opened:
            opened.append(history())
        return opened[0]

    for day, of_day in groupby(sorted(hours), key=day_of):
        yield _fill_day(store, energy, day, list(of_day), now, device)


def _fill_day(
    store: Store,
    energy: EnergyStore,
    day: date,
    hours: Sequence[datetime],
    now: datetime,
    device: Callable[[], History],
) -> FilledDay:
    start, end = hours[0], hours[-1] + HOUR
    wanted = set(hours)
    before = [hour for hour in hours_between(store, start, end, now) if hour.start in wanted]
    if unsalvaged(store.path):
        # What was read live of these hours may be about to come back.
        return FilledDay(day, tuple(before), 0, (NOT_SALVAGED,))
    missing = [hour for hour in before if hour.missing]
    problems: list[str] = []
    known, due = retries.of_day(energy, day, now)
    asks_for_all = bool(missing) and must_ask(energy, day, missing, now)
    if asks_for_all or due:
        history = device()
        try:
            brought = _brought(history, day, None if asks_for_all else due)
        except Unreadable as error:
            # Else the days after it would never be filled.
            history.give_up(day, due)
            problems.append(f"{day}: {error}")
        else:
            problems += brought.problems
            if not asks_for_all:
                known |= due - brought.failed_circuits
    if known:
        # All of the day, whatever was asked for: its other hours were filled without them, too.
        _refill(store, energy, day, now)
        retries.settle(energy, day, known)
    table = energy.read(start, end)
    homes = Homes(store)
    filled: list[pd.DataFrame] = []
    for hour in before:
        of_hour = table[(table["time"] >= hour.start) & (table["time"] < hour.start + HOUR)]
        # The card may have brought half hours for what was filled with an hour's mean.
        if hour.missing or (hour.filled_by_hour and (of_hour["interval_s"] == HALF_HOUR_S).any()):
            filled += _filled(store, homes, hour.start, of_hour)
    if filled:
        store.upsert(pd.concat(filled, ignore_index=True))
    after = tuple(hour for hour in hours_between(store, start, end, now) if hour.start in wanted)
    minutes = sum(hour.missing for hour in before) - sum(hour.missing for hour in after)
    return FilledDay(day, after, minutes, tuple(problems))


def _brought(history: History, day: date, only: set[str] | None) -> DayEnergy:
    """Return what the device tells of a day, asked twice: a passing fault must not put the day off to tomorrow."""
    try:
        return history.bring(day, circuits=True, only=only)
    except Unreadable:
        return history.bring(day, circuits=True, only=only)


def _refill(store: Store, energy: EnergyStore, day: date, now: datetime) -> None:
    """Fill the filled minutes of a day again, with what was brought since."""
    start = day_start(day)
    table, homes = energy.read(start, start + DAY), Homes(store)
    for hour in hours_between(store, start, start + DAY, now):
        if hour.filled:
            of_hour = table[(table["time"] >= hour.start) & (table["time"] < hour.start + HOUR)]
            for rows in _filled(store, homes, hour.start, of_hour):
                store.upsert(rows)


def _filled(store: Store, homes: Homes, hour: datetime, energy: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows of the hour's minutes that were not read, a frame for each set of circuits that was in force."""
    known = store.minutes(hour, hour + HOUR)
    every = {hour + timedelta(minutes=n) for n in range(MINUTES_AN_HOUR)}
    to_fill = sorted(minute for minute in every if known.get(minute) != 0)
    # A circuit may be renamed within the hour: each minute has the names of its time.
    for _, minutes in groupby(to_fill, key=store.circuits_at):
        of_names = list(minutes)
        home = homes.at(of_names[0])
        if home is not None:
            yield _without_live(store, hour, filled_frame(hour, energy, every.difference(of_names), home))


def _without_live(store: Store, hour: datetime, table: pd.DataFrame) -> pd.DataFrame:
    """Leave out what was read: a live reading without all totals does not cover its minute, but what it told stays."""
    if not store.hours_with_rows(hour, hour + HOUR):
        return table
    rows = store.read(hour, hour + HOUR)
    live = pd.MultiIndex.from_frame(rows.loc[rows["interval_s"] == 0, KEY])
    return table[~pd.MultiIndex.from_frame(table[KEY]).isin(live)]
