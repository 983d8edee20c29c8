"""The graph pages: a day's hours are used only where they agree with the page's total and clock."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from aiseg2_pipeline.aiseg2 import graphs
from aiseg2_pipeline.aiseg2.errors import NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import DayGraph, EnergyRow
from aiseg2_pipeline_tests.support.device import CAPTURES, needs_captures
from aiseg2_pipeline_tests.support.device_pages import graph_page

DAY = date(2026, 7, 14)
AT_HALF_PAST_THREE = datetime(2026, 7, 14, 3, 30, 0)  # noqa: DTZ001 - as the device's page shows it, in Japan time
MIDNIGHT = datetime(2026, 7, 13, 15, tzinfo=UTC)

FLAT = [0.1] * 24


def two_part_page(own: list[float], bought: list[float], **variables: Any) -> bytes:
    total = f"{sum(own) + sum(bought):.3f}"
    return graph_page(own, total, val2=bought, val3=[], connectInfo={"gen": 1, "sto": 0}, **variables)


def read(page: bytes, series: graphs.Series = "generation") -> DayGraph:
    return graphs.graph(page, series, DAY)


def energy(rows: tuple[EnergyRow, ...], series: str) -> dict[int, int]:
    """Return Wh by hour of the day."""
    return {
        (row.time - MIDNIGHT) // timedelta(hours=1): row.wh
        for row in rows
        if row.series == series and row.interval_s == 3600
    }


# Captures of a real unit


@needs_captures
def test_the_ended_hours_of_the_captured_day_add_up_to_what_the_device_measured() -> None:
    generation = read((CAPTURES / "graph_51111.html").read_bytes())
    consumption = read((CAPTURES / "graph_52111.html").read_bytes(), "consumption")
    rows = graphs.day_from_web(consumption, generation)
    sums = {name: energy(rows, name) for name in ("generation", "consumption", "bought", "sold")}
    assert {name: sum(hours.values()) for name, hours in sums.items()} == {
        "generation": 1610,
        "consumption": 5866,
        "bought": 4615,
        "sold": 359,
    }
    assert all(list(hours) == list(range(8)) for hours in sums.values())
    assert (generation.total, consumption.total) == (2.169, 6.118)
    assert (generation.title, generation.unit) == ("発電量", "kWh")
    assert generation.device_time == datetime(2026, 7, 13, 23, 17, 22, tzinfo=UTC)


# Which hours are readings


def test_hours_are_exact_to_the_watt_hour_and_need_the_pages_clock() -> None:
    with_clock, without = read(graph_page()), read(graph_page(clock=None))
    assert with_clock.hours_wh == (0, 1, 736, *([250] * 20), 1127)
    assert without.hours_wh is None
    assert with_clock.total == without.total == pytest.approx(6.864)


def test_hours_that_have_not_ended_on_the_pages_clock_are_absent() -> None:
    hours, four = [0.1, 0.2, 0.3, 0.05, *([0.0] * 20)], AT_HALF_PAST_THREE.replace(hour=4, minute=0)
    for clock, ended in ((AT_HALF_PAST_THREE, 3), (four - timedelta(seconds=1), 3), (four, 4)):
        known = (100, 200, 300, 50)[:ended]
        assert read(graph_page(hours, clock=clock)).hours_wh == (*known, *([None] * (24 - ended)))


@pytest.mark.parametrize(("total", "adds_up"), [("2.400", True), ("2.412", True), ("2.413", False), ("3", False)])
def test_hours_that_do_not_add_up_to_the_total_are_left_out(total: str, adds_up: bool) -> None:  # noqa: FBT001 - a parameter of the test
    graph = read(graph_page(FLAT, total))
    assert (graph.hours_wh is not None) == adds_up
    assert graph.total == float(total)


@pytest.mark.parametrize(
    ("total1", "total", "val2", "wh"),
    [
        (FLAT, "7.2", [0.2] * 24, 300),
        (FLAT, "2.4", [0.2] * 24, 100),
        # Both sums are within rounding: the exact one counts.
        (FLAT, "2.4", [0.001] * 5 + [0] * 19, 100),
        ([], "2.4", FLAT, 100),
    ],
    ids=["several generators", "not in the total", "hardly in the total", "no generation"],
)
def test_the_hours_are_the_sum_of_the_arrays_that_are_in_the_total(
    total1: list[float], total: str, val2: list[float], wh: int
) -> None:
    graph = read(graph_page(total1, total, val2=val2, val3=[]), "consumption")
    assert graph.hours_wh == (wh,) * 24
    assert (graph.own_use_wh is not None) == (wh == 300)


def test_with_storage_the_consumption_has_no_own_and_bought_part() -> None:
    two = two_part_page(FLAT, FLAT)
    assert read(two, "consumption").bought_wh == (100,) * 24
    assert read(two.replace(b'"sto": 0', b'"sto": 1'), "consumption").bought_wh is None
    three = graph_page(FLAT, "7.2", val2=FLAT, val3=FLAT)
    assert read(three, "consumption").hours_wh == (300,) * 24
    assert read(three, "consumption").bought_wh is None


def test_a_dash_is_no_data() -> None:
    graph = read(graph_page([], "-"))
    assert (graph.total, graph.hours_wh) == (None, None)
    assert read(graph_page(FLAT, "-")).hours_wh is None


def test_water_and_gas_have_a_total_in_their_unit() -> None:
    water = graphs.graph(graph_page([], "342", unit="L"), "hotwater", DAY)
    assert (water.total, water.unit, water.hours_wh) == (342, "L", None)
    for unit in ("m³", "㎥", "m<sup>3</sup>", ""):
        gas = graphs.graph(graph_page([], "1.7", unit=unit), "gas", DAY)
        assert (gas.total, gas.unit) == (1.7, "㎥")


# Pages that are not the requested reading


def test_a_page_of_another_day_is_refused_and_both_days_are_named() -> None:
    with pytest.raises(Unreadable, match=r"51111 shows 2026-07-14 in `#val_current`, not 2026-07-13"):
        graphs.graph(graph_page(), "generation", date(2026, 7, 13))
    with pytest.raises(Unreadable, match="shows 2026-07-14"):
        graphs.circuit_graph(graph_page(), "30", date(2026, 7, 13))


def test_without_a_requested_day_the_page_must_show_its_own_today() -> None:
    assert graphs.graph(graph_page(FLAT, clock=AT_HALF_PAST_THREE), "sold").day == DAY
    with pytest.raises(Unreadable, match="shows 2026-07-14"):
        graphs.graph(graph_page(), "sold")


def test_a_page_of_another_series_is_refused() -> None:
    assert read(graph_page(title="発電量")).title == "発電量"
    assert read(graph_page(title="発電電力量 R&D")).title == "発電電力量 R&D"
    assert read(graph_page(title="")).title == "発電量"
    with pytest.raises(Unreadable, match="shows 使用電力量, not 発電量"):
        read(graph_page(title="使用電力量"))


@pytest.mark.parametrize(
    ("page", "missing"),
    [
        (graph_page(FLAT[:23], "2.3"), "24 hours in `total1`"),
        (graph_page([*FLAT, 0.1], "2.5"), "24 hours in `total1`"),
        (graph_page("0.1", "2.4"), "24 hours in `total1`"),
        (graph_page([*FLAT[:23], None], "2.3"), "no number in `total1`"),
        (graph_page([*FLAT[:23], "-"], "2.3"), "without a number in `total1`"),
        (graph_page([*FLAT[:23], -0.1], "2.2"), "no number in `total1`"),
        (graph_page(FLAT, totalValue="2.3"), "another total in `#val_kwh` than in `totalValue`"),
        (graph_page(FLAT, "2.4kWh"), "no number in `#val_kwh`"),
        (graph_page(FLAT, ""), "no number in `#val_kwh`"),
        (graph_page().replace(b"val_kwh", b"val"), "no `#val_kwh`"),
        (graph_page().replace(b"val_current", b"val"), "no `#val_current`"),
        (graph_page(day="2026/02/30"), "no day in `#val_current`"),
        (graph_page(unit="MWh"), "not kWh"),
        (graph_page().replace(b"graph_data", b"data"), "no `graph_data`"),
        (graph_page().replace(b"graph_data = {", b"graph_data = {{"), "not JSON"),
        (b"<html><body>login</body></html>", "no `#val_current`"),
        (b"", "ends in the middle"),
    ],
)
def test_a_page_with_a_missing_or_invalid_element_is_refused_by_its_name(page: bytes, missing: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(page)
    assert missing in str(refused.value)
    assert "/page/graph/51111" in str(refused.value)


@pytest.mark.parametrize(
    "page",
    [
        graph_page(FLAT[:23], "2.4"),
        graph_page(FLAT, "2.4", clock=None),
        graph_page([0.2] * 24, "2.4"),
        graph_page(FLAT, "2.4").replace(b"graph_data", b"data"),
        graph_page(FLAT, "2.4").replace(b"graph_data = {", b"graph_data = {{"),
        graph_page([], "2.4"),
    ],
)
def test_a_circuit_without_valid_hours_keeps_its_total(page: bytes) -> None:
    graph = graphs.circuit_graph(page, "30", DAY)
    assert (graph.total, graph.hours_wh, graph.circuit_id, graph.series) == (2.4, None, "30", "usage")


@pytest.mark.parametrize("total_value", ["", "QQ"], ids=["empty", "null"])
def test_a_total_without_total_value_is_used(total_value: str) -> None:
    page = graph_page(FLAT, totalValue=total_value).replace(b'"QQ"', b"null")
    assert graphs.circuit_graph(page, "30", DAY).total == 2.4


def test_a_title_is_not_read_as_the_pages_script() -> None:
    page = graph_page(FLAT, title='graph_data = {"total1": [], "totalValue": "7"}')
    assert graphs.circuit_graph(page, "30", DAY).hours_wh == (100,) * 24


# A day of all pages combined


def test_an_hour_without_consumption_is_no_reading_of_any_series() -> None:
    consumption = read(two_part_page([0.0, *FLAT[1:]], [0.0, *FLAT[1:]]), "consumption")
    generation, bought, sold = (read(graph_page(FLAT), name) for name in ("generation", "bought", "sold"))
    circuit = graphs.circuit_graph(graph_page(FLAT), "30", DAY)
    rows = graphs.day_from_web(consumption, generation, bought, sold, [circuit])
    assert {row.time for row in rows} == {MIDNIGHT + timedelta(hours=n) for n in range(1, 24)}
    assert len(rows) == 5 * 23
    assert graphs.known_hours(consumption) == (False, *([True] * 23))
    assert [row.circuit_id for row in rows if row.series == "usage"] == ["30"] * 23


@pytest.mark.parametrize("total", ["-", "0", "0.000"])
def test_a_day_without_consumption_is_no_data(total: str) -> None:
    consumption = read(graph_page([0.0] * 24 if total != "-" else [], total), "consumption")
    with pytest.raises(NoData, match="2026-07-14"):
        graphs.day_from_web(consumption, read(graph_page()))


def test_without_hours_of_the_consumption_there_are_no_rows() -> None:
    consumption = read(graph_page(FLAT, "9"), "consumption")
    assert graphs.day_from_web(consumption, read(graph_page())) == ()


def test_measured_bought_and_sold_are_preferred_to_calculated_ones() -> None:
    consumption = read(two_part_page(FLAT, FLAT), "consumption")
    generation = read(graph_page([0.05, *FLAT[1:23], 0.3]))
    rows = graphs.day_from_web(consumption, generation, read(graph_page([0.2] * 24), "bought"))
    assert set(energy(rows, "bought").values()) == {200}
    # Where the own use is more than the generation, the two pages contradict each other.
    assert energy(rows, "sold") == dict.fromkeys(range(1, 23), 0) | {23: 200}
    sold = read(graph_page([0.4] * 24), "sold")
    assert set(energy(graphs.day_from_web(consumption, generation, None, sold), "sold").values()) == {400}


def test_graphs_of_two_days_are_refused() -> None:
    consumption = read(graph_page(FLAT), "consumption")
    later = graphs.graph(graph_page(FLAT, day="2026/07/15"), "generation", date(2026, 7, 15))
    with pytest.raises(Unreadable, match="2026-07-14 and 2026-07-15"):
        graphs.day_from_web(consumption, later)
