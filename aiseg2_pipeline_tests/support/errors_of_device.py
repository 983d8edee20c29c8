"""What a person reads when the device does not answer as an AiSEG2 does: connection, login, pages, card, circuits."""

import itertools
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Literal

import filelock

from aiseg2_pipeline.aiseg2 import climate, endpoints, graphs, pages
from aiseg2_pipeline.aiseg2.client import MAX_EXPORT_BYTES, Aiseg2Client
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline.ingest.climate import Sensors, read_climate
from aiseg2_pipeline.ingest.energy import History, day_on_device
from aiseg2_pipeline.store import EnergyStore
from aiseg2_pipeline_tests.aiseg2.test_climate import rooms_page, shown
from aiseg2_pipeline_tests.aiseg2.test_graphs import graph_page
from aiseg2_pipeline_tests.aiseg2.test_sd_card import HALVES, csv, half_hours, half_label, row, zipped
from aiseg2_pipeline_tests.support.device import (
    FLOW,
    LIST,
    PASSWORD,
    USER,
    Answer,
    Page,
    circuit_list,
    circuit_page,
    circuits_path,
    empty_graph,
    flow_json,
)
from aiseg2_pipeline_tests.support.error_messages import Sentence
from aiseg2_pipeline_tests.support.error_stage import DAY, NOW, Stage, told_by

TODAY = date(2026, 7, 14)
EXPORT = "GET /set/exectop2.cgi"
FORM = b'<html><form><INPUT TYPE="hidden" NAME="csrftoken" VALUE="1"></form></html>'
DOWNLOAD = f"{EXPORT}?downType=1&csrftoken=1"
CLIMATE = "GET /page/airenvironment/41?page=1"
SETTINGS = "AISEG2_HOST"


def _list(client: Aiseg2Client, seconds: float = 0.3) -> object:
    return client.circuit_list(Deadline(seconds))


_STALE = Answer(b"", 401, {"WWW-Authenticate": 'Digest realm="AiSEG2", nonce="n", qop="auth", stale=true'})


def _of_list(*served: Page, url: str | None = None) -> Callable[[Stage], str]:
    """Ask for the circuit list, whose page is as given."""

    def said(stage: Stage) -> str:
        stage.shows(dict(zip([LIST], served, strict=False)))
        with stage.client(url) as client:
            return told_by(lambda: _list(client))

    return said


def _wrong_password(stage: Stage) -> str:
    stage.given["AISEG2_PASSWORD"] = PASSWORD.upper()
    return stage.command("read")


@contextmanager
def _listening(answer: bytes | None) -> Iterator[str]:
    """Give the address of something that sends these bytes to whoever comes, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while answer is not None:
                try:
                    connection, _ = server.accept()
                    connection.recv(4096)
                    connection.sendall(answer)
                    connection.close()
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def from_socket(
    answer: bytes | None, ask: Callable[[Stage, str], object], scheme: str = "http"
) -> Callable[[Stage], str]:
    """Ask something that sends these bytes to whoever comes, or nothing at all."""

    def said(stage: Stage) -> str:
        with _listening(answer) as url:
            return told_by(lambda: ask(stage, url.replace("http", scheme)))

    return said


def _ask(stage: Stage, url: str) -> None:
    with stage.client(url) as client:
        _list(client)


def _held(stage: Stage) -> str:
    (stage.folder / "device").mkdir()
    with filelock.FileLock(stage.folder / "device" / "live.lock"), stage.client() as client:
        return told_by(lambda: _list(client, 0.05))


def _tried_again(stage: Stage) -> str:
    told: list[str] = []
    folder = stage.folder / "device"
    with Aiseg2Client(
        "http://127.0.0.1:1", USER, PASSWORD, state_dir=folder, clock=lambda: NOW, on_retry=told.append
    ) as client:
        told_by(lambda: _list(client, 0.7))
    return told[0]


def _no_certificates(stage: Stage) -> str:
    (stage.folder / "ca.pem").write_text("none")
    return stage.command("read", AISEG2_USE_HTTPS="1", AISEG2_CA_FILE="ca.pem")


def _asked(ask: Callable[[Aiseg2Client], object]) -> Callable[[Stage], str]:
    """Ask for what no AiSEG2 can have named."""

    def said(stage: Stage) -> str:
        with stage.client() as client:
            return told_by(lambda: ask(client))

    return said


def _no_folder(stage: Stage) -> str:
    (stage.folder / "device").touch()
    with stage.client() as client:
        return told_by(lambda: _list(client))


def _too_much(stage: Stage) -> str:
    with stage.client() as client:
        return told_by(
            lambda: client.transport.request(endpoints.Page.CIRCUIT_LIST, Deadline(5), max_bytes=100)
        ).replace("more than 0 MiB", "more than 8 MiB")


def _cut(stage: Stage) -> str:
    return _of_list(Answer(b"<html>", cut=True))(stage)


def _download(stage: Stage, answer: bytes | Answer, target: str = "export.zip") -> str:
    stage.shows({EXPORT: FORM, DOWNLOAD: answer})
    with stage.client() as client:
        return told_by(lambda: client.download_export(stage.folder / target, Deadline(5)))


def _full_disk_in_a_download(stage: Stage) -> str:
    stage.shows({EXPORT: FORM, DOWNLOAD: b"PK"})
    with stage.client() as client, Path("/dev/full").open("wb", buffering=0) as full:
        return told_by(
            lambda: client.transport.download(
                endpoints.ExportZip("1"), full, Deadline(5), max_bytes=MAX_EXPORT_BYTES, timeout_s=5
            )
        )


def _page(parse: Callable[[], object]) -> Callable[[Stage], str]:
    return lambda _: told_by(parse)


def _graph(body: bytes) -> Callable[[Stage], str]:
    return _page(lambda: graphs.graph(body, "generation", TODAY))


def _card(*lines: str, head: str | None = None, name: str = HALVES, end: str = "") -> Callable[[Stage], str]:
    """Read a day's half hours from a card whose file is as given."""

    def said(stage: Stage) -> str:
        path = zipped(stage.folder / "export.zip", {name: csv(lines, head).removesuffix(end.encode())})
        return told_by(lambda: half_hours(path))

    return said


def _card_twice(stage: Stage) -> str:
    path = zipped(stage.folder / "export.zip", {f"{folder}/{HALVES}": b"" for folder in "ab"})
    return told_by(lambda: half_hours(path))


def _card_bomb(stage: Stage) -> str:
    return told_by(lambda: half_hours(zipped(stage.folder / "export.zip", {HALVES: b"0" * 2**21})))


def _card_packed_unusually(stage: Stage) -> str:
    with zipfile.ZipFile(stage.folder / "export.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(HALVES, csv([]))
    return told_by(lambda: half_hours(stage.folder / "export.zip"))


def _card_of_many_files(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.aiseg2.sd_card.MAX_MEMBERS", 1)
    return told_by(lambda: half_hours(zipped(stage.folder / "export.zip", {"a": b"", "b": b""})))


def _card_of_many_rows(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.aiseg2.sd_table._MAX_LINES", 1)
    return _card(row(half_label(0), {}))(stage)


def _card_that_is_none(stage: Stage) -> str:
    path = stage.folder / "export.zip"
    path.write_bytes(b"PK")
    return told_by(lambda: half_hours(path))


def _circuits(names: Sequence[str], *shown_pages: Sequence[tuple[str, str]]) -> Callable[[Stage], str]:
    """Read a home that registers circuits of these names, and shows these pages."""

    def said(stage: Stage) -> str:
        last = len(shown_pages)
        stage.shows({LIST: circuit_list(names)})
        stage.shows({circuits_path(n): circuit_page(rows, n, last) for n, rows in enumerate(shown_pages, 1)})
        return stage.command("read")

    return said


def _circuits_across_a_boundary(stage: Stage) -> str:
    watts = itertools.count(500, -1)
    names = [str(n) for n in range(9)] + ["ＩＨ", "ＩＨ"]

    def first() -> bytes:
        rows = [(str(n), f"{next(watts)}W") for n in range(9)]
        return circuit_page([*rows, ("ＩＨ", "5W")], 1, 2)

    stage.shows({LIST: circuit_list(names), circuits_path(1): first})
    stage.shows({circuits_path(2): circuit_page([("ＩＨ", "5W")], 2, 2)})
    return stage.command("read")


def _climate(*rooms: tuple[str, str, str]) -> Callable[[Stage], str]:
    """Return what is told beside the rooms of a page that can be read in part."""
    return lambda _: climate.climate_page(rooms_page(*rooms), 1).problems[0]


def _no_rooms(stage: Stage) -> str:
    stage.shows({CLIMATE: shown("")})
    with stage.client() as client:
        sensors = Sensors(stage.folder / "device", client.transport.base_url)
        return told_by(lambda: read_climate(client, sensors, lambda: NOW))


def _demo(stage: Stage) -> str:
    stage.given["AISEG2_HOST"] = ""
    stage.patch.setattr("aiseg2_pipeline.ingest.energy.READING_TIMEOUT_S", 0.1)
    return stage.command("history", "2026-07-14", AISEG2_SIMULATOR_PORT="1")


def _no_number(stage: Stage) -> str:
    stage.shows({FLOW: flow_json(g_capacity="-", u_capacity="-", g_d_1_title="")})
    stage.shows({LIST: circuit_list([]), circuits_path(1): circuit_page([])})
    return stage.command("read")


def _clocks_apart(stage: Stage) -> str:
    now = NOW - DAY
    with stage.client(now=now) as client, EnergyStore.open(stage.folder / "energy.sqlite") as energy:
        return told_by(lambda: History(client, energy, stage.folder, now))


def _day(stage: Stage, day: date, *, sd: bool = False, **served: Page) -> str:
    stage.shows(empty_graph(day) | {EXPORT: FORM, DOWNLOAD: b""} | served)
    with stage.client() as client:
        source: Literal["sd", "web"] = "sd" if sd else "web"
        return told_by(lambda: day_on_device(client, stage.folder, day, NOW, source=source))


def _card_unreadable(stage: Stage) -> str:
    """Return what a run that fills says when the card cannot be read and the pages are."""
    stage.shows(empty_graph(TODAY) | {EXPORT: FORM, DOWNLOAD: b"PK"})
    with (
        stage.client() as client,
        EnergyStore.open(stage.folder / "energy.sqlite") as energy,
        History(client, energy, stage.folder, NOW, same_clock=False) as history,
    ):
        return history.bring(TODAY, circuits=True).problems[0]


def _two_days(_: Stage) -> str:
    consumption = graphs.graph(graph_page(title="使用電力量"), "consumption", TODAY)
    bought = graphs.graph(graph_page(day="2026/07/15", title="買電量"), "bought", TODAY + DAY)
    return told_by(lambda: graphs.day_from_web(consumption, bought=bought))


CONNECTION = [
    Sentence("device: refused login", _wrong_password, ("login", "AISEG2_PASSWORD"), "AISEG2_USER"),
    Sentence(
        "device: nothing listens", _of_list(url="http://127.0.0.1:1"), ("127.0.0.1:1", "nothing listens"), SETTINGS
    ),
    Sentence(
        "device: unknown name",
        _of_list(url="http://no-such-host.invalid"),
        ("no-such-host.invalid", "name"),
        SETTINGS,
    ),
    Sentence("device: no address", _of_list(url="http://a..b"), ("a..b", "no address"), SETTINGS),
    Sentence("device: silent", from_socket(None, _ask), ("/734", "took too long"), SETTINGS),
    Sentence("device: hangs up", from_socket(b"", _ask), ("/734", "dropped"), SETTINGS),
    Sentence("device: no HTTP", from_socket(b"220 ready\r\n\r\n", _ask), ("/734", "no HTTP"), SETTINGS),
    Sentence(
        "device: no TLS",
        from_socket(b"HTTP/1.1 200\r\n\r\n", _ask, "https"),
        ("TLS", "AISEG2_CA_FILE"),
        "AISEG2_USE_HTTPS",
    ),
    Sentence("device: cut short", _cut, ("/734", "cut short"), SETTINGS),
    Sentence("device: 404", _of_list(Answer(b"", 404)), ("/734", "404"), SETTINGS),
    Sentence("device: stale login", _of_list(_STALE), ("/734", "login")),
    Sentence("device: 503", _of_list(Answer(b"", 503)), ("/734", "503")),
    Sentence("device: endless answer", _too_much, ("/734", "8 MiB"), SETTINGS),
    Sentence("device: tried again", _tried_again, ("127.0.0.1:1", "20 s"), SETTINGS),
    Sentence("device: no certificates", _no_certificates, ("TLS", "AISEG2_CA_FILE"), "AISEG2_USE_HTTPS"),
    Sentence(
        "device: too many pages",
        _asked(lambda client: client.circuit_page(9999, Deadline(1))),
        ("1113", "9999"),
        SETTINGS,
    ),
    Sentence(
        "device: an id of other letters",
        _asked(lambda client: client.circuit_graph("a/b", None, Deadline(1))),
        ("734", "strId"),
        SETTINGS,
    ),
    Sentence("device: held by another process", _held, ("Another process",), "AISEG2_DATA_DIR"),
    Sentence("device: no folder for its state", _no_folder, ("/device",), "AISEG2_DATA_DIR"),
    Sentence("device: demo without its simulator", _demo, ("demo", "simulate"), SETTINGS),
    Sentence("device: clocks apart", _clocks_apart, ("clock", "ahead of")),
]


_STAGE_WITHOUT_NAME = circuit_page([("ＬＤ", "1W")]).replace(b"c_device", b"c_other")
_NO_CALL = b"<script>window.onload = init("
PAGES = [
    Sentence(f"page: {name}", _page(parse), names, SETTINGS)
    for name, parse, names in (
        ("no JSON", lambda: pages.flow_from_json(b"<html>"), (pages.FLOW_JSON, "not JSON")),
        ("flow is no object", lambda: pages.flow_from_json(b"[]"), ("g_capacity", "u_capacity")),
        ("flow without a key", lambda: pages.flow_from_json(flow_json(g_capacity=None)), ("`g_capacity`",)),
        ("flow over 100 %", lambda: pages.flow_from_json(flow_json(connSb=1, percent="101")), ("`percent`",)),
        ("flow with a word", lambda: pages.flow_from_json(flow_json(g_capacity="x")), ("number", "`g_capacity`")),
        ("flow without a title", lambda: pages.flow_from_json(flow_json(g_d_1_title=1)), ("text", "`g_d_1_title`")),
        ("HTML flow without its element", lambda: pages.flow_from_html(b"<html></html>"), ("111", "`#g_capacity`")),
        ("circuits without a row", lambda: pages.circuit_page(b"<html></html>", 1), ("1113?id=1", "`#stage_1`")),
        ("circuit without a name", lambda: pages.circuit_page(_STAGE_WITHOUT_NAME, 1), ("`#stage_1 .c_device`",)),
        ("circuit without watts", lambda: pages.circuit_page(circuit_page([("ＬＤ", "1")]), 1), ("watts", "1 .c_value`")),
        ("cut", lambda: pages.circuit_page(b"<html>", 1), ("1113?id=1", "ends in the middle")),
        ("long", lambda: pages.circuit_page(b"<html>" + b" " * 2**19 + b"</html>", 1), ("1113?id=1", "256 KiB")),
        ("no UTF-8", lambda: pages.circuit_page(b"\xff</html>", 1), ("1113?id=1", "UTF-8")),
        ("deep", lambda: pages.circuit_page(b"<html>" + b"<div>" * 999 + b"</html>", 1), ("1113?id=1", "nested")),
        ("list is no UTF-8", lambda: pages.circuit_list(b"\xff"), (pages.CIRCUIT_LIST, "UTF-8")),
        ("list without its call", lambda: pages.circuit_list(b""), (pages.CIRCUIT_LIST, "window.onload")),
        ("list without circuits", lambda: pages.circuit_list(_NO_CALL + b"{})"), ("arrayCircuitNameList",)),
        ("list with an id twice", lambda: pages.circuit_list(circuit_list(["a"], 8).replace(b'"99"', b'"8"').replace(b'"-"}', b'"1"}')), ("`strId`",)),
        ("export without its token", lambda: pages.export_token(b""), (pages.EXPORT, "csrftoken")),
        ("room without a name", lambda: climate.climate_page(rooms_page(("", "235", "48")), 1), ("41?page=1", ".txt_name`")),
        ("room without numbers", lambda: climate.climate_page(shown('<div id="base1_1"><p class="txt_name">a</p></div>'), 1), (".num_wrapper`",)),
        ("room with a word", lambda: climate.climate_page(rooms_page(("居間", "2_5", "")), 1), ("num_ond_",)),
    )
]  # fmt: skip
PAGES += [
    Sentence(
        "page: nothing is measured",
        _page(lambda: pages.flow_from_json(flow_json(measReg=0))),
        ("measuring unit", pages.FLOW_JSON),
    ),
    Sentence("page: one number of a room", _climate(("居間", "2_5", "48")), ("41?page=1", "num_ond_")),
    Sentence("page: no rooms", _no_rooms, ("room", "sensor")),
]
GRAPHS = [
    Sentence(f"graph: {name}", _graph(body), ("51111", *names), SETTINGS)
    for name, body, names in (
        ("another series", graph_page(title="買電量"), ("買電量", "発電量")),
        ("no element", graph_page().replace(b"val_kwh", b"val_other"), ("`#val_kwh`",)),
        ("no variables", graph_page().replace(b"graph_data", b"other"), ("`graph_data`",)),
        ("another unit", graph_page(unit="L"), ("`#unit_kwh`",)),
        ("two totals", graph_page(totalValue="9"), ("`totalValue`",)),
        ("no day", graph_page(day="soon"), ("`#val_current`",)),
        ("another day", graph_page(day="2026/07/13"), ("2026-07-13", "2026-07-14")),
        ("23 hours", graph_page([0.1] * 23), ("24 hours", "`total1`")),
        ("an hour without a number", graph_page(["-"] * 24, "1.000"), ("hour", "`total1`")),
    )
]  # fmt: skip
GRAPHS += [
    Sentence(
        "graph: not a circuit's",
        _page(lambda: graphs.circuit_graph(graph_page(title="発電量"), "8", TODAY)),
        ("584", "発電量"),
        SETTINGS,
    ),
    Sentence("graph: two days", _two_days, ("2026-07-14", "2026-07-15")),
    Sentence("graph: nothing of a day", lambda stage: _day(stage, TODAY - DAY), ("2026-07-13",)),
]
CARD = [
    Sentence("card: none", lambda stage: _download(stage, b""), ("SD card", pages.EXPORT)),
    Sentence("card: cut", lambda stage: _download(stage, b"PK"), (pages.EXPORT, "middle of the zip"), SETTINGS),
    Sentence("card: no folder", lambda stage: _download(stage, b"PK", "no/zip"), ("no/zip",), "AISEG2_DATA_DIR"),
    Sentence("card: full disk", _full_disk_in_a_download, ("disk",), "AISEG2_DATA_DIR"),
    Sentence("card: nothing of a day", lambda stage: _day(stage, TODAY, sd=True), ("SD card", "2026-07-14", "--source")),
    Sentence("card: unreadable in a fill", _card_unreadable, ("card's export", pages.EXPORT)),
    Sentence("card: unreadable for one who asks for it", lambda stage: _day(stage, TODAY, sd=True, **{DOWNLOAD: b"PK"}), ("card's export", pages.EXPORT)),
    Sentence("card: gone from the disk", lambda stage: told_by(lambda: half_hours(stage.folder / "gone.zip")), ("gone.zip",)),
    Sentence("card: no zip", _card_that_is_none, ("SD card", "zip")),
    Sentence("card: a file twice", _card_twice, (HALVES,)),
    Sentence("card: a bomb", _card_bomb, (HALVES, "unpacks")),
    Sentence("card: packed otherwise", _card_packed_unusually, (HALVES, "packed")),
    Sentence("card: too many files", _card_of_many_files, ("files",)),
    Sentence("card: a cut file", _card(end="\n"), (HALVES, "ends")),
    Sentence("card: too many rows", _card_of_many_rows, (HALVES, "rows")),
    Sentence("card: other columns", _card(head="a,b"), (HALVES, "columns")),
    Sentence("card: a row of another day", _card(row("202604130000+0900", {})), (HALVES, "row")),
    Sentence("card: a cut row", _card(row(half_label(0), {}), row(half_label(1), {}, 70)), (HALVES, "row")),
    Sentence("card: a word", _card(row(half_label(0), {63: "x"})), (HALVES, "number")),
]  # fmt: skip
CIRCUITS = [
    Sentence("circuits: too many", _circuits(["ＬＤ"], [("ＬＤ", "2W"), ("ＩＨ", "1W")]), ("ＩＨ", "1113", "734")),
    Sentence("circuits: too few", _circuits(["ＬＤ", "ＩＨ"], [("ＬＤ", "2W")]), ("ＩＨ", "1113", "734")),
    Sentence(
        "circuits: out of order", _circuits(["ＬＤ", "ＩＨ"], [("ＬＤ", "1W"), ("ＩＨ", "2W")]), ("ＩＨ", "order")
    ),
    Sentence("circuits: none registered", _circuits([], [("ＬＤ", "2W")]), ("ＬＤ", "1113", "734")),
    Sentence("circuits: across a boundary", _circuits_across_a_boundary, ("ＩＨ", "boundary")),
    Sentence("circuits: no number at all", _no_number, ("AiSEG2", "no number")),
]


OF_DEVICE = [*CONNECTION, *PAGES, *GRAPHS, *CARD, *CIRCUITS]
