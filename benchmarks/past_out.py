"""Let years of readings go out to InfluxDB beside live minutes: the past must not delay a minute, and all of it must arrive.

A store is filled with days of 34 series, all of them pending. Then `aiseg2-pipeline run` reads a simulated device and
writes to a real InfluxDB. It prints how long after its reading each live minute was in InfluxDB, how fast the past went
out, and what both sides cost. In the end the sums of each series and day are compared; the exit code is 1 if they differ.

    python -m benchmarks.past_out [--days 365] [--minutes 10]
"""

import argparse
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.influxdb.line_protocol import series_tags
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store import Destination, Store
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from aiseg2_pipeline_tests.support.running_pipeline import free_ports, started
from benchmarks.home import readings
from benchmarks.processes import Tree
from benchmarks.side import markdown, say

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BUCKET = "past"
# Of the 45 series of `home`.
SERIES = 34
LIVE = "総消費電力"
POLL_S, SAY_S = 0.2, 60.0
NEWEST = f"""from(bucket: "{BUCKET}") |> range(start: -2m)
    |> filter(fn: (r) => r._measurement == "power" and r.summary == "{LIVE}(kW)") |> last() |> keep(columns: ["_time"])"""
SUMS = """from(bucket: "{bucket}") |> range(start: {start}, stop: {end}) |> filter(fn: (r) => r._measurement == "power")
    |> reduce(identity: {{n: 0, sum: 0.0}}, fn: (r, accumulator) =>
        ({{n: accumulator.n + 1, sum: accumulator.sum + r._value}}))"""


def fill(path: Path, start: datetime, days: int) -> None:
    """Store these days as live readings."""
    with Store.open(path) as store:
        for n in range(days):
            table = readings(start + n * DAY)
            names = table["name"].unique()[:SERIES]
            store.upsert(table[table["name"].isin(names)].reset_index(drop=True))
            if n % 30 == 0:
                say(f"{n} of {days} days are stored …")


@dataclass
class Course:
    """How long after its reading (s) each live minute was in InfluxDB, and when (s) the past was acknowledged."""

    late_s: list[float] = field(default_factory=list)
    past_s: float = 0.0


def watched(server: InfluxServer, path: Path, destination: Destination, minutes: int) -> Course:
    """Return the course until the past and so many live minutes are in InfluxDB."""
    course, seen, began = Course(), None, time.monotonic()
    said = began
    while not course.past_s or len(course.late_s) < minutes:
        newest = [record["_time"] for record in server.query(NEWEST)]
        if newest and newest[0] != seen:
            # The first one may be older than this process.
            course.late_s += [time.time() - newest[0].timestamp()] if seen else []
            seen = newest[0]
        if time.monotonic() - said > SAY_S:
            said = time.monotonic()
            with Store.open(path) as store:
                pending = store.pending_count(destination)
            say(f"{pending} hours are pending, {len(course.late_s)} live minutes were seen …")
            if pending <= 1 and not course.past_s:
                course.past_s = said - began
        time.sleep(POLL_S)
    return course


def differences(server: InfluxServer, path: Path, start: datetime, days: int) -> Iterator[str]:
    """Yield the days whose numbers or sums of a series are not those of the store."""
    with Store.open(path) as store:
        for n in range(days):
            day = start + n * DAY
            table = store.read(day, day + DAY)
            ours = {
                tuple(sorted(series_tags(*map(str, series)).items())): (len(rows), round(rows["value"].sum(), 3))
                for series, rows in table.groupby(["kind", "name", "unit"])
            }
            span = {"start": day.isoformat(), "end": (day + DAY).isoformat()}
            theirs = {
                tuple(
                    sorted(
                        (name, record[name])
                        for name in ("summary", "detail-type", "detail-section")
                        if record.get(name)
                    )
                ): (
                    record["n"],
                    round(record["sum"], 3),
                )
                for record in server.query(SUMS.format(bucket=BUCKET, **span))
            }
            if ours != theirs:
                yield f"{day:%Y-%m-%d}: {len(ours)} series in the store, {len(theirs)} in InfluxDB, and they differ"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--minutes", type=int, default=10, help="live minutes at the least")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - options.days * DAY - HOUR
        path = folder / "data" / "readings.sqlite"
        path.parent.mkdir()
        fill(path, start, options.days)
        note_first_hour(path.with_name("first_partition"), start)
        device = stack.enter_context(running())
        tree = stack.enter_context(Tree())
        server = stack.enter_context(InfluxServer(folder / "influxdb", token=secrets.token_hex()))
        server.create_bucket(BUCKET)
        settings = {
            "AISEG2_HOST": device.address,
            "AISEG2_USER": device.user,
            "AISEG2_PASSWORD": device.password,
            "AISEG2_DATA_DIR": str(path.parent),
            "INFLUXDB_HOST": server.url.removeprefix("http://"),
            "INFLUXDB_TOKEN": server.token,
            "INFLUXDB_ORG": server.org,
            "INFLUXDB_BUCKET": BUCKET,
        }
        stack.enter_context(started(folder, settings | free_ports()))
        with tree.watch(1.0):
            destination = Destination(settings["INFLUXDB_HOST"], server.org, BUCKET)
            course = watched(server, path, destination, options.minutes)
        cpu_s = tree.cpu_s()
        roles = {role for _, megabytes in tree.memory for role in megabytes}
        peaks = {role: max(megabytes.get(role, 0.0) for _, megabytes in tree.memory) for role in sorted(roles)}
        wrong = list(differences(server, path, start, options.days))
    rows = options.days * 1440 * SERIES
    print(
        markdown(
            ("", ""),
            [
                ("rows of the past", f"{rows:,}"),
                ("until all were acknowledged, from the start on", f"{course.past_s / 60:.0f} min"),
                ("live minutes", str(len(course.late_s))),
                ("from reading to InfluxDB: median", f"{statistics.median(course.late_s):.1f} s"),
                ("from reading to InfluxDB: longest", f"{max(course.late_s):.1f} s"),
                *(
                    (f"{role}: CPU, most memory", f"{cpu_s[role]:.0f} s, {peak:.0f} MB")
                    for role, peak in peaks.items()
                ),
            ],
        )
    )
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
