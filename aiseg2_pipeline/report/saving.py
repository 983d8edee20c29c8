"""Draw a day from the stores and write the picture's file, for the asset and the command."""

import importlib.util
import os
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd

from aiseg2_pipeline.frames.energy import COST
from aiseg2_pipeline.japan_time import HOUR, day_start
from aiseg2_pipeline.report import NoReadings, ReportError
from aiseg2_pipeline.report.day import HOURS_A_DAY, Day, by_minute, day_of_frames
from aiseg2_pipeline.small_files import replace_bytes
from aiseg2_pipeline.store import EnergyStore, Store

NO_MATPLOTLIB = "The picture of a day needs the extra `report`: start with `make run EXTRAS=report` (pipx and uv: see docs/installation.md)."


@dataclass(frozen=True)
class Report:
    """A written picture and its numbers."""

    day: Day
    png: bytes
    path: Path


def installed() -> bool:
    """Return whether matplotlib is installed, without importing it."""
    return importlib.util.find_spec("matplotlib") is not None


def report_path(data_dir: Path, day: date) -> Path:
    """Return the path of a day's picture."""
    return data_dir / "reports" / f"{day}.png"


def save_report(
    store: Store, energy: EnergyStore, day: date, now: datetime, path: Path, *, demo: bool, cost: bool
) -> Report:
    """Draw the day in Japan as of `now` and write it to `path`; `demo` marks the picture as a demo, `cost` adds yen.

    Raise NoReadings for a day without a reading, ReportError if it cannot be drawn or written, and StoreError.
    """
    if not installed():
        raise ReportError(NO_MATPLOTLIB)
    start = day_start(day)
    # By the hour: with twelve readings a minute, a whole day's rows would take too much memory.
    hours = [start + n * HOUR for n in range(HOURS_A_DAY)]
    minutes = pd.concat([by_minute(store.read(hour, hour + HOUR)) for hour in hours], ignore_index=True)
    if minutes.empty:
        raise NoReadings(f"There is no reading of {day}, so no picture of it is drawn: choose another day.")
    table = energy.read(start, start + timedelta(days=1))
    # Costs of a tariff that is no longer set stay in the store.
    known = day_of_frames(day, minutes, table if cost else table[table["kind"] != COST], now)
    # For the cached list of fonts: a service may not write elsewhere, and would rebuild the list for each picture.
    os.environ["MPLCONFIGDIR"] = os.environ.get("MPLCONFIGDIR") or str(store.path.parent / "matplotlib")
    from aiseg2_pipeline.report.picture import draw  # noqa: PLC0415 - matplotlib is large, and an extra

    png = draw(known, demo=demo)
    try:
        replace_bytes(path, png)
    except OSError as error:
        raise ReportError(
            f"The picture cannot be written to {path} ({error.strerror}): free disk space, or let this user write there."
        ) from None
    return Report(known, png, path)
