"""A device for tests: serves given pages over real HTTP with a real digest login, and records the requests.

The pages are written by hand (or are captures of a real unit, where those are beside the project), so that the client
is not tested against the simulator's pages only.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from aiseg2_pipeline.simulator.login import Answer as LoginState
from aiseg2_pipeline.simulator.login import DigestLogin

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason="the captures of a real unit are not here")
USER, PASSWORD = "aiseg", "correct horse"

FLOW = "POST /data/electricflow/111/update"
FLOW_HTML = "GET /page/electricflow/111"
BATTERY_FLOW = "POST /data/electricflow/112/update"
LIST = "GET /page/setting/installation/734"


def circuits_path(page: int) -> str:
    return f"GET /page/electricflow/1113?id={page}"


@dataclass
class Answer:
    """The response to one request; with `cut`, Content-Length is larger than the body."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False


Page = bytes | Answer | Callable[[], bytes | Answer]


@dataclass
class Device:
    """`pages` maps "METHOD /path?query" to the page; `log` has every request with its status.

    A nonce's counter is accepted once, as strict servers do.
    """

    pages: dict[str, Page]
    latency_s: float = 0.0
    log: list[tuple[str, int]] = field(default_factory=list)
    address: str = ""
    most_in_flight: int = 0
    in_flight: int = 0
    login: DigestLogin = field(default_factory=lambda: DigestLogin(USER, PASSWORD))

    @property
    def requests(self) -> int:
        return len(self.log)


def _handler(device: Device, lock: threading.Lock) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.rfile.read(length)
            with lock:
                device.in_flight += 1
                device.most_in_flight = max(device.most_in_flight, device.in_flight)
            try:
                answer = self._answer()
                time.sleep(device.latency_s + answer.delay_s)
                device.log.append((f"{self.command} {self.path}", answer.status))
            finally:
                with lock:
                    device.in_flight -= 1
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body) + (10 if answer.cut else 0)))
            self.end_headers()
            self.wfile.write(answer.body)
            if answer.cut:
                self.close_connection = True

        def _answer(self) -> Answer:
            state = device.login.check(self.command, self.path, self.headers.get("Authorization", ""))
            if state is not LoginState.WELCOME:
                return Answer(b"login", 401, {"WWW-Authenticate": device.login.challenge(is_stale=False)})
            page = device.pages.get(f"{self.command} {self.path}", Answer(b"no such page", 404))
            if callable(page):
                page = page()
            return page if isinstance(page, Answer) else Answer(page)

    return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that close the connection, as some tests do."""


@contextmanager
def serving(pages: dict[str, Page], latency_s: float = 0.0, port: int = 0) -> Iterator[Device]:
    device = Device(pages, latency_s)
    server = _Server(("127.0.0.1", port), _handler(device, threading.Lock()))
    server.daemon_threads = True
    device.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield device
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


SERVER_TIME = '{"year":"26","month":"7","day":"14","hour":"8","min":"15","sec":"53","weekday":"2"}'


def flow_json(**changed: object) -> bytes:
    """Return a power flow; a value of None leaves the key out."""
    flow: dict[str, object] = {
        "g_capacity": "2.1",
        "u_capacity": "1.2",
        "lo_buy_sell": 1,
        "percent": "-",
        "charge": 2,
        "connSb": 0,
        "connEv": 0,
        "connFc": 0,
        "g_d_1_title": "太陽光発電",
        "g_d_1_capacity": 2130,
        "g_d_2_title": "",
        "g_d_2_capacity": "-",
        "measReg": 1,
    }
    flow.update(changed)
    return json.dumps({key: value for key, value in flow.items() if value is not None}).encode()


def battery_flow(**changed: object) -> bytes:
    """Return the flow of a home with a battery; a value of None leaves the key out."""
    flow = {"lo_sun_lo_kW": "2.1", "lo_densen_lo_kw": "1.3", "lo_battery_lo_kW": "0.4", "charge": "1"} | changed
    return json.dumps({key: value for key, value in flow.items() if value is not None}).encode()


def flow_html(generation: str = "2.1", consumption: str = "1.2", title: str = "太陽光発電") -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<html><body class=pc><div id="g_capacity">{generation}</div><div id="u_capacity">{consumption}</div>
<div id="g_d_1_title">{title}</div><div id="g_d_1_capacity">2130W</div>
<div id="g_d_2_title">&nbsp;</div><div id="g_d_2_capacity">-&nbsp;</div></body></html>""".encode()


def circuit_page(rows: Sequence[tuple[str, str]], page: int = 1, last: int = 1, clock: str = SERVER_TIME) -> bytes:
    """Return a page of circuits; each row is a name (with <br /> where it wraps) and the text of `c_value`."""
    tabs = "".join(
        f'<div class="tab" href="/page/electricflow/1113?id={n}&track="></div>'
        for n in range(1, last + 1)
        if n != page
    )
    stages = "".join(
        f'<div id="stage_{n}" class="column"><div class="c_bar"></div><div class="c_value">{value}</div>'
        f'<div class="c_device">{name}</div></div>'
        for n, (name, value) in enumerate(rows, 1)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html><html><head><title>&nbsp;</title></head><body class=pc>
<a href="/page/electricflow/111">&nbsp;</a><a href="/page/graph/52111?id=9">R&D</a>
<script>TimeInfoVariable = {{}}; TimeInfoVariable.serverTime = '{clock}';</script>{tabs}
<div id="m_capacity">{stages}</div></body></html>""".encode()


def circuit_list(names: Sequence[str], first_id: int = 8) -> bytes:
    entries = [{"strLabel": "主幹", "strId": "-", "strCircuit": "主幹L1", "strBtn": "0", "strBtnType": "-"}]
    entries += [
        {"strId": str(n), "strCircuit": name, "strLabel": f"分{n}", "strBtn": "1", "strBtnType": "1"}
        for n, name in enumerate(names, first_id)
    ]
    entries.append({"strId": "99", "strCircuit": "", "strLabel": "分35", "strBtn": "0", "strBtnType": "-"})
    argument = json.dumps({"popupmsg": {"m": "<b>});</b>"}, "arrayCircuitNameList": entries}, ensure_ascii=False)
    return f"""<?xml version="1.0" encoding="UTF-8"?><html><body>
<script>TimeInfoVariable.serverTime = '{SERVER_TIME}';</script>
<script type="text/javascript">window.onload = init({argument});</script></body></html>""".encode()


def household(rows: Sequence[tuple[str, str]]) -> dict[str, Page]:
    """Return the pages of a home whose circuits are `rows`, in the order shown."""
    chunks = [rows[n : n + 10] for n in range(0, len(rows), 10)] or [[]]
    pages: dict[str, Page] = {
        FLOW: flow_json(),
        LIST: circuit_list([name.replace("<br />", "") for name, _ in rows]),
    }
    for n, chunk in enumerate(chunks, 1):
        pages[circuits_path(n)] = circuit_page(chunk, n, len(chunks))
    return pages
