"""From the stores to the picture's file: what the asset and the command have in common."""

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd

from aiseg2_pipeline.japan_time import HOUR, day_start
from aiseg2_pipeline.report import NoReadings, ReportError
from aiseg2_pipeline.report.day import HOURS_A_DAY, Day, by_minute, day_of_frames
from aiseg2_pipeline.store import EnergyStore, Store

NO_MATPLOTLIB = (
    "The picture of a day needs matplotlib: install the extra `report` (pip install 'aiseg2-pipeline[report]')."
)


@dataclass(frozen=True)
class Report:
    """A picture that was written, and the numbers that it shows."""

    day: Day
    png: bytes
    path: Path


def installed() -> bool:
    """Return whether pictures can be drawn here; nothing is imported for it."""
    return importlib.util.find_spec("matplotlib") is not None


def report_path(data_dir: Path, day: date) -> Path:
    """Return where the picture of a day is kept."""
    return data_dir / "reports" / f"{day}.png"


def save_report(store: Store, energy: EnergyStore, day: date, now: datetime, path: Path, *, demo: bool) -> Report:
    """Draw the day in Japan as it is known at `now` and write it to `path`; a `demo` says in the picture that it is one.

    Raise NoReadings where there is nothing to draw, another ReportError where it cannot be drawn or written, StoreError.
    """
    if not installed():
        raise ReportError(NO_MATPLOTLIB)
    start = day_start(day)
    # Hour by hour: with twelve readings a minute, the rows of a whole day would take too much memory.
    hours = [start + n * HOUR for n in range(HOURS_A_DAY)]
    minutes = pd.concat([by_minute(store.read(hour, hour + HOUR)) for hour in hours], ignore_index=True)
    if minutes.empty:
        raise NoReadings(f"There is no reading of {day}, so no picture of it is drawn: choose another day.")
    known = day_of_frames(day, minutes, energy.read(start, start + timedelta(days=1)), now)
    png = _drawn(known, store.path.parent, demo=demo)
    _write(png, path)
    return Report(known, png, path)


def _drawn(day: Day, data_dir: Path, *, demo: bool) -> bytes:
    # Its list of fonts; elsewhere, a service may not be allowed to write, and the list would be made for each picture.
    os.environ["MPLCONFIGDIR"] = os.environ.get("MPLCONFIGDIR") or str(data_dir / "matplotlib")
    # Here and not above: see the package.
    from aiseg2_pipeline.report.picture import draw  # noqa: PLC0415 - as said above

    return draw(day, demo=demo)


def _write(png: bytes, path: Path) -> None:
    """Write the file, whole or not at all."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # On the same disk, so that it can take the old one's place.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".report-") as folder:
            part = Path(folder, "part.png")
            part.write_bytes(png)
            part.replace(path)
    except OSError as error:
        raise ReportError(
            f"The picture cannot be written to {path} ({error.strerror}): free space, or let this user write there."
        ) from None
