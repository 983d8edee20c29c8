"""Rooms with sensors: their temperature and humidity, and pages 43 and 41, which show them.

The climate of a room is a function of the seed, its name and the time alone. No real page was available: the elements
are those that other programs read, the rest is the layout of the other pages, and returning the last page for every
number after it is assumed from the circuits' pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

import numpy as np

from aiseg2_pipeline.simulator.chance import wave
from aiseg2_pipeline.simulator.household import step_of
from aiseg2_pipeline.simulator.layout import page
from aiseg2_pipeline.simulator.weather import STEP_S, Weather

ROOMS = ("リビング", "主寝室")
OUTDOORS = "屋外"
_PAGE_ROOMS = 3
_HOUR_STEPS = 3600 / STEP_S


@dataclass(frozen=True)
class RoomClimate:
    """A sensor's reading: tenths of a degree, whole percent."""

    name: str
    temperature_tenths_c: int
    humidity_percent: int


def climate(seed: int, names: Sequence[str], now: datetime) -> tuple[RoomClimate, ...]:
    """Return the climate of each room at an aware time: milder than the weather, which is that of `OUTDOORS`."""
    step = np.array([step_of(now)])
    outside_c = float(Weather(seed, step).temperature_c[0])
    rooms = []
    for name in names:
        warmer, damper = (
            float(wave(seed, f"{subject} in {name}", step / (3 * _HOUR_STEPS))[0]) - 0.5
            for subject in ("warmth", "moisture")
        )
        temperature_c = outside_c if name == OUTDOORS else 21.5 + 0.3 * (outside_c - 16) + 3 * warmer
        humidity = 52 + 0.8 * (outside_c - 16) + 16 * damper
        rooms.append(RoomClimate(name, round(temperature_c * 10), min(max(round(humidity), 25), 85)))
    return tuple(rooms)


def climate_page(rooms: Sequence[RoomClimate], number: int, now: datetime, *, ids: bool) -> bytes:
    """Return page 41 with `ids`, else page 43: three rooms each.

    A number past the last page gives the last page; without rooms it is empty.
    """
    pages = -(-len(rooms) // _PAGE_ROOMS)
    number = max(1, min(number, pages))
    shown = rooms[(number - 1) * _PAGE_ROOMS : number * _PAGE_ROOMS]
    elements = "".join((_room_with_ids if ids else _room)(n, room) for n, room in enumerate(shown, start=1))
    return page(
        title="空気環境",
        now=now,
        middle=f'<div id="main">\n\t<div id="area">\n{elements}\t</div>\n</div>\n',
    )


def _room_with_ids(n: int, room: RoomClimate) -> str:
    # Three places, of which a minus takes the first one.
    temperature = _digits(f"{room.temperature_tenths_c:03}", f"num_ond_{n}")
    humidity = _digits(f"{room.humidity_percent:02}", f"num_shitudo_{n}")
    return f"""\t\t<div id="base{n}_1" class="base">
			<div class="txt_name">{escape(room.name)}</div>
			<div class="num_wrapper">
{temperature}{humidity}			</div>
		</div>
"""


def _room(_: int, room: RoomClimate) -> str:
    return f"""\t\t<div class="base">
			<div class="txt_name">{escape(room.name)}</div>
			<div class="num_ond">
{_digits(f"{room.temperature_tenths_c / 10:.1f}")}			</div>
			<div class="num_shitudo">
{_digits(str(room.humidity_percent))}			</div>
		</div>
"""


def _digits(text: str, element_id: str = "") -> str:
    elements = ""
    for n, character in enumerate(text, start=1):
        attribute = f' id="{element_id}_{n}"' if element_id else ""
        css_class = {".": "num_dot", "-": "num no_minus"}.get(character, f"num no{character}")
        elements += f'\t\t\t\t<div{attribute} class="{css_class}"></div>\n'
    return elements
