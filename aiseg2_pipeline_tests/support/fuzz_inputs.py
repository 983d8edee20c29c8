"""What a unit sends when all is well: the simulator's pages at several moments, and the captures where they are.

`test_garbage` and `benchmarks.fuzz` spoil them. Names that are hard to bear are among them.
"""

import base64
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

import requests
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.aiseg2 import climate, graphs, pages
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.device import CAPTURES, flow_html, flow_json
from aiseg2_pipeline_tests.support.fuzz_zips import zipped

# Noon on a day of summer, a night in winter just after midnight, and an evening of a leap day.
MOMENTS = ("2026-07-14T12:00:05+09:00", "2026-01-01T00:20:00+09:00", "2028-02-29T18:59:59+09:00")
CIRCUIT = str(CIRCUITS[0].circuit_id)
STRANGE = ("a,b", "a b=c", 'a"b', "a\\b", "<b>&amp;", "-", "😀", "\u202e逆", "#1", "電" * 40)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SERIES: tuple[graphs.Series, ...] = ("generation", "consumption", "bought", "sold", "hotwater", "gas")
_ROWS = 4
# What this module calls the pages that have no series of their own.
LIVE = {
    "flow json": pages.FLOW_JSON,
    "flow html": pages.FLOW_HTML,
    "circuit page": f"{pages.CIRCUITS}?id=1",
    "circuit page 4": f"{pages.CIRCUITS}?id=4",
    "circuit list": pages.CIRCUIT_LIST,
    "climate": f"{climate.CLIMATE}?page=1",
    "export page": pages.EXPORT,
}


def pages_of_moments() -> dict[str, list[bytes]]:
    """Return good answers by what they are: the keys of `LIVE`, "graph" and its series, "zip", and each kind of CSV."""
    good: dict[str, list[bytes]] = defaultdict(list)
    for number, moment in enumerate(MOMENTS):
        renames = [(_EPOCH, c.circuit_id, name) for c, name in zip(CIRCUITS, STRANGE, strict=False)] * (
            number == 1
        )
        _of_moment(good, datetime.fromisoformat(moment), Household(number + 1, renames=renames))
    good["flow json"].append(
        flow_json(connSb=1, percent="80", fc={"fcState": 1}, best1=1, u_d_1_title="ＬＤ", u_d_1_capacity="-")
    )
    good["flow html"].append(flow_html())
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
            good[key].append(path.read_bytes())
    return good


def _of_moment(good: dict[str, list[bytes]], now: datetime, household: Household) -> None:
    served = running(household, clock=lambda: now, sd_card=True, card_days=2, rooms=("リビング", "寝室", 'a"b'))
    with served as unit, requests.Session() as session:
        session.auth = HTTPDigestAuth(unit.user, unit.password)
        url = f"http://{unit.address}"

        def get(path: str, **asked: str) -> bytes:
            return session.get(url + path, params=asked, timeout=60).content

        good["flow json"].append(session.post(url + pages.FLOW_JSON, data="data={}", timeout=60).content)
        for key in LIVE.keys() - {"flow json"}:
            good[key].append(get(LIVE[key]))
        for series in SERIES:
            good[f"graph {series}"].append(get(graphs.graph_page(series)))
        data = base64.b64encode(json.dumps({"circuitid": CIRCUIT}).encode()).decode()
        good["graph usage"].append(get(graphs.CIRCUIT_GRAPH, data=data))
        token = pages.export_token(good["export page"][-1])
        files = _short_files(get(pages.EXPORT, downType="1", csrftoken=token))
    for name, text in files.items():
        good[kind_of(name)].append(text)
    some = list(files)[:1] + list(files)[-7:]
    good["zip"].append(zipped({name: files[name] for name in some}, zipfile.ZIP_DEFLATED))


def _short_files(card: bytes) -> Mapping[str, bytes]:
    """Return the card's tables, each with a few of its rows."""
    with zipfile.ZipFile(io.BytesIO(card)) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".csv"))
        return {name: b"".join(archive.read(name).splitlines(keepends=True)[: 1 + _ROWS]) for name in names}


def kind_of(member: str) -> str:
    """Return what a file of the card is called here: its name without the time."""
    return member.partition("_")[0]


def state_files() -> dict[str, list[bytes]]:
    """Return good files of the state folder."""
    device = {"base_url": "http://127.0.0.1"}
    challenge = {"realm": "AiSEG2", "nonce": "0a1b", "algorithm": "MD5", "qop": "auth", "opaque": "o"}
    login = {"base_url": "@url@", "user": "aiseg", "challenge": challenge, "nonce_count": 7}
    return {
        "login": [_json(login), _json(login | {"challenge": {"realm": "寝室", "nonce": "=="}})],
        "climate": [
            _json({"device": "@url@", "seen_at": 1784000000.5}),
            _json({"device": "@url@", "ask_at": 1e9}),
        ],
        "device": [
            _json(
                {
                    "device": device,
                    "flow_html_only_since": 1784000000.5,
                    "circuits": {
                        "circuits": [["8", "ＬＤ・エアコン"], ["9", "ＩＨ"]],
                        "listed_at": 1784000000.5,
                        "full_read_at": 1784000000.5,
                        "dash_seen": False,
                        "shown": {"ＬＤエアコン": "ＬＤエアコン", "ＩＨ": "ＩＨ"},
                    },
                }
            )
        ],
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
