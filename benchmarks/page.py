"""The household's page: what its process takes, how fast it answers, and what its viewers cost the device.

The record has three years of hours, a week of minutes and a year of energy, of 45 series, and is in the page cache. The device
is the simulator's, with a battery, whose flow is a second request.

    python -m benchmarks.page [--seconds 60]
"""

import argparse
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import requests

from aiseg2_pipeline.frames.energy import HOUR_S
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.middleware import Tally
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store.schema import make_tables
from aiseg2_pipeline_tests.support.page import Page, served, utc_now
from benchmarks.home import SERIES
from benchmarks.side import markdown, median_s

YEARS, MINUTES_OF_DAYS, ENERGY_DAYS = 3, 8, 365
DAY_S, MINUTE_S = 86_400, 60
POLL_S = 5
VIEWERS = 5
REPEATS = 7
CIRCUIT = str(SERIES["name"].iloc[-1])
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
ENERGY_KINDS = ("generation", "consumption", "bought", "sold")


def make_record(folder: Path) -> None:
    """Write the stores."""
    now_s = int(utc_now().timestamp()) // HOUR_S * HOUR_S
    random = np.random.default_rng(1)
    numbers = range(1, len(SERIES) + 1)
    folder.mkdir()
    with closing(_store(folder / "readings.sqlite")) as store:
        rows = ((n, *row) for n, row in zip(numbers, SERIES.itertuples(index=False), strict=True))
        store.executemany("INSERT INTO series VALUES (?, ?, ?, ?)", rows)
        hours = range(now_s - YEARS * 365 * DAY_S, now_s, HOUR_S)
        store.executemany("INSERT INTO hours VALUES (?, 1, 60, 0, 0)", ((hour,) for hour in hours))
        store.executemany("INSERT INTO hourly VALUES (?, ?, 60, ?, 0, 3000)", _rows(random, hours, numbers, 60))
        minutes = range(now_s - MINUTES_OF_DAYS * DAY_S, now_s, MINUTE_S)
        store.executemany("INSERT INTO reading_rows VALUES (?, ?, ?, 0, 1)", _rows(random, minutes, numbers, 1))
        store.commit()
    with closing(_store(folder / "energy.sqlite")) as store:
        kinds = [(kind, kind) for kind in ENERGY_KINDS]
        kinds += [("usage", str(n)) for n in range(len(SERIES) - len(kinds))]
        rows = ((n, *kind, "Wh") for n, kind in zip(numbers, kinds, strict=True))
        store.executemany("INSERT INTO series VALUES (?, ?, ?, ?)", rows)
        hours = range(now_s - ENERGY_DAYS * DAY_S, now_s, HOUR_S)
        store.executemany("INSERT INTO reading_rows VALUES (?, ?, ?, 3600, 1)", _rows(random, hours, numbers, 1))
        store.commit()


def _store(path: Path) -> sqlite3.Connection:
    store = sqlite3.connect(path)
    store.execute("PRAGMA journal_mode = WAL")
    make_tables(store)
    return store


def _rows(
    random: np.random.Generator, times: range, numbers: range, factor: int
) -> Iterator[tuple[int, int, float]]:
    for start in times:
        for number, value in zip(numbers, random.integers(0, 3000, len(numbers)), strict=True):
            yield start, number, float(value) * factor


def answers(page: Page) -> dict[str, Callable[[], object]]:
    """Return the questions whose time is measured."""
    today = utc_now().date()
    year = {"start": str(today - timedelta(days=364)), "end": str(today + timedelta(days=1))}
    calendar = {"start": str(today - timedelta(days=3 * 365 - 1)), "end": year["end"]}
    yesterday = {"start": str(today - timedelta(days=1)), "end": str(today)}
    one = {"kind": "usage", "name": CIRCUIT}
    return {
        "now": partial(page.api, "now"),
        "a day of all circuits, by minute": partial(page.api, "series", kind="usage", **yesterday),
        "a year of one series, by hour": partial(page.api, "series", **one, **year),
        "a year of one series, 800 points": partial(page.api, "series", **one, **year, points=800),
        "a year of energy, by month": partial(page.api, "energy", by="month", **year),
        "a year of all circuits, by day": partial(page.api, "energy", by="day", circuits=1, **year),
        "a calendar of three years, by day": partial(page.api, "coverage", by="day", **calendar),
        "the summary of the record": partial(page.api, "record"),
    }


def pss_mb(page: Page) -> float:
    """Return the memory of the process."""
    text = Path(f"/proc/{page.process.pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024


def cpu_s(page: Page) -> float:
    """Return the CPU time of the process so far."""
    fields = Path(f"/proc/{page.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS_A_SECOND


def watched(page: Page, viewers: int, seconds: float, tally: Tally) -> tuple[float, int]:
    """Look at the page as its script does; return the CPU time and the requests at the device, without logins."""
    over = threading.Event()
    before = cpu_s(page), _requests(tally)

    def look(number: int) -> None:
        with requests.Session() as browser:
            over.wait(POLL_S * number / viewers)
            while not over.is_set():
                browser.get(f"{page.url}/api/v1/now", params={"live": 1}, timeout=30).raise_for_status()
                over.wait(POLL_S)

    with ThreadPoolExecutor(viewers) as pool:
        looking = [pool.submit(look, number) for number in range(viewers)]
        time.sleep(seconds)
        over.set()
        for viewer in looking:
            viewer.result()
    return cpu_s(page) - before[0], _requests(tally) - before[1]


def _requests(tally: Tally) -> int:
    return tally.requests.total() - tally.refused


def measure(folder: Path, seconds: float) -> None:
    """Print the tables."""
    make_record(folder)
    rows: list[tuple[str, str]] = []
    with running(Household(battery=True)) as device:
        home = {"AISEG2_HOST": device.address, "AISEG2_USER": device.user, "AISEG2_PASSWORD": device.password}
        with served(folder, home) as page:
            rows.append(("memory at the start", f"{pss_mb(page):.1f} MB"))
            times = {name: median_s(answer, REPEATS) * 1e3 for name, answer in answers(page).items()}
            rows.append(("memory after all answers below", f"{pss_mb(page):.1f} MB"))
            time.sleep(1)
            before = cpu_s(page)
            time.sleep(seconds)
            rows.append(("CPU while nobody looks", f"{cpu_s(page) - before:.2f} s"))
            for viewers in (1, VIEWERS):
                taken_s, sent = watched(page, viewers, seconds, device.tally)
                rows.append((f"CPU with {viewers} looking", f"{taken_s:.2f} s"))
                rows.append((f"requests at the device with {viewers} looking", str(sent)))
            for answer in answers(page).values():
                answer()
            rows.append(("memory after all that", f"{pss_mb(page):.1f} MB"))
    print(markdown((f"the process, in {seconds:.0f} s", ""), rows))
    print()
    print(markdown(("an answer", "median"), [(name, f"{time_ms:.0f} ms") for name, time_ms in times.items()]))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long is looked at the page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder) / "data", arguments.seconds)


if __name__ == "__main__":
    main()
