"""The device's live pages, as bytes, from one moment of the household.

Pure functions without clock, HTTP or household. Graphs belong in `graphs`, the circuit list and the export form in
`settings_pages`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from aiseg2_pipeline.simulator.battery import Battery
from aiseg2_pipeline.simulator.household import GENERATOR_NAME
from aiseg2_pipeline.simulator.layout import page

# The flow's readings that can be `-`, by key (JSON, which alone has the battery) and by id (HTML).
BATTERY_READING = "percent"
FLOW_READINGS = (
    "g_capacity",
    "u_capacity",
    "g_d_1_capacity",
    "u_d_1_capacity",
    "u_d_2_capacity",
    "u_d_3_capacity",
)
PAGE_ROWS = 10

_NAME_WRAPS_AFTER = 6  # characters


@dataclass(frozen=True)
class Moment:
    """The device's readings at `now` (Japan time); `circuits_w` has each registered circuit's name and watts."""

    now: datetime
    circuits_w: tuple[tuple[str, int], ...]
    generation_w: int
    consumption_w: int
    battery: Battery | None = None

    @property
    def grid_w(self) -> int:
        """The power from the grid, negative while it is sold."""
        return self.consumption_w - self.generation_w - (self.battery.power_w if self.battery else 0)

    def largest_first(self) -> list[tuple[str, int]]:
        """Return every circuit's name and watts, largest first, 0 W last."""
        return sorted(self.circuits_w, key=lambda row: -row[1])


def flow_json(moment: Moment, dashes: Collection[str] = ()) -> dict[str, Any]:
    """Return the data with which the power flow page refreshes itself.

    It mixes numbers, strings and `-` as a real device does. `dashes` are the readings that are `-`: some of
    `FLOW_READINGS` and `BATTERY_READING`.
    """
    consumers: dict[str, Any] = {}
    for number, (name, watts) in enumerate(moment.largest_first()[:3], start=1):
        consumers |= {f"u_d_{number}_capacity": watts, f"u_d_{number}_title": name, f"best{number}": 1}
    flow = {
        **_capacities(moment),
        "lo_buy_sell": int(moment.grid_w < 0) if moment.grid_w else 2,
        "soc": moment.battery.bar if moment.battery else 0,
        BATTERY_READING: moment.battery.percent if moment.battery else "-",
        "charge": int(moment.battery.state) if moment.battery else 2,
        "connSb": int(moment.battery is not None),
        "connEv": 0,
        "connPv1": 1,
        "connPv2": 0,
        "g_d_1_title": GENERATOR_NAME,
        "g_d_2_title": "",
        "g_d_1_capacity": moment.generation_w,
        "g_d_2_capacity": "-",
        "connFc": 0,
        "sbNet": 0,
        **consumers,
        "fc": {"fcState": 0, "fcLevel": 6},
        "noPvFc": 0,
        "measReg": 1,
        "s_button_mode": 0,
        "selfSufficiencyDisable": 1,
    }
    return flow | dict.fromkeys(dashes, "-")


def battery_flow_json(moment: Moment, battery: Battery) -> dict[str, Any]:
    """Return the data with which page 112 refreshes itself: texts without a sign, as one program reports them."""
    watts = {
        "lo_sun_lo_kW": moment.generation_w,
        "lo_densen_lo_kw": moment.grid_w,
        "lo_battery_lo_kW": battery.power_w,
        "u_capacity": moment.consumption_w,
    }
    return {key: f"{abs(power_w) / 1000:.1f}" for key, power_w in watts.items()} | {
        "charge": str(int(battery.state))
    }


def flow_page(moment: Moment, dashes: Collection[str] = ()) -> bytes:
    """Return page 111: the power flow as HTML; `dashes` as for `flow_json`."""
    devices = [("g_d_1", GENERATOR_NAME, f"{moment.generation_w}W"), ("g_d_2", "", "-"), ("g_d_3", "", "-")]
    largest = enumerate(moment.largest_first()[:3], start=1)
    devices += [(f"u_d_{number}", escape(name), f"{watts}W") for number, (name, watts) in largest]
    texts = _capacities(moment)
    for device, title, capacity in devices:
        texts |= {f"{device}_title": title, f"{device}_capacity": capacity}
    texts |= dict.fromkeys(dashes, "-")
    elements = "".join(f'\t<div id="{element}">{text}</div>\n' for element, text in texts.items())
    return page(title="現在の電気", now=moment.now, middle=f'<div id="main">\n{elements}</div>\n')


def boundaries(moment: Moment, number: int) -> list[int]:
    """Return the ranks at which this page begins or ends and the two circuits beside it can swap places.

    Circuits of the same name cannot, because no client could detect it. Neither can a circuit of 0 W with one with
    power at the end of the first page, because no moment has such an order.
    """
    circuits = moment.largest_first()
    number = _shown_number(circuits, number)
    boundaries = []
    for boundary in ((number - 1) * PAGE_ROWS, number * PAGE_ROWS):
        if 0 < boundary < len(circuits):
            (name, watts), (other_name, other_watts) = circuits[boundary - 1 : boundary + 1]
            if _letters(name) != _letters(other_name) and (number > 1 or not watts or other_watts):
                boundaries.append(boundary)
    return boundaries


def circuits_page(moment: Moment, number: int, dashes: Collection[int] = (), swapped: int | None = None) -> bytes:
    """Return page 1113: ten circuits, largest first. A number past the last page gives the last page.

    `dashes` are rows (from 0) without a reading. `swapped` is one of `boundaries`: the two circuits beside it are
    swapped.
    """
    circuits = moment.largest_first()
    pages = _pages(circuits)
    number = _shown_number(circuits, number)
    if swapped is not None:
        circuits[swapped - 1 : swapped + 1] = reversed(circuits[swapped - 1 : swapped + 1])
    rows = [
        (name, None if row in dashes else watts)
        for row, (name, watts) in enumerate(circuits[(number - 1) * PAGE_ROWS : number * PAGE_ROWS])
    ]
    middle = f"""<div id="main">
	<div id="tab-area">
{_tabs(number, pages)}	</div>
	<div id="m_capacity" class="graph_contents">
{_stages(rows)}	</div>
</div>
"""
    return page(title="回路ごとで使っている電気", now=moment.now, middle=middle)


def _capacities(moment: Moment) -> dict[str, str]:
    return {
        "g_capacity": f"{moment.generation_w / 1000:.1f}",
        "u_capacity": f"{moment.consumption_w / 1000:.1f}",
    }


def _pages(circuits: Sequence[tuple[str, int]]) -> int:
    return -(-len(circuits) // PAGE_ROWS)


def _shown_number(circuits: Sequence[tuple[str, int]], number: int) -> int:
    return min(max(number, 1), _pages(circuits))


def _letters(name: str) -> str:
    """Return the characters of a name that no page drops or changes: not white space, `・` or unprintable ones."""
    return "".join(char for char in name if char.isprintable() and not char.isspace() and char != "・")


def _tabs(number: int, pages: int) -> str:
    """Return the tabs over the circuits: pages 1 to 3 link to 2, 3 and the next ones, later pages to those from 4.

    The last page has no link to a later one; that is how programs detect it.
    """
    tabs = [("all", "1111"), ("desc-1", "1112")] if number <= 3 else [("desc-prev", "1111")]
    shown = range(2, min(pages, 3) + 1) if number <= 3 else range(4, pages + 1)
    tabs += [(f"desc-{other}", "" if other == number else f"1113?id={other}&") for other in shown]
    if number <= 3 < pages:
        tabs.append(("desc-next", "1113?id=4&"))
    return (
        f'\t\t<div class="tab-set-6-p{1 if number <= 3 else 2}">\n'
        + "".join(
            f"""\t\t\t<div class="tab-{name} {_tab_state(target)}"><a href="javascript:void(0)" class="hit"></a></div>\n"""
            for name, target in tabs
        )
        + "\t\t</div>\n"
    )


def _tab_state(target: str) -> str:
    if not target:
        return "tab-active no_sound"
    href = target if "?" in target else f"{target}?"
    return f'button hit" href="/page/electricflow/{href}track='


def _stages(rows: Sequence[tuple[str, int | None]]) -> str:
    text = ""
    for index, (name, watts) in enumerate(rows):
        column = index % 5 + 1
        is_end = column == 5 or index == len(rows) - 1
        if column == 1:
            text += f'\t\t<div class="row r-{index // 5 + 1}">\n'
        connect = "" if is_end else '\t\t\t\t<div class="c_bar_connect"></div>\n'
        text += f"""\t\t\t<div id="stage_{index + 1}" class="column c-{column}">
				<div class="c_bar"></div>
				<div class="c_value">{_value(watts)}</div>
				<div class="c_device">{_wrapped(name)}</div>
{connect}\t\t\t</div>
"""
        if is_end:
            text += "\t\t</div>\n"
    return text


def _value(watts: int | None) -> str:
    if watts is None:
        return " -"
    return f" {watts}W" if watts else ""


def _wrapped(name: str) -> str:
    """Return a name with line breaks: at each `・`, otherwise after six characters or at the end."""
    lines = name.split("・")
    if len(lines) == 1:
        lines = [name[:_NAME_WRAPS_AFTER], name[_NAME_WRAPS_AFTER:]]
    return "<br />".join(escape(line) for line in lines)
