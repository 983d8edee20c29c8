"""The past of the simulated home as frames: what the pipeline would have stored if it had read the device all the time.

Computed from household and meter, without a request: a week of minutes would be 50,000 of them. A test reads the
simulated device with the client and compares.
"""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import match
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.climate import CLIMATE, HUMIDITY, TEMPERATURE
from aiseg2_pipeline.frames.energy import CIRCUIT_DAILY_TOTAL, DAILY_TOTAL, DAY_S, HOUR_S, USAGE
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES, READINGS, Row, checked, frame
from aiseg2_pipeline.ingest.energy_rows import SUPPLIES, TITLES, WH_PER_KWH, settled
from aiseg2_pipeline.japan_time import HOUR, MINUTE, TOKYO, day_start
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import GENERATOR_NAME, Household, step_of
from aiseg2_pipeline.simulator.meter import Meter
from aiseg2_pipeline.simulator.rooms import ROOMS, climate

# A live reading is taken some seconds after its minute begins.
READ_AFTER = timedelta(seconds=3)
CLIMATE_EVERY = 5 * MINUTE


class Past:
    """The past of a household up to a time (UTC)."""

    def __init__(self, household: Household, until: datetime) -> None:
        """Use a household, which keeps its circuits."""
        self._household = household
        self._meter = Meter(household)
        self._until = until
        names = household.names(until)
        listed = [Circuit(str(circuit_id), name) for circuit_id, name in names.items()]
        self.circuits = match(listed, None).shown
        self._places = [place for place, circuit in enumerate(CIRCUITS) if circuit.circuit_id in names]

    def minutes(self, hour: datetime) -> pd.DataFrame:
        """Return the live readings of an hour (UTC start), one a minute, as far as they are in the past."""
        times = [time for n in range(60) if (time := hour + n * MINUTE + READ_AFTER) <= self._until]
        power = self._household.power(np.array([step_of(time) for time in times], np.int64))
        generation_kw, consumption_kw = _shown_kw(power.generation_w), _shown_kw(power.consumption_w)
        series: list[tuple[str, str, str, list[float]]] = [
            ("total", TOTAL_GENERATION, "kW", generation_kw),
            ("total", TOTAL_CONSUMPTION, "kW", consumption_kw),
            ("total", TOTAL_EXCHANGE, "kW", _exchange_kw(generation_kw, consumption_kw)),
            ("generation", GENERATOR_NAME, "W", power.generation_w.tolist()),
        ]
        # Circuits of one name are added up, as in a live reading.
        by_name: dict[str, list[int]] = {}
        for place, circuit in zip(self._places, self.circuits, strict=True):
            by_name.setdefault(circuit.name, []).append(place)
        series += [
            (USAGE, name, "W", power.circuits_w[:, places].sum(axis=1).tolist())
            for name, places in by_name.items()
        ]
        table = pd.concat(
            [
                pd.DataFrame({"time": times, "kind": kind, "name": name, "value": values, "unit": unit})
                for kind, name, unit, values in series
            ]
        )
        return _frame(table.assign(interval_s=0))

    def hours(self, day: date) -> pd.DataFrame:
        """Return the energy of a day's hours in Japan that have settled."""
        return energy.frame(
            energy.interval(start, kind, name, wh, HOUR_S)
            for kind, name, hours_wh in self._hours_of(day)
            for n, wh in enumerate(hours_wh)
            if settled(start := day_start(day) + n * HOUR, HOUR_S, self._until)
        )

    def totals(self, days: Iterable[date]) -> pd.DataFrame:
        """Return the totals of those days in Japan that have settled."""
        return energy.frame(
            row for day in days if settled(day_start(day), DAY_S, self._until) for row in self._totals(day)
        )

    def climate(self, day: date) -> pd.DataFrame:
        """Return the rooms' values of a day in Japan, as far as they are in the past."""
        first = day_start(day) + 2 * MINUTE + READ_AFTER
        times = [time for n in range(288) if (time := first + n * CLIMATE_EVERY) <= self._until]
        rooms = [(time, room) for time in times for room in climate(self._household.seed, ROOMS, time)]
        temperatures = [
            Row(time, TEMPERATURE, room.name, room.temperature_tenths_c / 10, "℃", 0) for time, room in rooms
        ]
        humidities = [Row(time, HUMIDITY, room.name, room.humidity_percent, "%", 0) for time, room in rooms]
        return frame(temperatures + humidities, CLIMATE)

    def _hours_of(self, day: date) -> Iterator[tuple[str, str, list[float]]]:
        """Yield kind, name and the 24 hours in Wh of each series."""
        known = self._meter.day(day, self._until.astimezone(TOKYO))
        for kind, hours_wh in (
            ("generation", known.generation_wh),
            ("consumption", known.own_wh + known.bought_wh),
            ("bought", known.bought_wh),
            ("sold", known.sold_wh),
        ):
            yield kind, kind, hours_wh.tolist()
        for place, circuit in zip(self._places, self.circuits, strict=True):
            yield USAGE, circuit.circuit_id, known.circuits_wh[:, place].tolist()

    def _totals(self, day: date) -> Iterator[Row]:
        start = day_start(day)
        titles = {str(series): title for series, title in TITLES.items()}
        for kind, name, hours_wh in self._hours_of(day):
            kwh = sum(hours_wh) / WH_PER_KWH
            if kind == USAGE:
                yield Row(start, CIRCUIT_DAILY_TOTAL, name, kwh, "kWh", DAY_S)
            else:
                yield Row(start, DAILY_TOTAL, f"{titles[kind]}(kWh)", kwh, "kWh", DAY_S)
        litres = float(self._meter.day(day, self._until.astimezone(TOKYO)).hot_water_l.sum())
        yield Row(start, DAILY_TOTAL, f"{SUPPLIES['hotwater']}(L)", litres, "L", DAY_S)


def _shown_kw(watts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    """Return the power as the device shows it, in steps of 0.1 kW."""
    return [float(f"{value / 1000:.1f}") for value in watts.tolist()]


def _exchange_kw(generation_kw: list[float], consumption_kw: list[float]) -> list[float]:
    return [
        round(generation - consumption, 6)
        for generation, consumption in zip(generation_kw, consumption_kw, strict=True)
    ]


def _frame(table: pd.DataFrame) -> pd.DataFrame:
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return checked(table[COLUMNS].astype(DTYPES).reset_index(drop=True), READINGS)
