"""Measure the cost and the latency of a minute run: stock Dagster, and the pipeline without and with warm runs.

The pipeline is measured with Dagster's pages closed, opened and switched off.

It measures the CPU-seconds of all processes net of those when idle, tick → first request to the device, tick →
acknowledged by InfluxDB, and memory (PSS), one variant after the other on one machine. The processes of the device and
of InfluxDB do not count. All other schedules and sensors are off. Linux only.

Stock's daemon starts a new code server about once a minute, also when idle; its mean over all minutes counts as idle.

Each variant starts on an empty data directory and runs one minute that is not counted. Idle minutes and counted minutes begin at a fixed
second and never span a full hour, at which the device gets more requests. Libraries that this process maps as well count
as shared, so that memory is some MB too low, equally for all.

    python -m benchmarks.minute_run [--only NAME ...] [--minutes 5] [--idle-minutes 2] [--latency-ms 50]
"""

import argparse
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from benchmarks.pipelines import VARIANTS, Pipeline, Variant
from benchmarks.processes import STARTS
from benchmarks.side import say

MINUTE_S = 60
HOUR_S = 3600
# The runs that were active have ended by then.
SETTLE_S = 15
# Idle minutes end, the schedule is switched on, and at this second, when every run is over, the count begins and ends.
COUNT_AT_S = 50
IDLE_AT_S = 44
FIRST_RUN_S = 180
BASELINE = "stock-in-process"


class Arrivals(Counter[str]):
    """The device's count of requests, with the time of each (`at`, in Unix seconds)."""

    def __init__(self) -> None:
        """Start with no request."""
        super().__init__()
        self.at: list[float] = []

    def __setitem__(self, path: str, count: int) -> None:
        """Count a request and store its time."""
        super().__setitem__(path, count)
        self.at.append(time.time())


@dataclass
class Figures:
    """The measurements of a variant; CPU and memory by role, latencies in seconds after the tick, one a minute."""

    title: str
    minutes: int
    idle_cpu_s_a_minute: dict[str, float] = field(default_factory=dict)
    net_cpu_s_a_run: dict[str, float] = field(default_factory=dict)
    idle_mb: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    to_request_s: list[float] = field(default_factory=list)
    to_acknowledged_s: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)


def measure(
    variant: Variant, folder: Path, influx: Influx, *, idle_minutes: int, minutes: int, latency_s: float
) -> Figures:
    """Run one variant through its idle and its counted minutes."""
    figures = Figures(variant.title, minutes)
    with running(latency_s=latency_s) as unit:
        unit.tally.requests = arrivals = Arrivals()
        settings = {
            "AISEG2_HOST": unit.address,
            "AISEG2_USER": unit.user,
            "AISEG2_PASSWORD": unit.password,
            **influx.settings,
        }
        say(f"{variant.name}: starting")
        with Pipeline(variant, folder, free_port(), settings) as pipeline:
            say(f"{variant.name}: waiting for the first run")
            wait_for_first_run(pipeline, influx)
            pipeline.switch_all_off()
            first_tick = idle_and_count(pipeline, figures, idle_minutes, minutes)
            note_latencies(figures, first_tick, arrivals, influx)
            if missed := minutes - len(figures.to_acknowledged_s):
                say(f"{missed} of {minutes} minutes were not written: discard these figures. {pipeline.log_end()}")
    return figures


def wait_for_first_run(pipeline: Pipeline, influx: Influx) -> None:
    """Wait until a run has written points; that run, with empty caches, does not count."""
    end = time.monotonic() + FIRST_RUN_S
    while not acknowledged(influx):
        if time.monotonic() > end:
            raise SystemExit(f"No run has written points to InfluxDB. {pipeline.log_end()}")
        time.sleep(0.5)


def acknowledged(influx: Influx) -> list[tuple[float, float]]:
    """Return when each write was acknowledged, and the newest point in it (both in Unix seconds)."""
    return [
        (write.answered_at, max(int(line.rpartition(" ")[2]) for line in write.lines) / 1e9)
        for write in influx.proxy.requests
        if write.status == HTTPStatus.NO_CONTENT
    ]


def idle_and_count(pipeline: Pipeline, figures: Figures, idle_minutes: int, minutes: int) -> float:
    """Measure the idle cost, then the cost of the runs; return the first counted tick."""
    tree = pipeline.tree
    idle_at = idle_from(time.time() + SETTLE_S, (idle_minutes + 1 + minutes) * MINUTE_S)
    idle_end = idle_at + idle_minutes * MINUTE_S
    say(f"idle for {idle_minutes} minutes from {clock(idle_at)}")
    sleep_until(idle_at)
    with tree.watch():
        begun = tree.cpu_s()
        sleep_until(idle_end)
        idle = per(idle_minutes, tree.cpu_s(), begun)
        pipeline.switch_minute_on()
        count_at = next_at(COUNT_AT_S, time.time())
        say(f"one run a minute for {minutes} minutes from {clock(count_at)}")
        sleep_until(count_at)
        before = tree.cpu_s()
        sleep_until(count_at + minutes * MINUTE_S)
        after = tree.cpu_s()
    counted = per(minutes, after, before)
    # The number of these starts in a few minutes is random and must not count as the cost of a run.
    starts = (idle[STARTS] * idle_minutes + counted[STARTS] * minutes) / (idle_minutes + minutes)
    figures.idle_cpu_s_a_minute = {**idle, STARTS: starts}
    figures.net_cpu_s_a_run = per(1, {**counted, STARTS: starts}, figures.idle_cpu_s_a_minute)
    at_rest = sorted((mb for at, mb in tree.memory if at < idle_end), key=total)
    figures.idle_mb = at_rest[len(at_rest) // 2]
    figures.peak_mb = max((mb for at, mb in tree.memory if at >= count_at), key=total)
    return count_at + MINUTE_S - COUNT_AT_S


def idle_from(earliest: float, length: float) -> float:
    """Return a start with no full hour within `length`, because the device gets more requests then."""
    starts = next_at(IDLE_AT_S, earliest)
    if starts // HOUR_S != (starts + length) // HOUR_S and length < HOUR_S:
        starts = next_at(IDLE_AT_S, (starts + length) // HOUR_S * HOUR_S)
    return starts


def note_latencies(figures: Figures, first_tick: float, arrivals: Arrivals, influx: Influx) -> None:
    """Find each counted minute's first request, and the first acknowledged write with a point of that minute."""
    for tick in (first_tick + n * MINUTE_S for n in range(figures.minutes)):
        requested = [at - tick for at in arrivals.at if tick <= at < tick + MINUTE_S]
        written = [at - tick for at, newest in acknowledged(influx) if tick <= newest < tick + MINUTE_S]
        figures.requests.append(len(requested))
        figures.to_request_s += requested[:1]
        figures.to_acknowledged_s += written[:1]


def tables(measured: Mapping[str, Figures]) -> Iterator[str]:
    """Yield the lines of the table of variants, and of the tables of their processes."""
    yield "| variant | idle CPU-s a minute | net CPU-s a run | of stock in-process | tick → request s, median / worst | tick → acknowledged s | PSS MB idle | PSS MB peak | requests a run |"
    yield "|---|---|---|---|---|---|---|---|---|"
    baseline = measured.get(BASELINE)
    for figures in measured.values():
        net = total(figures.net_cpu_s_a_run)
        ratio = f"{net / total(baseline.net_cpu_s_a_run):.2f}" if baseline else "–"
        yield (
            f"| {figures.title} | {total(figures.idle_cpu_s_a_minute):.2f} | {net:.2f} | {ratio} "
            f"| {median_and_worst(figures.to_request_s)} | {median_and_worst(figures.to_acknowledged_s)} "
            f"| {total(figures.idle_mb):.0f} | {total(figures.peak_mb):.0f} "
            f"| {min(figures.requests)}–{max(figures.requests)} |"
        )
    for figures in measured.values():
        yield ""
        yield f"| {figures.title} | idle CPU-s a minute | net CPU-s a run | PSS MB idle | PSS MB at the peak |"
        yield "|---|---|---|---|---|"
        columns = (figures.idle_cpu_s_a_minute, figures.net_cpu_s_a_run, figures.idle_mb, figures.peak_mb)
        for role in sorted({role for column in columns for role in column}):
            cpu = " | ".join(f"{column.get(role, 0):.2f}" for column in columns[:2])
            memory = " | ".join(f"{column.get(role, 0):.0f}" for column in columns[2:])
            yield f"| {role} | {cpu} | {memory} |"


def median_and_worst(seconds: Sequence[float]) -> str:
    """Return the median and the maximum as a cell of the table."""
    return f"{statistics.median(seconds):.1f} / {max(seconds):.1f}" if seconds else "–"


def per(times: float, after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Return the difference by role, divided by `times`."""
    change: dict[str, float] = defaultdict(float)
    for role in {*after, *before}:
        change[role] = (after.get(role, 0) - before.get(role, 0)) / times
    return change


def total(by_role: Mapping[str, float]) -> float:
    """Return the sum of all roles."""
    return sum(by_role.values())


def next_at(second: float, not_before: float) -> float:
    """Return the next time at this second of a minute."""
    return not_before + (second - not_before) % MINUTE_S


def sleep_until(moment: float) -> None:
    """Sleep until a Unix time."""
    while (left_s := moment - time.time()) > 0:
        time.sleep(left_s)


def clock(moment: float) -> str:
    """Return a Unix time as text for a progress line."""
    return f"{datetime.fromtimestamp(moment, UTC):%H:%M:%S} UTC"


def free_port() -> int:
    """Return an unused port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def measure_all(options: argparse.Namespace, folder: Path, measured: dict[str, Figures]) -> None:
    """Measure the variants one after the other, into `measured`."""
    with InfluxServer(folder / "influxdb", token=secrets.token_hex()) as server:
        for variant in (variant for variant in VARIANTS if variant.name in options.only):
            (folder / variant.name).mkdir()
            with Influx(server, variant.name) as influx:
                measured[variant.name] = measure(
                    variant,
                    folder / variant.name,
                    influx,
                    idle_minutes=options.idle_minutes,
                    minutes=options.minutes,
                    latency_s=options.latency_ms / 1000,
                )


def main() -> None:
    """Measure the variants and print the tables."""
    if sys.platform != "linux":
        raise SystemExit("This benchmark reads CPU and memory from Linux's /proc: run it on Linux.")
    names = [variant.name for variant in VARIANTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--idle-minutes", type=int, default=2)
    parser.add_argument("--latency-ms", type=float, default=50)
    options = parser.parse_args()
    measured: dict[str, Figures] = {}
    try:
        with tempfile.TemporaryDirectory() as root:
            measure_all(options, Path(root), measured)
    finally:
        # After a failure, the variants measured so far are printed.
        print("\n".join(tables(measured)))


if __name__ == "__main__":
    main()
