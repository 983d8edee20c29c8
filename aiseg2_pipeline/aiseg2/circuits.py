"""Matching the spellings of a circuit's name, and cleaning every name that the device sends.

Page 734 and the power flow write `ＬＤＫ・エアコン`, page 1113 `ＬＤＫエアコン`, the card's files `エアコン・ＬＤＫ`.
`match` finds page 734's circuits on page 1113; the card's columns are matched by position, never by name.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from aiseg2_pipeline.aiseg2.models import Circuit, CircuitMatch

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

    Page 1113 shows a `・` as a line break, and units differ in their spaces and in half and full width.
    """
    return "".join(unicodedata.normalize("NFKC", clean_name(name)).replace("・", "").split())


def shown_name(name: str) -> str:
    """Return page 734's spelling as page 1113 shows it, for a circuit that page 1113 has not shown yet."""
    return clean_name(name).replace("・", "").strip()


def match(circuits: Sequence[Circuit], names: Sequence[str] | None) -> CircuitMatch:
    """Match circuits with the names of page 1113: by its usual spelling, by key, and the one name left on each side.

    A name that one side has more often than the other does not match. Without `names`, all circuits count as shown.
    """
    listed = [Circuit(circuit.circuit_id, shown_name(circuit.name)) for circuit in circuits]
    if names is None:
        return CircuitMatch(tuple(listed), (), ())
    left, found = list(names), dict[str, str]()
    keys: tuple[Callable[[str], str], ...] = (shown_name, circuit_key, lambda _: "")
    for key in keys:
        circuits_of, names_of = defaultdict[str, list[Circuit]](list), defaultdict[str, list[str]](list)
        for circuit in listed:
            if circuit.circuit_id not in found:
                circuits_of[key(circuit.name)].append(circuit)
        for name in left:
            names_of[key(name)].append(name)
        for value, shown in names_of.items():
            same = circuits_of[value]
            one_name = len(set(shown)) == len({circuit_key(circuit.name) for circuit in same}) == 1
            if one_name and len(shown) == len(same):
                found |= {circuit.circuit_id: shown[0] for circuit in same}
        left = [name for name in left if name not in found.values()]
    return CircuitMatch(
        tuple(
            Circuit(circuit.circuit_id, found[circuit.circuit_id])
            for circuit in listed
            if circuit.circuit_id in found
        ),
        tuple(circuit for circuit in listed if circuit.circuit_id not in found),
        tuple(left),
    )


def sum_by_name(values: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    """Return the sum for each name, in order of first appearance; None where any part is None."""
    sums: dict[str, float | None] = {}
    for name, value in values:
        before = sums.get(name, 0.0)
        sums[name] = None if before is None or value is None else before + value
    return sums
