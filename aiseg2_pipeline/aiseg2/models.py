"""The values read from the device, as frozen dataclasses with their units in the names.

No I/O and no parsing here. A value that the device does not report is None, never 0. Times are UTC.
"""

import enum
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from aiseg2_pipeline.aiseg2.errors import Aiseg2Error

Hours = tuple[int | None, ...]


class Exchange(enum.Enum):
    """The direction of the power between home and grid (`lo_buy_sell`)."""

    BUYING = "buying"
    SELLING = "selling"
    NEITHER = "neither"


class BatteryState(enum.Enum):
    """The state of the storage battery; the value is stored in a reading's `状態` row."""

    CHARGING = 1
    DISCHARGING = -1
    IDLE = 0


@dataclass(frozen=True)
class GeneratingDevice:
    """A registered generating device; `power_w` is None while it has no reading."""

    name: str
    power_w: float | None


@dataclass(frozen=True)
class Battery:
    """A storage battery; either value is None where the device does not report it."""

    charge_percent: float | None
    state: BatteryState | None


@dataclass(frozen=True)
class PowerFlow:
    """The power flow of one moment.

    `exchange` and `battery` are only in the JSON: both are None when the flow was read from the HTML page.
    """

    generation_kw: float | None
    consumption_kw: float | None
    generators: tuple[GeneratingDevice, ...]
    exchange: Exchange | None = None
    battery: Battery | None = None


@dataclass(frozen=True)
class BatteryFlow:
    """The power of sun, grid (positive: buying) and battery (positive: discharging); each is None where unknown."""

    sun_kw: float | None
    grid_kw: float | None
    battery_kw: float | None


@dataclass(frozen=True)
class CurrentFlow:
    """The power flow alone, without the circuits; `answered_at` is when the device answered."""

    answered_at: datetime
    flow: PowerFlow
    battery_flow: BatteryFlow | None


class Circuit(NamedTuple):
    """A registered circuit: `circuit_id` is page 734's `strId`."""

    circuit_id: str
    name: str


class CircuitMatch(NamedTuple):
    """Page 734's circuits beside page 1113's names.

    `shown` are the circuits that page 1113 shows, with its spelling; `unshown` those without a name there, and
    `unlisted` the names there that belong to no circuit of page 734.
    """

    shown: tuple[Circuit, ...]
    unshown: tuple[Circuit, ...]
    unlisted: tuple[str, ...]


@dataclass(frozen=True)
class CircuitPower:
    """A row of page 1113, with its spelling there. `power_w` is None for `-` (not measured), 0.0 for a blank."""

    name: str
    power_w: float | None


@dataclass(frozen=True)
class CircuitPage:
    """One page of 1113: at most ten rows in the order shown."""

    rows: tuple[CircuitPower, ...]
    has_blank: bool
    is_last: bool
    device_time: datetime | None


@dataclass(frozen=True)
class CircuitList:
    """Page 734: the registered circuits."""

    circuits: tuple[Circuit, ...]
    device_time: datetime | None


@dataclass(frozen=True)
class Room:
    """A room with a sensor; a number is None where the page shows none or one that cannot be read."""

    name: str
    temperature_c: float | None
    humidity_percent: float | None


@dataclass(frozen=True)
class ClimatePage:
    """One page of the rooms, in the order shown; `problems` has a message for each number left out."""

    rooms: tuple[Room, ...]
    problems: tuple[str, ...]
    device_time: datetime | None


@dataclass(frozen=True)
class LiveReading:
    """One live reading.

    `circuits` is None when they could not be read, and `circuits_error` is then the reason; likewise `battery_flow`, which
    is also None in a home without a storage battery. `known_circuits` is None while page 734 was never read.
    `clock_offset_s` is device minus host, None when no page with a clock was read.
    """

    answered_at: datetime
    flow: PowerFlow
    circuits: tuple[CircuitPower, ...] | None
    circuits_error: Aiseg2Error | None
    known_circuits: CircuitMatch | None
    clock_offset_s: float | None
    requests: int
    elapsed_s: float
    battery_flow: BatteryFlow | None = None
    battery_flow_error: Aiseg2Error | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each part that could not be read."""
        parts = (
            ("The circuits are missing.", self.circuits_error),
            ("The power of sun, grid and battery is missing.", self.battery_flow_error),
        )
        return tuple(f"{part} {error}" for part, error in parts if error is not None)


@dataclass(frozen=True)
class DayGraph:
    """A graph page: one series, or one circuit (`series` "usage"), over one day in Japan.

    `total` is the day's total in `unit` (kWh, L or ㎥), or the total so far of the current day. `hours_wh` has 24
    values by the hour's start, None for an hour that had not ended at `device_time`; it is None where the page has
    no hours that add up to `total`. `own_use_wh` and `bought_wh` are the two parts of the consumption, known only
    in a home without storage.
    """

    series: str
    circuit_id: str | None
    day: date
    device_time: datetime | None
    title: str
    unit: str
    total: float | None
    hours_wh: Hours | None
    own_use_wh: Hours | None = None
    bought_wh: Hours | None = None


@dataclass(frozen=True)
class EnergyRow:
    """The energy of one interval that has ended; `circuit_id` (page 734's `strId`) where `series` is "usage"."""

    time: datetime
    interval_s: int
    series: str
    circuit_id: str | None
    wh: int


@dataclass(frozen=True)
class CostRow:
    """The cost of one interval's energy, as the device calculates it."""

    time: datetime
    interval_s: int
    series: str
    circuit_id: str | None
    yen: float
