"""The simulator's live pages and its clock, and all of its pages compared with captures of a real device."""

import json
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from lxml import html

from aiseg2_pipeline.simulator.battery import battery
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline_tests.support.device import CAPTURES, needs_captures
from aiseg2_pipeline_tests.support.simulator_client import (
    BATTERY_FLOW,
    CARD_PAGE,
    CIRCUIT_LIST,
    CIRCUITS_PAGE,
    EVENING,
    FLOW,
    FLOW_HTML,
    JAPAN,
    NOON,
    Unit,
    circuit_places,
    graph_data,
    shown_clock,
    simulated,
)


@pytest.fixture
def unit(shared: Unit) -> Unit:
    shared.set_clock(NOON)
    return shared


def watts(value: str) -> int:
    return int(value.removesuffix("W").strip() or "0")


@pytest.mark.parametrize(
    "path",
    ["/", "/action/x", "/page/electricflow/112", f"{FLOW_HTML}/", "/page/graph/99999", "/page/smartmeter/2"],
)
def test_any_other_path_or_method_is_not_found(unit: Unit, path: str) -> None:
    assert unit.get(path).status_code == 404
    assert unit.get(FLOW).status_code == 404
    for method, url in (("POST", unit.url(CIRCUIT_LIST)), ("PUT", unit.url(FLOW)), ("POST", unit.url(path))):
        assert unit.session.request(method, url, data={"a": "b"}, timeout=10).status_code == 404


def test_the_settings_page_has_its_token_before_the_body(unit: Unit) -> None:
    text = unit.get(CARD_PAGE).text
    assert 0 < text.index(f'NAME="csrftoken" VALUE="{unit.token()}"') < text.index("<body")


@pytest.mark.parametrize(
    "path", [CIRCUITS_PAGE, CIRCUIT_LIST, FLOW_HTML, "/page/graph/51111", "/page/graph/55111"]
)
def test_pages_start_as_on_a_real_device_and_have_its_clock_in_japan_time(unit: Unit, path: str) -> None:
    unit.set_clock(datetime(2026, 1, 4, 15, 7, 9, tzinfo=UTC))
    response = unit.get(path)
    assert response.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert response.text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html')
    assert "&nbsp;" in response.text
    clock = {"year": "26", "month": "1", "day": "5", "hour": "0", "min": "7", "sec": "9", "weekday": "1"}
    assert shown_clock(response.text) == clock


@pytest.mark.parametrize("time", [NOON, EVENING, datetime(2026, 1, 10, 3, 20, tzinfo=JAPAN)])
def test_the_pages_of_one_moment_agree(unit: Unit, time: datetime) -> None:
    unit.set_clock(time)
    flow = unit.flow()
    rows = unit.all_circuits()
    power = Household(1).power(np.array([step_of(time)]))
    assert sorted(watts(value) for value, _ in rows) == sorted(power.circuits_w[0].tolist())
    assert flow["u_capacity"] == f"{power.consumption_w[0] / 1000:.1f}"
    assert flow["g_d_1_capacity"] == power.generation_w[0]
    assert flow["g_capacity"] == f"{power.generation_w[0] / 1000:.1f}"
    assert flow["lo_buy_sell"] == int(time == NOON) == int(power.generation_w[0] > power.consumption_w[0])
    largest = [(flow[f"u_d_{n}_title"].replace("・", ""), flow[f"u_d_{n}_capacity"]) for n in (1, 2, 3)]
    assert largest == [(name, watts(value)) for value, name in rows[:3]]

    page = unit.page(FLOW_HTML)
    keys = ("g_capacity", "u_capacity", "g_d_1_title", "g_d_1_capacity", "g_d_2_title")
    texts = [page.get_element_by_id(key).text for key in keys]
    assert texts == [flow["g_capacity"], flow["u_capacity"], "太陽光発電", f"{flow['g_d_1_capacity']}W", None]


def test_only_the_flow_shows_a_battery(unit: Unit) -> None:
    without = unit.flow()
    assert (without["connSb"], without["percent"]) == (0, "-")
    with simulated(NOON, Household(1, battery=True)) as home:
        flow = home.flow()
        assert {key for key in flow if flow[key] != without[key]} == {"connSb", "percent", "soc"}
        for hour in (0, 3, 12, 18, 20, 23):
            home.set_clock(NOON.replace(hour=hour))
            flow, shown = home.flow(), battery(NOON.replace(hour=hour))
            assert (flow["percent"], flow["charge"], flow["soc"]) == (shown.percent, shown.state, shown.bar)


def test_the_battery_flow_is_that_of_the_moment_and_only_of_a_home_with_a_battery(unit: Unit) -> None:
    assert unit.post_flow(BATTERY_FLOW).status_code == 404
    directions = set()
    with simulated(NOON, Household(1, battery=True)) as home:
        for hour in (0, 3, 10, 12, 18, 23):
            home.set_clock(NOON.replace(hour=hour))
            flow = home.flow()
            shown = home.post_flow(BATTERY_FLOW).json()
            sun, grid, power = (
                float(shown[key]) for key in ("lo_sun_lo_kW", "lo_densen_lo_kw", "lo_battery_lo_kW")
            )
            assert (shown["charge"], sun) == (str(flow["charge"]), float(flow["g_capacity"]))
            sold, charged = flow["lo_buy_sell"] == 1, flow["charge"] == 0
            directions.add((sold, charged))
            sources = sun + (-grid if sold else grid) + (-power if charged else power)
            assert sources == pytest.approx(float(flow["u_capacity"]), abs=0.2)
    assert {(False, True), (False, False), (True, False)} <= directions


def test_the_circuits_are_those_of_the_list_with_duplicate_names(unit: Unit) -> None:
    assert len(circuit_places(unit.get(CIRCUIT_LIST).text)) == 45
    registered = unit.registered()
    assert list(registered) == list(range(8, 40))
    names = Counter(name.replace("・", "") for name in registered.values())
    assert {name: count for name, count in names.items() if count > 1} == {"ＬＤ": 2, "電子レンジ": 3, "ＩＨ": 2}
    assert names == Counter(name for _, name in unit.all_circuits())


def test_names_break_at_their_dot_or_after_six_characters(unit: Unit) -> None:
    text = "".join(unit.get(CIRCUITS_PAGE, id=str(number)).text for number in (1, 2, 3, 4))
    names = ("キッチン　パ<br />ントリー", "洋室１<br />エアコン", "寝室　エアコ<br />ン", "-<br />", "玄関<br />")
    for name in names:
        assert f'<div class="c_device">{name}</div>' in text


def test_only_the_last_page_of_circuits_has_no_link_to_a_later_one(unit: Unit) -> None:
    assert [len(unit.circuits(number)) for number in (1, 2, 3, 4)] == [10, 10, 10, 2]
    assert unit.circuits(5) == unit.circuits(10**6) == unit.circuits(4)
    for number in (1, 2, 3, 4, 5):
        hrefs = unit.page(CIRCUITS_PAGE, id=str(number)).xpath("//@href")
        linked = [int(match[1]) for href in hrefs if (match := re.search(r"1113\?id=(\d+)&track=", href))]
        assert any(other > number for other in linked) == (number < 4)


@pytest.mark.parametrize("number", ["", "0", "-1", "x", "1.5"])
def test_an_invalid_page_number_gives_the_first_page(unit: Unit, number: str) -> None:
    assert unit.get(CIRCUITS_PAGE, id=number).text == unit.get(CIRCUITS_PAGE).text


@needs_captures
class TestAgainstCaptures:
    @pytest.mark.parametrize(
        ("name", "address"),
        [
            ("electricflow_1113_id1.html", f"{CIRCUITS_PAGE}?id=1"),
            ("electricflow_1113_id4.html", f"{CIRCUITS_PAGE}?id=4"),
            ("electricflow_1113_id5.html", f"{CIRCUITS_PAGE}?id=5"),
            ("installation_734.html", CIRCUIT_LIST),
            ("graph_51111.html", "/page/graph/51111"),
            ("graph_52111.html", "/page/graph/52111"),
        ],
    )
    def test_a_page_has_only_real_ids_in_the_real_order(self, unit: Unit, name: str, address: str) -> None:
        def ids(content: bytes) -> list[str]:
            return [
                str(element.attrib["id"]) for element in html.fromstring(content).iter() if "id" in element.attrib
            ]

        ours = ids(unit.get(address).content)
        assert {"h_title", "h_datetime", "main"} <= set(ours)
        assert [element_id for element_id in ids((CAPTURES / name).read_bytes()) if element_id in ours] == ours

    @pytest.mark.parametrize("number", [1, 4])
    def test_the_circuits_and_their_tabs_have_the_real_structure(self, unit: Unit, number: int) -> None:
        def structure(content: bytes) -> list[tuple[Any, ...]]:
            areas: Any = html.fromstring(content).xpath("//*[@id='tab-area' or @id='m_capacity']//*")
            return [(area.tag, area.get("class"), area.get("href")) for area in areas]

        real = (CAPTURES / f"electricflow_1113_id{number}.html").read_bytes()
        assert structure(unit.get(CIRCUITS_PAGE, id=str(number)).content) == structure(real)

    def test_the_flow_has_the_real_keys_and_types_in_the_real_order(self, unit: Unit) -> None:
        real = json.loads((CAPTURES / "electricflow_111.json").read_bytes())
        assert types(unit.flow()) == types(real)

    @pytest.mark.parametrize("page_id", ["51111", "52111"])
    def test_a_graph_has_the_real_variables(self, unit: Unit, page_id: str) -> None:
        unit.set_clock(datetime(2026, 7, 14, 8, 17, 22, tzinfo=JAPAN))
        real_text = (CAPTURES / f"graph_{page_id}.html").read_text(encoding="utf-8")
        text = unit.get(f"/page/graph/{page_id}").text
        real, ours = graph_data(real_text), graph_data(text)
        assert types(ours) == types(real)
        fixed = re.compile(r"var (?:tabs|back_url|termStr|term) = .*;")
        assert fixed.findall(text) == fixed.findall(real_text)
        constant = real.keys() - {"total1", "val2", "total2", "max", "totalValue", "val_kwh"}
        assert {key: ours[key] for key in constant} == {key: real[key] for key in constant}

    def test_the_circuit_list_is_the_real_one(self, unit: Unit) -> None:
        real = (CAPTURES / "installation_734.html").read_text(encoding="utf-8")
        assert circuit_places(unit.get(CIRCUIT_LIST).text) == circuit_places(real)

    def test_the_settings_form_has_the_real_fields(self, unit: Unit) -> None:
        fields = re.compile(r'<input type="hidden" NAME="(\w+)" +VALUE=')
        real = (CAPTURES / "exectop2.html").read_text(encoding="utf-8")
        assert fields.findall(unit.get(CARD_PAGE).text) == fields.findall(re.sub(" +", " ", real))


def types(values: dict[str, Any]) -> list[tuple[str, type]]:
    return [(key, type(value)) for key, value in values.items()]
