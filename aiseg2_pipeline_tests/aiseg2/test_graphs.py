"""The graph pages: a day's hours are readings only where the page itself bears them out."""

import contextlib
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2 import graphs
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import DayGraph, EnergyRow
from aiseg2_pipeline_tests.support.device import CAPTURES

DAY = date(2026, 7, 14)
NEXT_DAY = datetime(2026, 7, 15, 9, 0, 0)  # noqa: DTZ001 - as the device's page writes it, in Japan time
AT_HALF_PAST_THREE = datetime(2026, 7, 14, 3, 30, 0)  # noqa: DTZ001 - as above
MIDNIGHT = datetime(2026, 7, 13, 15, tzinfo=UTC)
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason="the captures of a real unit are not here")

HOURS = [0.0, 0.001, 0.736, *([0.25] * 20), 1.127]
FLAT = [0.1] * 24


def graph_page(
    total1: Any = HOURS,
    total: str | None = None,
    /,
    *,
    clock: datetime | None = NEXT_DAY,
    day: str = "2026/07/14",
    unit: str = "kWh",
    title: str = "",
    **variables: Any,
) -> bytes:
    """Return a page whose total is that of `total1` unless given; `None` as a variable leaves it out."""
    if total is None:
        total = f"{sum(total1):.3f}"
    told = {"unit": "day", "total1": total1, "val2": [], "total2": [9.9] * 24, "max": 5, "totalValue": total}
    told = {key: value for key, value in (told | variables).items() if value is not None}
    time = clock and {
        "year": f"{clock:%y}",
        "month": str(clock.month),
        "day": str(clock.day),
        "hour": str(clock.hour),
        "min": str(clock.minute),
        "sec": str(clock.second),
    }
    script = f"TimeInfoVariable.serverTime = '{json.dumps(time)}';" if time else ""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html><html><head><title>&nbsp;</title></head><body class=pc>
<h1 id="h_title">{title}<span id="h_subtitle"></span></h1><script>{script}</script>
<div id="val_current">{day}</div><span id="val_kwh">{total}</span><span id="unit_kwh">{unit}</span>
<script>
  var version = 'Ver';
  var graph_data = {json.dumps(told, ensure_ascii=False)};
  var tabs = {{"day":[2026,7,14]}};
</script></body></html>""".encode()


def two_part_page(own: list[float], bought: list[float], **told: Any) -> bytes:
    total = f"{sum(own) + sum(bought):.3f}"
    return graph_page(own, total, val2=bought, val3=[], connectInfo={"gen": 1, "sto": 0}, **told)


def read(page: bytes, series: graphs.Series = "generation") -> DayGraph:
    return graphs.graph(page, series, DAY)


def energy(rows: tuple[EnergyRow, ...], series: str) -> dict[int, int]:
    """Return Wh by hour of the day."""
    return {
        (row.time - MIDNIGHT) // timedelta(hours=1): row.wh
        for row in rows
        if row.series == series and row.interval_s == 3600
    }


# What a real unit showed


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
    assert (generation.title, generation.unit, generation.generators) == ("発電量", "kWh", ("太陽光発電",))
    assert generation.device_time == datetime(2026, 7, 13, 23, 17, 22, tzinfo=UTC)


@needs_captures
@pytest.mark.parametrize("name", ["graph_51111.html", "graph_52111.html"])
def test_a_captured_page_that_is_cut_is_never_another_reading(name: str) -> None:
    series: graphs.Series = "generation" if "51111" in name else "consumption"
    body = (CAPTURES / name).read_bytes()
    whole = read(body, series)
    start = body.index(b"val_current")
    for length in [*range(0, len(body), 97), *range(start, start + 200, 3), *range(len(body) - 20, len(body))]:
        with contextlib.suppress(Aiseg2Error):
            assert read(body[:length], series) == whole


# Which hours are readings


def test_hours_come_back_to_the_watt_hour() -> None:
    graph = read(graph_page())
    assert graph.hours_wh == (0, 1, 736, *([250] * 20), 1127)
    assert graph.total == pytest.approx(6.864)


def test_hours_that_have_not_ended_on_the_pages_clock_are_absent() -> None:
    hours = [0.1, 0.2, 0.3, 0.05, *([0.0] * 20)]
    assert read(graph_page(hours, clock=AT_HALF_PAST_THREE)).hours_wh == (100, 200, 300, *([None] * 21))
    at_four = AT_HALF_PAST_THREE.replace(hour=4, minute=0)
    assert read(graph_page(hours, clock=at_four)).hours_wh == (100, 200, 300, 50, *([None] * 20))
    one_second_before = at_four - timedelta(seconds=1)
    assert read(graph_page(hours, clock=one_second_before)).hours_wh == (100, 200, 300, *([None] * 21))


def test_a_page_without_a_clock_has_a_total_and_no_hours() -> None:
    graph = read(graph_page(clock=None))
    assert graph.hours_wh is None
    assert graph.total == pytest.approx(6.864)


@pytest.mark.parametrize(("total", "adds_up"), [("2.400", True), ("2.412", True), ("2.413", False), ("3", False)])
def test_hours_that_do_not_add_up_to_the_total_are_left_out(total: str, adds_up: bool) -> None:  # noqa: FBT001 - a parameter of the test
    graph = read(graph_page(FLAT, total))
    assert (graph.hours_wh is not None) == adds_up
    assert graph.total == float(total)


def test_the_hours_of_several_generators_are_added_up() -> None:
    page = graph_page(FLAT, "7.2", val2=[0.2] * 24, total1_string="太陽光発電", val2_string=" 燃料電池\n")
    graph = read(page)
    assert graph.hours_wh == (300,) * 24
    assert graph.generators == ("太陽光発電", "燃料電池")


def test_an_array_that_the_total_does_not_count_is_not_added() -> None:
    assert read(graph_page(FLAT, "2.4", val2=[0.2] * 24)).hours_wh == (100,) * 24
    # Both sums are within rounding: the exact one counts.
    assert read(graph_page(FLAT, "2.4", val2=[0.001] * 5 + [0] * 19)).hours_wh == (100,) * 24


def test_a_home_without_generation_has_its_consumption_in_one_array() -> None:
    graph = read(graph_page([], "2.4", val2=FLAT, val3=[]), "consumption")
    assert (graph.hours_wh, graph.own_use_wh) == ((100,) * 24, None)


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


# Pages that are no reading of what was asked


def test_a_page_of_another_day_is_refused_and_both_days_are_named() -> None:
    with pytest.raises(Unreadable, match=r"51111 shows 2026-07-14 in `#val_current`, not 2026-07-13"):
        graphs.graph(graph_page(), "generation", date(2026, 7, 13))
    with pytest.raises(Unreadable, match="shows 2026-07-14"):
        graphs.circuit_graph(graph_page(), "30", date(2026, 7, 13))


def test_without_a_day_the_page_must_show_its_own_today() -> None:
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
        (graph_page([*FLAT[:23], float("nan")], "2.3"), "no number in `total1`"),
        (graph_page([*FLAT[:23], True], "2.3"), "no number in `total1`"),
        (graph_page(FLAT, totalValue="2.3"), "another total in `#val_kwh` than in `totalValue`"),
        (graph_page(FLAT, "2.4kWh"), "no number in `#val_kwh`"),
        (graph_page(FLAT, ""), "no number in `#val_kwh`"),
        (graph_page().replace(b"val_kwh", b"val"), "no `#val_kwh`"),
        (graph_page().replace(b"val_current", b"val"), "no `#val_current`"),
        (graph_page(day="2026/02/30"), "no day in `#val_current`"),
        (graph_page(day="9999/12/31"), "no day in `#val_current`"),
        (graph_page(unit="MWh"), "not kWh"),
        (graph_page().replace(b"graph_data", b"data"), "no `graph_data`"),
        (graph_page().replace(b"graph_data = {", b"graph_data = {{"), "not JSON"),
        (b"<html><body>login</body></html>", "no `#val_current`"),
        (b"", "ends in the middle"),
    ],
)
def test_what_is_missing_is_named(page: bytes, missing: str) -> None:
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
def test_a_circuit_without_good_hours_keeps_its_total(page: bytes) -> None:
    graph = graphs.circuit_graph(page, "30", DAY)
    assert (graph.total, graph.hours_wh, graph.circuit_id, graph.series) == (2.4, None, "30", "usage")


@pytest.mark.parametrize("told", ["", "QQ"], ids=["empty", "null"])
def test_a_total_told_once_is_enough(told: str) -> None:
    page = graph_page(FLAT, totalValue=told).replace(b'"QQ"', b"null")
    assert graphs.circuit_graph(page, "30", DAY).total == 2.4


def test_a_circuits_name_cannot_pass_for_the_pages_script() -> None:
    page = graph_page(FLAT, title='graph_data = {"total1": [], "totalValue": "7"}')
    assert graphs.circuit_graph(page, "30", DAY).hours_wh == (100,) * 24


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_gives_only_our_errors(body: bytes) -> None:
    for tail in (body, graph_page().replace(b"0.736", body), graph_page().replace(b"2026/07/14", body)):
        with contextlib.suppress(Aiseg2Error):
            graphs.graph(tail, "generation", DAY)
        with contextlib.suppress(Aiseg2Error):
            graphs.circuit_graph(tail, "30", DAY)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["total1", "val2", "val3", "totalValue", "connectInfo", "total1_string"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(),
            lambda inner: st.lists(inner, min_size=24, max_size=24) | st.dictionaries(st.just("sto"), inner),
            max_leaves=3,
        ),
    )
)
def test_any_variables_give_only_our_errors(told: dict[str, Any]) -> None:
    for series in ("generation", "consumption"):
        with contextlib.suppress(Aiseg2Error):
            graphs.graph(graph_page(FLAT, **told), series, DAY)


@pytest.mark.parametrize("of_circuit", [False, True])
def test_a_cut_page_is_never_another_reading(of_circuit: bool) -> None:  # noqa: FBT001 - a parameter of the test
    body = two_part_page(FLAT, HOURS)

    def parse(page: bytes) -> DayGraph:
        return graphs.circuit_graph(page, "30", DAY) if of_circuit else read(page, "consumption")

    whole = parse(body)
    assert whole.hours_wh is not None
    for length in range(len(body)):
        with contextlib.suppress(Aiseg2Error):
            assert parse(body[:length]) == whole


def test_no_digit_of_an_hour_or_of_the_total_can_change_unseen_by_more_than_rounding() -> None:
    body = graph_page(FLAT)
    whole = read(body)
    assert whole.hours_wh
    for at in range(body.index(b"val_kwh"), body.index(b"total2")):
        if body[at : at + 1].isdigit():
            for digit in b"0123456789":
                changed = bytes([*body[:at], digit, *body[at + 1 :]])
                with contextlib.suppress(Unreadable):
                    graph = read(changed)
                    for wh, right in zip(graph.hours_wh or (), whole.hours_wh, strict=False):
                        assert wh is not None
                        assert right is not None
                        assert abs(wh - right) <= 12
                    assert graph.total == whole.total


# A day of all pages together


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


def test_without_hours_of_the_consumption_no_hour_is_known() -> None:
    consumption = read(graph_page(FLAT, "9"), "consumption")
    assert graphs.day_from_web(consumption, read(graph_page())) == ()


def test_measured_bought_and_sold_come_before_reckoned_ones() -> None:
    consumption = read(two_part_page(FLAT, FLAT), "consumption")
    generation = read(graph_page([0.05, *FLAT[1:23], 0.3]))
    rows = graphs.day_from_web(consumption, generation, read(graph_page([0.2] * 24), "bought"))
    assert set(energy(rows, "bought").values()) == {200}
    # Where the own use is more than the generation the two pages do not fit together.
    assert energy(rows, "sold") == dict.fromkeys(range(1, 23), 0) | {23: 200}
    sold = read(graph_page([0.4] * 24), "sold")
    assert set(energy(graphs.day_from_web(consumption, generation, None, sold), "sold").values()) == {400}


def test_graphs_of_two_days_are_not_put_together() -> None:
    consumption = read(graph_page(FLAT), "consumption")
    later = graphs.graph(graph_page(FLAT, day="2026/07/15"), "generation", date(2026, 7, 15))
    with pytest.raises(Unreadable, match="2026-07-14 and 2026-07-15"):
        graphs.day_from_web(consumption, later)
