"""Measure the CPU-seconds and the memory of a process tree by role, from Linux's /proc.

Starting a variant belongs in `pipelines`, the times of measurements in `minute_run`.
"""

import ctypes
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36
CODE_SERVER = "code server"
UNSEEN = "ended between two samples"
# The daemon replaces its code server about once a minute, also when idle.
STARTS = "code servers that start"
_START_S = 15
# A forked process has the command line of its parent, and a name of its own.
_FORKED = {
    "code-server": CODE_SERVER,
    "daemon": "daemon",
    "webserver": "webserver",
    "page": "page",
    "tracker": "resource tracker",
    "runs": "forkserver",
    "run": "run",
}
# The first text that is part of any other's command line gives the role.
_ROLES = (
    # Its command line contains that of the service that it waits for.
    ("/bin/sh\0-c", "supervisor"),
    ("multiprocessing.forkserver", "forkserver"),
    ("multiprocessing.resource_tracker", "resource tracker"),
    ("multiprocessing.spawn", "run"),
    ("aiseg2_pipeline.web", "page"),
    ("webserver", "webserver"),
    ("runtime.webserver", "webserver"),
    ("dagster._daemon", "daemon"),
    ("grpc", CODE_SERVER),
    ("code_server", CODE_SERVER),
    ("aiseg2_pipeline.cli\0simulate", "simulator"),
    ("aiseg2_pipeline.cli", "supervisor"),
    ("influx", "InfluxDB"),
    ("watch_orphans", "compute logs"),
    ("tail\0", "compute logs"),
)


@dataclass(frozen=True)
class Process:
    """One line of the process table; `own_s` is its CPU time, `ended_s` that of all its children it has waited for.

    `started_at` counts from the machine's start.
    """

    pid: int
    parent: int
    is_zombie: bool
    started_at: float
    own_s: float
    ended_s: float

    @property
    def key(self) -> tuple[int, float]:
        """Identify the process, whose id can be reused later."""
        return self.pid, self.started_at


class Tree:
    """All descendants of this process that start after `Tree()`; use it as a context manager, which ends all of them.

    A process whose parent has died becomes a child of this process, so that none leaves the tree. An ended process
    counts once: as a zombie, or through the parent that waited for it. Its role is that of the last sample while it ran;
    the time after that sample, and processes that no sample met, are under UNSEEN.
    """

    def __init__(self) -> None:
        """Start with an empty tree; processes that already run do not belong to it."""
        if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError("orphans of the tree cannot be adopted on this system: measure on Linux")
        self._before = {process.pid for process in _processes().values() if process.parent == os.getpid()}
        self._own: dict[tuple[int, float], tuple[str, float]] = {}
        self._starts_s: dict[tuple[int, float], float] = {}
        self._lock = threading.Lock()
        self.memory: list[tuple[float, dict[str, float]]] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs, wait for all."""
        while tree := self._now():
            for process in tree.values():
                if process.is_zombie and process.parent == os.getpid():
                    os.waitpid(process.pid, 0)
                elif not process.is_zombie:
                    _kill(process.pid)
            time.sleep(0.05)

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU-seconds spent so far, by role. What code servers took to start is under STARTS."""
        with self._lock:
            tree = self._sample()
            seconds: dict[str, float] = defaultdict(float)
            for role, own_s in self._own.values():
                seconds[role] += own_s
            for start_s in self._starts_s.values():
                seconds[CODE_SERVER] -= start_s
                seconds[STARTS] += start_s
            seconds[UNSEEN] = sum(process.own_s + process.ended_s for process in tree) - sum(seconds.values())
            return seconds

    @contextmanager
    def watch(self, every_s: float = 0.2) -> Iterator[None]:
        """Sample the tree while the `with` block runs, and append its memory to `memory`.

        A sample is the Unix time and MB (PSS) by role: pages shared by several processes are divided among them.
        """
        over = threading.Event()

        def sample_memory() -> None:
            while not over.wait(every_s):
                with self._lock:
                    tree = self._sample()
                megabytes: dict[str, float] = defaultdict(float)
                for process in tree:
                    if process.key in self._own:
                        megabytes[self._own[process.key][0]] += _pss_mb(process.pid)
                self.memory.append((time.time(), megabytes))

        thread = threading.Thread(target=sample_memory)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _sample(self) -> list[Process]:
        """Store the CPU time of each process; return the processes."""
        tree = self._now()
        uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        for process in tree.values():
            known_role, _ = self._own.get(process.key, ("", 0.0))
            role = _role(process, tree) or known_role
            if not role:
                continue
            self._own[process.key] = role, process.own_s
            if role == CODE_SERVER and uptime_s - process.started_at < _START_S:
                self._starts_s[process.key] = process.own_s
        return list(tree.values())

    def roles(self) -> list[tuple[int, str]]:
        """Return the id and the role of each running process."""
        tree = self._now()
        return [(pid, role) for pid, process in tree.items() if (role := _role(process, tree))]

    def ended(self) -> bool:
        """Return whether all processes of the tree have ended."""
        return all(process.is_zombie for process in self._now().values())

    def _now(self) -> dict[int, Process]:
        table = _processes()
        children: dict[int, list[int]] = {}
        for process in table.values():
            children.setdefault(process.parent, []).append(process.pid)
        found: dict[int, Process] = {}
        todo = [pid for pid in children.get(os.getpid(), []) if pid not in self._before]
        while todo:
            pid = todo.pop()
            found[pid] = table[pid]
            todo += children.get(pid, [])
        return found


def _processes() -> dict[int, Process]:
    table = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and (stat := _read(f"/proc/{entry.name}/stat")):
            # The name, in brackets, can contain any character; the numbers follow it.
            state, parent, *numbers = stat.rpartition(")")[2].split()
            user, system, user_ended, system_ended = (int(ticks) / _TICKS_A_SECOND for ticks in numbers[9:13])
            pid, started_at = int(entry.name), int(numbers[17]) / _TICKS_A_SECOND
            table[pid] = Process(
                pid, int(parent), state == "Z", started_at, user + system, user_ended + system_ended
            )
    return table


def _role(process: Process, tree: Mapping[int, Process]) -> str:
    """Return a process's role; empty for an ending process, whose command line is gone."""
    command = _command(process.pid)
    if not command:
        return ""
    if role := _FORKED.get(_read(f"/proc/{process.pid}/comm").strip()):
        return role
    role = next((role for words, role in _ROLES if words in command), "other")
    # A forked child has its parent's command line.
    forked = role == "forkserver" and process.parent in tree and _command(process.parent) == command
    return "run" if forked else role


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/cmdline")


def _pss_mb(pid: int) -> float:
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _read(path: str) -> str:
    """Return a file's text; empty if the process has just ended."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
