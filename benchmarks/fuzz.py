"""Run a million mutated inputs through every parser of untrusted data (`aiseg2_pipeline_tests/support/fuzz_targets`).

Only our own errors may be raised, each with a short message, and every result must be finite, in range and storable. A
failure is printed with its input and the command that repeats it; then the exit status is 1.

    python -m benchmarks.fuzz --inputs 1000000 --seed 1 --jobs 2
    python -m benchmarks.fuzz --only "flow json" --start 17 --inputs 1
"""

import argparse
import logging
import math
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path

from aiseg2_pipeline_tests.support.fuzz_targets import Target, targets
from benchmarks.side import markdown, say

BATCH = 500
# An input that takes longer counts as one that hangs.
MAX_CPU_S = 20
PROGRESS_S = 20.0

Job = tuple[str, int, int]


class Hangs(Exception):  # noqa: N818 - it describes the input
    """An input took too long."""


@dataclass
class Tally:
    """A target's outcomes, its slowest input, and a description of each failure."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_ms: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add the tally of another batch."""
        self.outcomes += other.outcomes
        self.seconds += other.seconds
        self.slowest_ms = max(self.slowest_ms, other.slowest_ms)
        self.failures += other.failures


# Set in each process of the pool.
_targets: dict[str, Target]
_resources = ExitStack()


def _start() -> None:
    global _targets  # noqa: PLW0603 - a pool has no other place for it
    # A library logs each invalid response.
    logging.disable()
    warnings.simplefilter("ignore")
    folder = Path(_resources.enter_context(tempfile.TemporaryDirectory()))
    _targets = {target.name: target for target in _resources.enter_context(targets(folder))}

    def hangs(*_: object) -> None:
        raise Hangs(f"more than {MAX_CPU_S} s of CPU")

    signal.signal(signal.SIGVTALRM, hangs)


def _names_and_shares() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder, targets(Path(folder)) as every:
        return {target.name: target.share for target in every}


def _run_batch(job: tuple[int, Job]) -> tuple[str, Tally]:
    seed, (name, start, end) = job
    target, tally = _targets[name], Tally()
    began = time.perf_counter()
    for number in range(start, end):
        body = target.input(seed, number)
        began_cpu = time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
        try:
            outcome = target.outcome(body)
        except Exception:  # noqa: BLE001 - any other exception is a failure
            outcome = "FAILED"
            again = f'python -m benchmarks.fuzz --only "{name}" --seed {seed} --start {number} --inputs 1'
            tally.failures.append(f"{name}: {len(body)} bytes: {body[:300]!r}\n{again}\n{traceback.format_exc()}")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        tally.outcomes[outcome] += 1
        tally.slowest_ms = max(tally.slowest_ms, 1000 * (time.process_time() - began_cpu))
    tally.seconds = time.perf_counter() - began
    return name, tally


def run(shares: dict[str, float], inputs: int, seed: int, jobs: int, start: int = 0) -> dict[str, Tally]:
    """Run each target's share of the inputs in `jobs` processes, and print progress and failures."""
    ends = {name: start + math.ceil(inputs * share / sum(shares.values())) for name, share in shares.items()}
    batches = [[(name, at, min(end, at + BATCH)) for at in range(start, end, BATCH)] for name, end in ends.items()]
    # In turn, so that a failure of any target is seen early.
    work = [(seed, job) for turn in zip_longest(*batches) for job in turn if job]
    tallies = {name: Tally() for name in shares}
    reported = time.monotonic()
    with get_context("spawn").Pool(jobs, _start) as pool:
        for name, tally in pool.imap_unordered(_run_batch, work):
            for failure in tally.failures:
                print(failure, flush=True)
            tallies[name].add(tally)
            if time.monotonic() - reported > PROGRESS_S:
                reported = time.monotonic()
                say(f"{sum(tally.outcomes.total() for tally in tallies.values()):,} of {inputs:,} inputs")
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """Return the tallies as a table."""
    rows = []
    for name, tally in tallies.items():
        total, read = tally.outcomes.total(), tally.outcomes["read"]
        others = sorted(set(tally.outcomes) - {"read"})
        refused = ", ".join(f"{kind} {tally.outcomes[kind]:,}" for kind in others) or "-"
        speed = f"{total / max(tally.seconds, 1e-9):,.0f}"
        rows.append([name, f"{total:,}", speed, f"{read:,}", refused, f"{tally.slowest_ms:.0f}"])
    return markdown(["target", "inputs", "inputs a second", "read", "refused", "slowest, ms of CPU"], rows)


def main() -> None:
    """Run the command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--inputs", type=int, default=1_000_000, help="in total, divided among the targets")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--only", action="append", metavar="TARGET", help="this target; repeat for more")
    arguments.add_argument("--start", type=int, default=0, help="the number of each target's first input")
    options = arguments.parse_args()
    known = _names_and_shares()
    if unknown := set(options.only or ()) - known.keys():
        arguments.error(f"no target is called {', '.join(unknown)}; there are {', '.join(known)}")
    shares = {name: known[name] for name in options.only or known}
    tallies = run(shares, options.inputs, options.seed, options.jobs, options.start)
    failures = sum(len(tally.failures) for tally in tallies.values())
    print(f"\n{table(tallies)}\n\n{failures:,} failures, seed {options.seed}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
