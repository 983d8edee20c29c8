"""Names of a hostile page in a real InfluxDB: each row is one point, in its own series."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2 import pages
from aiseg2_pipeline.aiseg2.circuits import clean_name, sum_by_name
from aiseg2_pipeline.aiseg2.models import CircuitPower, LiveReading, Room
from aiseg2_pipeline.frames import climate, energy
from aiseg2_pipeline.frames.readings import Row, frame, live_frame
from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.influxdb.delivery import deliver
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.device import circuit_list, flow_json
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.line_protocol import as_written

START = datetime(2026, 7, 14, tzinfo=UTC)
HOUR = timedelta(hours=1)
# Names of circuits that end a tag or a line, or look like the syntax of one.
NAMES = [
    "x\npower,summary=総消費電力(kW) value=9 1", "x value=9 1\n", "x,detail-type=generation", "x value=9", 'x" value="',
    "x\\", "x\\,detail-type=generation", '\\ \\=,"', 'a\\ b\\="c', "# x", "x\r\n\r\nDELETE FROM power", "\ud800", "\0",
    "x" * 70_000, "a\\,b", "a\\ b", "a\\=b", "\\\\,", " lead", "trail ", "(W)", 'k=v,"x y"\\', "e\u0301", "\ufeffmark",
    "line\u2028break", "🔌 充電",
]  # fmt: skip
# Mostly the characters with a meaning in line protocol.
ANY_NAME = st.text(st.sampled_from(",= \"\\'(#") | st.characters()).map(clean_name)
_hours = itertools.count()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "readings.db") as opened:
        yield opened


def parsed_name(name: str) -> str:
    """Return a name as the parser of page 734 returns it."""
    body = circuit_list(["QQ"]).replace(b'"QQ"', json.dumps(name).encode())
    return pages.circuit_list(body).circuits[0].name


def reach_influxdb(store: Store, influx: Influx, names: list[str]) -> None:
    """Assert that InfluxDB has the stored reading with devices of these names, and no other point."""
    # Each example has its own hour, because a delivery sends whole hours.
    hour = START + next(_hours) * HOUR
    flow = pages.flow_from_json(flow_json(g_d_1_title="QQ").replace(b'"QQ"', json.dumps(names[0] + "x").encode()))
    circuits = tuple(CircuitPower(parsed_name(name), float(n)) for n, name in enumerate(names))
    table = live_frame(LiveReading(hour, flow, circuits, None, None, None, 0, 0.0))
    store.upsert(table)
    with influx.writer() as writer:
        delivery = deliver(store, writer, influx.destination, now=hour + HOUR)
    assert (delivery.rows, delivery.set_aside, delivery.left_hours) == (len(table), 0, 0)
    rows = [row for row in influx.points() if hour <= row["time"] < hour + HOUR]
    known = {"measurement", "time", "value", "summary", "detail-type", "detail-section"}
    assert all(set(row) <= known and row["measurement"] == "power" for row in rows)
    assert sorted((row.get("summary") or row["detail-section"], row["value"]) for row in rows) == sorted(
        (f"{name}({unit})", value)
        for name, unit, value in zip(table["name"], table["unit"], table["value"], strict=True)
    )
    sums = sum_by_name((row.name, row.power_w) for row in circuits)
    assert {row["detail-section"]: row["value"] for row in rows if row.get("detail-type") == "usage"} == {
        f"{name}(W)": watts for name, watts in sums.items()
    }


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_no_name_writes_another_point(store: Store, influx: Influx, name: str) -> None:
    reach_influxdb(store, influx, [name, "ＬＤ", name + "y", "last"])


# Each example has its own hour of the bucket.
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(st.tuples(ANY_NAME, st.floats(allow_nan=False, allow_infinity=False)), min_size=20, max_size=60)
)
def test_any_name_and_number_are_stored_as_sent(influx: Influx, sent: list[tuple[str, float]]) -> None:
    hour = START + next(_hours) * HOUR
    times = [hour + timedelta(seconds=second) for second in range(len(sent))]
    rows = [Row(time, "usage", name, value, "W", 0) for time, (name, value) in zip(times, sent, strict=True)]
    with influx.writer() as writer:
        for points in line_protocol.lines(frame(rows)):
            writer.write(points)
    found = {row["time"]: (row["detail-section"], row["value"]) for row in influx.points("power")}
    assert [found[time] for time in times] == [(f"{name}(W)", value) for name, value in sent]


# One bucket and one store for all examples.
def test_names_of_rooms_and_circuits_are_stored_as_shown(influx: Influx) -> None:
    names = [parsed_name(name) for name in NAMES]
    rooms = climate.frame(START, [Room(name, 20.5, 50) for name in names if name.strip()])
    ids = [str(number) for number in range(len(names))]
    hours = energy.frame(energy.interval(START, energy.USAGE, circuit, 7, energy.HOUR_S) for circuit in ids)
    with influx.writer() as writer:
        # One at a time: `delivery` handles lines that the server rejects beside others.
        for row in [
            *line_protocol.climate_lines(rooms),
            *line_protocol.energy_lines(hours, lambda circuit, _: names[int(circuit)]),
        ]:
            writer.write(row)
    found = influx.points("climate")
    assert sorted((row["detail-type"], row["detail-section"], row["value"]) for row in found) == sorted(
        (kind, as_written(name), value)
        for kind, name, value in zip(rooms["kind"], rooms["name"], rooms["value"], strict=True)
    )
    found = influx.points("energy")
    assert {row["circuit-id"]: row["detail-section"] for row in found} == {
        number: as_written(names[int(number)] or number) for number in ids
    }
    assert {row["measurement"] for row in influx.points()} == {"climate", "energy"}
