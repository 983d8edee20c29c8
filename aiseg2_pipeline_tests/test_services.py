"""`aiseg2-pipeline run` as real processes: what keeps it from starting, that it works, and that it ends."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from aiseg2_pipeline.readings import TOTAL_CONSUMPTION
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store

RUN = [sys.executable, "-m", "aiseg2_pipeline.cli", "run"]
PROC = Path("/proc")
# Generous, because only a failing test waits for the end of it: a start, and the full minute after it.
READING_WITHIN_S = 150
STOPPED_WITHIN_S = 60
RUNS = "{ runsOrError { ... on Runs { results { jobName status tags { key value } } } } }"


@dataclass
class Pipeline:
    """A pipeline that was started in a folder of its own, with a home of its own that marks all its processes."""

    process: subprocess.Popen[bytes]
    folder: Path
    home: Path
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def processes(self) -> list[int]:
        """Return the ids of all processes that it started, itself included (none where there is no /proc)."""
        mark = os.fsencode(f"HOME={self.home}")
        found = []
        for path in PROC.glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    def wait(self, what: Callable[[], bool], seconds: float) -> None:
        """Return once `what` holds; fail when it does not in time, or the pipeline has ended."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.2)

    def stop(self, number: signal.Signals) -> int:
        """Signal the foreground processes, as a terminal does; return the exit code once all have ended."""
        os.killpg(self.process.pid, number)
        code = self.process.wait(STOPPED_WITHIN_S)
        end = time.monotonic() + STOPPED_WITHIN_S
        while self.processes():
            assert time.monotonic() < end, self.output
            time.sleep(0.2)
        return code


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings and no others."""
    ours = {str(field.alias) for field in Settings.model_fields.values()} | {"DAGSTER_HOME"}
    return {name: value for name, value in os.environ.items() if name not in ours} | dict(settings)


@contextmanager
def started(tmp_path: Path, settings: Mapping[str, str]) -> Iterator[Pipeline]:
    folder, home, log = tmp_path / "a folder", tmp_path / "home", tmp_path / "log"
    folder.mkdir()
    home.mkdir()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            RUN,
            cwd=folder,
            env=environment(settings) | {"HOME": str(home)},
            stdout=output,
            stderr=output,
            start_new_session=True,
            umask=0o022,
        )
    pipeline = Pipeline(process, folder, home, log)
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


def refusal(folder: Path, settings: Mapping[str, str]) -> str:
    """Return the sentence with which it refuses to start, which must be all that it says."""
    ended = subprocess.run(  # noqa: S603 - our own command
        RUN, cwd=folder, env=environment(settings), capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr.removeprefix("Error: ").strip()


@pytest.mark.parametrize("setting", ["AISEG2_UI_PORT", "AISEG2_SIMULATOR_PORT"])
def test_a_port_that_is_taken_is_told_with_its_setting(tmp_path: Path, setting: str) -> None:
    ports = two_free_ports()
    with socket.create_server(("127.0.0.1", int(ports[setting]))):
        sentence = refusal(tmp_path, ports)
    assert sentence.startswith(f"Port {ports[setting]} on 127.0.0.1 cannot be used (Address already in use)")
    assert f"set {setting} to another port" in sentence


def test_an_address_that_is_none_of_this_machine_is_told_with_its_setting(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, two_free_ports() | {"AISEG2_UI_HOST": "192.0.2.1"})
    assert "set AISEG2_UI_HOST" in sentence


def test_a_data_directory_that_cannot_be_made_is_told_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = refusal(tmp_path, two_free_ports() | {"AISEG2_DATA_DIR": "file/data"})
    assert "Not a directory" in sentence
    assert "set AISEG2_DATA_DIR" in sentence


def test_a_service_manager_ends_it_without_a_failure(tmp_path: Path) -> None:
    with started(tmp_path, two_free_ports()) as pipeline:
        pipeline.wait(lambda: pipeline.output.count(" started (pid=") == 3, 60)
        assert pipeline.stop(signal.SIGTERM) == 0
        assert "Traceback" not in pipeline.output


def runs(ui: str) -> list[dict[str, Any]]:
    """Return the runs that Dagster's pages show, none before these are served."""
    try:
        answer = requests.post(f"{ui}/graphql", json={"query": RUNS}, timeout=30)
    except requests.RequestException:
        return []
    found: list[dict[str, Any]] = answer.json()["data"]["runsOrError"]["results"]
    return found


def stored_totals(path: Path) -> int:
    if not path.exists():
        return 0
    with Store.open(path) as store:
        table = store.read(
            datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), names=[TOTAL_CONSUMPTION]
        )
    return len(table)


def test_the_demo_takes_a_reading_shows_its_run_and_stops_at_one_ctrl_c(tmp_path: Path) -> None:
    ports = two_free_ports()
    ui = f"http://127.0.0.1:{ports['AISEG2_UI_PORT']}"
    with started(tmp_path, ports) as pipeline:
        demo = pipeline.folder / "data" / "demo"
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output, 60)
        for said in ("DEMO: no AISEG2_HOST is set", f"Dagster's pages: {ui} ", str(demo)):
            assert said in pipeline.output
        assert f"already runs on the data directory {demo}:" in refusal(pipeline.folder, two_free_ports())

        pipeline.wait(
            lambda: (
                stored_totals(demo / "readings.sqlite") > 0 and any(run["status"] == "SUCCESS" for run in runs(ui))
            ),
            READING_WITHIN_S,
        )
        (run, *_) = [run for run in runs(ui) if run["status"] == "SUCCESS"]
        assert run["jobName"] == "power_minute"
        assert {"key": "dagster/schedule_name", "value": "every_minute"} in run["tags"]
        with socket.socket() as elsewhere:
            elsewhere.settimeout(5)
            assert elsewhere.connect_ex(("127.0.0.2", int(ports["AISEG2_UI_PORT"]))) != 0
        assert len(pipeline.processes()) > 3 or not PROC.exists()

        assert pipeline.stop(signal.SIGINT) == 0
        assert pipeline.processes() == []
        assert "Traceback" not in pipeline.output

        kept = [demo, *demo.rglob("*")]
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_dir()} == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_file()} == {0o600}
        assert list(pipeline.home.iterdir()) == []
        assert list(pipeline.folder.iterdir()) == [demo.parent]
        assert list(demo.parent.iterdir()) == [demo]
        assert stored_totals(demo / "readings.sqlite") > 0
