"""Run the pipeline's container under its memory limit: a year in its store, a fill of 30 days, and pages open.

The service `pipeline` of docker-compose.yml runs on a real Docker engine, beside its InfluxDB and the simulator. Its store
has a year of live minutes, all of them pending; the last 30 days are empty, and are filled from the device. Meanwhile a
viewer looks at the household's page and at Dagster's. Memory is that of the container's cgroup: `anonymous` is what the
processes have allocated, `files` the cache of files, which the kernel drops when the limit is reached. The exit code is 1 if
a minute was not read, the fill did not end, a process was killed, or a container restarted or was not healthy. It needs
root, as the tests of the compose file do.

    python -m benchmarks.container_hour [--minutes 60] [--fill-days 30] [--limit 640m]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import requests

from aiseg2_pipeline.demo.rows import Past
from aiseg2_pipeline.gaps.find import hours_between
from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.japan_time import DAY, HOUR, MINUTE, hour_of
from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.docker_engine import (
    PIPELINE,
    DockerEngine,
    EngineMissingError,
    Stack,
    stand_ins,
)
from aiseg2_pipeline_tests.support.running_pipeline import Pages
from benchmarks.side import markdown, say

DAYS = 365
# The user of the image.
OWNER = 10001
LOOK_S, SAMPLE_S, SAY_S = 5.0, 10.0, 120.0
HEALTHY_WITHIN_S = 300
MARKS_MIN = (15, 30, 60)
SERVICES = ("pipeline", "influxdb", "simulator")
ENV = {
    "COMPOSE_PROFILES": "influxdb",
    "AISEG2_HOST": "simulator:8420",
    "AISEG2_USER": DEFAULT_USER,
    "AISEG2_PASSWORD": DEFAULT_PASSWORD,
    "INFLUXDB_HOST": "influxdb:8086",
    "INFLUXDB_TOKEN": "token-of-a-benchmark",
    "INFLUXDB_ORG": "home",
    "INFLUXDB_BUCKET": "power",
}
# Images made here, free ports, the simulator where the pipeline reaches it, and a data directory that is filled before.
OVERRIDE = """
services:
  pipeline: {{build: !reset null, image: "{ours}", ports: !override ["127.0.0.1::3000", "127.0.0.1::3080"]}}
  simulator: {{build: !reset null, image: "{ours}", networks: [default], profiles: !override [influxdb]}}
  influxdb: {{image: "{influxdb}", ports: !override ["127.0.0.1::8086"]}}
volumes:
  data: {{driver_opts: {{type: none, o: bind, device: "{data}"}}}}
"""
# What Dagster's pages of runs and of assets ask for.
RUNS = "{ runsOrError(limit: 25) { ... on Runs { results { runId jobName status tags { key value } } } } }"
ASSETS = "{ assetNodes { assetKey { path } partitionStats { numMaterialized numPartitions } } }"
# The files and fields of the kernel's cgroups, version 1 and 2.
V1 = "memory.max_usage_in_bytes", "memory.oom_control", "total_rss", "total_cache"
V2 = "memory.peak", "memory.events", "anon", "file"


class Memory(NamedTuple):
    """The memory of a cgroup in MB, and how many of its processes the kernel has killed."""

    anonymous_mb: float
    files_mb: float
    peak_mb: float
    kills: int


@dataclass(frozen=True)
class Sample:
    """A sample of the pipeline's container: when (s after the start), its memory, and the days that were filled."""

    at_s: float
    memory: Memory
    filled_days: int


def make_record(data: Path, now: datetime, fill_days: int) -> datetime:
    """Store a year of live minutes without the last days; return where these begin."""
    past, start, end = Past(Household(), now), hour_of(now) - DAYS * DAY, hour_of(now) - fill_days * DAY
    data.mkdir()
    with Store.open(data / "readings.sqlite") as store:
        store.record_circuits(past.circuits, start)
        # The same day again and again: computing each would take longer than storing it.
        day = pd.concat([past.minutes(start + n * HOUR) for n in range(24)], ignore_index=True)
        for n in range(DAYS - fill_days):
            store.add(day.assign(time=day["time"] + n * DAY))
            if n % 60 == 0:
                say(f"{n} of {DAYS - fill_days} days are stored …")
    note_first_hour(data / "first_partition", start)
    for path in (data, *data.iterdir()):
        os.chown(path, OWNER, OWNER)
    return end


def memory_of(pid: int) -> Memory:
    """Return the memory of the cgroup of a process."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines()
    groups = {controller: path for _, controller, path in (line.split(":", 2) for line in lines)}
    is_v1 = "memory" in groups
    peak, events, anonymous, files = V1 if is_v1 else V2
    folder = Path(f"/sys/fs/cgroup/memory{groups['memory']}" if is_v1 else f"/sys/fs/cgroup{groups['']}")

    def numbers(name: str) -> dict[str, int]:
        fields = (line.split() for line in (folder / name).read_text(encoding="ascii").splitlines())
        return {field: int(value) for field, value in fields}

    stat = numbers("memory.stat")
    peak_mb = int((folder / peak).read_text(encoding="ascii")) / 2**20
    return Memory(stat[anonymous] / 2**20, stat[files] / 2**20, peak_mb, numbers(events)["oom_kill"])


class Watched:
    """The stack while it is watched: its samples, and a sentence for each problem."""

    def __init__(self, stack: Stack) -> None:
        """Watch a stack that was just started."""
        self._stack = stack
        self._began = time.monotonic()
        self._browser = requests.Session()
        page, dagster = (stack.compose("port", "pipeline", port).strip() for port in ("3080", "3000"))
        self._page, self._dagster = f"http://{page}", Pages(f"http://{dagster}")
        self.samples: list[Sample] = []
        self.problems: dict[str, None] = {}

    @property
    def at_s(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self._began

    def watch(self, seconds: float) -> None:
        """Look at the pages as a browser does, and take samples."""
        sampled_s = said_s = -SAMPLE_S
        while self.at_s < seconds:
            self._look(dagster=self.at_s >= sampled_s + SAMPLE_S)
            if self.at_s >= sampled_s + SAMPLE_S:
                sampled_s = self.at_s
                self._sample()
            if self.samples and self.at_s >= said_s + SAY_S:
                said_s, last = self.at_s, self.samples[-1]
                say(
                    f"{last.at_s / 60:.0f} min: {last.memory.anonymous_mb:.0f} MB, {last.filled_days} days filled …"
                )
            time.sleep(LOOK_S)

    def _look(self, *, dagster: bool) -> None:
        try:
            self._browser.get(f"{self._page}/api/v1/now", params={"live": 1}, timeout=30).raise_for_status()
            if dagster:
                for query in (RUNS, ASSETS):
                    self._dagster.ask(query)
        except Exception as error:  # noqa: BLE001 - a page that is starting refuses in many ways
            if self.at_s > HEALTHY_WITHIN_S:
                self.problems[f"A page did not answer ({type(error).__name__})."] = None

    def _sample(self) -> None:
        states = {service: self._stack.inspect(service) for service in SERVICES}
        for service, state in states.items():
            health = state["State"]["Health"]["Status"]
            if state["RestartCount"]:
                self.problems[f"{service} restarted."] = None
            if health == "unhealthy" or (health == "starting" and self.at_s > HEALTHY_WITHIN_S):
                self.problems[f"{service} was {health}."] = None
        # The container may be restarting.
        with suppress(FileNotFoundError, ProcessLookupError):
            memory = memory_of(states["pipeline"]["State"]["Pid"])
            filled_days = self._stack.logs("pipeline").count('"event": "fill"')
            self.samples.append(Sample(self.at_s, memory, filled_days))
            if memory.kills:
                self.problems["The kernel killed a process."] = None


def unread(data: Path, since: datetime, ended: datetime) -> tuple[list[datetime], int]:
    """Return the minutes without a live reading from the first one since then until the end, and how many there are in all."""
    with Store.open(data / "readings.sqlite") as store:
        live = {minute for minute, interval_s in store.minutes(since, ended).items() if interval_s == 0}
    first = min(live, default=since)
    minutes = [first + n * MINUTE for n in range((ended - first) // MINUTE)]
    return [minute for minute in minutes if minute not in live], len(minutes)


def table(samples: Sequence[Sample], minutes: float) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table: before, while and after the days are filled."""
    last_days = samples[-1].filled_days
    parts = {
        "start": [one for one in samples if not one.filled_days],
        "fill": [one for one in samples if 0 < one.filled_days < last_days],
        **{
            f"until {mark} min": [one for one in samples if one.at_s <= mark * 60]
            for mark in MARKS_MIN
            if mark < minutes
        },
        f"until {minutes:g} min": list(samples),
    }
    for name, of_part in parts.items():
        if of_part:
            most = max(one.memory.anonymous_mb for one in of_part)
            last = of_part[-1].memory
            numbers = (last.anonymous_mb, most, last.files_mb, last.peak_mb)
            yield name, *(f"{number:.0f} MB" for number in numbers), str(of_part[-1].filled_days), str(last.kills)


def run(engine: DockerEngine, folder: Path, options: argparse.Namespace) -> list[str]:
    """Run the container, print the table, and return a sentence for each problem."""
    data = folder / "data"
    fill_from = make_record(data, datetime.now(UTC), options.fill_days)
    env = ENV | ({"PIPELINE_MEMORY_LIMIT": options.limit} if options.limit else {})
    override = OVERRIDE.format(ours=PIPELINE, influxdb=stand_ins()[0], data=data)
    stack = Stack(engine, folder / "hour", override, env=env)
    began = datetime.now(UTC)
    stack.up()
    watched = Watched(stack)
    try:
        watched.watch(options.minutes * 60)
        limit = stack.inspect("pipeline")["HostConfig"]
        ended = datetime.now(UTC).replace(second=0, microsecond=0)
        stack.compose("stop", "pipeline")
        log = stack.logs("pipeline")
    finally:
        stack.compose("down")
    missing, minutes = unread(data, began, ended)
    with Store.open(data / "readings.sqlite") as store:
        # The hour before the start may have settled later.
        unfilled = sum(hour.missing for hour in hours_between(store, fill_from, hour_of(began) - HOUR, ended))
    print(f"Limit {limit['Memory'] / 2**20:.0f} MB, {limit['MemorySwap'] / 2**20:.0f} MB with swap.\n")
    head = ("", "anonymous", "most of it", "files", "peak of all", "days filled", "kills")
    print(markdown(head, table(watched.samples, options.minutes)))
    print(f"\n{minutes - len(missing)} of {minutes} minutes were read.")
    found = {
        f"Minutes were not read: {', '.join(f'{one:%H:%M}' for one in missing)}.": missing or not minutes,
        f"{unfilled} minutes were not filled.": unfilled,
        "The pipeline's log has a traceback.": "Traceback" in log,
    }
    return [*watched.problems, *(sentence for sentence, is_so in found.items() if is_so)]


def main() -> None:
    """Run, and exit with the problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fill-days", type=int, default=30, help="the days before now that are to be filled")
    parser.add_argument("--limit", help="another limit than that of docker-compose.yml, such as 512m")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            with DockerEngine() as engine:
                engine.make_images()
                problems = run(engine, Path(folder), options)
        except EngineMissingError as error:
            raise SystemExit(str(error)) from None
    raise SystemExit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
