"""What the virtual unit's web pages remember: days, days without electricity, circuits that change."""

from datetime import date, datetime, timedelta

import numpy as np
import pytest
import requests

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import Household, Rename, step_of
from aiseg2_pipeline_tests.support.simulator_client import CIRCUIT_LIST, JAPAN, NOON, Unit, simulated

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
TOTALS = ("51111", "52111", "53111", "54111", "55111")


def at(day: date, hour: int, minute: int = 0, second: int = 0) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=JAPAN)


def hours(unit: Unit, page_id: str, day: date, circuit_id: str | None = None) -> list[float]:
    """Return a page's 24 hours: kWh, or litres."""
    page = unit.graph(page_id, day, circuit_id)
    return [sum(parts) for parts in zip(page["total1"], page["val2"] or [0] * 24, strict=True)]


# Days


def test_pages_remember_today_and_as_many_days_before_it_as_asked() -> None:
    with simulated(NOON, memory_days=3) as unit:
        for page_id, circuit_id in [*((page_id, None) for page_id in TOTALS), ("584", "8")]:
            known = [unit.graph(page_id, TODAY - timedelta(days=back), circuit_id) for back in (0, 3)]
            assert all(float(page["val_kwh"]) > 0 for page in known)
            for days in (-4, -400, 1, 30):
                unknown = unit.graph(page_id, TODAY + timedelta(days=days), circuit_id)
                assert (unknown["val_kwh"], unknown["totalValue"]) == ("-", "-")
                assert not any(unknown["total1"] + unknown["val2"])
                assert len(unknown["total1"]) == 24


def test_hot_water_is_whole_litres_that_add_up_to_the_day() -> None:
    with simulated() as unit:
        page = unit.graph("55111", YESTERDAY)
        assert page["val_kwh"] == page["totalValue"] == str(sum(page["total1"]))
        assert 100 < sum(page["total1"]) < 1000
        assert unit.page("/page/graph/55111").get_element_by_id("unit_kwh").text == "L"


def test_circuits_add_up_to_less_than_the_consumption_in_every_hour() -> None:
    with simulated() as unit:
        used = hours(unit, "52111", YESTERDAY)
        circuits = [hours(unit, "584", YESTERDAY, str(circuit.circuit_id)) for circuit in CIRCUITS]
    summed = [sum(hour) for hour in zip(*circuits, strict=True)]
    assert all(0.8 * whole < part <= whole for part, whole in zip(summed, used, strict=True))


# Outages

OUTAGE = (at(YESTERDAY, 19, 20), at(YESTERDAY, 22, 45))


def test_hours_in_which_the_unit_was_off_are_0_for_every_series() -> None:
    with simulated(outages=[OUTAGE]) as unit:
        for page_id, circuit_id in [*((page_id, None) for page_id in TOTALS), ("584", "8")]:
            assert hours(unit, page_id, YESTERDAY, circuit_id)[20:22] == [0, 0]
        page = unit.graph("52111", YESTERDAY)
        assert float(page["val_kwh"]) == pytest.approx(sum(page["total1"] + page["val2"]), abs=1e-6)


def test_an_outage_takes_from_an_hour_what_was_not_measured_and_nothing_else() -> None:
    with simulated(outages=[OUTAGE]) as unit, simulated() as always_on:
        cut = hours(unit, "52111", YESTERDAY)
        whole = hours(always_on, "52111", YESTERDAY)
        assert cut[:19] == whole[:19]
    before = Household(1).energy_wh(at(YESTERDAY, 19), OUTAGE[0]).consumption_wh
    after = Household(1).energy_wh(OUTAGE[1], at(YESTERDAY, 23)).consumption_wh
    assert cut[19] * 1000 == pytest.approx(before, abs=2)
    assert cut[22] * 1000 == pytest.approx(after, abs=2)
    # A counter that was read at other times may differ by the Wh that it rounds off.
    assert cut[23] == pytest.approx(whole[23], abs=0.0021)


def test_a_day_without_electricity_is_nothing_but_zeros() -> None:
    with simulated(outages=[(at(YESTERDAY, 0), at(TODAY, 0))]) as unit:
        for page_id in TOTALS:
            assert not any(hours(unit, page_id, YESTERDAY))
            assert float(unit.graph(page_id, YESTERDAY)["val_kwh"]) == 0


def test_a_unit_that_is_off_closes_every_connection_without_an_answer() -> None:
    start, end = at(TODAY, 12, 10), at(TODAY, 12, 20)
    with simulated(outages=[(start, end)]) as unit:
        assert unit.get(CIRCUIT_LIST).status_code == 200
        requested = unit.served.tally.requests.total()
        for off in (start, start + timedelta(minutes=5), end - timedelta(seconds=1)):
            unit.set_clock(off)
            with pytest.raises(requests.ConnectionError):
                unit.get(CIRCUIT_LIST)
            with pytest.raises(requests.ConnectionError):
                requests.get(f"http://{unit.served.address}/", timeout=10)
        assert unit.served.tally.requests.total() == requested
        unit.set_clock(end)
        assert unit.get(CIRCUIT_LIST).status_code == 200


# Circuits that change

RENAMED = at(TODAY, 12, 30)
AFTER = at(TODAY, 12, 31)


def renamed(*renames: Rename) -> Household:
    return Household(1, renames=renames)


def test_a_new_name_is_shown_from_its_time_on() -> None:
    with simulated(NOON, renamed((RENAMED, 20, "書斎・机"))) as unit:
        assert unit.registered()[20] == "洋室１"
        before = unit.graph("584", TODAY, "20")
        unit.set_clock(AFTER)
        assert unit.registered() == {c.circuit_id: c.name for c in CIRCUITS} | {20: "書斎・机"}
        names = [name for _, name in unit.all_circuits()]
        assert "書斎机" in names
        assert "洋室１" not in names
        after = unit.graph("584", TODAY, "20")
        assert (before["total1_string"], after["total1_string"]) == ("洋室１", "書斎・机")
        assert before["total1"][:12] == after["total1"][:12]


def test_the_last_new_name_counts_in_whatever_order_they_are_given() -> None:
    renames = [(RENAMED + timedelta(seconds=30), 20, "二"), (RENAMED, 20, "一")]
    with simulated(AFTER, renamed(*renames)) as unit:
        assert unit.registered()[20] == "二"


def test_a_circuit_that_was_removed_is_nowhere_while_the_house_takes_as_much() -> None:
    with simulated(AFTER, renamed((RENAMED, 20, None))) as unit, simulated(AFTER) as other:
        assert unit.registered().keys() == other.registered().keys() - {20}
        assert len(unit.all_circuits()) == 31
        assert "洋室１" not in [name for _, name in unit.all_circuits()]
        assert unit.flow()["u_capacity"] == other.flow()["u_capacity"]
        assert unit.graph("584", YESTERDAY, "20")["val_kwh"] == "-"
        assert unit.graph("584", YESTERDAY, "21") == other.graph("584", YESTERDAY, "21")


def test_a_circuit_that_was_added_has_no_past() -> None:
    added = at(YESTERDAY, 10, 30)
    household = renamed((at(date(2000, 1, 1), 0), 20, None), (added, 20, "書斎"))
    with simulated(NOON, household) as unit:
        assert unit.registered()[20] == "書斎"
        of_yesterday = hours(unit, "584", YESTERDAY, "20")
        assert not any(of_yesterday[:10])
        steps = Household(1).circuits_w(np.arange(180) + step_of(added))[:, 12]
        assert of_yesterday[10] * 1000 == pytest.approx(steps.sum() / 360, abs=1)
        assert all(of_yesterday[11:])
        assert unit.graph("584", YESTERDAY - timedelta(days=1), "20")["val_kwh"] == "0.000"


def test_a_name_may_hold_any_character() -> None:
    name = "<b>&'\"</b>"
    with simulated(AFTER, renamed((RENAMED, 20, name))) as unit:
        assert unit.registered()[20] == name
        assert name in [shown for _, shown in unit.all_circuits()]
        assert unit.page("/page/graph/584").get_element_by_id("h_title").text == "回路ごと"
        assert unit.graph("584", TODAY, "20")["total1_string"] == name


def test_only_circuits_of_the_household_can_be_renamed() -> None:
    with pytest.raises(ValueError, match="no circuit 40"):
        renamed((RENAMED, 40, "書斎"))
