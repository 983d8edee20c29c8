"""Matching the spellings of a circuit's name, and cleaning every name that the device sends.

Page 734 and the power flow write `ＬＤＫ・エアコン`, page 1113 `ＬＤＫエアコン`, the card's files `エアコン・ＬＤＫ`.
`circuit_key` matches the first two; the card's columns are matched by position, never by name.
"""

import unicodedata
from collections.abc import Iterable

# The longest name of a real unit has 13 characters.
MAX_NAME_CHARS = 100
_REPLACED = {"Cc": " ", "Cs": "\N{REPLACEMENT CHARACTER}"}


def clean_name(name: str) -> str:
    """Return `name` in a form that can be stored: control characters become a space, lone surrogates U+FFFD.

    InfluxDB does not return control characters, UTF-8 cannot encode a lone surrogate, and InfluxDB refuses a series
    key of more than 64 KiB, so the name is cut after `MAX_NAME_CHARS`. Everything else is kept.
    """
    return "".join(_REPLACED.get(unicodedata.category(char), char) for char in name[:MAX_NAME_CHARS])


def circuit_key(name: str) -> str:
    """Return a key that is equal for page 734's and page 1113's spelling of one circuit.

    Page 1113 shows a `・` as a line break, and white space at the ends belongs to the page's layout.
    """
    return clean_name(name).replace("・", "").strip()


def shown_name(name: str) -> str:
    """Return page 734's spelling as page 1113 shows it, for a circuit that page 1113 has not shown yet."""
    return clean_name(name).replace("・", "").strip()


def sum_by_name(values: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    """Return the sum for each name, in order of first appearance; None where any part is None."""
    sums: dict[str, float | None] = {}
    for name, value in values:
        before = sums.get(name, 0.0)
        sums[name] = None if before is None or value is None else before + value
    return sums
