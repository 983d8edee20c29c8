"""The Grafana dashboards on a year of minutes: time per panel, and InfluxDB's memory for it.

A real server gets the minutes of 37 series, the coverage of their hours, and the hourly energy of the same time and of the year before. It is
restarted before each panel, whose queries then run one after the other with the dashboard's default settings. Memory is
the server's peak above its memory after the restart. A panel without any value is marked as empty; none should be.

    python -m benchmarks.dashboards [--days 365]
"""

import argparse
import itertools
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import requests

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import DTYPES, Row
from aiseg2_pipeline.influxdb.line_protocol import coverage_lines, energy_lines, lines
from aiseg2_pipeline.store.coverage import HourCoverage
from aiseg2_pipeline_tests.support.dashboards import Query, View, execute, queries
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from benchmarks import home
from benchmarks.side import markdown, say

# Midnight in Japan.
START = datetime(2024, 12, 31, 15, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
CIRCUITS = 28
BUCKET = "dashboards"
FLOW = {"総発電電力": "太陽光", "総消費電力": "蓄電池", "売買電力": "系統"}
LONGEST_S = 300


def minutes(day: datetime) -> pd.DataFrame:
    """Return a day's readings frame of 37 series; an hour is filled, and ten minutes are missing."""
    table = home.readings(day)
    table["time"] += timedelta(seconds=4)
    number = pd.to_numeric(table["name"].str.removeprefix("回路"), errors="coerce")
    charge = table[number == CIRCUITS + 1].assign(kind="battery", name="充電率", unit="%")
    state = table[number == CIRCUITS + 2].assign(kind="battery", name="状態", unit="")
    flow = table[table["kind"] == "total"].assign(kind="flow")
    table = pd.concat(
        [
            flow.assign(name=flow["name"].map(FLOW)),
            table[~(number > CIRCUITS)],
            charge.assign(value=charge["value"] % 100),
            state.assign(value=state["value"] % 3),
        ]
    )
    of_day = table["time"] - day
    is_filled = (of_day > 3 * HOUR) & (of_day < 4 * HOUR) & ~table["kind"].isin(["battery", "flow"])
    table.loc[is_filled, "time"] -= timedelta(seconds=4)
    table.loc[is_filled, "interval_s"] = 1800
    return table[(of_day < 5 * HOUR) | (of_day > 5 * HOUR + timedelta(minutes=10))].astype(DTYPES)


def hours(day: datetime) -> pd.DataFrame:
    """Return a day's energy frame: four totals and the circuits by the hour, and the day's cost."""
    random = np.random.default_rng(int(day.timestamp()))
    series = [(kind, kind) for kind in ("generation", "consumption", "bought", "sold")]
    series += [(energy.USAGE, str(n)) for n in range(1, CIRCUITS + 1)]
    rows = [
        energy.interval(day + n * HOUR, kind, name, float(random.integers(1, 1000)), energy.HOUR_S)
        for n, (kind, name) in itertools.product(range(24), series)
    ]
    rows += [Row(day, energy.DAILY_COST, name, 100.0, "yen", energy.DAY_S) for name in ("bought", "sold")]
    return energy.frame(rows)


def coverage(day: datetime) -> list[HourCoverage]:
    """Return the coverage of the hours of `minutes`."""
    minutes_of = {3: (0, 60, 0), 5: (50, 0, 10)}
    return [HourCoverage(day + n * HOUR, *minutes_of.get(n, (60, 0, 0))) for n in range(24)]


def write(server: InfluxServer, days: int) -> int:
    """Fill the bucket and return the number of readings."""
    rows = 0
    for n in range(-365, days):
        day = START + n * DAY
        points = energy_lines(hours(day), lambda circuit_id, _: f"回路{circuit_id}")
        if n >= 0:
            table = minutes(day)
            rows += len(table)
            points += [*lines(table), tuple(coverage_lines(coverage(day)))]
        requests.post(
            f"{server.url}/api/v2/write",
            params={"org": server.org, "bucket": BUCKET},
            headers={"Authorization": f"Token {server.token}"},
            data="\n".join(itertools.chain.from_iterable(points)).encode(),
            timeout=60,
        ).raise_for_status()
        if n % 30 == 0:
            say(f"day {n} of {days} is written …")
    return rows


def memory_mb(server: InfluxServer, what: str) -> float:
    """Return the server's current (`VmRSS`) or peak (`VmHWM`) resident memory."""
    found = re.search(rf"{what}:\s*(\d+) kB", Path(f"/proc/{server.pid}/status").read_text(encoding="ascii"))
    if found is None:
        raise OSError(f"/proc has no {what}: measure on Linux")
    return int(found[1]) / 1024


def measured(server: InfluxServer, panel: Sequence[Query]) -> tuple[str, str]:
    """Return a panel's time and memory."""
    # Go keeps the memory of earlier queries.
    server.stop()
    server.start()
    before = memory_mb(server, "VmRSS")
    # Resets VmHWM.
    Path(f"/proc/{server.pid}/clear_refs").write_text("5", encoding="ascii")
    started = time.perf_counter()
    try:
        answers = [execute(server, query.flux, LONGEST_S) for query in panel]
        took = f"{time.perf_counter() - started:.2f} s"
    except requests.Timeout:
        return f"> {LONGEST_S} s", ""
    if not any(answer["_value"].notna().any() for answer in answers):
        took += " (empty)"
    return took, f"{memory_mb(server, 'VmHWM') - before:.0f} MB"


def panels(view: View) -> Iterator[tuple[str, list[Query]]]:
    """Yield each panel's name and queries."""
    chosen = (query for query in queries(view, BUCKET) if query.as_opened)
    for name, of_panel in itertools.groupby(
        chosen, key=lambda query: f"{query.dashboard}: {query.panel['title']}"
    ):
        yield name, list(of_panel)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    days = parser.parse_args().days
    end = START + days * DAY
    ranges = sorted({1, min(30, days), days})
    with (
        tempfile.TemporaryDirectory() as folder,
        InfluxServer(Path(folder) / "influxdb", token=secrets.token_hex()) as server,
    ):
        server.create_bucket(BUCKET)
        started = time.perf_counter()
        rows = write(server, days)
        say(f"{rows:,} readings were written in {time.perf_counter() - started:.0f} s.")
        table: dict[str, list[str]] = {}
        for length in ranges:
            for name, panel in panels(View(end - length * DAY, end, end)):
                took = measured(server, panel)
                say(f"{length} d: {name}: {', '.join(took)}")
                table.setdefault(name, [name]).extend(took)
    head = ("panel", *(text for length in ranges for text in (f"{length} d", "memory")))
    print(markdown(head, table.values()))


if __name__ == "__main__":
    main()
