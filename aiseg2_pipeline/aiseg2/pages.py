"""The device's pages: pure functions from the bytes of a response to models.

No I/O. Every function either returns a complete reading or raises `Unreadable` (or `NoData`) with a message that
names the page and the element. The input is untrusted: no other exception is raised, and entities and external
references are not resolved.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import lxml.etree
import lxml.html

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.errors import NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import (
    Battery,
    BatteryState,
    Circuit,
    CircuitList,
    CircuitPage,
    CircuitPower,
    Exchange,
    GeneratingDevice,
    PowerFlow,
)

FLOW_JSON = "/data/electricflow/111/update"
FLOW_HTML = "/page/electricflow/111"
CIRCUITS = "/page/electricflow/1113"
CIRCUIT_LIST = "/page/setting/installation/734"
EXPORT = "/set/exectop2.cgi"

CIRCUITS_A_PAGE = 10
GENERATORS = (1, 2, 3)
MAX_PERCENT = 100
# The largest page of a real unit has 45 kB. The time of the HTML parser can grow with the square of the length, and a
# page of 8 MiB can take 200 MB as JSON values.
MAX_PAGE_BYTES = 256 * 2**10
TOKYO = ZoneInfo("Asia/Tokyo")

_EXCHANGES: dict[int | None, Exchange] = {0: Exchange.BUYING, 1: Exchange.SELLING, 2: Exchange.NEITHER}
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_TOO_LARGE = 10**9
_SMALL_INTEGER = re.compile(r"[0-9]{1,2}")
_SERVER_TIME = re.compile(rb"serverTime\s*=\s*'([^'<]{0,300})'")
# libxml2 treats these differently by version; `clean_name` replaces them with a space as well.
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LIST_CALL = re.compile(r"window\.onload\s*=\s*init\(")
_CIRCUIT_HREF = re.compile(r"/page/electricflow/1113\?(?:[^#?]*&)?id=([0-9]{1,4})(?![0-9])")
# Searched in the text: the form is before <body>, where HTML parsers handle it differently.
_CSRF = re.compile(
    rb"""NAME=["']?csrftoken["']?[^>]{0,100}?VALUE=["']?([^"'>\x00-\x20\x7f-\xff]{1,200})""", re.IGNORECASE
)


def flow_from_json(body: bytes) -> PowerFlow:
    """Return the power flow from the response to `POST /data/electricflow/111/update`."""
    data = json_value(body, FLOW_JSON)
    if not isinstance(data, dict):
        raise unreadable(FLOW_JSON, "is not an object with `g_capacity` and `u_capacity`")
    for key in ("g_capacity", "u_capacity", "g_d_1_title"):
        if key not in data:
            raise unreadable(FLOW_JSON, f"has no `{key}`")
    if _flag(data, "measReg") is False:
        raise NoData(
            f"The AiSEG2 has no measuring unit registered (`measReg` on {FLOW_JSON}), so there is no reading: "
            "register one in the AiSEG2's installation settings."
        )
    battery = None
    if _flag(data, "connSb"):
        percent = number(or_dash(data.get("percent")), FLOW_JSON, "percent")
        if percent is not None and percent > MAX_PERCENT:
            raise unreadable(FLOW_JSON, "has a `percent` over 100")
        battery = Battery(percent, _battery_state(data.get("charge")))
    return PowerFlow(
        generation_kw=number(data["g_capacity"], FLOW_JSON, "g_capacity"),
        consumption_kw=number(data["u_capacity"], FLOW_JSON, "u_capacity"),
        generators=_generators(
            {n: _text(data.get(f"g_d_{n}_title", ""), FLOW_JSON, f"g_d_{n}_title") for n in GENERATORS},
            # Blank, null or missing on some units with a battery or a second generator.
            lambda n: number(or_dash(data.get(f"g_d_{n}_capacity")), FLOW_JSON, f"g_d_{n}_capacity"),
        ),
        exchange=_EXCHANGES.get(small_integer(data.get("lo_buy_sell"))),
        battery=battery,
    )


def flow_from_html(body: bytes) -> PowerFlow:
    """Return the power flow of `GET /page/electricflow/111` (its layout is reported by five other programs)."""
    page = HtmlPage(FLOW_HTML, body)
    page.required("g_d_1_title")
    return PowerFlow(
        generation_kw=number(page.required("g_capacity").removesuffix("kW"), FLOW_HTML, "#g_capacity"),
        consumption_kw=number(page.required("u_capacity").removesuffix("kW"), FLOW_HTML, "#u_capacity"),
        generators=_generators(
            {n: page.text(f"g_d_{n}_title") or "" for n in GENERATORS},
            lambda n: _watts(page.text(f"g_d_{n}_capacity"), FLOW_HTML, f"#g_d_{n}_capacity"),
        ),
    )


def circuit_page(body: bytes, page: int) -> CircuitPage:
    """Return page `page` (from 1) of the circuits, `GET /page/electricflow/1113?id=N`."""
    root = html(body, f"{CIRCUITS}?id={page}")
    rows: list[CircuitPower] = []
    has_blank = False
    for n in range(1, CIRCUITS_A_PAGE + 1):
        stage = root.get_element_by_id(f"stage_{n}", None)
        if stage is None:
            break
        name = _child_text(stage, "c_device", page, n)
        value = _child_text(stage, "c_value", page, n).strip()
        has_blank = has_blank or not value
        # The device shows a registered circuit at 0 W as a blank.
        power_w = _watts(value, CIRCUITS, f"#stage_{n} .c_value") if value else 0.0
        rows.append(CircuitPower(clean_name(name), power_w))
    if not rows:
        raise unreadable(f"{CIRCUITS}?id={page}", "has no `#stage_1`")
    later = (int(n) for href in root.xpath("//@href") for n in _CIRCUIT_HREF.findall(href))
    return CircuitPage(tuple(rows), has_blank, all(n <= page for n in later), device_time(body))


def circuit_list(body: bytes) -> CircuitList:
    """Return the registered circuits of `GET /page/setting/installation/734`: those with `strBtnType` "1"."""
    if len(body) > MAX_PAGE_BYTES:
        raise _too_long(CIRCUIT_LIST)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise unreadable(CIRCUIT_LIST, "is not UTF-8") from None
    call = _LIST_CALL.search(text)
    if call is None:
        raise unreadable(CIRCUIT_LIST, "has no `window.onload = init(…)`")
    data = json_value(text[call.end() :], CIRCUIT_LIST, rest_allowed=True)
    entries = data.get("arrayCircuitNameList") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise unreadable(CIRCUIT_LIST, "has no `arrayCircuitNameList`")
    circuits = tuple(
        Circuit(_entry_text(entry, "strId"), _entry_text(entry, "strCircuit"))
        for entry in entries
        if _entry_text(entry, "strBtnType") == "1"
    )
    if len({circuit.circuit_id for circuit in circuits}) != len(circuits):
        raise unreadable(CIRCUIT_LIST, "gives one `strId` twice in `arrayCircuitNameList`")
    return CircuitList(circuits, device_time(body))


def export_token(body: bytes) -> str:
    """Return the form token of `GET /set/exectop2.cgi`; without one, the page is not the export page."""
    found = _CSRF.search(body)
    if found is None:
        raise unreadable(EXPORT, "has no `csrftoken`")
    return found.group(1).decode("ascii")


def device_time(body: bytes) -> datetime | None:
    """Return the device's clock (`TimeInfoVariable.serverTime`) in UTC; None where the page has no valid one."""
    found = _SERVER_TIME.search(body)
    if found is None:
        return None
    try:
        clock = json.loads(found.group(1))
        month, day, hour, minute, second = (int(clock[part]) for part in ("month", "day", "hour", "min", "sec"))
        local = datetime(2000 + int(clock["year"]) % 100, month, day, hour, minute, second, tzinfo=TOKYO)
        return local.astimezone(UTC)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def unreadable(page: str, what: str) -> Unreadable:
    """Return the error for a response to `page`; `what` is the verb phrase that says what is wrong."""
    return Unreadable(
        f"The response to {page} {what}, so it is not used: check that AISEG2_HOST is the AiSEG2 itself and that "
        "this page opens in a browser."
    )


def _too_long(page: str) -> Unreadable:
    return unreadable(page, f"is longer than {MAX_PAGE_BYTES // 2**10} KiB")


def json_value(body: bytes | str, page: str, *, rest_allowed: bool = False) -> Any:
    """Return the JSON value of a page; with `rest_allowed`, the value at the start of a script's text."""
    if len(body) > MAX_PAGE_BYTES:
        raise _too_long(page)
    decoder = json.JSONDecoder()
    try:
        text = body.decode() if isinstance(body, bytes) else body
        return decoder.raw_decode(text)[0] if rest_allowed else decoder.decode(text)
    except (ValueError, RecursionError):
        raise unreadable(page, "is not JSON") from None


def html(body: bytes, page: str) -> lxml.html.HtmlElement:
    """Return the page's root element. Raise Unreadable for a page that is truncated, too long or not UTF-8."""
    if len(body) > MAX_PAGE_BYTES:
        raise _too_long(page)
    # A page truncated inside a value would show a wrong number, so its end is required.
    if not body.rstrip().endswith(b">") or b"</html>" not in body.lower():
        raise unreadable(page, "ends in the middle")
    parser = lxml.html.HTMLParser(encoding="utf-8")
    try:
        body.decode()
        # As bytes: lxml refuses a str that begins with an XML declaration.
        root = lxml.html.document_fromstring(_CONTROLS.sub(b" ", body), parser=parser)
    except (lxml.etree.LxmlError, ValueError, AssertionError):
        raise unreadable(page, "is not HTML in UTF-8") from None
    # libxml2 drops the rest of a page that is nested too deeply, and reports it only here.
    if parser.error_log.filter_from_fatals():
        raise unreadable(page, "is nested too deeply")
    return root


class HtmlPage:
    """An HTML page whose elements are found by id."""

    def __init__(self, path: str, body: bytes) -> None:
        """Parse the page; `path` names it in errors."""
        self.path = path
        self.root: lxml.html.HtmlElement = html(body, path)

    def text(self, element_id: str) -> str | None:
        """Return the stripped text of an element; None where there is no such element."""
        element = self.root.get_element_by_id(element_id, None)
        return None if element is None else "".join(element.itertext()).strip()

    def required(self, element_id: str) -> str:
        """Return the stripped text of an element. Raise Unreadable where there is no such element."""
        text = self.text(element_id)
        if text is None:
            raise unreadable(self.path, f"has no `#{element_id}`")
        return text


def _child_text(stage: lxml.html.HtmlElement, css_class: str, page: int, n: int) -> str:
    found = stage.xpath("./*[contains(concat(' ', normalize-space(@class), ' '), $name)]", name=f" {css_class} ")
    if not found:
        raise unreadable(f"{CIRCUITS}?id={page}", f"has no `#stage_{n} .{css_class}`")
    # The page wraps a name with <br />: its parts are joined without a separator. Outer U+3000 and nbsp are trimmed as
    # in the series of the earlier forwarder.
    return "".join(found[0].itertext()).strip()


def _watts(text: str | None, page: str, element: str) -> float | None:
    """Return the number in ` 224W`; None for `-` with or without more text."""
    text = (text or "").strip()
    if text.startswith("-"):
        return None
    if not text.endswith("W"):
        raise unreadable(page, f"has no watts in `{element}`")
    return number(text.removesuffix("W"), page, element)


def number(value: Any, page: str, element: str) -> float | None:
    """Return a number as a float, `-` as None. Raise Unreadable for anything else, also negative numbers and NaN."""
    if isinstance(value, str):
        value = value.strip()
        if value == "-":
            return None
        if _NUMBER.fullmatch(value):
            return float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE:
        # JSON allows -0.0.
        return abs(float(value))
    raise unreadable(page, f"has no number in `{element}`")


def or_dash(value: Any) -> Any:
    """Return `-` for a blank or absent value; used for numbers that the reading does not need."""
    return "-" if value is None or (isinstance(value, str) and not value.strip()) else value


def _generators(titles: dict[int, str], power_w: Callable[[int], float | None]) -> tuple[GeneratingDevice, ...]:
    return tuple(
        GeneratingDevice(clean_name(title.strip()), power_w(n)) for n, title in titles.items() if title.strip()
    )


def _text(value: Any, page: str, element: str) -> str:
    if not isinstance(value, str):
        raise unreadable(page, f"has no text in `{element}`")
    return clean_name(value)


def _entry_text(entry: dict[str, Any], key: str) -> str:
    return _text(entry.get(key), CIRCUIT_LIST, f"arrayCircuitNameList[].{key}")


def small_integer(value: Any) -> int | None:
    """Return a small integer sent as text or number; None for any other value, as no reading depends on it."""
    if isinstance(value, str) and _SMALL_INTEGER.fullmatch(value):
        return int(value)
    return int(value) if isinstance(value, int | float) and value in range(100) else None


def _flag(data: dict[str, Any], key: str) -> bool | None:
    number = small_integer(data.get(key))
    return None if number is None else number != 0


def _battery_state(value: Any) -> BatteryState | None:
    number = small_integer(value)
    if number is None:
        return None
    return {0: BatteryState.CHARGING, 1: BatteryState.DISCHARGING}.get(number, BatteryState.IDLE)
