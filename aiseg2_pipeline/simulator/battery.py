"""A storage battery on the power flow page: charged at night, discharged in the evening, by the hour alone.

It is on the live page only. Its energy is neither in the bought and sold energy nor on the graph pages or the card,
because none of a real device with a battery has been observed. So do not test energy on a household with a battery.
"""

import enum
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from aiseg2_pipeline.simulator.meter import JAPAN

_CHARGES_H = (1, 5)
_DISCHARGES_H = (17, 23)
_PERCENT = (20, 90, 90, 20)  # at each of these hours


class BatteryState(enum.IntEnum):
    """The state; the values are those of the power flow's `charge`."""

    CHARGING = 0
    DISCHARGING = 1
    IDLE = 2


@dataclass(frozen=True)
class Battery:
    """A battery at one moment: its charge in whole percent, and its state."""

    percent: int
    state: BatteryState

    @property
    def bar(self) -> int:
        """The charge as a bar of 1 to 5 parts, the power flow's `soc`."""
        return -(-self.percent // 20)


def battery(now: datetime) -> Battery:
    """Return the battery at an aware time."""
    local = now.astimezone(JAPAN)
    hour = local.hour + local.minute / 60 + local.second / 3600
    percent = round(float(np.interp(hour, (*_CHARGES_H, *_DISCHARGES_H), _PERCENT)))
    state = BatteryState.IDLE
    if _CHARGES_H[0] <= hour < _CHARGES_H[1]:
        state = BatteryState.CHARGING
    elif _DISCHARGES_H[0] <= hour < _DISCHARGES_H[1]:
        state = BatteryState.DISCHARGING
    return Battery(percent, state)
