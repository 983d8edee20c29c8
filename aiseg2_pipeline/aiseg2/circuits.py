"""Matching the spellings of a circuit's name, and cleaning every name that the device sends.

Page 734 and the power flow write `ＬＤＫ・エアコン`, page 1113 `ＬＤＫエアコン`, the card's files `エアコン・ＬＤＫ`.
`match` finds page 734's circuits on page 1113; the card's columns are matched by position, never by name.
"""

import unicodedata
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
    unmatched = [Circuit(circuit.circuit_id, shown_name(circuit.name)) for circuit in circuits]
    if names is None:
        return CircuitMatch(tuple(unmatched), (), ())
    left, found = list(names), dict[str, str]()
    keys: tuple[Callable[[str], str], ...] = (shown_name, circuit_key, lambda _: "")
    for key in keys:
        for value in dict.fromkeys(map(key, left)):
            of_names = [name for name in left if key(name) == value]
            of_circuits = [
                circuit for circuit in unmatched if circuit.circuit_id not in found and key(circuit.name) == value
            ]
            one_name = len(set(of_names)) == len({circuit_key(circuit.name) for circuit in of_circuits}) == 1
            if one_name and len(of_names) == len(of_circuits):
                found |= {circuit.circuit_id: of_names[0] for circuit in of_circuits}
                left = [name for name in left if name != of_names[0]]
    shown = (Circuit(circuit.circuit_id, found.get(circuit.circuit_id, "")) for circuit in unmatched)
    return CircuitMatch(
        tuple(circuit for circuit in shown if circuit.circuit_id in found),
        tuple(circuit for circuit in unmatched if circuit.circuit_id not in found),
        tuple(left),
    )


def sum_by_name(values: Iterable[tuple[str, float | None]]) -> dict[str, float | None]:
    """Return the sum for each name, in order of first appearance; None where any part is None."""
    sums: dict[str, float | None] = {}
    for name, value in values:
        before = sums.get(name, 0.0)
        sums[name] = None if before is None or value is None else before + value
    return sums
