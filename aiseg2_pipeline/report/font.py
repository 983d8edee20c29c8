"""A font that has Japanese letters, and names in letters that it has."""

import importlib.util
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from matplotlib import font_manager

from aiseg2_pipeline.report import ReportError

# Where several are there, the one that reads best on a screen; any other with the letters will do as well.
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
# Comes with matplotlib: symbols that a Japanese font may lack.
SYMBOLS = "DejaVu Sans"
# What printers put where a letter is missing.
MISSING = "〓"
# A font of last resort claims every letter and shows boxes.
MOST_LETTERS = 200_000
LIGHTEST, HEAVIEST = 300, 500
NO_FONT = (
    "No font with Japanese letters was found: install the extra `report` (pip install 'aiseg2-pipeline[report]'), which brings one, "
    "or a package such as fonts-noto-cjk or fonts-ipafont (Debian, Ubuntu)."
)
# They have no shape of their own: controls, joiners, surrogates, line separators, variation selectors.
_SHAPELESS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_SELECTORS = range(0xFE00, 0xFE10)


@dataclass(frozen=True)
class Font:
    """Families in the order in which a letter is looked for, and the letters that they have."""

    families: tuple[str, ...]
    letters: frozenset[int]

    def drawable(self, name: str, width: int) -> str:
        """Return a name of any characters as it can be drawn, at most `width` half-width columns wide."""
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
    """Return the best font of this machine. Raise ReportError where none has Japanese letters."""
    manager = font_manager.fontManager
    _add_carried(manager)
    found = _best(manager.ttflist)
    if found is None:
        # What it remembers may be of a time before a font was installed.
        found = _best(font_manager.FontManager().ttflist)
        if found is None:
            raise ReportError(NO_FONT)
        manager.addfont(found.fname)
    letters = _letters(found.fname) | _letters(font_manager.findfont(SYMBOLS))
    return Font((found.name, SYMBOLS), letters)


def _best(entries: list[font_manager.FontEntry]) -> font_manager.FontEntry | None:
    """Return the first of `FAMILIES`, else any other, that has the letters and is upright and of usual weight."""
    rank = {family: n for n, family in enumerate(FAMILIES)}
    usual = [e for e in entries if e.style == "normal" and LIGHTEST <= int(e.weight) <= HEAVIEST]
    usual.sort(key=lambda entry: rank.get(entry.name, len(rank)))
    return next((entry for entry in usual if _is_japanese(_letters(entry.fname))), None)


def _is_japanese(letters: frozenset[int]) -> bool:
    return letters.issuperset(map(ord, LETTERS)) and len(letters) < MOST_LETTERS


def _add_carried(manager: font_manager.FontManager) -> None:
    """Make the font of the package matplotlib-fontja known, if it is installed."""
    # Imported, it would change matplotlib's settings for the whole process.
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
        # A font of this machine that cannot be read is none.
        return frozenset()
