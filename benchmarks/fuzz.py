"""A million spoiled inputs to everything that reads what a device, a server or a damaged file says.

Of each parser (`aiseg2_pipeline_tests.support.parsers`) it is asked: do only our own errors come out, each one sentence; is
what it reads finite, in range and storable; is its time bounded; was nothing opened that a page names. An escape is
printed with its input, made as small as it can be, and the command that shows it again; then the exit status is 1.

    python -m benchmarks.fuzz --inputs 1000000 --seed 1 --jobs 2
    python -m benchmarks.fuzz --only "flow json" --replay BASE64
"""

import argparse
import base64
import logging
import math
import os
import resource
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

from aiseg2_pipeline_tests.support.fuzz_lures import lured
from aiseg2_pipeline_tests.support.parsers import Parser, outcome, parsers, spoiled
from benchmarks.side import markdown, say

BATCH = 500
# An input that takes longer than this would be one that hangs.
MAX_CPU_S = 20.0
PROGRESS_S = 20.0
SMALLER_S = 30.0
_KB = 1000


@dataclass(frozen=True)
class Escape:
    """What came out that never should: the input as found, and as small as it could be made."""

    parser: str
    number: int
    what: str
    body: bytes


@dataclass
class Tally:
    """What a parser made of its inputs."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    slowest: str = ""
    slowest_ms_per_kb: float = 0.0
    grew_mb: float = 0.0
    escapes: list[Escape] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take up what another process counted."""
        self.inputs += other.inputs
        self.seconds += other.seconds
        self.outcomes += other.outcomes
        self.escapes += other.escapes
        self.grew_mb = max(self.grew_mb, other.grew_mb)
        self.slowest_ms_per_kb = max(self.slowest_ms_per_kb, other.slowest_ms_per_kb)
        if other.slowest_ms > self.slowest_ms:
            self.slowest_ms, self.slowest = other.slowest_ms, other.slowest


class Hangs(Exception):  # noqa: N818 - it is what the input does
    """An input took too long."""


def batch(parser: Parser, seed: int, start: int, count: int, lures: list[str]) -> Tally:
    """Give a parser `count` inputs from number `start` on."""
    tally = Tally()
    for number in range(start, start + count):
        body = spoiled(parser, seed, number, lures)
        began, began_cpu = time.perf_counter(), time.process_time()
        escape = None
        try:
            tally.outcomes[watched(parser, body)] += 1
        except Exception as error:  # noqa: BLE001 - an escape is whatever is not ours
            tally.outcomes["ESCAPED"] += 1
            escape = error
        took_ms = (time.process_time() - began_cpu) * 1000
        tally.seconds += time.perf_counter() - began
        tally.inputs += 1
        if took_ms > tally.slowest_ms:
            tally.slowest_ms, tally.slowest = took_ms, f"#{number}, {len(body) / _KB:.1f} kB"
        # Less would measure the clock of the CPU, which goes in steps of some milliseconds.
        tally.slowest_ms_per_kb = max(tally.slowest_ms_per_kb, took_ms / max(10, len(body) / _KB))
        if escape is not None and not tally.escapes:
            tally.escapes.append(Escape(parser.name, number, _what(escape), smaller(parser, body, escape)))
    return tally


def watched(parser: Parser, body: bytes) -> str:
    """Return the outcome of an input; raise Hangs when it takes too long."""
    signal.setitimer(signal.ITIMER_VIRTUAL, MAX_CPU_S)
    try:
        return outcome(parser, body)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def smaller(parser: Parser, body: bytes, escape: Exception) -> bytes:
    """Return the smallest part of the input, as far as looked for, from which the same comes out."""
    until = time.monotonic() + SMALLER_S
    size = len(body) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(body) and time.monotonic() < until:
            shorter = body[:at] + body[at + size :]
            if _escapes(parser, shorter, escape):
                body = shorter
            else:
                at += size
        size //= 2
    return body


def _escapes(parser: Parser, body: bytes, like: Exception) -> bool:
    try:
        watched(parser, body)
    except Exception as error:  # noqa: BLE001 - as in `batch`
        return _where(error) == _where(like)
    return False


def _where(error: Exception) -> tuple[type, int]:
    """Tell escapes apart by their kind and the line they come from."""
    return type(error), traceback.extract_tb(error.__traceback__)[-1].lineno or 0


def _what(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {ascii(error)[:300]} at {Path(last.filename).name}:{last.lineno}"


# What a process of the pool has: its parsers and what keeps them going, the seed, the lures.
_own: tuple[dict[str, Parser], ExitStack, int, list[str]]


def _start(seed: int, lures: list[str]) -> None:
    global _own  # noqa: PLW0603 - a pool has no other place for it
    stack = ExitStack()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    _own = {parser.name: parser for parser in stack.enter_context(parsers(folder))}, stack, seed, lures
    _watch()


def _watch() -> None:
    # What a library says of a server's garbage, it says a hundred thousand times.
    logging.disable()
    warnings.simplefilter("ignore")

    def hangs(*_: object) -> None:
        raise Hangs(f"more than {MAX_CPU_S:.0f} s of CPU")

    signal.signal(signal.SIGVTALRM, hangs)


def _work(job: tuple[str, int, int]) -> tuple[str, Tally, float]:
    name, start, count = job
    known, _, seed, lures = _own
    before_mb = _peak_mb()
    tally = batch(known[name], seed, start, count, lures)
    tally.grew_mb = _peak_mb() - before_mb
    return name, tally, _peak_mb()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(shares: dict[str, float], inputs: int, seed: int, jobs: int, start: int = 0) -> dict[str, Tally]:
    """Give each parser its share of the inputs, in `jobs` processes, and print how far it is."""
    ends = {name: start + math.ceil(inputs * share / sum(shares.values())) for name, share in shares.items()}
    batches = [[(name, at, min(BATCH, end - at)) for at in range(start, end, BATCH)] for name, end in ends.items()]
    # Every parser has its turn early: what escapes is seen at once.
    work = [job for turn in zip_longest(*batches) for job in turn if job]
    tallies = {name: Tally() for name in shares}
    peak_mb, done, said = 0.0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, lured(Path(folder)) as (lures, taken):
        # Fresh processes: a server's thread here must not be forked in the middle of something.
        with get_context("spawn").Pool(jobs, _start, (seed, lures)) as pool:
            for name, tally, mb in pool.imap_unordered(_work, work):
                for escape in tally.escapes:
                    tell(escape, seed)
                tallies[name].add(tally)
                peak_mb, done = max(peak_mb, mb), done + tally.inputs
                if time.monotonic() - said > PROGRESS_S:
                    said = time.monotonic()
                    say(f"{done:,} of {inputs:,} inputs, peak {peak_mb:.0f} MB of a process")
        if taken():
            raise SystemExit("A page made a parser open an address that it names.")
    print(f"\nPeak memory of a process: {peak_mb:.0f} MB. Nothing that a page names was opened.")
    return tallies


def tell(escape: Escape, seed: int) -> None:
    """Print an escape, and how to see it again."""
    print(f"\nESCAPED {escape.parser} #{escape.number} (seed {seed}): {escape.what}")
    print(f"  {len(escape.body)} bytes: {escape.body[:300]!r}")
    replay = base64.b64encode(escape.body).decode()
    print(f'  python -m benchmarks.fuzz --only "{escape.parser}" --replay {replay[:4000]}', flush=True)


def table(tallies: dict[str, Tally]) -> str:
    """Return what was found as a table."""
    kinds = sorted({kind for tally in tallies.values() for kind in tally.outcomes} - {"read"})
    rows = [
        [
            name,
            f"{tally.inputs:,}",
            f"{tally.inputs / max(tally.seconds, 1e-9):,.0f}",
            f"{tally.outcomes['read']:,}",
            ", ".join(f"{kind} {tally.outcomes[kind]:,}" for kind in kinds if tally.outcomes[kind]) or "-",
            f"{tally.slowest_ms:.0f} ms ({tally.slowest})",
            f"{tally.slowest_ms_per_kb:.1f}",
            f"{tally.grew_mb:.0f}",
        ]
        for name, tally in tallies.items()
    ]
    head = [
        "parser",
        "inputs",
        "a second",
        "read",
        "refused",
        "slowest (CPU)",
        "slowest, ms a kB",
        "peak grew by MB",
    ]
    return markdown(head, rows)


def main() -> None:
    """Run the command."""
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--inputs", type=int, default=1_000_000, help="in all, shared by the parsers")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments.add_argument(
        "--only", action="append", metavar="PARSER", help="one of these parsers; again for more"
    )
    arguments.add_argument("--start", type=int, default=0, help="the number of each parser's first input")
    arguments.add_argument("--replay", metavar="BASE64", help="give this one input to the parser of --only")
    told = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, parsers(Path(folder)) as every:
        known = {parser.name: parser for parser in every}
        if wrong := set(told.only or ()) - known.keys():
            arguments.error(f"no parser is called {', '.join(wrong)}; there are {', '.join(known)}")
        if told.replay:
            _watch()
            for name in told.only or ():
                print(name, watched(known[name], base64.b64decode(told.replay)))
            return
    shares = {name: known[name].share for name in told.only or known}
    tallies = run(shares, told.inputs, told.seed, told.jobs, told.start)
    print(f"\n{table(tallies)}\n\n{sum(tally.inputs for tally in tallies.values()):,} inputs, seed {told.seed}")
    escaped = sum(tally.outcomes["ESCAPED"] for tally in tallies.values())
    print(f"{escaped:,} escapes")
    sys.exit(1 if escaped else 0)


if __name__ == "__main__":
    main()
