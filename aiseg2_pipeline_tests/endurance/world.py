"""What the harness acts on: the workers and what kills them, and the time of a simulated world."""

import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from aiseg2_pipeline_tests.endurance.oracle import Offset
from aiseg2_pipeline_tests.endurance.worker import Home, Job

# When a worker can be killed: at the unit's n-th request, after the n-th frame that a store took, at a write to
# InfluxDB before the server takes it, after that and before its answer, or after some milliseconds.
KILL_POINTS = ("request", "stored", "write", "taken", "moment")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
MEAN_REQUEST_S = 0.3


class Escaped(AssertionError):  # noqa: N818 - it reads as what happened
    """Something other than the pipeline's own errors came out of a job, or a process ended or hung by itself."""


@dataclass
class Worker:
    """A process that does one job after the other, `job` being the one that it is at."""

    pid: int
    connection: Connection
    job: Job | None = None
    killed: bool = False
    # Whether host and unit did not agree on the time when the job began.
    clocks_differ: bool = False

    def kill(self) -> None:
        """End it as nothing else does; once, for its number may be another's afterwards."""
        if not self.killed:
            self.killed = True
            os.kill(self.pid, signal.SIGKILL)


class Prefork:
    """The prepared process, and the workers that it forks."""

    def __init__(self) -> None:
        """Start it; it is ready when its imports are done."""
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [sys.executable, "-m", "aiseg2_pipeline_tests.endurance.prefork", str(other.fileno())],
                pass_fds=[other.fileno()],
            )
        if self._control.recv(16) != b"ready":
            raise Escaped("the prepared process did not start")

    def fork(self, home: Home) -> Worker:
        """Return a new worker for a home."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"fork"], [theirs.fileno()])
            (pid,) = struct.unpack("q", self._control.recv(8))
        connection = Connection(ours.detach())
        connection.send(home)
        return Worker(pid, connection)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; the workers end with their connections."""
        self._control.close()
        self._process.wait(timeout=30)


@dataclass
class Trap:
    """Kills a worker when something happens for the n-th time (`left`); `point` is one of `KILL_POINTS`."""

    worker: Worker
    point: str
    left: int
    tally: Counter[str]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self, point: str) -> None:
        """Note that it happened; in any thread."""
        with self._lock:
            job = self.worker.job
            if point != self.point or self.left == 0 or job is None or self.worker.killed:
                return
            self.left -= 1
            if self.left == 0:
                self.tally[f"kill of {job.name} at {point}"] += 1
                self.worker.kill()

    @property
    def waits_for_taken(self) -> bool:
        """Return whether it springs between the server's taking a write and its answer."""
        return self.point == "taken" and self.left > 0 and self.worker.job is not None


class World:
    """The true time, and what the host's clock shows, which the workers see in a file of 8 bytes."""

    def __init__(self, start: datetime, clock: Path, seed: int) -> None:
        """Begin at `start`, with a clock that is right."""
        self._true_us = round(start.timestamp() * 1e6)
        self._ahead_us = 0
        self.offsets = [Offset(LONG_AGO, timedelta())]
        self._chance = random.Random(seed)  # noqa: S311 - a test's dice
        self._lock = threading.Lock()
        clock.write_bytes(bytes(8))
        with clock.open("r+b") as file:
            self._host = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")
        self._show()

    def now(self) -> datetime:
        """Return the true time (UTC)."""
        return datetime.fromtimestamp(self._true_us / 1e6, UTC)

    def host(self) -> datetime:
        """Return what the host's clock shows (UTC)."""
        return datetime.fromtimestamp(self._host[0] / 1e6, UTC)

    @property
    def ahead(self) -> timedelta:
        """Return by how much the host's clock is ahead."""
        return self.offsets[-1].ahead

    def pass_until(self, moment: datetime) -> None:
        """Let time pass until then, if it has not come yet."""
        with self._lock:
            self._true_us = max(self._true_us, round(moment.timestamp() * 1e6))
            self._show()

    def pass_some(self) -> None:
        """Let the time of a request pass."""
        with self._lock:
            self._true_us += round(self._chance.expovariate(1 / MEAN_REQUEST_S) * 1e6)
            self._show()

    def step_host(self, ahead: timedelta) -> None:
        """Step the host's clock, to be ahead by so much."""
        with self._lock:
            self._ahead_us = round(ahead.total_seconds() * 1e6)
            self.offsets.append(Offset(self.now(), ahead))
            self._show()

    def _show(self) -> None:
        self._host[0] = self._true_us + self._ahead_us


class Requests(Counter[str]):
    """The unit's count of requests, which tells of each."""

    def __init__(self, told: Callable[[], None]) -> None:
        """Tell `told`, in the unit's thread."""
        super().__init__()
        self._told = told

    def __setitem__(self, path: str, count: int) -> None:
        """Count."""
        super().__setitem__(path, count)
        self._told()
