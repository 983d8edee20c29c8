"""Run the pipeline for an hour under faults: memory, files, sockets and disk must not grow, and no minute may be lost.

`aiseg2-pipeline run`, a simulated device and the real InfluxDB are processes of their own, the last two with randomly
injected faults. Every few minutes there is an outage (`soak_parts`): InfluxDB or the device stops or hangs for a while, a
run is killed with `kill -9`, in the first 40 % each service and the main process as well, or a fill is launched from the
pages. This process restarts the pipeline when it has ended. In the end all processes are stopped, and the store and
InfluxDB are compared with the household (`soak_record`).

Growth is checked from ten minutes after the last start on, when the services have done everything once, if at least a
quarter of an hour is left. The exit code is 1 for any problem. Linux only.

    python -m benchmarks.soak [--minutes 60] [--seed N] [--fault-rate 0.05] [--out DIR]
"""

import argparse
import random
import re
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from aiseg2_pipeline_tests.support.running_pipeline import Pages
from benchmarks import vitals
from benchmarks.minute_run import free_port
from benchmarks.processes import Tree
from benchmarks.side import markdown, say
from benchmarks.soak_parts import Part, Parts, plan
from benchmarks.soak_record import Account, account

SAMPLE_S = 10
SAID_S = 300
FIRST_READING_S = 180
SETTLE_S = 900
LAUNCH_AGAIN_S = 120
WARM_S = 600
JUDGED_S = 900
HOUSEHOLD = 1
ORG, BUCKET = "home", "soak"
SERVICES = ("supervisor", "daemon", "code server", "webserver", "forkserver", "resource tracker")
# Processes that do not belong to the pipeline.
STAGE = ("simulator", "InfluxDB")
# The most growth in an hour. Dagster's home grows by each run, and the readings by each minute.
MOST_AN_HOUR = {"own MB": 6.0}
# The most that may be added at all: first uses, such as of another of Dagster's files, which is three open ones.
MOST_ADDED = {"files": 3.0, "sockets": 3.0, "threads": 2.0}
HOME_KB_A_RUN = 110.0
DATA_KB_A_MINUTE = 12.0
# A fill can store days at once, at any time of the hour.
DATA_KB_A_FILLED_ROW = 0.04
MOST_WAL_MB = 30.0
HANGING_S = 300
_UNFINISHED = """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
    ... on Runs { results { jobName status creationTime } } } }"""
_COUNT = "{ runsOrError { ... on Runs { count } } }"


def main() -> None:
    """Run the soak, print the tables and the problems, and exit with 1 if there is any."""
    if sys.platform != "linux":
        raise SystemExit("This benchmark reads processes from Linux's /proc: run it on Linux.")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="the same seed, the same faults"
    )
    parser.add_argument(
        "--fault-rate", type=float, default=0.05, help="of each request to the device and to InfluxDB"
    )
    parser.add_argument("--every-s", type=float, default=150, help="the mean time between two outages")
    parser.add_argument(
        "--out", type=Path, help="a folder for logs, samples and a picture (default: none are kept)"
    )
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        # All processes are stopped at exit.
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        folder = options.out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        wrong = soak(options, folder.resolve())
    raise SystemExit(1 if wrong else 0)


def soak(options: argparse.Namespace, folder: Path) -> list[str]:
    """Run the soak in an empty folder; return a sentence for each problem."""
    say(f"seed {options.seed}, {options.minutes:g} minutes, faults at {options.fault_rate:g} of all requests")
    chance = random.Random(options.seed)  # noqa: S311 - a seed repeats it
    data, token = folder / "data", secrets.token_hex()
    samples: list[vitals.Sample] = []
    with Tree() as tree:
        parts = prepared(options, folder, token, tree, chance)
        try:
            parts.start()
            began = first_reading(data)
            parts.began = time.monotonic()
            parts.starts_s[:] = [0.0]
            hour(parts, plan(chance, options.minutes, options.every_s), options.minutes * 60, data, samples)
            settle(parts, data, samples)
            hanging = unfinished(parts.pages)
            runs = parts.pages.ask(_COUNT)["runsOrError"]["count"]
        finally:
            codes = {part.name: part.stop() for part in (parts.pipeline, parts.unit, parts.influx)}
        ended = datetime.now(UTC).replace(second=0, microsecond=0)
        say("all processes have stopped; comparing with the household")
        destination = Destination(parts.influx_host, ORG, BUCKET)
        log = parts.pipeline.log.read_text(encoding="utf-8", errors="replace")
        with InfluxServer(folder / "influxdb", org=ORG, token=token) as server:
            record = account(data, Household(HOUSEHOLD), server, destination, began, ended, log)
    vitals.save(samples, folder / "samples.csv")
    vitals.draw(samples, parts.events, folder / "memory.png")
    wrong = [*record.wrong, *hanging, *left_over(codes, log), *growth(samples, parts.starts_s[-1], runs, record)]
    print("\n".join(report(parts, samples, record, runs, options, wrong)))
    return wrong


def prepared(options: argparse.Namespace, folder: Path, token: str, tree: Tree, chance: random.Random) -> Parts:
    """Return the three parts without starting them."""
    unit_port, influx_port, ui_port = free_port(), free_port(), free_port()
    faults = (
        ["--fault-rate", str(options.fault_rate), "--fault-seed", str(options.seed)] if options.fault_rate else []
    )
    unit = Part(
        "unit",
        folder,
        {},
        *("aiseg2_pipeline.cli", "simulate", "--port", str(unit_port), "--seed", str(HOUSEHOLD)),
        *("--latency-ms", "50", *faults),
    )
    influx = Part(
        "InfluxDB",
        folder,
        {},
        *("aiseg2_pipeline_tests.support.influxdb", "--port", str(influx_port), "--org", ORG, "--bucket", BUCKET),
        *("--token", token, "--data", str(folder / "influxdb"), *faults),
    )
    # Past hours to fill, so that there are background runs.
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    settings = {
        "AISEG2_HOST": f"127.0.0.1:{unit_port}",
        "AISEG2_USER": DEFAULT_USER,
        "AISEG2_PASSWORD": DEFAULT_PASSWORD,
        "AISEG2_DATA_DIR": str(folder / "data"),
        "AISEG2_START_DATE": str(yesterday),
        "AISEG2_UI_PORT": str(ui_port),
        "AISEG2_PAGE_PORT": str(free_port()),
        "INFLUXDB_HOST": f"127.0.0.1:{influx_port}",
        "INFLUXDB_TOKEN": token,
        "INFLUXDB_ORG": ORG,
        "INFLUXDB_BUCKET": BUCKET,
    }
    pipeline = Part("pipeline", folder, settings, "aiseg2_pipeline.cli", "run")
    return Parts(
        unit, influx, pipeline, tree, Pages(f"http://127.0.0.1:{ui_port}"), chance, settings["INFLUXDB_HOST"]
    )


def first_reading(data: Path) -> datetime:
    """Wait for the first reading; return the minute after it, where the record begins."""
    end = time.monotonic() + FIRST_READING_S
    while not (data / "readings.sqlite").exists() or not readings_in(data):
        if time.monotonic() > end:
            raise SystemExit("No reading has been taken: see pipeline.log.")
        time.sleep(0.5)
    return datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)


def readings_in(data: Path) -> bool:
    """Return whether there is a reading."""
    try:
        with Store.open(data / "readings.sqlite") as store:
            return store.last_time() is not None
    except StoreError:
        return False


def hour(
    parts: Parts, planned: list[tuple[float, str]], length_s: float, data: Path, samples: list[vitals.Sample]
) -> None:
    """Start the planned outages, and take a sample every ten seconds."""
    said_s = 0.0
    while (at_s := parts.at_s) < length_s:
        while planned and planned[0][0] <= at_s:
            parts.start_event(planned.pop(0)[1])
        if not samples or at_s >= samples[-1].at_s + SAMPLE_S:
            samples.append(vitals.sample(parts.tree, data, at_s))
            # A viewer: Dagster's pages take their memory when they are first opened.
            parts.pages.served()
        if at_s >= said_s:
            said_s += SAID_S
            total = sum(one.pss_mb for role, one in samples[-1].by_role.items() if role in SERVICES)
            say(f"{at_s / 60:5.1f} min  {total:.0f} MB in all services, {len(parts.events)} events so far")
        parts.tend()
        time.sleep(0.2)


def settle(parts: Parts, data: Path, samples: list[vitals.Sample]) -> None:
    """End the outages, and wait until no row is pending for InfluxDB; the record names rows that stay pending."""
    parts.end_events()
    end = time.monotonic() + SETTLE_S
    destination = Destination(parts.influx_host, ORG, BUCKET)
    say("waiting until no row is pending for InfluxDB")
    launched_s = -float(LAUNCH_AGAIN_S)
    while time.monotonic() < end:
        parts.tend()
        if not samples or parts.at_s >= samples[-1].at_s + SAMPLE_S:
            samples.append(vitals.sample(parts.tree, data, parts.at_s))
        with Store.open(data / "readings.sqlite") as store, EnergyStore.open(data / "energy.sqlite") as energy:
            pending, pending_energy = store.pending_count(destination), energy.pending_count(destination)
        if pending_energy and parts.at_s >= launched_s + LAUNCH_AGAIN_S:
            # Otherwise the run of the next hour writes it.
            launched_s = parts.at_s
            parts.launch("energy_day", day_key(datetime.now(UTC)))
        # Between two minutes' runs, so that the last one is not cut off.
        if not pending and not pending_energy and 30 < time.time() % 60 < 55:  # noqa: PLR2004 - seconds of a minute
            return
        time.sleep(1)


def unfinished(pages: Pages) -> list[str]:
    """Return a sentence for each run that takes too long."""
    now = time.time()
    return [
        f"a run of {run['jobName']} is {run['status']} since {(now - run['creationTime']) / 60:.0f} minutes"
        for run in pages.ask(_UNFINISHED)["runsOrError"]["results"]
        if now - run["creationTime"] > HANGING_S
    ]


def left_over(codes: dict[str, int], log: str) -> Iterator[str]:
    """Yield a sentence for each part that failed at its end, and for each traceback in the output."""
    for name, code in codes.items():
        if code:
            yield f"{name} ended with exit code {code}"
    for line in set(re.findall(r"Traceback.*", log)):
        yield f"the pipeline's output has a traceback: {line}"


def growth(samples: Sequence[vitals.Sample], last_start_s: float, runs: int, record: Account) -> Iterator[str]:
    """Yield a sentence for each measure that grows too much."""
    since_s, end_s = last_start_s + WARM_S, samples[-1].at_s
    hours = end_s / vitals.HOUR_S
    filled_kb = DATA_KB_A_FILLED_ROW * record.compared.get("filled rows", 0)
    most = {
        "data directory": (DATA_KB_A_MINUTE * vitals.MINUTE_S + filled_kb / hours) / 1000,
        "Dagster's home": HOME_KB_A_RUN * runs / hours / 1000,
    }
    for line in vitals.lines(samples):
        if line.name == "write-ahead logs" and line.peak > MOST_WAL_MB:
            yield f"the write-ahead logs reach {line.peak:.0f} MB: the limit is {MOST_WAL_MB:.0f}"
        if end_s - since_s < JUDGED_S:
            continue
        may = most.get(line.name, MOST_AN_HOUR.get(line.measure) if line.name in SERVICES else None)
        grows = line.growth_an_hour(since_s)
        if may is not None and grows is not None and grows > may:
            yield f"{line.name}: {line.measure} grow by {grows:.2f} an hour: the limit is {may:g}"
        if line.name in SERVICES and line.measure in MOST_ADDED:
            added, most_added = (line.at(end_s) or 0) - (line.at(since_s) or 0), MOST_ADDED[line.measure]
            if added > most_added:
                yield f"{line.name}: {added:g} {line.measure} more than before: the limit is {most_added:g}"


def report(
    parts: Parts,
    samples: Sequence[vitals.Sample],
    record: Account,
    runs: int,
    options: argparse.Namespace,
    wrong: Sequence[str],
) -> Iterator[str]:
    """Yield the lines of the tables and of the problems, in Markdown."""
    length_s = options.minutes * vitals.MINUTE_S
    marks = [vitals.AROUND_S, *(share * length_s / 4 for share in (1, 2, 3, 4))]
    since_s = parts.starts_s[-1] + WARM_S
    yield f"Seed {options.seed}, {options.minutes:g} minutes; *an hour* is from minute {since_s / 60:.0f} on."
    yield ""
    yield vitals.table([line for line in vitals.lines(samples) if line.name not in STAGE], marks, since_s)
    yield ""
    yield markdown(
        ["minutes", "live", "filled", "reported missing", "of the running hour, missing"],
        [["", *map(str, (record.live, record.filled, record.missing, record.running_hour))]],
    )
    yield ""
    yield f"{record.reported} readings were reported as taken, and compared with the store."
    yield f"Compared with the household: {', '.join(f'{count} {what}' for what, count in record.compared.items())}."
    yield ""
    yield f"{runs} runs, {len(parts.starts_s)} starts. What happened:"
    yield from (f"- {at_s / 60:.1f} min: {what}" for at_s, what in parts.events)
    yield ""
    yield "No problem was found." if not wrong else "Problems:"
    yield from (f"- {sentence}" for sentence in wrong)


if __name__ == "__main__":
    main()
