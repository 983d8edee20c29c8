"""docker-compose.yml on a real Docker engine: two homes, through what happens to containers, their processes and disks.

The demo is run as the file has it, with no .env. The home has its settings from a .env, InfluxDB and PostgreSQL by their
profiles, and for its device the simulator. Grafana's image is not to be had, so that its services do not run here; what
Compose itself understands of them is in `test_stack.py`. Each test leaves both homes running for the next one.

Only the override below differs from what a household runs: images made here, health asked more often, free ports, and
for the demo's readings a small disk that can be filled.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest
import requests
from influxdb_client.client.influxdb_client import InfluxDBClient

from aiseg2_pipeline_tests.support.docker_engine import (
    PIPELINE,
    DockerEngine,
    EngineMissingError,
    Stack,
    stand_ins,
)
from aiseg2_pipeline_tests.support.missing import missing
from aiseg2_pipeline_tests.support.shared_objects import NONE_IS_COUNTED, PROGRAM

FIRST_READING_WITHIN_S = 180
# As docs/docker.md says.
PAST_WITHIN_S = 600
# Generous, because only a failing test waits for the end of it.
WITHIN_S = 300
POSTGRES_PASSWORD = "letters5"
ENV = {
    "COMPOSE_PROFILES": "influxdb,postgres",
    "AISEG2_HOST": "simulator:8420",
    "AISEG2_USER": "aiseg",
    "AISEG2_PASSWORD": "simulator",
    "INFLUXDB_HOST": "influxdb:8086",
    "INFLUXDB_TOKEN": "token-of-env==",
    "INFLUXDB_ORG": "org-of-env",
    "INFLUXDB_BUCKET": "bucket-of-env",
    "POSTGRES_PASSWORD": POSTGRES_PASSWORD,
}
OURS = f'build: !reset null, image: "{PIPELINE}", healthcheck: {{interval: 10s}}'
PAGES = 'ports: !override ["127.0.0.1::3000", "127.0.0.1::3080"]'
OVERRIDE = """
services:
  pipeline: {{{ours}, {pages}}}
  demo: {{{ours}, {pages}}}
  simulator: {{{ours}{simulator}}}
  influxdb: {{image: "{influxdb}", healthcheck: {{interval: 5s}}, ports: !override ["127.0.0.1::8086"]}}
  demo-influxdb: {{image: "{influxdb}", healthcheck: {{interval: 5s}}}}
  postgres: {{image: "{postgres}", healthcheck: {{interval: 5s}}}}
  demo-grafana: {{profiles: !override [not-here]}}
volumes:
  demo-data: {{{disk}}}
"""
# Rows of the store from a time on.
ROWS = """
import json, sqlite3, sys
store = sqlite3.connect("file:/data/readings.sqlite?mode=ro", uri=True)
rows = store.execute("SELECT time, kind, name, unit, value FROM readings WHERE time >= ?", sys.argv[1:])
print(json.dumps(rows.fetchall()))
"""
try:
    ENGINE = DockerEngine()
except EngineMissingError as error:
    missing(str(error))

# When, kind (none for a total or the battery), and name with unit.
Rows = dict[tuple[datetime, str, str], float]


@dataclass
class Home:
    """A pipeline in its stack, and the bucket that it writes to."""

    stack: Stack
    pipeline: str
    influxdb: str
    token: str
    org: str
    bucket: str
    since: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    # The times of readings that the pipeline has logged as stored.
    logged: set[datetime] = field(default_factory=set)

    def stored(self) -> Rows:
        """Return the rows of the store since the start, read in the pipeline's own container."""
        found = self.stack.execute(self.pipeline, "python", "-c", ROWS, str(int(self.since.timestamp())))
        return {
            (datetime.fromtimestamp(at, UTC), _detail_type(kind), f"{name}({unit})" if unit else name): value
            for at, kind, name, unit, value in json.loads(found)
        }

    def written(self) -> Rows:
        """Return the rows of the bucket since the start, by Flux."""
        flux = f"""from(bucket: "{self.bucket}") |> range(start: {self.since.isoformat()})
            |> filter(fn: (r) => r._measurement == "power" or r._measurement == "battery")"""
        # A container that was started again may have another address.
        url = f"http://{self.stack.address(self.influxdb)}:8086"
        with InfluxDBClient(url, self.token, org=self.org, timeout=30_000) as client:
            records = [record.values for record in client.query_api().query_stream(flux)]
        return {
            (
                record["_time"],
                record.get("detail-type", ""),
                record.get("summary") or record["detail-section"],
            ): record["_value"]
            for record in records
        }

    def note_logged(self) -> set[datetime]:
        """Return what has been logged as stored so far; a container's log ends with it."""
        for line in self.stack.logs(self.pipeline).splitlines():
            if '"event": "reading"' in line:
                logged = json.loads(line[line.index("{") :])
                self.logged.add(datetime.fromisoformat(logged["time"]))
        return self.logged

    def write_again(self, after: datetime, within_s: float = WITHIN_S) -> None:
        """Wait until a reading of after `after` is in the bucket."""
        _wait(
            f"no reading of after {after} in the bucket of {self.stack.folder.name}",
            lambda: any(at > after for at, *_ in self.written()),
            within_s,
        )

    def check_nothing_lost(self, before: Rows) -> None:
        """Assert that rows seen before and readings logged as stored are in the store, and all of it in the bucket."""
        logged = self.note_logged()
        stored = self.stored()
        assert before.items() <= stored.items()
        assert logged
        assert logged <= {at for at, *_ in stored}
        _wait(
            f"the bucket of {self.stack.folder.name} lacks rows of the store",
            lambda: stored.items() <= self.written().items(),
        )
        assert self.written().items() <= self.stored().items()


@dataclass
class Disk:
    """A file system of its own, which holds the demo's readings and can be filled."""

    folder: Path
    size: str = "256m"

    def __enter__(self) -> Self:
        self.folder.mkdir()
        options = f"size={self.size},mode=0700,uid=10001,gid=10001"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", self.folder], check=True)  # noqa: S603, S607 - as root
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)  # noqa: S603, S607 - as root

    @contextmanager
    def full(self) -> Iterator[None]:
        ballast = self.folder / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        assert shutil.disk_usage(self.folder).free == 0
        try:
            yield
        finally:
            ballast.unlink()


def _detail_type(kind: str) -> str:
    return "" if kind in ("total", "battery") else kind


def _wait(problem: str, condition: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    """Wait until something holds; a server that is starting may still refuse."""
    end = time.monotonic() + within_s
    refused = ""
    while time.monotonic() < end:
        try:
            if condition():
                return
        except Exception as error:  # noqa: BLE001 - of any kind while containers start; the last one is reported
            refused = str(error)
        time.sleep(1)
    pytest.fail(f"{problem} after {within_s:.0f} s. {refused}")


def _at_once(*calls: Callable[[], object]) -> None:
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    try:
        with ENGINE:
            ENGINE.make_images()
            yield ENGINE
    except EngineMissingError as error:
        missing(str(error))


@pytest.fixture(scope="module")
def disk(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:  # noqa: ARG001 - it says what is missing
    with Disk(tmp_path_factory.mktemp("disk") / "demo-data") as disk:
        yield disk


@pytest.fixture(scope="module")
def homes(
    engine: DockerEngine, disk: Disk, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, Home]]:
    folder = tmp_path_factory.mktemp("stacks")
    influxdb, postgres = stand_ins()
    names = {"ours": OURS, "pages": PAGES, "influxdb": influxdb, "postgres": postgres}
    small = f"driver_opts: {{type: none, o: bind, device: {disk.folder}}}"
    demo = Stack(
        engine,
        folder / "demo",
        OVERRIDE.format(**names, simulator="", disk=small),
        env={},
        options=("--profile", "demo"),
    )
    # Where the home's pipeline reaches it, and with one of its profiles.
    simulator = ", networks: [default], profiles: !override [influxdb]"
    home = Stack(engine, folder / "home", OVERRIDE.format(**names, simulator=simulator, disk=""), env=ENV)
    token = "no-secret-of-the-demo"
    found = (
        Home(demo, "demo", "demo-influxdb", token, "demo", "demo"),
        Home(home, "pipeline", "influxdb", ENV["INFLUXDB_TOKEN"], ENV["INFLUXDB_ORG"], ENV["INFLUXDB_BUCKET"]),
    )
    _at_once(demo.up, home.up)
    yield found
    # Before the disk goes away.
    _at_once(lambda: demo.compose("down"), lambda: home.compose("down"))


@pytest.fixture(scope="module")
def demo(homes: tuple[Home, Home]) -> Home:
    return homes[0]


@pytest.fixture(scope="module")
def home(homes: tuple[Home, Home]) -> Home:
    return homes[1]


def test_a_reading_is_in_influxdb_within_three_minutes_and_all_are_healthy(demo: Home, home: Home) -> None:
    demo.write_again(after=demo.since, within_s=FIRST_READING_WITHIN_S)
    for one in (demo, home):
        one.write_again(after=one.since)
        # The pipeline beside the demo has no device.
        for service in set(one.stack.services()) - ({"pipeline"} if one is demo else set()):
            _wait(
                f"{service} is not healthy",
                lambda: one.stack.inspect(service)["State"]["Health"]["Status"] == "healthy",  # noqa: B023 - called at once
            )
        one.check_nothing_lost({})
    assert set(demo.stack.services()) == {"pipeline", "demo", "simulator", "demo-influxdb"}
    assert set(home.stack.services()) == {"pipeline", "influxdb", "postgres", "simulator"}
    assert "AISEG2_HOST is not set" in demo.stack.logs("pipeline")


def test_the_demos_past_is_in_its_influxdb_and_its_commands_begin_with_it(demo: Home) -> None:
    def days() -> int:
        flux = f"""from(bucket: "{demo.bucket}") |> range(start: -400d)
            |> filter(fn: (r) => r._measurement == "daily_total" and r["detail-section"] == "買電量(kWh)") |> count()"""
        url = f"http://{demo.stack.address(demo.influxdb)}:8086"
        with InfluxDBClient(url, demo.token, org=demo.org, timeout=30_000) as client:
            return sum(record["_value"] for record in client.query_api().query_stream(flux))

    _wait("a year of days is not in the demo's bucket", lambda: days() >= 365, PAST_WITHIN_S)
    # Only what is recorded as removed.
    command = ("aiseg2-pipeline", "gaps", "--to", "yesterday", "--format", "json")
    gaps = json.loads(demo.stack.execute(demo.pipeline, *command))
    assert [(hour["missing"], hour["removed"]) for hour in gaps] == [(0, 40)]


def test_the_pages_are_served_on_this_machine(demo: Home, home: Home) -> None:
    for one in (demo, home):
        for port, path in (("3000", "server_info"), ("3080", "api/v1/now")):
            address = one.stack.compose("port", one.pipeline, port).strip()
            assert address.startswith("127.0.0.1:")
            # The services start again once they have found the start of the record.
            _wait("the pages are not served", lambda: requests.get(f"http://{address}/{path}", timeout=30).ok)  # noqa: B023 - called at once


def test_the_run_history_is_in_postgres(home: Home) -> None:
    # A start that ended the first run, once the start of the record was found, is followed by another.
    _wait("no run has succeeded", lambda: _runs_in_postgres(home) > 0)
    assert home.stack.execute("pipeline", "find", "/data", "-name", "*.db") == ""


def test_the_containers_python_does_not_count_references_to_imported_code(home: Home) -> None:
    assert home.stack.execute("pipeline", "python", "-c", PROGRAM) == NONE_IS_COUNTED


def test_every_container_is_locked_in_and_its_log_is_rotated(demo: Home, home: Home) -> None:
    users = {"demo-influxdb": 1000, "influxdb": 1000, "postgres": 70}
    for one in (demo, home):
        for service in one.stack.services():
            status = dict(
                line.split(":\t", 1)
                for line in one.stack.execute(service, "cat", "/proc/1/status").splitlines()
                if ":\t" in line
            )
            assert set(status["Uid"].split()) == {str(users.get(service, 10001))}
            assert {status[name].strip("0") for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
            assert status["NoNewPrivs"] == "1"
            # As root, whom nothing but a read-only file system keeps from it.
            with pytest.raises(RuntimeError, match="Read-only file system"):
                one.stack.engine.docker("exec", "--user", "0", one.stack.container(service), "touch", "/written")
            logs = one.stack.inspect(service)["HostConfig"]["LogConfig"]
            assert logs == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def test_neither_kill_9_nor_a_full_disk_loses_a_reading(demo: Home, home: Home, disk: Disk) -> None:
    for one in (demo, home):
        one.write_again(after=one.since)
    demo_before, home_before = demo.stored(), home.stored()
    with disk.full():
        full_since = datetime.now(UTC)
        for service in home.stack.services():
            home.stack.kill(service)
        for service in home.stack.services():
            _wait(f"{service} was not started again", lambda: home.stack.inspect(service)["RestartCount"] > 0)  # noqa: B023 - called at once
        home.write_again(after=datetime.now(UTC))
        # A minute has passed in which the demo had no room for a reading.
        assert all(at < full_since for at in demo.note_logged())
    home.check_nothing_lost(home_before)
    demo.check_nothing_lost(demo_before)


def test_restart_and_down_and_up_keep_the_data(demo: Home, home: Home) -> None:
    for one in (demo, home):
        one.write_again(after=one.since)
    demo_before, home_before, runs_before = demo.stored(), home.stored(), _runs_in_postgres(home)
    home.note_logged()
    _at_once(lambda: demo.stack.compose("restart"), lambda: home.stack.compose("down"))
    assert home.stack.services() == []
    home.stack.up()
    started = datetime.now(UTC)
    for one, before in ((demo, demo_before), (home, home_before)):
        one.write_again(after=started)
        one.check_nothing_lost(before)
    assert _runs_in_postgres(home) >= runs_before


def _runs_in_postgres(home: Home) -> int:
    sql = "SELECT count(*) FROM runs WHERE status = 'SUCCESS'"
    return int(home.stack.execute("postgres", "psql", "-U", "aiseg2", "-tAc", sql))
