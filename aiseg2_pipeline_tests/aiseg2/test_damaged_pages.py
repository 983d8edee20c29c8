"""A truncated, damaged, oversized or unrelated page is refused, or read as the whole page: never as other numbers."""

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aiseg2_pipeline.aiseg2 import battery_flow, climate, graphs, pages
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import CircuitPower, Exchange
from aiseg2_pipeline_tests.support import device
from aiseg2_pipeline_tests.support.device import (
    CAPTURES,
    circuit_list,
    circuit_page,
    flow_html,
    flow_json,
    needs_captures,
)
from aiseg2_pipeline_tests.support.device_pages import HOURS, graph_page, rooms_page
from aiseg2_pipeline_tests.support.wire import raw_server

Parse = Callable[[bytes], Any]
MEBIBYTE = 2**20
DAY = date(2026, 7, 14)
FLAT = [0.1] * 24
ROWS = [("ＬＤ<br />", " 1224W"), ("洋室１<br />エアコン", " 80W"), ("R&D", "-"), ("ＩＨ<br />", "")]
GENERATORS = flow_html().replace(
    b"&nbsp;</div></body>", b"</div><div id=g_d_3_title>PV3</div><div id=g_d_3_capacity>77W</div></body>"
)
PARTS = graph_page(FLAT, f"{sum(HOURS) + 2.4:.3f}", val2=HOURS, val3=[], connectInfo={"gen": 1, "sto": 0})


def first_page(body: bytes) -> object:
    return pages.circuit_page(body, 1)


def rooms(body: bytes) -> object:
    return climate.climate_page(body, 1, climate.ClimateSource.PAGE_41).rooms


def consumption(body: bytes) -> object:
    return graphs.graph(body, "consumption", DAY)


# A whole page of each kind, with its parser.
WHOLE: dict[str, tuple[Parse, bytes]] = {
    "flow JSON": (
        pages.flow_from_json,
        flow_json(connSb=1, percent="100", g_d_2_title="PV2", g_d_2_capacity=99),
    ),
    "battery flow": (lambda body: battery_flow.battery_flow(body, Exchange.BUYING), device.battery_flow()),
    "flow HTML": (pages.flow_from_html, GENERATORS.replace(b"&nbsp;", b"PV2").replace(b">-<", b">99W<")),
    "flow in upper case": (pages.flow_from_html, flow_html().replace(b"html>", b"HTML>").replace(b"<html", b"<HTML")),
    "circuit page": (first_page, circuit_page(ROWS, 1, 4)),
    "circuit list": (pages.circuit_list, circuit_list(["ＬＤ", "洋室１・エアコン", "R&D"])),
    "graph": (consumption, PARTS),
    "circuit graph": (lambda body: graphs.circuit_graph(body, "30", DAY), PARTS),
    "climate": (rooms, rooms_page(("リビング", "235", "48"), ("寝室", "19.0", "60"), ("R&D", "___", "100"))),
}  # fmt: skip
CAPTURED: dict[str, Parse] = {
    "electricflow_111.json": pages.flow_from_json,
    "electricflow_1113_id1.html": first_page,
    "electricflow_1113_id4.html": lambda body: pages.circuit_page(body, 4),
    "installation_734.html": pages.circuit_list,
    "graph_51111.html": lambda body: graphs.graph(body, "generation", DAY),
    "graph_52111.html": consumption,
}


def assert_prefixes_are_the_same_or_refused(parse: Parse, body: bytes, step: int = 1) -> None:
    whole = parse(body)
    for length in {*range(0, len(body), step), *range(max(0, len(body) - 100), len(body))}:
        with contextlib.suppress(Unreadable):
            assert parse(body[:length]) == whole, f"truncated after {length} bytes"


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_page_is_refused_or_reads_the_same(kind: str) -> None:
    assert_prefixes_are_the_same_or_refused(*WHOLE[kind])


@needs_captures
@pytest.mark.parametrize("name", CAPTURED)
def test_a_truncated_capture_is_refused_or_reads_the_same(name: str) -> None:
    assert_prefixes_are_the_same_or_refused(CAPTURED[name], (CAPTURES / name).read_bytes(), 97)


@needs_captures
@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("parse", [pages.flow_from_json, pages.flow_from_html, first_page, pages.circuit_list])
def test_no_captured_page_is_read_as_another(name: str, parse: Parse) -> None:
    own = {
        "electricflow_1113": first_page,
        "electricflow_111.": pages.flow_from_json,
        "install": pages.circuit_list,
    }
    if any(name.startswith(start) and parse is right for start, right in own.items()):
        return
    with pytest.raises(Unreadable):
        parse((CAPTURES / name).read_bytes())


def test_a_changed_digit_of_an_hour_or_the_total_is_detected_beyond_rounding() -> None:
    body = graph_page(FLAT)
    whole = graphs.graph(body, "generation", DAY)
    for at in range(body.index(b"val_kwh"), body.index(b"total2")):
        for digit in b"0123456789" if body[at : at + 1].isdigit() else b"":
            with contextlib.suppress(Unreadable):
                graph = graphs.graph(bytes([*body[:at], digit, *body[at + 1 :]]), "generation", DAY)
                assert all(abs((wh or 0) - 100) <= 12 for wh in graph.hours_wh or ())
                assert graph.total == whole.total


# Pages that no device sends


@pytest.mark.parametrize("body", [b"", b">", b"<!----></html>", b"<?x?></html>", b"\xff\xfe</html>"])
def test_an_unrelated_page_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable, match="/page/electricflow/111"):
        pages.flow_from_html(body)


@pytest.mark.parametrize("broken", [b"\xff", b"\xe3\x81", b"\xed\xa0\x80"])
def test_a_page_that_is_not_utf_8_is_refused(broken: bytes) -> None:
    with pytest.raises(Unreadable, match="UTF-8"):
        first_page(circuit_page([("QQ", " 5W")]).replace(b"QQ", broken))


@pytest.mark.parametrize("depth", [300, 30_000])
def test_html_that_is_nested_too_deeply_is_refused_and_not_read_in_part(depth: int) -> None:
    for parse, body, at in (
        (pages.flow_from_html, GENERATORS, b'<div id="g_d_2_title">'),
        (first_page, circuit_page(ROWS), b'<div id="stage_3"'),
    ):
        with pytest.raises(Unreadable, match="nested"):
            parse(body.replace(at, b"<div>" * depth + at))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_json_that_is_nested_too_deeply_is_refused(opening: bytes) -> None:
    for parse, start in ((pages.flow_from_json, b""), (pages.circuit_list, b"window.onload = init(")):
        with pytest.raises(Unreadable, match="JSON"):
            parse(start + opening * 40_000)


def test_entities_and_external_references_are_not_resolved(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("99W")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    with raw_server() as server:
        entities = "".join(
            f'<!ENTITY x{n} SYSTEM "{url}"><!ENTITY % y{n} SYSTEM "{url}">%y{n};'
            for n, url in enumerate((secret.as_uri(), f"{server.url}/x.dtd"))
        )
        doctype = f'<!DOCTYPE html PUBLIC "-//W3C" "{server.url}/y.dtd" [<!ENTITY l0 "1">{laughs}{entities}]>'
        included = f"""<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{secret.as_uri()}" parse="text"/>
            <base href="{server.url}"><link rel="stylesheet" href="z.css"><iframe src="{server.url}"></iframe>"""
        shown = circuit_page([("&l9;&x0;&x1;", " 5W")]).replace(b"<!DOCTYPE html>", doctype.encode())
        shown = shown.replace(b"</body>", included.encode() + b"</body>")
        assert pages.circuit_page(shown, 1).rows == (CircuitPower("&l9;&x0;&x1;", 5),)
        for value in ("&l0;", "&x0;", "&x1;", "&l9;"):
            with pytest.raises(Unreadable, match="g_capacity"):
                pages.flow_from_html(doctype.encode() + flow_html(generation=value))
        assert server.connections == 0


LARGE = {
    "nested lists": b"[" * 8 * MEBIBYTE,
    "objects": b"[" + b"{}," * (8 * MEBIBYTE // 3),
    "digits": b"9" * 8 * MEBIBYTE,
    "elements": b"<p>" * (8 * MEBIBYTE // 3),
}


@pytest.mark.parametrize("chunk", LARGE)
@pytest.mark.parametrize("kind", WHOLE)
def test_a_page_of_eight_mebibytes_is_refused_before_it_is_parsed(kind: str, chunk: str) -> None:
    parse, body = WHOLE[kind]
    opening = b"{" if b"{" in body else b"<body"
    large = body.replace(opening, opening + LARGE[chunk], 1)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="longer than 256 KiB"):
            parse(large)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunk", [b"NAME=csrftoken", b"serverTime = '", b"/page/electricflow/1113?"])
def test_a_search_in_a_large_page_takes_no_quadratic_time(chunk: bytes) -> None:
    large = chunk * (7 * MEBIBYTE // len(chunk))
    started = time.monotonic()
    with contextlib.suppress(Unreadable):
        pages.export_token(large)
    assert pages.device_time(large) is None
    links = b'<a href="' + chunk * (2**17 // len(chunk)) + b'"></a><head'
    with contextlib.suppress(Unreadable):
        first_page(circuit_page(ROWS).replace(b"<head", links))
    assert time.monotonic() - started < 60


def test_a_page_as_long_as_a_real_units_is_read() -> None:
    padded = json.dumps({"popupmsg": "電" * 60_000}, ensure_ascii=False).encode()
    assert pages.circuit_list(circuit_list(["ＬＤ"]).replace(b"<html>", b"<html><!--" + padded + b"-->")).circuits
