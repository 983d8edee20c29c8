"""Page 41, the rooms' temperature and humidity: a pure function from the bytes of a response to rooms.

No I/O. The page's layout is reported by other programs; no capture of a real unit exists. So a number is used only
where it can be read in one way. A number that cannot be read is reported as a problem and does not affect the others.
"""

import re
from collections.abc import Iterator

import lxml.html

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.models import ClimatePage, Room
from aiseg2_pipeline.aiseg2.pages import MAX_PERCENT, device_time, html, unreadable

CLIMATE = "/page/airenvironment/41"
ROOMS_A_PAGE = 3

_DIGIT = re.compile(r"(?:^|\s)no([0-9])(?:\s|$)")
_TEMPERATURE, _HUMIDITY = "num_ond_", "num_shitudo_"
_WITH_POINT = re.compile(r"[0-9]{1,3}\.[0-9]")
_TOO_HOT_C = 100


def climate_page(body: bytes, page: int) -> ClimatePage:
    """Return page `page` (from 1) of the rooms, `GET /page/airenvironment/41?page=N`.

    A page without rooms has no `#base1_1`. Raise Unreadable where a page has rooms and none of their numbers can be read.
    """
    root = html(body, _address(page))
    rooms: list[Room] = []
    problems: list[str] = []
    for n in range(1, ROOMS_A_PAGE + 1):
        place = f"base{n}_1"
        base = root.get_element_by_id(place, None)
        if base is not None:
            rooms += _room(base, place, problems)
    if problems and all(room.temperature_c is None and room.humidity_percent is None for room in rooms):
        raise unreadable(_address(page), problems[0])
    messages = (
        f"The response to {_address(page)} {problem}, so it is left out: check that page in a browser."
        for problem in problems
    )
    return ClimatePage(tuple(rooms), tuple(messages), device_time(body))


def _address(page: int) -> str:
    return f"{CLIMATE}?page={page}"


def _room(base: lxml.html.HtmlElement, place: str, problems: list[str]) -> Iterator[Room]:
    """Yield the room at a place on the page, unless the place is empty."""
    names, wrappers = base.find_class("txt_name"), base.find_class("num_wrapper")
    # The parts of a wrapped name are joined with a space, as in the series of the earlier `climate`.
    name = clean_name(" ".join(part.strip() for part in names[0].itertext() if part.strip())) if names else ""
    numbers = (
        [_number(wrappers[0], place, kind, problems) for kind in (_TEMPERATURE, _HUMIDITY)] if wrappers else []
    )
    if not name.strip():
        if numbers != [None] * len(numbers):
            problems.append(f"has numbers of a room but no name in `#{place} .txt_name`")
    elif not wrappers:
        problems.append(f"has no `#{place} .num_wrapper`")
    else:
        yield Room(name, *numbers)


def _number(wrapper: lxml.html.HtmlElement, place: str, kind: str, problems: list[str]) -> float | None:
    """Return a room's number; None where it has none, or where one that cannot be read was added to `problems`."""
    text = "".join(_characters(wrapper, kind)).strip(".")
    if not text.strip("?."):
        # No element, hidden elements, or elements without a digit: the sensor has no value.
        return None
    number = _celsius(text) if kind == _TEMPERATURE else _percent(text)
    if number is None:
        problems.append(f"has no number in `#{place} [id^={kind}]`")
    return number


def _characters(wrapper: lxml.html.HtmlElement, kind: str) -> Iterator[str]:
    """Yield the characters that the visible elements of a number show: digits, `.`, and `?` for any other class."""
    for element in _visible(wrapper):
        css_class = element.get("class", "")
        if element.get("id", "").startswith(kind):
            digit = _DIGIT.search(css_class)
            yield digit.group(1) if digit else "?"
        elif "num_dot" in css_class.split():
            yield "."


def _visible(element: lxml.html.HtmlElement) -> Iterator[lxml.html.HtmlElement]:
    """Yield the descendants that are not hidden, in document order."""
    for child in element.iterchildren("*"):
        style = child.get("style", "").replace(" ", "").lower()
        if "visibility:hidden" not in style and "display:none" not in style:
            yield child
            yield from _visible(child)


def _celsius(text: str) -> float | None:
    """Return 23.5 for the three digits 235, with or without a decimal point."""
    if _WITH_POINT.fullmatch(text) and float(text) < _TOO_HOT_C:
        return float(text)
    return int(text) / 10 if re.fullmatch("[0-9]{3}", text) else None


def _percent(text: str) -> float | None:
    """Return 65 for 65, 065, 65.0 and 650: a value above 100 without a point is in tenths."""
    if _WITH_POINT.fullmatch(text):
        percent = float(text)
    elif re.fullmatch("[0-9]{1,3}", text):
        percent = float(text) if int(text) <= MAX_PERCENT else int(text) / 10
    else:
        return None
    return percent if percent <= MAX_PERCENT else None
