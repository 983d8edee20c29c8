"""The energy frame: the energy that the device stores, in Wh, from which missing minutes are filled.

It has the columns of the readings frame and the key (`time`, `kind`, `name`). No I/O here.

| kind | name | unit | interval_s | |
|---|---|---|---|---|
| one of `SERIES` | the same word | `Wh` | 3600 | a total of an hour |
| `usage` | the circuit's id | `Wh` | 3600 | a circuit's hour |
| either + `/half` | as above | `Wh` | 1800 | a half hour of the card; its hours are there as well |
| `daily_total` | as InfluxDB's `detail-section` | `kWh`, `L`, `㎥` | 86400 | a day as the device shows it |
| `circuit_daily_total` | the circuit's id | `kWh` | 86400 | a circuit's day |
| `monthly_total` | as `daily_total` | `kWh` | 28 to 31 days | a month as the card has it; `time` is its start |
| `cost` | `bought`, `sold`, `saved` | `yen` | 3600 | what an hour cost by the tariff file |
| `daily_cost` | one of `SERIES`, or `usage/` and the circuit's id | `yen` | 86400 | a day's cost |

`time` is the start of the interval. Circuits are identified by id, because names change; the store keeps the names by time.
"""

from collections.abc import Iterable
from datetime import datetime

import pandas as pd

from aiseg2_pipeline.frames import readings
from aiseg2_pipeline.frames.readings import Row, Shape

SERIES = (
    "generation",
    "consumption",
    "bought",
    "sold",
    "battery-charge",
    "battery-discharge",
    "ev-charge",
    "ev-discharge",
    "heatpump",
    "fuelcell",
)
USAGE = "usage"
HALF = "/half"
DAILY_TOTAL, CIRCUIT_DAILY_TOTAL, DAILY_COST = "daily_total", "circuit_daily_total", "daily_cost"
MONTHLY_TOTAL, COST = "monthly_total", "cost"
COST_OF_CIRCUIT = "usage/"
HOURLY_KINDS = (*SERIES, USAGE)
HALF_HOUR_S, HOUR_S, DAY_S = 1800, 3600, 86_400
ENERGY = Shape(
    "energy",
    (
        *HOURLY_KINDS,
        *(kind + HALF for kind in HOURLY_KINDS),
        DAILY_TOTAL,
        CIRCUIT_DAILY_TOTAL,
        DAILY_COST,
        MONTHLY_TOTAL,
        COST,
    ),
    (HALF_HOUR_S, HOUR_S, DAY_S, *(days * DAY_S for days in range(28, 32))),
)


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Return the rows as a checked energy frame."""
    return readings.frame(rows, ENERGY)


def interval(time: datetime, kind: str, name: str, wh: float, interval_s: int) -> Row:
    """Return the row of a total's (`name` is the kind) or circuit's energy over an hour or a half hour."""
    return Row(time, kind + (HALF if interval_s == HALF_HOUR_S else ""), name, wh, "Wh", interval_s)
