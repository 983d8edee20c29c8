"""Start, control and stop each variant of the pipeline by its commands and its GraphQL API.

The measurements belong in `minute_run`, the cost of processes in `processes`.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import requests

from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.running_pipeline import environment
from benchmarks.processes import Tree

PROJECT = Path(__file__).parents[1]
STOCK = Path(__file__).parent / "stock"
MINUTE = "every_minute"
START_S = 120
STOP_S = 30
_SWITCHES = """{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name }
    schedules { name scheduleState { id status } } sensors { name sensorState { id status } } } } } }"""
_STOP_SCHEDULE = "mutation($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
_STOP_SENSOR = "mutation($id: String!) { stopSensor(id: $id) { __typename } }"
_START_SCHEDULE = (
    "mutation($schedule: ScheduleSelector!) { startSchedule(scheduleSelector: $schedule) { __typename } }"
)
_UNFINISHED = """{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]}) {
    ... on Runs { results { id } } } }"""


@dataclass(frozen=True)
class Variant:
    """One way to run the same minute: `start` starts its processes in a data directory, on a port.

    Where its pages are `closed`, it is switched through `aiseg2-pipeline ui`: its own would keep the memory of having been
    opened.
    """

    name: str
    title: str
    start: Callable[["Pipeline"], None]
    closed: bool = False


class Pipeline:
    """A running variant; use it as a context manager.

    `settings` are the project's, by their environment names; nothing of the caller's own settings reaches it.
    """

    def __init__(self, variant: Variant, folder: Path, port: int, settings: Mapping[str, str]) -> None:
        """Prepare the environment in an empty folder; nothing is started."""
        self.folder = folder
        self.port = self._queried = port
        self.environment = environment(
            {
                **settings,
                "AISEG2_DATA_DIR": str(folder / "data"),
                "AISEG2_UI_PORT": str(port),
                "AISEG2_PAGE_PORT": str(free_port()),
                # The stock variants import modules of this folder.
                "PYTHONPATH": str(PROJECT),
            }
        )
        self._variant = variant
        self._log = folder / "log"
        self._session = requests.Session()
        self._stack = ExitStack()
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start the variant; return when its schedules are listed."""
        with ExitStack() as stack:
            self.tree = stack.enter_context(Tree())
            stack.callback(self._stop)
            self._variant.start(self)
            with self._pages():
                self._wait(lambda: bool(self._repositories()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all of its processes."""
        self._stack.close()

    def run(self, *arguments: str) -> None:
        """Run a Python module to its end."""
        with self._log.open("ab") as log:
            subprocess.run(  # noqa: S603 - our own arguments
                [sys.executable, "-m", *arguments],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                check=True,
            )

    def spawn(self, *arguments: str, **variables: str) -> None:
        """Start a Python module as a process of the pipeline."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own arguments
                [sys.executable, "-m", *arguments],
                env=self.environment | variables,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self._started.append(process)

    def switch_all_off(self) -> None:
        """Stop all schedules and sensors; return when no run is active."""
        with self._pages():
            for repository in self._repositories():
                for schedule in repository["schedules"]:
                    self._query(_STOP_SCHEDULE, id=schedule["scheduleState"]["id"])
                for sensor in repository["sensors"]:
                    self._query(_STOP_SENSOR, id=sensor["sensorState"]["id"])
            self._wait(lambda: not self._query(_UNFINISHED)["runsOrError"]["results"])
            left_on = self._running()
        if left_on:
            raise SystemExit(f"These could not be switched off: {', '.join(left_on)}.")

    def switch_minute_on(self) -> None:
        """Start the minute schedule alone."""
        with self._pages():
            (repository,) = self._repositories()
            selector = {
                "repositoryName": repository["name"],
                "repositoryLocationName": repository["location"]["name"],
                "scheduleName": MINUTE,
            }
            self._query(_START_SCHEDULE, schedule=selector)
            if self._running() != [MINUTE]:
                raise SystemExit(f"The schedule {MINUTE} could not be switched on.")

    def log_end(self) -> str:
        """Return the end of the log of its processes."""
        return f"The end of its log:\n{self._log.read_text(encoding='utf-8', errors='replace')[-2000:]}"

    @contextmanager
    def _pages(self) -> Iterator[None]:
        """Let queries be answered meanwhile: by the variant's own pages, or by others beside it."""
        if not self._variant.closed:
            yield
            return
        socket = Settings.from_environment(self.environment).code_server_socket
        self._wait(socket.is_socket)
        self._queried = free_port()
        self.spawn("aiseg2_pipeline.cli", "ui", AISEG2_UI_PORT=str(self._queried))
        self._wait(lambda: bool(self._repositories()))
        try:
            yield
        finally:
            beside = self._started.pop()
            beside.terminate()
            beside.wait(STOP_S)

    def _running(self) -> list[str]:
        return [
            switch["name"]
            for repository in self._repositories()
            for kind, state in (("schedules", "scheduleState"), ("sensors", "sensorState"))
            for switch in repository[kind]
            if switch[state]["status"] == "RUNNING"
        ]

    def _repositories(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._query(_SWITCHES)["repositoriesOrError"].get("nodes", [])
        return found

    def _query(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self._session.post(
            f"http://127.0.0.1:{self._queried}/graphql", json={"query": query, "variables": variables}, timeout=30
        ).json()
        if "errors" in answer:
            raise SystemExit(f"Dagster's webserver rejected a query: {answer['errors'][0]['message']}")
        data: dict[str, Any] = answer["data"]
        return data

    def _wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and all(process.poll() is None for process in self._started):
            try:
                if condition():
                    return
            except requests.ConnectionError:
                # The webserver does not listen yet.
                pass
            time.sleep(1)
        raise SystemExit(f"The variant {self._variant.name} did not start. {self.log_end()}")

    def _stop(self) -> None:
        self._session.close()
        for process in self._started:
            process.terminate()
        end = time.monotonic() + STOP_S
        while time.monotonic() < end and not self.tree.ended():
            time.sleep(0.2)


def _ours(pipeline: Pipeline, warm_runs: str, **variables: str) -> None:
    pipeline.spawn("aiseg2_pipeline.cli", "run", AISEG2_WARM_RUNS=warm_runs, **variables)


def _stock(pipeline: Pipeline, module: str) -> None:
    home = pipeline.folder / "home"
    home.mkdir()
    shutil.copyfile(STOCK / "dagster.yaml", home / "dagster.yaml")
    pipeline.environment["DAGSTER_HOME"] = str(home)
    # Otherwise webserver and daemon would both create the storage, and one of them would fail.
    pipeline.run("dagster", "instance", "migrate")
    pipeline.spawn("dagster_webserver", "-m", module, "-h", "127.0.0.1", "-p", str(pipeline.port))
    pipeline.spawn("dagster._daemon", "run", "-m", module)


VARIANTS = (
    Variant(
        "stock-multiprocess",
        "stock, default executor",
        lambda pipeline: _stock(pipeline, "benchmarks.stock.multiprocess"),
    ),
    Variant(
        "stock-in-process",
        "stock, in-process executor",
        lambda pipeline: _stock(pipeline, "benchmarks.stock.in_process"),
    ),
    Variant("ours-cold", "ours, without warm runs", lambda pipeline: _ours(pipeline, "0"), closed=True),
    Variant("ours-opened", "ours, warm runs, Dagster's pages opened", lambda pipeline: _ours(pipeline, "1")),
    Variant("ours-warm", "ours, warm runs", lambda pipeline: _ours(pipeline, "1"), closed=True),
    Variant(
        "ours-no-ui",
        "ours, warm runs, `AISEG2_UI=0`",
        lambda pipeline: _ours(pipeline, "1", AISEG2_UI="0"),
        closed=True,
    ),
)
