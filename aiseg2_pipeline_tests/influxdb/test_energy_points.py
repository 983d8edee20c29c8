"""The device's energy in a real InfluxDB: measurements, tags, fields and times that dashboards can rely on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.energy import interval
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.influxdb.delivery import Delivery, deliver
from aiseg2_pipeline.influxdb.line_protocol import energy_lines
from aiseg2_pipeline.store import EnergyStore
from aiseg2_pipeline_tests.support.influxdb import Influx

# Midnight and noon in Japan.
DAY = datetime(2026, 7, 13, 15, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
RENAMED_AT = NOON
AWKWARD = 'a,b=c "d" \\🔌'


def name_of(circuit_id: str, time: datetime) -> str | None:
    """Know circuit 8, which has another name from noon on, and circuits of one awkward name."""
    if circuit_id == "8":
        return "書斎エアコン" if time >= RENAMED_AT else "洋室１エアコン"
    return {"10": "ＬＤ", "11": "ＬＤ", "12": AWKWARD}.get(circuit_id)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EnergyStore]:
    with EnergyStore.open(tmp_path / "energy.sqlite") as opened:
        yield opened


def written(store: EnergyStore, influx: Influx, *rows: Row) -> Delivery:
    """Write rows as the pipeline does."""
    store.upsert(energy.frame(rows))

    def lines(table: pd.DataFrame) -> list[tuple[str, ...]]:
        return energy_lines(table, name_of)

    with influx.writer() as writer:
        delivery = deliver(store, writer, influx.destination, now=NOON, running_hour=NOON, lines=lines)
    assert store.pending_count(influx.destination) == 0
    return delivery


def points(influx: Influx, measurement: str) -> list[dict[str, Any]]:
    """Return a measurement's points: time, tags and field."""
    return [
        {key: value for key, value in row.items() if key != "measurement"} for row in influx.points(measurement)
    ]


@pytest.mark.parametrize("series", energy.SERIES)
def test_a_totals_hour_is_named_by_its_series(store: EnergyStore, influx: Influx, series: str) -> None:
    written(store, influx, interval(NOON, series, series, 1610, 3600))
    assert points(influx, "energy") == [
        {"time": NOON, "wh": 1610, "detail-type": series, "detail-section": series}
    ]


def test_circuits_of_one_name_stay_apart_by_their_id(store: EnergyStore, influx: Influx) -> None:
    written(store, influx, *(interval(NOON, "usage", name, 10.0 + int(name), 3600) for name in ("10", "11")))
    assert points(influx, "energy") == [
        {"time": NOON, "wh": 20, "circuit-id": "10", "detail-type": "usage", "detail-section": "ＬＤ"},
        {"time": NOON, "wh": 21, "circuit-id": "11", "detail-type": "usage", "detail-section": "ＬＤ"},
    ]


def test_a_renamed_circuit_has_the_name_of_its_time(store: EnergyStore, influx: Influx) -> None:
    hours = [NOON + n * timedelta(hours=1) for n in (-1, 0)]
    written(
        store,
        influx,
        *(interval(hour, "usage", "8", 100, 3600) for hour in hours),
        Row(DAY, "circuit_daily_total", "8", 1.5, "kWh", 86_400),
    )
    found = points(influx, "energy")
    assert {(row["time"], row["detail-section"]) for row in found} == {
        (hours[0], "洋室１エアコン"),
        (hours[1], "書斎エアコン"),
    }
    assert {row["circuit-id"] for row in found} == {"8"}
    # A day begins with the name that it had then.
    (day,) = points(influx, "circuit_daily_total")
    assert day["detail-section"] == "洋室１エアコン(kWh)"


def test_a_circuit_whose_name_nobody_knows_is_called_by_its_id(store: EnergyStore, influx: Influx) -> None:
    written(store, influx, interval(NOON, "usage", "39", 7, 3600))
    (point,) = points(influx, "energy")
    assert point["detail-section"] == point["circuit-id"] == "39"


def test_any_name_comes_back_as_the_device_has_it(store: EnergyStore, influx: Influx) -> None:
    written(store, influx, interval(NOON, "usage", "12", 7, 3600))
    (point,) = points(influx, "energy")
    assert point["detail-section"] == AWKWARD


def test_a_days_totals_are_named_as_the_pages_name_them(store: EnergyStore, influx: Influx) -> None:
    totals = {"発電量(kWh)": ("kWh", 21.3), "湯(L)": ("L", 312.0), "ガス(㎥)": ("㎥", 0.4)}
    written(
        store,
        influx,
        *(Row(DAY, "daily_total", name, value, unit, 86_400) for name, (unit, value) in totals.items()),
        Row(DAY, "circuit_daily_total", "10", 1.25, "kWh", 86_400),
    )
    found = points(influx, "daily_total")
    assert {row.pop("detail-section"): row for row in found} == {
        name: {"time": DAY, "value": value} for name, (_, value) in totals.items()
    }
    assert points(influx, "circuit_daily_total") == [
        {"time": DAY, "value": 1.25, "circuit-id": "10", "detail-section": "ＬＤ(kWh)"}
    ]


def test_a_days_cost_is_in_yen(store: EnergyStore, influx: Influx) -> None:
    written(
        store,
        influx,
        Row(DAY, "daily_cost", "bought", 143.065, "yen", 86_400),
        Row(DAY, "daily_cost", "usage/10", 12.5, "yen", 86_400),
    )
    assert {row["detail-section"]: row for row in points(influx, "daily_cost")} == {
        "bought": {"time": DAY, "yen": 143.065, "detail-type": "bought", "detail-section": "bought"},
        "ＬＤ": {
            "time": DAY,
            "yen": 12.5,
            "circuit-id": "10",
            "detail-type": "usage",
            "detail-section": "ＬＤ",
        },
    }


def test_half_hours_and_notes_are_not_written(store: EnergyStore, influx: Influx) -> None:
    delivery = written(
        store,
        influx,
        interval(NOON, "consumption", "consumption", 50, 1800),
        interval(NOON, "usage", "10", 50, 1800),
        Row(NOON, energy.NO_DATA, "totals", NOON.timestamp(), "", 86_400),
    )
    assert delivery.points == delivery.requests == 0
    assert influx.proxy.requests == []


def test_numbers_are_floats_whatever_they_are(store: EnergyStore, influx: Influx) -> None:
    written(store, influx, interval(NOON, "sold", "sold", 359, 3600))
    assert [type(row["wh"]) for row in influx.points("energy")] == [float]
