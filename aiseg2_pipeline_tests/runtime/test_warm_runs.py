"""Runs are real processes of a real Dagster: forked from a warm process, or each in a new Python."""

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster._cli.api
import pytest
from dagster._grpc.server import DagsterApiServer

from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.runtime import code_server
from aiseg2_pipeline.simulator import server
from aiseg2_pipeline.tags import MINUTE_TAG
from aiseg2_pipeline_tests.support.running_pipeline import (
    PROC,
    WITHIN_S,
    Pipeline,
    environment,
    event_types,
    free_ports,
    needs_proc,
    now_in_hour,
    process_of,
    started,
)

ATTRIBUTE = "_mp_ctx"
LONG_S = 60.0
# Modules that a run imports by itself cost it some milliseconds each.
MOST_IMPORTS = 12

# Python runs this at its start. In a warm process that replaces a killed one, the first import of each module in the file
# `broken` fails; each forked process records the modules that it imports.
SITE = """
import os
import sys
from pathlib import Path
from types import CodeType

HERE = Path(__file__).parent


class Watch:
    def __init__(self):
        self.broken = set((HERE / "broken").read_text().split())
        self.forked = False

    def begin(self):
        self.forked = True
        self.record("")

    def record(self, line):
        # Opened for each line: a service closes the files that it inherits.
        log = os.open(HERE / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, line.encode())
        os.close(log)

    def find_spec(self, name, path=None, target=None):
        if self.forked:
            self.record(name + "\\n")
        if name in self.broken:
            self.broken.remove(name)
            raise RuntimeError("broken by a test")


watch = Watch()
sys.meta_path.insert(0, watch)
os.register_at_fork(after_in_child=watch.begin)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on PYTHONPATH with a sitecustomize.py."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    (folder / "broken").touch()
    return folder


@pytest.fixture(scope="module")
def settings(site: Path) -> Iterator[dict[str, str]]:
    """Settings of a pipeline that reads a slow device."""
    with server.running(latency_s=0.1) as device:
        yield {
            "AISEG2_HOST": device.address,
            "AISEG2_PASSWORD": device.password,
            "AISEG2_SAMPLES_PER_MINUTE": "2",
            **free_ports(),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])),
        }


@pytest.fixture(scope="module")
def started_once(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Pipeline]:
    with started(tmp_path_factory.mktemp("warm"), settings) as pipeline:
        pipeline.wait(pipeline.pages.served)
        yield pipeline


@pytest.fixture
def pipeline(started_once: Pipeline) -> Iterator[Pipeline]:
    """The pipeline that these tests share; each must leave it running and without a traceback."""
    yield started_once
    assert started_once.process.poll() is None
    assert "Traceback" not in started_once.output, started_once.output


def parent(pid: int) -> int:
    status = (PROC / str(pid) / "status").read_text(encoding="utf-8")
    return int(status.partition("PPid:")[2].split()[0])


def warm_process(pipeline: Pipeline) -> int:
    """Return the id of the process that runs are forked from."""
    (server,) = pipeline.processes("code-server")
    (warm,) = (pid for pid in pipeline.processes("runs") if parent(pid) == server)
    return warm


def gone(pid: int) -> bool:
    """Return whether the process ends in time; a zombie counts as ended."""
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        try:
            if "\nState:\tZ" in (PROC / str(pid) / "status").read_text(encoding="utf-8"):
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@needs_proc
def test_the_services_are_forked_from_the_supervisor_and_each_leads_a_process_group(pipeline: Pipeline) -> None:
    names = ("code-server", "daemon", "webserver", "page")
    pids = [pid for name in names for pid in pipeline.processes(name)]
    assert [parent(pid) for pid in pids] == [pipeline.process.pid] * len(names)
    assert [os.getpgid(pid) for pid in pids] == pids
    (code,) = pipeline.processes("code-server")
    assert os.getpgid(warm_process(pipeline)) == code


@needs_proc
def test_each_run_is_a_process_forked_from_the_warm_one_that_ends_when_it_is_canceled(pipeline: Pipeline) -> None:
    warm = warm_process(pipeline)
    runs = [pipeline.pages.launch_minute(LONG_S) for _ in range(2)]
    pids = [pipeline.pages.process_in(run) for run in runs]
    assert len({*pids, warm}) == 3
    assert [parent(pid) for pid in pids] == [warm, warm]
    for run, pid in zip(runs, pids, strict=True):
        pipeline.pages.terminate(run)
        assert pipeline.pages.finished(run)["status"] == "CANCELED"
        assert gone(pid)


@needs_proc
def test_a_run_imports_few_modules_itself_else_add_them_to_preload(pipeline: Pipeline, site: Path) -> None:
    run = pipeline.pages.read_minute()
    assert run["status"] == "SUCCESS"
    imported = (site / str(process_of(run))).read_text(encoding="utf-8").split()
    assert len(imported) <= MOST_IMPORTS, imported


@needs_proc
def test_after_its_warm_process_was_killed_a_run_ends_the_next_one_reads_and_the_services_start_again(
    tmp_path: Path, site: Path, settings: dict[str, str]
) -> None:
    broken = ["dagster._utils.test.definitions", "aiseg2_pipeline.definitions"]
    with started(tmp_path, settings | free_ports()) as pipeline:
        pipeline.wait(pipeline.pages.served)
        run_id = pipeline.pages.launch_minute(10)
        pid = pipeline.pages.process_in(run_id)
        (site / "broken").write_text("\n".join(broken), encoding="utf-8")
        killed_at = datetime.now(UTC)
        os.kill(parent(pid), signal.SIGKILL)
        assert pipeline.pages.finished(run_id)["status"] in {"FAILURE", "SUCCESS"}
        assert gone(pid)
        # The schedule's next run is that of a new Python, in which two modules are broken.
        pipeline.wait(lambda: "so the services start again" in pipeline.output, WITHIN_S + 60)
        assert max(pipeline.times()) > killed_at
        assert f"{broken[0]} is not preloaded" in pipeline.output
        assert "The definitions are not preloaded" in pipeline.output
        (site / "broken").write_text("", encoding="utf-8")
        new_python = "multiprocessing.forkserver"
        pipeline.wait(lambda: not pipeline.processes(new_python) and pipeline.processes("runs") != [])
        pipeline.wait(pipeline.pages.served)
        after = [pipeline.pages.run(run["runId"]) for run in pipeline.pages.runs()]
        after = [run for run in after if (run["startTime"] or 0) > killed_at.timestamp()]
        of_new_python = min(after, key=lambda run: float(run["startTime"]))
        assert set(broken) <= set((site / str(process_of(of_new_python))).read_text(encoding="utf-8").split())
        assert pipeline.pages.read_minute()["status"] == "SUCCESS"
        assert "Traceback" not in pipeline.output, pipeline.output


def test_a_run_started_by_hand_prints_only_json_lines(pipeline: Pipeline) -> None:
    before = len(pipeline.output)
    run = pipeline.pages.finished(pipeline.pages.materialize("energy_history", day_key(datetime.now(UTC))))
    assert run["status"] == "SUCCESS"
    printed = [line.partition("| ")[2] for line in pipeline.output[before:].splitlines()]
    assert "energy" in [json.loads(line)["event"] for line in printed]


def test_a_reexecuted_minute_reads_the_current_one(pipeline: Pipeline) -> None:
    now = now_in_hour(60)
    late = {MINUTE_TAG: (now - timedelta(minutes=2)).isoformat()}
    run_id = pipeline.pages.launch("power_minute", hour_key(now), **late)
    assert "MaterializationEvent" not in event_types(pipeline.pages.finished(run_id))
    again = pipeline.pages.finished(pipeline.pages.execute_again(run_id))
    assert again["status"] == "SUCCESS"
    assert "MaterializationEvent" in event_types(again)


def test_minutes_start_at_once_while_background_runs_run_one_at_a_time(pipeline: Pipeline) -> None:
    today = day_key(datetime.now(UTC))
    background = [pipeline.pages.launch("energy_day", today) for _ in range(2)]
    minute = pipeline.pages.read_minute()
    assert minute["status"] == "SUCCESS"
    assert "RunEnqueuedEvent" not in event_types(minute)
    runs = sorted((pipeline.pages.finished(run) for run in background), key=lambda run: float(run["startTime"]))
    assert [run["status"] for run in runs] == ["SUCCESS", "SUCCESS"]
    assert all("RunEnqueuedEvent" in event_types(run) for run in runs)
    assert runs[0]["endTime"] <= runs[1]["startTime"]


def test_without_warm_runs_and_dagster_s_pages_three_services_run_until_sigterm_and_ui_serves_the_pages(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    # The port in `settings` is in use by the shared pipeline.
    small = settings | {
        "AISEG2_WARM_RUNS": "0",
        "AISEG2_UI": "0",
        "AISEG2_SAMPLES_PER_MINUTE": "1",
        **free_ports(),
    }
    with started(tmp_path, small) as cold:
        cold.wait((cold.folder / "data" / "code.sock").is_socket)
        assert cold.services() == {"page", "code-server", "daemon"}
        with started(tmp_path, small, "ui") as shown:
            shown.wait(shown.pages.served)
            # Its one reading is taken at once; the long minute allows for a slow start.
            assert shown.pages.finished(shown.pages.launch_minute(LONG_S))["status"] == "SUCCESS"
            assert cold.times()
            assert cold.processes("multiprocessing.forkserver") == cold.processes("runs") == []
            assert shown.stop(signal.SIGINT) == 0
            assert not shown.pages.served()
            assert "Traceback" not in shown.output
        assert cold.stop(signal.SIGTERM) == 0
        assert "Traceback" not in cold.output


def test_a_dagster_without_the_private_attribute_serves_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = DagsterApiServer.__init__.__code__
    names = tuple("_context" if name == ATTRIBUTE else name for name in code.co_names)
    monkeypatch.setattr(DagsterApiServer.__init__, "__code__", code.replace(co_names=names))
    served: list[bool] = []
    monkeypatch.setattr(dagster._cli.api, "grpc_command", lambda: served.append(True))  # noqa: SLF001 - Dagster's own
    # Otherwise the engines of later tests in this process would be kept.
    monkeypatch.setattr(code_server, "cache_storage_setup", lambda: None)
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(environment({})):
        monkeypatch.delenv(name)
    code_server.main()
    assert served == [True]
    assert not hasattr(DagsterApiServer, ATTRIBUTE)
    (line,) = capfd.readouterr().out.splitlines()
    warning = json.loads(line)
    assert warning["level"] == "warning"
    assert "Every run starts in a new Python" in warning["message"]
    assert "this Dagster has no `_mp_ctx`" in warning["message"]
