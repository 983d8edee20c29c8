"""`aiseg2-pipeline run` and `ui` as real processes: what keeps them from starting, that they work, and that they end."""

import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.frames.readings import TOTAL_CONSUMPTION
from aiseg2_pipeline.runtime import parent_watch
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.running_pipeline import (
    PROC,
    STARTED_WITHIN_S,
    Pipeline,
    refusal,
    started,
    two_free_ports,
)

# A start, and the full minute after it; generous, because only a failing test waits for the end of it.
READING_WITHIN_S = 150


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


@pytest.mark.parametrize("name", ["long" * 30, "100%", "a#b", "why?", "a,b"])
def test_a_data_directory_where_no_code_server_can_listen_is_told_with_its_setting(
    tmp_path: Path, name: str
) -> None:
    sentence = refusal(tmp_path, two_free_ports() | {"AISEG2_DATA_DIR": name})
    assert sentence.startswith("The code server cannot listen at ")
    assert "set AISEG2_DATA_DIR to a short path" in sentence


@contextmanager
def listening(folder: Path) -> Iterator[None]:
    """Listen where the code server of the demo in this folder would; the file stays when nothing listens any more."""
    path = folder / "data" / "demo" / "code.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield


def test_services_that_a_killed_pipeline_left_running_keep_a_second_one_from_starting(tmp_path: Path) -> None:
    with listening(tmp_path):
        sentence = refusal(tmp_path, two_free_ports())
    assert "that was killed still run on the data directory" in sentence
    assert (tmp_path / "data" / "demo" / "code.sock").is_socket()


def test_the_pages_are_refused_where_no_pipeline_runs(tmp_path: Path) -> None:
    ports = two_free_ports()
    never = refusal(tmp_path, ports, "ui")
    assert never.startswith(f"No pipeline runs on the data directory {tmp_path / 'data' / 'demo'}:")
    assert "`aiseg2-pipeline run`" in never
    with listening(tmp_path):
        pass
    assert refusal(tmp_path, ports, "ui") == never


def test_storage_that_cannot_be_made_is_told_before_any_service_starts(tmp_path: Path) -> None:
    home = tmp_path / "a folder" / "data" / "demo" / "dagster"
    home.mkdir(parents=True)
    (home / "history").touch()
    with started(tmp_path, two_free_ports()) as pipeline:
        assert pipeline.process.wait(STARTED_WITHIN_S) == 1
        assert f"Error: Dagster's storage in {home} cannot be made: " in pipeline.output
        assert "Traceback" not in pipeline.output
        assert pipeline.services() == set()


@contextmanager
def at_a_closed_terminal(what: signal.Handlers) -> Iterator[None]:
    """Have programs that are started meanwhile inherit this; `nohup`, perhaps before these tests, has them ignore it."""
    before = signal.signal(signal.SIGHUP, what)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_service_manager_or_a_closed_terminal_ends_it_without_a_failure(
    tmp_path: Path, number: signal.Signals
) -> None:
    with listening(tmp_path / "a folder"):
        pass
    with at_a_closed_terminal(signal.SIG_DFL), started(tmp_path, two_free_ports()) as pipeline:
        # What a killed pipeline left of its socket does not hinder this one.
        pipeline.wait(lambda: code_server_listens(pipeline), STARTED_WITHIN_S)
        assert pipeline.stop(number) == 0
        assert "Traceback" not in pipeline.output


def test_a_closed_terminal_does_not_end_what_nohup_started(tmp_path: Path) -> None:
    with at_a_closed_terminal(signal.SIG_IGN), started(tmp_path, two_free_ports()) as pipeline:
        pipeline.wait(lambda: code_server_listens(pipeline), STARTED_WITHIN_S)
        os.killpg(pipeline.process.pid, signal.SIGHUP)
        time.sleep(1)
        assert pipeline.process.poll() is None
        assert pipeline.stop(signal.SIGTERM) == 0


@pytest.mark.skipif(not PROC.exists(), reason="Processes are found in /proc.")
def test_services_that_do_not_end_when_told_to_are_killed(tmp_path: Path) -> None:
    with started(tmp_path, two_free_ports()) as pipeline:
        pipeline.wait(lambda: code_server_listens(pipeline), STARTED_WITHIN_S)
        services = pipeline.processes(parent_watch.__name__)
        assert len(services) > 4
        for pid in services:
            os.kill(pid, signal.SIGSTOP)
        assert pipeline.stop(signal.SIGTERM) == 0


def code_server_listens(pipeline: Pipeline) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(pipeline.folder / "data" / "demo" / "code.sock")) == 0


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
    with started(tmp_path, ports) as pipeline:
        pages = pipeline.pages
        demo = pipeline.folder / "data" / "demo"
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output, STARTED_WITHIN_S)
        for said in ("DEMO: no AISEG2_HOST is set", f"Dagster's pages: {pages.url} ", str(demo)):
            assert said in pipeline.output
        assert f"already runs on the data directory {demo}:" in refusal(pipeline.folder, two_free_ports())

        pipeline.wait(pages.served, STARTED_WITHIN_S)
        pipeline.wait(
            lambda: (
                stored_totals(demo / "readings.sqlite") > 0
                and any(run["status"] == "SUCCESS" for run in pages.runs())
            ),
            READING_WITHIN_S,
        )
        (run, *_) = [run for run in pages.runs() if run["status"] == "SUCCESS"]
        assert run["jobName"] == "power_minute"
        assert {"key": "dagster/schedule_name", "value": "every_minute"} in run["tags"]
        with socket.socket() as elsewhere:
            elsewhere.settimeout(5)
            assert elsewhere.connect_ex(("127.0.0.2", int(ports["AISEG2_UI_PORT"]))) != 0
        assert pipeline.services() == {"simulator", "code-server", "daemon", "webserver"}
        assert len(pipeline.processes()) > 4 or not PROC.exists()
        # Whoever reaches the code server can start runs.
        assert stat.S_IMODE((demo / "code.sock").stat().st_mode) & 0o077 == 0

        assert pipeline.stop(signal.SIGINT) == 0
        assert pipeline.processes() == []
        for unwanted in ("Traceback", "Warning"):
            assert unwanted not in pipeline.output

        kept = [demo, *demo.rglob("*")]
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_dir()} == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in kept if path.is_file()} == {0o600}
        assert list(pipeline.home.iterdir()) == []
        assert list(pipeline.folder.iterdir()) == [demo.parent]
        assert list(demo.parent.iterdir()) == [demo]
        assert stored_totals(demo / "readings.sqlite") > 0
