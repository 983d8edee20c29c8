"""Fills the stores with a simulated home's data for the dashboards: a month of minutes, eighteen months of hours.

Most rows are computed from the simulated household. The last minutes are read from a simulated device, and two gaps
are filled from its SD card. Other minutes and hours are missing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import shown_name
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.readings import DTYPES
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.battery import battery
from aiseg2_pipeline.simulator.household import GENERATOR_NAME, Household, step_of
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.support.simulator_client import simulated

SECOND, MINUTE, DAY = pd.Timedelta("1s"), pd.Timedelta("1min"), pd.Timedelta("1D")
at = partial(pd.Timestamp, tz="Asia/Tokyo")
# The year has a 29th of February; the dashboards compare it with the year before.
NOW = at("2024-07-14 12:10:30")
HOURS_FROM, CIRCUITS_FROM, MINUTES_FROM = at("2023-01-10"), at("2023-07-13"), at("2024-06-14 10:25")
COST_FROM = at("2024-02-10")
BATTERY_FROM, DEVICE_FROM = at("2024-07-05"), at("2024-07-14 12:02")
# Two circuits share a name; another circuit is renamed.
KEPT = (10, 11, 12, 18, 20, 26, 30, 33, 35, 38)
RENAMED_AT = at("2024-07-01 09:30")
FILLED = [
    (at("2024-07-12 21:20"), at("2024-07-13 03:10")),
    (at("2024-07-14 07:10"), at("2024-07-14 07:30")),
]
UNREAD = [
    (at("2024-07-05"), at("2024-07-06")),
    (at("2024-07-13 23:50"), at("2024-07-13 23:55")),
    (at("2024-07-14 11:58"), at("2024-07-14 12:01")),
    *FILLED,
]
NO_ENERGY = [(at("2023-11-01"), at("2023-12-01")), (at("2024-07-03"), at("2024-07-04"))]


def fill(store: Store, energies: EnergyStore, folder: Path) -> None:
    """Store all rows; the energy store gets the SD card's rows first."""
    unregistered = [(HOURS_FROM, each.circuit_id, None) for each in CIRCUITS if each.circuit_id not in KEPT]
    household = Household(renames=[*unregistered, (RENAMED_AT, 30, "書斎・エアコン")], battery=True)
    times = sorted({MINUTES_FROM, RENAMED_AT, DEVICE_FROM, *(time for gap in UNREAD for time in gap)})
    for start, end in pairwise(times):
        if not any(gap_start <= start < gap_end for gap_start, gap_end in UNREAD):
            store.upsert(_minutes(household, start, end))
    # Two readings a minute for an hour.
    store.upsert(_minutes(household, at("2024-07-13 10:00:30"), at("2024-07-13 11:00")))
    for time in (MINUTES_FROM, RENAMED_AT):
        store.record_circuits(
            [Circuit(str(key), shown_name(name)) for key, name in household.names(time).items()], time
        )
    with simulated(NOW, household, sd_card=True) as unit:

        def now() -> datetime:
            return unit.times[0].astimezone(UTC)

        def client(slot: Any) -> Aiseg2Client:
            url = f"http://{unit.served.address}"
            return Aiseg2Client(
                url, unit.served.user, unit.served.password, state_dir=folder, clock=now, slot=slot
            )

        with client("live") as live:
            for minute in pd.date_range(DEVICE_FROM, NOW, freq="min"):
                unit.set_clock((minute + 4 * SECOND).to_pydatetime())
                assert take_minute(live, store, minute=minute, samples=1, clock=now).frames
        with client("background") as background, History(background, energies, folder, now()) as history:
            hours = [hour for start, end in FILLED for hour in pd.date_range(start.floor("h"), end, freq="h")]
            days = list(fill_hours(store, energies, hours, now=now(), history=lambda: history))
        assert sum(day.filled_minutes for day in days) == sum((end - start) // MINUTE for start, end in FILLED)
    energies.add(_hours(household))


def _minutes(household: Household, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    """Return a readings frame with a live reading a minute, the first four seconds after `start`."""
    power = _watts(
        household, pd.date_range(start + 4 * SECOND, end, freq="min", inclusive="left").tz_convert("UTC")
    )
    generation, consumption = (power["generation"] / 1000).round(1), (power["consumption"] / 1000).round(1)
    columns = {
        ("total", "総発電電力", "kW"): generation,
        ("total", "総消費電力", "kW"): consumption,
        ("total", "売買電力", "kW"): (generation - consumption).round(6),
        ("generation", GENERATOR_NAME, "W"): power["generation"],
    }
    if start > BATTERY_FROM:
        shown = pd.DataFrame([battery(time) for time in power.index], power.index)
        columns["battery", "充電率", "%"] = shown["percent"]
        columns["battery", "状態", ""] = shown["state"]
        columns["flow", "太陽光", "kW"] = generation
        columns["flow", "系統", "kW"] = consumption - generation - shown["power_w"] / 1000
        columns["flow", "蓄電池", "kW"] = shown["power_w"] / 1000
    for key, name in household.names(start).items():
        series = ("usage", shown_name(name), "W")
        columns[series] = columns[series] + power[str(key)] if series in columns else power[str(key)]
    return _rows(columns, 0)


def _hours(household: Household) -> pd.DataFrame:
    """Return an energy frame of all ended hours, with the cost of the later ones, and the card's cost of all ended days."""
    times = pd.date_range(HOURS_FROM, NOW.floor("h"), freq="10min", inclusive="left").tz_convert("UTC")
    wh = _watts(household, times).resample("h").mean().round()
    for start, end in NO_ENERGY:
        wh = wh[(wh.index < start) | (wh.index >= end)]
    wh.loc[wh.index < CIRCUITS_FROM, wh.columns[4:]] = np.nan
    # Some hours lack one of the totals.
    wh.loc[wh.index[5::50], "sold"] = np.nan
    wh.loc[wh.index[7::50], "bought"] = np.nan
    yen = (wh * 0.031).tz_convert("Asia/Tokyo").resample("D").sum(min_count=1).tz_convert("UTC")[:-1]
    of_hours = {("usage" if name.isdigit() else name, name, "Wh"): wh[name] for name in map(str, wh)}
    of_days = {("daily_cost", name, "yen"): yen[name] for name in ("bought", "sold")}
    own = (wh["consumption"] - wh["bought"]).clip(lower=0)
    costs = {"bought": wh["bought"] * 0.035, "sold": wh["sold"] * 0.016, "saved": own * 0.035}
    of_hours |= {("cost", name, "yen"): yen_of[yen_of.index >= COST_FROM] for name, yen_of in costs.items()}
    return pd.concat([_rows(of_hours, 3600), _rows(of_days, 86_400)], ignore_index=True)


def _watts(household: Household, times: pd.DatetimeIndex) -> pd.DataFrame:
    power = household.power(np.array([step_of(time) for time in times]))
    totals = {"generation": power.generation_w, "consumption": power.consumption_w}
    totals |= {"bought": power.bought_w, "sold": power.sold_w}
    circuits = {each.circuit_id: power.circuits_w[:, n] for n, each in enumerate(CIRCUITS)}
    return pd.DataFrame(totals | {str(key): circuits[key] for key in KEPT}, times, dtype="float64")


def _rows(columns: Mapping[tuple[str, str, str], Any], interval_s: int) -> pd.DataFrame:
    """Return a store's frame of values over time in columns by kind, name and unit."""
    wide = pd.DataFrame(columns).rename_axis("time").rename_axis(["kind", "name", "unit"], axis="columns")
    table: Any = wide.melt(ignore_index=False).dropna().reset_index().assign(interval_s=interval_s)
    return pd.DataFrame(table[list(DTYPES)].astype(DTYPES))
