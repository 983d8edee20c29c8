"""Run the device, InfluxDB and the pipeline as processes of a soak, and stop, hang or kill them at random times of a seed.

Samples belong in `vitals`, the checks in `soak`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline_tests.support.running_pipeline import Pages, environment
from benchmarks.processes import Tree
from benchmarks.side import say

STOP_S = 60
# As a service manager, wait before a restart.
RESTART_S = 5.0
# By the role of the process that is killed; the supervisor among them is the pipeline's own main process.
KILLED_ONCE = ("daemon", "code server", "webserver", "supervisor", "forkserver")
# The duration of each outage in seconds; 0 for a single action.
LASTING_S = {
    "InfluxDB stopped": (30, 180),
    "InfluxDB hangs": (15, 60),
    "unit away": (60, 240),
    "unit hangs": (30, 90),
    "run killed": (0, 0),
    "fill from the pages": (0, 0),
}
FILLED_H = 30
KILLED = " killed"


class Part:
    """A process that can be restarted, with its output in one file."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str], *command: str) -> None:
        """Set the command: a module and its arguments."""
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._environment = environment(settings)
        self._command = [sys.executable, "-m", *command]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process if it does not run."""
        if self.process is None:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(  # noqa: S603 - our own arguments
                    self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
                )

    def stop(self) -> int:
        """Stop the process; return its exit code, 0 if it does not run."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        code = self.process.wait(STOP_S)
        self.process = None
        return code

    def ended(self) -> int | None:
        """Return the exit code if the process has ended by itself; it can be started again then."""
        code = None if self.process is None else self.process.poll()
        if code is not None:
            self.process = None
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process if it runs."""
        if self.process is not None:
            self.process.send_signal(number)


@dataclass
class Parts:
    """The three processes, and the supervisor that restarts the pipeline; `events` are times (s) and names."""

    unit: Part
    influx: Part
    pipeline: Part
    tree: Tree
    pages: Pages
    chance: random.Random
    influx_host: str
    began: float = field(default_factory=time.monotonic)
    events: list[tuple[float, str]] = field(default_factory=list)
    starts_s: list[float] = field(default_factory=list)
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _kills_due: list[float] = field(default_factory=list)

    @property
    def at_s(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self.began

    def start(self) -> None:
        """Start all three processes."""
        self.influx.start()
        self.unit.start()
        self._start_pipeline()

    def tend(self) -> None:
        """End outages that are over, kill a run if that is due, and restart the pipeline if it has ended."""
        for due in [due for due in self._due if due[0] <= self.at_s]:
            self._due.remove(due)
            due[1]()
        if self._kills_due and (runs := [pid for pid, role in self.tree.roles() if role == "run"]):
            self._due.append((self.at_s + self._kills_due.pop(), lambda: self._kill(runs[-1], "run")))
        if (code := self.pipeline.ended()) is not None:
            self.note(f"pipeline ended ({code})")
            self._due.append((self.at_s + RESTART_S, self._start_pipeline))

    def start_event(self, what: str) -> None:
        """Start an outage, which `tend` ends, or do a single action."""
        lasts_s = self.chance.uniform(*LASTING_S.get(what, (0, 0)))
        if not what.endswith(KILLED):
            self.note(f"{what} for {lasts_s:.0f} s" if lasts_s else what)
        match what:
            case "InfluxDB stopped":
                self._for(lasts_s, self.influx.stop, self.influx.start, "InfluxDB back")
            case "InfluxDB hangs":
                self._hang(self.influx, lasts_s)
            case "unit away":
                self._for(lasts_s, self.unit.stop, self.unit.start, "unit back")
            case "unit hangs":
                self._hang(self.unit, lasts_s)
            case "run killed":
                self._kills_due.append(self.chance.uniform(0, 1.5))
            case "fill from the pages":
                self._fill()
            case _:
                role = what.removesuffix(KILLED)
                pids = [pid for pid, of_role in self.tree.roles() if of_role == role]
                if role == "supervisor" and self.pipeline.process is not None:
                    pids = [self.pipeline.process.pid]
                self._kill(pids[0], role) if pids else self.note(f"no {role} runs")

    def launch(self, job: str, partition: str) -> None:
        """Launch a run from the pages, as a person does; note a failure."""
        try:
            self.pages.launch(job, partition)
        except (requests.RequestException, ValueError, AssertionError) as error:
            # The webserver may have been killed.
            self.note(f"no {job} was launched ({type(error).__name__})")

    def end_events(self) -> None:
        """End all outages now."""
        self._kills_due.clear()
        due, self._due = self._due, []
        for _, end in due:
            end()

    def note(self, what: str) -> None:
        """Store an event and print it."""
        self.events.append((self.at_s, what))
        say(f"{self.at_s / 60:5.1f} min  {what}")

    def _start_pipeline(self) -> None:
        self.starts_s.append(self.at_s)
        self.pipeline.start()

    def _for(self, lasts_s: float, begin: Callable[[], object], end: Callable[[], None], then: str) -> None:
        def over() -> None:
            end()
            self.note(then)

        begin()
        self._due.append((self.at_s + lasts_s, over))

    def _hang(self, part: Part, lasts_s: float) -> None:
        self._for(
            lasts_s,
            lambda: part.send(signal.SIGSTOP),
            lambda: part.send(signal.SIGCONT),
            f"{part.name} answers again",
        )

    def _kill(self, pid: int, role: str) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.note(f"kill -9: {role}")
            if role == "forkserver":
                # The pipeline starts its services again by itself, in the next minute.
                self.starts_s.append(self.at_s)

    def _fill(self) -> None:
        hour = datetime.now(UTC) - timedelta(hours=self.chance.randint(2, FILLED_H))
        self.launch("power_fill", hour_key(hour))


def plan(chance: random.Random, minutes: float, every_s: float) -> list[tuple[float, str]]:
    """Return the times (s) and names of the events; none in the last tenth.

    Services are killed in the first 40 % only, so that the last process of each runs long enough to show a leak.
    """
    total_s = minutes * 60
    kills = chance.sample(KILLED_ONCE, len(KILLED_ONCE))
    share = 0.4 * total_s / len(kills)
    planned = [(share * (n + chance.uniform(0.3, 0.9)), f"{role}{KILLED}") for n, role in enumerate(kills)]
    deck: list[str] = []
    at_s = chance.uniform(0.5, 1) * every_s
    while at_s < 0.9 * total_s:
        # Shuffled: each happens before any of them is repeated.
        deck = deck or chance.sample(list(LASTING_S), len(LASTING_S))
        planned.append((at_s, deck.pop()))
        at_s += chance.uniform(0.5, 1.5) * every_s
    return sorted(planned)
