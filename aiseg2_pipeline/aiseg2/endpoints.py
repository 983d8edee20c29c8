"""Every request that can ever leave for the device: the pages that show something, and the one POST that redraws the flow.

The device has addresses that change it: `/action/…`, and the export form's with `doReset` or `demoMode`. So no other
module makes a method, a path or a query. The connection takes one of the values below and nothing else, and what the
device itself gave to be sent back to it (a circuit's id, the export form's token) must be letters and digits.

How an answer is read belongs in `pages` and its like; sending, in `connection`.
"""

import base64
import enum
import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from aiseg2_pipeline.aiseg2.climate import CLIMATE
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.graphs import CIRCUIT_GRAPH, Series, graph_page
from aiseg2_pipeline.aiseg2.pages import CIRCUIT_LIST, CIRCUITS, EXPORT, FLOW_HTML, FLOW_JSON

MAX_PAGES = 99
_PLAIN = re.compile(r"[0-9A-Za-z_-]{1,64}")
_CHANGES_THE_DEVICE = ("doreset", "demomode", "/action")


class Page(enum.Enum):
    """The pages that are asked for without anything beside."""

    FLOW_JSON = FLOW_JSON
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
    """The SD card's files, with the token of the export form."""

    token: str


Ask = Page | CircuitsPage | RoomsPage | Graph | CircuitGraph | ExportZip


class Wire(NamedTuple):
    """What stands in a request: its method, its target, and the body of a form."""

    method: Literal["GET", "POST"]
    target: str
    body: bytes | None = None


def wire(ask: Ask) -> Wire:
    """Return the request that asks for this.

    Raise Unreadable where it would send back what the device should not have given, TypeError for what is no Ask.
    """
    match ask:
        case Page.FLOW_JSON:
            return Wire("POST", FLOW_JSON, b"data={}")
        case Page():
            return Wire("GET", ask.value)
        case CircuitsPage(number):
            target = f"{CIRCUITS}?id={_number(number, CIRCUITS)}"
        case RoomsPage(number):
            target = f"{CLIMATE}?page={_number(number, CLIMATE)}"
        case Graph(series, day):
            target = graph_page(series)
            if day is not None:
                target += _data({"day": _parts_of(day), "month_compare": "mon", "day_compare": "day"})
        case CircuitGraph(circuit_id, day):
            asked: dict[str, Any] = {"circuitid": _plain(circuit_id, CIRCUIT_LIST, "strId")}
            if day is not None:
                asked = {"day": _parts_of(day), "term": f"{day:%Y/%m/%d}", "termStr": "day", "id": "1"} | asked
            target = CIRCUIT_GRAPH + _data(asked)
        case ExportZip(token):
            target = f"{EXPORT}?downType=1&csrftoken={_plain(token, EXPORT, 'csrftoken')}"
        case _:
            raise TypeError(f"{type(ask).__name__} is nothing that may be asked of the device")
    return Wire("GET", target)


def _number(number: int, page: str) -> int:
    if type(number) is not int:
        raise TypeError("a page's number is an int")
    if not 1 <= number <= MAX_PAGES:
        raise Unreadable(
            f"{page} has no page {number}, as no AiSEG2 has so many: check AISEG2_HOST and AISEG2_USE_HTTPS."
        )
    return number


def _plain(text: str, page: str, name: str) -> str:
    if not _PLAIN.fullmatch(text) or any(word in text.lower() for word in _CHANGES_THE_DEVICE):
        raise Unreadable(
            f"The answer to {page} has a `{name}` that is not of letters and digits, so it is not sent back: check "
            "AISEG2_HOST and AISEG2_USE_HTTPS."
        )
    return text


def _parts_of(day: date) -> list[int]:
    return [day.year, day.month, day.day]


def _data(asked: dict[str, Any]) -> str:
    """Return the query in which the device's own pages ask for a day."""
    text = json.dumps(asked, separators=(",", ":"))
    return "?data=" + quote(base64.b64encode(text.encode()).decode(), safe="")
