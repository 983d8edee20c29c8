"""Draw a day as a PNG in Japanese: the sums, the curves, and the circuits. No I/O.

Each minute is one step of the curve, so that a single minute is visible and nothing is drawn across a gap.
"""

import io
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from PIL import Image

from aiseg2_pipeline.report.day import MINUTES_A_DAY, Day, FloatArray
from aiseg2_pipeline.report.font import Font, find_font

INCHES_WIDE, INCHES_A_ROW, DOTS_PER_INCH = 11, 2.35, 100
HEADER_INCHES, FOOTER_INCHES = 1.62, 0.68
LEFT, RIGHT = 0.06, 0.73
EDGES_H = np.arange(MINUTES_A_DAY + 1) / 60
WEEKDAYS = "月火水木金土日"
NAME_COLUMNS = 24

INK, PALE_INK, GRID = "#333333", "#777777", "#e4e4e4"
GENERATION, CONSUMPTION, SOLD, BOUGHT, SHARE = "#f6a21b", "#2f5d8c", "#3f9b4f", "#c8504b", "#7a5aa6"
CIRCUIT_COLOURS = (
    *("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f"),
    *("#edc948", "#b07aa1", "#ff9da7", "#9c755f", "#b6992d"),
)
OTHERS, UNMEASURED = "#bcbcbc", "#e9e9e9"
WHITE = "#ffffff"
# Dagster's database stores the picture as well; with this palette it is a third as large and looks the same.
COLOURS = (GENERATION, CONSUMPTION, SOLD, BOUGHT, SHARE, INK, PALE_INK, GRID, OTHERS, UNMEASURED, *CIRCUIT_COLOURS)
SHADES = (1.0, 0.75, 0.55, 0.3)
STYLE = {
    # A `$` in a name starts no formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.unicode_minus": False,
    "xtick.color": PALE_INK,
    "ytick.color": PALE_INK,
    "font.size": 10,
    "hatch.linewidth": 0.6,
}


# Colour, name and amount of a line in a legend.
_Entry = tuple[str, str, str]


def draw(day: Day, *, demo: bool = False) -> bytes:
    """Return the picture of the day, marked as a demo if it is one. Raise ReportError without a Japanese font."""
    font = find_font()
    # After a reset: a matplotlibrc of this machine must not change the picture.
    with style.context(STYLE | {"font.family": list(font.families)}, after_reset=True):
        figure = _figure(day, font, demo=demo)
        raw = io.BytesIO()
        figure.savefig(raw, format="rgba", dpi=DOTS_PER_INCH)
        size = figure.canvas.get_width_height()
    picture = Image.frombytes("RGBA", size, raw.getvalue()).convert("RGB")
    png = io.BytesIO()
    picture.quantize(palette=_palette(), dither=Image.Dither.NONE).save(png, "PNG", optimize=True)
    return png.getvalue()


def _palette() -> Image.Image:
    """Return an image whose palette is the used colours and their lighter shades."""
    rgb = np.array([to_rgb(colour) for colour in COLOURS])
    shades = [1 - shade * (1 - rgb) for shade in SHADES]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.rint(255 * np.vstack([to_rgb(WHITE), *shades])).astype(np.uint8).tobytes())
    return palette


def _figure(day: Day, font: Font, *, demo: bool) -> Figure:
    panels = [(_flow, 1.0)]
    if day.generation_kw is not None:
        panels.append((_exchange, 0.7))
    if day.circuits:
        panels.append((_stack, 1.5))
    heights = [share for _, share in panels]
    inches = HEADER_INCHES + FOOTER_INCHES + INCHES_A_ROW * sum(heights)
    figure = Figure(figsize=(INCHES_WIDE, inches), dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    top, bottom = 1 - HEADER_INCHES / inches, FOOTER_INCHES / inches
    figure.subplots_adjust(left=LEFT, right=RIGHT, top=top, bottom=bottom, hspace=0.34)
    for ax, (panel, _) in zip(axes, panels, strict=True):
        _prepare(ax)
        panel(ax, day, font)
        _hatch(ax, day)
    _header(figure, day, inches, demo=demo)
    _footer(figure, day, inches)
    return figure


def _header(figure: Figure, day: Day, inches: float, *, demo: bool) -> None:
    date = f"{day.date:%Y}年{day.date.month}月{day.date.day}日（{WEEKDAYS[day.date.weekday()]}）の電気"
    title = date + ("" if day.over else "　途中まで") + ("　デモ用の仮想住宅" if demo else "")
    figure.text(LEFT, 1 - 0.42 / inches, title, size=17, va="center")
    amounts = day.amounts
    yen = {name: f"　{value:,.0f}円" for name, value in day.yen.items()}
    bought_apart = day.generation_kw is not None or day.battery
    kwh = [
        ("発電", amounts.generation_kwh, GENERATION),
        ("消費" + ("" if bought_apart else yen.get("bought", "")), amounts.consumption_kwh, CONSUMPTION),
        ("買電" + yen.get("bought", ""), amounts.bought_kwh if bought_apart else None, BOUGHT),
        ("売電" + yen.get("sold", ""), amounts.sold_kwh, SOLD),
    ]
    tiles = [(label, f"{value:.1f}", "kWh", colour) for label, value, colour in kwh if value is not None]
    if amounts.self_sufficiency_percent is not None:
        tiles.append(("自給率", f"{amounts.self_sufficiency_percent:.0f}", "%", SHARE))
    if day.yen.get("saved"):
        tiles.append(("節約", f"{day.yen['saved']:,.0f}", "円", GENERATION))
    for n, (label, number, unit, colour) in enumerate(tiles):
        x = LEFT + n * 0.15
        figure.text(x, 1 - 0.78 / inches, label, size=10, va="center", color=PALE_INK)
        shown = figure.text(x, 1 - 1.08 / inches, number, size=21, va="center", color=colour)
        width = shown.get_window_extent().width / figure.bbox.width
        figure.text(x + width + 0.005, 1 - 1.12 / inches, unit, size=10, va="center", color=PALE_INK)


def _footer(figure: Figure, day: Day, inches: float) -> None:
    source = "合計は AiSEG2 が計った電力量です。" if day.amounts.measured else "合計は読み取りから計算した値です。"
    if day.amounts.measured and day.circuits:
        source += "回路の kWh は読み取りから計算した値です。"
    if day.missing_minutes and (day.circuits or not day.amounts.measured):
        source += "計算した値は記録なしの時間を含みません。"
    if day.yen:
        source += "円は料金ファイルによります（基本料金を除く）。"
    known = [f"読み取り {day.live_minutes}分"]
    if day.filled_minutes:
        known.append(f"後から補った時間 {day.filled_minutes}分（斜線、1時間か30分の平均）")
    if day.missing_minutes:
        known.append(f"記録なし {day.missing_minutes}分（空白）")
    figure.text(LEFT, 0.3 / inches, "　・　".join(known), size=9, va="center", color=PALE_INK)
    figure.text(LEFT, 0.11 / inches, source, size=9, va="center", color=PALE_INK)


def _prepare(ax: Axes) -> None:
    ax.set_xlim(0, 24)
    ax.set_xticks(range(0, 25, 3), [f"{hour}時" for hour in range(0, 25, 3)])
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0, pad=6)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _flow(ax: Axes, day: Day, font: Font) -> None:
    _title(ax, "消費" if day.generation_kw is None else "発電と消費")
    curves, entries = [day.consumption_kw], [(CONSUMPTION, "消費", "")]
    if day.generation_kw is not None:
        _area(ax, day.generation_kw, GENERATION, alpha=0.55)
        _steps(ax, day.consumption_kw, baseline=None, fill=False, color=CONSUMPTION, linewidth=1.1)
        curves.append(day.generation_kw)
        entries.insert(0, (GENERATION, "発電", ""))
    else:
        _area(ax, day.consumption_kw, CONSUMPTION, alpha=0.6)
    _limits(ax, *curves)
    _legend(ax, entries, font)


def _exchange(ax: Axes, day: Day, font: Font) -> None:
    # With a battery, the exchange is not the grid's power.
    title, sold, bought = ("発電と消費の差", "余り", "不足") if day.battery else ("買電と売電", "売電", "買電")
    _title(ax, title)
    _area(ax, np.fmax(day.exchange_kw, 0) + 0 * day.exchange_kw, SOLD, alpha=0.75)
    _area(ax, np.fmin(day.exchange_kw, 0) + 0 * day.exchange_kw, BOUGHT, alpha=0.75)
    _limits(ax, day.exchange_kw)
    ax.axhline(0, color=PALE_INK, linewidth=0.8)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    _legend(ax, [(SOLD, f"{sold}（上）", ""), (BOUGHT, f"{bought}（下）", "")], font)


def _stack(ax: Axes, day: Day, font: Font) -> None:
    _title(ax, "回路ごとの消費")
    powers_kw = np.stack([circuit.power_kw for circuit in day.circuits])
    # Known circuits are stacked; a minute without any stays empty.
    tops_kw = np.where(np.isnan(powers_kw).all(axis=0), np.nan, np.nancumsum(powers_kw, axis=0))
    _area(ax, day.consumption_kw, UNMEASURED)
    entries: list[_Entry] = []
    below_kw = np.zeros(MINUTES_A_DAY)
    for n, (circuit, top_kw) in enumerate(zip(day.circuits, tops_kw, strict=True)):
        colour = OTHERS if circuit.others else CIRCUIT_COLOURS[n]
        _area(ax, top_kw, colour, baseline=np.where(np.isnan(top_kw), 0, below_kw))
        below_kw = top_kw
        name = f"その他 {circuit.others}回路" if circuit.others else circuit.name.strip() or "（名前なし）"
        entries.append((colour, name, f"{circuit.kwh:.1f} kWh"))
    _limits(ax, day.consumption_kw, tops_kw[-1])
    # In the order of the stack, the lowest at the bottom.
    _legend(ax, [(UNMEASURED, "回路以外の消費", ""), *reversed(entries)], font)


def _title(ax: Axes, text: str) -> None:
    ax.set_title(f"{text}（kW）", loc="left", size=11)


def _area(
    ax: Axes, power_kw: FloatArray, colour: str, *, alpha: float = 1, baseline: FloatArray | float = 0
) -> None:
    _steps(ax, power_kw, baseline=baseline, fill=True, color=colour, alpha=alpha, linewidth=0)


def _hatch(ax: Axes, day: Day) -> None:
    """Hatch the filled minutes over the whole height."""
    if day.filled_minutes:
        marked = np.where(day.filled, 1.0, np.nan)
        pattern = {"facecolor": "none", "edgecolor": PALE_INK, "hatch": "////", "linewidth": 0}
        _steps(ax, marked, baseline=0, fill=True, transform=ax.get_xaxis_transform(), **pattern)


def _steps(ax: Axes, values: FloatArray, **properties: Any) -> None:
    # Not `Axes.stairs`, which spends most of its time on limits that are known here.
    # Without snapping to pixels: a minute is narrower than one and would vanish.
    ax.add_artist(StepPatch(values, EDGES_H, snap=False, **properties))


def _limits(ax: Axes, *curves: FloatArray) -> None:
    """Set the axis to the range of the numbers and 0."""
    numbers = np.concatenate([[0.0], *curves])
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    margin = max((high - low) * 0.06, 0.01)
    ax.set_ylim(low - margin if low else 0, high + margin)


def _legend(ax: Axes, entries: list[_Entry], font: Font) -> None:
    """Draw the legend beside the axes; matplotlib's own omits names that start with an underscore."""
    step = 0.235 * DOTS_PER_INCH / ax.bbox.height
    for n, (colour, name, amount) in enumerate(entries):
        y = 1 - (n + 0.5) * step
        ax.scatter(1.025, y, s=70, marker="s", color=colour, transform=ax.transAxes, clip_on=False)
        ax.text(1.045, y, font.drawable(name, NAME_COLUMNS), size=9.5, va="center", transform=ax.transAxes)
        ax.text(1.36, y, amount, size=9.5, va="center", ha="right", transform=ax.transAxes)
