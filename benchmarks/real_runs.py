"""Run the pipeline's own services for some minutes, and keep each Dagster home.

There are three: the pipeline's own, one on Dagster's default storage, and one whose device does not answer. `run_history`
copies their rows.
"""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml

from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.running_pipeline import environment

PROJECT = Path(__file__).parents[1]
MINUTES = 3
WAIT_S = 600
NOTHING_LISTENS = "127.0.0.1:9"
TOKEN = "benchmark"  # noqa: S105 - of a server that ends with this


@dataclass(frozen=True)
class Homes:
    """Dagster homes with real runs in them."""

    ours: Path
    default: Path
    failing: Path


def real_runs(folder: Path) -> Homes:
    """Run the services until each has some runs of the minute, about five minutes; ours also fills an hour and reads a day."""
    with ExitStack() as stack:
        unit = stack.enter_context(running(Household(1), clock=lambda: datetime.now(UTC), latency_s=0.05))
        server = stack.enter_context(InfluxServer(folder / "influxdb", token=TOKEN))
        influx = stack.enter_context(Influx(server, "energy"))
        settings = {
            "AISEG2_HOST": unit.address,
            "AISEG2_USER": unit.user,
            "AISEG2_PASSWORD": unit.password,
            **influx.settings,
            "AISEG2_START_DATE": day_key(datetime.now(UTC) - timedelta(days=1)),
            "AISEG2_UI": "0",
        }
        ours = stack.enter_context(_services(folder / "ours", settings))
        default = stack.enter_context(_services(folder / "default", settings, default_storage=True))
        failing = stack.enter_context(_services(folder / "failing", settings | {"AISEG2_HOST": NOTHING_LISTENS}))
        _wait(ours, "power_minute", "SUCCESS", 1)
        yesterday = datetime.now(UTC) - timedelta(days=1)
        _launch(folder / "ours", settings, "power_fill", hour_key(yesterday))
        _launch(folder / "ours", settings, "energy_day", day_key(yesterday))
        for job in ("power_fill", "energy_day"):
            _wait(ours, job, "SUCCESS", 1)
        _launch(folder / "ours", settings, "prune_history")
        _wait(ours, "prune_history", "SUCCESS", 1)
        for home in (ours, default):
            _wait(home, "power_minute", "SUCCESS", MINUTES)
        _wait(failing, "power_minute", "FAILURE", MINUTES)
    return Homes(ours, default, failing)


def file_of_a_run(home: Path) -> float:
    """Return the mean size in bytes of the file of a successful minute run on Dagster's default storage."""
    with sqlite3.connect(home / "history" / "runs.db") as runs:
        ids = runs.execute(
            "SELECT run_id FROM runs WHERE pipeline_name = 'power_minute' AND status = 'SUCCESS'"
        ).fetchall()
    sizes = [(home / "history" / "runs" / f"{run_id}.db").stat().st_size for (run_id,) in ids]
    return sum(sizes) / len(sizes)


# `run` with the dagster.yaml of the current folder instead of the package's.
_RUN = """
from pathlib import Path
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.runtime import services
services.project_folder = Path.cwd
main(["run"])
"""


@contextmanager
def _services(folder: Path, settings: Mapping[str, str], *, default_storage: bool = False) -> Iterator[Path]:
    folder.mkdir()
    instance = yaml.safe_load((PROJECT / "dagster.yaml").read_text(encoding="utf-8"))
    if default_storage:
        del instance["event_log_storage"]
    (folder / "dagster.yaml").write_text(yaml.safe_dump(instance), encoding="utf-8")
    (folder / "workspace.yaml").write_text(
        (PROJECT / "workspace.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    with (folder / "log").open("wb") as log:
        services = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-c", _RUN],
            cwd=folder,
            env=_environment(folder, settings),
            stdout=log,
            stderr=log,
        )
        try:
            yield folder / "data" / "dagster"
        finally:
            services.send_signal(signal.SIGTERM)
            services.wait()


def _environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    data = folder / "data"
    places = {
        "AISEG2_DATA_DIR": str(data),
        "DAGSTER_HOME": str(data / "dagster"),
        "AISEG2_CODE_SERVER": str(data / "code.sock"),
    }
    return environment({**settings, **places})


def _launch(folder: Path, settings: Mapping[str, str], job: str, partition: str | None = None) -> None:
    tags = {"dagster/partition": partition} if partition else {}
    subprocess.run(  # noqa: S603 - our own arguments
        [
            *(sys.executable, "-m", "dagster", "job", "launch", "-w", "workspace.yaml", "-j", job),
            *("--tags", json.dumps(tags), "--config-json", json.dumps({"loggers": {"console": {}}})),
        ],
        cwd=folder,
        env=_environment(folder, settings),
        check=True,
        capture_output=True,
    )


def _wait(home: Path, job: str, status: str, runs: int) -> None:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            with sqlite3.connect(home / "history" / "runs.db") as connection:
                (found,) = connection.execute(
                    "SELECT count(*) FROM runs WHERE pipeline_name = ? AND status = ?", (job, status)
                ).fetchone()
        except sqlite3.OperationalError:
            # The file does not exist yet.
            found = 0
        if found >= runs:
            return
        time.sleep(1)
    raise SystemExit(
        f"{home}: {runs} runs of {job} with {status} were not recorded within {WAIT_S} s: see its log."
    )
