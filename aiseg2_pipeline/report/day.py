"""Compute the numbers of a day's picture from its readings and the device's energy. No I/O.

Power is an array with one value for each minute of the day in Japan, NaN where the minute is missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from aiseg2_pipeline.frames.energy import COST, HOUR_S
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.japan_time import MINUTE, day_start

MINUTES_A_DAY = 1440
HOURS_A_DAY = 24
NAMED_CIRCUITS = 10
W_PER_KW = WH_PER_KWH = 1000

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Amounts:
    """The day's energy; None if it is unknown or the home has no such flow.

    `measured`: the device's own energy of all 24 hours; otherwise the sum of the known minutes.
    """

    measured: bool
    generation_kwh: float | None
    consumption_kwh: float | None
    bought_kwh: float | None
    sold_kwh: float | None

    @property
    def self_sufficiency_percent(self) -> float | None:
        """The share of the consumption that was not bought; None for a home without generation."""
        if self.generation_kwh is None or self.bought_kwh is None or not self.consumption_kwh:
            return None
        # A home that charges a battery from the grid can buy more than it consumes.
        return max(0.0, 100 * (1 - self.bought_kwh / self.consumption_kwh))


@dataclass(frozen=True)
class Circuit:
    """A circuit, or the sum of `others` circuits if that is not 0; `kwh` is the sum of the known minutes."""

    name: str
    power_kw: FloatArray
    kwh: float
    others: int = 0


@dataclass(frozen=True)
class Day:
    """A day: power by minute, its largest circuits in descending order (the rest as one), and its missing minutes.

    `filled` marks the minutes known only as a mean; `missing_minutes` counts past minutes without any value.
    `generation_kw` is None for a home without generation. With a `battery`, exchange differs from the grid's power.
    `yen` is what was bought, sold and saved by the tariff; empty without one, or where an hour's cost is unknown.
    """

    date: date
    generation_kw: FloatArray | None
    consumption_kw: FloatArray
    exchange_kw: FloatArray
    circuits: tuple[Circuit, ...]
    filled: BoolArray
    live_minutes: int
    filled_minutes: int
    missing_minutes: int
    over: bool
    battery: bool
    amounts: Amounts
    yen: Mapping[str, float]


def by_minute(readings: pd.DataFrame) -> pd.DataFrame:
    """Return a readings frame with one row for each series and minute: the mean of its rows.

    `time` is the minute's start; `interval_s` is 0 if any of the rows is live.
    """
    table = readings.assign(time=readings["time"].dt.floor("min"))
    keys = ["time", "kind", "name", "unit"]
    return table.groupby(keys, sort=False, as_index=False).agg({"value": "mean", "interval_s": "min"})


def day_of_frames(day: date, minutes: pd.DataFrame, energy: pd.DataFrame, now: datetime) -> Day:
    """Return the day in Japan from its `by_minute` readings and its energy frame, as of `now`."""
    start = day_start(day)
    minutes = minutes.assign(minute=((minutes["time"] - start) // MINUTE).astype("int64"))
    totals = minutes[minutes["kind"] == "total"]
    generation_kw, consumption_kw, exchange_kw = (
        _curve(totals[totals["name"] == name]) for name in (TOTAL_GENERATION, TOTAL_CONSUMPTION, TOTAL_EXCHANGE)
    )
    hourly = energy[energy["interval_s"] == HOUR_S]
    battery = bool((minutes["kind"] == "battery").any())
    generating = not np.isnan(generation_kw).all() or bool(
        hourly.loc[hourly["kind"] == "generation", "value"].any()
    )
    # As everywhere, a minute is known if it has the exchange, which is computed from the other two.
    known = totals[totals["name"] == TOTAL_EXCHANGE]
    filled = np.zeros(MINUTES_A_DAY, np.bool_)
    filled[known.loc[known["interval_s"] > 0, "minute"]] = True
    passed = min(max((now - start) // MINUTE, len(known)), MINUTES_A_DAY)
    return Day(
        date=day,
        generation_kw=generation_kw if generating else None,
        consumption_kw=consumption_kw,
        exchange_kw=exchange_kw,
        circuits=_circuits(minutes[minutes["kind"] == "usage"]),
        filled=filled,
        live_minutes=len(known) - int(filled.sum()),
        filled_minutes=int(filled.sum()),
        missing_minutes=passed - len(known),
        over=passed == MINUTES_A_DAY,
        battery=battery,
        yen=_yen(hourly, over=passed == MINUTES_A_DAY),
        amounts=_measured(hourly, generating=generating, battery=battery)
        or Amounts(
            measured=False,
            generation_kwh=_kwh(generation_kw),
            consumption_kwh=_kwh(consumption_kw),
            # With a battery, the exchange is not the grid's power.
            bought_kwh=None if battery else _kwh(np.maximum(-exchange_kw, 0)),
            sold_kwh=None if battery or not generating else _kwh(np.maximum(exchange_kw, 0)),
        ),
    )


def _curve(rows: pd.DataFrame) -> FloatArray:
    values = np.full(MINUTES_A_DAY, np.nan)
    values[rows["minute"]] = rows["value"]
    return values


def _circuits(usage: pd.DataFrame) -> tuple[Circuit, ...]:
    circuits = [
        Circuit(str(name), power_kw := _curve(rows) / W_PER_KW, _kwh(power_kw) or 0.0)
        for name, rows in usage.groupby("name", sort=False)
    ]
    circuits.sort(key=lambda circuit: circuit.kwh, reverse=True)
    named = [circuit for circuit in circuits[:NAMED_CIRCUITS] if circuit.kwh]
    rest = circuits[len(named) :]
    if rest:
        powers_kw = np.stack([circuit.power_kw for circuit in rest])
        together_kw = np.where(np.isnan(powers_kw).all(axis=0), np.nan, np.nansum(powers_kw, axis=0))
        named.append(Circuit("", together_kw, sum(circuit.kwh for circuit in rest), others=len(rest)))
    return tuple(named)


def _measured(hourly: pd.DataFrame, *, generating: bool, battery: bool) -> Amounts | None:
    """Return the device's own sums; None unless it has all hours of the day."""
    whole_day = {
        str(kind): float(wh.sum()) / WH_PER_KWH
        for kind, wh in hourly.groupby("kind")["value"]
        if len(wh) == HOURS_A_DAY
    }
    needed = {"consumption"} | ({"generation", "bought", "sold"} if generating else set())
    if not needed <= whole_day.keys():
        return None
    # A home without generation and battery buys all that it consumes.
    bought_kwh = whole_day.get("bought") if generating or battery else whole_day["consumption"]
    return Amounts(
        measured=True,
        generation_kwh=whole_day["generation"] if generating else None,
        consumption_kwh=whole_day["consumption"],
        bought_kwh=bought_kwh,
        sold_kwh=whole_day["sold"] if generating else None,
    )


def _yen(hourly: pd.DataFrame, *, over: bool) -> dict[str, float]:
    """Return the sums of the hours' cost; a day that is over needs all of them."""
    cost = hourly[hourly["kind"] == COST]
    sums = cost.groupby("name")["value"].agg(["sum", "size"])
    return {
        str(name): float(row["sum"]) for name, row in sums.iterrows() if row["size"] == HOURS_A_DAY or not over
    }


def _kwh(power_kw: FloatArray) -> float | None:
    """Return the energy of the known minutes; None if there are none."""
    return None if np.isnan(power_kw).all() else float(np.nansum(power_kw)) / 60
