"""A storage battery as the power flow shows it: charged by night, discharged in the evening, by the hour of the day alone.

It is on the live page only. Its energy is not in what is bought and sold, and neither on the graph pages nor on the
card, of which no real one with a battery was seen: so a home with a battery is none to try energy with.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

from aiseg2_pipeline.simulator.meter import JAPAN

_CHARGES_H = (1, 5)
_DISCHARGES_H = (17, 23)
_LEAST, _MOST = 20, 90


class BatteryState(enum.IntEnum):
    """What it does; the values are the power flow's `charge`."""

    CHARGING = 0
    DISCHARGING = 1
    IDLE = 2


@dataclass(frozen=True)
class Battery:
    """A battery at one moment: its charge in whole percent, and what it does."""

    percent: int
    state: BatteryState

    @property
    def bar(self) -> int:
        """The charge as the bar of 1 to 5 parts that the power flow draws (`soc`)."""
        return -(-self.percent // 20)


def battery(now: datetime) -> Battery:
    """Return the battery at an aware time."""
    local = now.astimezone(JAPAN)
    hour = local.hour + local.minute / 60 + local.second / 3600
    charged = _part(hour, *_CHARGES_H) - _part(hour, *_DISCHARGES_H)
    percent = round(_LEAST + (_MOST - _LEAST) * charged)
    if _CHARGES_H[0] <= hour < _CHARGES_H[1]:
        return Battery(percent, BatteryState.CHARGING)
    if _DISCHARGES_H[0] <= hour < _DISCHARGES_H[1]:
        return Battery(percent, BatteryState.DISCHARGING)
    return Battery(percent, BatteryState.IDLE)


def _part(hour: float, start: float, end: float) -> float:
    """Return how much of the time from `start` to `end` is over: 0 to 1."""
    return min(max((hour - start) / (end - start), 0.0), 1.0)
