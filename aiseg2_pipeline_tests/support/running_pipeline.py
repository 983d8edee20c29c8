"""Run a whole pipeline as real processes in a folder of its own, and use its pages as a browser does."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from aiseg2_pipeline.gaps.simulated import UNTIL
from aiseg2_pipeline.ingest.power import READINGS_END_S
from aiseg2_pipeline.japan_time import hour_key, hour_of
from aiseg2_pipeline.orchestration.jobs import LOGGED
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.small_files import replace_text
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.tags import MINUTE_TAG
from aiseg2_pipeline_tests.support.free_port import free_port

# As the installed script does, without modules of the current folder.
COMMAND = [sys.executable, "-P", "-m", "aiseg2_pipeline.cli"]
PROC = Path("/proc")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="processes are inspected in /proc")
REPOSITORY = {"repositoryLocationName": "aiseg2-pipeline", "repositoryName": "__repository__"}
# Generous, because only a failing test waits that long.
WITHIN_S = 180
RUN_STARTED_WITHIN_S = 30
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

_RUN = """query ($id: ID!) { runOrError(runId: $id) { ... on Run {
    jobName status startTime endTime
    eventConnection { events { __typename ... on MessageEvent { message } } } } } }"""
_RUNS = "{ runsOrError { ... on Runs { results { runId jobName status tags { key value } } } } }"
_LAUNCH = """mutation ($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_EXECUTE_AGAIN = """mutation ($parameters: ReexecutionParams!) {
    launchRunReexecution(reexecutionParams: $parameters) {
        __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
_TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"


@dataclass
class Pages:
    """Dagster's pages at `url`."""

    url: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=WITHIN_S
        )
        content: dict[str, Any] = answer.json()
        assert "errors" not in content, content
        data: dict[str, Any] = content["data"]
        return data

    def served(self) -> bool:
        try:
            return requests.get(f"{self.url}/server_info", timeout=30).ok
        except requests.RequestException:
            return False

    def runs(self) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self.ask(_RUNS)["runsOrError"]["results"]
        return runs

    def launch(
        self, job: str, partition: str = "", selection: Mapping[str, Any] | None = None, /, **tags: str
    ) -> str:
        """Launch a run as the pages do; return its id."""
        if partition:
            tags["dagster/partition"] = partition
        parameters = {
            "selector": REPOSITORY | {"jobName": job} | dict(selection or {}),
            "runConfigData": LOGGED,
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
        return _launched(self.ask(_LAUNCH, parameters=parameters)["launchRun"])

    def materialize(self, asset: str, partition: str) -> str:
        """Materialize a partition of an asset as its button does, without run config; return the run's id."""
        parameters = {
            "selector": REPOSITORY | {"jobName": "__ASSET_JOB", "assetSelection": [{"path": [asset]}]},
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
        }
        return _launched(self.ask(_LAUNCH, parameters=parameters)["launchRun"])

    def execute_again(self, run_id: str) -> str:
        """Do what *Re-execute all* does; return the new run's id."""
        parameters = {"parentRunId": run_id, "strategy": "ALL_STEPS"}
        return _launched(self.ask(_EXECUTE_AGAIN, parameters=parameters)["launchRunReexecution"])

    def launch_minute(self, lasting_s: float = 0) -> str:
        """Launch a minute's run; return its id.

        Of its readings it takes the first at once, and the second of two after `lasting_s` (0: not at all). It takes none
        where it starts more than 10 s after twice that time.
        """
        now = now_in_hour()
        minute = now + timedelta(seconds=2 * lasting_s - READINGS_END_S)
        return self.launch("power_minute", hour_key(now), **{MINUTE_TAG: minute.isoformat()})

    def read_minute(self) -> dict[str, Any]:
        """Launch a minute's run until one was not too late for its reading, as it can be on a busy machine; return it."""
        for _ in range(10):
            run = self.finished(self.launch_minute())
            if run["status"] != "SUCCESS" or "MaterializationEvent" in event_types(run):
                break
        return run

    def terminate(self, run_id: str) -> None:
        answer = self.ask(_TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def run(self, run_id: str) -> dict[str, Any]:
        run: dict[str, Any] = self.ask(_RUN, id=run_id)["runOrError"]
        return run

    def finished(self, run_id: str, within_s: float = WITHIN_S) -> dict[str, Any]:
        """Return the run once it has ended."""
        return self._once(run_id, lambda run: run["status"] in FINISHED, within_s)

    def process_in(self, run_id: str) -> int:
        """Return the process id of the run once its first step has started."""
        run = self._once(run_id, lambda run: "ExecutionStepStartEvent" in event_types(run), WITHIN_S)
        return process_of(run)

    def _once(self, run_id: str, condition: Callable[[dict[str, Any]], bool], within_s: float) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while not condition(run := self.run(run_id)):
            assert time.monotonic() < end, run
            time.sleep(0.05)
        return run


def now_in_hour(left_s: float = RUN_STARTED_WITHIN_S) -> datetime:
    """Return the time, in an hour that does not end within `left_s`: a run reads only in the hour of its partition."""
    now = datetime.now(UTC)
    soon = now + timedelta(seconds=left_s)
    if hour_of(soon) != hour_of(now):
        time.sleep((hour_of(soon) - now).total_seconds())
        now = datetime.now(UTC)
    return now


def _launched(answer: dict[str, Any]) -> str:
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run_id: str = answer["run"]["runId"]
    return run_id


def event_types(run: dict[str, Any]) -> list[str]:
    """Return the types of the run's events."""
    return [event["__typename"] for event in run["eventConnection"]["events"]]


def process_of(run: dict[str, Any]) -> int:
    """Return the process id in the run's events."""
    messages = "\n".join(event.get("message", "") for event in run["eventConnection"]["events"])
    (pid,) = re.findall(r"^Started process for run \(pid: ([0-9]+)\)", messages, re.MULTILINE)
    return int(pid)


@dataclass
class Pipeline:
    """A started pipeline in a folder of its own; its home directory identifies all its processes."""

    process: subprocess.Popen[bytes]
    folder: Path
    home: Path
    log: Path
    pages: Pages

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def processes(self, holding: str = "") -> list[int]:
        """Return the ids of its processes, itself included, with this text in the command line or as their name; [] without /proc."""
        mark = os.fsencode(f"HOME={self.home}")
        found = []
        for path in PROC.glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    command = path.with_name("cmdline").read_bytes().replace(b"\0", b" ")
                    name = path.with_name("comm").read_bytes().strip()
                    if os.fsencode(holding) in command or os.fsencode(holding) == name:
                        found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def services(self) -> set[str]:
        """Return the names of the services that were started."""
        return set(re.findall(r"^[0-9:]+ system +\| (\S+) started \(pid=", self.output, re.MULTILINE))

    def times(self) -> set[datetime]:
        """Return the times of the live readings in the store."""
        return {time for path in self.folder.rglob("readings.sqlite") for time in live_times(path)}

    def wait(self, condition: Callable[[], bool], seconds: float = WITHIN_S) -> None:
        """Return once the condition holds; fail when it does not in time, or the pipeline has ended."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill all its processes, as a power cut does."""
        end = time.monotonic() + WITHIN_S
        while pids := self.processes():
            assert time.monotonic() < end, pids
            for pid in pids:
                # It can have ended since it was listed.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals) -> int:
        """Send a signal to the process group, as a terminal does; return the exit code once all have ended."""
        os.killpg(self.process.pid, number)
        code = self.process.wait(WITHIN_S)
        end = time.monotonic() + WITHIN_S
        while self.processes():
            assert time.monotonic() < end, self.output
            time.sleep(0.1)
        return code


def live_times(path: Path) -> set[datetime]:
    """Return the times of the live readings in a store."""
    with Store.open(path) as store:
        table = store.read(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    return set(table.loc[table["interval_s"] == 0, "time"])


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings and no others."""
    ours = {str(field.alias) for field in Settings.model_fields.values()} | {"DAGSTER_HOME"}
    return {name: value for name, value in os.environ.items() if name not in ours} | dict(settings)


@contextmanager
def started(
    tmp_path: Path,
    settings: Mapping[str, str],
    command: str = "run",
    umask: int = 0o022,
    streams: tuple[int, int] | None = None,
    *,
    past: bool = False,
) -> Iterator[Pipeline]:
    """Start the pipeline, or `ui`, in a folder that an earlier start may have used; kill all its processes at the end.

    `streams` are its stdout and stderr instead of its log. The demo's simulated home has a `past` only where a test is
    about it: all readings of the others are live.
    """
    folder, home, log = tmp_path / "a folder", tmp_path / f"home of {command}", tmp_path / f"{command}.log"
    folder.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    if not (past or "AISEG2_HOST" in settings):
        replace_text(folder / settings.get("AISEG2_DATA_DIR", "data") / "demo" / UNTIL, "")
    with log.open("wb") as output:
        stdout, stderr = streams or (output.fileno(), output.fileno())
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*COMMAND, command],
            cwd=folder,
            env=environment(settings) | {"HOME": str(home)},
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            umask=umask,
        )
    pipeline = Pipeline(process, folder, home, log, Pages(f"http://127.0.0.1:{settings['AISEG2_UI_PORT']}"))
    try:
        yield pipeline
    finally:
        pipeline.kill()


def free_ports() -> dict[str, str]:
    """Return the settings of a pipeline's ports."""
    return {name: str(free_port()) for name in ("AISEG2_UI_PORT", "AISEG2_PAGE_PORT", "AISEG2_SIMULATOR_PORT")}


def refusal(folder: Path, settings: Mapping[str, str], command: str = "run") -> str:
    """Return the one sentence with which the command refuses to start."""
    ended = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, command],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr.removeprefix("Error: ").strip()
