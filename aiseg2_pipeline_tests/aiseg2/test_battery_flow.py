"""The flow of sun, grid and battery: directions come from the reading and from `charge`, and absent is never 0."""

import pytest

from aiseg2_pipeline.aiseg2.battery_flow import battery_flow as parse
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import BatteryFlow, Exchange
from aiseg2_pipeline_tests.support.device import battery_flow

BUYING, SELLING, NEITHER = Exchange.BUYING, Exchange.SELLING, Exchange.NEITHER


@pytest.mark.parametrize(
    ("exchange", "values", "flow"),
    [
        (BUYING, {}, BatteryFlow(2.1, 1.3, 0.4)),
        (SELLING, {"charge": "0"}, BatteryFlow(2.1, -1.3, -0.4)),
        # Numbers, and signs of which nothing is known.
        (
            SELLING,
            {"lo_densen_lo_kw": "-1.3", "lo_battery_lo_kW": -0.4, "charge": 0},
            BatteryFlow(2.1, -1.3, -0.4),
        ),
        (NEITHER, {"lo_densen_lo_kw": "0.0", "lo_battery_lo_kW": "0.0", "charge": "2"}, BatteryFlow(2.1, 0, 0)),
        (SELLING, {"lo_densen_lo_kw": "0", "lo_battery_lo_kW": "0", "charge": "0"}, BatteryFlow(2.1, 0, 0)),
        # A number without a direction.
        (NEITHER, {"charge": None}, BatteryFlow(2.1, None, None)),
        (None, {"charge": "-"}, BatteryFlow(2.1, None, None)),
        # Absent numbers.
        (BUYING, {"lo_sun_lo_kW": "-", "lo_battery_lo_kW": ""}, BatteryFlow(None, 1.3, None)),
        (BUYING, {"lo_sun_lo_kW": None, "lo_densen_lo_kw": " "}, BatteryFlow(None, None, 0.4)),
    ],
)
def test_each_number_has_its_direction_or_is_absent(
    exchange: Exchange | None, values: dict[str, object], flow: BatteryFlow
) -> None:
    parsed = parse(battery_flow(**values), exchange)
    assert parsed == flow
    assert "-0.0" not in repr(parsed)


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"conflict": 1, "redirectURL": "/page/myhome/9"}', b"<html></html>"]
)
def test_another_response_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable, match="/data/electricflow/112/update"):
        parse(body, BUYING)


@pytest.mark.parametrize("key", ["lo_sun_lo_kW", "lo_densen_lo_kw", "lo_battery_lo_kW"])
@pytest.mark.parametrize("value", ["1.3kVA", "--1", True, [1.3], "nan"])
def test_a_number_that_cannot_be_read_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(Unreadable, match=key):
        parse(battery_flow(**{key: value}), BUYING)


def test_a_negative_power_of_the_sun_is_refused() -> None:
    with pytest.raises(Unreadable, match="lo_sun_lo_kW"):
        parse(battery_flow(lo_sun_lo_kW="-2.1"), BUYING)
