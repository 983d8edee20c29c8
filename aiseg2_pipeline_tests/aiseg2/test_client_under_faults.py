"""The client under each fault of the simulated device: a correct reading or an error message, never a wrong value."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from aiseg2_pipeline.aiseg2.circuits import circuit_key
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.aiseg2.graphs import Series
from aiseg2_pipeline.aiseg2.models import DayGraph, LiveReading
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.faults import Fault, Faults
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline.simulator.server import Running
from aiseg2_pipeline_tests.support.circuit_changes import HOSTILE_NAMES, changes
from aiseg2_pipeline_tests.support.energy_history import client_of
from aiseg2_pipeline_tests.support.simulator_client import JAPAN, Unit, energy_wh, simulated

_T = TypeVar("_T")
START = datetime(2026, 7, 14, 17, 3, tzinfo=JAPAN)
SERIES: tuple[Series, ...] = ("generation", "consumption", "bought", "sold")


@dataclass
class Home:
    """A simulated device with faults, a clock that the test sets, and a client with a completed first reading."""

    unit: Unit
    client: Aiseg2Client
    folder: Path

    @property
    def served(self) -> Running:
        return self.unit.served

    @property
    def times(self) -> list[datetime]:
        return self.unit.times


@contextmanager
def home(
    household: Household | None = None, faults: Faults | None = None, *, sd_card: bool = False
) -> Iterator[Home]:
    with (
        tempfile.TemporaryDirectory() as folder,
        simulated(START, household, sd_card=sd_card) as unit,
        client_of(unit, Path(folder), lambda: unit.times[0]) as client,
    ):
        client.live()
        unit.served.faults = faults
        yield Home(unit, client, Path(folder))


def result_of(read: Callable[[], _T]) -> _T | None:
    """Return the result of a read; None where it failed with a valid message."""
    try:
        return read()
    except Aiseg2Error as error:
        failure = error
    assert is_message(failure)
    return None


def is_message(error: Aiseg2Error) -> bool:
    text = str(error)
    return text.endswith(".") and ": " in text and "\n" not in text


def wrong_values(reading: LiveReading, household: Household, now: datetime) -> list[str]:
    """Return a description of each value of a reading that the household did not have."""
    power = household.power(np.array([step_of(now)]))
    totals = [
        ("generation", reading.flow.generation_kw, power.generation_w[0], 0.05001),
        ("consumption", reading.flow.consumption_kw, power.consumption_w[0], 0.05001),
        *(
            (device.name, device.power_w and device.power_w / 1000, power.generation_w[0], 1e-9)
            for device in reading.flow.generators
        ),
    ]
    found = [
        f"{name}: {read_kw} kW, not {true_w} W"
        for name, read_kw, true_w, most_kw in totals
        if read_kw is not None and abs(read_kw - true_w / 1000) > most_kw
    ]
    names = household.names(now)
    watts = zip(CIRCUITS, power.circuits_w[0].tolist(), strict=True)
    true = Counter(
        (circuit_key(names[circuit.circuit_id]), w) for circuit, w in watts if circuit.circuit_id in names
    )
    rows = reading.circuits or ()
    shown = Counter((circuit_key(row.name), row.power_w) for row in rows if row.power_w is not None)
    found += [f"{name}: {w} W" for name, w in (shown - true)]
    if reading.circuits is not None and len(rows) != len(names):
        found.append(f"{len(rows)} circuits, not {len(names)}")
    return found


@pytest.mark.parametrize("kind", Fault)
def test_a_live_reading_under_a_fault_is_correct_or_fails_with_a_message(kind: Fault) -> None:
    household = Household(1)
    is_retried = kind in {Fault.SERVER_ERROR, Fault.CUT, Fault.REBOOTED}  # which takes time
    readings: list[LiveReading | None] = []
    with home(household, Faults(3, 0.3, [kind], slow_s=0.02, reboot_s=0.1)) as unit:
        for n in range(6 if is_retried else 20):
            # Full reads and short ones, with more and with fewer than ten circuits on.
            unit.times[0] += timedelta(minutes=25 if n % 3 else 70)
            reading = result_of(lambda: unit.client.live(1.2))
            readings.append(reading)
            if reading is not None:
                assert wrong_values(reading, household, unit.times[0]) == []
                assert reading.circuits_error is None or is_message(reading.circuits_error)
        met = unit.served.tally.faults
    assert met.keys() == ({kind} if kind is not Fault.WRONG_DAY else set())
    assert any(readings)
    if kind in {Fault.SLOW, Fault.WRONG_DAY, Fault.CLOCK_OFF, Fault.DASHES, Fault.RESORTED}:
        assert all(readings)


@pytest.mark.parametrize(
    "kind", [Fault.WRONG_DAY, Fault.UNRELATED, Fault.TRUNCATED, Fault.CUT, Fault.NOT_FOUND, Fault.CLOCK_OFF]
)
def test_a_days_graph_under_a_fault_is_correct_or_fails_with_a_message(kind: Fault) -> None:
    day = START.date() - timedelta(days=2)
    midnight = datetime(day.year, day.month, day.day, tzinfo=JAPAN)
    energy = energy_wh(Household(1), midnight, midnight + timedelta(days=1))
    totals_wh = (energy.generation_wh, energy.consumption_wh, energy.bought_wh, energy.sold_wh)
    graphs: list[tuple[float, DayGraph | None]] = []
    with home(faults=Faults(5, 0.5, [kind])) as unit:
        client = unit.client
        for series, wh in zip(SERIES * 4, totals_wh * 4, strict=True):
            graphs.append((wh, result_of(lambda series=series: client.graph(series, day, Deadline(0.4)))))  # type: ignore[misc]  # mypy: a lambda's default
        for circuit, wh in zip(CIRCUITS, energy.circuits_wh.tolist(), strict=True):
            circuit_id = str(circuit.circuit_id)
            graphs.append((wh, result_of(lambda c=circuit_id: client.circuit_graph(c, day, Deadline(0.4)))))  # type: ignore[misc]  # as above
        assert unit.served.tally.faults[kind] > 5
    shown = [(wh, graph.total) for wh, graph in graphs if graph]
    assert len(shown) > 10
    assert [total for _, total in shown] == pytest.approx([wh / 1000 for wh, _ in shown], abs=0.0021)


@pytest.mark.parametrize("kind", [Fault.TRUNCATED, Fault.CUT, Fault.UNRELATED])
def test_a_card_under_a_fault_is_complete_or_fails_with_a_message(kind: Fault) -> None:
    with home(sd_card=True) as unit:
        target = unit.folder / "card.zip"
        unit.client.download_export(target, Deadline(20))
        right = target.read_bytes()
        unit.served.faults = Faults(2, 0.5, [kind])
        whole = 0
        for _ in range(12):
            target.unlink(missing_ok=True)
            is_there = result_of(lambda: unit.client.download_export(target, Deadline(0.4))) is not None
            assert target.exists() == is_there
            assert not is_there or target.read_bytes() == right
            whole += is_there
        assert unit.served.tally.faults[kind]
    assert whole


# Names of circuits


def test_every_hostile_name_is_read_with_one_spelling() -> None:
    ids = [circuit.circuit_id for circuit in CIRCUITS]
    names = dict(zip(ids, HOSTILE_NAMES, strict=False))
    household = Household(1, renames=[(START - timedelta(days=1), *pair) for pair in names.items()])
    with home(household, sd_card=True) as unit:
        reading = unit.client.live()
        assert reading.circuits_error is None
        assert wrong_values(reading, household, START) == []
        assert reading.circuits is not None
        assert reading.known_circuits is not None
        live = Counter(row.name for row in reading.circuits)
        assert live == Counter(circuit.name for circuit in reading.known_circuits.shown)
        for circuit_id in names:
            assert unit.client.circuit_graph(str(circuit_id), None, Deadline(5)).hours_wh is not None
        made_at = unit.client.download_export(unit.folder / "card.zip", Deadline(20))
        with Export(unit.folder / "card.zip", made_at=made_at) as export:
            rows = export.half_hours(START.date() - timedelta(days=2))
            assert {row.circuit_id for row in rows} == {None, *map(str, ids)}


def test_a_home_whose_circuits_change_is_read_correctly() -> None:
    household = Household(1, renames=changes(1, START, 200))
    missed = 0
    with home(household) as unit:
        for _ in range(50):
            unit.times[0] += timedelta(days=3, hours=1)
            reading = unit.client.live(5)
            missed += reading.circuits is None
            assert wrong_values(reading, household, unit.times[0]) == []
    assert not missed
