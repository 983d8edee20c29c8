"""The device's graph pages: a day's hours of one series, and the day before for comparison.

Pure functions without clock, HTTP or household. The hours' energy belongs in `meter`.
"""

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from html import escape
from typing import Any

import numpy as np

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.chance import IntArray
from aiseg2_pipeline.simulator.household import GENERATOR_NAME
from aiseg2_pipeline.simulator.layout import VERSION, page, script, to_json
from aiseg2_pipeline.simulator.meter import Day

CIRCUIT_GRAPH = "584"

_NOTHING: IntArray = np.zeros(0, np.int64)
_BUTTONS = (
    ("g_btn_solar", "w86", "発電量", "51111"),
    ("g_btn_buy", "w82", "買電量", "53111"),
    ("g_btn_sell", "w82", "売電量", "54111"),
    ("g_btn_usage", "w102", "使用電力量", "52111"),
    ("g_btn_hotwater", "w88", "湯", "55111"),
)


@dataclass(frozen=True)
class Graph:
    """A graph page: its series, and the variables of its script that do not depend on the hours."""

    page_id: str
    title: str
    legends: tuple[str, ...]
    parts: Callable[[Day], tuple[IntArray, ...]]  # stacked in the graph; `_NOTHING` if nothing is measured
    variables: dict[str, Any]
    unit: str = "kWh"

    @property
    def decimals(self) -> int:
        """The number of decimals in `unit`: the meter counts Wh and L."""
        return 3 if self.unit == "kWh" else 0


_POPUP = """<div id="popup">
	<div class="popup_layer">&nbsp;</div>
	<div id="popup_base" class="p_681x368">
		<div class="w194 h46 radio  radio_on radio_0" value="" href=""  nofunc></div>
		<div id="popup_button_cb" class="w112 h46 button  popup_button_cancel"></div>
	</div>
</div>
"""


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
            (GENERATOR_NAME,),
            lambda day: (day.generation_wh,),
            _one_series(GENERATOR_NAME, "pv"),
        ),
        Graph(
            "52111",
            "使用電力量",
            ("発電", "買電"),
            lambda day: (day.own_wh, day.bought_wh),
            {"connectInfo": {"gen": 1, "sto": 0}, "graph_num": 2, "gen": 1},
        ),
        Graph("53111", "買電量", ("買電",), lambda day: (day.bought_wh,), _one_series("買電", "buy")),
        Graph("54111", "売電量", ("売電",), lambda day: (day.sold_wh,), _one_series("売電", "sell")),
        Graph("55111", "湯", ("湯",), lambda day: (day.hot_water_l,), _one_series("湯", "hotwater"), unit="L"),
        Graph("57111", "ガス", (), lambda _: (_NOTHING,), _one_series("", ""), unit="㎥"),  # all is electric here
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
        return Graph(CIRCUIT_GRAPH, "回路ごと", (), lambda _: (_NOTHING,), _one_series("", ""))
    index = ids.index(circuit_id)
    title, variables = escape(names[int(circuit_id)]), _one_series(names[int(circuit_id)], "circuit")
    return Graph(CIRCUIT_GRAPH, title, (title,), lambda day: (day.circuits_wh[:, index],), variables)


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
        icon=5,
        back="/page/electricflow/111",
        now=now,
        middle=_middle(graph, day, total, is_today=day >= now.date()),
        scripts=variables + script("graph_bar_660x200") + script("util_base64"),
    )


def _in(unit: int, hours: IntArray) -> list[float]:
    """Return hours as in the script: kWh (`unit` 1000) with decimals, whole numbers without."""
    return [value / unit if value % unit else value // unit for value in hours.tolist()]


def _middle(graph: Graph, day: date, total: str, *, is_today: bool) -> str:
    page_id = graph.page_id
    before = day - timedelta(days=1)
    has_circuits = page_id in {"52111", CIRCUIT_GRAPH}
    numbers = "".join(f'\t\t<div id="row_num{number}" class="row_num"></div>\n' for number in range(6))
    infos = "".join(
        f'\t\t<div id="info_{index * 2}" class="info"><span class="icolor"></span>'
        f'<span class="istring">：{legend}</span></div>\n'
        for index, legend in enumerate(graph.legends)
    )
    tabs = "".join(
        f'\t\t\t<div class="tab-desc-{number} hit" href="/page/graph/{page_id[:2]}{number + 1}11">'
        '<a href="javascript:void(0)" class="hit"></a></div>\n'
        for number in (1, 2, 3)
    )
    buttons = "".join(_button(*button, selected=page_id) for button in _BUTTONS)
    by_circuit = '\t\t<div id="g_btn_1" class="button w104 h43 hit" href="/page/graph/581"></div>\n'
    number_list = (
        f'\t\t<div id="g_btn_num_list" class="button w125 h43 hit" href="/page/graph/{page_id}2"></div>\n'
    )
    canvas = '\t\t<div id="tiku"><canvas id="tiku_bar" width="648" height="7"></canvas></div>\n'
    following = 'no_sound disable "' if is_today else f'hit" href="/page/graph/{page_id}"'
    return f"""<div id="main">
	<div id="tab-area">
		<div class="tab-set-4">
			<div class="tab-all tab-active no_sound"></div>
{tabs}		</div>
	</div>
	<div id="stage" class="day graph_contents">
{"" if has_circuits else canvas}		<div id="graph_base"></div>
		<div id="graph_dot"></div>
		<div id="last"><canvas id="graph_last" width="660" height="200"></canvas></div>
		<div id="current"><canvas id="graph_current" width="660" height="200"></canvas></div>
	</div>
	<div id="row_num_wrapper" class="graph_contents">
		<div id="row_unit" class="row_num">({graph.unit})</div>
{numbers}	</div>
	<div id="info_wrapper">
{infos}		<div id="info_last" class="info"><span class="istring">：<span id="val_last">{before:%m/%d}</span></span></div>
	</div>
	<div id="txt_val_wrapper" >
		<div id="txt_val_inner">
			<div id="val_current">{day:%Y/%m/%d}</div>
			<div id="txt_graph_kwh">
				<span id="val_kwh">{total}</span><span id="unit_kwh">{graph.unit}</span>
			</div>
		</div>
		<div id="g_rbtn_back" class="button nextback back hit" href="/page/graph/{page_id}"></div>
		<div id="g_rbtn_next" class="button nextback next {following}></div>
		<div id="g_sbtn_1" class="button dropdown w164 h43"></div>
{"" if has_circuits else number_list}	</div>
	<div id="display_switch{"_circuit" if has_circuits else ""}">
	<div id="g_cbtn_wrapper" class="combo_wrapper">
{buttons}	</div>
	</div>
{by_circuit if has_circuits else ""}</div>
</div>
{_POPUP}"""


def _button(element_id: str, width: str, text: str, page_id: str, *, selected: str) -> str:
    state = 'no_sound selected"' if page_id == selected else f'hit" href="/page/graph/{page_id}"'
    return (
        f'\t\t<div id="{element_id}" class="button combo {width} h43 {state}>'
        f'<div class="button_text">{text}</div></div>\n'
    )
