"""Measure a function in a process of its own; print medians, progress and Markdown tables.

Memory is read from Linux's /proc.
"""

import multiprocessing
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")


@dataclass(frozen=True)
class Cost:
    """The time of a function, and the peak memory of its process after the imports and in all."""

    wall_s: float
    cpu_s: float
    imports_mb: float
    peak_mb: float


def alone(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> Cost:
    """Call a function in a new process; return its cost. Imports count as memory, not as time."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_cost, work, args, kwargs).result()


def median_s(work: Callable[[], object], repeats: int) -> float:
    """Call a function several times; return the median of the seconds."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with its numbers aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def say(what: str) -> None:
    """Print progress on stderr; stdout is for the tables."""
    print(what, file=sys.stderr, flush=True)


def _cost(work: Callable[..., object], args: Sequence[object], kwargs: dict[str, object]) -> Cost:
    imports_mb = _peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    work(*args, **kwargs)
    return Cost(time.perf_counter() - started, time.process_time() - cpu, imports_mb, _peak_mb())


def _peak_mb() -> float:
    # Not `ru_maxrss`: a child begins with its parent's.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = re.search(r"VmHWM:\s*(\d+) kB", status)
    if peak is None:
        raise OSError("/proc/self/status has no VmHWM: measure on Linux")
    return int(peak[1]) / 1024
