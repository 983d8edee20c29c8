"""Interpolates the dashboards' queries as Grafana 12 does, and executes them on a real InfluxDB.

A panel's expected values belong in the tests.
"""

import io
import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import requests

from aiseg2_pipeline_tests.support.influxdb import InfluxServer

Node = dict[str, Any]
GRAFANA = Path(__file__).parents[2] / "grafana"
FILES = sorted(GRAFANA.glob("dashboards/*.json"))
DASHBOARDS: dict[str, Node] = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in FILES}
SCREEN_PX = 1920
# Grafana rounds `v.windowPeriod` to one of these, for ranges up to three years.
INTERVALS = ("1m", "2m", "5m", "10m", "15m", "20m", "30m", "1h", "2h", "3h", "6h", "12h", "24h")


class View(NamedTuple):
    """The selected time range and the current time (all aware)."""

    start: datetime
    stop: datetime
    now: datetime


class Query(NamedTuple):
    """A query of a panel; `every` is the value of the dashboard's own variable in it, else `v.windowPeriod`."""

    dashboard: str
    panel: Node
    ref: str
    every: str
    # Whether this is the variable's default value.
    as_opened: bool
    # Grafana truncates a longer series and shows an error.
    most_rows: float
    flux: str


def panels(dashboard: Node) -> list[Node]:
    """Return the panels, those of a collapsed row included."""
    return [each for panel in dashboard["panels"] for each in (panel, *panel.get("panels", ()))]


def queries(view: View, bucket: str) -> Iterator[Query]:
    """Yield every query of every panel, with each value of the dashboard's own variable."""
    for file, dashboard in DASHBOARDS.items():
        variables: Node = {
            each["name"]: each for each in dashboard["templating"]["list"] if each["type"] == "custom"
        }
        for panel, target in ((one, target) for one in panels(dashboard) for target in one.get("targets", ())):
            width_px = panel["gridPos"]["w"] * SCREEN_PX / 24
            interval = (view.stop - view.start) / panel.get("maxDataPoints", width_px)
            given = {
                "v.timeRangeStart": _rfc3339(view.start),
                "v.timeRangeStop": _rfc3339(view.stop),
                "v.windowPeriod": min(INTERVALS, key=lambda each: abs(pd.Timedelta(each) - interval)),
                "v.defaultBucket": json.dumps(bucket),
            }
            flux = target["query"]
            for text, value in given.items():
                flux = flux.replace(text, value)
            # Not part of Grafana's interpolation: it fixes the current time.
            flux = re.sub(r'\A((?:import "\w+"\n)*)', rf"\1option now = () => {_rfc3339(view.now)}\n", flux)
            most_rows = 1.5 * panel.get("maxDataPoints", width_px)
            name = next((name for name in variables if f"${{{name}}}" in flux), "")
            options: list[Node] = [{"value": given["v.windowPeriod"], "selected": True}]
            for option in variables[name]["options"] if name else options:
                every, query = option["value"], flux.replace(f"${{{name}}}", option["value"])
                yield Query(file, panel, target["refId"], every, option["selected"], most_rows, query)


def _rfc3339(time: datetime) -> str:
    return pd.Timestamp(time).tz_convert("UTC").isoformat().replace("+00:00", "Z")


def execute(server: InfluxServer, flux: str, timeout_s: float = 180) -> pd.DataFrame:
    """Return the rows of a query's result, in order. Raise ValueError if InfluxDB reports an error."""
    answer = requests.post(
        f"{server.url}/api/v2/query",
        params={"org": server.org},
        headers={"Authorization": f"Token {server.token}"},
        json={"query": flux, "type": "flux", "dialect": {"annotations": [], "header": True}},
        timeout=timeout_s,
    )
    # An error during execution follows the tables, with status 200.
    if not answer.ok or re.search(r"^,?error,reference\b", answer.text, re.MULTILINE):
        raise ValueError(f"{answer.text[-500:]}\n{flux}")
    # Tables with other columns have a header of their own.
    parts = [pd.read_csv(io.StringIO(part)) for part in answer.text.split("\r\n\r\n") if part.strip()]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["table", "_value"])
    if "_time" in rows:
        rows["_time"] = pd.to_datetime(rows["_time"], format="ISO8601")
    return rows.astype({"_value": "float64"})
