"""Builders of the device's graph pages and room climate pages, written by hand as those in `device`."""

import json
from datetime import date, datetime
from typing import Any

from aiseg2_pipeline.aiseg2.endpoints import Graph, http_request
from aiseg2_pipeline_tests.support.device import SERVER_TIME, Page

# As the device's pages show a time: in Japan time. CLOCK is SERVER_TIME.
CLOCK, NEXT_DAY = datetime(2026, 7, 14, 8, 15, 53), datetime(2026, 7, 15, 9, 0, 0)  # noqa: DTZ001
HOURS = [0.0, 0.001, 0.736, *([0.25] * 20), 1.127]


def graph_page(
    total1: Any = HOURS,
    total: str | None = None,
    /,
    *,
    clock: datetime | None = NEXT_DAY,
    day: str = "2026/07/14",
    unit: str = "kWh",
    title: str = "",
    **variables: Any,
) -> bytes:
    """Return a graph page whose total is the sum of `total1` unless given; a variable of None is left out."""
    if total is None:
        total = f"{sum(total1):.3f}"
    data = {"unit": "day", "total1": total1, "val2": [], "total2": [9.9] * 24, "max": 5, "totalValue": total}
    data = {key: value for key, value in (data | variables).items() if value is not None}
    parts = {"year": "%y", "month": "%m", "day": "%d", "hour": "%H", "min": "%M", "sec": "%S"}
    time = clock and {name: clock.strftime(form).lstrip("0") or "0" for name, form in parts.items()}
    script = f"TimeInfoVariable.serverTime = '{json.dumps(time)}';" if time else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html><html><head><title>&nbsp;</title></head><body class=pc>
<h1 id="h_title">{title}<span id="h_subtitle"></span></h1><script>{script}</script>
<div id="val_current">{day}</div><span id="val_kwh">{total}</span><span id="unit_kwh">{unit}</span>
<script>
  var version = 'Ver';
  var graph_data = {json.dumps(data, ensure_ascii=False)};
  var tabs = {{"day":[2026,7,14]}};
</script></body></html>""".encode()


def empty_graph(day: date) -> dict[str, Page]:
    """Return the consumption's graph page of a day without data."""
    page = graph_page([0] * 24, "-", clock=CLOCK, day=f"{day:%Y/%m/%d}", title="使用電力量")
    return {f"GET {http_request(Graph('consumption', day)).target}": page}


def number_elements(kind: str, text: str) -> str:
    """Return the elements of a number of page 41; `.` is the decimal point, `_` an element without a digit."""
    return "".join(_element(char, f'id="{kind}_{n}"') for n, char in enumerate(text, 1))


def _element(char: str, element_id: str = "") -> str:
    css_class = {".": "num_dot", "_": "num", "-": "num no_minus"}.get(char, f"num no{char}")
    return f'<div {"" if char == "." else element_id} class="{css_class}"></div>'


def room_place(n: int, name: str, temperature: str, humidity: str) -> str:
    """Return the HTML of the n-th place of page 41."""
    numbers = number_elements(f"num_ond_{n}", temperature) + number_elements(f"num_shitudo_{n}", humidity)
    return (
        f'<div id="base{n}_1" class=base><div class="txt_name">{name}</div>'
        f'<div class="num_wrapper"><div class="icon"></div>{numbers}</div></div>'
    )


def climate_page(places: str) -> bytes:
    """Return a climate page with this HTML."""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html><html><body class=pc>&nbsp;R&D
<script>TimeInfoVariable.serverTime = '{SERVER_TIME}';</script>{places}</body></html>""".encode()


def rooms_page(*rooms: tuple[str, str, str]) -> bytes:
    """Return a page 41 of rooms with name, temperature and humidity."""
    return climate_page("".join(room_place(n, *room) for n, room in enumerate(rooms, 1)))


def rooms_page_43(*rooms: tuple[str, str, str]) -> bytes:
    """Return a page 43 of rooms with name, temperature and humidity; a room without a name is an empty place."""
    places = ""
    for name, *numbers in rooms:
        temperature, humidity = ("".join(map(_element, text)) for text in numbers)
        room = (
            f'<div class="txt_name">{name}</div><div class="num_ond">{temperature}<div class="num_unit"></div></div>'
            f'<div class="num_shitudo">{humidity}</div>'
        )
        places += f'<div class="base">{room if name else ""}</div>'
    return climate_page(f'<div id="area">{places}</div>')
