"""What will go wrong in a scenario, drawn from its seed before it begins; and the household that it happens to."""

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.faults import Fault as UnitFault
from aiseg2_pipeline.simulator.household import Household, Rename
from aiseg2_pipeline_tests.support.influxdb_proxy import KINDS

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NEW_NAMES = ("書斎", "ＬＤ", "電子レンジ", "キッチン　パントリー２", "和室・エアコン", "a,b=c d", '"\\', "-")
FEW_CIRCUITS = 9


@dataclass(frozen=True)
class Weather:
    """How likely a request, a write and a run are to meet a fault."""

    unit: float
    influx: float
    kill: float


WEATHERS = {
    "calm": Weather(0.0, 0.0, 0.0),
    "light": Weather(0.01, 0.02, 0.01),
    "rough": Weather(0.05, 0.25, 0.15),
    "storm": Weather(0.15, 0.5, 0.35),
}


@dataclass(frozen=True)
class Event:
    """Something that begins in a minute of the scenario and is over some minutes later."""

    begins: int
    lasts: int
    name: str
    value: Any = None


@dataclass(frozen=True)
class Plan:
    """All that the seed decides beforehand."""

    start: datetime
    minutes: int
    household: Household
    changes: tuple[datetime, ...]
    outages: tuple[tuple[datetime, datetime], ...]
    weathers: tuple[Weather, ...]
    events: tuple[Event, ...]
    has_card: bool

    @property
    def end(self) -> datetime:
        """Return when the faults stop."""
        return self.start + self.minutes * MINUTE


def draw(seed: int, hours: int, *, rough: float) -> Plan:
    """Return the plan of a scenario of so many hours; `rough` is the share of hours that are rough or worse."""
    chance = random.Random(seed)  # noqa: S311 - a test's dice
    minutes = hours * 60
    # Some time of a year, at any hour.
    start = datetime(2026, 3, 1, tzinfo=UTC) + chance.randrange(200 * 24) * HOUR
    renames = _renames(chance, start, minutes)
    weathers = [
        WEATHERS[
            chance.choice(("rough", "storm")) if chance.random() < rough else chance.choice(("calm", "light"))
        ]
        for _ in range(hours)
    ]
    return Plan(
        start,
        minutes,
        Household(chance.randrange(1000), renames=renames),
        tuple(sorted({when for when, _, _ in renames if when >= start})),
        tuple(_outages(chance, start, minutes, rough)),
        tuple(weathers),
        tuple(sorted(_events(chance, hours, rough), key=lambda event: event.begins)),
        chance.random() < 0.4,
    )


def _renames(chance: random.Random, start: datetime, minutes: int) -> list[Rename]:
    """Return a household of all circuits or of a few, and what people change in the course of the scenario."""
    ids = [circuit.circuit_id for circuit in CIRCUITS]
    renames: list[Rename] = []
    if chance.random() < 0.5:
        kept = set(chance.sample(ids, FEW_CIRCUITS + chance.randrange(6)))
        renames += [(start - 1000 * 24 * HOUR, circuit_id, None) for circuit_id in ids if circuit_id not in kept]
        ids = sorted(kept)
    names: dict[int, str | None] = {circuit.circuit_id: circuit.name for circuit in CIRCUITS}
    for _ in range(chance.randrange(max(2, minutes // 240))):
        circuit_id = chance.choice(ids)
        when = start + chance.randrange(60, minutes) * MINUTE
        # Removed, added again, doubled, renamed.
        name = chance.choice([None, names[circuit_id], names[chance.choice(ids)], chance.choice(NEW_NAMES)])
        renames.append((when, circuit_id, name))
    return renames


def _outages(
    chance: random.Random, start: datetime, minutes: int, rough: float
) -> list[tuple[datetime, datetime]]:
    outages = []
    for _ in range(round(minutes / 360 * rough + chance.random())):
        begins = start + chance.randrange(minutes) * MINUTE + chance.randrange(60) * timedelta(seconds=1)
        outages.append((begins, begins + chance.choice((2, 10, 45, 100)) * chance.uniform(0.5, 1.5) * MINUTE))
    return outages


def _events(chance: random.Random, hours: int, rough: float) -> list[Event]:
    # Those that the server itself does not do for a while; `refused` is for good.
    of_influx = [kind for kind in KINDS if kind not in ("unauthorized", "no_bucket", "refused")]
    of_unit = [kind for kind in UnitFault if kind is not UnitFault.REBOOTED]
    drawn = []
    for _ in range(round(hours * rough * 1.5 + chance.random())):
        begins = chance.randrange(5, hours * 60)
        short, long = chance.randint(1, 6), chance.choice((5, 20, 60, 150))
        drawn.append(
            chance.choice(
                (
                    Event(begins, long, "influxd stopped"),
                    Event(begins, short, "influxd killed"),
                    Event(begins, long, "nothing listens"),
                    Event(begins, chance.choice((short, long)), "token refused"),
                    Event(begins, chance.choice((short, long)), "bucket missing"),
                    Event(begins, chance.choice((short, long)), "influxdb only", chance.choice(of_influx)),
                    Event(begins, chance.choice((short, long)), "unit often", str(chance.choice(of_unit))),
                    Event(begins, long, "unit's clock off"),
                    Event(begins, long, "host's clock", _clock_step(chance)),
                    Event(begins, short, "disk full", chance.randrange(200_000)),
                    Event(begins, min(short, 2), "file locked", chance.choice(("readings", "energy"))),
                    Event(begins, 1, "all killed"),
                    Event(begins, 1, "second delivery"),
                    Event(begins, 1, "file damaged"),
                )
            )
        )
    return drawn


def _clock_step(chance: random.Random) -> float:
    """Return by how many seconds the host's clock is ahead: a little, minutes, or hours, to either side."""
    return chance.choice((-1, 1)) * chance.choice((20.0, 90.0, 600.0, 5400.0, 14_400.0)) * chance.uniform(0.5, 1.5)
