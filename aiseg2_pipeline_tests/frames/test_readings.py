"""The readings and climate frames: their shape, and the rows of a reading."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.models import (
    Battery,
    BatteryFlow,
    BatteryState,
    CircuitPower,
    Exchange,
    GeneratingDevice,
    LiveReading,
    PowerFlow,
    Room,
)
from aiseg2_pipeline.frames import climate
from aiseg2_pipeline.frames.readings import COLUMNS, DTYPES, Row, checked, frame, live_frame

NOW = datetime(2026, 7, 13, 23, 15, 50, 987_654, tzinfo=UTC)
SECOND = NOW.replace(microsecond=0)
SUN = GeneratingDevice("太陽光発電", 2130)


def live(flow: PowerFlow, *circuits: tuple[str, float | None], answered_at: datetime = NOW) -> LiveReading:
    return LiveReading(
        answered_at=answered_at,
        flow=flow,
        circuits=tuple(CircuitPower(*circuit) for circuit in circuits),
        circuits_error=None,
        known_circuits=None,
        clock_offset_s=None,
        requests=2,
        elapsed_s=0.1,
    )


def flow(generation_kw: float | None, consumption_kw: float | None, *generators: GeneratingDevice) -> PowerFlow:
    return PowerFlow(generation_kw, consumption_kw, generators)


def rows(reading: LiveReading, *kinds: str) -> list[tuple[str, str, float, str]]:
    """Return kind, name, value and unit of the rows of some kinds, in the frame's order."""
    table = live_frame(reading)
    found = table[table["kind"].isin(kinds)]
    return list(found[["kind", "name", "value", "unit"]].itertuples(index=False, name=None))


def dtypes(table: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in table.dtypes.items()}


def test_a_live_reading_is_the_totals_the_devices_the_circuits_the_battery_and_the_known_flow() -> None:
    reading = live(
        PowerFlow(
            2.1,
            1.2,
            (SUN,),
            exchange=Exchange.SELLING,
            battery=Battery(64, BatteryState.DISCHARGING),
        ),
        ("ＬＤ", 224),
        ("ＩＨ", 0),
    )
    table = live_frame(replace(reading, battery_flow=BatteryFlow(2.1, -1.3, None)))
    assert dtypes(table) == {
        "time": "datetime64[ns, UTC]",
        "kind": "str",
        "name": "str",
        "value": "float64",
        "unit": "str",
        "interval_s": "int32",
    }
    assert list(table.itertuples(index=False, name=None)) == [
        (SECOND, "total", "総発電電力", 2.1, "kW", 0),
        (SECOND, "total", "総消費電力", 1.2, "kW", 0),
        (SECOND, "total", "売買電力", 0.9, "kW", 0),
        (SECOND, "generation", "太陽光発電", 2130, "W", 0),
        (SECOND, "usage", "ＬＤ", 224, "W", 0),
        (SECOND, "usage", "ＩＨ", 0, "W", 0),
        (SECOND, "battery", "充電率", 64, "%", 0),
        (SECOND, "battery", "状態", -1, "", 0),
        (SECOND, "flow", "太陽光", 2.1, "kW", 0),
        (SECOND, "flow", "系統", -1.3, "kW", 0),
    ]


def test_the_time_is_in_utc_and_to_the_second() -> None:
    tokyo = NOW.astimezone(ZoneInfo("Asia/Tokyo"))
    table = live_frame(live(flow(2.1, 1.2, SUN), ("ＬＤ", 1), answered_at=tokyo))
    assert set(table["time"]) == {pd.Timestamp("2026-07-13T23:15:50Z")}


@pytest.mark.parametrize(
    "reading", [live(flow(None, None)), live(flow(None, None, GeneratingDevice("PV", None)), ("ＬＤ", None))]
)
def test_a_reading_without_values_is_an_empty_frame_of_the_right_dtypes(reading: LiveReading) -> None:
    table = live_frame(reading)
    assert table.empty
    assert dtypes(table) == DTYPES
    assert dtypes(frame([])) == DTYPES


@pytest.mark.parametrize(
    ("power", "totals"),
    [
        (flow(2.1, 1.2, SUN), {"総発電電力": 2.1, "総消費電力": 1.2, "売買電力": 0.9}),
        (flow(0.3, 0.1, SUN), {"総発電電力": 0.3, "総消費電力": 0.1, "売買電力": 0.2}),
        (flow(0.0, 1.2, SUN), {"総発電電力": 0.0, "総消費電力": 1.2, "売買電力": -1.2}),
        (flow(None, 1.2, SUN), {"総消費電力": 1.2}),
        (flow(2.1, None, SUN), {"総発電電力": 2.1}),
        (flow(None, None, SUN), {}),
        (flow(2.1, 1.2, GeneratingDevice("PV", None)), {"総発電電力": 2.1, "総消費電力": 1.2, "売買電力": 0.9}),
        (flow(0.0, 1.2), {"総消費電力": 1.2, "売買電力": -1.2}),
        (flow(None, 1.2), {"総消費電力": 1.2, "売買電力": -1.2}),
        (flow(0.0, None), {}),
    ],
)
def test_exchange_is_generation_minus_consumption_and_missing_values_are_no_rows(
    power: PowerFlow, totals: dict[str, float]
) -> None:
    assert {name: value for _, name, value, _ in rows(live(power), "total")} == totals


def test_an_exchange_of_zero_has_no_sign() -> None:
    assert [str(value) for _, _, value, _ in rows(live(flow(None, 0.0)), "total")] == ["0.0", "0.0"]


def test_values_of_one_name_are_one_row_and_a_sum_with_an_absent_part_is_none() -> None:
    pv, fuel_cell = GeneratingDevice("PV", 1000), GeneratingDevice("燃料電池", 500)
    reading = live(
        flow(2.5, 1.2, pv, fuel_cell, pv), ("ＬＤ", 224), ("ＩＨ", None), ("ＬＤ", 6), ("ＩＨ", 80), ("PV", 3)
    )
    assert rows(reading, "generation", "usage") == [
        ("generation", "PV", 2000, "W"),
        ("generation", "燃料電池", 500, "W"),
        ("usage", "ＬＤ", 230, "W"),
        ("usage", "PV", 3, "W"),
    ]
    reading = live(flow(2.5, 1.2, pv, GeneratingDevice("PV", None)))
    assert rows(reading, "generation") == []


@pytest.mark.parametrize(
    ("battery", "values"),
    [
        (None, {}),
        (Battery(None, None), {}),
        (Battery(0, None), {"充電率": 0}),
        (Battery(None, BatteryState.IDLE), {"状態": 0}),
        (Battery(100, BatteryState.CHARGING), {"充電率": 100, "状態": 1}),
        (Battery(55, BatteryState.DISCHARGING), {"充電率": 55, "状態": -1}),
    ],
)
def test_the_battery_has_a_row_for_each_known_value(battery: Battery | None, values: dict[str, float]) -> None:
    found = rows(live(PowerFlow(2.1, 1.2, (SUN,), battery=battery)), "battery")
    assert {name: value for _, name, value, _ in found} == values


# The check


def good() -> pd.DataFrame:
    return frame(
        [
            Row(SECOND, "total", "総消費電力", 1.2, "kW", 0),
            Row(SECOND, "usage", "ＬＤ", 224, "W", 0),
            Row(SECOND + timedelta(minutes=1), "usage", "ＬＤ", 224, "W", 3600),
        ]
    )


def test_a_frame_with_other_columns_is_refused() -> None:
    others = [good().drop(columns=column) for column in COLUMNS]
    others += [good().assign(source="live"), good()[COLUMNS[::-1]], good().set_index("time"), pd.DataFrame()]
    for table in others:
        with pytest.raises(ValueError, match="has the columns"):
            checked(table)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        ("time", "datetime64[us, UTC]"),
        ("time", "object"),
        ("kind", "object"),
        ("name", "category"),
        ("value", "float32"),
        ("interval_s", "int64"),
    ],
)
def test_a_frame_of_another_dtype_is_refused_by_its_column(column: str, dtype: str) -> None:
    with pytest.raises(ValueError, match=rf"these differ: {{'{column}'"):
        checked(good().astype({column: dtype}))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("value", np.nan, "absent or infinite"),
        ("value", np.inf, "absent or infinite"),
        ("time", pd.NaT, "in every row"),
        ("kind", None, "in every row"),
        ("name", None, "in every row"),
        ("unit", None, "in every row"),
        ("kind", "Total", "has the kinds"),
        ("interval_s", 60, "has the intervals"),
    ],
)
def test_a_frame_with_a_wrong_value_is_refused(column: str, value: Any, words: str) -> None:
    table = good()
    table.loc[1, column] = value
    with pytest.raises(ValueError, match=words):
        checked(table.astype(DTYPES))


def test_a_frame_is_checked_when_it_is_made_and_has_each_key_once() -> None:
    with pytest.raises(ValueError, match="a readings frame has one row a key; repeated: ＬＤ"):
        frame([Row(SECOND, "usage", "ＬＤ", watts, "W", 0) for watts in (1, 2)])


def test_a_frame_keeps_unusual_names() -> None:
    names = ["-", "", " ", "nan", "None", "a,b=c", "絵文字🔌", "a\u2028b"]
    table = frame(Row(SECOND, "usage", name, 1, "W", 0) for name in names)
    assert table["name"].tolist() == names


# The climate frame


def test_a_climate_frame_has_a_row_for_each_reported_value() -> None:
    table = climate.frame(NOW, [Room("居間", 23.5, 48), Room("寝室", None, 60)])
    assert list(table.itertuples(index=False, name=None)) == [
        (SECOND, "temperature", "居間", 23.5, "℃", 0),
        (SECOND, "humidity", "居間", 48.0, "%", 0),
        (SECOND, "humidity", "寝室", 60.0, "%", 0),
    ]


def test_rooms_of_one_name_get_distinct_names() -> None:
    rooms = [Room(name, 20.0 + n, None) for n, name in enumerate(["洋室", "洋室", "洋室 (2)", "洋室"])]
    assert climate.frame(NOW, rooms)["name"].tolist() == ["洋室", "洋室 (3)", "洋室 (2)", "洋室 (4)"]
