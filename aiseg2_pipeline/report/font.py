"""Find a Japanese font, and replace the characters that it cannot draw."""

import importlib.util
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from matplotlib import font_manager

from aiseg2_pipeline.report import ReportError

# By legibility on a screen; another family with all of LETTERS is the last choice.
FAMILIES = (
    "Noto Sans CJK JP",
    "Noto Sans JP",
    "Source Han Sans JP",
    "Hiragino Sans",
    "Hiragino Kaku Gothic ProN",
    "BIZ UDPGothic",
    "Yu Gothic",
    "YuGothic",
    "IPAexGothic",
    "IPAPGothic",
    "IPAGothic",
    "TakaoPGothic",
    "VL PGothic",
)
LETTERS = frozenset("電力発消費買売自給率補記録回路時月火水木金土日アンー〓・（）")
# Part of matplotlib; has symbols that a Japanese font may lack.
SYMBOLS = "DejaVu Sans"
# The usual sign for a missing character in Japanese print.
MISSING = "〓"
# A last-resort font maps every character, to a box.
MOST_LETTERS = 200_000
LIGHTEST, HEAVIEST = 300, 500
NO_FONT = (
    "No Japanese font was found: install the extra `report`, which contains one (`make run EXTRAS=report`; pipx and uv: see "
    "docs/installation.md), or a package such as fonts-noto-cjk or fonts-ipafont (Debian, Ubuntu)."
)
# Unicode categories without a shape: controls, joiners, surrogates, line separators. Variation selectors have none either.
_SHAPELESS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_SELECTORS = range(0xFE00, 0xFE10)


@dataclass(frozen=True)
class Font:
    """Font families in the order in which matplotlib searches them, and their characters (code points)."""

    families: tuple[str, ...]
    letters: frozenset[int]

    def drawable(self, name: str, width: int) -> str:
        """Return a drawable form of any name, at most `width` half-width columns wide."""
        shaped = (
            " " if unicodedata.category(char) in _SHAPELESS else char
            for char in name
            if ord(char) not in _SELECTORS
        )
        drawn, columns = "", 0
        for char in " ".join("".join(shaped).split()):
            shown = char if ord(char) in self.letters else MISSING
            columns += 2 if unicodedata.east_asian_width(shown) in "WF" else 1
            if columns > width:
                return drawn[:-1] + "…"
            drawn += shown
        return drawn


def find_font() -> Font:
    """Return the best Japanese font of this machine. Raise ReportError if there is none."""
    manager = font_manager.fontManager
    _add_carried(manager)
    found = _best(manager.ttflist)
    if found is None:
        # The cached list may be older than an installed font.
        found = _best(font_manager.FontManager().ttflist)
        if found is None:
            raise ReportError(NO_FONT)
        manager.addfont(found.fname)
    letters = _letters(found.fname) | _letters(font_manager.findfont(SYMBOLS))
    return Font((found.name, SYMBOLS), letters)


def _best(entries: list[font_manager.FontEntry]) -> font_manager.FontEntry | None:
    """Return the first upright Japanese font of usual weight, by the order of `FAMILIES`."""
    rank = {family: n for n, family in enumerate(FAMILIES)}
    usual = [e for e in entries if e.style == "normal" and LIGHTEST <= int(e.weight) <= HEAVIEST]
    usual.sort(key=lambda entry: rank.get(entry.name, len(rank)))
    return next((entry for entry in usual if _is_japanese(_letters(entry.fname))), None)


def _is_japanese(letters: frozenset[int]) -> bool:
    return letters.issuperset(map(ord, LETTERS)) and len(letters) < MOST_LETTERS


def _add_carried(manager: font_manager.FontManager) -> None:
    """Register the font of the package matplotlib-fontja, if it is installed."""
    # Not imported: the package changes matplotlib's settings for the whole process.
    spec = importlib.util.find_spec("matplotlib_fontja")
    known = {entry.fname for entry in manager.ttflist}
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder, "fonts").glob("*.ttf"):
            if str(path) not in known:
                manager.addfont(path)


def _letters(path: str) -> frozenset[int]:
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (OSError, RuntimeError):
        # An unreadable font counts as absent.
        return frozenset()
