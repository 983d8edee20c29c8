"""Choose the circuit pages that a live reading needs, and check that together they are complete.

The device sorts its circuits by watts at every request, ten on a page, and no row has an id. So a circuit can cross a
page boundary between two requests and be shown twice or not at all. A reading is complete when it shows every name as
often as page 734 registers it, in descending order.

After a recent full read, one page can be the complete reading: where page 1 shows a blank (0 W), all following
circuits are blank too.
"""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, FiniteFloat, TypeAdapter, ValidationError

from aiseg2_pipeline.aiseg2.circuits import circuit_key, clean_name, shown_name
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import Circuit, CircuitList, CircuitPage, CircuitPower
from aiseg2_pipeline.aiseg2.pages import CIRCUIT_LIST, CIRCUITS, CIRCUITS_A_PAGE
from aiseg2_pipeline.aiseg2.transport import Deadline, NotServed

READS_IN_ALL = 3
LIST_LASTS_S = 86_400
FULL_READ_LASTS_S = 3_600
_QUOTED_CHARS = 20


class CircuitSource(Protocol):
    """The two pages that are needed from a client."""

    def circuit_page(self, page: int, deadline: Deadline) -> CircuitPage:
        """Return page `page`, from 1."""

    def circuit_list(self, deadline: Deadline) -> CircuitList:
        """Return the registered circuits."""


_Name = Annotated[str, AfterValidator(clean_name)]
_Circuit = Annotated[Circuit, AfterValidator(lambda circuit: Circuit(*map(clean_name, circuit)))]


@dataclass
class Memory:
    """The state kept between readings: the circuit list, and the result of the last full read.

    Times are seconds since the epoch. `shown` maps a circuit's key to page 1113's spelling.
    """

    circuits: tuple[_Circuit, ...] | None = None
    listed_at: FiniteFloat | None = None
    full_read_at: FiniteFloat | None = None
    dash_seen: bool = False
    shown: dict[_Name, _Name] = field(default_factory=dict)

    @classmethod
    def from_state(cls, state: object) -> "Memory":
        """Return the memory of a state that `to_state` returned; an empty one for any other value."""
        try:
            memory = _STATE.validate_python(state)
        except ValidationError:
            return cls()
        return cls() if memory.circuits is None else memory

    def to_state(self) -> dict[str, Any] | None:
        """Return the memory as JSON values; None without a circuit list."""
        state: dict[str, Any] = _STATE.dump_python(self, mode="json")
        return None if self.circuits is None else state


_STATE = TypeAdapter(Memory)


def read(source: CircuitSource, memory: Memory, now: datetime, deadline: Deadline) -> tuple[CircuitPower, ...]:
    """Return every registered circuit's power, and update `memory`. Raise an Aiseg2Error.

    One request where the memory allows it, otherwise all pages. Where those contradict themselves or the list, all
    pages are read again, at most twice. An empty list is accepted only where page 1 shows no circuit either.
    """
    return _Reading(source, memory, now.timestamp(), deadline).rows()


class _Reading:
    """One reading of the circuits: its inputs, and the steps that share them."""

    def __init__(self, source: CircuitSource, memory: Memory, at: float, deadline: Deadline) -> None:
        self.source, self.memory, self.at, self.deadline = source, memory, at, deadline
        self.circuits = memory.circuits or ()
        self.list_is_new = False

    def rows(self) -> tuple[CircuitPower, ...]:
        """Return every registered circuit's power, from page 1 alone where that is complete."""
        if self.memory.circuits is None or not self._is_recent(self.memory.listed_at, LIST_LASTS_S):
            self._renew_list()
        if not self.circuits:
            return ()
        first = self._page(1)
        if self._is_recent(self.memory.full_read_at, FULL_READ_LASTS_S) and not self.memory.dash_seen:
            rest = _blank_rest(first, self.circuits, self.memory.shown)
            if rest is not None:
                return first.rows + rest
        return self._full_read(first)

    def _full_read(self, first: CircuitPage) -> tuple[CircuitPower, ...]:
        """Return the rows of all pages, once they contradict neither themselves nor the list."""
        before: tuple[CircuitPower, ...] | None = None
        for attempt in range(READS_IN_ALL):
            pages = self._all_pages(first if attempt == 0 else self._page(1))
            rows = tuple(row for page in pages for row in page.rows)
            problem = _contradiction(rows, self.circuits)
            if problem and not self.list_is_new:
                self._renew_list()
                problem = _contradiction(rows, self.circuits)
            # Two equal reads show two equal circuits, not one that crossed a page boundary.
            if problem is None and rows != before:
                problem = _crossing(pages)
            if problem is None:
                self.memory.full_read_at = self.at
                self.memory.dash_seen = any(row.power_w is None for row in rows)
                self.memory.shown = {circuit_key(row.name): row.name for row in rows}
                return rows
            before = rows
        raise Unreadable(f"{problem}, in {READS_IN_ALL} reads in a row: if this continues, restart the AiSEG2.")

    def _all_pages(self, first: CircuitPage) -> list[CircuitPage]:
        pages = [first]
        # One page more than the list needs is enough to show that the two disagree.
        while not pages[-1].is_last and len(pages) <= math.ceil(len(self.circuits) / CIRCUITS_A_PAGE):
            pages.append(self._page(len(pages) + 1))
        return pages

    def _renew_list(self) -> None:
        self.list_is_new = True
        self.circuits = self.source.circuit_list(self.deadline).circuits
        if not self.circuits and (name := self._any_name()):
            raise Unreadable(
                f"{CIRCUIT_LIST} registers no circuit, but {CIRCUITS} shows {_quoted(name)}: if this continues, "
                "restart the AiSEG2."
            )
        if self.circuits != self.memory.circuits:
            self.memory.full_read_at = None
        self.memory.circuits = self.circuits
        self.memory.listed_at = self.at

    def _any_name(self) -> str | None:
        """Return the name of a circuit on page 1; None where it shows none, as in a home without circuits."""
        try:
            rows = self._page(1).rows
        except (NotServed, Unreadable):
            return None
        return next((row.name for row in rows if row.name.strip()), None)

    def _page(self, page: int) -> CircuitPage:
        return self.source.circuit_page(page, self.deadline)

    def _is_recent(self, time: float | None, lasts_s: float) -> bool:
        return time is not None and 0 <= self.at - time < lasts_s


def _blank_rest(
    first: CircuitPage, circuits: Sequence[Circuit], shown: dict[str, str]
) -> tuple[CircuitPower, ...] | None:
    """Return the rows after page 1, all 0 W; None where page 1 is not the complete reading."""
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


def _contradiction(rows: Sequence[CircuitPower], circuits: Sequence[Circuit]) -> str | None:
    """Return why the rows are no complete reading, with the circuit's name; None where they are."""
    registered = Counter(circuit_key(circuit.name) for circuit in circuits)
    seen = Counter(circuit_key(row.name) for row in rows)
    for name in seen - registered:
        return f"{CIRCUITS} showed the circuit {_quoted(name)} more often than {CIRCUIT_LIST} registers it"
    for name in registered - seen:
        return f"{CIRCUITS} did not show the circuit {_quoted(name)} as often as {CIRCUIT_LIST} registers it"
    misplaced = _out_of_order(rows)
    return (
        None
        if misplaced is None
        else f"{CIRCUITS} showed the circuit {_quoted(misplaced)} out of the order of its watts"
    )


def _out_of_order(rows: Sequence[CircuitPower]) -> str | None:
    """Return the first circuit with more watts than the one before; rows of `-` are ignored, as their order is unknown."""
    measured = [(row.name, row.power_w) for row in rows if row.power_w is not None]
    for (_, before_w), (name, power_w) in itertools.pairwise(measured):
        if power_w > before_w:
            return name
    return None


def _crossing(pages: Sequence[CircuitPage]) -> str | None:
    """Return a message where one circuit of a repeated name may be on both sides of a page boundary."""
    for page, following in itertools.pairwise(pages):
        last, first = page.rows[-1], following.rows[0]
        if last.power_w and last == first:
            return f"{CIRCUITS} showed the circuit {_quoted(last.name)} with the same watts on both sides of a page boundary"
    return None


def _quoted(name: str) -> str:
    """Return a name for a message, on one line and shortened."""
    return repr(name if len(name) <= _QUOTED_CHARS else f"{name[:_QUOTED_CHARS]}…")
