"""Healing an outage from the device's memory: requests, wall time, CPU and memory, with and without an SD card.

The simulated device runs in the same process, so its share is in the CPU and the memory.

    python -m benchmarks.healing --days 30 --latency-ms 200 [--sd-card]
"""

import argparse
import resource
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.filling import fill_hours
from aiseg2_pipeline.history import History
from aiseg2_pipeline.orchestration.live import take_minute
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import Running, running
from aiseg2_pipeline.store import EnergyStore, Store

START = datetime(2026, 7, 10, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    """The time that the device and we share."""

    def __init__(self, now: datetime) -> None:
        """Begin at `now`; it stands still."""
        self.now = now

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


def measure(unit: Running, clock: Clock, folder: Path, days: float) -> None:
    """Take one reading, let the days pass, heal them twice, and print what it cost."""
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(folder / "readings.sqlite"))
        energy = stack.enter_context(EnergyStore.open(folder / "energy.sqlite"))
        client = stack.enter_context(
            Aiseg2Client(
                f"http://{unit.address}", unit.user, unit.password, state_dir=folder / "device", clock=clock
            )
        )
        take_minute(client, store, minute=clock.now, samples=1, clock=clock)
        clock.now += timedelta(days=days, minutes=10)
        hours = [START + n * HOUR for n in range(int(days * 24))]
        for words in ("first", "again"):
            unit.tally.requests.clear()
            started, cpu = time.perf_counter(), time.process_time()
            filled = sum(
                day.filled_minutes
                for day in fill_hours(
                    store,
                    energy,
                    hours,
                    now=clock.now,
                    history=lambda: stack.enter_context(History(client, energy, folder / "device", clock.now)),
                )
            )
            print(
                f"{words}: {filled} minutes filled, {unit.tally.requests.total()} requests, "
                f"{time.perf_counter() - started:.1f} s, {time.process_time() - cpu:.1f} CPU-s"
            )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Measure one outage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=1)
    parser.add_argument("--latency-ms", type=float, default=50)
    parser.add_argument("--sd-card", action="store_true")
    options = parser.parse_args()
    clock = Clock(START)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Household(1), clock=clock, latency_s=options.latency_ms / 1000, sd_card=options.sd_card) as unit,
    ):
        measure(unit, clock, Path(folder), options.days)


if __name__ == "__main__":
    main()
