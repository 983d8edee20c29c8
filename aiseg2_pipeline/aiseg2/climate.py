"""The rooms' temperature and humidity: a pure function from the bytes of a response to rooms.

No I/O. A unit shows the rooms on page 43, on page 41, or on none. The layout of both is reported by other programs; no
capture of a real unit exists. So a number is used only where it can be read in one way. A number that cannot be read is
reported as a problem and does not affect the others.
"""

import enum
import re
from collections.abc import Iterator

import lxml.html

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.models import ClimatePage, Room
from aiseg2_pipeline.aiseg2.pages import MAX_PERCENT, device_time, html, unreadable

ROOMS_A_PAGE = 3

_PLACE = re.compile(r"base[0-9]{1,2}_1")
_DIGIT = re.compile(r"(?:^|\s)no([0-9])(?:\s|$)")
# On page 43 the class of the element around a number; on page 41, with `_`, the start of the ids of its digits.
_TEMPERATURE, _HUMIDITY = "num_ond", "num_shitudo"
_WRAPPER = "num_wrapper"
_WITH_POINT = re.compile(r"[0-9]{1,3}\.[0-9]")
_TOO_HOT_C = 100


class ClimateSource(enum.Enum):
    """The pages that can show the rooms, in the order in which they are tried: more programs read the first one."""

    PAGE_43 = "/page/airenvironment/43"
    PAGE_41 = "/page/airenvironment/41"


def climate_page(body: bytes, page: int, source: ClimateSource) -> ClimatePage:
    """Return page `page` (from 1) of the rooms, `GET /page/airenvironment/…?page=N`.

    A page without rooms has no place for one. Raise Unreadable where a page has rooms and none of their numbers can be
    read.
    """
    address = f"{source.value}?page={page}"
    root = html(body, address)
    rooms: list[Room] = []
    problems: list[str] = []
    for name, place in _places(root):
        rooms += _room(place, name, problems)
    if problems and all(room.temperature_c is None and room.humidity_percent is None for room in rooms):
        raise unreadable(address, problems[0])
    messages = (
        f"The response to {address} {problem}, so it is left out: check that page in a browser."
        for problem in problems
    )
    return ClimatePage(tuple(rooms), tuple(messages), device_time(body))


def _places(root: lxml.html.HtmlElement) -> Iterator[tuple[str, lxml.html.HtmlElement]]:
    """Yield each place for a room with its selector: by the ids of page 41, else by the class of page 43."""
    by_id = [element for element in root.iter("*") if _PLACE.fullmatch(element.get("id", ""))]
    if by_id:
        yield from ((f"#{element.get('id')}", element) for element in by_id)
    else:
        yield from ((f".base[{n}]", element) for n, element in enumerate(root.find_class("base"), 1))


def _room(place: lxml.html.HtmlElement, selector: str, problems: list[str]) -> Iterator[Room]:
    """Yield the room at a place on the page, unless the place is empty."""
    names = place.find_class("txt_name")
    # The parts of a wrapped name are joined with a space, as in the series of the earlier `climate`.
    name = clean_name(" ".join(part.strip() for part in names[0].itertext() if part.strip())) if names else ""
    has_numbers = any(place.find_class(css_class) for css_class in (_WRAPPER, _TEMPERATURE, _HUMIDITY))
    numbers = [_number(place, selector, kind, problems) for kind in (_TEMPERATURE, _HUMIDITY)]
    if not name.strip():
        if numbers != [None, None]:
            problems.append(f"has numbers of a room but no name in `{selector} .txt_name`")
    elif not has_numbers:
        problems.append(f"has neither `{selector} .{_WRAPPER}` nor `{selector} .{_TEMPERATURE}`")
    else:
        yield Room(name, *numbers)


def _number(place: lxml.html.HtmlElement, selector: str, kind: str, problems: list[str]) -> float | None:
    """Return a room's number; None where it has none, or where one that cannot be read was added to `problems`."""
    around = next((element for element in _visible(place) if kind in element.get("class", "").split()), None)
    characters = _of_page_41(place, f"{kind}_") if around is None else _of_page_43(around)
    text = "".join(characters).strip(".")
    if not text.strip("?.-"):
        # No element, hidden elements, or elements without a digit: the sensor has no value.
        return None
    number = _celsius(text) if kind == _TEMPERATURE else _percent(text)
    if number is None:
        elements = f"[id^={kind}_]" if around is None else f".{kind}"
        problems.append(f"has no number in `{selector} {elements}`")
    return number


def _of_page_41(place: lxml.html.HtmlElement, ids: str) -> Iterator[str]:
    """Yield the characters of a number whose elements have these ids, side by side with those of the other number."""
    for element in _visible(next(iter(place.find_class(_WRAPPER)), place)):
        if element.get("id", "").startswith(ids):
            yield _character(element)
        elif "num_dot" in element.get("class", "").split():
            yield "."


def _of_page_43(around: lxml.html.HtmlElement) -> Iterator[str]:
    """Yield the characters of a number in an element of its own; the class of the decimal point ends in `t`."""
    for element in _visible(around):
        css_class = element.get("class", "").rstrip()
        if css_class.endswith("t"):
            yield "."
        elif "num" in css_class.split() or _character(element) != "?":
            yield _character(element)


def _character(element: lxml.html.HtmlElement) -> str:
    """Return the digit or the minus sign that an element shows by its class, `?` for any other class."""
    css_class = element.get("class", "")
    if "no_minus" in css_class.split():
        return "-"
    digit = _DIGIT.search(css_class)
    return digit.group(1) if digit else "?"


def _visible(element: lxml.html.HtmlElement) -> Iterator[lxml.html.HtmlElement]:
    """Yield the descendants that are not hidden, in document order."""
    for child in element.iterchildren("*"):
        style = child.get("style", "").replace(" ", "").lower()
        if "visibility:hidden" not in style and "display:none" not in style:
            yield child
            yield from _visible(child)


def _celsius(text: str) -> float | None:
    """Return 23.5 for 23.5 and for the three digits 235; -2.6 for -2.6 and for -26, as a minus takes a digit's place."""
    digits = text.removeprefix("-")
    if _WITH_POINT.fullmatch(digits):
        celsius = float(digits)
    elif re.fullmatch("[0-9]{3}", digits) or re.fullmatch("-[0-9]{2}", text):
        celsius = int(digits) / 10
    else:
        return None
    if celsius >= _TOO_HOT_C:
        return None
    # 0.0 for -0.0.
    return celsius if text == digits else 0.0 - celsius


def _percent(text: str) -> float | None:
    """Return 65 for 65, 065, 65.0 and 650: a value above 100 without a point is in tenths."""
    if _WITH_POINT.fullmatch(text):
        percent = float(text)
    elif re.fullmatch("[0-9]{1,3}", text):
        percent = float(text) if int(text) <= MAX_PERCENT else int(text) / 10
    else:
        return None
    return percent if percent <= MAX_PERCENT else None
