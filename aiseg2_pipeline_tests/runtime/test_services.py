"""`aiseg2-pipeline run` as real processes: it refuses to start with a reason, reads, and ends with all its processes.

The other reasons for which it refuses to start are in `test_error_messages`.
"""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aiseg2_pipeline.runtime import parent_watch
from aiseg2_pipeline_tests.support.running_pipeline import (
    PROC,
    Pipeline,
    needs_proc,
    refusal,
    started,
    two_free_ports,
)

# A start, and the full minute after it; generous, because only a failing test waits that long.
READING_WITHIN_S = 150


def test_a_port_that_is_in_use_is_refused_with_its_setting(tmp_path: Path) -> None:
    ports = two_free_ports()
    with socket.create_server(("127.0.0.1", int(ports["AISEG2_SIMULATOR_PORT"]))):
        sentence = refusal(tmp_path, ports)
    assert sentence.startswith(
        f"Port {ports['AISEG2_SIMULATOR_PORT']} on 127.0.0.1 cannot be used (Address already"
    )
    assert "set AISEG2_SIMULATOR_PORT to another port" in sentence


@pytest.mark.parametrize("name", ["100%", "a#b", "why?"])
def test_a_data_directory_that_grpc_cannot_address_is_refused_with_its_setting(tmp_path: Path, name: str) -> None:
    sentence = refusal(tmp_path, two_free_ports() | {"AISEG2_DATA_DIR": name})
    assert sentence.startswith("The code server cannot listen at ")
    assert "set AISEG2_DATA_DIR to a short path" in sentence


@contextmanager
def on_hangup(handler: signal.Handlers) -> Iterator[None]:
    """Let programs that are started meanwhile inherit this handler; `nohup` makes them ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def code_server_listens(pipeline: Pipeline) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(pipeline.folder / "data" / "demo" / "code.sock")) == 0


def test_a_closed_terminal_ends_it_with_success(tmp_path: Path) -> None:
    # The socket file of a killed pipeline does not prevent the start.
    path = tmp_path / "a folder" / "data" / "demo" / "code.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with on_hangup(signal.SIG_DFL), started(tmp_path, two_free_ports()) as pipeline:
        pipeline.wait(lambda: code_server_listens(pipeline))
        assert pipeline.stop(signal.SIGHUP) == 0
        assert "Traceback" not in pipeline.output


def test_nohup_survives_a_closed_terminal_and_ends_at_sigterm(tmp_path: Path) -> None:
    with on_hangup(signal.SIG_IGN), started(tmp_path, two_free_ports()) as pipeline:
        pipeline.wait(lambda: code_server_listens(pipeline))
        os.killpg(pipeline.process.pid, signal.SIGHUP)
        time.sleep(1)
        assert pipeline.process.poll() is None
        assert pipeline.stop(signal.SIGTERM) == 0
        assert "Traceback" not in pipeline.output


@needs_proc
def test_services_that_do_not_end_at_sigterm_are_killed(tmp_path: Path) -> None:
    with started(tmp_path, two_free_ports()) as pipeline:
        pipeline.wait(lambda: code_server_listens(pipeline))
        services = pipeline.processes(parent_watch.__name__)
        assert len(services) > 4
        for pid in services:
            os.kill(pid, signal.SIGSTOP)
        assert pipeline.stop(signal.SIGTERM) == 0


def test_the_demo_stores_a_reading_shows_its_run_and_stops_at_one_ctrl_c(tmp_path: Path) -> None:
    with started(tmp_path, two_free_ports()) as pipeline:
        pages = pipeline.pages
        demo = pipeline.folder / "data" / "demo"
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output)
        for line in ("DEMO: no AISEG2_HOST is set", f"Dagster's pages: {pages.url} ", str(demo)):
            assert line in pipeline.output
        pipeline.wait(pages.served)

        def successful_runs() -> list[dict[str, Any]]:
            return [run for run in pages.runs() if run["status"] == "SUCCESS"]

        pipeline.wait(lambda: bool(pipeline.times() and successful_runs()), READING_WITHIN_S)
        run = successful_runs()[0]
        assert run["jobName"] == "power_minute"
        assert {"key": "dagster/schedule_name", "value": "every_minute"} in run["tags"]
        assert pipeline.services() == {"simulator", "code-server", "daemon", "webserver"}
        assert len(pipeline.processes()) > 4 or not PROC.exists()

        assert pipeline.stop(signal.SIGINT) == 0
        assert pipeline.processes() == []
        for unwanted in ("Traceback", "Warning"):
            assert unwanted not in pipeline.output
        # Nothing is written outside the demo's own folder.
        assert list(pipeline.home.iterdir()) == []
        assert list(pipeline.folder.iterdir()) == [demo.parent]
        assert list(demo.parent.iterdir()) == [demo]
