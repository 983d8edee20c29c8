"""Fills missing minutes with the device's stored energy, day by day.

The settling run, the backfill sensor, a person's backfill and the command all use it. Finding missing minutes belongs in
`find`, computing a filled minute in `estimate`, reading the device in `ingest/energy`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from itertools import groupby

import pandas as pd

from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.frames.energy import HALF_HOUR_S
from aiseg2_pipeline.gaps import retries
from aiseg2_pipeline.gaps.estimate import Live, excess_wh, filled_frame, live_minutes
from aiseg2_pipeline.gaps.find import MINUTES_AN_HOUR, Homes, Hour, hours_between, must_request
from aiseg2_pipeline.ingest.energy import DayEnergy, History
from aiseg2_pipeline.japan_time import HOUR, TOKYO, day_of, day_start
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.store.damage import unrecovered

NOT_SALVAGED = (
    "Nothing was filled, because readings of a damaged store may be recoverable: wait for the job `salvage_the_record`, or run "
    "`aiseg2-pipeline salvage`."
)
LIVE_EXCEEDS_ENERGY = (
    "{hour:%Y-%m-%d %H:%M}: the live readings exceed the energy that the device counted by {excess:.0f} Wh, so the missing "
    "minutes were filled with 0."
)


@dataclass(frozen=True)
class FilledDay:
    """Sum up a day: the state of the requested hours, the number of minutes filled, and a sentence for each problem.

    `energy` is what was read from the device for it, None if nothing was.
    """

    day: date
    hours: tuple[Hour, ...]
    filled_minutes: int
    problems: tuple[str, ...]
    energy: DayEnergy | None = None


def fill_hours(
    store: Store,
    energy: EnergyStore,
    hours: Sequence[datetime],
    *,
    now: datetime,
    history: Callable[[], History],
) -> Iterator[FilledDay]:
    """Fill the missing minutes of these hours (UTC starts) day by day; store each day before the next is requested.

    `history` is called when the device is needed for the first time. Live rows stay unchanged, and a repetition changes
    nothing. A day whose pages cannot be read is skipped. Raises any other Aiseg2Error and StoreError; the days before are
    kept.
    """
    filler = _Filler(store, energy, now, cache(history))
    for day, of_day in groupby(sorted(hours), key=day_of):
        yield filler.fill_day(day, list(of_day))


@dataclass(frozen=True)
class _Filler:
    """The stores, the time, and the device's history, which is opened on the first call."""

    store: Store
    energy: EnergyStore
    now: datetime
    history: Callable[[], History]

    def fill_day(self, day: date, starts: Sequence[datetime]) -> FilledDay:
        before = self._hours(starts)
        if unrecovered(self.store.path):
            # Live readings of these hours may be restored.
            return FilledDay(day, before, 0, (NOT_SALVAGED,))
        result, problems = self._request(day, [hour for hour in before if hour.missing])
        problems += self._fill(before)
        after = self._hours(starts)
        minutes = sum(hour.missing for hour in before) - sum(hour.missing for hour in after)
        return FilledDay(day, after, minutes, tuple(problems), result)

    def _hours(self, starts: Sequence[datetime]) -> tuple[Hour, ...]:
        hours = hours_between(self.store, starts[0], starts[-1] + HOUR, self.now)
        return tuple(hour for hour in hours if hour.start in starts)

    def _request(self, day: date, missing: Sequence[Hour]) -> tuple[DayEnergy | None, list[str]]:
        """Read the day's energy from the device as far as it is unknown; also return a sentence for each problem."""
        problems: list[str] = []
        result = None
        known, due = retries.of_day(self.energy, day, self.now)
        whole_day = bool(missing) and must_request(self.energy, day, missing, self.now)
        if whole_day or due:
            history = self.history()
            try:
                result = _read_twice(history, day, None if whole_day else due)
            except Unreadable as error:
                # Raising it would keep the days after this one from being filled.
                history.give_up(day, due)
                problems.append(f"{day}: {error}")
            else:
                problems += result.problems
                if not whole_day:
                    known |= due - result.failed_circuits
        if known:
            # All hours of the day, because all of them were filled without these circuits.
            self._fill(self._hours([day_start(day) + n * HOUR for n in range(24)]), again=True)
            retries.settle(self.energy, day, known)
        return result, problems

    def _fill(self, hours: Sequence[Hour], *, again: bool = False) -> list[str]:
        """Fill the hours with missing minutes, or those filled before `again`; return a sentence for each problem."""
        problems: list[str] = []
        if not hours:
            return problems
        table = self.energy.read(hours[0].start, hours[-1].start + HOUR)
        homes = Homes(self.store)
        filled: list[pd.DataFrame] = []
        for hour in hours:
            of_hour = table[(table["time"] >= hour.start) & (table["time"] < hour.start + HOUR)]
            # The card may have half hours for minutes that were filled with an hour's mean.
            better = hour.filled_by_hour and (of_hour["interval_s"] == HALF_HOUR_S).any()
            if hour.filled if again else hour.missing or better:
                live = _live(self.store, hour.start)
                filled += _filled(self.store, homes, hour.start, of_hour, live)
                if (excess := excess_wh(hour.start, of_hour, live)) >= 1:
                    problems.append(LIVE_EXCEEDS_ENERGY.format(hour=hour.start.astimezone(TOKYO), excess=excess))
        if filled:
            self.store.upsert(pd.concat(filled, ignore_index=True))
        return problems


def _read_twice(history: History, day: date, only: set[str] | None) -> DayEnergy:
    """Read a day, with a second attempt, so that a transient fault does not postpone the day until tomorrow."""
    try:
        return history.read_day(day, circuits=True, only=only)
    except Unreadable:
        return history.read_day(day, circuits=True, only=only)


def _filled(
    store: Store, homes: Homes, hour: datetime, energy: pd.DataFrame, live: Live
) -> Iterator[pd.DataFrame]:
    """Yield the rows of the hour's minutes without a live reading, a frame for each set of circuits in force."""
    known = store.minutes(hour, hour + HOUR)
    removed = store.removed_minutes(hour, hour + HOUR)
    every = {hour + timedelta(minutes=n) for n in range(MINUTES_AN_HOUR)}
    to_fill = sorted(minute for minute in every - removed if known.get(minute) != 0)
    # A circuit may be renamed within the hour: each minute gets the names of its time.
    for _, minutes in groupby(to_fill, key=store.circuits_at):
        of_names = list(minutes)
        home = homes.at(of_names[0])
        if home is not None:
            yield filled_frame(hour, energy, of_names, live, home)


def _live(store: Store, hour: datetime) -> Live:
    """Return the hour's live minutes, those included that lack a total."""
    return live_minutes(store.read(hour, hour + HOUR)) if store.hours_with_rows(hour, hour + HOUR) else {}
