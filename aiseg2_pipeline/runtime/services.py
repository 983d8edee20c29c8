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
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import filelock
from honcho.manager import KILL_WAIT, Manager

from aiseg2_pipeline.alerts import send
from aiseg2_pipeline.dagster_internals import DAEMON
from aiseg2_pipeline.runtime import dagster_home, parent_watch
from aiseg2_pipeline.settings import Settings, environment

WORKSPACE = "workspace.yaml"
CALM = "aiseg2_pipeline.runtime.dagster_tuning"
WEBSERVER = "aiseg2_pipeline.runtime.webserver"
# What services take to end after the process that started them was killed; generous, because they have been told to.
ENDING_S = 15
# What means something else in the address of a socket.
_NO_SOCKET_NAME = re.compile("[%#?,]")


class ServicesError(Exception):
    """Why the services cannot be started, in one sentence."""


class _Services(Manager):  # type: ignore[misc]  # honcho has no types
    """Honcho's manager, which kills what does not end when told to, even where nothing else has ended."""

    def terminate(self) -> None:
        """Tell all to end, and see that they do."""
        super().terminate()
        killer = threading.Timer(KILL_WAIT, self.kill)
        killer.daemon = True
        killer.start()


def run(settings: Settings, say: Callable[[str], None]) -> int:
    """Run all services in the foreground; return the exit code. Raise ServicesError before anything is started."""
    # What the services write is the household's own.
    os.umask(0o077)
    folder = _project_folder()
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        alive = settings.data_dir / "alive.lock"
        with (
            filelock.FileLock(settings.data_dir / "run.lock", timeout=0, mode=0o600),
            parent_watch.starter(alive, ENDING_S),
        ):
            if settings.ui:
                _check_port(settings.ui_host, settings.ui_port, "AISEG2_UI_PORT")
            if settings.demo:
                _check_port("127.0.0.1", settings.simulator_port, "AISEG2_SIMULATOR_PORT")
            _check_socket(settings)
            return _run(settings, folder, alive, say)
    except filelock.Timeout:
        raise ServicesError(
            f"aiseg2-pipeline already runs on the data directory {settings.data_dir}: use that one, stop it, or set "
            "AISEG2_DATA_DIR to another folder."
        ) from None
    except BlockingIOError:
        raise ServicesError(_left_running(settings)) from None
    except OSError as error:
        raise ServicesError(_unusable(settings, error)) from None


def _run(settings: Settings, folder: Path, alive: Path, say: Callable[[str], None]) -> int:
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
    if settings.alert_urls and not send.installed():
        say(send.MISSING_EXTRA)
    try:
        dagster_home.make(settings, folder, variables, say)
    except dagster_home.DagsterHomeError as error:
        raise ServicesError(str(error)) from None
    manager = _Services()
    if settings.demo:
        _add(manager, "simulator", variables, alive, ["aiseg2_pipeline.cli", "simulate"])
    _add(manager, "code-server", variables, alive, _code_server(settings))
    # The socket is there once the code is loaded; the two others would complain until then.
    loaded = str(settings.code_server_socket)
    _add(manager, "daemon", variables, alive, _daemon(workspace), after=loaded)
    if settings.ui:
        _add(manager, "webserver", variables, alive, _webserver(settings, workspace), after=loaded)
        _say_address(settings, "the first reading is there within two minutes", say)
    else:
        say("Dagster's pages are off (AISEG2_UI=0): `aiseg2-pipeline ui` serves them until Ctrl-C.")
    say("Ctrl-C stops everything.")
    return _until_stopped(manager, say)


def serve_pages(settings: Settings, say: Callable[[str], None]) -> int:
    """Serve Dagster's pages of the pipeline that runs on this data directory until Ctrl-C; return the exit code."""
    workspace = _project_folder() / WORKSPACE
    if not _answers(settings.code_server_socket):
        raise ServicesError(
            f"No pipeline runs on the data directory {settings.data_dir}: start it with `aiseg2-pipeline run`."
        )
    _check_port(settings.ui_host, settings.ui_port, "AISEG2_UI_PORT")
    manager = _Services()
    alive = settings.data_dir / f"ui-{settings.ui_port}.lock"
    try:
        with parent_watch.starter(alive):
            _add(manager, "webserver", _variables(settings), alive, _webserver(settings, workspace))
            _say_address(settings, "until Ctrl-C", say)
            return _until_stopped(manager, say)
    except OSError as error:
        raise ServicesError(_unusable(settings, error)) from None


def _say_address(settings: Settings, more: str, say: Callable[[str], None]) -> None:
    host = f"[{settings.ui_host}]" if ":" in settings.ui_host else settings.ui_host
    say(f"Dagster's pages: http://{host}:{settings.ui_port} ({more}).")
    if not _is_loopback(settings.ui_host):
        say(
            "Whoever reaches that address may end and delete runs, for these pages have no login (AISEG2_UI_HOST)."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _until_stopped(manager: Manager, say: Callable[[str], None]) -> int:
    """Run the services until one of them ends or a signal asks for it; return the exit code."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: _end_without_terminal())
    manager.loop()
    # Ctrl-C and SIGTERM (systemd, Docker) are how it is ended, and no failure.
    asked_to_end = (130, 143)
    if manager.returncode in asked_to_end:
        return 0
    say("One of the services ended by itself (see above), so all were stopped: start the pipeline again.")
    return int(manager.returncode or 0)


def _end_without_terminal() -> None:
    """End as on SIGTERM where the terminal was closed: what is printed from now on would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.kill(os.getpid(), signal.SIGTERM)


def _variables(settings: Settings) -> dict[str, str]:
    postgres = settings.run_history
    return environment() | {
        "DAGSTER_HOME": str(settings.dagster_home),
        "AISEG2_CODE_SERVER": str(settings.code_server_socket),
        "AISEG2_POSTGRES_URL": postgres.get_secret_value() if postgres else "",
        "PYTHONUNBUFFERED": "1",
        # glibc's heaps, one for each thread, never stop growing in services that have many threads: measured, 4 MB a day.
        "MALLOC_ARENA_MAX": "1",
    }


def _add(
    manager: Manager, name: str, variables: dict[str, str], alive: Path, command: list[str], after: str = ""
) -> None:
    # By module, not by script name: this Python's own packages, whatever is on PATH.
    service = shlex.join([sys.executable, "-m", parent_watch.__name__, str(alive), after, *command])
    # What a service that was killed has started (runs) would keep its output open, and its end would not be seen.
    manager.add_process(name, f"trap : TERM; {service}; code=$?; kill 0; exit $code", env=variables)


def _code_server(settings: Settings) -> list[str]:
    return [
        *("aiseg2_pipeline.runtime.code_server", "-m", "aiseg2_pipeline.definitions"),
        *("--socket", str(settings.code_server_socket), "--log-format", "json", "--log-level", "warning"),
    ]


def _daemon(workspace: Path) -> list[str]:
    return [
        *(CALM, DAEMON, "run", "-w", str(workspace)),
        *("--log-format", "json", "--log-level", "warning"),
    ]


def _webserver(settings: Settings, workspace: Path) -> list[str]:
    return [
        *(WEBSERVER, "-w", str(workspace), "-h", settings.ui_host, "-p", str(settings.ui_port)),
        *("--log-format", "json", "--dagster-log-level", "warning"),
    ]


def _project_folder() -> Path:
    # A clone's folder, and where an installed package has its copies.
    for folder in (Path.cwd(), *Path(__file__).parents[1:3]):
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
        raise ServicesError(_left_running(settings))
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


def _unusable(settings: Settings, error: OSError) -> str:
    return (
        f"The data directory {settings.data_dir} cannot be used ({error.strerror}): free space, let this user write to it, or set "
        "AISEG2_DATA_DIR to another folder."
    )


def _left_running(settings: Settings) -> str:
    return (
        f"Services of an aiseg2-pipeline that was killed still run on the data directory {settings.data_dir}: end "
        "them (or restart this machine), or set AISEG2_DATA_DIR to another folder."
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
