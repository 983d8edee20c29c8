"""What must hold of everything that comes out of a parser, whatever went in."""

import dataclasses
import enum
import math
import unicodedata
from collections.abc import Iterable
from datetime import UTC, date, datetime

from aiseg2_pipeline.aiseg2.models import BatteryState, EnergyRow

# A name or a title; the longest of a real unit has some 20 characters.
MAX_TEXT = 200
MAX_SENTENCE = 330
# What the other side says of a refusal may be told, shortened.
MAX_QUOTED = 300
# Wh of an interval, watts, a port, a state: nothing that a unit tells is as large.
_TOO_LARGE = 10**13
# Nothing of a page that is as long as this belongs into an error.
_PIECE = 32


def assert_sane(value: object) -> None:  # noqa: C901 - a case is a kind of value
    """Assert that every number is finite and not negative, every time aware UTC, every text one that can be stored."""
    match value:
        case EnergyRow():
            # A day has thousands.
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
            assert_sane(tuple(value))
            assert_sane(tuple(value.values()))
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                assert_sane(getattr(value, field.name))
        case tuple() | list():
            for each in value:
                assert_sane(each)
        case _:
            raise AssertionError(f"no parser returns {type(value)}")


def assert_storable(text: str) -> None:
    """Assert that a name is one that UTF-8, SQLite and InfluxDB can carry."""
    assert len(text) <= MAX_TEXT, len(text)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") for char in text), ascii(text)


def assert_sentence(error: Exception, names: Iterable[str], body: bytes) -> None:
    """Assert that an error is one sentence for people that names what is wrong, and holds next to nothing of `body`."""
    text = str(error)
    assert text.endswith("."), text
    assert text.isprintable(), ascii(text)
    assert len(text) <= MAX_SENTENCE + (0 if body else MAX_QUOTED), text
    assert any(name in text for name in names), text
    given = body.decode("utf-8", "replace")
    half = _PIECE // 2
    # Whatever is as long as a piece has one of these halves in it.
    if any(text[at : at + half] in given for at in range(0, len(text) - half, half)):
        for at in range(len(text) - _PIECE):
            assert text[at : at + _PIECE] not in given, text[at : at + _PIECE]
