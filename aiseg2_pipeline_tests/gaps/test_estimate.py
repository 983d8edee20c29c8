"""A filled minute has a share of the device's interval, so that the interval adds up to the device's energy."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames.energy import frame, interval
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.frames.readings import frame as readings
from aiseg2_pipeline.gaps.estimate import Home, excess_wh, filled_frame, known_minutes, live_minutes

HOUR = datetime(2026, 7, 13, 23, tzinfo=UTC)
HALF = timedelta(minutes=30)
MINUTES = [HOUR + timedelta(minutes=n) for n in range(60)]
HOME = Home(circuits=(Circuit("8", "ＬＤ"), Circuit("30", "ＩＨ")), generating=True, generator="太陽光発電")
FLAT = Home(circuits=(), generating=False, generator=None)


def total(name: str, wh: float, *, half: int | None = None) -> Row:
    """Return the row of a total: of the hour, or of its half hour 0 or 1."""
    return interval(HOUR + (half or 0) * HALF, name, name, wh, 3600 if half is None else 1800)


def circuit(circuit_id: str, wh: float, *, half: int | None = None) -> Row:
    return interval(HOUR + (half or 0) * HALF, "usage", circuit_id, wh, 3600 if half is None else 1800)


def fill(rows: Collection[Row], home: Home = HOME, live: pd.DataFrame | None = None) -> pd.DataFrame:
    """Fill the minutes without a live row, or all."""
    shown = readings([]) if live is None else live
    return filled_frame(HOUR, frame(rows), set(MINUTES) - set(shown["time"]), live_minutes(shown), home)


def live_rows(powers_w: Mapping[int, float]) -> pd.DataFrame:
    """Return live rows of a home that generates nothing: the consumption, and as much of it by one circuit, by minute."""
    return readings(
        Row(MINUTES[minute], kind, name, value, unit, 0)
        for minute, power_w in powers_w.items()
        for kind, name, value, unit in (
            ("total", "総発電電力", 0.0, "kW"),
            ("total", "総消費電力", power_w / 1000, "kW"),
            ("total", "売買電力", -power_w / 1000, "kW"),
            ("usage", "ＬＤ", power_w / 2, "W"),
        )
    )


def at(table: pd.DataFrame, minute: int) -> dict[tuple[str, str], tuple[float, str, int]]:
    of_minute = table[table["time"] == MINUTES[minute]]
    return {
        (kind, name): (value, unit, interval_s)
        for kind, name, value, unit, interval_s in zip(
            of_minute["kind"],
            of_minute["name"],
            of_minute["value"],
            of_minute["unit"],
            of_minute["interval_s"],
            strict=True,
        )
    }


def wh_of(table: pd.DataFrame, name: str) -> float:
    """Return the energy of a series' minutes."""
    rows = table[table["name"] == name]
    return float((rows["value"] * rows["unit"].map({"kW": 1000, "W": 1})).sum()) / 60


def test_a_minute_gets_the_mean_power_of_its_hour_and_says_so() -> None:
    table = fill([total("consumption", 1200), total("generation", 2000), circuit("8", 240), circuit("30", 0)])
    assert len(set(table["time"])) == 60
    for minute in (0, 29, 30, 59):
        assert at(table, minute) == {
            ("total", "総発電電力"): (2.0, "kW", 3600),
            ("total", "総消費電力"): (1.2, "kW", 3600),
            ("total", "売買電力"): (0.8, "kW", 3600),
            ("generation", "太陽光発電"): (2000.0, "W", 3600),
            ("usage", "ＬＤ"): (240.0, "W", 3600),
            ("usage", "ＩＨ"): (0.0, "W", 3600),
        }


def test_where_at_least_half_is_missing_it_gets_what_was_not_read_live_so_that_the_interval_adds_up() -> None:
    energy = [total("consumption", 1704), total("generation", 0), circuit("8", 852)]
    live = live_rows(dict.fromkeys(range(22), 500.0))
    filled = fill(energy, live=live)
    assert sorted(set(filled["time"])) == [pd.Timestamp(minute) for minute in MINUTES[22:]]
    whole = pd.concat([live, filled])
    assert wh_of(whole, "総消費電力") == pytest.approx(1704)
    assert wh_of(whole, "売買電力") == pytest.approx(-1704)
    assert wh_of(whole, "ＬＤ") == pytest.approx(852)


def test_where_less_than_half_is_missing_it_gets_the_mean() -> None:
    filled = fill(
        [total("consumption", 1200), total("generation", 0)], live=live_rows(dict.fromkeys(range(31), 500))
    )
    assert at(filled, 40)["total", "総消費電力"] == (1.2, "kW", 3600)


def test_live_readings_above_the_devices_energy_leave_0_and_are_reported() -> None:
    energy = [total("consumption", 100), total("generation", 0)]
    live = live_rows(dict.fromkeys(range(15), 500))
    assert at(fill(energy, live=live), 40)["total", "総消費電力"] == (0, "kW", 3600)
    assert excess_wh(HOUR, frame(energy), live_minutes(live)) == pytest.approx(25)


def test_half_hours_are_preferred_to_their_hour() -> None:
    rows = [total("consumption", 1000), total("generation", 0)]
    rows += [total("consumption", 100, half=0), total("generation", 0, half=0)]
    rows += [total("consumption", 900, half=1), total("generation", 0, half=1)]
    table = fill(rows)
    assert at(table, 29)["total", "総消費電力"] == (0.2, "kW", 1800)
    assert at(table, 30)["total", "総消費電力"] == (1.8, "kW", 1800)
    assert wh_of(table, "総消費電力") == pytest.approx(1000)


def test_an_unknown_half_hour_is_the_hour_minus_the_known_one() -> None:
    hour = [total("consumption", 1000), total("generation", 500), circuit("8", 300), circuit("30", 50)]
    half = [total("consumption", 100, half=0), total("generation", 500, half=0), circuit("8", 60, half=0)]
    table = fill(hour + half)
    assert at(table, 30) == {
        ("total", "総発電電力"): (0.0, "kW", 1800),
        ("total", "総消費電力"): (1.8, "kW", 1800),
        ("total", "売買電力"): (-1.8, "kW", 1800),
        ("generation", "太陽光発電"): (0.0, "W", 1800),
        ("usage", "ＬＤ"): (480.0, "W", 1800),
    }


def test_a_half_hour_in_which_the_device_was_off_stays_missing() -> None:
    hour = [total("consumption", 200), total("generation", 0)]
    half = [total("consumption", 200, half=1), total("generation", 0, half=1)]
    table = fill(hour + half)
    assert set(table["time"]) == {pd.Timestamp(minute) for minute in MINUTES[30:]}
    assert wh_of(table, "総消費電力") == pytest.approx(200)
    assert known_minutes(HOUR, frame(hour + half), HOME) == set(MINUTES[30:])


def test_a_half_hour_without_consumption_is_not_used() -> None:
    # As on the card after 13 s of sunshine: 7 Wh were sold, and what was consumed rounds to nothing.
    half = [total("consumption", 0, half=0), total("generation", 7, half=0)]
    other = [total("consumption", 100, half=1), total("generation", 500, half=1)]
    assert set(fill(half + other)["time"]) == {pd.Timestamp(minute) for minute in MINUTES[30:]}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [total("generation", 500)],
        [total("consumption", 500)],
        [circuit("8", 240), total("bought", 500), total("sold", 0)],
        [total("consumption", 0), total("generation", 7)],
    ],
    ids=["nothing", "no consumption", "no generation", "neither", "nothing consumed"],
)
def test_a_minute_whose_totals_are_not_known_stays_missing(rows: list[Row]) -> None:
    assert fill(rows).empty
    assert known_minutes(HOUR, frame(rows), HOME) == set()


def test_the_generation_is_filled_as_far_as_its_devices_are_registered() -> None:
    energy = [total("consumption", 500), total("generation", 700)]
    assert at(fill(energy, home=FLAT), 0) == {
        ("total", "総消費電力"): (0.5, "kW", 3600),
        ("total", "売買電力"): (-0.5, "kW", 3600),
    }
    several = Home(circuits=(), generating=True, generator=None)
    assert set(at(fill(energy, home=several), 0)) == {
        ("total", "総発電電力"),
        ("total", "総消費電力"),
        ("total", "売買電力"),
    }


def test_registered_circuits_are_filled_under_the_live_pages_names_and_added_up() -> None:
    names = ("ＩＨ", "ＬＤ", "ＩＨ", "ＬＤ", "洋室１エアコン")
    circuits = tuple(Circuit(str(n), name) for n, name in enumerate(names, 8))
    # The second ＬＤ is unknown, and the last circuit is not registered.
    energy = [circuit("8", 100), circuit("9", 50), circuit("10", 20), circuit("12", 9), circuit("99", 70)]
    home = Home(circuits=circuits, generating=False, generator=None)
    filled = at(fill([total("consumption", 500), *energy], home=home), 0)
    assert {name: watts for (kind, name), (watts, _, _) in filled.items() if kind == "usage"} == {
        "ＩＨ": 120,
        "洋室１エアコン": 9,
    }


@settings(deadline=None, max_examples=40)
@given(
    # An interval without consumption is not filled.
    consumption=st.lists(st.integers(1, 9999), min_size=2, max_size=2),
    generation=st.lists(st.integers(0, 9999), min_size=2, max_size=2),
    in_halves=st.booleans(),
)
def test_an_interval_without_a_live_minute_adds_up_to_the_devices_energy(
    consumption: list[int], generation: list[int], *, in_halves: bool
) -> None:
    energy = [total("consumption", sum(consumption)), total("generation", sum(generation))]
    for half in (0, 1) if in_halves else ():
        energy += [
            total("consumption", consumption[half], half=half),
            total("generation", generation[half], half=half),
        ]
    table = fill(energy)
    assert wh_of(table, "総消費電力") == pytest.approx(sum(consumption), abs=0.01)
    assert wh_of(table, "総発電電力") == pytest.approx(sum(generation), abs=0.01)
    assert wh_of(table, "売買電力") == pytest.approx(sum(generation) - sum(consumption), abs=0.01)
    if in_halves:
        second = table[table["time"] >= pd.Timestamp(MINUTES[30])]
        assert wh_of(second, "総消費電力") == pytest.approx(consumption[1], abs=0.01)
