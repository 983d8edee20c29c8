"""Compare the delivery of pending rows with influxdb-client's own writer of DataFrames: points per second and memory.

Both read the same rows from a store and write them to the real server, each from a process of its own. The
client's writer gets frames of as many rows as our requests have, and stores no acknowledgement. Afterwards both buckets
must have all points.

    python -m benchmarks.write_out [--days 1 30]
"""

import argparse
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS

from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.influxdb.delivery import deliver
from aiseg2_pipeline.store import Destination, Store
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from benchmarks.home import readings
from benchmarks.side import Cost, alone, markdown, say

START = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ROWS_A_REQUEST = 5_000
TIMEOUT_S = 60


@dataclass(frozen=True)
class Outlet:
    """A bucket, and a token for it."""

    url: str
    org: str
    token: str
    bucket: str


def ours(path: Path, outlet: Outlet, days: int) -> None:
    """Deliver all pending rows, as a run does."""
    destination = Destination(outlet.url, outlet.org, outlet.bucket)
    now = START + days * DAY
    with (
        Store.open(path) as store,
        InfluxWriter(outlet.url, outlet.token, outlet.org, outlet.bucket, timeout_s=TIMEOUT_S) as writer,
    ):
        deliver(
            store,
            writer,
            destination,
            now=now,
            batch_rows=ROWS_A_REQUEST,
        )


def client(path: Path, outlet: Outlet, days: int) -> None:
    """Write the same points, day by day, with influxdb-client's writer of frames."""
    with (
        Store.open(path) as store,
        InfluxDBClient(
            outlet.url, outlet.token, org=outlet.org, timeout=TIMEOUT_S * 1000, enable_gzip=True
        ) as influx,
        influx.write_api(SYNCHRONOUS) as write_api,
    ):
        for n in range(days):
            table = store.read(START + n * DAY, START + (n + 1) * DAY)
            label = table["name"] + "(" + table["unit"] + ")"
            total = table["kind"] == "total"
            points = table[["time", "value"]].assign(
                **{
                    "summary": label.where(total),
                    "detail-type": table["kind"].mask(total),
                    "detail-section": label.mask(total),
                }
            )
            for start in range(0, len(points), ROWS_A_REQUEST):
                write_api.write(
                    outlet.bucket,
                    record=points.iloc[start : start + ROWS_A_REQUEST],
                    data_frame_measurement_name="power",
                    data_frame_timestamp_column="time",
                    data_frame_tag_columns=["summary", "detail-type", "detail-section"],
                )


def count_of_points(server: InfluxServer, bucket: str) -> int:
    """Return how many points of `power` a bucket holds."""
    (record,) = server.query(
        f'from(bucket: "{bucket}") |> range(start: 0) |> filter(fn: (r) => r._measurement == "power")'
        " |> group() |> count()"
    )
    return int(record["_value"])


def measured(server: InfluxServer, path: Path, days: int) -> Iterator[Sequence[str]]:
    """Yield the rows of the table."""
    sides: dict[str, Callable[[Path, Outlet, int], None]] = {"the outbox": ours, "influxdb-client": client}
    costs: dict[str, Cost] = {}
    counts: dict[str, int] = {}
    for name, side in sides.items():
        say(f"{days} days by {name} …")
        outlet = Outlet(server.url, server.org, server.token, f"{name}, {days} days")
        server.create_bucket(outlet.bucket)
        costs[name] = alone(side, path, outlet, days)
        counts[name] = count_of_points(server, outlet.bucket)
        server.drop_bucket(outlet.bucket)
    if len(set(counts.values())) > 1:
        raise SystemExit(f"The buckets do not have the same number of points: {counts}.")
    points = counts["the outbox"]
    for name, cost in costs.items():
        yield (
            f"{days} d: {name}",
            f"{points:,}",
            f"{points / cost.wall_s:,.0f}",
            f"{cost.wall_s:.1f} s",
            f"{cost.cpu_s:.1f} s",
            f"{cost.peak_mb:.0f} MB",
            f"{cost.peak_mb - cost.imports_mb:.0f} MB",
        )
    one, other = costs.values()
    yield (
        f"{days} d: ratio",
        "",
        f"{other.wall_s / one.wall_s:.2f}",
        f"{one.wall_s / other.wall_s:.2f}",
        f"{one.cpu_s / other.cpu_s:.2f}",
        f"{one.peak_mb / other.peak_mb:.2f}",
        f"{(one.peak_mb - one.imports_mb) / (other.peak_mb - other.imports_mb):.2f}",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, nargs="+", default=[1, 30])
    rows: list[Sequence[str]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        InfluxServer(Path(folder) / "influxdb", token=secrets.token_hex()) as server,
    ):
        for days in parser.parse_args().days:
            path = Path(folder) / f"{days}.sqlite"
            with Store.open(path) as store:
                for n in range(days):
                    store.upsert(readings(START + n * DAY))
            rows += measured(server, path, days)
    print(markdown(("pending", "points", "points/s", "wall", "CPU", "peak memory", "above imports"), rows))


if __name__ == "__main__":
    main()
