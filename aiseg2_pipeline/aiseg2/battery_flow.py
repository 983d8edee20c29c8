"""The power of sun, grid and battery: a pure function from the bytes of a response to numbers.

No I/O. One program reports the response, of a home with a storage battery; none of a real unit was available.
"""

from typing import Any

from aiseg2_pipeline.aiseg2.models import BatteryFlow, Exchange
from aiseg2_pipeline.aiseg2.pages import json_value, number, or_dash, small_integer, unreadable

BATTERY_FLOW = "/data/electricflow/112/update"

_SUN, _GRID, _BATTERY = "lo_sun_lo_kW", "lo_densen_lo_kw", "lo_battery_lo_kW"
_GRID_SIGNS: dict[Exchange | None, int] = {Exchange.BUYING: 1, Exchange.SELLING: -1}
_CHARGING = 0


def battery_flow(body: bytes, exchange: Exchange | None) -> BatteryFlow:
    """Return the flow of the response to `POST /data/electricflow/112/update`.

    The direction of its numbers is not documented, so their own signs are ignored. The grid's direction is that of
    `exchange`, which the reading's power flow has. The battery discharges unless `charge` is 0: so does the program that
    reports the response. A number other than 0 without a direction is None.
    """
    data = json_value(body, BATTERY_FLOW)
    if not isinstance(data, dict) or not data.keys() & {_SUN, _GRID, _BATTERY}:
        raise unreadable(BATTERY_FLOW, f"has no `{_SUN}`, `{_GRID}` or `{_BATTERY}`")
    charge = small_integer(data.get("charge"))
    battery_sign = None if charge is None else -1 if charge == _CHARGING else 1
    return BatteryFlow(
        sun_kw=number(or_dash(data.get(_SUN)), BATTERY_FLOW, _SUN),
        grid_kw=_directed(_size_kw(data, _GRID), _GRID_SIGNS.get(exchange)),
        battery_kw=_directed(_size_kw(data, _BATTERY), battery_sign),
    )


def _size_kw(data: dict[str, Any], key: str) -> float | None:
    value = or_dash(data.get(key))
    if isinstance(value, str) and value.strip() != "-":
        value = value.strip().removeprefix("-")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        value = abs(value)
    return number(value, BATTERY_FLOW, key)


def _directed(size_kw: float | None, sign: int | None) -> float | None:
    if not size_kw:
        return size_kw
    return None if sign is None else sign * size_kw
