"""A storage battery on the power flow pages: charged at night, discharged in the evening, by the hour alone.

It is on the live pages only. Its energy is neither in the bought and sold energy nor on the graph pages or the card,
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
_CAPACITY_WH = 6000


class BatteryState(enum.IntEnum):
    """The state; the values are those of the power flow's `charge`."""

    CHARGING = 0
    DISCHARGING = 1
    IDLE = 2


@dataclass(frozen=True)
class Battery:
    """A battery at one moment: its charge in whole percent, its state, and its power, positive while it discharges."""

    percent: int
    state: BatteryState
    power_w: int

    @property
    def bar(self) -> int:
        """The charge as a bar of 1 to 5 parts, the power flow's `soc`."""
        return -(-self.percent // 20)


def battery(now: datetime) -> Battery:
    """Return the battery at an aware time."""
    local = now.astimezone(JAPAN)
    hour = local.hour + local.minute / 60 + local.second / 3600
    percent = round(float(np.interp(hour, (*_CHARGES_H, *_DISCHARGES_H), _PERCENT)))
    moved_wh = _CAPACITY_WH * (max(_PERCENT) - min(_PERCENT)) / 100
    for (start, end), state, sign in (
        (_CHARGES_H, BatteryState.CHARGING, -1),
        (_DISCHARGES_H, BatteryState.DISCHARGING, 1),
    ):
        if start <= hour < end:
            return Battery(percent, state, sign * round(moved_wh / (end - start)))
    return Battery(percent, BatteryState.IDLE, 0)
