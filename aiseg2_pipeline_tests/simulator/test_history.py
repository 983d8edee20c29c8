"""The history on the simulator's graph pages: days, outages, circuits that change."""

import base64
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import pytest
import requests

from aiseg2_pipeline.simulator.household import Household, Rename
from aiseg2_pipeline_tests.support.simulator_client import (
    CIRCUIT_LIST,
    JAPAN,
    NOON,
    Unit,
    energy_wh,
    graph_data,
    simulated,
)

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
TOTALS = ("51111", "52111", "53111", "54111", "55111")
SERIES = [*((page_id, None) for page_id in TOTALS), ("584", "8")]


def at(day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=JAPAN)


def hours(unit: Unit, page_id: str, day: date, circuit_id: str | None = None) -> list[float]:
    """Return a page's 24 hours in kWh or L."""
    page = unit.graph(page_id, day, circuit_id)
    return [sum(parts) for parts in zip(page["total1"], page["val2"] or [0] * 24, strict=True)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Unit]:
    with simulated() as unit:
        yield unit


@pytest.fixture
def unit(shared: Unit) -> Unit:
    shared.set_clock(NOON)
    return shared


# Days


def test_the_current_hour_grows_and_future_hours_are_0(unit: Unit) -> None:
    unit.set_clock(NOON.replace(minute=0, second=0))
    assert not any(unit.graph("52111")["total1"][12:])
    unit.set_clock(NOON.replace(minute=30))
    half = unit.graph("52111")
    unit.set_clock(NOON.replace(hour=13))
    whole = unit.graph("52111")
    assert 0 < half["total1"][12] < whole["total1"][12]
    assert half["total1"][:12] == whole["total1"][:12]
    assert not any(half["total1"][13:])
    assert len(half["total1"]) == len(half["val2"]) == len(half["total2"]) == 24


def test_a_graph_has_the_day_before_for_comparison(unit: Unit) -> None:
    for page_id in ("52111", "54111"):
        before = [round(value, 3) for value in hours(unit, page_id, YESTERDAY)]
        assert unit.graph(page_id)["total2"] == before


@pytest.mark.parametrize("memory_days", [3, 400])
def test_pages_cover_today_and_the_days_before_it(memory_days: int) -> None:
    with simulated(memory_days=memory_days) as unit:
        for page_id, circuit_id in SERIES:
            for days in (0, -memory_days):
                assert float(unit.graph(page_id, TODAY + timedelta(days=days), circuit_id)["val_kwh"]) > 0
            for days in (1, 30, -memory_days - 1, -20_000):
                day = TODAY + timedelta(days=days)
                page = unit.graph(page_id, day, circuit_id)
                assert (page["val_kwh"], page["totalValue"], page["total1"]) == ("-", "-", [0] * 24)
                assert (any(page["val2"]), page["val_current"]) == (False, f"{day:%Y/%m/%d}")


@pytest.mark.parametrize(
    ("page_id", "circuit_id"), [("57111", None), ("584", None), ("584", "7"), ("584", "40"), ("584", "x")]
)
def test_gas_and_an_unknown_circuit_have_no_values(unit: Unit, page_id: str, circuit_id: str | None) -> None:
    for days in (0, 3, 500):
        page = unit.graph(page_id, TODAY - timedelta(days=days), circuit_id)
        assert (page["val_kwh"], page["total1"], page["val2"], page["total2"]) == ("-", [], [], [])


@pytest.mark.parametrize(
    "query", ["x", "\xff", "[]", '{"day": 3}', '{"day": [2026, 2, 30]}', '{"day": [1, 1, 1]}']
)
def test_an_invalid_day_gives_today(unit: Unit, query: str) -> None:
    for data in (base64.b64encode(query.encode("latin-1")).decode(), query):
        assert graph_data(unit.get("/page/graph/51111", data=data).text)["val_current"] == "2026/07/14"


# Outages


def test_an_outage_removes_the_unmeasured_energy_and_nothing_else(unit: Unit) -> None:
    start, end = at(YESTERDAY, 19, 20), at(YESTERDAY, 22, 45)
    day_before = YESTERDAY - timedelta(days=1)
    with simulated(outages=[(start, end), (at(day_before, 0), at(YESTERDAY, 0))]) as cut:
        for page_id, circuit_id in SERIES:
            assert hours(cut, page_id, YESTERDAY, circuit_id)[20:22] == [0, 0]
            assert float(cut.graph(page_id, day_before, circuit_id)["val_kwh"]) == 0
        page = cut.graph("52111", YESTERDAY)
        assert float(page["val_kwh"]) == pytest.approx(sum(page["total1"] + page["val2"]), abs=1e-6)
        used = hours(cut, "52111", YESTERDAY)
    whole = hours(unit, "52111", YESTERDAY)
    assert used[:19] == whole[:19]
    before = energy_wh(Household(1), at(YESTERDAY, 19), start).consumption_wh
    after = energy_wh(Household(1), end, at(YESTERDAY, 23)).consumption_wh
    assert [used[19] * 1000, used[22] * 1000] == pytest.approx([before, after], abs=2)
    # The counter's rounding carries over from the hours before.
    assert used[23] == pytest.approx(whole[23], abs=0.0021)


def test_during_an_outage_every_connection_is_closed_without_a_response() -> None:
    start, end = at(TODAY, 12, 10), at(TODAY, 12, 20)
    with simulated(outages=[(start, end)]) as unit:
        assert unit.get(CIRCUIT_LIST).status_code == 200
        requested = unit.served.tally.requests.total()
        for off in (start, start + timedelta(minutes=5), end - timedelta(seconds=1)):
            unit.set_clock(off)
            for get in (unit.get, unit.get_once):
                with pytest.raises(requests.ConnectionError):
                    get(CIRCUIT_LIST)
        assert unit.served.tally.requests.total() == requested
        unit.set_clock(end)
        assert unit.get(CIRCUIT_LIST).status_code == 200


def test_an_added_circuit_has_no_history() -> None:
    added = at(YESTERDAY, 10, 30)
    renames: list[Rename] = [(at(date(2000, 1, 1), 0), 20, None), (added, 20, "書斎")]
    with simulated(NOON, Household(1, renames=renames)) as unit:
        assert unit.registered()[20] == "書斎"
        of_yesterday = hours(unit, "584", YESTERDAY, "20")
        energy = energy_wh(Household(1), added, at(YESTERDAY, 11))
        assert (any(of_yesterday[:10]), all(of_yesterday[11:])) == (False, True)
        assert of_yesterday[10] * 1000 == pytest.approx(energy.circuits_wh[12], abs=1)
        assert unit.graph("584", YESTERDAY - timedelta(days=1), "20")["val_kwh"] == "0.000"
