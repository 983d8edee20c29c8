"""The simulated household: reproducible, realistic, and with energy that is the exact sum of its power."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from aiseg2_pipeline.simulator.battery import BatteryState, battery
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline.simulator.server import simulated_clock
from aiseg2_pipeline_tests.support.simulator_client import JAPAN, NOON


def test_power_depends_on_the_seed_and_the_step_alone() -> None:
    steps = np.arange(8640) + step_of(NOON)
    whole, other = Household(1).power(steps), Household(2).power(steps)
    shuffled = np.random.default_rng(0).permutation(8640)[:500]
    part = Household(1).power(steps[shuffled])
    for series in ("circuits_w", "consumption_w", "generation_w", "hot_water_l_per_h"):
        assert np.array_equal(getattr(part, series), getattr(whole, series)[shuffled])
        assert not np.array_equal(getattr(whole, series), getattr(other, series))


def test_the_household_is_realistic_over_a_year() -> None:
    steps = step_of(datetime(2026, 1, 1, tzinfo=JAPAN)) + np.arange(0, 365 * 8640, 30)
    power = Household(1).power(steps)
    assert (power.circuits_w >= 0).all()
    assert 0.93 < power.circuits_w.sum() / power.consumption_w.sum() < 0.97
    assert (power.consumption_w > power.circuits_w.sum(axis=1)).all()
    assert power.consumption_w.max() < 12_000
    hours = (steps * 10 // 3600 + 9) % 24
    assert not power.generation_w[(hours < 4) | (hours > 19)].any()
    assert 3000 < power.generation_w.max() < 4500
    assert 10 < power.consumption_w.mean() * 24 / 1000 < 35
    # Clients must handle a second page both with and without power, so every day has both.
    circuits_on = (power.circuits_w > 0).sum(axis=1).reshape(365, -1)
    assert (circuits_on.min(axis=1) < 10).all()
    assert (circuits_on.max(axis=1) > 10).all()


def test_the_battery_charge_changes_continuously_and_as_its_state_says() -> None:
    midnight = NOON.replace(hour=0, minute=0, second=0)
    states = [battery(midnight + timedelta(minutes=5 * n)) for n in range(24 * 12 + 1)]
    gains = {BatteryState.CHARGING: {0, 1, 2}, BatteryState.DISCHARGING: {0, -1, -2}, BatteryState.IDLE: {0}}
    for before, after in pairwise(states):
        assert after.percent - before.percent in gains[before.state]
        assert after.bar == -(-after.percent // 20)
    assert {state.state for state in states} == set(BatteryState)
    assert {state.bar for state in states} == {1, 2, 3, 4, 5}


def test_only_circuits_of_the_household_can_be_renamed() -> None:
    with pytest.raises(ValueError, match="no circuit 40"):
        Household(1, renames=[(NOON, 40, "書斎")])


def test_the_clock_starts_at_its_start_and_runs_at_its_speed() -> None:
    clock = simulated_clock(NOON, speed=1_000_000)
    first = clock()
    assert first >= NOON
    while clock() - first < timedelta(seconds=10):
        pass
    assert simulated_clock(NOON, speed=0)() == NOON
    assert timedelta(0) <= simulated_clock()() - datetime.now(UTC) + timedelta(seconds=1) < timedelta(minutes=1)
    with pytest.raises(ValueError, match="time zone"):
        simulated_clock(datetime(2026, 7, 14))  # noqa: DTZ001 - what is refused
