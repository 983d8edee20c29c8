"""The device's graph pages: a day's hours of one series, and the day before for comparison.

Pure functions without clock, HTTP or household. The hours' energy belongs in `meter`.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from html import escape
from typing import Any

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.chance import IntArray
from aiseg2_pipeline.simulator.household import GENERATOR_NAME
from aiseg2_pipeline.simulator.layout import VERSION, page, to_json
from aiseg2_pipeline.simulator.meter import Day

CIRCUIT_GRAPH = "584"

_NOTHING: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Graph:
    """A graph page: its series, and the variables of its script that do not depend on the hours."""

    page_id: str
    title: str
    parts: Callable[[Day], tuple[IntArray, ...]]  # stacked in the graph; `_NOTHING` if nothing is measured
    variables: dict[str, Any]
    unit: str = "kWh"

    @property
    def decimals(self) -> int:
        """The number of decimals in `unit`: the meter counts Wh and L."""
        return 3 if self.unit == "kWh" else 0


def _one_series(legend: str, css_class: str) -> dict[str, Any]:
    return {
        "connectInfo_sb": "0",
        "total1_string": legend,
        "val2_string": "",
        "storagebattery": False,
        "graph_num": 1,
        "total1_Legend": css_class,
    }


GRAPHS = {
    graph.page_id: graph
    for graph in (
        Graph(
            "51111",
            "発電量",
            lambda day: (day.generation_wh,),
            _one_series(GENERATOR_NAME, "pv"),
        ),
        Graph(
            "52111",
            "使用電力量",
            lambda day: (day.own_wh, day.bought_wh),
            {"connectInfo": {"gen": 1, "sto": 0}, "graph_num": 2, "gen": 1},
        ),
        Graph("53111", "買電量", lambda day: (day.bought_wh,), _one_series("買電", "buy")),
        Graph("54111", "売電量", lambda day: (day.sold_wh,), _one_series("売電", "sell")),
        Graph("55111", "湯", lambda day: (day.hot_water_l,), _one_series("湯", "hotwater"), unit="L"),
        Graph("57111", "ガス", lambda _: (_NOTHING,), _one_series("", ""), unit="㎥"),  # all is electric here
    )
}


def parse_query(data: str) -> tuple[date | None, str | None]:
    """Return the day and the circuit id of a graph page's query; None for a missing or invalid one.

    `data` is base64 of JSON with `day` ([2026, 7, 14]) and, for one circuit, `circuitid`.
    """
    try:
        # A `+` that a client did not escape arrives as a space; some clients omit the padding.
        text = data.replace(" ", "+").rstrip("=")
        values = json.loads(base64.b64decode(text + "=" * (-len(text) % 4)))
        circuit_id = values.get("circuitid")
    except (ValueError, AttributeError, RecursionError):
        return None, None
    try:
        year, month, number = (int(part) for part in values["day"])
        day = date(year, month, number) if 1970 <= year < 9999 else None
    except (ValueError, KeyError, TypeError, OverflowError):
        day = None
    return day, None if circuit_id is None else str(circuit_id)


def circuit_graph(circuit_id: str | None, names: Mapping[int, str]) -> Graph:
    """Return the graph of one circuit; an empty one if no circuit in `names` (by id) has this id."""
    ids = [str(circuit.circuit_id) if circuit.circuit_id in names else "" for circuit in CIRCUITS]
    if not circuit_id or circuit_id not in ids:
        return Graph(CIRCUIT_GRAPH, "回路ごと", lambda _: (_NOTHING,), _one_series("", ""))
    index = ids.index(circuit_id)
    title, variables = escape(names[int(circuit_id)]), _one_series(names[int(circuit_id)], "circuit")
    return Graph(CIRCUIT_GRAPH, title, lambda day: (day.circuits_wh[:, index],), variables)


def graph_page(graph: Graph, day: date, hours: Day, before: Day, now: datetime) -> bytes:
    """Return a graph's page for `day`; `before` is the day before, `now` the device's clock in Japan time."""
    parts = graph.parts(hours)
    of_day = np.stack(parts).sum(axis=0)
    of_before = np.stack(graph.parts(before)).sum(axis=0)
    unit, decimals = 10**graph.decimals, graph.decimals
    total = f"{of_day.sum() / unit:.{decimals}f}" if hours.is_known and of_day.size else "-"
    arrays = {
        "total1": _in(unit, parts[0]),
        "val2": _in(unit, parts[1]) if len(parts) > 1 else [],
        # Only the page with two series has a `val3`.
        **({"val3": []} if len(parts) > 1 else {}),
        "total2": _in(unit, of_before),
    }
    highest = max(of_day.max(initial=0), of_before.max(initial=0)) / unit
    scale = {"max": 5 * max(1, math.ceil(highest / 5)), "totalValue": total}
    tabs = {"day": [day.year, day.month, day.day], "month_compare": "mon", "day_compare": "day"}
    variables = f"""<script type="text/javascript">
	var version = '{VERSION}';
	var graph_data = {to_json({"unit": "day", **arrays, **scale, **graph.variables})};
	var tabs = {to_json(tabs)};
	var back_url = '/page/graph/{graph.page_id}';
	var termStr = 'day';
	var term = '{day:%Y/%m/%d}';
</script>
"""
    return page(
        title=graph.title,
        now=now,
        middle=f"""<div id="main">
	<div id="stage" class="day graph_contents"></div>
	<div id="txt_val_wrapper" >
		<div id="val_current">{day:%Y/%m/%d}</div>
		<div id="txt_graph_kwh">
			<span id="val_kwh">{total}</span><span id="unit_kwh">{graph.unit}</span>
		</div>
	</div>
</div>
""",
        scripts=variables,
    )


def _in(unit: int, hours: IntArray) -> list[float]:
    """Return hours as in the script: kWh (`unit` 1000) with decimals, whole numbers without."""
    return [value / unit if value % unit else value // unit for value in hours.tolist()]
