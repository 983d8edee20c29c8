"""An HTTP client for tests of the simulator; it uses nothing of the project's own client."""

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import requests
from lxml import html
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.simulator.chance import FloatArray, IntArray
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline.simulator.server import Running, running
from aiseg2_pipeline.simulator.weather import STEP_S

JAPAN = ZoneInfo("Asia/Tokyo")
NOON = datetime(2026, 7, 14, 12, 0, 5, tzinfo=JAPAN)
EVENING = datetime(2026, 7, 14, 20, 30, tzinfo=JAPAN)
FLOW = "/data/electricflow/111/update"
BATTERY_FLOW = "/data/electricflow/112/update"
FLOW_HTML = "/page/electricflow/111"
CIRCUITS_PAGE = "/page/electricflow/1113"
CIRCUIT_LIST = "/page/setting/installation/734"
CARD_PAGE = "/set/exectop2.cgi"


class Unit:
    """A running simulator whose clock the test sets, and a session with it."""

    def __init__(self, served: Running, times: list[datetime]) -> None:
        self.served = served
        self.times = times
        self.session = requests.Session()
        self.session.auth = HTTPDigestAuth(served.user, served.password)

    def set_clock(self, time: datetime) -> None:
        self.times[0] = time

    def url(self, path: str) -> str:
        return f"http://{self.served.address}{path}"

    def get(self, path: str, **params: str) -> requests.Response:
        return self.session.get(self.url(path), params=params, timeout=10)

    def post_flow(self, path: str = FLOW) -> requests.Response:
        return self.session.post(self.url(path), data={"data": "{}"}, timeout=10)

    def authorization(self, path: str) -> str:
        """Return the header of the session's next request; the session needs a nonce."""
        auth: Any = self.session.auth
        header: str = auth.build_digest_header("GET", self.url(path))
        return header

    def get_once(self, path: str, authorization: str | None = None) -> requests.Response:
        """Send a single request without a session, which does not repeat it after a 401."""
        headers = {} if authorization is None else {"Authorization": authorization.encode()}
        return requests.get(self.url(path), headers=headers, timeout=10)

    def page(self, path: str, **params: str) -> html.HtmlElement:
        response = self.get(path, **params)
        assert response.status_code == 200
        return html.fromstring(response.content)

    def flow(self) -> dict[str, Any]:
        flow: dict[str, Any] = self.post_flow().json()
        return flow

    def circuits(self, number: int) -> list[tuple[str, str]]:
        page = self.page(CIRCUITS_PAGE, id=str(number))
        return [
            (stage.findtext("div[@class='c_value']") or "", stage.find("div[@class='c_device']").text_content())
            for stage in page.xpath("//*[starts-with(@id, 'stage_')]")
        ]

    def all_circuits(self) -> list[tuple[str, str]]:
        return [row for number in (1, 2, 3, 4) for row in self.circuits(number)]

    def graph(self, page_id: str, day: date | None = None, circuit_id: str | None = None) -> dict[str, Any]:
        query: dict[str, Any] = {} if circuit_id is None else {"circuitid": circuit_id}
        if day is not None:
            query["day"] = [day.year, day.month, day.day]
        data = {"data": base64.b64encode(json.dumps(query).encode()).decode()} if query else {}
        return graph_data(self.get(f"/page/graph/{page_id}", **data).text)

    def registered(self) -> dict[int, str]:
        """Return the names on page 734 by id."""
        places = circuit_places(self.get(CIRCUIT_LIST).text)
        return {int(place["strId"]): place["strCircuit"] for place in places if place["strBtnType"] == "1"}

    def token(self) -> str:
        return _search(r'NAME="csrftoken" VALUE="(\w+)"', self.get(CARD_PAGE).text)

    def card(self) -> dict[str, str]:
        """Return the members of the SD card's export by name."""
        response = self.get(CARD_PAGE, downType="1", csrftoken=self.token())
        assert response.status_code == 200
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}


@dataclass(frozen=True)
class Energy:
    """Energy of an interval in Wh; circuits in the order of `CIRCUITS`."""

    generation_wh: float
    consumption_wh: float
    bought_wh: float
    sold_wh: float
    circuits_wh: FloatArray


def energy_wh(household: Household, start: datetime, end: datetime) -> Energy:
    """Return the energy of an interval of whole steps: the exact sum of the power."""
    power = household.power(np.arange(step_of(start), step_of(end)))

    def wh(watts: IntArray) -> float:
        return float(watts.sum()) * STEP_S / 3600

    return Energy(
        generation_wh=wh(power.generation_w),
        consumption_wh=wh(power.consumption_w),
        bought_wh=wh(power.bought_w),
        sold_wh=wh(power.sold_w),
        circuits_wh=power.circuits_w.sum(axis=0) * STEP_S / 3600,
    )


@contextmanager
def simulated(now: datetime = NOON, household: Household | None = None, **options: Any) -> Iterator[Unit]:
    """Serve a simulator whose clock stands at `now`; `options` as for `running`."""
    times = [now]
    with running(household, clock=lambda: times[0], **options) as served:
        yield Unit(served, times)


def circuit_places(text: str) -> list[dict[str, str]]:
    """Return the 45 places on page 734."""
    places: list[dict[str, str]] = json.loads(_search(r"window\.onload = init\((\{.*\})\);", text))[
        "arrayCircuitNameList"
    ]
    return places


def graph_data(text: str) -> dict[str, Any]:
    """Return a graph page's data, its total and its day."""
    total, day = _search(r'id="val_kwh">([^<]*)<', text), _search(r'id="val_current">([^<]*)<', text)
    return {**json.loads(_search(r"graph_data = (\{.*?\});", text)), "val_kwh": total, "val_current": day}


def shown_clock(text: str) -> dict[str, str]:
    """Return the clock of a page."""
    clock: dict[str, str] = json.loads(_search(r"TimeInfoVariable\.serverTime = '(.*?)';", text))
    return clock


def _search(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None
    return match[1]
