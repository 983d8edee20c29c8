"""`aiseg2-pipeline run` as real processes: it refuses to start with a reason, reads, and ends with all its processes.

The other reasons for which it refuses to start are in `test_error_messages`.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from aiseg2_pipeline.runtime import dagster_home
from aiseg2_pipeline.runtime.services import PAGE, ServicesError, run
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline_tests.support.running_pipeline import (
    COMMAND,
    PROC,
    WITHIN_S,
    Pages,
    Pipeline,
    environment,
    free_ports,
    needs_proc,
    started,
)

FULL = Path("/dev/full")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Call `run`; return the sentence with which it refuses to start."""

    def refusal(folder: Path, **settings: str) -> str:
        data = {"AISEG2_DATA_DIR": str(folder)}
        with pytest.raises(ServicesError) as raised:
            run(Settings.from_environment(data | free_ports() | settings), print)
        return str(raised.value)

    # The first thing that it would start.
    monkeypatch.setattr(dagster_home, "make", lambda *_: pytest.fail("it was not refused"))
    umask = os.umask(0o077)
    yield refusal
    os.umask(umask)


def test_a_port_that_is_in_use_is_refused_with_its_setting(refuse: Callable[..., str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = refuse(tmp_path, AISEG2_SIMULATOR_PORT=port)
    assert sentence.startswith(f"Port {port} on 127.0.0.1 cannot be used (Address already")
    assert "set AISEG2_SIMULATOR_PORT to another port" in sentence


@pytest.mark.parametrize("name", ["100%", "a#b", "why?", "a,b"])
def test_a_data_directory_that_grpc_cannot_address_is_refused_with_its_setting(
    refuse: Callable[..., str], tmp_path: Path, name: str
) -> None:
    sentence = refuse(tmp_path / name)
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


@needs_proc
def test_a_closed_terminal_ends_it_with_success_even_where_services_do_not_react(tmp_path: Path) -> None:
    # The socket file of a killed pipeline does not prevent the start.
    path = tmp_path / "a folder" / "data" / "demo" / "code.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with on_hangup(signal.SIG_DFL), started(tmp_path, free_ports()) as pipeline:
        pipeline.wait(lambda: code_server_listens(pipeline))
        services = [
            pid for name in ("code-server", "runs", "daemon", "webserver") for pid in pipeline.processes(name)
        ]
        assert len(services) == 4
        for pid in services:
            os.kill(pid, signal.SIGSTOP)
        assert pipeline.stop(signal.SIGHUP) == 0
        assert "Traceback" not in pipeline.output


def page_processes(pipeline: Pipeline) -> set[int]:
    """Return the processes of the household's page: the forked one, or else without the shell that starts it again."""
    watched = set(pipeline.processes(PAGE)) - set(pipeline.processes("sleep")) | set(pipeline.processes("page"))
    return watched if PROC.exists() else set()


def newest_on(page: str) -> str | None:
    """Return the time of the newest reading on the household's page; None where it does not answer."""
    try:
        time: str | None = requests.get(f"{page}/api/v1/now", timeout=30).json()["time"]
    except requests.ConnectionError:
        return None
    return time


def test_the_demo_under_nohup_stores_a_reading_shows_its_run_and_stops_at_one_ctrl_c(tmp_path: Path) -> None:
    ports = free_ports()
    with on_hangup(signal.SIG_IGN), started(tmp_path, ports) as pipeline:
        pages = pipeline.pages
        demo = pipeline.folder / "data" / "demo"
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output)
        for line in (
            "a new record begins there",
            "DEMO: no AISEG2_HOST is set",
            f"Dagster's pages: {pages.url} ",
            str(demo),
        ):
            assert line in pipeline.output
        pipeline.wait(pages.served)
        # A page that ends by itself ends nothing else, and starts again.
        first = page_processes(pipeline)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        os.killpg(pipeline.process.pid, signal.SIGHUP)

        def minutes_runs() -> list[dict[str, Any]]:
            done = [run for run in pages.runs() if run["status"] == "SUCCESS"]
            return [run for run in done if run["jobName"] == "power_minute"]

        pipeline.wait(lambda: bool(pipeline.times() and minutes_runs()), 2 * WITHIN_S)
        run = minutes_runs()[0]
        assert {"key": "dagster/schedule_name", "value": "every_minute"} in run["tags"]
        assert pipeline.services() == {"simulator", "page", "code-server", "daemon", "webserver"}
        assert len(pipeline.processes()) > 4 or not PROC.exists()
        pipeline.wait(lambda: not PROC.exists() or bool(page_processes(pipeline) - first))
        page = f"http://127.0.0.1:{ports['AISEG2_PAGE_PORT']}"
        assert pipeline.output.index(page) < pipeline.output.index("Readings and run history")
        pipeline.wait(lambda: newest_on(page) is not None)

        assert pipeline.stop(signal.SIGINT) == 0
        assert pipeline.processes() == []
        for unwanted in ("Traceback", "Warning"):
            assert unwanted not in pipeline.output
        assert list(demo.glob("*-wal")) == []
        # Nothing is written outside the demo's own folder.
        assert list(pipeline.home.iterdir()) == []
        assert list(pipeline.folder.iterdir()) == [demo.parent]
        assert list(demo.parent.iterdir()) == [demo]


@needs_full_disk
def test_it_reads_on_when_the_reader_of_its_output_is_gone_and_the_disk_of_its_errors_is_full(
    tmp_path: Path,
) -> None:
    reader, writer = os.pipe()
    with FULL.open("wb") as full, started(tmp_path, free_ports(), streams=(writer, full.fileno())) as pipeline:
        os.close(writer)
        assert os.read(reader, 1)
        os.close(reader)
        pipeline.wait(lambda: bool(pipeline.times()), 2 * WITHIN_S)
        assert pipeline.stop(signal.SIGTERM) == 0


def test_japanese_settings_and_output_need_no_locale_that_has_them(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / ".env").write_text("INFLUXDB_BUCKET=太陽光\nAISEG2_DATA_DIR=記録\n", encoding="utf-8")
    # Python itself replaces the locale C.
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    settings = free_ports() | ascii_only
    with started(tmp_path, settings) as pipeline:
        pipeline.wait(lambda: bool(pipeline.times()), 2 * WITHIN_S)
        assert str(folder / "記録") in pipeline.output
        read = [*COMMAND, "read"]
        table = subprocess.check_output(read, cwd=folder, env=environment(settings), timeout=WITHIN_S)  # noqa: S603 - ours
        assert "総消費電力" in table.decode()


def test_settings_that_are_changed_in_env_are_used_once_they_are_right(tmp_path: Path) -> None:
    with started(tmp_path, free_ports() | {"AISEG2_WARM_RUNS": "0"}) as pipeline:
        env_file = pipeline.folder / ".env"
        pipeline.wait(lambda: code_server_listens(pipeline))
        env_file.write_text("AISEG2_UI_PATH=energy\n", encoding="utf-8")
        pipeline.wait(lambda: "The settings have changed, but the pipeline continues with" in pipeline.output)
        assert "AISEG2_UI_PATH must be a path like /energy" in pipeline.output
        before = pipeline.times()
        pipeline.wait(lambda: pipeline.times() > before)
        env_file.write_text("AISEG2_UI_PATH=/energy\n", encoding="utf-8")
        pipeline.wait(Pages(f"{pipeline.pages.url}/energy").served)
        assert pipeline.output.count("The settings have changed, but") == 1
        before = pipeline.times()
        pipeline.wait(lambda: pipeline.times() > before)
        assert pipeline.stop(signal.SIGTERM) == 0


def private_mb(pid: int) -> float:
    """Return the memory that a process shares with no other one."""
    lines = (PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


@needs_proc
def test_dagsters_pages_take_their_memory_only_once_they_are_opened(tmp_path: Path) -> None:
    ports = free_ports()
    with started(tmp_path, ports) as pipeline:
        pipeline.wait(lambda: bool(pipeline.times()), 2 * WITHIN_S)
        (pid,) = pipeline.processes("webserver")
        assert private_mb(pid) < 20
        # Whoever opens them may go away before they are there.
        socket.create_connection(("127.0.0.1", int(ports["AISEG2_UI_PORT"]))).close()
        assert pipeline.pages.read_minute()["status"] == "SUCCESS"
        assert private_mb(pid) > 40
        assert pipeline.stop(signal.SIGTERM) == 0
        assert "webserver stopped (rc=0)" in pipeline.output


def test_files_of_the_current_folder_replace_no_module_and_no_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    for module in ("calendar", "queue", "email", "requests", "secrets", "pandas", "dagster"):
        (folder / f"{module}.py").write_text("raise RuntimeError('a module of the current folder')\n")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    (folder / "workspace.yaml").write_text("load_from: []\n")
    settings = free_ports() | {"AISEG2_WARM_RUNS": "0"}
    with started(tmp_path, settings) as pipeline:
        pipeline.wait(lambda: bool(pipeline.times()), 2 * WITHIN_S)
        assert "a module of the current folder" not in pipeline.output
        home = folder / "data" / "demo" / "dagster"
        assert yaml.safe_load((home / "dagster.yaml").read_text())["telemetry"] == {"enabled": False}


@pytest.mark.parametrize(
    ("host", "printed", "warned"),
    [("0.0.0.0", "0.0.0.0", True), ("::1", "[::1]", False)],  # noqa: S104 - stopped at once
)
def test_the_address_is_printed_as_a_url_with_a_warning_where_others_can_reach_it(
    tmp_path: Path, host: str, printed: str, *, warned: bool
) -> None:
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        pytest.skip("this system has no IPv6")
    ports = free_ports()
    with started(tmp_path, ports | {"AISEG2_UI_HOST": host}) as pipeline:
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output)
        assert f"http://{printed}:{ports['AISEG2_UI_PORT']} " in pipeline.output
        assert ("can end and delete runs" in pipeline.output) == warned
