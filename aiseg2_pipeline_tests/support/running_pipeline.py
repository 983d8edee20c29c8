"""A whole pipeline as real processes, in a folder and a home of its own, and its pages as a browser uses them."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

from aiseg2_pipeline.ingest.power import READINGS_END_S
from aiseg2_pipeline.japan_time import hour_of
from aiseg2_pipeline.orchestration.jobs import LOGGED
from aiseg2_pipeline.orchestration.partitions import hour_key
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.tags import MINUTE_TAG

COMMAND = [sys.executable, "-m", "aiseg2_pipeline.cli"]
PROC = Path("/proc")
# Generous, because only a failing test waits for the end of it.
STARTED_WITHIN_S = 60
STOPPED_WITHIN_S = 60
RUN_STARTED_WITHIN = timedelta(seconds=10)
FINISHED = {"SUCCESS", "FAILURE", "CANCELED"}

_RUN = """query ($id: ID!) { runOrError(runId: $id) { ... on Run {
    jobName status startTime endTime
    eventConnection { events { __typename ... on MessageEvent { message } } } } } }"""
_RUNS = "{ runsOrError { ... on Runs { results { jobName status tags { key value } } } } }"
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
        answer = requests.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30)
        told: dict[str, Any] = answer.json()
        assert "errors" not in told, told
        data: dict[str, Any] = told["data"]
        return data

    def served(self) -> bool:
        try:
            return requests.get(f"{self.url}/server_info", timeout=30).ok
        except requests.ConnectionError:
            return False

    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(_RUNS)["runsOrError"]["results"]
        return found

    def launch(self, job: str, partition: str, **tags: str) -> str:
        """Launch a run as the pages do; return its id."""
        parameters = {
            "selector": {
                "repositoryLocationName": "aiseg2-pipeline",
                "repositoryName": "__repository__",
                "jobName": job,
            },
            "runConfigData": LOGGED,
            "executionMetadata": {
                "tags": [
                    {"key": key, "value": value} for key, value in {"dagster/partition": partition, **tags}.items()
                ]
            },
        }
        return _launched(self.ask(_LAUNCH, parameters=parameters)["launchRun"])

    def materialize(self, asset: str, partition: str) -> str:
        """Materialize a partition as the button of the pages does; return the run's id."""
        parameters = {
            "selector": {
                "repositoryLocationName": "aiseg2-pipeline",
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": [asset]}],
            },
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": partition}]},
        }
        return _launched(self.ask(_LAUNCH, parameters=parameters)["launchRun"])

    def execute_again(self, run_id: str) -> str:
        """Do what *Re-execute all* does; return the new run's id."""
        parameters = {"parentRunId": run_id, "strategy": "ALL_STEPS"}
        return _launched(self.ask(_EXECUTE_AGAIN, parameters=parameters)["launchRunReexecution"])

    def launch_minute(self, lasting_s: float = 0) -> str:
        """Launch a minute's run that waits so many seconds for the second of its two readings; return its id.

        0 leaves the second one out.
        """
        now = datetime.now(UTC)
        soon = now + RUN_STARTED_WITHIN
        if hour_of(soon) != hour_of(now):
            # A run reads only in the hour it is for.
            time.sleep((hour_of(soon) - now).total_seconds())
            now = datetime.now(UTC)
        minute = now + timedelta(seconds=2 * lasting_s - READINGS_END_S)
        return self.launch("power_minute", hour_key(now), **{MINUTE_TAG: minute.isoformat()})

    def terminate(self, run_id: str) -> None:
        told = self.ask(_TERMINATE, id=run_id)["terminateRun"]
        assert told["__typename"] == "TerminateRunSuccess", told

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask(_RUN, id=run_id)["runOrError"]
        return found

    def finished(self, run_id: str, within_s: float = 60) -> dict[str, Any]:
        """Return the run once it has ended."""
        return self._once(run_id, lambda run: run["status"] in FINISHED, within_s)

    def process_in(self, run_id: str) -> int:
        """Return the process id of the run once its first step goes."""
        run = self._once(run_id, lambda run: "ExecutionStepStartEvent" in kinds(run), 60)
        return process_of(run)

    def _once(self, run_id: str, what: Callable[[dict[str, Any]], bool], within_s: float) -> dict[str, Any]:
        end = time.monotonic() + within_s
        while not what(run := self.run(run_id)):
            assert time.monotonic() < end, run
            time.sleep(0.05)
        return run


def _launched(told: dict[str, Any]) -> str:
    assert told["__typename"] == "LaunchRunSuccess", told
    run_id: str = told["run"]["runId"]
    return run_id


def kinds(run: dict[str, Any]) -> list[str]:
    """Return the kinds of the run's events."""
    return [event["__typename"] for event in run["eventConnection"]["events"]]


def process_of(run: dict[str, Any]) -> int:
    """Return the process id that the run's events tell."""
    messages = "\n".join(event.get("message", "") for event in run["eventConnection"]["events"])
    (pid,) = re.findall(r"^Started process for run \(pid: ([0-9]+)\)", messages, re.MULTILINE)
    return int(pid)


@dataclass
class Pipeline:
    """A pipeline that was started in a folder of its own, with a home of its own that marks all its processes."""

    process: subprocess.Popen[bytes]
    folder: Path
    home: Path
    log: Path
    pages: Pages

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def processes(self, holding: str = "") -> list[int]:
        """Return the ids of all processes that it started, itself included, with this in the command line.

        None where there is no /proc.
        """
        mark = os.fsencode(f"HOME={self.home}")
        found = []
        for path in PROC.glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    command = path.with_name("cmdline").read_bytes().replace(b"\0", b" ")
                    if os.fsencode(holding) in command:
                        found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def services(self) -> set[str]:
        """Return the names of the services that were started."""
        return set(re.findall(r"^[0-9:]+ system +\| (\S+) started \(pid=", self.output, re.MULTILINE))

    def wait(self, what: Callable[[], bool], seconds: float) -> None:
        """Return once `what` holds; fail when it does not in time, or the pipeline has ended."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.1)

    def stop(self, number: signal.Signals) -> int:
        """Signal the foreground processes, as a terminal does; return the exit code once all have ended."""
        os.killpg(self.process.pid, number)
        code = self.process.wait(STOPPED_WITHIN_S)
        end = time.monotonic() + STOPPED_WITHIN_S
        while self.processes():
            assert time.monotonic() < end, self.output
            time.sleep(0.1)
        return code


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings and no others."""
    ours = {str(field.alias) for field in Settings.model_fields.values()} | {"DAGSTER_HOME"}
    return {name: value for name, value in os.environ.items() if name not in ours} | dict(settings)


@contextmanager
def started(
    tmp_path: Path, settings: Mapping[str, str], command: str = "run", umask: int = 0o022
) -> Iterator[Pipeline]:
    """Give the pipeline (or another command of its kind) that was just started; nothing of it is left afterwards.

    Where one ran before in this folder, this is its next start.
    """
    folder, home, log = tmp_path / "a folder", tmp_path / f"home of {command}", tmp_path / f"{command}.log"
    folder.mkdir(exist_ok=True)
    home.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*COMMAND, command],
            cwd=folder,
            env=environment(settings) | {"HOME": str(home)},
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=umask,
        )
    pipeline = Pipeline(process, folder, home, log, Pages(f"http://127.0.0.1:{settings['AISEG2_UI_PORT']}"))
    try:
        yield pipeline
    finally:
        for pid in pipeline.processes():
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def two_free_ports() -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return {
            "AISEG2_UI_PORT": str(one.getsockname()[1]),
            "AISEG2_SIMULATOR_PORT": str(other.getsockname()[1]),
        }


def refusal(folder: Path, settings: Mapping[str, str], command: str = "run") -> str:
    """Return the sentence with which it refuses to start, which must be all that it says."""
    ended = subprocess.run(  # noqa: S603 - our own command
        [*COMMAND, command],
        cwd=folder,
        env=environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr.removeprefix("Error: ").strip()
