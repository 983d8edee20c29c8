"""Valid inputs of the fuzz targets: the simulator's pages at several moments, and the captures of a real unit."""

import base64
import io
import json
import zipfile
from collections import defaultdict
from datetime import UTC, datetime

import requests
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.aiseg2 import climate, graphs, pages
from aiseg2_pipeline.aiseg2.battery_flow import BATTERY_FLOW
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.device import CAPTURES, flow_html, flow_json
from aiseg2_pipeline_tests.support.fuzz import zipped

# A summer noon, a winter night after midnight, the evening of a leap day.
MOMENTS = ("2026-07-14T12:00:05+09:00", "2026-01-01T00:20:00+09:00", "2028-02-29T18:59:59+09:00")
CIRCUIT = str(CIRCUITS[0].circuit_id)
NAMES = ("a,b", "a b=c", 'a"b', "a\\b", "<b>&amp;", "-", "😀", "\u202e逆", "#1", "電" * 40)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SERIES: tuple[graphs.Series, ...] = ("generation", "consumption", "bought", "sold", "hotwater", "gas")
_ROWS = 4
# The paths of the pages that are no graph.
LIVE = {
    "flow json": pages.FLOW_JSON,
    "battery flow": BATTERY_FLOW,
    "flow html": pages.FLOW_HTML,
    "circuit page": f"{pages.CIRCUITS}?id=1",
    "circuit page 4": f"{pages.CIRCUITS}?id=4",
    "circuit list": pages.CIRCUIT_LIST,
    "climate": f"{climate.ClimateSource.PAGE_43.value}?page=1",
    "export page": pages.EXPORT,
}


def valid_inputs() -> dict[str, list[bytes]]:
    """Return the inputs by the keys of `LIVE`, "graph" with its series, "zip", and each kind of CSV file."""
    valid: dict[str, list[bytes]] = defaultdict(list)
    for number, moment in enumerate(MOMENTS):
        renames = [(_EPOCH, c.circuit_id, name) for c, name in zip(CIRCUITS, NAMES, strict=False)] * (number == 1)
        _add_moment(valid, datetime.fromisoformat(moment), Household(number + 1, renames=renames, battery=True))
    valid["flow json"].append(
        flow_json(connSb=1, percent="80", fc={"fcState": 1}, best1=1, u_d_1_title="ＬＤ", u_d_1_capacity="-")
    )
    valid["flow html"].append(flow_html())
    for name, key in {
        "electricflow_111.json": "flow json",
        "electricflow_1113_id1.html": "circuit page",
        "electricflow_1113_id4.html": "circuit page",
        "electricflow_1113_id5.html": "circuit page",
        "installation_734.html": "circuit list",
        "exectop2.html": "export page",
        "graph_51111.html": "graph generation",
        "graph_52111.html": "graph consumption",
    }.items():
        if (path := CAPTURES / name).exists():
            valid[key].append(path.read_bytes())
    return valid


def _add_moment(valid: dict[str, list[bytes]], now: datetime, household: Household) -> None:
    served = running(household, clock=lambda: now, sd_card=True, card_days=2, rooms=("リビング", "寝室", 'a"b'))
    with served as unit, requests.Session() as session:
        session.auth = HTTPDigestAuth(unit.user, unit.password)
        url = f"http://{unit.address}"

        def get(path: str, **parameters: str) -> bytes:
            return session.get(url + path, params=parameters, timeout=60).content

        posts = ("flow json", "battery flow")
        for key in posts:
            valid[key].append(session.post(url + LIVE[key], data="data={}", timeout=60).content)
        for key in LIVE.keys() - {*posts}:
            valid[key].append(get(LIVE[key]))
        for series in SERIES:
            valid[f"graph {series}"].append(get(graphs.graph_page(series)))
        data = base64.b64encode(json.dumps({"circuitid": CIRCUIT}).encode()).decode()
        valid["graph usage"].append(get(graphs.CIRCUIT_GRAPH, data=data))
        token = pages.export_token(valid["export page"][-1])
        files = _short_files(get(pages.EXPORT, downType="1", csrftoken=token))
    for name, text in files.items():
        valid[name.partition("_")[0]].append(text)
    some = list(files)[:1] + list(files)[-7:]
    valid["zip"].append(zipped({name: files[name] for name in some}, zipfile.ZIP_DEFLATED))


def _short_files(card: bytes) -> dict[str, bytes]:
    """Return the card's CSV files with a few of their rows."""
    with zipfile.ZipFile(io.BytesIO(card)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".csv"))
        return {name: b"".join(archive.read(name).splitlines(keepends=True)[: 1 + _ROWS]) for name in names}


def state_files() -> list[bytes]:
    """Return valid state files of the device's client and of the rooms' sensors."""
    challenge = {"realm": "AiSEG2", "nonce": "0a1b", "algorithm": "MD5", "qop": "auth", "opaque": "o"}
    login = {"base_url": "@url@", "user": "aiseg", "challenge": challenge, "nonce_count": 7}
    memory = {
        "circuits": [["8", "ＬＤ・エアコン"], ["9", "ＩＨ"]],
        "listed_at": 1784000000.5,
        "full_read_at": 1784000000.5,
        "dash_seen": False,
        "shown": {"ＬＤエアコン": "ＬＤエアコン", "ＩＨ": "ＩＨ"},
    }
    states: list[dict[str, object]] = [
        login,
        login | {"challenge": {"realm": "寝室", "nonce": "=="}},
        {"device": {"base_url": "@url@"}, "flow_html_only_since": 1784000000.5, "circuits": memory},
        {"device": "@url@", "seen_at": 1784000000.5},
        {"device": "@url@", "ask_at": 1e9},
    ]
    return [json.dumps(state, ensure_ascii=False).encode() for state in states]
