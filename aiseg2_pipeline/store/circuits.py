"""The circuit lists and when each was in force, so that a past reading gets the name that its circuit had then."""

from collections.abc import Collection
from datetime import datetime

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.store.hours import Execute
from aiseg2_pipeline.store.transactions import Transactions, repeated, unix_s

CIRCUITS_AT = """
SELECT circuit_id, name FROM circuits WHERE valid_from <= :time AND (valid_to IS NULL OR valid_to > :time) ORDER BY rowid
"""


class CircuitLists(Transactions):
    """The circuits and the times in which they were in force."""

    @repeated
    def record_circuits(self, circuits: Collection[Circuit], at: datetime) -> None:
        """Store that `circuits` is the list in force at `at`; write nothing if that is stored already.

        Entries later than `at` are deleted, because the clock was wrong when they were stored.
        """
        at_s = int(unix_s(at))
        with self._changing() as execute:
            execute("DELETE FROM circuits WHERE valid_from >= ?", (at_s,))
            execute("UPDATE circuits SET valid_to = NULL WHERE valid_to >= ?", (at_s,))
            in_force = _in_force(execute)
            for circuit in in_force - set(circuits):
                sql = "UPDATE circuits SET valid_to = ? WHERE circuit_id = ? AND name = ? AND valid_to IS NULL"
                execute(sql, (at_s, circuit.circuit_id, circuit.name))
            for circuit in dict.fromkeys(circuits):
                if circuit not in in_force:
                    execute(
                        "INSERT INTO circuits VALUES (?, ?, ?, NULL)", (circuit.circuit_id, circuit.name, at_s)
                    )

    def circuits_at(self, time: datetime) -> list[Circuit]:
        """Return the circuits in force at a time, in the order of storing; before the first list, those of the first list."""
        with self._reading() as execute:
            first = execute("SELECT min(valid_from) FROM circuits").fetchone()[0]
            if first is None:
                return []
            return [Circuit(*row) for row in execute(CIRCUITS_AT, {"time": max(first, unix_s(time))})]

    @repeated
    def add_circuits(self, past: Collection[tuple[str, str, int, int | None]]) -> None:
        """Add older circuits (id, name, valid from, valid to; unix s) before the first list of this store.

        Those still in force end where that list begins.
        """
        with self._changing() as execute:
            (first,) = execute("SELECT min(valid_from) FROM circuits").fetchone()
            for circuit_id, name, valid_from, valid_to in past:
                if first is None or valid_from < first:
                    ends = [end for end in (valid_to, first) if end is not None]
                    values = (circuit_id, name, valid_from, min(ends, default=None))
                    execute("INSERT INTO circuits VALUES (?, ?, ?, ?)", values)


def _in_force(execute: Execute) -> set[Circuit]:
    return {Circuit(*row) for row in execute("SELECT circuit_id, name FROM circuits WHERE valid_to IS NULL")}
