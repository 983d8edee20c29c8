"""Choose the circuit pages that a live reading needs, and check that together they are complete.

The device sorts its circuits by watts at every request, ten on a page, and no row has an id. So a circuit can cross a
page boundary between two requests and be shown twice or not at all. A reading is complete when it is in descending
order and its names are the known ones, as often as they are known: those that page 1113 showed before, or those that
page 734 registers. Other names are accepted once whole reads agree in them.

After a recent full read, one page can be the complete reading: where page 1 shows a blank (0 W), all following
circuits are blank too.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, FiniteFloat, TypeAdapter, ValidationError

from aiseg2_pipeline.aiseg2.circuits import circuit_key, clean_name, shown_name
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import Circuit, CircuitList, CircuitPage, CircuitPower
from aiseg2_pipeline.aiseg2.pages import CIRCUITS, CIRCUITS_A_PAGE
from aiseg2_pipeline.aiseg2.transport import Deadline, NotServed

READS_IN_ALL = 3
LIST_LASTS_S = 86_400
# While a program asks for a settings page, the owner's settings screen can be blocked.
LIST_AGAIN_S = 3_600
FULL_READ_LASTS_S = 3_600
# A real unit has room for 45 circuits.
MAX_PAGES = 10
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
    """The state kept between readings; times are seconds since the epoch.

    `circuits` is page 734's list of `listed_at`; it was last requested at `asked_at`, in vain if that is later. `names`
    are page 1113's, as often as it shows them, and changed last at `named_at`. The rest is of the last full read.
    """

    circuits: tuple[_Circuit, ...] | None = None
    listed_at: FiniteFloat | None = None
    asked_at: FiniteFloat | None = None
    names: tuple[_Name, ...] | None = None
    named_at: FiniteFloat | None = None
    full_read_at: FiniteFloat | None = None
    dash_seen: bool = False

    @classmethod
    def from_state(cls, state: object) -> "Memory":
        """Return the memory of a state that `to_state` returned; an empty one for any other value."""
        try:
            return _STATE.validate_python(state)
        except ValidationError:
            return cls()

    def to_state(self) -> dict[str, Any]:
        """Return the memory as JSON values."""
        state: dict[str, Any] = _STATE.dump_python(self, mode="json")
        return state

    def list_is_due(self, at: float) -> bool:
        """Return whether page 734 is to be requested: once a day, after a change of names, at most once an hour."""
        changed = self.named_at is not None and (self.listed_at is None or self.listed_at < self.named_at)
        return self.list_may_be_requested(at) and (changed or not _is_recent(self.listed_at, LIST_LASTS_S, at))

    def list_may_be_requested(self, at: float) -> bool:
        """Return whether the last request of page 734 is an hour old."""
        return not _is_recent(self.asked_at, LIST_AGAIN_S, at)


_STATE = TypeAdapter(Memory)


def read(source: CircuitSource, memory: Memory, now: datetime, deadline: Deadline) -> tuple[CircuitPower, ...]:
    """Return every circuit's power as page 1113 shows it, and update `memory`. Raise an Aiseg2Error.

    One request where the memory allows it, otherwise all pages. Where those contradict themselves, or show names that
    neither an earlier reading nor page 734 has, all pages are read again, at most twice.
    """
    return _Reading(source, memory, now.timestamp(), deadline).rows()


class _Reading:
    """One reading of the circuits: its inputs, and the steps that share them."""

    def __init__(self, source: CircuitSource, memory: Memory, at: float, deadline: Deadline) -> None:
        self.source, self.memory, self.at, self.deadline = source, memory, at, deadline

    def rows(self) -> tuple[CircuitPower, ...]:
        """Return every circuit's power, from page 1 alone where that is complete."""
        memory = self.memory
        if memory.list_is_due(self.at):
            self._renew_list()
        # An empty list is stored only where page 1113 shows no circuit either.
        if memory.circuits == ():
            return ()
        first = self._page(1)
        if memory.names and _is_recent(memory.full_read_at, FULL_READ_LASTS_S, self.at) and not memory.dash_seen:
            rest = _blank_rest(first, memory.names)
            if rest is not None:
                return first.rows + rest
        return self._full_read(first)

    def _full_read(self, first: CircuitPage) -> tuple[CircuitPower, ...]:
        """Return the rows of all pages, once they contradict neither themselves nor the known names."""
        before: tuple[CircuitPower, ...] = ()
        agreeing = 0
        for attempt in range(READS_IN_ALL):
            pages = self._all_pages(first if attempt == 0 else self._page(1))
            rows = tuple(row for page in pages for row in page.rows)
            names = [row.name for row in rows]
            agreeing = agreeing + 1 if Counter(names) == Counter(row.name for row in before) else 1
            problem = self._doubt(names, agreeing) or _disorder(pages)
            # Two equal reads show two equal circuits, not one that crossed a page boundary.
            if problem is None and rows != before:
                problem = _crossing(pages)
            if problem is None:
                self._remember(rows)
                return rows
            before = rows
        raise Unreadable(f"{problem}, in {READS_IN_ALL} reads in a row: if this continues, restart the AiSEG2.")

    def _doubt(self, names: Sequence[str], agreeing: int) -> str | None:
        """Return why these names may not be every circuit once; `agreeing` reads in a row have shown them."""
        known = self.memory.names
        if known and Counter(names) == Counter(known):
            return None
        expected = known or self._registered()
        shown, keys = Counter(map(circuit_key, names)), Counter(map(circuit_key, expected))
        # A circuit that crosses a page boundary is shown twice in place of another one.
        may_be_crossing = any(0 < keys[key] < shown[key] for key in shown) and bool(keys - shown)
        may_be_change = bool(expected) and (agreeing > 1 or not may_be_crossing)
        if may_be_change and self.memory.list_may_be_requested(self.at):
            self._renew_list()
        if shown == Counter(map(circuit_key, self._registered())):
            return None
        if agreeing >= (READS_IN_ALL if may_be_crossing else 2):
            return None
        return _difference(names, expected)

    def _registered(self) -> list[str]:
        return [shown_name(circuit.name) for circuit in self.memory.circuits or ()]

    def _remember(self, rows: Sequence[CircuitPower]) -> None:
        names = tuple(row.name for row in rows)
        if self.memory.names is None or Counter(names) != Counter(self.memory.names):
            self.memory.names, self.memory.named_at = names, self.at
        self.memory.full_read_at = self.at
        self.memory.dash_seen = any(row.power_w is None for row in rows)

    def _all_pages(self, first: CircuitPage) -> list[CircuitPage]:
        pages = [first]
        while not pages[-1].is_last:
            if len(pages) == MAX_PAGES:
                raise Unreadable(
                    f"{CIRCUITS} showed no end after {MAX_PAGES} pages of circuits: if this continues, restart the AiSEG2."
                )
            pages.append(self._page(len(pages) + 1))
        return pages

    def _renew_list(self) -> None:
        """Request page 734. Keep the list where it is unreadable: page 1113 is enough for a reading."""
        memory = self.memory
        memory.asked_at = self.at
        try:
            circuits = self.source.circuit_list(self.deadline).circuits
        except (NotServed, Unreadable):
            return
        if not circuits and self._shows_circuits():
            return
        if circuits != memory.circuits:
            memory.full_read_at = None
        memory.circuits, memory.listed_at = circuits, self.at

    def _shows_circuits(self) -> bool:
        """Return whether page 1 shows a circuit; in a home without circuits it shows none."""
        try:
            return any(row.name.strip() for row in self._page(1).rows)
        except (NotServed, Unreadable):
            return False

    def _page(self, page: int) -> CircuitPage:
        return self.source.circuit_page(page, self.deadline)


def _is_recent(time: float | None, lasts_s: float, at: float) -> bool:
    return time is not None and 0 <= at - time < lasts_s


def _blank_rest(first: CircuitPage, names: Sequence[str]) -> tuple[CircuitPower, ...] | None:
    """Return the rows after page 1, all 0 W; None where page 1 is not the complete reading."""
    complete = len(first.rows) == min(CIRCUITS_A_PAGE, len(names))
    ends_here = len(names) <= CIRCUITS_A_PAGE
    powers_w = [row.power_w for row in first.rows]
    if not complete or None in powers_w or _out_of_order(first.rows) or not (first.has_blank or ends_here):
        return None
    rest = Counter(names)
    rest.subtract(row.name for row in first.rows)
    return None if min(rest.values()) < 0 else tuple(CircuitPower(name, 0.0) for name in rest.elements())


def _difference(names: Sequence[str], expected: Sequence[str]) -> str:
    """Return a message with a name that differs from the expected ones."""
    shown, known = Counter(map(circuit_key, names)), Counter(map(circuit_key, expected))
    if more := next((name for name in names if shown[circuit_key(name)] > known[circuit_key(name)]), None):
        return f"{CIRCUITS} showed the circuit {_quoted(more)} more often than expected"
    fewer = next(name for name in expected if shown[circuit_key(name)] < known[circuit_key(name)])
    return f"{CIRCUITS} showed the circuit {_quoted(fewer)} less often than expected"


def _disorder(pages: Sequence[CircuitPage]) -> str | None:
    """Return why the pages are not one list in descending order of watts; None where they are."""
    if any(len(page.rows) < CIRCUITS_A_PAGE for page in pages[:-1]):
        return f"{CIRCUITS} showed fewer than {CIRCUITS_A_PAGE} circuits on a page before the last"
    misplaced = _out_of_order([row for page in pages for row in page.rows])
    if misplaced is None:
        return None
    return f"{CIRCUITS} showed the circuit {_quoted(misplaced)} out of the order of its watts"


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
