"""Properties of every result and error of a parser, for any input."""

import dataclasses
import enum
import math
import unicodedata
from collections.abc import Iterable
from datetime import UTC, date, datetime

from aiseg2_pipeline.aiseg2.models import BatteryState, EnergyRow

# A name or a title; the longest of a real unit has some 20 characters.
MAX_TEXT = 200
MAX_MESSAGE = 330
# A message may quote the reason of a refusal, shortened.
MAX_QUOTED = 300
# No value of a device is as large: Wh of an interval, watts, a state.
_TOO_LARGE = 10**13
# An error must not hold a part of a page that is this long.
_PIECE = 32


def assert_valid(value: object) -> None:  # noqa: C901 - a case is a kind of value
    """Assert that every number is finite and not negative, every time aware UTC, every text one that can be stored."""
    match value:
        case EnergyRow():
            # Checked without recursion, as a day has thousands.
            assert value.time.tzinfo is UTC
            assert 0 <= value.wh < _TOO_LARGE
            assert value.interval_s > 0
        case None | bool() | enum.Enum() | BatteryState():
            pass
        case int() | float():
            assert math.isfinite(value), value
            assert 0 <= value < _TOO_LARGE, value
            assert math.copysign(1, value) > 0, "-0.0"
        case str():
            assert_storable(value)
        case datetime():
            assert value.tzinfo is UTC, value
            assert 1999 <= value.year <= 2100, value
        case date():
            assert 2000 <= value.year <= 2100, value
        case dict():
            assert_valid(tuple(value))
            assert_valid(tuple(value.values()))
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                assert_valid(getattr(value, field.name))
        case tuple() | list():
            for each in value:
                assert_valid(each)
        case _:
            raise AssertionError(f"no parser returns {type(value)}")


def assert_storable(text: str) -> None:
    """Assert that UTF-8, SQLite and InfluxDB can store a name."""
    assert len(text) <= MAX_TEXT, len(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in text), ascii(text)


def assert_message(error: Exception, names: Iterable[str], body: bytes) -> None:
    """Assert that an error's message is printable, has one of the names, and quotes at most a few characters of `body`."""
    text = str(error)
    assert text.endswith("."), text
    assert text.isprintable(), ascii(text)
    assert len(text) <= MAX_MESSAGE + (0 if body else MAX_QUOTED), text
    assert any(name in text for name in names), text
    given = body.decode("utf-8", "replace")
    half = _PIECE // 2
    # A part of that length contains one of these halves.
    if any(text[at : at + half] in given for at in range(0, len(text) - half, half)):
        for at in range(len(text) - _PIECE):
            assert text[at : at + _PIECE] not in given, text[at : at + _PIECE]
