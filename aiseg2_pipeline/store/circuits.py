"""The circuits and when each was in force, so that a past reading gets the name that its circuit had then.

A circuit is in force while page 1113 shows it. One that only page 734 has is stored with an end that is its beginning:
it is never in force, so no minute is filled with it, but its energy has a name.
"""

from collections.abc import Collection
from datetime import datetime

from aiseg2_pipeline.aiseg2.circuits import shown_name
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.store.hours import Execute
from aiseg2_pipeline.store.transactions import Transactions, repeated, unix_s

CIRCUITS_AT = """
SELECT circuit_id, name FROM circuits WHERE valid_from <= :time AND (valid_to IS NULL OR valid_to > :time) ORDER BY rowid
"""
# The name in force comes last.
NAMES_AT = """
SELECT circuit_id, name FROM circuits WHERE valid_from <= :time ORDER BY valid_to IS NULL OR valid_to > :time, valid_from
"""
# Set once all names have the spelling of page 1113; earlier versions stored that of page 734.
SPELLING = "shown_names"


class CircuitLists(Transactions):
    """The circuits and the times in which they were in force."""

    @repeated
    def record_circuits(
        self, circuits: Collection[Circuit], at: datetime, *, unshown: Collection[Circuit] = ()
    ) -> None:
        """Store that `circuits` are in force at `at`, and the names of `unshown`; write nothing if that is stored already.

        Entries later than `at` are deleted, because the clock was wrong when they were stored.
        """
        at_s = int(unix_s(at))
        with self._changing() as execute:
            _spell_as_shown(execute)
            execute("DELETE FROM circuits WHERE valid_from >= ?", (at_s,))
            execute("UPDATE circuits SET valid_to = NULL WHERE valid_to >= ?", (at_s,))
            in_force = _in_force(execute)
            for circuit in in_force - set(circuits):
                sql = "UPDATE circuits SET valid_to = ? WHERE circuit_id = ? AND name = ? AND valid_to IS NULL"
                execute(sql, (at_s, circuit.circuit_id, circuit.name))
            new: list[tuple[Circuit, int | None]] = [
                (circuit, None) for circuit in dict.fromkeys(circuits) if circuit not in in_force
            ]
            names = dict(_circuits(execute, NAMES_AT, at_s))
            new += [(circuit, at_s) for circuit in unshown if names.get(circuit.circuit_id) != circuit.name]
            for circuit, valid_to in new:
                execute("INSERT INTO circuits VALUES (?, ?, ?, ?)", (*circuit, at_s, valid_to))

    def circuits_at(self, time: datetime) -> list[Circuit]:
        """Return the circuits in force at a time, in the order of storing; before the first list, those of the first list."""
        with self._reading() as execute:
            return _circuits(execute, CIRCUITS_AT, unix_s(time))

    def circuit_names_at(self, time: datetime) -> dict[str, str]:
        """Return the names of all circuits by id, also of those that are not in force at that time."""
        with self._reading() as execute:
            return dict(_circuits(execute, NAMES_AT, unix_s(time)))

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


def _circuits(execute: Execute, sql: str, time_s: float) -> list[Circuit]:
    first = execute("SELECT min(valid_from) FROM circuits").fetchone()[0]
    rows = [] if first is None else execute(sql, {"time": max(first, time_s)}).fetchall()
    is_shown = execute("SELECT 1 FROM meta WHERE key = ?", (SPELLING,)).fetchone()
    return [Circuit(circuit_id, name if is_shown else shown_name(name)) for circuit_id, name in rows]


def _spell_as_shown(execute: Execute) -> None:
    """Give circuits that an earlier version stored the spelling of page 1113."""
    if execute("SELECT 1 FROM meta WHERE key = ?", (SPELLING,)).fetchone():
        return
    for (name,) in execute("SELECT DISTINCT name FROM circuits").fetchall():
        execute("UPDATE circuits SET name = ? WHERE name = ?", (shown_name(name), name))
    execute("INSERT INTO meta VALUES (?, 1)", (SPELLING,))


def _in_force(execute: Execute) -> set[Circuit]:
    return {Circuit(*row) for row in execute("SELECT circuit_id, name FROM circuits WHERE valid_to IS NULL")}
