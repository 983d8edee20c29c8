"""Processes are killed and the disk fills up under a running pipeline: no stored reading is lost, and no run hangs.

All tests share one data directory, on a small disk of its own where this machine permits one. Each test starts the
pipeline where the one before it ended it.
"""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.utils import make_new_run_id
from filelock import FileLock, Timeout

from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.japan_time import hour_key, hour_of
from aiseg2_pipeline.runtime.prepare_storage import ACTIVE, ENDED, fail_orphaned_runs
from aiseg2_pipeline.simulator import server
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.influxdb_proxy import Exchange, Fault
from aiseg2_pipeline_tests.support.running_pipeline import (
    COMMAND,
    WITHIN_S,
    Pipeline,
    environment,
    free_ports,
    live_times,
    needs_proc,
    refusal,
    started,
)

# Enough for some hours of runs.
DISK_MB = 32
LONG_S = 60.0


@dataclass
class Home:
    """A folder with settings, and the pipeline in it, which may have ended."""

    folder: Path
    settings: dict[str, str]
    influx: Influx
    small_disk: bool
    stack: ExitStack
    _last: Pipeline | None = field(default=None, init=False)

    @property
    def data(self) -> Path:
        return self.folder / "a folder" / "data"

    def running(self) -> Pipeline:
        """Return the pipeline; start it where it does not run."""
        if self._last is None or self._last.process.poll() is not None:
            last = self._last = self.stack.enter_context(started(self.folder, self.settings))
            # Before this, an ending webserver of an earlier pipeline could still answer.
            last.wait(lambda: "Ctrl-C stops everything." in last.output)
            last.wait(last.pages.served)
        return self._last

    def times(self) -> set[datetime]:
        """Return the times of the live readings in the store."""
        return live_times(self.data / "readings.sqlite")

    def written(self) -> set[datetime]:
        """Return the times of the live readings that InfluxDB holds."""
        table = self.influx.readings()
        return set(table.loc[table["interval_s"] == 0, "time"])

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, *arguments],
            cwd=self.folder / "a folder",
            env=environment(self.settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=WITHIN_S,
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, influx_server: InfluxServer) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    data = folder / "a folder" / "data"
    data.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(data)]
    with (
        ExitStack() as stack,
        server.running(latency_s=0.2) as device,
        Influx(influx_server, "under-fault") as influx,
    ):
        small_disk = subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603 - as above
        if small_disk:
            stack.callback(subprocess.run, ["umount", "--lazy", str(data)], check=True)
        # Before the first reading, so that no sensor fills these hours.
        note_first_hour(data / "first_partition", datetime.now(UTC) - timedelta(days=1))
        settings = {
            "AISEG2_HOST": device.address,
            "AISEG2_PASSWORD": device.password,
            "AISEG2_SAMPLES_PER_MINUTE": "2",
            **free_ports(),
        }
        yield Home(folder, settings | influx.settings, influx, small_disk, stack)


@pytest.fixture
def influx(home: Home) -> Iterator[Influx]:
    """The real server; a fault is removed after the test."""
    yield home.influx
    home.influx.proxy.fault = None


@dataclass
class Slow:
    """A fault that delays the answer to each write, and records its arrival at once."""

    seconds: float
    arrived: list[Exchange] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> Fault:
        self.arrived.append(exchange)
        return Fault(204, take=True, delay_s=self.seconds)


def service(pipeline: Pipeline, name: str) -> int:
    """Return the process id of a service."""
    (service_pid,) = pipeline.processes(name)
    return service_pid


@needs_proc
def test_a_second_pipeline_is_refused_while_commands_share_the_data_directory(home: Home) -> None:
    pipeline = home.running()
    elsewhere = home.settings | free_ports()
    assert f"already runs on the data directory {home.data}:" in refusal(pipeline.folder, elsewhere)
    assert pipeline.pages.read_minute()["status"] == "SUCCESS"
    for command in ("read", "gaps", "health"):
        ended = home.command(command)
        assert (ended.returncode, ended.stderr) == (0, ""), command
    assert "Traceback" not in home.command("doctor").stderr


@needs_proc
def test_a_reading_whose_run_is_killed_before_its_write_out_goes_out_with_the_next_run(
    home: Home, influx: Influx
) -> None:
    pipeline = home.running()
    before = home.times()
    influx.proxy.fault = slow = Slow(5)
    run_id = pipeline.pages.launch_minute(10)
    pid = pipeline.pages.process_in(run_id)
    pipeline.wait(lambda: bool(slow.arrived))
    taken = home.times() - before
    # A retry of the interrupted write must not arrive either.
    influx.proxy.fault = lambda _: Fault(cut=True)
    os.kill(pid, signal.SIGKILL)
    assert pipeline.pages.finished(run_id)["status"] == "FAILURE"
    assert taken
    influx.proxy.fault = None
    assert pipeline.pages.read_minute()["status"] == "SUCCESS"
    assert taken <= home.times() & home.written()


def stop_without_locks(pid: int, path: Path) -> None:
    """Stop a process at a moment when it holds no lock of a store, so that others can use that."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with suppress(Timeout, sqlite3.OperationalError), FileLock(f"{path}.lock", timeout=1):
            with closing(sqlite3.connect(path, timeout=1)) as connection:
                connection.execute("BEGIN IMMEDIATE")
            return
        os.kill(pid, signal.SIGCONT)


@needs_proc
def test_a_fill_killed_during_a_minutes_write_fails_alone_and_a_later_one_fills(
    home: Home, influx: Influx
) -> None:
    pipeline = home.running()
    pages = pipeline.pages
    hour = hour_of(datetime.now(UTC) - timedelta(hours=20))
    fill = pages.launch("power_fill", hour_key(hour))
    pid = pages.process_in(fill)
    # However long the minute takes to start, the fill does not end before.
    stop_without_locks(pid, home.data / "readings.sqlite")
    influx.proxy.fault = slow = Slow(2)
    minute = pages.launch_minute(10)
    pipeline.wait(lambda: bool(slow.arrived))
    os.kill(pid, signal.SIGKILL)
    assert pages.finished(fill)["status"] == "FAILURE"
    assert pages.finished(minute)["status"] == "SUCCESS"
    influx.proxy.fault = None
    assert pages.finished(pages.launch("power_fill", hour_key(hour)))["status"] == "SUCCESS"
    with Store.open(home.data / "readings.sqlite") as store:
        assert len(store.minutes(hour, hour + timedelta(hours=1))) == 60


@needs_proc
def test_a_full_disk_is_reported_in_a_sentence_corrupts_nothing_and_reading_resumes_with_free_space(
    home: Home,
) -> None:
    if not home.small_disk:
        pytest.skip("only root can make a small disk here")
    pipeline = home.running()
    before = home.times()
    with pytest.raises(OSError, match="No space left"):
        (home.data / "ballast").write_bytes(bytes(DISK_MB << 20))
    pipeline.wait(lambda: "free space on its disk" in pipeline.output)
    refused = home.command("resend")
    assert refused.returncode == 1
    assert "free some space on it" in refused.stderr
    (home.data / "ballast").unlink()
    assert pipeline.pages.read_minute()["status"] == "SUCCESS"
    assert before < home.times()
    for path in (*home.data.rglob("*.sqlite"), *home.data.rglob("*.db")):
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path
    # Once a minute for each part of the daemon.
    assert pipeline.output.count("free space on its disk") < 10
    assert "Stack Trace" not in pipeline.output


@needs_proc
def test_a_killed_daemon_ends_all_services_and_the_next_start_continues(home: Home) -> None:
    pipeline = home.running()
    stored = home.times()
    os.kill(service(pipeline, "daemon"), signal.SIGKILL)
    assert pipeline.process.wait(WITHIN_S) == 128 + signal.SIGKILL
    assert "daemon stopped (rc=137)" in pipeline.output
    assert "so all were stopped: start the pipeline again." in pipeline.output
    assert pipeline.processes() == []
    again = home.running()
    assert again.pages.read_minute()["status"] == "SUCCESS"
    assert stored < home.times()


@needs_proc
def test_services_end_with_a_killed_supervisor_and_the_next_start_works(home: Home) -> None:
    pipeline = home.running()
    run_id = pipeline.pages.launch_minute(LONG_S)
    pipeline.pages.process_in(run_id)
    assert len(pipeline.processes()) > 4
    pipeline.process.kill()
    pipeline.process.wait()
    again = home.running()
    assert again.pages.read_minute()["status"] == "SUCCESS"
    assert again.pages.finished(run_id, 1)["status"] != "SUCCESS"


@needs_proc
def test_after_a_power_cut_no_run_stays_active(home: Home) -> None:
    pipeline = home.running()
    run_id = pipeline.pages.launch_minute(LONG_S)
    pipeline.pages.process_in(run_id)
    stored = home.times()
    pipeline.kill()
    again = home.running()
    cut_off = again.pages.finished(run_id, 1)
    assert cut_off["status"] == "FAILURE"
    assert ENDED in [event.get("message") for event in cut_off["eventConnection"]["events"]]
    assert stored <= home.times()


@needs_proc
def test_a_killed_code_server_ends_all_services_and_active_runs(home: Home) -> None:
    pipeline = home.running()
    pid = pipeline.pages.process_in(pipeline.pages.launch_minute(LONG_S))
    began = time.monotonic()
    os.kill(service(pipeline, "code-server"), signal.SIGKILL)
    assert pipeline.process.wait(WITHIN_S) == 128 + signal.SIGKILL
    assert time.monotonic() - began < LONG_S / 2
    assert pid not in pipeline.processes()


def test_only_orphaned_active_runs_are_failed() -> None:
    # A queued run would need a code server.
    run_ids = {status: make_new_run_id() for status in DagsterRunStatus if status != DagsterRunStatus.QUEUED}
    with DagsterInstance.ephemeral() as instance:
        for status, run_id in run_ids.items():
            instance.add_run(DagsterRun("power_fill", run_id=run_id, status=status))
        fail_orphaned_runs(instance)
        for status, run_id in run_ids.items():
            run = instance.get_run_by_id(run_id)
            assert run
            assert run.status == (DagsterRunStatus.FAILURE if status in ACTIVE else status)
    assert {DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING} < set(ACTIVE)
    assert DagsterRunStatus.SUCCESS not in ACTIVE


@needs_proc
def test_the_services_start_again_with_a_first_hour_that_has_moved(home: Home) -> None:
    pipeline = home.running()
    before = service(pipeline, "code-server")
    two_days_ago = hour_key(datetime.now(UTC) - timedelta(days=2))
    (home.data / "first_partition").write_text(two_days_ago + "\n", encoding="ascii")
    pipeline.wait(lambda: before not in pipeline.processes("code-server") and pipeline.pages.served())
    pipeline.wait(lambda: pipeline.output.count("Ctrl-C stops everything.") == 2)
    assert pipeline.pages.read_minute()["status"] == "SUCCESS"
    partitions = pipeline.pages.ask(
        '{ assetNodeOrError(assetKey: {path: ["power_readings"]}) { ... on AssetNode { partitionKeys } } }'
    )
    assert partitions["assetNodeOrError"]["partitionKeys"][0] == two_days_ago


@needs_proc
def test_dagsters_daemon_deletes_ticks_older_than_a_week(home: Home) -> None:
    pipeline = home.running()
    ticks = home.data / "dagster" / "schedules" / "schedules.db"

    def counts(where: str) -> int:
        with closing(sqlite3.connect(ticks)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM job_ticks WHERE {where}").fetchone()[0])

    # The daemon looks at the ticks of a schedule when that ticks.
    pipeline.wait(lambda: counts("status = 'SUCCESS' AND tick_body LIKE '%\"every_minute\"%'") > 0)
    with closing(sqlite3.connect(ticks)) as connection, connection:
        columns = "job_origin_id, selector_id, status, type, tick_body"
        connection.execute(
            f"INSERT INTO job_ticks (timestamp, {columns}) SELECT '2026-01-01 00:00:00', {columns} FROM job_ticks "
            "WHERE type = 'SCHEDULE' AND status = 'SUCCESS' AND tick_body LIKE '%\"every_minute\"%' LIMIT 1"
        )
    assert counts("timestamp < '2026-02-01'") == 1
    pipeline.wait(lambda: counts("timestamp < '2026-02-01'") == 0)
