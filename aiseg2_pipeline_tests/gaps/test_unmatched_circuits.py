"""Homes in which pages 734 and 1113 differ: every minute has its circuits, and a fill keeps to their series."""

from pathlib import Path
from typing import NamedTuple

import pytest

from aiseg2_pipeline.japan_time import HOUR, MINUTE, hour_of
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline_tests.support.energy_history import DAY, NOON, recorded, remembered
from aiseg2_pipeline_tests.support.simulator_client import CIRCUIT_LIST


class Difference(NamedTuple):
    """A circuit's name on each page (None: not there), the series that only live readings have, and its energy's name."""

    circuit_id: int
    listed: str | None
    shown: str | None
    live_only: set[str]
    energy_name: str | None


DIFFERENCES = {
    "734 registers a circuit that 1113 never shows": Difference(37, "納戸", None, set(), "納戸"),
    "734 has a space that 1113 has not": Difference(
        30, "洋室１ エアコン", "洋室１エアコン", set(), "洋室１エアコン"
    ),
    "1113 has another name": Difference(30, "書斎", "洋室１の冷房", set(), "洋室１の冷房"),
    "734 lists one less than 1113 shows": Difference(37, None, "納戸", {"納戸"}, None),
    "1113 shows a name once more than 734 lists it": Difference(37, None, "ＬＤ", {"ＬＤ"}, None),
}


@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_name_that_differs_costs_no_minute_its_circuits_and_is_filled_only_where_it_is_one_circuit(
    tmp_path: Path, difference: Difference
) -> None:
    circuit_id, listed, shown, live_only, energy_name = difference
    household = Household(1, renames=[(NOON - 90 * DAY, circuit_id, listed)])
    names = {**household.names(NOON), circuit_id: shown}
    # Page 1113 shows a `・` as a line break.
    series = {name.replace("・", "") for name in names.values() if name}
    with (
        remembered(tmp_path, NOON, household, shown_names={circuit_id: shown}) as memory,
        recorded(memory, tmp_path) as record,
    ):
        for minute in range(75):
            now = NOON + minute * MINUTE
            before = memory.requests()
            record.read_live(now)
            assert set(record.store.read(now, now + MINUTE, kinds=["usage"])["name"]) == series
            # The power flow and the circuits' four pages.
            assert memory.requests() - before <= 5 or minute == 0
        hour = hour_of(memory.now()) - 5 * HOUR
        assert record.fill([hour]) == 60
        assert record.names(hour) == series - live_only
        assert record.store.circuit_names_at(NOON).get(str(circuit_id)) == energy_name
        assert memory.requests(CIRCUIT_LIST) == 1
