"""Frames with known numbers for the tests of the daily report."""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta

import pandas as pd

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES, checked
from aiseg2_pipeline.japan_time import day_start
from aiseg2_pipeline.report.day import Day, by_minute, day_of_frames

DAY = date(2026, 7, 14)
START = day_start(DAY)
LATER = datetime(2026, 8, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
ALL_DAY = range(24)
HOME = {"エアコン": 600.0, "冷蔵庫": 60.0}


def readings(
    hours: Collection[int] = ALL_DAY,
    *,
    generation_kw: float | None = 1.5,
    consumption_kw: float = 1.0,
    circuits_w: Mapping[str, float] = HOME,
    filled: Collection[int] = (),
) -> pd.DataFrame:
    """Return a reading with the same numbers for each minute of these hours; `filled` hours are hourly means."""
    values = [("total", TOTAL_CONSUMPTION, consumption_kw, "kW")]
    values.append(("total", TOTAL_EXCHANGE, (generation_kw or 0.0) - consumption_kw, "kW"))
    if generation_kw is not None:
        values.append(("total", TOTAL_GENERATION, generation_kw, "kW"))
    values += [("usage", name, power_w, "W") for name, power_w in circuits_w.items()]
    minutes = pd.DataFrame({"time": [START + hour * HOUR + n * MINUTE for hour in hours for n in range(60)]})
    minutes["interval_s"] = [3600 if hour in filled else 0 for hour in hours for _ in range(60)]
    series = pd.DataFrame(values, columns=["kind", "name", "value", "unit"])
    return checked(minutes.merge(series, how="cross")[COLUMNS].astype(DTYPES))


def device_energy(hours: Collection[int] = ALL_DAY, **wh: float) -> pd.DataFrame:
    """Return the same Wh for each of these hours, by series."""
    return energy.frame(
        energy.interval(START + hour * HOUR, kind, kind, value, 3600)
        for hour in hours
        for kind, value in wh.items()
    )


def day_of(table: pd.DataFrame | None = None, measured: pd.DataFrame | None = None, now: datetime = LATER) -> Day:
    """Return the day of these readings and of the device's energy."""
    minutes = by_minute(readings() if table is None else table)
    return day_of_frames(DAY, minutes, device_energy() if measured is None else measured, now)
