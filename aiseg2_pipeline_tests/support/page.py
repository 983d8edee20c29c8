"""The household's page as a real process on a data directory of its own, and records for it to show."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.japan_time import day_start
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.running_pipeline import environment

STARTED_WITHIN_S = 30
# No device: nothing listens there.
HOME = {"AISEG2_HOST": "127.0.0.1:9", "AISEG2_PASSWORD": "unused"}


@dataclass
class Page:
    """A served page at `url`; its output is in `log`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, **options: Any) -> requests.Response:
        """Return the answer to a request, without following a redirect."""
        return requests.get(f"{self.url}{path}", timeout=30, allow_redirects=False, **options)

    def api(self, answer: str, status: int = 200, /, **query: Any) -> dict[str, Any]:
        """Return the JSON of an answer under /api/v1."""
        response = self.get(f"/api/v1/{answer}", params=query)
        assert response.status_code == status, response.text
        content: dict[str, Any] = response.json()
        return content


@contextmanager
def served(
    folder: Path, settings: Mapping[str, str] = HOME, *python: str, host: str = "127.0.0.1"
) -> Iterator[Page]:
    """Serve the page of the data directory `folder` until the block ends; `python` are options of the interpreter."""
    port, log = free_port(), folder.parent / "page.log"
    given = dict(settings) | {"AISEG2_DATA_DIR": str(folder), "AISEG2_PAGE_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, *python, "-m", "aiseg2_pipeline.web"],
            env=environment(given),
            stdout=output,
            stderr=output,
        )
    page = Page(f"http://{host}:{port}", process, log)
    try:
        end = time.monotonic() + STARTED_WITHIN_S
        while not _answers(page):
            assert time.monotonic() < end, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield page
    finally:
        process.terminate()
        process.wait(STARTED_WITHIN_S)


def _answers(page: Page) -> bool:
    try:
        return bool(page.get("/login").status_code)
    except requests.ConnectionError:
        return False


def settings_of(folder: Path, settings: Mapping[str, str] = HOME) -> Settings:
    return Settings.from_environment(dict(settings) | {"AISEG2_DATA_DIR": str(folder)})


def store_reading(folder: Path, at: datetime, **watts: float) -> None:
    """Store a reading of a home that buys, with these circuits in W."""
    total = sum(watts.values()) / 1000
    with Store.open(folder / "readings.sqlite") as store:
        store.upsert(
            frame(
                [
                    Row(at, "total", "総発電電力", 0.0, "kW", 0),
                    Row(at, "total", "総消費電力", total, "kW", 0),
                    Row(at, "total", "売買電力", -total, "kW", 0),
                    *(Row(at, "usage", name, value, "W", 0) for name, value in watts.items()),
                ]
            )
        )


def store_energy(folder: Path, hours: Iterable[datetime], **wh: float) -> None:
    """Store the same energy for each of these hours: `consumption`, `bought` and so on, or `usage_ID` of a circuit."""
    rows = []
    for hour in hours:
        for kind, value in wh.items():
            circuit = kind.removeprefix("usage_")
            rows.append(energy.interval(hour, "usage" if circuit != kind else kind, circuit, value, energy.HOUR_S))
    with EnergyStore.open(folder / "energy.sqlite") as store:
        store.upsert(energy.frame(rows))


def hours_of_day(day: date, count: int = 24) -> list[datetime]:
    return [day_start(day) + n * timedelta(hours=1) for n in range(count)]


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
