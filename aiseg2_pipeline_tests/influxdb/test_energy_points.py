"""The energy store's rows in a real InfluxDB: measurements, tags, fields and times that dashboards rely on."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
    """Return the names of circuits 8, which is renamed at noon, 10, 11 and 12."""
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


HOURS = [
    (
        interval(NOON, series, series, 359, 3600),
        "energy",
        {"wh": 359.0, "detail-type": series, "detail-section": series},
    )
    for series in energy.SERIES
]
# A row, and the measurement, fields and tags of its point.
POINTS: list[tuple[Row, str, dict[str, object]]] = [
    *HOURS,
    *(
        (
            interval(time, "usage", circuit_id, 7, 3600),
            "energy",
            {"wh": 7.0, "detail-type": "usage", "detail-section": name, "circuit-id": circuit_id},
        )
        for time, circuit_id, name in [
            # Circuits with the same name keep their ids; a renamed circuit has the name of its time.
            (NOON, "10", "ＬＤ"),
            (NOON, "11", "ＬＤ"),
            (NOON - timedelta(hours=1), "8", "洋室１エアコン"),
            (NOON, "8", "書斎エアコン"),
            (NOON, "12", AWKWARD),
            # The name is unknown.
            (NOON, "39", "39"),
        ]
    ),
    *(
        (Row(DAY, "daily_total", name, 0.4, unit, 86_400), "daily_total", {"value": 0.4, "detail-section": name})
        for name, unit in [("発電量(kWh)", "kWh"), ("湯(L)", "L"), ("ガス(㎥)", "㎥")]
    ),
    (
        # A day has the name of its start.
        Row(DAY, "circuit_daily_total", "8", 1.5, "kWh", 86_400),
        "circuit_daily_total",
        {"value": 1.5, "circuit-id": "8", "detail-section": "洋室１エアコン(kWh)"},
    ),
    (
        Row(DAY, "daily_cost", "bought", 143.065, "yen", 86_400),
        "daily_cost",
        {"yen": 143.065, "detail-type": "bought", "detail-section": "bought"},
    ),
    (
        Row(DAY, "daily_cost", "usage/10", 12.5, "yen", 86_400),
        "daily_cost",
        {"yen": 12.5, "detail-type": "usage", "detail-section": "ＬＤ", "circuit-id": "10"},
    ),
]


def test_each_kind_of_row_has_its_measurement_tags_and_field(store: EnergyStore, influx: Influx) -> None:
    written(store, influx, *(row for row, _, _ in POINTS))
    expected = [{"measurement": measurement, "time": row.time} | point for row, measurement, point in POINTS]
    points = influx.points()
    assert sorted(points, key=_order) == sorted(expected, key=_order)
    values = {type(point[field]) for point in points for field in ("wh", "value", "yen") if field in point}
    assert values == {float}


def _order(point: Mapping[str, object]) -> list[tuple[str, str]]:
    return sorted((name, str(value)) for name, value in point.items())


def test_half_hours_are_not_written(store: EnergyStore, influx: Influx) -> None:
    delivery = written(
        store,
        influx,
        interval(NOON, "consumption", "consumption", 50, 1800),
        interval(NOON, "usage", "10", 50, 1800),
    )
    assert delivery.points == delivery.requests == 0
    assert influx.proxy.requests == []
