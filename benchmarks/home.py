"""A home of 45 series, as readings frames of a day: what the benchmarks of the store and of the write-out fill in.

The numbers are random but the same in every run; as in a real home, half of the circuits take nothing at a time.
"""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.frames.readings import DTYPES, checked

MINUTES_A_DAY = 1440
CIRCUITS = 41
MOST_W = 3000
SERIES = pd.DataFrame(
    [
        *(("total", name, "kW") for name in (TOTAL_GENERATION, TOTAL_CONSUMPTION, TOTAL_EXCHANGE)),
        ("generation", "太陽光発電", "W"),
        *(("usage", f"回路{n}", "W") for n in range(1, CIRCUITS + 1)),
    ],
    columns=["kind", "name", "unit"],
)
TOTALS = 3


def readings(start: datetime, minutes: int = MINUTES_A_DAY) -> pd.DataFrame:
    """Return a readings frame of live minutes from `start` (UTC) on, one reading in each, by time."""
    random = np.random.default_rng(int(start.timestamp()))
    shape = (minutes, len(SERIES))
    values = random.integers(0, MOST_W, shape) * random.integers(0, 2, shape).astype("float64")
    values[:, :TOTALS] = np.round(values[:, :TOTALS] / 1000, 1)
    times = pd.date_range(start, start + timedelta(minutes=minutes), freq="min", inclusive="left")
    table = pd.concat([SERIES] * minutes, ignore_index=True)
    table = table.assign(time=times.repeat(len(SERIES)), value=values.ravel(), interval_s=0)
    return checked(table[list(DTYPES)].astype(DTYPES))
