"""Fork Dagster's services from the supervisor, which has imported what they share, so that they share its memory.

    aiseg2-pipeline run      the supervisor: imports all modules, opens none of Dagster's files, starts no thread before it forks
    ├─ code-server           forked; builds the definitions
    │  ├─ tracker            of multiprocessing's semaphores
    │  └─ runs               multiprocessing's forkserver, forked from the code server before its first thread
    │     └─ run             one process for each run, forked from `runs`
    ├─ daemon                forked
    ├─ webserver             forked; imports Dagster's pages when they are first opened
    ├─ page                  forked; a Python of its own from the time on that it has ended by itself
    └─ simulator             a Python of its own, without Dagster

Each service is a session and a process group of its own, as those that honcho starts with a shell. A service module that
can be forked has `prepare()`, which imports what only it needs and may fork, and `serve()`, which may start threads.
Without a fork (`AISEG2_WARM_RUNS=0`, macOS) each service is a new Python that runs the same modules: more memory, same
behaviour.
"""

import ctypes
import functools
import io
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import pairwise
from multiprocessing import util
from pathlib import Path
from types import ModuleType
from typing import Any

from honcho.manager import KILL_WAIT, Manager
from honcho.printer import Message, Printer
from honcho.process import Popen, Process

from aiseg2_pipeline.dagster_internals import DAEMON, RUN_MODULES, SHARED_MODULES
from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.runtime import dagster_tuning, page, parent_watch
from aiseg2_pipeline.runtime.shared_objects import share_imported_objects

# A fork is unsafe where the system's own libraries use threads (macOS), and shares nothing elsewhere.
CAN_FORK = sys.platform == "linux"
# Modules that are otherwise imported only while a run executes.
MODULES_OF_A_RUN = (
    *RUN_MODULES,
    "multiprocessing.popen_forkserver",
    "multiprocessing.queues",
    "multiprocessing.synchronize",
    "sqlalchemy.dialects.sqlite",
    "upath.implementations.local",
    "aiseg2_pipeline.runtime.run_coordinator",
)
# What is imported before the fork. A page that a service writes to while it imports, it would have of its own: where only
# the code server imported its modules, the runs' and the definitions', all processes took some 17 MB more.
_BEFORE_THE_FORK = (
    *SHARED_MODULES,
    *MODULES_OF_A_RUN,
    f"{DAEMON}.cli",
    "aiseg2_pipeline.orchestration.definitions",
    "aiseg2_pipeline.runtime.code_server",
    page.SERVER,
)
# The pause before a service that has ended by itself is started again.
PAUSE_S = 10
# glibc's number of its option MALLOC_ARENA_MAX.
_M_ARENA_MAX = -8
# The log line of a code server whose `runs` was killed; `watch` waits for it.
RUNS_REPLACED = "The process that runs are forked from was killed, and a new Python replaces it"
# Linux's number of the option that names a process.
_PR_SET_NAME = 15


def ready(say: Callable[[str], None]) -> bool:
    """Return whether services can be forked from this process, which has then imported what they share."""
    if not CAN_FORK:
        say(
            "Each service starts in a Python of its own, because this system cannot fork them: that takes some 200 MB more memory."
        )
        return False
    _import_shared()
    return True


@functools.cache
def _import_shared() -> None:
    """Import the shared modules, once, so that their memory stays shared after a fork.

    A module that cannot be imported is left to the services, which report the error.
    """
    if not sys.flags.safe_path:
        # A file beside the command, or in the current folder, replaces no module.
        del sys.path[0]
    environment = dict(os.environ)
    # As for the services, and for the same reason (`services`).
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # Alembic's mako would import it for colours of tracebacks: 4 MB.
    hidden = sys.modules.setdefault("pygments", None) is None  # type: ignore[arg-type]  # "not to be found"
    for name in _BEFORE_THE_FORK:
        with suppress(Exception):
            import_module(name)
    if hidden:
        del sys.modules["pygments"]
    # A changed environment would count as changed settings.
    os.environ.clear()
    os.environ.update(environment)
    with suppress(Exception):
        dagster_tuning.cache_storage_setup()
    share_imported_objects()
    with suppress(OSError, AttributeError):
        # The services do not read the variable, because they start no new program.
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
        # What the imports allocated meanwhile: 2 MB.
        ctypes.CDLL(None).malloc_trim(0)


class _Printer(Printer):  # type: ignore[misc]  # honcho has no types
    """Honcho's printer of the services' lines, which `take` gets as well."""

    take: Callable[[str], None] | None = None

    def write(self, message: Message) -> None:
        """Print a line."""
        if self.take:
            self.take(str(message.data))
        super().write(message)


class ServiceManager(Manager):  # type: ignore[misc]  # as above
    """Honcho's manager that forks services, and reads the output of each in a thread instead of a process."""

    def __init__(self) -> None:
        """Print the services' lines on stdout."""
        super().__init__(_Printer(sys.stdout))
        self.events = _Events()
        self._to_fork: dict[str, Callable[[], None]] = {}
        self._only_first: set[str] = set()
        self._to_start: list[threading.Thread] = []
        self._terminated, self._ended = threading.Event(), threading.Event()
        self.start_beside(threading.Thread(target=self._kill_late, daemon=True))

    def take_lines(self, take: Callable[[str], None]) -> None:
        """Pass each line of the services to `take` as well."""
        self._printer.take = take

    def start_beside(self, thread: threading.Thread) -> None:
        """Start a thread once the services are forked; it must end when they have ended."""
        self._to_start.append(thread)

    def fork_instead(self, name: str, serve: Callable[[], None], *, only_first: bool = False) -> None:
        """Let a process that was added be forked, and call `serve`, instead of being started as a program.

        With `only_first`, its program is started when that process has ended by itself; otherwise its end is that of all.
        """
        self._to_fork[name] = serve
        if only_first:
            self._only_first.add(name)

    def _start(self) -> None:
        for name, serve in self._to_fork.items():
            forked = _Forked(name, serve)
            self._processes[name]["obj"]._child_ctor = forked.watched  # noqa: SLF001 - honcho's own way to replace it
        for name, process in self._processes.items():
            work = self._fork_then_start if name in self._only_first else type(process["obj"]).run
            self.start_beside(threading.Thread(target=work, args=(process["obj"], self.events), daemon=True))
        for thread in self._to_start:
            thread.start()

    def _fork_then_start(self, process: Process, events: "_Events") -> None:
        first = _EventsOfTheFirst(events, self._terminated)
        process.run(first)
        if first.ended_by_itself:
            process._child_ctor = Popen  # noqa: SLF001 - as above
            process.run(events)

    def join(self) -> None:
        """Wait for all threads, so that a next manager can fork."""
        self._ended.set()
        self._terminated.set()
        for thread in self._to_start:
            if thread.ident:
                thread.join()

    def terminate(self) -> None:
        """Send SIGTERM to all services, and SIGKILL to those that do not end in time. Several threads may call it at once."""
        super().terminate()
        self._terminated.set()

    def _kill_late(self) -> None:
        # Honcho itself does this only when one of them has ended.
        self._terminated.wait()
        if not self._ended.wait(KILL_WAIT):
            self.kill()


class _Events(queue.Queue[Any]):
    """The events of the services. Honcho asks ten times a second; nothing but its end waits for a time without any."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002, FBT001, FBT002 - as its base
        return super().get(block, 1.0)


class _EventsOfTheFirst:
    """The events of a service, without its end where that is not the end of all."""

    def __init__(self, events: _Events, terminated: threading.Event) -> None:
        self._events, self._terminated = events, terminated
        self.ended_by_itself = False

    def put(self, message: Message) -> None:
        self.ended_by_itself = message.type == "stop" and not self._terminated.wait(PAUSE_S)
        if not self.ended_by_itself:
            self._events.put(message)


class _Forked:
    """A forked service, with what honcho uses of subprocess.Popen."""

    def __init__(self, name: str, serve: Callable[[], None]) -> None:
        reader, writer = os.pipe()
        self._process = multiprocessing.get_context("fork").Process(
            target=_become_service, args=(name, serve, writer), name=name
        )
        self._process.start()
        os.close(writer)
        self.pid = int(self._process.pid or 0)
        self.stdout = os.fdopen(reader, "rb")
        self.returncode: int | None = None
        self._ended = threading.Thread(target=self._end_group, daemon=True)

    def watched(self, *_: object, **__: object) -> "_Forked":
        """Return this process, and from now on end its group when it has ended."""
        self._ended.start()
        return self

    def wait(self) -> None:
        """Wait until it has ended."""
        self._ended.join()

    def _end_group(self) -> None:
        self._process.join()
        code = self._process.exitcode or 0
        # As a shell does.
        self.returncode = code if code >= 0 else 128 - code
        # Runs of a killed service would go on, and keep its output open.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)


def service(
    module: str, arguments: Sequence[str], variables: Mapping[str, str], lock: Path, after: Path | None
) -> Callable[[], None]:
    """Return what a forked service does: run a module with these arguments and environment variables."""

    def serve() -> None:
        os.environ.clear()
        os.environ.update(variables)
        sys.argv = [module, *arguments]
        # Otherwise every run would import the command's module again, as multiprocessing does for `__main__`.
        sys.modules["__main__"] = ModuleType("__main__")
        code = import_module(module)
        code.prepare()
        parent_watch.begin(lock, after)
        code.serve()

    return serve


def set_name(name: str) -> None:
    """Set the name that `ps` and `top` show instead of the command's."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())


def _become_service(name: str, serve: Callable[[], None], output: int) -> None:
    os.setsid()
    set_name(name)
    # The supervisor's handlers are not the service's; a new program would not inherit them either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # The supervisor's locks among them.
    _close_all_but(())
    for stream, fd in (("stdout", 1), ("stderr", 2)):
        file = io.BufferedWriter(io.FileIO(fd, "w", closefd=False))
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)
        setattr(sys, stream, text)
    serve()


def _close_all_but(files: Sequence[int]) -> None:
    """Close all files but these and the standard streams."""
    kept = [2, *sorted(file for file in files if file > 2), os.sysconf("SC_OPEN_MAX")]  # noqa: PLR2004 - stderr
    for below, above in pairwise(kept):
        os.closerange(below + 1, above)


@contextmanager
def forked_helpers() -> Iterator[None]:
    """Let multiprocessing fork its helpers, the server that forks runs among them, from this process meanwhile.

    It starts each as a new Python with a `-c` command; here a fork executes that command. Call it before any thread starts.
    A helper that is killed later is replaced by a new Python, as there are threads by then: 150 MB, which are logged.
    """
    spawn = util.spawnv_passfds

    def fork(_: object, arguments: Sequence[str], files: Sequence[int]) -> int:
        if pid := os.fork():
            return pid
        code = 1
        try:
            # The helpers end when the other end of a pipe is closed, so they must not hold that themselves.
            _close_all_but(files)
            if "resource_tracker" in arguments[-1]:
                set_name("tracker")
            else:
                set_name("runs")
                os.register_at_fork(after_in_child=lambda: set_name("run"))
            exec(arguments[-1], {})  # noqa: S102 - multiprocessing's own command
            code = 0
        finally:
            os._exit(code)

    def replace(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        if "forkserver" in str(args[-1]):
            log_warning(f"{RUNS_REPLACED}, which takes 150 MB more until the services start again.")
        return spawn(path, args, passfds)

    util.spawnv_passfds = fork  # type: ignore[assignment]  # its types are wider than its use
    try:
        yield
    finally:
        util.spawnv_passfds = replace
