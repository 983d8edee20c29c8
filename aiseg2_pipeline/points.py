"""Readings rows as InfluxDB points: the schema of the bucket, which nothing else knows.

`power` stays exactly what dashboards of today's forwarder read: one float field `value`, and the tag `summary`
for a total or `detail-type` and `detail-section` for a device or a circuit. That a row is filled is told beside
it, in `power_fill`: another field or tag in `power` would add a series to every dashboard. Sending the points
belongs in `influx` and `outbox`.
"""

import pandas as pd
from influxdb_client.client.write.point import Point

from aiseg2_pipeline.readings import TOTAL_CONSUMPTION

MEASUREMENTS = ("power", "power_fill", "battery")
CONSUMPTION_SUMMARY = f"{TOTAL_CONSUMPTION}(kW)"


def lines(readings: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return for each row of a readings frame, in order, its points as line protocol in nanoseconds.

    A row is one point; a filled row (`interval_s` > 0) has a second one in `power_fill`.
    """
    series = list(zip(readings["kind"], readings["name"], readings["unit"], strict=True))
    # A day has 52 000 rows of a few dozen series: each is escaped once (a Point a row takes four times as long).
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


def _heads(kind: str, name: str, unit: str) -> tuple[str, str]:
    """Return what comes before the number in the series' point, and in the point that tells of a fill."""
    label = f"{name}({unit})" if unit else name
    if kind == "total":
        tags = {"summary": label}
    elif kind == "battery":
        tags = {"detail-section": label}
    else:
        tags = {"detail-type": kind, "detail-section": label}
    measurement = "battery" if kind == "battery" else "power"
    return _head(measurement, tags, "value"), _head("power_fill", tags, "interval_s")


def _head(measurement: str, tags: dict[str, str], field: str) -> str:
    point = Point.from_dict({"measurement": measurement, "tags": tags, "fields": {field: 0.0}})
    return str(point.to_line_protocol()).removesuffix("0")
