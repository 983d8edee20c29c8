"""The pages: every answer is read whole, or refused with a sentence that names what is missing."""

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2 import pages
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import (
    Battery,
    BatteryState,
    Circuit,
    CircuitList,
    CircuitPage,
    CircuitPower,
    Consumer,
    Exchange,
    GeneratingDevice,
    LiveReading,
    PowerFlow,
)
from aiseg2_pipeline.frames.readings import BATTERY_STATE, TOTAL_EXCHANGE, live_frame
from aiseg2_pipeline_tests.support.device import (
    CAPTURES,
    SERVER_TIME,
    circuit_list,
    circuit_page,
    flow_html,
    flow_json,
)

NOW = datetime(2026, 7, 13, 23, 15, 53, tzinfo=UTC)
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason="the captures of a real unit are not here")


def first_page(body: bytes) -> CircuitPage:
    return pages.circuit_page(body, 1)


Parse = Callable[[bytes], Any]
ROWS = [("ＬＤ<br />", " 1224W"), ("洋室１<br />エアコン", " 80W"), ("R&D", "-"), ("ＩＨ<br />", "")]
THREE_GENERATORS = flow_html().replace(
    b"&nbsp;</div></body>", b"</div><div id=g_d_3_title>PV3</div><div id=g_d_3_capacity>77W</div></body>"
)
# One whole page of each kind, with its parser.
WHOLE: dict[str, tuple[Parse, bytes]] = {
    "flow json": (pages.flow_from_json, flow_json(connSb=1, percent="100", g_d_2_title="PV2", g_d_2_capacity=99)),
    "flow html": (pages.flow_from_html, THREE_GENERATORS.replace(b"&nbsp;", b"PV2").replace(b">-<", b">99W<")),
    "flow HTML": (pages.flow_from_html, flow_html().replace(b"html>", b"HTML>").replace(b"<html", b"<HTML")),
    "circuit page": (first_page, circuit_page(ROWS, 1, 4)),
    "circuit list": (pages.circuit_list, circuit_list(["ＬＤ", "洋室１・エアコン", "R&D"])),
}
CAPTURED: dict[str, Parse] = {
    "electricflow_111.json": pages.flow_from_json,
    "electricflow_1113_id1.html": first_page,
    "electricflow_1113_id4.html": lambda body: pages.circuit_page(body, 4),
    "electricflow_1113_id5.html": lambda body: pages.circuit_page(body, 5),
    "installation_734.html": pages.circuit_list,
}
every_whole_page = pytest.mark.parametrize(("parse", "body"), list(WHOLE.values()), ids=list(WHOLE))
every_capture = pytest.mark.parametrize("name", list(CAPTURED))


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
        ev_connected=False,
        fuel_cell_connected=False,
        fuel_cell_state=0,
        largest_consumers=(Consumer("ＬＤＫ・エアコン", 825), Consumer("洋室３", 70), Consumer("ＬＤ", 62)),
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
@every_capture
@pytest.mark.parametrize("parse", [pages.flow_from_json, pages.flow_from_html, first_page, pages.circuit_list])
def test_no_captured_page_is_taken_for_another(name: str, parse: Parse) -> None:
    own = {
        "electricflow_1113": first_page,
        "electricflow_111.": pages.flow_from_json,
        "installatio": pages.circuit_list,
    }
    if any(name.startswith(start) and parse is right for start, right in own.items()):
        return
    with pytest.raises(Unreadable):
        parse((CAPTURES / name).read_bytes())


@needs_captures
def test_the_captured_export_page_has_its_token() -> None:
    body = (CAPTURES / "exectop2.html").read_bytes()
    assert pages.export_token(body)
    with pytest.raises(Unreadable, match="csrftoken"):
        pages.export_token(body.replace(b"csrftoken", b"another"))


# A page that was cut


def assert_cut_anywhere_it_is_the_same_or_refused(parse: Parse, body: bytes) -> None:
    whole = parse(body)
    for length in range(len(body)):
        try:
            part = parse(body[:length])
        except Unreadable:
            continue
        assert part == whole, f"cut after {length} bytes"


@every_whole_page
def test_a_page_cut_at_any_byte_is_refused_or_reads_the_same(parse: Parse, body: bytes) -> None:
    assert_cut_anywhere_it_is_the_same_or_refused(parse, body)


@pytest.mark.parametrize("parse", [pages.flow_from_html, first_page])
def test_a_part_of_a_page_without_its_end_is_refused(parse: Parse) -> None:
    body = (THREE_GENERATORS if parse is pages.flow_from_html else circuit_page(ROWS)).partition(
        b"<body class=pc>"
    )[2]
    for length in range(len(body) - len(b"</html>") + 1):
        with pytest.raises(Unreadable):
            parse(body[:length])


@needs_captures
@every_capture
def test_a_captured_page_cut_at_any_byte_is_refused_or_reads_the_same(name: str) -> None:
    assert_cut_anywhere_it_is_the_same_or_refused(CAPTURED[name], (CAPTURES / name).read_bytes())


# The power flow as JSON

NOT_A_NUMBER = [
    "",
    " ",
    "abc",
    "1,2",
    "1e3",
    "+1",
    "１２",
    "-1",
    -1,
    -0.1,
    "NaN",
    float("nan"),
    float("inf"),
    True,
]
NOT_A_NUMBER += [[], {}, [1], "--", "1.", ".5", "1234567890", 10**9, 1e300, 10**400]


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, "2130W", "2.1kW"], ids=repr)
@pytest.mark.parametrize("key", ["g_capacity", "u_capacity", "g_d_1_capacity", "percent"])
def test_what_is_no_number_in_the_json_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(Unreadable, match=rf"/data/electricflow/111/update has no number in `{key}`"):
        pages.flow_from_json(flow_json(**{"connSb": 1, key: value}))


@pytest.mark.parametrize("key", ["g_capacity", "u_capacity", "g_d_1_title", "g_d_1_capacity"])
def test_what_is_missing_or_null_in_the_json_is_refused_by_its_key(key: str) -> None:
    for body in (flow_json(**{key: None}), flow_json(**{key: "QQ"}).replace(b'"QQ"', b"null")):
        with pytest.raises(Unreadable, match=f"`{key}`"):
            pages.flow_from_json(body)


@pytest.mark.parametrize("key", ["g_d_1_title", "g_d_2_title", "g_d_3_title"])
@pytest.mark.parametrize("value", [5, True, ["太陽光発電"], {}], ids=repr)
def test_a_title_that_is_no_text_is_refused_by_its_key(key: str, value: object) -> None:
    with pytest.raises(Unreadable, match=f"`{key}`"):
        pages.flow_from_json(flow_json(**{key: value}))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b'"g_capacity"', b"null", b"<html></html>", b"\xff{}", b"{}{}"]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable, match="/data/electricflow/111/update"):
        pages.flow_from_json(body)


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


@pytest.mark.parametrize("value", [0, "0"])
def test_without_a_measuring_unit_there_is_no_data(value: object) -> None:
    with pytest.raises(NoData, match="measReg"):
        pages.flow_from_json(flow_json(measReg=value))


def test_a_page_that_does_not_tell_of_the_measuring_unit_is_read() -> None:
    assert pages.flow_from_json(flow_json(measReg=None)).generation_kw == 2.1


@pytest.mark.parametrize(
    ("charge", "state"),
    [
        (0, BatteryState.CHARGING),
        ("1", BatteryState.DISCHARGING),
        (2, BatteryState.IDLE),
        (7, BatteryState.IDLE),
        ("-", None),
        (None, None),
    ],
)
def test_the_battery_tells_its_charge_and_state(charge: object, state: BatteryState | None) -> None:
    assert pages.flow_from_json(flow_json(connSb=1, percent=64, charge=charge)).battery == Battery(64, state)


def test_a_battery_is_there_where_the_device_says_so() -> None:
    assert pages.flow_from_json(flow_json(connSb=1, percent="-")).battery == Battery(None, BatteryState.IDLE)
    for absent in (0, "0", "-", None):
        assert pages.flow_from_json(flow_json(connSb=absent, percent="64", charge=0)).battery is None


@pytest.mark.parametrize("percent", [0, 100, "100"])
def test_a_battery_may_be_empty_or_full(percent: object) -> None:
    battery = pages.flow_from_json(flow_json(connSb=1, percent=percent)).battery
    assert battery is not None
    assert battery.charge_percent == float(str(percent))


@pytest.mark.parametrize("percent", [101, "100.1", 255])
def test_a_battery_over_100_percent_is_refused(percent: object) -> None:
    with pytest.raises(Unreadable, match="`percent`"):
        pages.flow_from_json(flow_json(connSb=1, percent=percent))


def test_the_rest_of_the_flow_describes_and_what_is_not_understood_of_it_is_unknown() -> None:
    told = pages.flow_from_json(flow_json(lo_buy_sell="0", connEv="1", connFc=1, fc={"fcState": 3}))
    assert (told.exchange, told.ev_connected, told.fuel_cell_connected, told.fuel_cell_state) == (
        Exchange.BUYING,
        True,
        True,
        3,
    )
    unknowns: list[Any] = ["x", [], {}, None, 99999, float("nan"), float("inf")]
    for unknown in unknowns:
        flow = pages.flow_from_json(flow_json(lo_buy_sell=unknown, connEv=None, connFc="-", fc=unknown))
        assert (flow.exchange, flow.ev_connected, flow.fuel_cell_connected, flow.fuel_cell_state) == (None,) * 4


def test_the_largest_consumers_are_those_the_page_shows() -> None:
    flow = flow_json(
        best1=1, u_d_1_title="ＬＤ", u_d_1_capacity="-", best2=0, u_d_2_title="ＩＨ", u_d_2_capacity=3
    )
    assert pages.flow_from_json(flow).largest_consumers == (Consumer("ＬＤ", None),)
    # They are shown beside the reading, which does not need them.
    assert pages.flow_from_json(flow.replace(b'"-", "best2"', b'"", "best2"')).largest_consumers[0].power_w is None
    with pytest.raises(Unreadable, match="u_d_1_capacity"):
        pages.flow_from_json(flow.replace(b'"-", "best2"', b'"abc", "best2"'))


# The power flow as HTML


def test_the_html_shows_the_same_totals_and_devices() -> None:
    flow = pages.flow_from_html(THREE_GENERATORS)
    assert flow == PowerFlow(2.1, 1.2, (GeneratingDevice("太陽光発電", 2130), GeneratingDevice("PV3", 77)))
    assert pages.flow_from_html(flow_html("2.1kW", "-")).consumption_kw is None
    assert pages.flow_from_html(flow_html("-kW", " 1.2 kW ")) == pages.flow_from_html(flow_html("-", "1.2"))
    assert pages.flow_from_html(flow_html(title="&nbsp;")).generators == ()


@pytest.mark.parametrize("element", ["g_capacity", "u_capacity", "g_d_1_title"])
def test_an_element_missing_from_the_html_is_refused_by_its_id(element: str) -> None:
    body = flow_html().replace(f'"{element}"'.encode(), b'"other"')
    with pytest.raises(Unreadable, match=f"/page/electricflow/111 has no `#{element}`"):
        pages.flow_from_html(body)


@pytest.mark.parametrize(
    "value", ["", "&nbsp;", "abc", "-1", "NaN", "inf", "True", "1,2", "2.1<b>.</b>1", "１", "2W"]
)
def test_what_is_no_number_in_the_html_is_refused_by_its_id(value: str) -> None:
    with pytest.raises(Unreadable, match=r"has no number in `#g_capacity`"):
        pages.flow_from_html(flow_html(generation=value))
    with pytest.raises(Unreadable, match=r"has no number in `#u_capacity`"):
        pages.flow_from_html(flow_html(consumption=value))


@pytest.mark.parametrize("watts", ["", "&nbsp;", "2130", "2130 kW", "W", "NaNW", "1e3W", "2130W 1W"])
def test_a_generating_device_without_watts_in_the_html_is_refused_by_its_id(watts: str) -> None:
    with pytest.raises(Unreadable, match=r"`#g_d_1_capacity`"):
        pages.flow_from_html(flow_html().replace(b"2130W", watts.encode()))
    with pytest.raises(Unreadable, match=r"`#g_d_1_capacity`"):
        pages.flow_from_html(flow_html().replace(b'"g_d_1_capacity"', b'"other"'))


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


@pytest.mark.parametrize("watts", ["224", "W", " xW", "1e3W", "NaNW", "２W", "1,224W", "224kW", "224W 1W"])
def test_a_circuit_whose_watts_cannot_be_read_is_refused_by_its_place(watts: str) -> None:
    with pytest.raises(Unreadable, match=r"/page/electricflow/1113 .*`#stage_2 \.c_value`"):
        rows_of(("ＬＤ", " 224W"), ("ＩＨ", watts))


@pytest.mark.parametrize("css_class", ["c_value", "c_device"])
def test_a_circuit_without_name_or_value_is_refused_by_its_place(css_class: str) -> None:
    body = circuit_page([("ＬＤ", " 224W"), ("ＩＨ", "")])
    kept, found, broken = body.rpartition(f'"{css_class}"'.encode())
    with pytest.raises(Unreadable, match=rf"1113\?id=1 has no `#stage_2 \.{css_class}`"):
        first_page(kept + found.replace(b"c_", b"d_") + broken)


def test_a_page_without_circuits_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"1113\?id=3 has no `#stage_1`"):
        pages.circuit_page(circuit_page([]), 3)


def test_ten_circuits_are_a_page() -> None:
    assert len(rows_of(*((f"回路{n}", f" {99 - n}W") for n in range(12)))) == 10


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
        ("-<br />", "-"),
        ("R&D & Co", "R&D & Co"),
        ("&lt;b&gt; &amp;", "<b> &"),
        ("<b>太字</b>", "太字"),
        ("a,b=c d", "a,b=c d"),
        ("絵文字🔌", "絵文字🔌"),
        ("a\0b\x01c\x1fd\x7fe\x85f", "a b c d e f"),
        ("a\u2028b\ufffd", "a\u2028b\ufffd"),
        ("<script>alert(1)</script>", "alert(1)"),
    ],
)
def test_a_name_of_the_page_is_joined_and_cleaned(shown: str, name: str) -> None:
    assert rows_of((shown, " 5W"), ("ＩＨ", " 4W")) == (CircuitPower(name, 5), CircuitPower("ＩＨ", 4))


# The circuit list


def test_the_list_has_the_registered_circuits_under_their_ids() -> None:
    listed = pages.circuit_list(circuit_list(["ＬＤ", "-", "洋室１・エアコン", "ＬＤ"], first_id=30))
    names = ["ＬＤ", "-", "洋室１・エアコン", "ＬＤ"]
    assert listed == CircuitList(tuple(Circuit(str(n), name) for n, name in enumerate(names, 30)), NOW)
    assert pages.circuit_list(circuit_list([])).circuits == ()


@pytest.mark.parametrize("key", ["strId", "strCircuit", "strBtnType"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}], ids=repr)
def test_an_entry_that_cannot_be_read_is_refused_by_its_key(key: str, value: object) -> None:
    entry = {"strId": "8", "strCircuit": "ＬＤ", "strBtnType": "1"} | {key: value}
    for told in (entry, {name: text for name, text in entry.items() if name != key}):
        body = f"window.onload = init({json.dumps({'arrayCircuitNameList': [told]})});".encode()
        with pytest.raises(Unreadable, match=rf"/page/setting/installation/734 has no text in `.*{key}`"):
            pages.circuit_list(body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "window.onload"),
        (b"<html><body>login</body></html>", "window.onload"),
        (b"window.onload = init(", "JSON"),
        (b"window.onload = init(x)", "JSON"),
        (b"window.onload = init([])", "arrayCircuitNameList"),
        (b"window.onload = init({})", "arrayCircuitNameList"),
        (b'window.onload = init({"arrayCircuitNameList": {}})', "arrayCircuitNameList"),
        (b'window.onload = init({"arrayCircuitNameList": [1]})', "arrayCircuitNameList"),
        (b"\xffwindow.onload = init({})", "UTF-8"),
        (circuit_list(["a", "b"]).replace(b'"strId": "9"', b'"strId": "8"'), "strId"),
    ],
)
def test_a_page_without_the_list_is_refused_by_what_is_missing(body: bytes, named: str) -> None:
    with pytest.raises(Unreadable, match=f"/page/setting/installation/734.*{named}"):
        pages.circuit_list(body)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (r"a\ud800b", "a\ufffdb"),
        (r"\udc00", "\ufffd"),
        (r"\ud83d\udd0c", "🔌"),
        (r"a\u0000b\u001f\u0085", "a b  "),
        (r"\"\\\/<br>", '"\\/<br>'),
        ("洋室１・エアコン", "洋室１・エアコン"),
    ],
)
def test_a_name_of_the_json_can_be_stored(told: str, name: str) -> None:
    listed = pages.circuit_list(circuit_list(["QQ"]).replace(b"QQ", told.encode()))
    assert listed.circuits == (Circuit("8", name),)
    flow = pages.flow_from_json(flow_json(g_d_1_title="QQ").replace(b"QQ", b"x" + told.encode() + b"x"))
    assert flow.generators[0].name == f"x{name}x"
    flow = pages.flow_from_json(
        flow_json(best1=1, u_d_1_title="QQ", u_d_1_capacity=5).replace(b"QQ", told.encode())
    )
    assert flow.largest_consumers == (Consumer(name, 5),)
    listed = pages.circuit_list(
        circuit_list(["ＬＤ"]).replace(b'"strId": "8"', b'"strId": "' + told.encode() + b'"')
    )
    assert listed.circuits == (Circuit(name, "ＬＤ"),)
    name.encode()


# The device's clock


def test_the_clock_is_japan_s() -> None:
    assert pages.device_time(circuit_page(ROWS)) == NOW
    assert pages.device_time(circuit_page(ROWS, clock=SERVER_TIME.replace('"26"', '"2026"'))) == NOW
    assert pages.device_time(b"<html></html>") is None


@pytest.mark.parametrize(
    "told",
    [
        "",
        "{}",
        "null",
        "[]",
        "7",
        "{",
        "[" * 200,
        SERVER_TIME.replace('"7"', '"13"'),
        SERVER_TIME.replace('"14"', '""'),
        SERVER_TIME.replace('"14"', '"-"'),
        SERVER_TIME.replace('"14"', "null"),
        SERVER_TIME.replace('"14"', "1e400"),
        SERVER_TIME.replace('"26"', '"x"'),
        SERVER_TIME.replace('"sec"', '"other"'),
        SERVER_TIME + "x",
        SERVER_TIME + " " * 300,
    ],
)
def test_a_clock_that_cannot_be_read_is_unknown_and_costs_no_reading(told: str) -> None:
    page = first_page(circuit_page(ROWS, clock=told))
    assert page.device_time is None
    assert page.rows[0].power_w == 1224


# What no device sends


@pytest.mark.parametrize("parse", [pages.flow_from_html, first_page])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b">",
        b"</html>",
        b"<!----></html>",
        b"<?x?></html>",
        b"\xff\xfe</html>",
        b"<html><body></body></html>",
    ],
)
def test_an_unrelated_page_is_refused(parse: Parse, body: bytes) -> None:
    with pytest.raises(Unreadable, match="/page/electricflow/111"):
        parse(body)


def test_what_is_not_utf_8_is_refused() -> None:
    for broken in (b"\xff", b"\xe3\x81", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        with pytest.raises(Unreadable, match="UTF-8"):
            first_page(circuit_page([("QQ", " 5W")]).replace(b"QQ", broken))


@pytest.mark.parametrize("depth", [300, 3000, 30_000])
def test_html_that_is_nested_deeply_is_refused_and_not_read_in_part(depth: int) -> None:
    deep = b"<div>" * depth
    for parse, body, at in (
        (pages.flow_from_html, THREE_GENERATORS, b'<div id="g_d_2_title">'),
        (first_page, circuit_page(ROWS), b'<div id="stage_3"'),
    ):
        with pytest.raises(Unreadable, match="nested"):
            parse(body.replace(at, deep + at))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_json_that_is_nested_deeply_is_refused(opening: bytes) -> None:
    deep = opening * 40_000
    with pytest.raises(Unreadable, match="JSON"):
        pages.flow_from_json(deep)
    with pytest.raises(Unreadable, match="JSON"):
        pages.circuit_list(b"window.onload = init(" + deep)
    with pytest.raises(Unreadable):
        pages.flow_from_json(b'{"g_capacity":' + deep)


def test_entities_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("99W")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    doctype = f'<!DOCTYPE html [<!ENTITY l0 "1">{laughs}<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
    shown = circuit_page([("&l9;&x;", " 5W")]).replace(b"<!DOCTYPE html>", doctype.encode())
    assert first_page(shown).rows == (CircuitPower("&l9;&x;", 5),)
    for value in ("&l0;", "&x;", "&l9;"):
        with pytest.raises(Unreadable, match="g_capacity"):
            pages.flow_from_html(doctype.encode() + flow_html(generation=value))


MEBIBYTES = 7 * 2**20
ATTRIBUTES = "".join(f"a{n} " for n in range(900_000)).encode()
LARGE = {
    "spaces": b" ",
    "elements": b"<b></b>",
    "unclosed": b"<p>",
    "comments": b"<!--",
    "links": b"/page/electricflow/1113?",
    "clocks": b"serverTime = '",
    "calls": b"window.onload = init(",
    "tokens": b"NAME=csrftoken",
    "members": b'"a":"b",',
}


@pytest.mark.parametrize("chunk", list(LARGE.values()), ids=list(LARGE))
def test_a_page_of_seven_mebibytes_is_refused_or_read_in_time(chunk: bytes) -> None:
    large = chunk * (MEBIBYTES // len(chunk))
    started = time.monotonic()
    for parse, body in [*WHOLE.values(), (pages.export_token, b"<form>")]:
        for spoiled in (large, large + body, body + large, body.replace(b"{", b"{" + large, 1)):
            with contextlib.suppress(Aiseg2Error):
                assert_sane(parse(spoiled))
    assert time.monotonic() - started < 60


def test_html_that_would_keep_the_parser_busy_is_refused() -> None:
    started = time.monotonic()
    with pytest.raises(Unreadable, match="longer than"):
        pages.flow_from_html(flow_html().replace(b"<html", b"<html " + ATTRIBUTES))
    links = b"/page/electricflow/1113?" * 10_000
    assert first_page(circuit_page(ROWS).replace(b"<head", b'<a href="' + links + b'"></a><head')).is_last
    assert time.monotonic() - started < 60


def assert_sane(result: Any) -> None:
    """Assert that a result can go on: to a frame, to the store's UTF-8."""
    flow = PowerFlow(None, None, ())
    circuits: tuple[CircuitPower, ...] | None = None
    match result:
        case PowerFlow():
            flow = result
        case CircuitPage():
            circuits = result.rows
            assert 1 <= len(circuits) <= 10
        case CircuitList():
            "".join(circuit.circuit_id + circuit.name for circuit in result.circuits).encode()
        case str() | datetime() | None:
            return
        case _:
            pytest.fail(f"no parser returns {type(result)}")
    told = live_frame(LiveReading(NOW, flow, circuits, None, None, None, 0, 0.0))
    assert (told.loc[~told["name"].isin([TOTAL_EXCHANGE, BATTERY_STATE]), "value"] >= 0).all()
    "".join(told["name"]).encode()


PARSERS: list[Parse] = [*(parse for parse, _ in WHOLE.values()), pages.export_token, pages.device_time]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"</html>", b"<html></html>"]))
def test_arbitrary_bytes_give_a_result_or_an_error_of_ours(body: bytes, end: bytes) -> None:
    for parse in PARSERS:
        try:
            assert_sane(parse(body + end))
        except Aiseg2Error as error:
            assert_is_one_sentence(error)


@st.composite
def spoiled_pages(draw: st.DrawFn) -> tuple[Parse, bytes]:
    """Return a whole page after some flips, deletions and doublings."""
    parse, body = draw(st.sampled_from(list(WHOLE.values())))
    page = bytearray(body)
    for kind in draw(st.lists(st.sampled_from(["flip", "delete", "double", "insert"]), min_size=1, max_size=4)):
        start = draw(st.integers(0, len(page) - 1))
        end = start + draw(st.integers(1, 80))
        if kind == "flip":
            page[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "delete" and len(page) > end - start:
            del page[start:end]
        elif kind == "double":
            page[end:end] = page[start:end]
        else:
            page[start:start] = draw(
                st.sampled_from([b"\0", b"\xff", b"<", b'"', b"{", b"9", b"e", b"-", b"&#0;"])
            )
    return parse, bytes(page)


@settings(max_examples=1000, deadline=None)
@given(spoiled_pages())
def test_a_spoiled_page_gives_a_result_or_an_error_of_ours(spoiled: tuple[Parse, bytes]) -> None:
    parse, body = spoiled
    try:
        assert_sane(parse(body))
    except Aiseg2Error as error:
        assert_is_one_sentence(error)


def assert_is_one_sentence(error: Aiseg2Error) -> None:
    text = str(error)
    assert text.endswith(".")
    assert text.isprintable()
    assert len(text) < 300
