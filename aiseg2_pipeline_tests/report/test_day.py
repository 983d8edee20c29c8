"""The numbers of a day's picture, and the picture as matplotlib draws it."""

import importlib.util
import io
import shutil
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.report import ReportError
from aiseg2_pipeline.report.day import Circuit, Day
from aiseg2_pipeline_tests.support.report_days import HOME, HOUR, START, day_of, device_energy, readings

pytest.importorskip("matplotlib", reason="matplotlib is not installed: it is the extra `report`")

from matplotlib import font_manager, rcParams
from PIL import Image

from aiseg2_pipeline.report.font import MISSING, find_font
from aiseg2_pipeline.report.picture import FOOTER_INCHES, INCHES_WIDE, LEFT, RIGHT, draw

# Usual days have 30 000 to 50 000.
MOST_BYTES = 70_000
Pixels = npt.NDArray[np.int16]


def packaged_font() -> Path | None:
    """Return the font of the package matplotlib-fontja."""
    spec = importlib.util.find_spec("matplotlib_fontja")
    folders = (spec and spec.submodule_search_locations) or []
    return next((path for folder in folders for path in Path(folder).rglob("*.ttf")), None)


PACKAGED = packaged_font()


def picture(day: Day | None = None, *, demo: bool = False) -> Pixels:
    """Return the drawn pixels: rows, columns, RGB."""
    with Image.open(io.BytesIO(draw(day or day_of(), demo=demo))) as image:
        return np.asarray(image.convert("RGB")).astype("int16")


def columns(first_hour: float, last_hour: float) -> slice:
    """Return the pixels' columns within these hours, without those at the two ends."""
    width = INCHES_WIDE * 100
    at = [width * (LEFT + (RIGHT - LEFT) * hour / 24) for hour in (first_hour, last_hour)]
    return slice(round(at[0]) + 2, round(at[1]) - 2)


def coloured(pixels: Pixels) -> int:
    """Count the pixels that are neither white nor grey."""
    return int((pixels.max(axis=2) - pixels.min(axis=2) > 24).sum())


def circuit(day: Day, name: str) -> Circuit:
    (found,) = (one for one in day.circuits if one.name == name)
    return found


# The numbers


BATTERY = frame([Row(START, "battery", "充電率", 80.0, "%", 0)])


@pytest.mark.parametrize(
    ("table", "measured", "expected"),
    [
        (
            readings(),
            device_energy(generation=1400, consumption=1000, bought=250, sold=650),
            (True, 33.6, 24, 6, 15.6, 75),
        ),
        (
            pd.concat([readings(range(12)), readings(range(12, 20), generation_kw=0)], ignore_index=True),
            device_energy(range(23), generation=1400, consumption=1000, bought=250, sold=650),
            (False, 18, 20, 8, 6, 60),
        ),
        (
            readings(generation_kw=None),
            device_energy(consumption=1000, generation=0),
            (True, None, 24, 24, None, None),
        ),
        (
            readings()[lambda table: table["name"] == "総消費電力"],
            device_energy(generation=100, consumption=1000, bought=900, sold=0),
            (True, 2.4, 24, 21.6, 0, 10),
        ),
        (pd.concat([readings(), BATTERY], ignore_index=True), device_energy(), (False, 36, 24, None, None, None)),
        (
            pd.concat([readings(), BATTERY], ignore_index=True),
            device_energy(generation=1400, consumption=1000, bought=1200, sold=0),
            (True, 33.6, 24, 28.8, 0, 0),
        ),
    ],
    ids=[
        "the device's own of a whole day",
        "those of the known minutes",
        "a home without generation buys its consumption",
        "generation in the device's energy alone",
        "with a battery, minutes do not show what was bought",
        "with a battery, the device does",
    ],
)
def test_the_sums_of_a_day(
    table: pd.DataFrame, measured: pd.DataFrame, expected: tuple[float | None, ...]
) -> None:
    day = day_of(table, measured)
    sums = day.amounts
    assert (
        sums.measured,
        sums.generation_kwh,
        sums.consumption_kwh,
        sums.bought_kwh,
        sums.sold_kwh,
        sums.self_sufficiency_percent,
    ) == pytest.approx(expected)
    assert (day.generation_kw is None) == (sums.generation_kwh is None)
    assert draw(day)


def test_the_yen_of_a_day_need_the_cost_of_each_hour_and_are_in_the_picture() -> None:
    hours = [energy.interval(START + hour * HOUR, energy.COST, "bought", 31.5, 3600) for hour in range(24)]
    whole, part = energy.frame(hours), energy.frame(hours[:9])
    day = day_of(measured=whole)
    assert day.yen == {"bought": pytest.approx(756)}
    assert (picture(day) != picture()).any()
    assert day_of(measured=part).yen == {}
    assert day_of(readings(range(9)), part, now=START + 10 * HOUR).yen == {"bought": pytest.approx(283.5)}


def test_missing_minutes_are_nan_and_counted_but_for_future_ones() -> None:
    day = day_of(readings([0, 1, 2, 9], filled=[2]))
    assert (day.live_minutes, day.filled_minutes, day.missing_minutes, day.over) == (180, 60, 1200, True)
    assert np.isnan(day.consumption_kw).sum() == np.isnan(day.exchange_kw).sum() == 1200
    assert np.isnan(circuit(day, "エアコン").power_kw).sum() == 1200
    assert day.filled.nonzero()[0].tolist() == list(range(120, 180))
    running = day_of(readings(range(9)), now=START + 10 * HOUR)
    assert (running.missing_minutes, running.over) == (60, False)


def test_several_readings_of_a_minute_are_their_mean() -> None:
    table = readings([0])
    later = table.assign(time=table["time"] + timedelta(seconds=30), value=table["value"] * 2)
    day = day_of(pd.concat([table, later], ignore_index=True))
    assert day.live_minutes == 60
    assert np.nanmax(day.consumption_kw) == np.nanmin(day.consumption_kw) == pytest.approx(1.5)
    assert circuit(day, "エアコン").kwh == pytest.approx(0.9)


def test_the_ten_largest_circuits_with_consumption_are_named_and_the_others_summed() -> None:
    circuits = day_of(readings(circuits_w={f"回路{n}": float(n) for n in range(45)})).circuits
    assert [one.name for one in circuits[:-1]] == [f"回路{n}" for n in range(44, 34, -1)]
    assert circuits[-1].others == 35
    assert circuits[-1].kwh == pytest.approx(sum(range(35)) * 24 / 1000)
    assert circuits[0].kwh == pytest.approx(44 * 24 / 1000)
    circuits = day_of(readings(circuits_w={"床暖房": 0.0, "冷蔵庫": 60.0})).circuits
    assert [(one.name, one.others) for one in circuits] == [("冷蔵庫", 0), ("", 1)]


def test_the_sum_of_the_other_circuits_ignores_those_that_are_missing() -> None:
    powers_w = {f"回路{n}": 100.0 for n in range(10)} | {"甲": 5.0, "乙": 3.0}
    table = readings(circuits_w=powers_w)
    early = (table["name"] == "甲") & (table["time"] < START + HOUR)
    both = table["name"].isin(["甲", "乙"]) & (table["time"] >= START + 23 * HOUR)
    others_kw = day_of(table[~early & ~both]).circuits[-1].power_kw
    assert others_kw[0] == pytest.approx(0.003)
    assert others_kw[60] == pytest.approx(0.008)
    assert np.isnan(others_kw[-60:]).all()


# The picture


def test_the_picture_is_a_png_small_enough_for_dagsters_storage() -> None:
    table = readings(circuits_w={f"回路{n}": 100.0 for n in range(45)})
    random = np.random.default_rng(1)
    unsteady = table["value"] * random.choice([0.5, 1, 1, 1, 1, 1, 1, 1, 3], len(table))
    png = draw(day_of(table.assign(value=unsteady.round(1))))
    assert png.startswith(b"\x89PNG")
    assert len(png) < MOST_BYTES
    with Image.open(io.BytesIO(png)) as image:
        assert image.width == INCHES_WIDE * 100
        assert image.height < image.width


def test_missing_hours_are_blank_and_a_single_minute_is_visible() -> None:
    day = picture(day_of(readings([*range(6), *range(12, 24)])))
    assert coloured(day[:, columns(6, 12)][250:]) == 0
    assert coloured(day[:, columns(0, 6)][250:]) > 10_000
    assert coloured(day[:, columns(12, 18)][250:]) > 10_000
    table = readings([12])
    alone = picture(day_of(table[table["time"] == START + 12 * HOUR]))
    assert coloured(alone[:, columns(11.8, 12.2)][250:]) > 50


def test_only_filled_hours_are_hatched() -> None:
    live, filled = picture(), picture(day_of(readings(filled=[6, 7, 8])))
    above_footer = slice(0, live.shape[0] - round(FOOTER_INCHES * 100))
    differing = np.abs(live - filled)[above_footer].any(axis=2).any(axis=0).nonzero()[0]
    hours = columns(6, 9)
    assert hours.start - 4 <= differing.min() <= hours.start + 8
    assert hours.stop - 8 <= differing.max() <= hours.stop + 4


def test_the_footer_states_gaps_and_filled_hours_and_the_title_the_demo() -> None:
    footers = {
        picture(day_of(table))[-round(FOOTER_INCHES * 100) :].tobytes()
        for table in (readings(), readings(filled=[3]), readings(range(20)))
    }
    assert len(footers) == 3
    assert (picture(demo=True)[:70] != picture()[:70]).any()


def test_the_picture_has_only_the_panels_that_the_home_needs() -> None:
    heights = [
        picture(day_of(readings(generation_kw=generation_kw, circuits_w=circuits_w))).shape[0]
        for circuits_w in (HOME, {})
        for generation_kw in (1.5, None)
    ]
    assert heights == sorted(set(heights), reverse=True)


def test_any_name_is_drawn(recwarn: pytest.WarningsRecorder) -> None:
    names = [
        "$\\frac{1}{$",
        "%s {0} \\n",
        "<b>&amp;</b>",
        "a\tb\x00\x07",
        "👨‍👩‍👧",
        "",
        "مرحبا",
        "長" * 300,
        "\ud800",
    ]
    assert draw(day_of(readings([0], circuits_w=dict.fromkeys(names, 100.0))))
    assert not recwarn.list


@pytest.mark.parametrize(("name", "other"), [("_回路", "_部屋"), ("$x$", "x")])
def test_underscores_and_dollars_in_names_are_drawn(name: str, other: str) -> None:
    assert draw(day_of(readings([0], circuits_w={name: 100.0}))) != draw(
        day_of(readings([0], circuits_w={other: 100.0}))
    )


def test_a_day_has_one_picture_whatever_the_machines_matplotlib_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = draw(day_of())
    monkeypatch.setitem(rcParams, "font.size", 30.0)
    monkeypatch.setitem(rcParams, "axes.facecolor", "black")
    assert draw(day_of()) == before
    assert rcParams["font.size"] == 30


# Letters


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("ＬＤ・エアコン", "ＬＤ・エアコン"),
        ("  a\tb\r\n c ", "a b c"),
        ("$x$ _y", "$x$ _y"),
        ("旗\U0001f1ef\ufe0f", f"旗{MISSING}"),
        ("a\u202eb\u200d\ud800", "a b"),
        ("電気自動車充電", "電気自動車充電"),
        ("電気自動車充電器の回路", "電気自動車充…"),
        ("", ""),
    ],
)
def test_a_name_is_shown_in_the_fonts_characters(name: str, drawn: str) -> None:
    assert find_font().drawable(name, 14) == drawn


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """A machine without a Japanese font in matplotlib's cache; call it to install a font file."""
    find = font_manager.findSystemFonts
    own = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(
        font_manager,
        "findSystemFonts",
        lambda paths=None, fontext="ttf": find([str(tmp_path)] if paths is None else paths, fontext),
    )
    # Without the package that contains a font.
    monkeypatch.setitem(sys.modules, "matplotlib_fontja", None)

    def install(path: Path) -> None:
        shutil.copy(path, tmp_path)

    return install


def test_without_a_japanese_font_the_message_names_packages_and_one_installed_since_is_found(
    fonts: Callable[[Path], None],
) -> None:
    with pytest.raises(ReportError, match=r"report.*fonts-noto-cjk"):
        draw(day_of())
    assert PACKAGED is not None
    fonts(PACKAGED)
    assert find_font().families[0] == "IPAexGothic"
    assert draw(day_of())


def test_a_file_that_is_not_a_font_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "NotoSansCJK-Regular.ttc"
    broken.write_bytes(b"no font")
    entry = font_manager.FontEntry(fname=str(broken), name="Noto Sans CJK JP", weight=400)
    gone = font_manager.FontEntry(fname=str(tmp_path / "gone.ttf"), name="Noto Sans CJK JP", weight=400)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [entry, gone, *font_manager.fontManager.ttflist])
    assert draw(day_of())
