"""Compare a live reading with that of the earlier forwarder: requests and wall time at several latencies of the device.

The forwarder reads six pages, each requested twice because of a 401, on a new connection each time; it stores no login.
Both read the same simulated home on loopback.

    python -m benchmarks.live_reading
"""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import requests
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import Running, running
from benchmarks.side import markdown, median_s, say

LATENCIES_MS = (0, 50, 200, 600)
REPEATS = 5
# A winter night: fewer than ten circuits are on. An evening: more than ten.
MOMENTS = {
    "fewer than ten circuits": datetime(2026, 1, 15, 19, 0, tzinfo=UTC),
    "ten or more circuits": datetime(2026, 1, 15, 10, 30, tzinfo=UTC),
}
FORWARDER_PAGES = ("/page/electricflow/111", *(f"/page/electricflow/1113?id={n}" for n in (1, 2, 3, 4, 5)))


def forwarder(unit: Running) -> None:
    """Read six pages as the forwarder does."""
    for page in FORWARDER_PAGES:
        with requests.Session() as session:
            session.get(f"http://{unit.address}{page}", auth=HTTPDigestAuth(unit.user, unit.password), timeout=10)


def ours(unit: Running, state_dir: Path, moment: datetime) -> None:
    """Take one live reading as a minute's run does, in a new client."""
    with Aiseg2Client(
        f"http://{unit.address}", unit.user, unit.password, state_dir=state_dir, clock=lambda: moment
    ) as client:
        reading = client.live()
    if reading.circuits is None:
        raise SystemExit(str(reading.circuits_error))


def _same(moment: datetime) -> datetime:
    return moment


def measured(unit: Running, read: Callable[[], None]) -> tuple[int, float]:
    """Return the requests of one reading and the median of its seconds."""
    unit.tally.requests.clear()
    seconds = median_s(read, REPEATS)
    return unit.tally.requests.total() // REPEATS, seconds


def main() -> None:
    """Print the table."""
    rows = []
    for words, moment in MOMENTS.items():
        for latency_ms in LATENCIES_MS:
            say(f"{words}, {latency_ms} ms per answer …")
            with (
                tempfile.TemporaryDirectory() as folder,
                running(Household(1), clock=partial(_same, moment), latency_s=latency_ms / 1000) as unit,
            ):
                state_dir = Path(folder)
                # The first reading of an hour requests all pages; the others have its state.
                ours(unit, state_dir, moment)
                theirs_n, theirs_s = measured(unit, partial(forwarder, unit))
                ours_n, ours_s = measured(unit, partial(ours, unit, state_dir, moment))
            rows.append(
                (
                    f"{words}, {latency_ms} ms",
                    f"{theirs_n} requests, {theirs_s:.2f} s",
                    f"{ours_n} requests, {ours_s:.2f} s",
                    f"{ours_n / theirs_n:.2f}",
                    f"{ours_s / theirs_s:.2f}",
                )
            )
    print(markdown(("on, per answer", "the forwarder's way", "ours", "requests, ratio", "wall, ratio"), rows))


if __name__ == "__main__":
    main()
