"""Store the past of the simulated home: a year of days, three months of hours, a week of minutes and of the rooms' climate.

The energy comes first and the minutes newest first, so that at any moment no minute is missing between the oldest one and
now: a run of the pipeline meanwhile finds nothing to fill. Stored rows stay unchanged, so a process that was killed
can start again.

Two stretches of the week are different, to have something to look at. `FILLED` has no live reading and is filled from the
stored energy, as after a failure. `REMOVED` is recorded as removed by a person: the device's memory has its energy, so
healing would fill any other gap at its next evaluation, and a simulated power cut would have to be in the memory of a
device that may be in another container.

    python -m aiseg2_pipeline.demo.past
"""

import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NoReturn

import filelock

from aiseg2_pipeline.demo.rows import Past
from aiseg2_pipeline.gaps import simulated
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start, hour_of
from aiseg2_pipeline.settings import Settings, load_settings
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import ClimateStore, EnergyStore, Store
from aiseg2_pipeline.store.database import StoreError

# How many days before the first start, from and to which time of that day (Japan).
FILLED = 2, timedelta(hours=11, minutes=20), timedelta(hours=13, minutes=45)
REMOVED = 3, timedelta(hours=19, minutes=10), timedelta(hours=19, minutes=50)


def store_past(settings: Settings, until: datetime) -> None:
    """Store the past up to a time (UTC) in the stores of these settings; rows that are there stay unchanged."""
    past, today = Past(Household(), until), day_of(until)
    with (
        Store.open(settings.store_path) as readings,
        EnergyStore.open(settings.energy_path) as energy,
        ClimateStore.open(settings.climate_path) as climate,
    ):
        for day in _days(today, first_hours := simulated.months_before(today, simulated.MONTHS_OF_HOURS)):
            energy.add(past.hours(day))
            energy.add(past.totals([day]))
        _store_minutes(past, readings, energy, until)
        for day in _days(today, day_of(simulated.first_minute(until))):
            climate.add(past.climate(day))
        energy.add(past.totals(_days(first_hours - DAY, simulated.months_before(today, simulated.MONTHS_OF_DAYS))))


def _store_minutes(past: Past, readings: Store, energy: EnergyStore, until: datetime) -> None:
    first = simulated.first_minute(until)
    filled, removed = (_stretch(until, *stretch) for stretch in (FILLED, REMOVED))
    readings.record_circuits(past.circuits, first)
    if not readings.removed_minutes(*removed):
        readings.remove(*removed, at=until)
    hour = hour_of(until)
    while hour >= first:
        table = past.minutes(hour)
        left_out = [(table["time"] >= start) & (table["time"] < end) for start, end in (filled, removed)]
        readings.add(table[~(left_out[0] | left_out[1])])
        if filled[0] < hour + HOUR and hour < filled[1]:
            list(fill_hours(readings, energy, [hour], now=until, history=_no_device))
        hour -= HOUR


def _stretch(until: datetime, days_ago: int, start: timedelta, end: timedelta) -> tuple[datetime, datetime]:
    day = day_start(day_of(until) - days_ago * DAY)
    return day + start, day + end


def _days(last: date, first: date) -> Iterator[date]:
    """Yield the days, newest first."""
    while last >= first:
        yield last
        last -= DAY


def _no_device() -> NoReturn:
    raise AssertionError("the energy of the filled stretch is stored, so the device is not read")


def main() -> None:
    """Store the past of a new data directory, or what is left of it, with low priority."""
    settings = load_settings()
    os.umask(0o077)
    os.nice(10)
    if settings.simulated:
        simulated.begin(settings.data_dir, settings.first_partition_path, settings.store_path, datetime.now(UTC))
    try:
        with filelock.FileLock(settings.data_dir / "simulated.lock", timeout=0, mode=0o600):
            if until := simulated.due(settings.data_dir):
                store_past(settings, until)
                simulated.done(settings.data_dir, until)
    except filelock.Timeout:
        # The process of an earlier start is still at it.
        return
    except StoreError as error:
        sys.exit(f"The past of the simulated home is not complete, the next start tries again: {error}")


if __name__ == "__main__":
    main()
