"""Every request that can be sent to the device: pages to read, and the two POSTs that redraw the power flow.

Some addresses change the device: `/action/…`, and the export form's with `doReset` or `demoMode`. So no other module
builds a method, a path or a query. The connection accepts only the values defined here, and a text that the device
itself sent (a circuit's id, the export form's token) may only hold letters, digits, `_` and `-`.

Parsing a response belongs in `pages`, `battery_flow`, `graphs` and `climate`; sending a request, in `connection`.
"""

import base64
import enum
import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from aiseg2_pipeline.aiseg2.battery_flow import BATTERY_FLOW
from aiseg2_pipeline.aiseg2.climate import ClimateSource
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.graphs import CIRCUIT_GRAPH, Series, graph_page
from aiseg2_pipeline.aiseg2.pages import CIRCUIT_LIST, CIRCUITS, EXPORT, FLOW_HTML, FLOW_JSON

MAX_PAGES = 99
_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,64}")
_FORBIDDEN_WORDS = ("doreset", "demomode", "/action")


class Page(enum.Enum):
    """The pages that need no parameter."""

    FLOW_JSON = FLOW_JSON
    BATTERY_FLOW = BATTERY_FLOW
    FLOW_HTML = FLOW_HTML
    CIRCUIT_LIST = CIRCUIT_LIST
    EXPORT_FORM = EXPORT


@dataclass(frozen=True)
class CircuitsPage:
    """Page `number`, from 1, of the circuits."""

    number: int


@dataclass(frozen=True)
class RoomsPage:
    """Page `number`, from 1, of the rooms' temperature and humidity."""

    source: ClimateSource
    number: int


@dataclass(frozen=True)
class Graph:
    """A day's graph of a series; without a day, today's."""

    series: Series
    day: date | None


@dataclass(frozen=True)
class CircuitGraph:
    """A day's graph of a circuit (page 734's `strId`); without a day, today's."""

    circuit_id: str
    day: date | None


@dataclass(frozen=True)
class ExportZip:
    """The zip of the SD card's files, with the token of the export form."""

    token: str


Endpoint = Page | CircuitsPage | RoomsPage | Graph | CircuitGraph | ExportZip


class HttpRequest(NamedTuple):
    """A request's method, target (path and query) and form body."""

    method: Literal["GET", "POST"]
    target: str
    body: bytes | None = None


def http_request(endpoint: Endpoint) -> HttpRequest:
    """Return the request of an endpoint.

    Raise Unreadable for an id, token or page number that no AiSEG2 has, TypeError for anything but an Endpoint.
    """
    match endpoint:
        case Page.FLOW_JSON | Page.BATTERY_FLOW:
            return HttpRequest("POST", endpoint.value, b"data={}")
        case Page():
            return HttpRequest("GET", endpoint.value)
        case CircuitsPage(number):
            target = f"{CIRCUITS}?id={_number(number, CIRCUITS)}"
        case RoomsPage(ClimateSource(value=address), number):
            target = f"{address}?page={_number(number, address)}"
        case Graph(series, day):
            target = graph_page(series)
            if day is not None:
                target += _data({"day": _parts_of(day), "month_compare": "mon", "day_compare": "day"})
        case CircuitGraph(circuit_id, day):
            parameters: dict[str, Any] = {"circuitid": _plain(circuit_id, CIRCUIT_LIST, "strId")}
            if day is not None:
                term = {"day": _parts_of(day), "term": f"{day:%Y/%m/%d}", "termStr": "day", "id": "1"}
                parameters = term | parameters
            target = CIRCUIT_GRAPH + _data(parameters)
        case ExportZip(token):
            target = f"{EXPORT}?downType=1&csrftoken={_plain(token, EXPORT, 'csrftoken')}"
        case _:
            raise TypeError(f"{type(endpoint).__name__} is not an endpoint of the device")
    return HttpRequest("GET", target)


def _number(number: int, page: str) -> int:
    if type(number) is not int:
        raise TypeError("a page's number is an int")
    if not 1 <= number <= MAX_PAGES:
        raise Unreadable(
            f"{page} has no page {number}, as no AiSEG2 has that many: check AISEG2_HOST and AISEG2_USE_HTTPS."
        )
    return number


def _plain(text: str, page: str, name: str) -> str:
    if not _PLAIN.fullmatch(text) or any(word in text.lower() for word in _FORBIDDEN_WORDS):
        raise Unreadable(
            f"The response to {page} has a `{name}` with other characters than letters and digits, so it is not used: check "
            "AISEG2_HOST and AISEG2_USE_HTTPS."
        )
    return text


def _parts_of(day: date) -> list[int]:
    return [day.year, day.month, day.day]


def _data(parameters: dict[str, Any]) -> str:
    """Return the query `?data=…` that the device's own pages use for a day."""
    text = json.dumps(parameters, separators=(",", ":"))
    return "?data=" + quote(base64.b64encode(text.encode()).decode(), safe="")
