"""The device's pages: pure functions from the bytes of an answer to models.

No I/O. Every function either returns a whole reading or raises `Unreadable` (or `NoData`) with one sentence that
names the page and the element. What the device sends is untrusted: nothing but those errors comes out, and
entities and external references are not followed.
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
    Consumer,
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
# The largest page of a real unit has 45 kB. A hostile one of megabytes would keep the HTML parser busy with the square of
# its length, and be two hundred megabytes as JSON values.
MAX_PAGE_BYTES = 256 * 2**10
TOKYO = ZoneInfo("Asia/Tokyo")

_EXCHANGES: dict[int | None, Exchange] = {0: Exchange.BUYING, 1: Exchange.SELLING, 2: Exchange.NEITHER}
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_TOO_LARGE = 10**9
_SMALL_INTEGER = re.compile(r"[0-9]{1,2}")
_SERVER_TIME = re.compile(rb"serverTime\s*=\s*'([^'<]{0,300})'")
# What libxml2 makes of these in HTML differs by version; a space is what `clean_name` makes of them elsewhere.
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_LIST_CALL = re.compile(r"window\.onload\s*=\s*init\(")
_CIRCUIT_HREF = re.compile(r"/page/electricflow/1113\?(?:[^#?]*&)?id=([0-9]{1,4})(?![0-9])")
# Found by text: the form stands before <body>, where HTML parsers disagree on what to do with it.
_CSRF = re.compile(
    rb"""NAME=["']?csrftoken["']?[^>]{0,100}?VALUE=["']?([^"'>\x00-\x20\x7f-\xff]{1,200})""", re.IGNORECASE
)


def flow_from_json(body: bytes) -> PowerFlow:
    """Return the power flow that `POST /data/electricflow/111/update` answered."""
    data = json_value(body, FLOW_JSON)
    if not isinstance(data, dict):
        raise unreadable(FLOW_JSON, "is not an object with `g_capacity` and `u_capacity`")
    for key in ("g_capacity", "u_capacity", "g_d_1_title"):
        if key not in data:
            raise unreadable(FLOW_JSON, f"has no `{key}`")
    if _flag(data, "measReg") is False:
        raise NoData(
            f"The AiSEG2 has no measuring unit registered (`measReg` on {FLOW_JSON}), so it has nothing to read: "
            "register one in the device's installation settings."
        )
    battery = None
    if _flag(data, "connSb"):
        percent = number(data.get("percent", "-"), FLOW_JSON, "percent")
        if percent is not None and percent > MAX_PERCENT:
            raise unreadable(FLOW_JSON, "has a `percent` over 100")
        battery = Battery(percent, _battery_state(data.get("charge")))
    fuel_cell = data.get("fc")
    return PowerFlow(
        generation_kw=number(data["g_capacity"], FLOW_JSON, "g_capacity"),
        consumption_kw=number(data["u_capacity"], FLOW_JSON, "u_capacity"),
        generators=_generators(
            {n: _text(data.get(f"g_d_{n}_title", ""), FLOW_JSON, f"g_d_{n}_title") for n in GENERATORS},
            lambda n: number(data.get(f"g_d_{n}_capacity"), FLOW_JSON, f"g_d_{n}_capacity"),
        ),
        exchange=_EXCHANGES.get(_integer(data.get("lo_buy_sell"))),
        battery=battery,
        ev_connected=_flag(data, "connEv"),
        fuel_cell_connected=_flag(data, "connFc"),
        fuel_cell_state=_integer(fuel_cell.get("fcState")) if isinstance(fuel_cell, dict) else None,
        largest_consumers=tuple(
            Consumer(
                _text(data.get(f"u_d_{n}_title", ""), FLOW_JSON, f"u_d_{n}_title"),
                number(or_dash(data.get(f"u_d_{n}_capacity")), FLOW_JSON, f"u_d_{n}_capacity"),
            )
            for n in GENERATORS
            if _flag(data, f"best{n}")
        ),
    )


def flow_from_html(body: bytes) -> PowerFlow:
    """Return the power flow that `GET /page/electricflow/111` shows (as five other programs report the page)."""
    root = html(body, FLOW_HTML)

    def text(element: str) -> str | None:
        found = root.xpath("//*[@id=$id]", id=element)
        return "".join(found[0].itertext()).strip() if found else None

    def required(element: str) -> str:
        value = text(element)
        if value is None:
            raise unreadable(FLOW_HTML, f"has no `#{element}`")
        return value

    return PowerFlow(
        generation_kw=number(required("g_capacity").removesuffix("kW"), FLOW_HTML, "#g_capacity"),
        consumption_kw=number(required("u_capacity").removesuffix("kW"), FLOW_HTML, "#u_capacity"),
        generators=_generators(
            {1: required("g_d_1_title"), 2: text("g_d_2_title") or "", 3: text("g_d_3_title") or ""},
            lambda n: _watts(text(f"g_d_{n}_capacity"), FLOW_HTML, f"#g_d_{n}_capacity"),
        ),
    )


def circuit_page(body: bytes, page: int) -> CircuitPage:
    """Return page `page` (from 1) of the circuits, `GET /page/electricflow/1113?id=N`."""
    root = html(body, f"{CIRCUITS}?id={page}")
    rows: list[CircuitPower] = []
    has_blank = False
    for n in range(1, CIRCUITS_A_PAGE + 1):
        stages = root.xpath("//*[@id=$id]", id=f"stage_{n}")
        if not stages:
            break
        name = _child_text(stages[0], "c_device", page, n)
        value = _child_text(stages[0], "c_value", page, n).strip()
        has_blank = has_blank or not value
        # A blank is what the device draws for a registered circuit at 0 W.
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
    """Return the form token of `GET /set/exectop2.cgi`; a page without one is not the export page."""
    found = _CSRF.search(body)
    if found is None:
        raise unreadable(EXPORT, "has no `csrftoken`")
    return found.group(1).decode("ascii")


def device_time(body: bytes) -> datetime | None:
    """Return the device's clock (`TimeInfoVariable.serverTime`) in UTC, or None where a page has none."""
    found = _SERVER_TIME.search(body)
    if found is None:
        return None
    try:
        told = json.loads(found.group(1))
        month, day, hour, minute, second = (int(told[part]) for part in ("month", "day", "hour", "min", "sec"))
        shown = datetime(2000 + int(told["year"]) % 100, month, day, hour, minute, second, tzinfo=TOKYO)
        return shown.astimezone(UTC)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def unreadable(page: str, what: str) -> Unreadable:
    """Return the error that says what is wrong with the answer to `page`."""
    return Unreadable(
        f"The answer to {page} {what}, so it is no reading: check that AISEG2_HOST is the AiSEG2 itself and that "
        "this page opens in a browser."
    )


def _too_long(page: str) -> Unreadable:
    return unreadable(page, f"is longer than {MAX_PAGE_BYTES // 2**10} KiB")


def json_value(body: bytes | str, page: str, *, rest_allowed: bool = False) -> Any:
    """Return the JSON value of a page, or the one that a script's text begins with (`rest_allowed`)."""
    if len(body) > MAX_PAGE_BYTES:
        raise _too_long(page)
    decoder = json.JSONDecoder()
    try:
        text = body.decode() if isinstance(body, bytes) else body
        return decoder.raw_decode(text)[0] if rest_allowed else decoder.decode(text)
    except (ValueError, RecursionError):
        raise unreadable(page, "is not JSON") from None


def html(body: bytes, page: str) -> lxml.html.HtmlElement:
    """Return the page's root element; refuse a page that was cut, is too long or not UTF-8."""
    if len(body) > MAX_PAGE_BYTES:
        raise _too_long(page)
    # A page that was cut inside a value would show a wrong number, so its end must be there.
    if not body.rstrip().endswith(b">") or b"</html>" not in body.lower():
        raise unreadable(page, "ends in the middle")
    parser = lxml.html.HTMLParser(encoding="utf-8")
    try:
        body.decode()
        # As bytes: lxml refuses a str that begins with an XML declaration.
        root = lxml.html.document_fromstring(_CONTROLS.sub(b" ", body), parser=parser)
    except (lxml.etree.LxmlError, ValueError, AssertionError):
        raise unreadable(page, "is not HTML in UTF-8") from None
    # libxml2 drops the rest of a page that is nested too deeply, and says so only here.
    if parser.error_log.filter_from_fatals():
        raise unreadable(page, "is nested too deeply")
    return root


def _child_text(stage: lxml.html.HtmlElement, css_class: str, page: int, n: int) -> str:
    found = stage.xpath("./*[contains(concat(' ', normalize-space(@class), ' '), $name)]", name=f" {css_class} ")
    if not found:
        raise unreadable(f"{CIRCUITS}?id={page}", f"has no `#stage_{n} .{css_class}`")
    # The page wraps a name with <br />: joined with nothing, it is the name again.
    return "".join(found[0].itertext()).strip("\r\n\t ")


def _watts(text: str | None, page: str, element: str) -> float | None:
    """Return the number in ` 224W`; `-`, and `-` with what follows it, is None."""
    text = (text or "").strip()
    if text.startswith("-"):
        return None
    if not text.endswith("W"):
        raise unreadable(page, f"has no watts in `{element}`")
    return number(text.removesuffix("W"), page, element)


def number(value: Any, page: str, element: str) -> float | None:
    """Return a number as a float, `-` as None; refuse anything else, negative numbers and NaN included."""
    if isinstance(value, str):
        value = value.strip()
        if value == "-":
            return None
        if _NUMBER.fullmatch(value):
            return float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE:
        # JSON can write -0.0.
        return abs(float(value))
    raise unreadable(page, f"has no number in `{element}`")


def or_dash(value: Any) -> Any:
    """Return `-` for an empty value, where the reading does not need the number."""
    return "-" if value in ("", None) else value


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


def _integer(value: Any) -> int | None:
    """Return a mixed-type small integer of the flow; it only describes, so the unknown is None."""
    if isinstance(value, str) and _SMALL_INTEGER.fullmatch(value):
        return int(value)
    return int(value) if isinstance(value, int | float) and value in range(100) else None


def _flag(data: dict[str, Any], key: str) -> bool | None:
    number = _integer(data.get(key))
    return None if number is None else number != 0


def _battery_state(value: Any) -> BatteryState | None:
    number = _integer(value)
    if number is None:
        return None
    return {0: BatteryState.CHARGING, 1: BatteryState.DISCHARGING}.get(number, BatteryState.IDLE)
