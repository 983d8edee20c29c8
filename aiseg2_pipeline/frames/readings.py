"""The readings frame: its columns, their check, and the conversion of a live reading.

Every module that uses a frame (store, InfluxDB, assets) relies on `checked`; only this module defines the columns.
No I/O here.

| column | dtype | |
|---|---|---|
| `time` | datetime64[ns, UTC] | live: when the device answered with the power flow, to the second |
| `kind` | str | `total`, `generation`, `usage`, `battery`, `flow` |
| `name` | str | as the device shows it; circuits by page 1113's spelling |
| `value` | float64 | always finite: a value that the device does not report is no row |
| `unit` | str | `kW` (totals and flow), `W`, `%`, or empty |
| `interval_s` | int32 | 0 for a live reading; 1800 or 3600 for the mean over a half hour or an hour |

The key is (`time`, `kind`, `name`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import sum_by_name
from aiseg2_pipeline.aiseg2.models import LiveReading
from aiseg2_pipeline.frames.names import (
    BATTERY_CHARGE,
    BATTERY_STATE,
    FLOW_BATTERY,
    FLOW_GRID,
    FLOW_SUN,
    TOTAL_CONSUMPTION,
    TOTAL_EXCHANGE,
    TOTAL_GENERATION,
)

KINDS = ("total", "generation", "usage", "battery", "flow")
KEY = ["time", "kind", "name"]
DTYPES = {
    "time": "datetime64[ns, UTC]",
    "kind": "str",
    "name": "str",
    "value": "float64",
    "unit": "str",
    "interval_s": "int32",
}
COLUMNS = list(DTYPES)
INTERVALS_S = (0, 1800, 3600)


@dataclass(frozen=True)
class Shape:
    """The kinds and intervals that a frame allows; columns, dtypes and key are the same for all frames."""

    name: str
    kinds: tuple[str, ...]
    intervals_s: tuple[int, ...]


READINGS = Shape("readings", KINDS, INTERVALS_S)


class Row(NamedTuple):
    """One row of the frame, columns in order."""

    time: datetime
    kind: str
    name: str
    value: float
    unit: str
    interval_s: int


def frame(rows: Iterable[Row], shape: Shape = READINGS) -> pd.DataFrame:
    """Return the rows as a checked frame; no rows give an empty frame of the right dtypes."""
    table = pd.DataFrame(list(rows), columns=COLUMNS)
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return checked(table.astype(DTYPES), shape)


def checked(table: pd.DataFrame, shape: Shape = READINGS) -> pd.DataFrame:
    """Return `table` unchanged. Raise ValueError with the reason if it is not a frame of that shape."""
    if list(table.columns) != COLUMNS:
        raise ValueError(f"a {shape.name} frame has the columns {COLUMNS}, not {list(table.columns)}")
    wrong = {name: str(table[name].dtype) for name, dtype in DTYPES.items() if str(table[name].dtype) != dtype}
    if wrong:
        raise ValueError(f"a {shape.name} frame has the dtypes {DTYPES}; these differ: {wrong}")
    if table[[*KEY, "unit"]].isna().to_numpy().any():
        raise ValueError(f"a {shape.name} frame has a time, a kind, a name and a unit in every row")
    if not np.isfinite(table["value"]).all():
        raise ValueError(f"a {shape.name} frame holds no absent or infinite value: leave the row out")
    if not table["kind"].isin(shape.kinds).all():
        raise ValueError(f"a {shape.name} frame has the kinds {shape.kinds}")
    if not table["interval_s"].isin(shape.intervals_s).all():
        raise ValueError(f"a {shape.name} frame has the intervals {shape.intervals_s} s")
    repeated = table.duplicated(KEY)
    if repeated.any():
        raise ValueError(
            f"a {shape.name} frame has one row a key; repeated: {table.loc[repeated, 'name'].iloc[0]}"
        )
    return table


def live_frame(reading: LiveReading) -> pd.DataFrame:
    """Return a live reading as a frame; values that the device did not report are omitted.

    Exchange is generation minus consumption; with a storage battery, the exchange with the grid is `系統` of the flow
    (positive: buying), and `蓄電池` is positive while it discharges. Without a registered generating device it is minus consumption, and there
    is no generation. Generating devices with the same name are summed, and so are circuits; a sum is omitted when any
    part of it is missing.
    """
    time = reading.answered_at.replace(microsecond=0)
    flow = reading.flow
    values: list[tuple[str, str, float | None, str]] = []
    generation_kw = flow.generation_kw if flow.generators else 0.0
    if generation_kw is None or flow.consumption_kw is None:
        exchange = None
    else:
        # Both are in steps of 0.1 kW; the difference of two binary fractions would not be.
        exchange = round(generation_kw - flow.consumption_kw, 6)
    if flow.generators:
        values.append(("total", TOTAL_GENERATION, flow.generation_kw, "kW"))
    values.append(("total", TOTAL_CONSUMPTION, flow.consumption_kw, "kW"))
    values.append(("total", TOTAL_EXCHANGE, exchange, "kW"))
    generators = sum_by_name((device.name, device.power_w) for device in flow.generators)
    values += [("generation", name, power_w, "W") for name, power_w in generators.items()]
    circuits = sum_by_name((row.name, row.power_w) for row in reading.circuits or ())
    values += [("usage", name, power_w, "W") for name, power_w in circuits.items()]
    if flow.battery is not None:
        state = flow.battery.state
        values.append(("battery", BATTERY_CHARGE, flow.battery.charge_percent, "%"))
        values.append(("battery", BATTERY_STATE, None if state is None else float(state.value), ""))
    if reading.battery_flow is not None:
        values.append(("flow", FLOW_SUN, reading.battery_flow.sun_kw, "kW"))
        values.append(("flow", FLOW_GRID, reading.battery_flow.grid_kw, "kW"))
        values.append(("flow", FLOW_BATTERY, reading.battery_flow.battery_kw, "kW"))
    return frame(Row(time, kind, name, value, unit, 0) for kind, name, value, unit in values if value is not None)
