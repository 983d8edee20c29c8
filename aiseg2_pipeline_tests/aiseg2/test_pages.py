"""The pages: every page is read completely, or refused with a message that names the missing element."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from aiseg2_pipeline.aiseg2 import pages
from aiseg2_pipeline.aiseg2.errors import NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import (
    Battery,
    BatteryState,
    Circuit,
    CircuitList,
    CircuitPage,
    CircuitPower,
    Exchange,
    GeneratingDevice,
    PowerFlow,
)
from aiseg2_pipeline_tests.support.device import (
    CAPTURES,
    SERVER_TIME,
    circuit_list,
    circuit_page,
    flow_html,
    flow_json,
    needs_captures,
)
from aiseg2_pipeline_tests.support.invariants import assert_valid

NOW = datetime(2026, 7, 13, 23, 15, 53, tzinfo=UTC)


def first_page(body: bytes) -> CircuitPage:
    return pages.circuit_page(body, 1)


ROWS = [("ＬＤ<br />", " 1224W"), ("洋室１<br />エアコン", " 80W"), ("R&D", "-"), ("ＩＨ<br />", "")]
CAPTURED: dict[str, Callable[[bytes], Any]] = {
    "electricflow_111.json": pages.flow_from_json,
    "electricflow_1113_id1.html": first_page,
    "electricflow_1113_id4.html": lambda body: pages.circuit_page(body, 4),
    "electricflow_1113_id5.html": lambda body: pages.circuit_page(body, 5),
    "installation_734.html": pages.circuit_list,
}


def captured(name: str) -> Any:
    return CAPTURED[name]((CAPTURES / name).read_bytes())


# The captures


@needs_captures
def test_the_captured_flow_is_what_the_device_showed() -> None:
    assert captured("electricflow_111.json") == PowerFlow(
        generation_kw=2.1,
        consumption_kw=1.2,
        generators=(GeneratingDevice("太陽光発電", 2130),),
        exchange=Exchange.SELLING,
        battery=None,
    )


@needs_captures
def test_the_captured_first_page_has_ten_circuits_of_513_w_and_is_not_the_last() -> None:
    page = captured("electricflow_1113_id1.html")
    assert len(page.rows) == 10
    assert sum(row.power_w for row in page.rows) == 513
    assert page.rows[0] == CircuitPower("ＬＤ", 224)
    assert "キッチン　パントリー" in [row.name for row in page.rows]
    assert page.has_blank
    assert not page.is_last
    assert page.device_time is not None


@needs_captures
def test_the_captured_last_page_has_two_blank_circuits_and_so_has_the_page_past_it() -> None:
    page = captured("electricflow_1113_id4.html")
    rows = (CircuitPower("-", 0), CircuitPower("ＩＨ", 0))
    assert page == CircuitPage(rows, has_blank=True, is_last=True, device_time=NOW)
    past = captured("electricflow_1113_id5.html")
    assert (past.rows, past.is_last) == (page.rows, True)
    assert (past.device_time - page.device_time).total_seconds() == 1


@needs_captures
def test_the_captured_list_has_its_32_registered_circuits() -> None:
    circuits = captured("installation_734.html").circuits
    assert [circuit.circuit_id for circuit in circuits] == [str(n) for n in range(8, 40)]
    names = [circuit.name for circuit in circuits]
    assert [names.count(name) for name in ("ＬＤ", "電子レンジ", "ＩＨ", "-")] == [2, 3, 2, 1]
    assert circuits[25] == Circuit("33", "ＬＤＫ・エアコン")


@needs_captures
def test_the_captured_export_page_has_its_token() -> None:
    assert pages.export_token((CAPTURES / "exectop2.html").read_bytes())


# The power flow as JSON

BLANK = ["", " ", "\N{IDEOGRAPHIC SPACE}"]
NOT_A_NUMBER = ["abc", "1,2", "1e3", "+1", "１２", "-1", -1, -0.1, "NaN", float("nan"), float("inf"), True, [], {}, [1],
                "--", "1.", ".5", "1234567890", 10**9, 1e300, 10**400, "2130W"]  # fmt: skip


@pytest.mark.parametrize("key", ["g_capacity", "u_capacity", "g_d_1_capacity", "percent"])
def test_a_value_of_the_json_that_is_not_a_number_is_refused_by_its_key(key: str) -> None:
    needed = key in ("g_capacity", "u_capacity")
    for value in [*BLANK, *NOT_A_NUMBER] if needed else NOT_A_NUMBER:
        with pytest.raises(Unreadable, match=rf"/data/electricflow/111/update has no number in `{key}`"):
            pages.flow_from_json(flow_json(**{"connSb": 1, key: value}))
    with pytest.raises(Unreadable, match="`percent`"):
        pages.flow_from_json(flow_json(connSb=1, percent="100.1"))


@pytest.mark.parametrize("value", [*BLANK, None, "missing"])
def test_a_charge_or_a_generating_device_without_a_number_is_absent_and_the_rest_is_kept(
    value: str | None,
) -> None:
    body = json.loads(flow_json(connSb=1, percent=64, charge=1, g_d_2_title="燃料電池"))
    body |= dict.fromkeys(("percent", "charge", "g_d_2_capacity"), value)
    if value == "missing":
        del body["percent"], body["charge"], body["g_d_2_capacity"]
    flow = pages.flow_from_json(json.dumps(body).encode())
    assert flow.battery == Battery(None, None)
    assert [device.power_w for device in flow.generators] == [2130, None]
    assert flow.consumption_kw is not None


@pytest.mark.parametrize("key", ["g_capacity", "u_capacity", "g_d_1_title"])
def test_a_missing_null_or_other_value_of_the_json_is_refused_by_its_key(key: str) -> None:
    for body in (
        flow_json(**{key: None}),
        flow_json(**{key: "QQ"}).replace(b'"QQ"', b"null"),
        flow_json(**{key: ["太陽光発電"]}),
    ):
        with pytest.raises(Unreadable, match=f"`{key}`"):
            pages.flow_from_json(body)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html></html>", b"\xff{}", b"{}{}"])
def test_a_body_that_is_not_a_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable, match="/data/electricflow/111/update"):
        pages.flow_from_json(body)


def test_a_negative_zero_has_no_sign() -> None:
    body = flow_json(g_capacity=-0.0, g_d_1_capacity=-0.0, connSb=1, percent=-0.0)
    assert b"-0.0" in body
    assert_valid(pages.flow_from_json(body))


def test_without_a_measuring_unit_there_is_no_data() -> None:
    for value in (0, "0"):
        with pytest.raises(NoData, match="measReg"):
            pages.flow_from_json(flow_json(measReg=value))
    assert pages.flow_from_json(flow_json(measReg=None)).generation_kw == 2.1


@pytest.mark.parametrize(
    ("values", "battery"),
    [
        ({"percent": 64, "charge": 0}, Battery(64, BatteryState.CHARGING)),
        ({"percent": "100", "charge": "1"}, Battery(100, BatteryState.DISCHARGING)),
        ({"percent": 0, "charge": 7}, Battery(0, BatteryState.IDLE)),
        ({"percent": "-", "charge": "-"}, Battery(None, None)),
        ({"connSb": "0", "percent": "64"}, None),
        ({"connSb": "-", "percent": "64"}, None),
        ({"connSb": None, "percent": "64"}, None),
    ],
)
def test_the_battery_has_the_charge_and_state_that_the_device_reports(
    values: dict[str, object], battery: Battery | None
) -> None:
    assert pages.flow_from_json(flow_json(**{"connSb": 1} | values)).battery == battery


@pytest.mark.parametrize(
    "state", ["１", "٣", "1_0", " 1", "+1", "1.0", "", "9" * 5000, 1e300, 2**70, 100, -1, 0.5, [1], {}, None, float("nan")]
)  # fmt: skip
def test_a_state_that_is_not_a_small_number_is_unknown(state: object) -> None:
    flow = pages.flow_from_json(flow_json(lo_buy_sell=state, connSb=1, charge=state))
    assert (flow.exchange, flow.battery) == (None, Battery(None, None))
    for buying in (0, "0", 0.0):
        assert pages.flow_from_json(flow_json(lo_buy_sell=buying)).exchange is Exchange.BUYING


@pytest.mark.parametrize(
    ("value", "number"), [("2.1", 2.1), (" 2.1 ", 2.1), (2, 2), (0, 0), ("0.0", 0), ("-", None)]
)
def test_numbers_come_as_text_or_number_and_a_dash_is_absent(value: object, number: float | None) -> None:
    flow = pages.flow_from_json(flow_json(g_capacity=value, u_capacity=value, g_d_1_capacity=value))
    assert flow.generation_kw == flow.consumption_kw == flow.generators[0].power_w == number


def test_a_generating_device_is_one_with_a_title_and_the_third_may_be_missing() -> None:
    assert pages.flow_from_json(flow_json()).generators == (GeneratingDevice("太陽光発電", 2130),)
    assert pages.flow_from_json(flow_json(g_d_1_title="", g_d_2_title="　 ")).generators == ()
    three = flow_json(g_d_2_title="燃料電池", g_d_3_title="太陽光発電", g_d_3_capacity=5)
    assert pages.flow_from_json(three).generators == (
        GeneratingDevice("太陽光発電", 2130),
        GeneratingDevice("燃料電池", None),
        GeneratingDevice("太陽光発電", 5),
    )


# The power flow as HTML


def test_the_html_shows_the_same_totals_and_devices() -> None:
    third = b"</div><div id=g_d_3_title>PV3</div><div id=g_d_3_capacity>77W</div></body>"
    flow = pages.flow_from_html(flow_html().replace(b"&nbsp;</div></body>", third))
    assert flow == PowerFlow(2.1, 1.2, (GeneratingDevice("太陽光発電", 2130), GeneratingDevice("PV3", 77)))
    assert pages.flow_from_html(flow_html("2.1kW", "-")).consumption_kw is None
    assert pages.flow_from_html(flow_html("-kW", " 1.2 kW ")) == pages.flow_from_html(flow_html("-", "1.2"))
    assert pages.flow_from_html(flow_html(title="&nbsp;")).generators == ()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        *((flow_html().replace(f'"{name}"'.encode(), b'"x"'), f"no `#{name}`") for name in ("g_capacity", "u_capacity", "g_d_1_title")),
        *((flow_html(value), "no number in `#g_capacity`") for value in ("&nbsp;", "-1", "2.1<b>.</b>1", "2W")),
        (flow_html("2.1", ""), "no number in `#u_capacity`"),
        *((flow_html().replace(b"2130W", text), "`#g_d_1_capacity`") for text in (b"", b"2130", b"2130 kW", b"1e3W")),
    ],
)  # fmt: skip
def test_a_missing_or_invalid_element_of_the_html_is_refused_by_its_id(body: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=rf"/page/electricflow/111 has .*{words}"):
        pages.flow_from_html(body)


@pytest.mark.parametrize("watts", ["-", "-W", "-&nbsp;", "- W"])
def test_a_generating_device_that_shows_a_dash_has_no_reading(watts: str) -> None:
    flow = pages.flow_from_html(flow_html().replace(b"2130W", watts.encode()))
    assert flow.generators == (GeneratingDevice("太陽光発電", None),)


# The circuits


def rows_of(*shown: tuple[str, str]) -> tuple[CircuitPower, ...]:
    return first_page(circuit_page(shown)).rows


def test_a_blank_is_0_w_and_a_dash_is_absent() -> None:
    page = first_page(circuit_page(ROWS))
    assert page.rows == (
        CircuitPower("ＬＤ", 1224),
        CircuitPower("洋室１エアコン", 80),
        CircuitPower("R&D", None),
        CircuitPower("ＩＨ", 0),
    )
    assert page.has_blank
    assert not first_page(circuit_page([("ＬＤ", " 0W"), ("ＩＨ", "-")])).has_blank
    assert first_page(circuit_page([("ＬＤ", " 9W"), ("ＩＨ", " &nbsp;")])).has_blank


@pytest.mark.parametrize("watts", ["224", "W", " xW", "２W", "1,224W", "224W 1W"])
def test_a_circuit_whose_watts_cannot_be_read_is_refused_by_its_place(watts: str) -> None:
    with pytest.raises(Unreadable, match=r"/page/electricflow/1113 .*`#stage_2 \.c_value`"):
        rows_of(("ＬＤ", " 224W"), ("ＩＨ", watts))


@pytest.mark.parametrize("css_class", ["c_value", "c_device"])
def test_a_circuit_without_name_or_value_is_refused_by_its_place(css_class: str) -> None:
    start, _, end = circuit_page([("ＬＤ", " 224W"), ("ＩＨ", "")]).rpartition(f'"{css_class}"'.encode())
    with pytest.raises(Unreadable, match=rf"1113\?id=1 has no `#stage_2 \.{css_class}`"):
        first_page(start + b'"other"' + end)


@pytest.mark.parametrize(
    ("links", "page", "is_last"),
    [
        ([], 1, True),
        (["/page/electricflow/1113?id=1&track=", "/page/electricflow/1113?id=2&track="], 3, True),
        (["/page/electricflow/1113?id=3&track="], 3, True),
        (["/page/electricflow/1113?id=4&track="], 3, False),
        (["/page/electricflow/1113?track=&amp;id=4"], 3, False),
        (["/page/electricflow/1113?id=10"], 9, False),
        (["/page/electricflow/1111?id=9", "/page/graph/52111?id=9", "/page/electricflow/1113?track="], 1, True),
    ],
)
def test_a_page_is_the_last_where_no_link_names_a_later_one(links: list[str], page: int, is_last: bool) -> None:  # noqa: FBT001 - pytest passes parameters by name
    tabs = "".join(f'<a href="{link}"></a><div href={link}></div>' for link in links)
    body = circuit_page(ROWS).replace(b'<div id="m_capacity">', tabs.encode() + b'<div id="m_capacity">')
    assert pages.circuit_page(body, page).is_last is is_last


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("キッチン　パ<br />ントリー", "キッチン　パントリー"),
        ("\n\t洋室１<br/>エアコン<BR>\r\n", "洋室１エアコン"),
        ("ＬＤＫ・エアコン<br />", "ＬＤＫ・エアコン"),
        ("　階段&nbsp;", "階段"),
        ("-<br />", "-"),
        ("R&D &lt;b&gt; &amp;", "R&D <b> &"),
        ("a\0b\x01c\x1fd\x7fe\x85f", "a b c d e f"),
        ("<script>alert(1)</script>", "alert(1)"),
    ],
)
def test_a_name_of_the_page_is_joined_and_cleaned(shown: str, name: str) -> None:
    assert rows_of((shown, " 5W"), ("ＩＨ", " 4W")) == (CircuitPower(name, 5), CircuitPower("ＩＨ", 4))


def test_a_page_has_one_to_ten_circuits() -> None:
    assert len(rows_of(*((f"回路{n}", f" {99 - n}W") for n in range(12)))) == 10
    with pytest.raises(Unreadable, match=r"1113\?id=3 has no `#stage_1`"):
        pages.circuit_page(circuit_page([]), 3)


# The circuit list


def test_the_list_has_the_registered_circuits_under_their_ids() -> None:
    listed = pages.circuit_list(circuit_list(["ＬＤ", "-", "洋室１・エアコン", "ＬＤ"], first_id=30))
    names = ["ＬＤ", "-", "洋室１・エアコン", "ＬＤ"]
    assert listed == CircuitList(tuple(Circuit(str(n), name) for n, name in enumerate(names, 30)), NOW)
    assert pages.circuit_list(circuit_list([])).circuits == ()


@pytest.mark.parametrize("key", ["strId", "strCircuit", "strBtnType"])
def test_an_entry_that_cannot_be_read_is_refused_by_its_key(key: str) -> None:
    entry = {"strId": "8", "strCircuit": "ＬＤ", "strBtnType": "1"}
    for changed in (*(entry | {key: value} for value in (None, 1)), {name: "1" for name in entry if name != key}):
        body = f"window.onload = init({json.dumps({'arrayCircuitNameList': [changed]})});".encode()
        with pytest.raises(Unreadable, match=rf"/page/setting/installation/734 has no text in `.*{key}`"):
            pages.circuit_list(body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "window.onload"),
        (b"window.onload = init(", "JSON"),
        (b"window.onload = init([])", "arrayCircuitNameList"),
        (b'window.onload = init({"arrayCircuitNameList": {}})', "arrayCircuitNameList"),
        (b'window.onload = init({"arrayCircuitNameList": [1]})', "arrayCircuitNameList"),
        (b"\xffwindow.onload = init({})", "UTF-8"),
        (circuit_list(["a", "b"]).replace(b'"strId": "9"', b'"strId": "8"'), "strId"),
    ],
)
def test_a_page_without_the_list_is_refused_by_what_is_missing(body: bytes, named: str) -> None:
    with pytest.raises(Unreadable, match=f"/page/setting/installation/734.*{named}"):
        pages.circuit_list(body)


# The device's clock


def test_the_clock_is_japan_s() -> None:
    assert pages.device_time(circuit_page(ROWS)) == NOW
    assert pages.device_time(circuit_page(ROWS, clock=SERVER_TIME.replace('"26"', '"2026"'))) == NOW
    assert pages.device_time(b"<html></html>") is None


NO_CLOCKS = ["", "{}", "null", "7", "{", "[" * 200, SERVER_TIME + "x", SERVER_TIME + " " * 300] + [
    SERVER_TIME.replace(*changed)
    for changed in (('"7"', '"13"'), ('"14"', '""'), ('"14"', "null"), ('"14"', "1e400"), ('"26"', '"x"'), ('"sec"', '"other"'))
]  # fmt: skip


@pytest.mark.parametrize("text", NO_CLOCKS)
def test_a_clock_that_cannot_be_read_is_unknown_and_costs_no_reading(text: str) -> None:
    page = first_page(circuit_page(ROWS, clock=text))
    assert page.device_time is None
    assert page.rows[0].power_w == 1224


def test_a_token_has_no_control_character() -> None:
    assert pages.export_token(b'NAME="csrftoken" VALUE="12\x0234"') == "12"
    with pytest.raises(Unreadable, match="csrftoken"):
        pages.export_token(b'NAME="csrftoken" VALUE="\x02"')
