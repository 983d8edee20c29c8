"""What garbage once got past the parsers: numbers that are none, names that nothing can carry, pages without end."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2 import climate, graphs, live_circuits, pages
from aiseg2_pipeline.aiseg2.circuits import MAX_NAME_CHARS, clean_name
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import CircuitList, CircuitPage
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline_tests.aiseg2.test_sd_card import DAY, HALVES, csv
from aiseg2_pipeline_tests.support.device import circuit_list, circuit_page, flow_html, flow_json
from aiseg2_pipeline_tests.support.fuzz_zips import zipped
from aiseg2_pipeline_tests.support.invariants import assert_sane
from aiseg2_pipeline_tests.support.parsers import NOW

MEBIBYTE = 2**20


def test_nought_has_no_sign() -> None:
    told = flow_json(g_capacity=-0.0, g_d_1_capacity=-0.0, connSb=1, percent=-0.0)
    assert b"-0.0" in told
    assert_sane(pages.flow_from_json(told))


@pytest.mark.parametrize(
    "told", ["１", "٣", "1_0", " 1", "+1", "1.0", "", "9" * 5000, 1e300, 2**70, 100, -1, 0.5, [1], {}]
)
def test_a_state_that_is_no_small_number_is_unknown(told: object) -> None:
    flow = pages.flow_from_json(
        flow_json(fc={"fcState": told}, connEv=told, lo_buy_sell=told, connSb=1, charge=told)
    )
    assert (flow.fuel_cell_state, flow.ev_connected, flow.exchange) == (None, None, None)
    assert flow.battery is not None
    assert flow.battery.state is None


@pytest.mark.parametrize("told", [3, "3", 3.0])
def test_a_small_number_is_one_as_text_too(told: object) -> None:
    assert pages.flow_from_json(flow_json(fc={"fcState": told})).fuel_cell_state == 3


@pytest.mark.parametrize("name", ["x" * 5000, "電" * 200_000, "e" + "\u0301" * 9000], ids=["x", "電", "é"])
def test_a_name_ends_before_influxdb_would_refuse_its_series(name: str) -> None:
    kept = name[:MAX_NAME_CHARS]
    assert clean_name(name) == kept
    if len(name.encode()) < pages.MAX_PAGE_BYTES:
        assert pages.flow_from_html(flow_html(title=name)).generators[0].name == kept
        assert pages.circuit_list(circuit_list([name])).circuits[0].name == kept
        assert pages.circuit_page(circuit_page([(name, " 5W")]), 1).rows[0].name == kept


class Contradicting:
    """A device whose page shows a circuit that its list does not have."""

    def __init__(self, name: str) -> None:
        self.name = name

    def circuit_list(self, _: Deadline) -> CircuitList:
        return pages.circuit_list(circuit_list(["ＬＤ"]))

    def circuit_page(self, page: int, _: Deadline) -> CircuitPage:
        return pages.circuit_page(circuit_page([(self.name, " 5W")]), page)


@pytest.mark.parametrize("name", ["x" * 90, "\u202e\u2028\ufeff" * 30, "'" * 90], ids=["long", "unseen", "quotes"])
def test_an_error_holds_a_few_characters_of_a_name(name: str) -> None:
    with pytest.raises(Unreadable, match="/page/electricflow/1113 showed the circuit") as caught:
        live_circuits.read(Contradicting(name), live_circuits.Memory(), NOW, Deadline(60))
    assert name[:21] not in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_token_holds_no_control_character() -> None:
    assert pages.export_token(b'NAME="csrftoken" VALUE="12\x0234"') == "12"
    with pytest.raises(Unreadable, match="csrftoken"):
        pages.export_token(b'NAME="csrftoken" VALUE="\x02"')


LARGE = {
    "opened": b"[" * 8 * MEBIBYTE,
    "lists": b"[" + b"[]," * (8 * MEBIBYTE // 3),
    "objects": b"[" + b"{}," * (8 * MEBIBYTE // 3),
    "keys": b"{" + b",".join(b'"%x":0' % n for n in range(600_000)),
    "digits": b"9" * 8 * MEBIBYTE,
    "fraction": b"0." + b"9" * 8 * MEBIBYTE,
    "elements": b"<p>" * (8 * MEBIBYTE // 3),
}
READS: dict[str, tuple[Callable[[bytes], object], bytes, bytes]] = {
    "flow json": (pages.flow_from_json, b'{"g_capacity":', b"}"),
    "flow html": (pages.flow_from_html, b"<html>", b"</html>"),
    "circuit page": (lambda body: pages.circuit_page(body, 1), b"<html>", b"</html>"),
    "circuit list": (pages.circuit_list, b"window.onload = init(", b");</html>"),
    "graph": (lambda body: graphs.graph(body, "sold"), b"<html><script>graph_data = ", b";</script></html>"),
    "climate": (lambda body: climate.climate_page(body, 1), b"<html>", b"</html>"),
}


@pytest.mark.parametrize("chunk", LARGE)
@pytest.mark.parametrize("name", READS)
def test_a_page_of_eight_mebibytes_is_refused_before_it_is_taken_apart(name: str, chunk: str) -> None:
    read, start, end = READS[name]
    body = start + LARGE[chunk] + end
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="longer than 256 KiB"):
            read(body)
        assert tracemalloc.get_traced_memory()[1] < MEBIBYTE
    finally:
        tracemalloc.stop()


def test_a_page_of_a_real_units_length_is_not_too_long() -> None:
    padded = json.dumps({"popupmsg": "電" * 60_000}, ensure_ascii=False).encode()
    assert pages.circuit_list(circuit_list(["ＬＤ"]).replace(b"<html>", b"<html><!--" + padded + b"-->")).circuits


@pytest.mark.parametrize("chunk", ["\n", "-\n", ",", "電,"])
def test_a_file_of_the_card_takes_little_more_memory_than_its_text(tmp_path: Path, chunk: str) -> None:
    head = csv([]).decode()
    body = (head + chunk * ((MEBIBYTE - len(head.encode()) - 1) // len(chunk.encode())) + "\n").encode()
    card = tmp_path / "card.zip"
    card.write_bytes(zipped({HALVES: body}))
    tracemalloc.start()
    try:
        with (
            Export(card, made_at=NOW) as export,
            pytest.raises(Unreadable, match=f"{HALVES} with (more rows|other col)"),
        ):
            export.half_hours(DAY)
        assert tracemalloc.get_traced_memory()[1] < 32 * MEBIBYTE
    finally:
        tracemalloc.stop()
