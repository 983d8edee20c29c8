"""A parser of line protocol by InfluxDB's rules, to check that points have the tags that were meant."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from aiseg2_pipeline.aiseg2.circuits import sum_by_name
from aiseg2_pipeline.aiseg2.models import CircuitPower, GeneratingDevice, LiveReading, PowerFlow, Room
from aiseg2_pipeline.frames import climate, energy
from aiseg2_pipeline.frames.readings import live_frame
from aiseg2_pipeline.influxdb import line_protocol

TIME = datetime(2026, 7, 14, 3, 0, 5, tzinfo=UTC)


class Point(NamedTuple):
    """A parsed line."""

    measurement: str
    tags: dict[str, str]
    fields: str
    time: str


def parsed(line: str) -> Point:
    """Parse a line: only a comma, a space and an equals sign can be escaped by a backslash."""
    assert "\n" not in line
    (key, fields, time) = _split(line, " ")
    measurement, *tags = _split(key, ",")
    pairs = [_split(tag, "=") for tag in tags]
    assert all(len(pair) == len(("key", "value")) and all(pair) for pair in pairs), pairs
    return Point(measurement, {_plain(name): _plain(value) for name, value in pairs}, fields, time)


def read_back(names: Sequence[str]) -> None:
    """Assert that devices, circuits and rooms of these names have exactly the points that were meant."""
    flow = PowerFlow(1.0, 2.0, tuple(GeneratingDevice(name, 3.0) for name in names))
    circuits = tuple(CircuitPower(name, float(n)) for n, name in enumerate(names))
    table = live_frame(LiveReading(TIME, flow, circuits, None, None, None, 0, 0.0))
    lines = [line for row in line_protocol.lines(table) for line in row]
    points = [parsed(line) for line in lines]
    sums = sum_by_name((row.name, row.power_w) for row in circuits)
    assert len(points) == len(table)
    assert {point.measurement for point in points} == {"power"}
    assert {point.time for point in points} == {str(int(TIME.timestamp()) * 10**9)}
    assert [
        (point.tags["detail-section"], point.fields)
        for point in points
        if point.tags.get("detail-type") == "usage" and len(point.tags) == len(("type", "section"))
    ] == [(f"{name}(W)", f"value={watts}") for name, watts in sums.items()]
    "\n".join(lines).encode()

    rooms = [Room(name, 20.0, None) for name in names if name.strip()]
    of_rooms = climate.frame(TIME, rooms)
    points = [parsed(line) for row in line_protocol.climate_lines(of_rooms) for line in row]
    assert [point.tags for point in points] == [
        {"detail-type": "temperature", "detail-section": as_written(name)} for name in of_rooms["name"]
    ]

    ids = [str(number) for number in range(len(names))]
    hours = energy.frame(energy.interval(TIME, energy.USAGE, circuit_id, 5, energy.HOUR_S) for circuit_id in ids)
    points = [
        parsed(line) for (line,) in line_protocol.energy_lines(hours, lambda circuit_id, _: names[int(circuit_id)])
    ]
    assert [point.tags for point in points] == [
        {"detail-type": "usage", "detail-section": as_written(names[int(n)] or n), "circuit-id": n}
        for n in hours["name"]
    ]


def as_written(name: str) -> str:
    """Return a name as stored at the end of a tag's value, where line protocol cannot express a backslash."""
    return f"{name[:-1]} " if name.endswith("\\") else name


def _split(text: str, at: str) -> list[str]:
    parts = [""]
    for before, char in zip(" " + text, text, strict=False):
        if char == at and before != "\\":
            parts.append("")
        else:
            parts[-1] += char
    return parts


def _plain(text: str) -> str:
    for char in ", =":
        text = text.replace(f"\\{char}", char)
    return text
