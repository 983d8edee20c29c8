"""`aiseg2-pipeline run`: code server, daemon and webserver (and in the demo the simulator) until Ctrl-C.

The processes are honcho's to run; here is only what must be right before they start: free ports, one pipeline on a
data directory, a Dagster home with its storage made. `aiseg2-pipeline ui` starts the webserver alone, beside them.
"""

import errno
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
from honcho.manager import Manager

from aiseg2_pipeline import dagster_home, notify
from aiseg2_pipeline.settings import Settings, environment

WORKSPACE = "workspace.yaml"
CALM = "aiseg2_pipeline.orchestration.calm"
# What means something else in the address of a socket.
_NO_SOCKET_NAME = re.compile("[%#?,]")


class ServicesError(Exception):
    """Why the services cannot be started, in one sentence."""


def run(settings: Settings, say: Callable[[str], None]) -> int:
    """Run all services in the foreground; return the exit code. Raise ServicesError before anything is started."""
    # What the services write is the household's own.
    os.umask(0o077)
    folder = _project_folder()
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with filelock.FileLock(settings.data_dir / "run.lock", timeout=0, mode=0o600):
            if settings.ui:
                _check_port(settings.ui_host, settings.ui_port, "AISEG2_UI_PORT")
            if settings.demo:
                _check_port("127.0.0.1", settings.simulator_port, "AISEG2_SIMULATOR_PORT")
            _check_socket(settings)
            return _run(settings, folder, say)
    except filelock.Timeout:
        raise ServicesError(
            f"aiseg2-pipeline already runs on the data directory {settings.data_dir}: use that one, stop it, or set "
            "AISEG2_DATA_DIR to another folder."
        ) from None
    except OSError as error:
        raise ServicesError(
            f"The data directory {settings.data_dir} cannot be used ({error.strerror}): free space, or set AISEG2_DATA_DIR."
        ) from None


def _run(settings: Settings, folder: Path, say: Callable[[str], None]) -> int:
    variables = _variables(settings)
    workspace = folder / WORKSPACE
    say(f"Readings and run history: {settings.data_dir}")
    if settings.demo:
        say("DEMO: no AISEG2_HOST is set, so a simulated home is read. Its readings stay in the folder above.")
    else:
        say(f"Reading the AiSEG2 at {settings.device_url} every minute.")
    if settings.influx:
        say(f"Writing to InfluxDB at {settings.influx.url}, bucket {settings.influx.bucket}.")
    else:
        say("No InfluxDB is configured (INFLUXDB_HOST): readings are kept here alone.")
    if settings.alert_urls and not notify.installed():
        say(notify.MISSING_EXTRA)
    try:
        dagster_home.make(settings, folder, variables, say)
    except dagster_home.DagsterHomeError as error:
        raise ServicesError(str(error)) from None
    manager = Manager()
    if settings.demo:
        _add(manager, "simulator", variables, _command("aiseg2_pipeline.cli", "simulate"))
    _add(manager, "code-server", variables, _code_server(settings))
    # The socket is there once the code is loaded; the two others would complain until then.
    loaded = f"until [ -S {shlex.quote(str(settings.code_server_socket))} ]; do sleep 0.2; done; "
    daemon = _command(
        *(CALM, "dagster._daemon", "run"), "-w", str(workspace), "--log-format", "json", "--log-level", "warning"
    )
    _add(manager, "daemon", variables, daemon, after=loaded)
    if settings.ui:
        _add(manager, "webserver", variables, _webserver(settings, workspace), after=loaded)
        say(
            f"Dagster's pages: http://{settings.ui_host}:{settings.ui_port} (the first reading is there within two minutes)."
        )
    else:
        say("Dagster's pages are off (AISEG2_UI=0): `aiseg2-pipeline ui` serves them until Ctrl-C.")
    say("Ctrl-C stops everything.")
    return _until_stopped(manager)


def serve_pages(settings: Settings, say: Callable[[str], None]) -> int:
    """Serve Dagster's pages of the pipeline that runs on this data directory until Ctrl-C; return the exit code."""
    workspace = _project_folder() / WORKSPACE
    if not _answers(settings.code_server_socket):
        raise ServicesError(
            f"No pipeline runs on the data directory {settings.data_dir}: start it with `aiseg2-pipeline run`."
        )
    _check_port(settings.ui_host, settings.ui_port, "AISEG2_UI_PORT")
    manager = Manager()
    _add(manager, "webserver", _variables(settings), _webserver(settings, workspace))
    say(f"Dagster's pages: http://{settings.ui_host}:{settings.ui_port} until Ctrl-C.")
    return _until_stopped(manager)


def _until_stopped(manager: Manager) -> int:
    """Run the services until one of them ends or a signal asks for it; return the exit code."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: _end_without_terminal())
    manager.loop()
    # Ctrl-C and SIGTERM (systemd, Docker) are how it is ended, and no failure.
    asked_to_end = (130, 143)
    return 0 if manager.returncode in asked_to_end else int(manager.returncode or 0)


def _end_without_terminal() -> None:
    """End as on SIGTERM where the terminal was closed: what is printed from now on would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.kill(os.getpid(), signal.SIGTERM)


def _variables(settings: Settings) -> dict[str, str]:
    postgres = settings.postgres_url
    return environment() | {
        "DAGSTER_HOME": str(settings.dagster_home),
        "AISEG2_CODE_SERVER": str(settings.code_server_socket),
        "AISEG2_POSTGRES_URL": postgres.get_secret_value() if postgres else "",
        "PYTHONUNBUFFERED": "1",
    }


def _add(manager: Manager, name: str, variables: dict[str, str], command: list[str], after: str = "") -> None:
    manager.add_process(name, f"{after}exec {shlex.join(command)}", env=variables)


def _code_server(settings: Settings) -> list[str]:
    return _command(
        *("aiseg2_pipeline.orchestration.code_server", "-m", "aiseg2_pipeline.definitions"),
        *("--socket", str(settings.code_server_socket), "--log-format", "json", "--log-level", "warning"),
    )


def _webserver(settings: Settings, workspace: Path) -> list[str]:
    return _command(
        *(CALM, "dagster_webserver", "-w", str(workspace), "-h", settings.ui_host, "-p", str(settings.ui_port)),
        *("--log-format", "json", "--dagster-log-level", "warning"),
    )


def _command(module: str, *arguments: str) -> list[str]:
    # By module, not by script name: this Python's own packages, whatever is on PATH.
    return [sys.executable, "-m", module, *arguments]


def _project_folder() -> Path:
    # A clone's folder, and where an installed package has its copies.
    for folder in (Path.cwd(), *Path(__file__).parents[:2]):
        if (folder / WORKSPACE).is_file() and (folder / dagster_home.INSTANCE).is_file():
            return folder
    raise ServicesError(f"{WORKSPACE} and {dagster_home.INSTANCE} are not here: run this in the project's folder.")


def _answers(path: Path) -> bool:
    """Return whether a code server listens there; one that was killed leaves a file to which nothing listens."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def _check_socket(settings: Settings) -> None:
    """See that the code server can listen there; what an earlier one left behind is removed."""
    path = settings.code_server_socket
    if _answers(path):
        raise ServicesError(
            f"Services of an aiseg2-pipeline that was killed still run on the data directory {settings.data_dir}: end "
            "them (or restart this machine), or set AISEG2_DATA_DIR to another folder."
        )
    path.unlink(missing_ok=True)
    reason = "its path has a comma, %, # or ?" if _NO_SOCKET_NAME.search(str(path)) else ""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ServicesError(
            f"The code server cannot listen at {path} ({reason}): set AISEG2_DATA_DIR to a short path on a disk of this machine."
        )


def _check_port(host: str, port: int, setting: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError) as error:
            if not isinstance(error, OSError) or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ServicesError(
                    f"{host} is no address of this machine: set AISEG2_UI_HOST to one, such as 127.0.0.1."
                ) from None
            raise ServicesError(
                f"Port {port} on {host} cannot be used ({error.strerror}): stop what listens there, or set {setting} to another port."
            ) from None
