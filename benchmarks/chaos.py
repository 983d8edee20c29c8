"""Inject faults for many simulated days, and check that no reading is lost, false or written twice.

Each scenario is a seed: a simulated home, the pipeline's own code in processes that are killed, a simulated device and a
real InfluxDB with randomly injected faults, and an oracle with every true value (`aiseg2_pipeline_tests/endurance/chaos.py`).
Scenarios run until the given numbers of days and faults are reached. A wrong one is printed with the command that
repeats its seed, and the exit code is 1.

    python -m benchmarks.chaos [--days 60] [--faults 10000] [--seed 1] [--jobs 2]
    python -m benchmarks.chaos --seed 17 --only
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator

from aiseg2_pipeline_tests.endurance.pool import Lot, Outcome, outcomes
from benchmarks.side import markdown, say

HOURS_A_DAY = 24
WRONGS = ("lost", "false", "duplicated", "unreported")


class Sum:
    """The sums of all scenarios."""

    def __init__(self) -> None:
        """Start with zero."""
        self.days = 0.0
        self.faults: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.wrong: list[Outcome] = []
        self.left_to_fill = 0

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a scenario."""
        if outcome.wrong:
            self.wrong.append(outcome)
        if (report := outcome.report) is not None:
            self.days += report.plan.minutes / 60 / HOURS_A_DAY
            self.faults.update(report.faults)
            self.counts.update(report.verdict.counts)
            self.counts.update({name: len(getattr(report.verdict, name)) for name in WRONGS})
            self.left_to_fill += report.left_to_fill

    def table(self, wall_s: float) -> str:
        """Return the sums as a table."""
        rows = [("simulated days", f"{self.days:.1f}"), ("wall time", f"{wall_s / 60:.0f} min")]
        rows += [(name, f"{count:,}") for name, count in sorted(self.counts.items()) if name not in WRONGS]
        rows += [("hours that could still be filled", f"{self.left_to_fill:,}")]
        rows += [("faults", f"{self.faults.total():,}")]
        rows += [(f"… {name}", f"{count:,}") for name, count in sorted(self.faults.items())]
        rows += [(f"**{name}**", f"**{self.counts[name]:,}**") for name in WRONGS]
        return markdown(("", "count"), rows)


def _scenarios(options: argparse.Namespace, total: Sum) -> Iterator[Outcome]:
    """Yield outcomes until there are enough days and faults."""
    seed = options.seed
    while True:
        seeds = [seed] if options.only else range(seed, seed + 4 * options.jobs)
        yield from outcomes(Lot(seeds, options.hours, options.rough), options.jobs)
        seed += len(seeds)
        if options.only or (total.days >= options.days and total.faults.total() >= options.faults):
            return


def main() -> None:
    """Run scenarios, print the progress, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=60, help="simulated days at the least")
    parser.add_argument("--faults", type=int, default=10_000, help="faults at the least")
    parser.add_argument("--hours", type=int, default=24, help="simulated hours of a scenario")
    parser.add_argument("--rough", type=float, default=0.3, help="the share of hours with many faults")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--only", action="store_true", help="only this seed")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    began = time.monotonic()
    total = Sum()
    for outcome in _scenarios(options, total):
        total.add(outcome)
        say(
            f"seed {outcome.seed}: {outcome.took_s:.0f} s; {total.days:.1f} of {options.days:g} days, "
            f"{total.faults.total()} of {options.faults} faults, {len(total.wrong)} scenarios wrong"
        )
        if outcome.wrong:
            say(f"{outcome.wrong}\nrepeat with: {replay(outcome.seed, options.hours, options.rough)}")
    print(total.table(time.monotonic() - began))
    if total.wrong:
        sys.exit(1)


def replay(seed: int, hours: int, rough: float) -> str:
    """Return the command that repeats a seed."""
    return f"python -m benchmarks.chaos --seed {seed} --hours {hours} --rough {rough:g} --only"


if __name__ == "__main__":
    main()
