"""A simulated device with an energy store and a store of readings, for the tests of `ingest` and `gaps`."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tenacity
from starlette.exceptions import HTTPException

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.japan_time import day_start
from aiseg2_pipeline.simulator import graphs
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.support.simulator_client import JAPAN, Unit, simulated

NOON = datetime(2026, 7, 14, 12, 0, 5, tzinfo=JAPAN)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass
class Memory:
    """A simulated device, and the energy store that its history is read into."""

    unit: Unit
    energy: EnergyStore
    folder: Path
    skew: timedelta = timedelta(0)

    def now(self) -> datetime:
        return (self.unit.times[0] + self.skew).astimezone(UTC)

    def client(self) -> Aiseg2Client:
        served = self.unit.served
        return Aiseg2Client(
            f"http://{served.address}",
            served.user,
            served.password,
            state_dir=self.folder,
            clock=self.now,
            slot="background",
        )

    @contextmanager
    def history(self) -> Iterator[History]:
        with self.client() as client, History(client, self.energy, self.folder, self.now()) as history:
            yield history

    def rows(self, day: date) -> pd.DataFrame:
        table = self.energy.read(day_start(day), day_start(day) + DAY)
        return table.sort_values(KEY, ignore_index=True)

    def asked(self, path: str) -> int:
        return self.unit.served.tally.requests[path]

    def requests(self) -> int:
        return sum(self.unit.served.tally.requests.values())

    def noted(self, day: date, name: str) -> set[int]:
        """Return the hours in Japan for which this was requested in vain."""
        attempts = self.energy.attempts(day_start(day), day_start(day) + DAY)
        return {attempt.time.astimezone(JAPAN).hour for attempt in attempts if attempt.what == name}


@contextmanager
def remembered(
    folder: Path, now: datetime = NOON, household: Household | None = None, **options: Any
) -> Iterator[Memory]:
    with (
        simulated(now, household, **options) as unit,
        EnergyStore.open(folder / "energy.sqlite") as energy,
    ):
        yield Memory(unit, energy, folder / "device")


def intervals(table: pd.DataFrame, interval_s: int = 3600) -> dict[tuple[pd.Timestamp, str, str], float]:
    kept = table[table["interval_s"] == interval_s]
    keys = zip(kept["time"], kept["kind"], kept["name"], strict=True)
    return dict(zip(keys, kept["value"], strict=True))


def hours_of(table: pd.DataFrame, kind: str = "consumption") -> list[int]:
    times = table.loc[table["kind"] == kind, "time"]
    return sorted({time.tz_convert(JAPAN).hour for time in times})


def failing(monkeypatch: pytest.MonkeyPatch, status: int | None, *circuit_ids: str) -> set[str]:
    """Make these circuits' pages fail with a status, or be unreadable; return their ids, which the test may change."""
    # One attempt instead of 20 s.
    monkeypatch.setattr("tenacity.stop_before_delay", lambda _: tenacity.stop_after_attempt(1))
    shown, ids = graphs.circuit_graph, set(circuit_ids)

    def circuit_graph(circuit_id: str | None, names: Mapping[int, str]) -> graphs.Graph:
        if circuit_id not in ids:
            return shown(circuit_id, names)
        if status is None:
            return replace(shown(circuit_id, names), unit="L")
        raise HTTPException(status)

    monkeypatch.setattr(graphs, "circuit_graph", circuit_graph)
    return ids


@dataclass
class Record:
    """A store of readings beside the energy store; tests take live readings around an outage."""

    memory: Memory
    store: Store

    def read_live(self, at: datetime) -> None:
        self.memory.unit.set_clock(at)
        with self.memory.client() as client:
            minute = at.replace(second=0)
            taken = take_minute(client, self.store, minute=minute, samples=1, clock=self.memory.now)
        assert taken.problems == []

    def names(self, hour: datetime) -> set[str]:
        """Return the circuits of which an hour has every minute."""
        usage = self.store.read(hour, hour + HOUR, kinds=["usage"])
        minutes = usage.groupby("name")["time"].nunique()
        return set(minutes[minutes == 60].index)

    def fill(self, hours: list[datetime]) -> int:
        """Fill these hours; return the minutes filled."""
        with ExitStack() as stack:

            def history() -> History:
                client = stack.enter_context(self.memory.client())
                return History(client, self.memory.energy, self.memory.folder, self.memory.now())

            days = fill_hours(self.store, self.memory.energy, hours, now=self.memory.now(), history=history)
            return sum(day.filled_minutes for day in days)


@contextmanager
def recorded(memory: Memory, folder: Path) -> Iterator[Record]:
    with Store.open(folder / "readings.sqlite") as store:
        yield Record(memory, store)
