"""Which circuit pages a live reading needs, and when they can be believed.

The device sorts its circuits by watts, anew at every request, ten a page. So a circuit can cross a page boundary
between two requests and be shown twice or not at all, and no row carries an id. What makes a reading whole: every
name that page 734 registers is there as often as registered, and the order is descending.

Warm, one page is the whole reading: where page 1 shows a blank (0 W), all that follow are blank too.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from aiseg2_pipeline.aiseg2.circuits import circuit_key, clean_name, shown_name
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import Circuit, CircuitList, CircuitPage, CircuitPower
from aiseg2_pipeline.aiseg2.pages import CIRCUIT_LIST, CIRCUITS, CIRCUITS_A_PAGE
from aiseg2_pipeline.aiseg2.transport import Deadline, NotServed

READS_IN_ALL = 3
LIST_LASTS_S = 86_400
FULL_READ_LASTS_S = 3_600
_TOLD_CHARS = 20


class CircuitSource(Protocol):
    """The two pages that this needs of a client."""

    def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
        """Return page `page`, from 1."""

    def circuit_list(self, deadline: Deadline) -> CircuitList:
        """Return the registered circuits."""


@dataclass
class Memory:
    """What is kept between readings: the circuit list, and what the last full read showed.

    Times are seconds since the epoch. `shown` maps a circuit's key to page 1113's spelling.
    """

    circuits: tuple[Circuit, ...] | None = None
    listed_at: float = -math.inf
    full_read_at: float = -math.inf
    dash_seen: bool = False
    shown: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_state(cls, state: object) -> "Memory":
        """Return the memory that `to_state` gave; an empty one where it cannot be understood."""
        match state:
            case {
                "circuits": list(circuits),
                "listed_at": float(listed_at),
                "full_read_at": float() | None as full_read_at,
                "dash_seen": bool(dash_seen),
                "shown": dict(shown),
            } if _are_pairs([*circuits, *map(list, shown.items())]) and math.isfinite(
                listed_at + (full_read_at or 0)
            ):
                return cls(
                    tuple(Circuit(clean_name(circuit_id), clean_name(name)) for circuit_id, name in circuits),
                    listed_at,
                    -math.inf if full_read_at is None else full_read_at,
                    dash_seen,
                    {clean_name(key): clean_name(name) for key, name in shown.items()},
                )
        return cls()

    def to_state(self) -> dict[str, Any] | None:
        """Return the memory as JSON values; None where nothing is known."""
        if self.circuits is None:
            return None
        return {
            "circuits": [[circuit.circuit_id, circuit.name] for circuit in self.circuits],
            "listed_at": self.listed_at,
            "full_read_at": None if math.isinf(self.full_read_at) else self.full_read_at,
            "dash_seen": self.dash_seen,
            "shown": self.shown,
        }


def read(source: CircuitSource, memory: Memory, now: datetime, deadline: Deadline) -> tuple[CircuitPower, ...]:
    """Return every registered circuit's power, and bring `memory` up to date. Raise an Aiseg2Error.

    One request where the memory allows it, all pages otherwise; where those contradict themselves or the list, all
    pages again, at most twice. An empty list is believed only where page 1 shows no circuit either.
    """
    at = now.timestamp()
    circuits = memory.circuits
    renewed = circuits is None or not 0 <= at - memory.listed_at < LIST_LASTS_S
    if circuits is None or renewed:
        circuits = _renew(source, memory, at, deadline)
    if not circuits:
        return ()

    first = source.circuit_page(1, deadline)
    if 0 <= at - memory.full_read_at < FULL_READ_LASTS_S and not memory.dash_seen:
        rest = _blank_rest(first, circuits, memory.shown)
        if rest is not None:
            return first.rows + rest

    before: tuple[CircuitPower, ...] | None = None
    problem: str | None = None
    for attempt in range(READS_IN_ALL):
        shown = _all_pages(source, first if attempt == 0 else None, len(circuits), deadline)
        rows = tuple(row for page in shown for row in page.rows)
        problem = _contradiction(rows, circuits)
        if problem and not renewed:
            renewed = True
            circuits = _renew(source, memory, at, deadline)
            problem = _contradiction(rows, circuits)
        # Two reads alike in every row show two equal circuits, not one that crossed a page boundary.
        if problem is None and rows != before:
            problem = _crossing(shown)
        if problem is None:
            memory.full_read_at = at
            memory.dash_seen = any(row.power_w is None for row in rows)
            memory.shown = {circuit_key(row.name): row.name for row in rows}
            return rows
        before = rows
    raise Unreadable(f"{problem}, in {READS_IN_ALL} reads in a row: if this goes on, restart the AiSEG2.")


def _are_pairs(values: Sequence[object]) -> bool:
    """Tell whether each is a list of two texts."""
    return all(
        isinstance(value, list)
        and len(value) == len(("id", "name"))
        and all(isinstance(part, str) for part in value)
        for value in values
    )


def _renew(source: CircuitSource, memory: Memory, at: float, deadline: Deadline) -> tuple[Circuit, ...]:
    circuits = source.circuit_list(deadline).circuits
    if not circuits and (name := _any_name(source, deadline)):
        raise Unreadable(
            f"{CIRCUIT_LIST} registers no circuit, but {CIRCUITS} shows {_told(name)}: if this goes on, restart the AiSEG2."
        )
    if circuits != memory.circuits:
        memory.full_read_at = -math.inf
    memory.circuits = circuits
    memory.listed_at = at
    return circuits


def _any_name(source: CircuitSource, deadline: Deadline) -> str | None:
    """Return the name of a circuit that is shown; None in a home without any, where the page need not be one."""
    try:
        rows = source.circuit_page(1, deadline).rows
    except (NotServed, Unreadable):
        return None
    return next((row.name for row in rows if row.name.strip()), None)


def _blank_rest(
    first: CircuitPage, circuits: Sequence[Circuit], shown: dict[str, str]
) -> tuple[CircuitPower, ...] | None:
    """Return the rows after page 1, all 0 W; None where page 1 alone does not tell."""
    complete = len(first.rows) == min(CIRCUITS_A_PAGE, len(circuits))
    ends_here = len(circuits) <= CIRCUITS_A_PAGE
    powers_w = [row.power_w for row in first.rows]
    if not complete or None in powers_w or _out_of_order(first.rows) or not (first.has_blank or ends_here):
        return None
    left = Counter(circuit_key(row.name) for row in first.rows)
    rest: list[CircuitPower] = []
    for circuit in circuits:
        key = circuit_key(circuit.name)
        if left[key]:
            left[key] -= 1
        else:
            rest.append(CircuitPower(shown.get(key, shown_name(circuit.name)), 0.0))
    return None if left.total() else tuple(rest)


def _all_pages(
    source: CircuitSource, first: CircuitPage | None, circuits: int, deadline: Deadline
) -> list[CircuitPage]:
    shown = [first or source.circuit_page(1, deadline)]
    # One page more than the list needs: enough to show that the two disagree.
    while not shown[-1].is_last and len(shown) <= math.ceil(circuits / CIRCUITS_A_PAGE):
        shown.append(source.circuit_page(len(shown) + 1, deadline))
    return shown


def _contradiction(rows: Sequence[CircuitPower], circuits: Sequence[Circuit]) -> str | None:
    """Return what keeps the rows from being a whole reading, naming the circuit."""
    registered = Counter(circuit_key(circuit.name) for circuit in circuits)
    seen = Counter(circuit_key(row.name) for row in rows)
    for name in seen - registered:
        return f"{CIRCUITS} showed the circuit {_told(name)} more often than {CIRCUIT_LIST} registers it"
    for name in registered - seen:
        return f"{CIRCUITS} did not show the circuit {_told(name)} as often as {CIRCUIT_LIST} registers it"
    misplaced = _out_of_order(rows)
    return (
        None
        if misplaced is None
        else f"{CIRCUITS} showed the circuit {_told(misplaced)} out of the order of its watts"
    )


def _out_of_order(rows: Sequence[CircuitPower]) -> str | None:
    """Return the first circuit with more watts than the one before; where a `-` sorts is unknown."""
    measured = [(row.name, row.power_w) for row in rows if row.power_w is not None]
    for (_, before_w), (name, power_w) in itertools.pairwise(measured):
        if power_w > before_w:
            return name
    return None


def _crossing(shown: Sequence[CircuitPage]) -> str | None:
    """Return a sentence where one circuit of a repeated name may stand on both sides of a page boundary."""
    for page, following in itertools.pairwise(shown):
        last, first = page.rows[-1], following.rows[0]
        if last.power_w and last == first:
            return f"{CIRCUITS} showed the circuit {_told(last.name)} with the same watts on both sides of a page boundary"
    return None


def _told(name: str) -> str:
    """Return a name as a message shows it: on one line, and no longer than names are."""
    return repr(name if len(name) <= _TOLD_CHARS else f"{name[:_TOLD_CHARS]}…")
