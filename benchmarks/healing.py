"""Fill an outage of an hour, a day and 30 days from the device's energy: requests, wall time, CPU and memory.

The fill runs in a process of its own; the simulated device is in this one. An hour's energy is on the pages of its day,
and the pipeline stores them. The baseline requests each missing hour separately and stores nothing. It is measured for
one hour and multiplied for more (≈). A repeated fill must make no request.

    python -m benchmarks.healing [--latency-ms 200] [--quick]

`--quick` omits the 30 days without an SD card, which take minutes.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.frames.readings import live_frame
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.gaps.find import hours_between
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.japan_time import day_of
from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import Running, running
from aiseg2_pipeline.store import EnergyStore, Store
from benchmarks.side import Cost, alone, markdown, say

START = datetime(2026, 7, 10, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)
CASES = {"1 hour": 1, "1 day": 24, "30 days": 720}
SLOW_HOURS = 720
HEAD = (
    "missing",
    "requests",
    "wall",
    "CPU",
    "peak memory",
    "above imports",
    "hour by hour",
    "requests, ratio",
    "wall, ratio",
)


@dataclass
class Clock:
    """The device's time, which changes only when it is set."""

    now: datetime

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


@dataclass(frozen=True)
class Measured:
    """The requests to the device, and the cost, of a function."""

    requests: int
    cost: Cost


@contextmanager
def device(address: str, folder: Path, now: datetime) -> Iterator[Aiseg2Client]:
    """Yield a client with the state of the last one in `folder`."""
    with Aiseg2Client(
        f"http://{address}", DEFAULT_USER, DEFAULT_PASSWORD, state_dir=folder / "device", clock=lambda: now
    ) as client:
        yield client


def read_live(address: str, folder: Path) -> None:
    """Take the reading before the outage: a fill needs the names of the circuits."""
    with Store.open(folder / "readings.sqlite") as store, device(address, folder, START) as client:
        reading = client.live()
        store.upsert(live_frame(reading))
        if reading.known_circuits is not None:
            store.record_circuits(reading.known_circuits.shown, reading.answered_at)


def heal(address: str, folder: Path, hours: Sequence[datetime], now: datetime) -> None:
    """Fill these hours as a background run does."""
    with ExitStack() as stack:
        store = stack.enter_context(Store.open(folder / "readings.sqlite"))
        energy = stack.enter_context(EnergyStore.open(folder / "energy.sqlite"))
        client = stack.enter_context(device(address, folder, now))

        def history() -> History:
            return stack.enter_context(History(client, energy, folder / "device", now))

        for _ in fill_hours(store, energy, hours, now=now, history=history):
            pass


def request_hour(address: str, hour: datetime, now: datetime) -> None:
    """Request the energy of an hour without stored energy, and store nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            EnergyStore.open(folder / "energy.sqlite") as energy,
            device(address, folder, now) as client,
            History(client, energy, folder / "device", now) as history,
        ):
            history.read_day(day_of(hour), circuits=True, source="web")


def measured(unit: Running, work: partial[None]) -> Measured:
    """Call a function in a process of its own."""
    unit.tally.requests.clear()
    cost = alone(work)
    return Measured(unit.tally.requests.total(), cost)


def outage(n_hours: int, latency_s: float, *, sd_card: bool) -> Measured:
    """Read once, let the hours pass, fill them, and fill them again."""
    clock = Clock(START)
    hours = [START + n * HOUR for n in range(n_hours)]
    with (
        tempfile.TemporaryDirectory() as scratch,
        running(Household(1), clock=clock, latency_s=latency_s, sd_card=sd_card) as unit,
    ):
        folder = Path(scratch)
        alone(read_live, unit.address, folder)
        clock.now = hours[-1] + HOUR + timedelta(minutes=10)
        healing = partial(heal, unit.address, folder, hours, clock.now)
        healed, again = measured(unit, healing), measured(unit, healing)
        with Store.open(folder / "readings.sqlite") as store:
            missing = sum(hour.missing for hour in hours_between(store, START, hours[-1] + HOUR, clock.now))
    if missing or again.requests:
        raise SystemExit(f"{missing} minutes are missing, and a repeated fill made {again.requests} requests.")
    return healed


def baseline(latency_s: float) -> Measured:
    """Measure one hour of the baseline."""
    now = START + HOUR + timedelta(minutes=10)
    with running(Household(1), clock=Clock(now), latency_s=latency_s) as unit:
        return measured(unit, partial(request_hour, unit.address, START, now))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=200)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    latency_s = options.latency_ms / 1000
    say("One hour of the baseline …")
    one = baseline(latency_s)
    rows = []
    for sd_card in (False, True):
        for words, n_hours in CASES.items():
            if options.quick and n_hours >= SLOW_HOURS and not sd_card:
                continue
            missing = f"{words}{', SD card' if sd_card else ''}"
            say(f"{missing} …")
            ours = outage(n_hours, latency_s, sd_card=sd_card)
            rows.append(
                (
                    missing,
                    str(ours.requests),
                    f"{ours.cost.wall_s:.1f} s",
                    f"{ours.cost.cpu_s:.1f} s",
                    f"{ours.cost.peak_mb:.0f} MB",
                    f"{ours.cost.peak_mb - ours.cost.imports_mb:.0f} MB",
                    f"{'≈ ' if n_hours > 1 else ''}{one.requests * n_hours:,} requests, {one.cost.wall_s * n_hours:.0f} s",
                    f"{ours.requests / (one.requests * n_hours):.4f}",
                    f"{ours.cost.wall_s / (one.cost.wall_s * n_hours):.3f}",
                )
            )
    print(f"{options.latency_ms:g} ms per answer\n")
    print(markdown(HEAD, rows))


if __name__ == "__main__":
    main()
