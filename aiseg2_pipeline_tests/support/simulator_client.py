"""The simulator as its tests read it: over HTTP, with a client that knows nothing of the project's own."""

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import requests
from lxml import html
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import Running, running

JAPAN = ZoneInfo("Asia/Tokyo")
NOON = datetime(2026, 7, 14, 12, 0, 5, tzinfo=JAPAN)
EVENING = datetime(2026, 7, 14, 20, 30, tzinfo=JAPAN)
CAPTURES = Path(__file__).parents[3] / "shared" / "captures"
FLOW = "/data/electricflow/111/update"
FLOW_HTML = "/page/electricflow/111"
CIRCUITS_PAGE = "/page/electricflow/1113"
CIRCUIT_LIST = "/page/setting/installation/734"
CARD_PAGE = "/set/exectop2.cgi"


class Unit:
    """A running unit whose clock the test sets, and one session that reads it."""

    def __init__(self, served: Running, times: list[datetime]) -> None:
        self.served = served
        self.times = times
        self.session = session_for(served)

    def set_clock(self, time: datetime) -> None:
        self.times[0] = time

    def get(self, path: str, **params: str) -> requests.Response:
        return self.session.get(f"http://{self.served.address}{path}", params=params, timeout=10)

    def page(self, path: str, **params: str) -> html.HtmlElement:
        answer = self.get(path, **params)
        assert answer.status_code == 200
        return html.fromstring(answer.content)

    def flow(self) -> dict[str, Any]:
        answer = self.session.post(f"http://{self.served.address}{FLOW}", data={"data": "{}"}, timeout=10)
        flow: dict[str, Any] = answer.json()
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
        asked: dict[str, Any] = {} if circuit_id is None else {"circuitid": circuit_id}
        if day is not None:
            asked["day"] = [day.year, day.month, day.day]
        data = {"data": base64.b64encode(json.dumps(asked).encode()).decode()} if asked else {}
        return graph_data(self.get(f"/page/graph/{page_id}", **data).text)

    def registered(self) -> dict[int, str]:
        """Return the names on page 734 by id."""
        match = re.search(r"window\.onload = init\((\{.*\})\);", self.get(CIRCUIT_LIST).text)
        assert match is not None
        places = json.loads(match[1])["arrayCircuitNameList"]
        return {int(place["strId"]): place["strCircuit"] for place in places if place["strBtnType"] == "1"}

    def token(self) -> str:
        match = re.search(r'NAME="csrftoken" VALUE="(\w+)"', self.get(CARD_PAGE).text)
        assert match is not None
        return match[1]

    def card(self) -> dict[str, str]:
        """Return the members of the SD card's export by name."""
        answer = self.get(CARD_PAGE, downType="1", csrftoken=self.token())
        assert answer.status_code == 200
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}


@contextmanager
def simulated(now: datetime = NOON, household: Household | None = None, **options: Any) -> Iterator[Unit]:
    """Serve a unit whose clock stands at `now`; `options` as for `running`."""
    times = [now]
    with running(household, clock=lambda: times[0], **options) as served:
        yield Unit(served, times)


def session_for(served: Running) -> requests.Session:
    session = requests.Session()
    session.auth = HTTPDigestAuth(served.user, served.password)
    return session


def graph_data(text: str) -> dict[str, Any]:
    match = re.search(r"graph_data = (\{.*?\});", text)
    total = re.search(r'id="val_kwh">([^<]*)<', text)
    shown = re.search(r'id="val_current">([^<]*)<', text)
    assert match is not None
    assert total is not None
    assert shown is not None
    return {**json.loads(match[1]), "val_kwh": total[1], "val_current": shown[1]}
