"""Many scenarios in several processes, each with an InfluxDB and a prepared process of its own."""

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path

from aiseg2_pipeline_tests.endurance.chaos import Report, Scenario
from aiseg2_pipeline_tests.endurance.plan import draw
from aiseg2_pipeline_tests.endurance.world import Escaped, Prefork
from aiseg2_pipeline_tests.support.influxdb import InfluxServer

# Where it is memory, a store's waiting for the disk costs nothing; kills lose nothing either way.
MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it have names that nobody can guess


@dataclass(frozen=True)
class Lot:
    """Scenarios of one kind: `seeds`, each of so many simulated hours, `rough` the share of bad ones."""

    seeds: Sequence[int]
    hours: int
    rough: float


@dataclass(frozen=True)
class Outcome:
    """What became of a seed: its report, or what escaped from it; and the seconds that it took."""

    seed: int
    report: Report | None
    escaped: str | None
    took_s: float

    @property
    def wrong(self) -> str:
        """Return what is wrong with it, empty where nothing is."""
        if self.report is None:
            return str(self.escaped)
        return str(self.report.verdict)


def outcomes(lot: Lot, jobs: int) -> Iterator[Outcome]:
    """Run the scenarios in so many processes, and yield each as it ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare) as pool:
        waiting = [pool.submit(_run, seed, lot.hours, lot.rough) for seed in lot.seeds]
        for done in as_completed(waiting):
            yield done.result()


class _Servers:
    """What a process of the pool has for all its scenarios."""

    folder: Path
    server: InfluxServer
    prefork: Prefork


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder in memory where there is such a thing."""
    return tempfile.TemporaryDirectory(prefix="chaos-", dir=MEMORY if MEMORY.is_dir() else None)


def _prepare() -> None:
    stack = ExitStack()
    util.Finalize(None, stack.close, exitpriority=10)
    threading.Thread(target=_end_with_parent, args=(stack,), daemon=True).start()
    _Servers.folder = Path(stack.enter_context(memory_folder()))
    _Servers.server = stack.enter_context(InfluxServer(_Servers.folder / "influxdb", token="chaos"))
    _Servers.prefork = stack.enter_context(Prefork())


def _end_with_parent(stack: ExitStack) -> None:
    """Leave no server behind where the parent is killed."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        stack.close()
        os._exit(1)


def _run(seed: int, hours: int, rough: float) -> Outcome:
    began = time.monotonic()
    report, escaped = None, None
    with tempfile.TemporaryDirectory(dir=_Servers.folder) as folder:
        scenario = Scenario(
            seed,
            draw(seed, hours, rough=rough),
            folder=Path(folder),
            server=_Servers.server,
            prefork=_Servers.prefork,
        )
        try:
            report = scenario.run()
        except Escaped as error:
            escaped = str(error)
    return Outcome(seed, report, escaped, time.monotonic() - began)
