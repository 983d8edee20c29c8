"""What dies or fills up while a pipeline runs: nothing that was stored is lost, no run hangs, and the next start takes up.

All of it on one data directory, on a small disk of its own where this machine lets a test make one. The tests are in the
order in which they leave the pipeline running, or ended.
"""

import logging
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.utils import make_new_run_id

from aiseg2_pipeline.japan_time import hour_of
from aiseg2_pipeline.orchestration.partitions import hour_key
from aiseg2_pipeline.runtime.dagster_tuning import CalmLogger
from aiseg2_pipeline.runtime.prepare_storage import ENDED, end_left_runs
from aiseg2_pipeline.simulator import server
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.influxdb_proxy import Exchange, Fault
from aiseg2_pipeline_tests.support.running_pipeline import (
    COMMAND,
    PROC,
    STARTED_WITHIN_S,
    STOPPED_WITHIN_S,
    Pages,
    Pipeline,
    environment,
    refusal,
    started,
    two_free_ports,
)

needs_proc = pytest.mark.skipif(not PROC.exists(), reason="processes are looked at in /proc")
# Room for some hours' runs.
DISK_MB = 32
LONG_S = 60.0
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@dataclass
class Home:
    """A household's box: its folder, its settings, and the pipeline on it, which may have been ended and is started again."""

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
        """Return the pipeline, started where it does not run."""
        if self._last is None or self._last.process.poll() is not None:
            last = self._last = self.stack.enter_context(started(self.folder, self.settings))
            # Until then, pages could be those of an earlier one that is just ending.
            last.wait(lambda: "Ctrl-C stops everything." in last.output, STARTED_WITHIN_S)
            last.wait(last.pages.served, STARTED_WITHIN_S)
        return self._last

    def times(self) -> set[datetime]:
        """Return when the store's live readings were taken."""
        with Store.open(self.data / "readings.sqlite") as store:
            table = store.read(*ALWAYS)
        return set(table.loc[table["interval_s"] == 0, "time"])

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
            timeout=60,
        )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, influx_server: InfluxServer) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    data = folder / "a folder" / "data"
    data.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(data)]
    with (
        ExitStack() as stack,
        server.running(latency_s=0.2) as unit,
        Influx(influx_server, "under-fault") as influx,
    ):
        small_disk = subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603 - as above
        if small_disk:
            stack.callback(subprocess.run, ["umount", "--lazy", str(data)], check=True)
        settings = {
            "AISEG2_HOST": unit.address,
            "AISEG2_PASSWORD": unit.password,
            "AISEG2_SAMPLES_PER_MINUTE": "2",
            "AISEG2_START_DATE": str((datetime.now(UTC) - timedelta(days=1)).date()),
            "AISEG2_UI_PORT": two_free_ports()["AISEG2_UI_PORT"],
        }
        yield Home(folder, settings | influx.settings, influx, small_disk, stack)


@pytest.fixture
def influx(home: Home) -> Iterator[Influx]:
    """The real server, without a fault afterwards."""
    yield home.influx
    home.influx.proxy.fault = None


@dataclass
class Slow:
    """Takes each write late, and notes at once that it has come."""

    seconds: float
    arrived: list[Exchange] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> Fault:
        self.arrived.append(exchange)
        return Fault(204, take=True, delay_s=self.seconds)


def service(pipeline: Pipeline, module: str) -> int:
    """Return the process id of a service, not of the shell that waits for it."""
    (found,) = [
        pid for pid in pipeline.processes(module) if (PROC / str(pid) / "comm").read_bytes().strip() != b"sh"
    ]
    return found


def going(pages: Pages, job: str) -> str | None:
    """Return the id of a run of this job that has started and not ended."""
    answer = pages.ask(
        "query ($job: String!) { runsOrError(filter: {pipelineName: $job, statuses: [STARTED]}) {"
        " ... on Runs { results { runId } } } }",
        job=job,
    )
    found: list[dict[str, str]] = answer["runsOrError"]["results"]
    return found[0]["runId"] if found else None


@needs_proc
def test_a_second_pipeline_is_refused_while_commands_share_the_data_directory(home: Home) -> None:
    pipeline = home.running()
    elsewhere = home.settings | two_free_ports()
    assert f"already runs on the data directory {home.data}:" in refusal(pipeline.folder, elsewhere)
    assert pipeline.pages.finished(pipeline.pages.launch_minute())["status"] == "SUCCESS"
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
    run_id = pipeline.pages.launch_minute()
    pid = pipeline.pages.process_in(run_id)
    pipeline.wait(lambda: bool(slow.arrived), STARTED_WITHIN_S)
    taken = home.times() - before
    # What was under way is not taken either.
    influx.proxy.fault = lambda _: Fault(cut=True)
    os.kill(pid, signal.SIGKILL)
    assert pipeline.pages.finished(run_id, 15)["status"] == "FAILURE"
    assert taken
    influx.proxy.fault = None
    assert pipeline.pages.finished(pipeline.pages.launch_minute())["status"] == "SUCCESS"
    assert taken <= home.times() & home.written()


@needs_proc
def test_a_fill_that_is_killed_while_a_minute_is_written_out_harms_neither_and_a_later_one_fills(
    home: Home, influx: Influx
) -> None:
    pipeline = home.running()
    pages = pipeline.pages
    hour = hour_of(datetime.now(UTC) - timedelta(hours=20))
    asked = pages.launch("power_fill", hour_key(hour))
    # The healing sensor has found the past missing as well, and one of the two goes at a time.
    pipeline.wait(lambda: going(pages, "power_fill") is not None, STARTED_WITHIN_S)
    fill = going(pages, "power_fill")
    assert fill is not None
    pid = pages.process_in(fill)
    influx.proxy.fault = slow = Slow(2)
    minute = pages.launch_minute()
    pipeline.wait(lambda: bool(slow.arrived), STARTED_WITHIN_S)
    os.kill(pid, signal.SIGKILL)
    assert pages.finished(fill, 15)["status"] == "FAILURE"
    assert pages.finished(minute)["status"] == "SUCCESS"
    influx.proxy.fault = None
    later = pages.launch("power_fill", hour_key(hour)) if fill == asked else asked
    assert pages.finished(later)["status"] == "SUCCESS"
    with Store.open(home.data / "readings.sqlite") as store:
        assert len(store.minutes(hour, hour + timedelta(hours=1))) == 60


@needs_proc
def test_a_full_disk_is_told_in_a_sentence_and_harms_nothing_and_minutes_go_on_when_there_is_room(
    home: Home,
) -> None:
    if not home.small_disk:
        pytest.skip("only root can make a small disk here")
    pipeline = home.running()
    before = home.times()
    with pytest.raises(OSError, match="No space left"):
        (home.data / "ballast").write_bytes(bytes(DISK_MB << 20))
    pipeline.wait(lambda: "see that its disk has free space" in pipeline.output, STARTED_WITHIN_S)
    refused = home.command("resend")
    assert refused.returncode == 1
    assert "free some space on it" in refused.stderr
    (home.data / "ballast").unlink()
    assert pipeline.pages.finished(pipeline.pages.launch_minute())["status"] == "SUCCESS"
    assert before < home.times()
    for path in home.data.rglob("*.sqlite"), home.data.rglob("*.db"):
        for one in path:
            with sqlite3.connect(one) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], one
    # A part of the daemon each, once a minute.
    assert pipeline.output.count("see that its disk has free space") < 10
    assert "Stack Trace" not in pipeline.output


@needs_proc
def test_a_killed_daemon_ends_the_whole_and_the_next_start_takes_up(home: Home) -> None:
    pipeline = home.running()
    stored = home.times()
    os.kill(service(pipeline, "dagster._daemon"), signal.SIGKILL)
    assert pipeline.process.wait(STOPPED_WITHIN_S) == 128 + signal.SIGKILL
    assert "daemon stopped (rc=137)" in pipeline.output
    assert "so all were stopped: start the pipeline again." in pipeline.output
    assert pipeline.processes() == []
    again = home.running()
    assert again.pages.finished(again.pages.launch_minute())["status"] == "SUCCESS"
    assert stored < home.times()


@needs_proc
def test_services_end_with_a_killed_main_process_and_the_next_start_need_not_wait_for_anybody(home: Home) -> None:
    pipeline = home.running()
    run_id = pipeline.pages.launch_minute(LONG_S)
    pipeline.pages.process_in(run_id)
    assert len(pipeline.processes()) > 4
    pipeline.process.kill()
    pipeline.process.wait()
    again = home.running()
    assert again.pages.finished(again.pages.launch_minute())["status"] == "SUCCESS"
    assert again.pages.finished(run_id, 1)["status"] != "SUCCESS"


@needs_proc
def test_after_a_power_cut_no_run_seems_to_go_on(home: Home) -> None:
    pipeline = home.running()
    run_id = pipeline.pages.launch_minute(LONG_S)
    pipeline.pages.process_in(run_id)
    stored = home.times()
    for pid in pipeline.processes():
        os.kill(pid, signal.SIGKILL)
    pipeline.process.wait()
    again = home.running()
    cut_off = again.pages.finished(run_id, 1)
    assert cut_off["status"] == "FAILURE"
    assert ENDED in [event.get("message") for event in cut_off["eventConnection"]["events"]]
    assert stored <= home.times()


@needs_proc
def test_a_killed_code_server_ends_the_whole_although_a_run_goes_on(home: Home) -> None:
    pipeline = home.running()
    pid = pipeline.pages.process_in(pipeline.pages.launch_minute(LONG_S))
    began = time.monotonic()
    os.kill(service(pipeline, "runtime.code_server"), signal.SIGKILL)
    assert pipeline.process.wait(STOPPED_WITHIN_S) == 128 + signal.SIGKILL
    assert time.monotonic() - began < LONG_S / 2
    assert pid not in pipeline.processes()


@pytest.fixture
def daemon_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger as a part of Dagster's daemon has one, which has said nothing so far."""
    monkeypatch.setattr(CalmLogger, "_said_at", {})
    logger = CalmLogger("dagster.daemon.SensorDaemon")
    logger.addHandler(caplog.handler)
    return logger


def test_an_error_that_the_daemon_meets_again_and_again_is_told_once_a_minute(
    daemon_log: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon_log.error("Something is wrong.")
    daemon_log.error("Something is wrong.")
    daemon_log.warning("Something is odd.")
    daemon_log.warning("Something is odd.")
    assert caplog.messages == ["Something is wrong.", "Something is odd.", "Something is odd."]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    daemon_log.error("Something is wrong.")
    assert caplog.messages[3:] == ["Something is wrong."]


@pytest.mark.parametrize("reason", ["database or disk is full", "disk I/O error"])
def test_a_disk_that_keeps_the_daemon_from_working_is_told_without_a_stack(
    reason: str, daemon_log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    daemon_log.error("Failed to add heartbeat:\nOperationalError: %s\nStack Trace:\n…", reason)
    error = sqlite3.OperationalError(reason)
    daemon_log.error("SensorDaemon caught an error", exc_info=error)
    (told,) = caplog.messages
    assert f"({reason})" in told
    assert "free space" in told
    assert "Stack" not in caplog.text


def test_runs_that_were_going_when_the_pipeline_ended_are_failed_and_no_others() -> None:
    # A queued one would need to know its code server.
    statuses = {status: make_new_run_id() for status in DagsterRunStatus if status != DagsterRunStatus.QUEUED}
    with DagsterInstance.ephemeral() as instance:
        for status, run_id in statuses.items():
            instance.add_run(DagsterRun("power_fill", run_id=run_id, status=status))
        end_left_runs(instance)
        after = {
            status: run.status for status, run_id in statuses.items() if (run := instance.get_run_by_id(run_id))
        }
    changed = {status for status in statuses if after[status] != status}
    assert changed == {
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    }
    assert {after[status] for status in changed} == {DagsterRunStatus.FAILURE}
