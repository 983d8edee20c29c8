"""Rows of the stores as InfluxDB points: the schema of the bucket, defined here alone.

`power` stays compatible with the dashboards of the earlier forwarder: one float field `value`, and the tag `summary`
for a total or `detail-type` and `detail-section` for a device or a circuit. A filled row is marked by a second point in
`power_fill`, because another field or tag in `power` would add a series to every dashboard. Sending the points belongs
in `client` and `delivery`.

InfluxDB stores every name as the device shows it, with two exceptions, because line protocol cannot escape a backslash:
- At the end of a tag a backslash would escape the next character, so influxdb-client appends a space: the server stores
  the name with a space as its last character. In `power` the unit follows the name; a room and a circuit's energy have
  no unit.
- With a backslash before a space, another before an equals sign, and a quote after them, InfluxDB searches the end of the
  line beyond it, and rejects this point and the next of the request. It stores no wrong point for them, and `delivery`
  splits the rejected rows until the point is alone, which is parsed correctly.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache

import pandas as pd
from influxdb_client.client.write.point import Point

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION
from aiseg2_pipeline.store.coverage import HourCoverage

# What `remove` deletes. An hour's point of `coverage` is overwritten instead.
MEASUREMENTS = ("power", "power_fill", "battery", "flow")
ENERGY_MEASUREMENTS = ("energy", "daily_total", "circuit_daily_total", "daily_cost", "monthly_total", "cost")
# Returns a circuit's name at a time, by its id; None if it is unknown.
NameOf = Callable[[str, datetime], str | None]
CONSUMPTION_SUMMARY = f"{TOTAL_CONSUMPTION}(kW)"


def lines(readings: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return for each row of a readings frame, in order, its points as line protocol in nanoseconds.

    A filled row (`interval_s` > 0) has a second point, in `power_fill`.
    """
    # Iterating over text takes pandas six times as long as numpy.
    series = list(zip(*(readings[label].to_numpy() for label in ("kind", "name", "unit")), strict=True))
    # A day has 52 000 rows of a few dozen series: each series is escaped once (a Point for each row takes four times as long).
    heads = {key: _heads(*key) for key in set(series)}
    times_ns = readings["time"].astype("int64")
    points: list[tuple[str, ...]] = []
    for key, time_ns, value, interval_s in zip(
        series, times_ns, readings["value"], readings["interval_s"], strict=True
    ):
        value_head, fill_head = heads[key]
        point = f"{value_head}{value} {time_ns}"
        points.append((point, f"{fill_head}{interval_s}i {time_ns}") if interval_s else (point,))
    return points


def series_tags(kind: str, name: str, unit: str) -> dict[str, str]:
    """Return the tags of a series of readings."""
    label = f"{name}({unit})" if unit else name
    if kind in ("total", "flow"):
        return {"summary": label}
    if kind == "battery":
        return {"detail-section": label}
    return {"detail-type": kind, "detail-section": label}


def energy_lines(rows: pd.DataFrame, name_of: NameOf) -> list[tuple[str, ...]]:
    """Return for each row of an energy frame, in order, its point as line protocol in nanoseconds.

    Half hours, whose hours are rows as well, and the pipeline's own notes have no points.
    """
    head = cache(_energy_head)

    def head_of(kind: str, name: str, time: datetime) -> str | None:
        circuit_id = _circuit_id(kind, name)
        return head(kind, name, circuit_id, circuit_id and (name_of(circuit_id, time) or circuit_id))

    return _points(rows, head_of)


def climate_lines(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return for each row of a climate frame, in order, its point as line protocol in nanoseconds."""
    head = cache(lambda kind, name: _head("climate", {"detail-type": kind, "detail-section": name}, "value"))
    return _points(rows, lambda kind, name, _: head(kind, name))


def coverage_lines(hours: Iterable[HourCoverage]) -> list[str]:
    """Return the point of each hour as line protocol in nanoseconds."""
    return [
        Point("coverage")
        .field("read", hour.read)
        .field("filled", hour.filled)
        .field("missing", hour.missing)
        .time(hour.start)
        .to_line_protocol()
        for hour in hours
    ]


def _points(rows: pd.DataFrame, head_of: Callable[[str, str, datetime], str | None]) -> list[tuple[str, ...]]:
    times = rows["time"].dt.to_pydatetime()
    heads = map(head_of, rows["kind"], rows["name"], times)
    points = zip(heads, rows["value"], rows["time"].astype("int64"), strict=True)
    return [(f"{head}{value} {time_ns}",) if head else () for head, value, time_ns in points]


def _circuit_id(kind: str, name: str) -> str | None:
    if kind in (energy.USAGE, energy.CIRCUIT_DAILY_TOTAL):
        return name
    if kind == energy.DAILY_COST and name.startswith(energy.COST_OF_CIRCUIT):
        return name.removeprefix(energy.COST_OF_CIRCUIT)
    return None


def _energy_head(kind: str, name: str, circuit_id: str | None, shown: str | None) -> str | None:
    of_circuit = {"circuit-id": circuit_id} if circuit_id is not None else {}
    section = shown if shown is not None else name
    if kind in energy.HOURLY_KINDS:
        return _head("energy", {"detail-type": kind, "detail-section": section} | of_circuit, "wh")
    if kind in (energy.DAILY_TOTAL, energy.MONTHLY_TOTAL):
        return _head(kind, {"detail-section": section}, "value")
    if kind == energy.CIRCUIT_DAILY_TOTAL:
        return _head(kind, {"detail-section": f"{section}(kWh)"} | of_circuit, "value")
    if kind == energy.COST:
        return _head(kind, {"detail-type": name}, "yen")
    if kind == energy.DAILY_COST:
        detail_type = energy.USAGE if of_circuit else name
        return _head(kind, {"detail-type": detail_type, "detail-section": section} | of_circuit, "yen")
    return None


def _heads(kind: str, name: str, unit: str) -> tuple[str, str]:
    """Return the line up to the number, for the series' point and for its mark of a fill."""
    tags = series_tags(kind, name, unit)
    measurement = kind if kind in MEASUREMENTS else "power"
    return _head(measurement, tags, "value"), _head("power_fill", tags, "interval_s")


def _head(measurement: str, tags: dict[str, str], field: str) -> str:
    point = Point.from_dict({"measurement": measurement, "tags": tags, "fields": {field: 0.0}})
    return str(point.to_line_protocol()).removesuffix("0")
