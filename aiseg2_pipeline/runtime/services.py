"""Run the services of `aiseg2-pipeline run` until Ctrl-C: page, code server, daemon, webserver, the demo's simulator.

Honcho supervises the processes. This module checks what must hold before they start: free ports, one pipeline for each
data directory, a Dagster home with a storage. `aiseg2-pipeline ui` starts only the webserver, beside a running pipeline.
"""

import errno
import os
import re
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from aiseg2_pipeline.dagster_internals import DAEMON
from aiseg2_pipeline.runtime import announcement, dagster_home, health, open_stores, parent_watch, warm_parent
from aiseg2_pipeline.runtime.settings_watch import SettingsWatch
from aiseg2_pipeline.runtime.simulated_past import start_past
from aiseg2_pipeline.runtime.warm_parent import PAUSE_S, ServiceManager
from aiseg2_pipeline.runtime.watch import Watch
from aiseg2_pipeline.settings import ENV_FILE_IS_READ, Settings, SettingsError, environment

WORKSPACE = "workspace.yaml"
DEFINITIONS = "-m", "aiseg2_pipeline.definitions", "--empty-working-directory"
CODE_SERVER = "aiseg2_pipeline.runtime.code_server"
TUNING = "aiseg2_pipeline.runtime.dagster_tuning"
WEBSERVER = "aiseg2_pipeline.runtime.webserver"
PAGE, FORKED_PAGE = "aiseg2_pipeline.web", "aiseg2_pipeline.runtime.page"
# How long services may take to end after their supervisor was killed; generous, because they have had a SIGTERM.
ENDING_S = 15
# How often it is checked whether the services must start again.
WATCH_S = 10
# The exit codes of services that are to start again, and to do so with changed settings.
_START_AGAIN = 75
_NEW_SETTINGS = 76
# Exit codes after Ctrl-C and SIGTERM (systemd, Docker), which are no failures.
_STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
# Characters with a meaning of their own in gRPC's address of a Unix socket.
_NO_SOCKET_NAME = re.compile("[%#?,]")


class ServicesError(Exception):
    """The services cannot be started; the message is one sentence."""


class _Services(ServiceManager):
    """Honcho's manager for services that share an environment and the lock of their supervisor."""

    def __init__(self, settings: Settings, given: Mapping[str, str], lock: Path, *, warm: bool = False) -> None:
        super().__init__()
        self._settings = settings
        self._given = given
        self._variables = _variables(settings, given)
        self._lock = str(lock)
        self._warm = warm

    def add(self, name: str, *command: str, after: Path | None = None, warm: bool = False) -> None:
        """Add a service: a module and its arguments, to be started once the socket `after` exists.

        A `warm` one is forked from this process, if that has imported what it needs.
        """
        # Runs of a killed service would keep its output open, so that honcho would not notice its end: end the group.
        script = f"trap : TERM; {self._watched(command, after)}; code=$?; kill 0; exit $code"
        self.add_process(name, script, env=self._variables)
        if warm and self._warm:
            self.fork_instead(name, self._forked(command, after))

    def add_page(self) -> None:
        """Add the household's page. Where it ends by itself it starts again: the readings continue without it."""
        script = f"trap 'exit 0' TERM; while :; do {self._watched([PAGE])}; sleep {PAUSE_S}; done"
        self.add_process("page", script, env=self._variables)
        if self._warm:
            self.fork_instead("page", self._forked([FORKED_PAGE]), only_first=True)

    def _forked(self, command: Sequence[str], after: Path | None = None) -> Callable[[], None]:
        return warm_parent.service(command[0], command[1:], self._variables, Path(self._lock), after)

    def _watched(self, command: Sequence[str], after: Path | None = None) -> str:
        # By module, not by script name: the packages of this Python, whatever is on PATH.
        watched = ["-m", parent_watch.__name__, self._lock, str(after or ""), *command]
        return shlex.join([sys.executable, *watched])

    def add_webserver(self, settings: Settings, folder: Path) -> None:
        """Add Dagster's webserver."""
        address = ["-h", settings.ui_host, "-p", str(settings.ui_port)]
        if settings.ui_path:
            address += ["--path-prefix", settings.ui_path]
        log = ("--log-format", "json", "--dagster-log-level", "warning")
        workspace = ("-w", str(folder / WORKSPACE))
        self.add("webserver", WEBSERVER, *workspace, *address, *log, after=settings.code_server_socket, warm=True)

    def run(self, watch: Watch | None, say: Callable[[str], None]) -> int:
        """Run until one ends or a signal stops them; return the exit code, `_START_AGAIN` if `watch` has a reason for it."""
        ended = threading.Event()
        if watch:
            self.take_lines(watch.line)
            self.start_beside(
                threading.Thread(target=self._end_with_reason, args=(watch, ended, say), daemon=True)
            )
        try:
            self.loop()
        finally:
            ended.set()
            self.join()
        if self.returncode in _STOPPED:
            return 0
        if self.returncode not in (_START_AGAIN, _NEW_SETTINGS):
            say("One of the services ended by itself (see above), so all were stopped: start the pipeline again.")
        return int(self.returncode or 0)

    def _end_with_reason(self, watch: Watch, ended: threading.Event, say: Callable[[str], None]) -> None:
        # Some password managers provide `.env` as a pipe, and ask a person each time it is read.
        reads_settings = not Path(".env").is_fifo()
        settings_watch = SettingsWatch(self._given, lambda new: _problem(self._settings, new), say)
        while not ended.wait(WATCH_S):
            now = datetime.now(UTC)
            if reads_settings and settings_watch.changed(now):
                self.returncode = _NEW_SETTINGS
            elif reason := watch.reason(now):
                say(reason)
                self.returncode = _START_AGAIN
            else:
                continue
            self.terminate()
            return


def run(settings: Settings, say: Callable[[str], None]) -> int:
    """Run all services in the foreground; return the exit code. Raise ServicesError before anything is started."""
    # Only the owner may read the files that the services write.
    os.umask(0o077)
    given = environment()
    while (code := _run_with(settings, given, say)) == _NEW_SETTINGS:
        say("The settings have changed, so the services start again with them.")
        _reset_handlers()
        # If they have changed once more and are wrong, those before are used.
        with suppress(SettingsError):
            present = environment()
            settings, given = Settings.from_environment(present), present
    return code


def _run_with(settings: Settings, given: Mapping[str, str], say: Callable[[str], None]) -> int:
    folder = project_folder()
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = settings.supervisor_lock_path
        with (
            filelock.FileLock(settings.data_dir / "run.lock", timeout=0, mode=0o600),
            parent_watch.supervisor_lock(lock, ENDING_S),
        ):
            if settings.page:
                _check_port(settings.page_host, settings.page_port, "AISEG2_PAGE_PORT")
            if settings.ui:
                _check_port(settings.ui_host, settings.ui_port, "AISEG2_UI_PORT")
            if settings.demo:
                _check_port("127.0.0.1", settings.simulator_port, "AISEG2_SIMULATOR_PORT")
            _check_socket(settings)
            return _run(settings, given, folder, lock, say)
    except filelock.Timeout:
        raise ServicesError(
            f"aiseg2-pipeline already runs on the data directory {settings.data_dir}: use that one, stop it, or set "
            "AISEG2_DATA_DIR to another folder."
        ) from None
    except BlockingIOError:
        raise ServicesError(_left_running(settings)) from None
    except OSError as error:
        raise ServicesError(_unusable(settings, error)) from None
    except dagster_home.DagsterHomeError as error:
        raise ServicesError(str(error)) from None


def _run(
    settings: Settings, given: Mapping[str, str], folder: Path, lock: Path, say: Callable[[str], None]
) -> int:
    announcement.say_page(settings, say)
    announcement.say_settings(settings, say)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    while (code := _serve(settings, given, folder, lock, say)) == _START_AGAIN:
        _reset_handlers()
        _check_socket(settings)
    open_stores.close_journals(_stores(settings))
    return code


def _reset_handlers() -> None:
    """Replace honcho's signal handlers, which would end only services that have ended."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _serve(
    settings: Settings, given: Mapping[str, str], folder: Path, lock: Path, say: Callable[[str], None]
) -> int:
    """Prepare Dagster's home and run all services until they end; return the exit code, `_START_AGAIN` to run them again."""
    start_past(settings, _variables(settings, given), lock, say)
    dagster_home.make(settings, folder, _variables(settings, given), say)
    services = _Services(settings, given, lock, warm=settings.warm_runs and warm_parent.ready(say))
    if settings.demo:
        services.add("simulator", "aiseg2_pipeline.cli", "simulate")
    if settings.page:
        services.add_page()
    # The socket exists once the code is loaded; until then, daemon and webserver would log errors.
    loaded, workspace = settings.code_server_socket, str(folder / WORKSPACE)
    log = ("--log-format", "json", "--log-level", "warning")
    services.add("code-server", CODE_SERVER, *DEFINITIONS, "--socket", str(loaded), *log, warm=True)
    services.add("daemon", TUNING, DAEMON, "run", "-w", workspace, *log, after=loaded, warm=True)
    if settings.ui:
        services.add_webserver(settings, folder)
        announcement.say_address(settings, "the first reading is there within two minutes", say)
    else:
        say("Dagster's pages are off (AISEG2_UI=0): `aiseg2-pipeline ui` serves them until Ctrl-C.")
    say("Ctrl-C stops everything.")
    return services.run(Watch(settings, datetime.now(UTC)), say)


def _problem(settings: Settings, new: Settings) -> str | None:
    """Return why the services could not start with `new` settings, where those that run do not show it."""
    try:
        address = new.page_host, new.page_port
        if new.page and (not settings.page or address != (settings.page_host, settings.page_port)):
            _check_port(*address, "AISEG2_PAGE_PORT")
        if new.ui and (not settings.ui or (new.ui_host, new.ui_port) != (settings.ui_host, settings.ui_port)):
            _check_port(new.ui_host, new.ui_port, "AISEG2_UI_PORT")
        if new.data_dir != settings.data_dir:
            new.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_socket(new)
        if new.run_history and new.run_history != settings.run_history:
            dagster_home.check_postgres(new.run_history.get_secret_value())
    except (ServicesError, dagster_home.DagsterHomeError) as error:
        return str(error)
    except OSError as error:
        return _unusable(new, error)
    return None


def serve_pages(settings: Settings, say: Callable[[str], None]) -> int:
    """Serve Dagster's pages of the pipeline that runs on this data directory until Ctrl-C; return the exit code."""
    folder = project_folder()
    if not health.is_listening(settings.code_server_socket):
        raise ServicesError(
            f"No pipeline runs on the data directory {settings.data_dir}: start it with `aiseg2-pipeline run`."
        )
    _check_port(settings.ui_host, settings.ui_port, "AISEG2_UI_PORT")
    lock = settings.data_dir / f"ui-{settings.ui_port}.lock"
    try:
        with parent_watch.supervisor_lock(lock):
            services = _Services(settings, environment(), lock)
            services.add_webserver(settings, folder)
            announcement.say_address(settings, "until Ctrl-C", say)
            return services.run(None, say)
    except OSError as error:
        raise ServicesError(_unusable(settings, error)) from None


def _variables(settings: Settings, given: Mapping[str, str]) -> dict[str, str]:
    postgres = settings.run_history
    return {
        **given,
        # A service that reads `.env` itself would get a changed one.
        ENV_FILE_IS_READ: "1",
        "DAGSTER_HOME": str(settings.dagster_home),
        "AISEG2_CODE_SERVER": str(settings.code_server_socket),
        **open_stores.variable(_stores(settings)),
        "AISEG2_POSTGRES_URL": postgres.get_secret_value() if postgres else "",
        "PYTHONUNBUFFERED": "1",
        # In any locale, as this process.
        "PYTHONUTF8": "1",
        # A file in the current folder replaces no module.
        "PYTHONSAFEPATH": "1",
        # glibc's heaps, one for each thread, never stop growing in services with many threads: 4 MB a day, measured.
        "MALLOC_ARENA_MAX": "1",
        # NumPy would start threads, which nothing here uses.
        "OPENBLAS_NUM_THREADS": "1",
    }


def _stores(settings: Settings) -> tuple[Path, ...]:
    return settings.store_path, settings.energy_path, settings.climate_path


def project_folder() -> Path:
    """Return the folder of the package's workspace.yaml and dagster.yaml."""
    # The copies of an installed package, or those of a clone; never another project's in the current folder.
    for folder in Path(__file__).parents[1:3]:
        if (folder / WORKSPACE).is_file() and (folder / dagster_home.INSTANCE).is_file():
            return folder
    raise ServicesError(f"The package has no {WORKSPACE} and {dagster_home.INSTANCE}: install it again.")


def _check_socket(settings: Settings) -> None:
    """Check that the code server can listen at its socket, and remove the file of an earlier one."""
    path = settings.code_server_socket
    if health.is_listening(path):
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
        f"The data directory {settings.data_dir} cannot be used ({error.strerror}): correct that, or set AISEG2_DATA_DIR to another "
        "folder."
    )


def _left_running(settings: Settings) -> str:
    return (
        f"Services of an aiseg2-pipeline that was killed still run on the data directory {settings.data_dir}: end "
        "them (or restart this machine), or set AISEG2_DATA_DIR to another folder."
    )


def _check_port(host: str, port: int, setting: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES):
                message = f"Port {port} on {host} cannot be used ({error.strerror}): stop what listens there, or set {setting} to another port."
            else:
                name = setting.replace("PORT", "HOST")
                message = f"{host} is not an address of this machine: set {name} to one, such as 127.0.0.1."
            raise ServicesError(message) from None
