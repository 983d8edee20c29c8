"""One identity for a circuit's three spellings, and one cleaning for every name that the device sends.

Page 734 and the power flow write `ＬＤＫ・エアコン`, page 1113 `ＬＤＫエアコン`,
the card's files `エアコン・ＬＤＫ`. The first two meet in `circuit_key`; the card's columns are told apart by position, never by name.
"""

import unicodedata
from collections.abc import Iterable


def clean_name(name: str) -> str:
    """Return `name` as it can be stored: control characters become a space, lone surrogates U+FFFD.

    InfluxDB does not bring control characters back, and UTF-8 cannot carry a lone surrogate. It takes no series of more
    than 64 KiB either, so a name ends after `MAX_NAME_CHARS`. All else stays.
    """
    return "".join(_CLEANED.get(unicodedata.category(char), char) for char in name[:MAX_NAME_CHARS])


# The longest of a real unit has 13.
MAX_NAME_CHARS = 100
_CLEANED = {"Cc": " ", "Cs": "\N{REPLACEMENT CHARACTER}"}


def circuit_key(name: str) -> str:
    """Return what page 734's and page 1113's spelling of one circuit have in common.

    Page 1113 draws a `・` as a line break, and white space at the ends is the page's layout.
    """
    return clean_name(name).replace("・", "").strip()


def shown_name(name: str) -> str:
    """Return page 734's spelling as page 1113 shows it, for a circuit that has not been seen there yet."""
    return clean_name(name).replace("・", "").strip(" ")


def sum_by_name(values: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    """Return the sum for each name in order of first sight; a sum with an absent part is absent (None)."""
    sums: dict[str, float | None] = {}
    for name, value in values:
        before = sums.get(name, 0.0)
        sums[name] = None if before is None or value is None else before + value
    return sums
