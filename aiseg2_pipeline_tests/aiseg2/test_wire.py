"""The bytes sent to the device: requests of pages and the two POSTs that redraw the flow, and nothing else."""

import base64
import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2 import endpoints
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.climate import ClimateSource
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Unreadable
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.gaps.find import find_gaps
from aiseg2_pipeline.ingest.climate import Sensors, read_climate
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.support.device import (
    FLOW,
    LIST,
    PASSWORD,
    USER,
    Answer,
    Page,
    circuit_list,
    household,
    serving,
)
from aiseg2_pipeline_tests.support.wire import Recorder, recording

# Written by hand, so that the product's constants do not prove themselves.
FLOW_POSTS = {f"POST /data/electricflow/{page}/update" for page in (111, 112)}
LINES = re.compile(
    r"POST /data/electricflow/11[12]/update"
    r"|GET /page/electricflow/111"
    r"|GET /page/electricflow/1113\?id=[1-9][0-9]?"
    r"|GET /page/setting/installation/734"
    r"|GET /page/airenvironment/4[13]\?page=[1-9][0-9]?"
    r"|GET /page/graph/(?:51111|52111|53111|54111|55111|57111)(?:\?data=[A-Za-z0-9%]+)?"
    r"|GET /page/graph/584\?data=[A-Za-z0-9%]+"
    r"|GET /set/exectop2\.cgi(?:\?downType=1&csrftoken=[0-9A-Za-z_-]{1,64})?"
)
FORBIDDEN_WORDS = ("doreset", "demomode", "/action")
KEYS = {"day", "term", "termStr", "id", "circuitid", "month_compare", "day_compare"}
NOW = datetime(2026, 7, 13, 23, 15, 50, tzinfo=UTC)
DAY = date(2026, 7, 14)
EXPORT = "GET /set/exectop2.cgi"
HOSTILE = (
    "1&doReset=1",
    "1&demoMode=1",
    "doReset",
    "DEMOMODE",
    "1 HTTP/1.1\r\nX: 1\r\n\r\nGET /action/reset",
    "../../action/reset",
    "/action/reset",
    "%26doReset%3D1",
    "1#",
    "１",
    "",
    "a" * 65,
    "1\n",
)


def data_of(target: str) -> Any:
    """Return the value of `data`, decoded as a web server does."""
    return json.loads(base64.b64decode(parse_qs(urlsplit(target).query)["data"][0], validate=True))


def check(line: str, body: bytes) -> None:
    assert LINES.fullmatch(line), line
    assert body == (b"data={}" if line in FLOW_POSTS else b"")
    sent = line.lower()
    if "data=" in line:
        data = data_of(line)
        assert data.keys() <= KEYS
        sent += json.dumps(data).lower()
    assert not any(word in sent for word in FORBIDDEN_WORDS)


def check_all(recorder: Recorder) -> set[str]:
    """Check every request; return their lines without the value of `data`."""
    requests = recorder.requests()
    for line, body in requests:
        check(line, body)
    return {line.partition("?data=")[0] for line, _ in requests}


# The request of an endpoint


def target(endpoint: endpoints.Endpoint) -> str:
    return endpoints.http_request(endpoint).target


def test_a_day_is_requested_as_the_devices_own_pages_do() -> None:
    address = target(endpoints.Graph("consumption", DAY))
    assert address.startswith("/page/graph/52111?data=")
    assert data_of(address) == {"day": [2026, 7, 14], "month_compare": "mon", "day_compare": "day"}
    assert target(endpoints.Graph("sold", None)) == "/page/graph/54111"
    circuit = target(endpoints.CircuitGraph("30", DAY))
    assert circuit.startswith("/page/graph/584?data=")
    assert data_of(circuit) == {
        "day": [2026, 7, 14],
        "term": "2026/07/14",
        "termStr": "day",
        "id": "1",
        "circuitid": "30",
    }
    assert data_of(target(endpoints.CircuitGraph("30", None))) == {"circuitid": "30"}


SERIES = st.sampled_from(["generation", "consumption", "bought", "sold", "hotwater", "gas"])
DAYS = st.none() | st.dates()
WORDS = st.text(max_size=80) | st.from_regex(r"[0-9A-Za-z_-]{1,70}", fullmatch=True) | st.sampled_from(HOSTILE)
ENDPOINTS = (
    st.sampled_from(endpoints.Page)
    | st.builds(endpoints.CircuitsPage, st.integers())
    | st.builds(endpoints.RoomsPage, st.sampled_from(ClimateSource), st.integers())
    | st.builds(endpoints.Graph, SERIES, DAYS)
    | st.builds(endpoints.CircuitGraph, WORDS, DAYS)
    | st.builds(endpoints.ExportZip, WORDS)
)


@given(ENDPOINTS)
@settings(max_examples=500, deadline=None)
def test_no_endpoint_makes_another_request(endpoint: endpoints.Endpoint) -> None:
    try:
        request = endpoints.http_request(endpoint)
    except Unreadable:
        assert isinstance(
            endpoint, endpoints.CircuitsPage | endpoints.RoomsPage | endpoints.CircuitGraph | endpoints.ExportZip
        )
        return
    check(f"{request.method} {request.target}", request.body or b"")


@pytest.mark.parametrize(
    "other",
    [
        "/action/reset",
        ("GET", "/action/reset", None),
        endpoints.HttpRequest("GET", "/action/reset"),
        endpoints.CircuitsPage(cast(Any, "1&doReset=1")),
        endpoints.CircuitsPage(cast(Any, True)),  # noqa: FBT003 - not a number
        endpoints.RoomsPage(cast(Any, "/action/reset"), 1),
        endpoints.Graph(cast(Any, "action"), None),
        endpoints.CircuitGraph(cast(Any, 30), None),
        endpoints.ExportZip(cast(Any, None)),
        None,
    ],
)
def test_anything_but_an_endpoint_is_refused_before_a_connection_is_made(tmp_path: Path, other: Any) -> None:
    with (
        serving({}) as device,
        recording(device.address) as recorder,
        Aiseg2Client(recorder.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW) as client,
    ):
        with pytest.raises((TypeError, KeyError)):
            client.transport.request(other, Deadline(5))
        with pytest.raises((TypeError, KeyError)), (tmp_path / "file").open("wb") as file:
            client.transport.download(other, file, Deadline(5), max_bytes=1, timeout_s=5)
        assert recorder.connections == []


# The requests that are sent


def test_every_command_and_run_sends_only_pages_and_the_display_posts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    lines: set[str] = set()
    for sd_card in (False, True):
        home = Household(battery=True)
        with running(home, sd_card=sd_card) as unit, recording(f"http://{unit.address}") as recorder:
            given = {
                "AISEG2_HOST": recorder.address.removeprefix("http://"),
                "AISEG2_USER": unit.user,
                "AISEG2_PASSWORD": unit.password,
                "AISEG2_DATA_DIR": str(tmp_path / f"data {sd_card}"),
            }
            yesterday = f"{datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}"
            for arguments in (["read"], ["doctor"], ["history", yesterday]):
                ended = CliRunner().invoke(main, arguments, env=given)
                assert ended.exit_code == 0, ended.output
            _pipeline(recorder.address, unit.user, unit.password, tmp_path / f"other {sd_card}")
            lines |= check_all(recorder)
            assert unit.password.encode() not in recorder.everything()
    # Every page was requested, so that the test cannot pass by doing nothing.
    assert {line for line in lines if "csrftoken" not in line} == {
        *FLOW_POSTS,
        *(f"GET /page/electricflow/1113?id={n}" for n in (1, 2, 3, 4)),
        "GET /page/setting/installation/734",
        "GET /page/airenvironment/43?page=1",
        *(f"GET /page/graph/{n}" for n in (51111, 52111, 53111, 54111, 55111, 57111, 584)),
        EXPORT,
    }
    assert any("csrftoken" in line for line in lines)


def _pipeline(url: str, user: str, password: str, folder: Path) -> None:
    """Read a minute and the climate, and fill yesterday, as the runs do."""
    now = datetime.now(UTC)

    def clock() -> datetime:
        return now

    folder.mkdir()
    with (
        Store.open(folder / "readings.sqlite") as store,
        EnergyStore.open(folder / "energy.sqlite") as energy,
        Aiseg2Client(url, user, password, state_dir=folder, clock=clock) as live,
        Aiseg2Client(url, user, password, state_dir=folder, clock=clock, slot="background") as background,
    ):
        assert take_minute(live, store, minute=now, samples=1, clock=clock).readings
        assert read_climate(background, Sensors(folder, url), clock).rooms
        gaps = find_gaps(store, energy, now - timedelta(hours=27), now - timedelta(hours=24), now)
        hours = [hour.start for hour in gaps.fillable]
        days = list(
            fill_hours(store, energy, hours, now=now, history=lambda: History(background, energy, folder, now))
        )
        assert sum(day.filled_minutes for day in days) == 60 * len(hours) > 0


def _reads(client: Aiseg2Client, folder: Path) -> Iterable[Callable[[], object]]:
    deadline = Deadline(5)
    yield lambda: client.live(5)
    yield lambda: client.flow_html(deadline)
    for source in ClimateSource:
        yield partial(client.climate_page, source, 1, deadline)
    yield lambda: client.download_export(folder / "export.zip", deadline)
    for circuit_id in HOSTILE:
        yield partial(client.circuit_graph, circuit_id, DAY, deadline)


def test_no_response_of_a_hostile_device_makes_another_request(tmp_path: Path) -> None:
    pages: dict[str, Page] = dict(household([("ＬＤ<br />", " 224W")]))
    ids = circuit_list(["回路"] * len(HOSTILE)).decode()
    for n, circuit_id in enumerate(HOSTILE, 8):
        ids = ids.replace(f'"strId": "{n}"', f'"strId": {json.dumps(circuit_id)}')
    moved = Answer(b"", 302, {"Location": "/action/reset?doReset=1", "Refresh": "0; url=/action/reset"})
    challenge = 'Digest realm="a\r\n x", nonce="b\r\n c", opaque="d", qop="auth"'
    with (
        serving(pages) as device,
        recording(device.address) as recorder,
        Aiseg2Client(recorder.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW) as client,
    ):
        for served in (
            {LIST: ids.encode()},
            dict.fromkeys((FLOW, LIST, "GET /page/electricflow/111", EXPORT), moved),
            dict.fromkeys((FLOW, LIST, EXPORT), Answer(b"", 401, {"WWW-Authenticate": challenge})),
            {EXPORT: b'<form action="/action/reset"><input NAME="csrftoken" VALUE="7&doReset=1"></form>'},
        ):
            device.pages = pages | served
            for action in _reads(client, tmp_path):
                try:
                    action()
                except Aiseg2Error:
                    continue
    check_all(recorder)
