"""Whatever dies: a reading reported as taken is in InfluxDB exactly once, nothing there is false, nothing missing is hidden.

How it is done says `chaos`. The seeds are always the same; `python -m benchmarks.chaos --seed N` runs others, for days.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION
from aiseg2_pipeline.influxdb.client import Rejected
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.endurance.chaos import Report, Scenario
from aiseg2_pipeline_tests.endurance.plan import MINUTE, WEATHERS, Event, Plan, Weather
from aiseg2_pipeline_tests.endurance.pool import Lot, memory_folder, outcomes
from aiseg2_pipeline_tests.endurance.world import KILL_POINTS, Prefork
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.influxdb_proxy import Exchange, InfluxFaults
from benchmarks.chaos import replay

SEEDS = range(11, 19)
HOURS, ROUGH = 5, 1.0
# Eight in the evening in Japan: more than ten circuits are on.
# Patient enough for a busy machine; a few minutes that were missed all the same are no failure.
SPEED, MISSED = 20.0, 3
START = datetime(2026, 7, 14, 11, 0, tzinfo=UTC)


@pytest.mark.usefixtures("influx_server")  # where there is none, it says what to do
def test_a_thousand_drawn_faults_lose_nothing_and_make_nothing_false() -> None:
    faults: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for outcome in outcomes(Lot(SEEDS, HOURS, ROUGH), jobs=2):
        assert not outcome.wrong, f"{outcome.wrong}\nagain: {replay(outcome.seed, HOURS, ROUGH)}"
        assert outcome.report is not None
        faults.update(outcome.report.faults)
        counts.update(outcome.report.verdict.counts)
    assert faults.total() > 1000, faults
    assert counts["minutes live"] > 0
    assert counts["minutes filled"] > 0


# The faults of InfluxDB


def test_the_same_seed_draws_the_same_faults_of_influxdb() -> None:
    write = Exchange("/api/v2/write", {"bucket": "b"}, ["m value=1 1", "m value=1 2"])
    one, other = (InfluxFaults(7, 0.5) for _ in range(2))
    assert [one(write) for _ in range(200)] == [other(write) for _ in range(200)]
    assert one.tally == other.tally
    assert 0 < one.tally.total() <= 200


def test_a_refused_row_is_refused_until_faults_stop_and_the_rest_is_stored(influx: Influx) -> None:
    filled = ["power,summary=a value=1 1", "power_fill,summary=a interval_s=3600i 1"]
    influx.proxy.fault = faults = InfluxFaults(7, 1.0, ("refused",))
    with influx.writer() as writer:
        with pytest.raises(Rejected, match="partial write"):
            writer.write(filled)
        faults.rate = 0
        with pytest.raises(Rejected, match="partial write"):
            writer.write([*filled, "power,summary=b value=2 1"])
        assert [point["summary"] for point in influx.points()] == ["b"]
        faults.stop()
        writer.write(filled)
    assert len(influx.points()) == 3


def test_an_unknown_kind_of_fault_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="choose from unavailable"):
        InfluxFaults(7, 1.0, ("flood",))


# One thing at a time


@pytest.fixture(scope="module")
def prefork() -> Iterator[Prefork]:
    with Prefork() as prepared:
        yield prepared


class Bench:
    """Scenarios that a test plans itself."""

    def __init__(self, server: InfluxServer, prefork: Prefork, folder: Path) -> None:
        self._server = server
        self._prefork = prefork
        self._folder = folder
        self._count = 0

    def scenario(
        self,
        *events: Event,
        hours: int = 1,
        weather: Weather = WEATHERS["calm"],
        kill_points: tuple[str, ...] = KILL_POINTS,
        **changes: Any,
    ) -> Scenario:
        self._count += 1
        (folder := self._folder / str(self._count)).mkdir()
        plan = Plan(START, hours * 60, Household(1), (), (), (weather,) * hours, events, has_card=False)
        return Scenario(
            1,
            replace(plan, **changes),
            folder=folder,
            server=self._server,
            prefork=self._prefork,
            kill_points=kill_points,
            speed=SPEED,
        )

    def whole(self, *events: Event, **rest: Any) -> Report:
        """Run it, and return the report of a record that is whole."""
        report = self.scenario(*events, **rest).run()
        assert not report.verdict.wrong, str(report.verdict)
        return report


@pytest.fixture
def bench(influx_server: InfluxServer, prefork: Prefork) -> Iterator[Bench]:
    with memory_folder() as folder:
        yield Bench(influx_server, prefork, Path(folder))


def test_without_faults_every_minute_is_live(bench: Bench) -> None:
    report = bench.whole()
    assert report.verdict.counts["minutes live"] >= 60 - MISSED
    assert not report.faults


def test_a_writer_killed_between_write_and_acknowledgement_writes_no_point_twice(bench: Bench) -> None:
    always = Weather(unit=0, influx=0, kill=1.0)
    report = bench.whole(weather=always, kill_points=("taken",))
    assert report.faults["kill of take at taken"] > 10
    assert report.verdict.counts["minutes live"] >= 60 - MISSED


def test_a_run_killed_once_its_reading_is_stored_loses_nothing(bench: Bench) -> None:
    always = Weather(unit=0, influx=0, kill=1.0)
    report = bench.whole(weather=always, kill_points=("stored",))
    assert report.faults["kill of take at stored"] > 10
    # Killed at the second frame that it stored, or before that was told: the minute is there.
    assert report.verdict.counts["minutes live"] >= 60 - MISSED


def test_a_fill_during_a_write_out_that_is_killed_comes_out_whole(bench: Bench) -> None:
    off = (START + 20 * MINUTE, START + 45 * MINUTE)
    report = bench.whole(
        Event(15, 52, "influxd stopped"),
        *(Event(minute, 1, "second delivery") for minute in range(67, 80)),
        *(Event(minute, 1, "all killed") for minute in range(69, 75)),
        hours=2,
        outages=(off,),
    )
    # What the unit did not measure in those minutes is missing in its hour's mean, and said to be so.
    assert report.verdict.counts["minutes filled"] >= 25


def test_a_clock_stepped_back_stops_readings_until_it_is_right(bench: Bench) -> None:
    report = bench.whole(Event(20, 15, "host's clock", -3600.0))
    assert 45 - MISSED <= report.verdict.counts["minutes live"] <= 45
    assert any("was ahead before" in sentence for sentence in report.sentences)


def test_readings_go_on_after_a_clock_that_was_ahead_and_its_rows_are_told(bench: Bench) -> None:
    scenario = bench.scenario(Event(20, 15, "host's clock", 3600.0))
    with scenario.opened():
        scenario.play()
        with Store.open(scenario.home.readings) as store:
            last = store.last_time()
        assert last is not None
        assert last > START + 60 * MINUTE
        # A person does what the check says.
        scenario.heal()
        with Store.open(scenario.home.readings) as store:
            assert not store.times_after(scenario.world.host())
        report = scenario.judged()
    assert not report.verdict.wrong, str(report.verdict)
    assert 45 - MISSED <= report.verdict.counts["minutes live"] <= 45


def test_nothing_is_filled_while_the_units_clock_is_off(bench: Bench) -> None:
    off = (START + 10 * MINUTE, START + 30 * MINUTE)
    scenario = bench.scenario(Event(50, 60, "unit's clock off"), hours=2, outages=(off,))
    with scenario.opened():
        scenario.play()
        with Store.open(scenario.home.readings) as store:
            rows = store.read(START, START + 120 * MINUTE)
        assert set(rows["interval_s"]) == {0}
        scenario.heal()
        report = scenario.judged()
    assert not report.verdict.wrong, str(report.verdict)
    assert report.verdict.counts["minutes filled"] >= 20


def test_a_full_disk_costs_its_minutes_and_nothing_else(bench: Bench) -> None:
    report = bench.whole(Event(20, 10, "disk full", 0))
    assert report.verdict.counts["minutes live"] >= 45
    assert report.verdict.counts["minutes missing"] == 0


@pytest.mark.parametrize(("held", "minutes"), [("readings", 3), ("energy", 40)])
def test_a_file_held_by_another_process_is_a_sentence_and_no_loss(bench: Bench, held: str, minutes: int) -> None:
    report = bench.whole(Event(4, minutes, "file locked", held))
    assert any("was held by another process" in sentence for sentence in report.sentences)
    assert report.verdict.counts["minutes missing"] == 0


def test_a_damaged_file_is_put_aside_and_its_rows_come_back(bench: Bench) -> None:
    report = bench.whole(Event(20, 1, "all killed"), Event(20, 1, "file damaged"))
    assert any("rows were restored" in sentence for sentence in report.sentences)
    assert report.verdict.counts["minutes live"] >= 60 - MISSED


def test_of_what_is_refused_only_those_rows_are_set_aside(bench: Bench) -> None:
    scenario = bench.scenario(weather=Weather(unit=0, influx=0.1, kill=0))
    scenario.rain.kinds = ("refused",)
    with scenario.opened():
        scenario.play()
        refused = scenario.rain.tally["refused"]
        scenario.heal()
        report = scenario.judged()
        scenario.send_again()
        afterwards = scenario.judged()
    assert refused > 3
    assert not report.verdict.wrong, str(report.verdict)
    assert report.verdict.counts["rows set aside"] == refused
    assert not afterwards.verdict.wrong, str(afterwards.verdict)
    assert afterwards.verdict.counts["rows set aside"] == 0


def test_what_is_refused_in_the_place_of_an_older_value_is_set_aside(bench: Bench) -> None:
    # With the clock an hour ahead in the first hour, the second hour has some of its seconds once more.
    scenario = bench.scenario(
        Event(1, 58, "host's clock", 3600.0), hours=2, weather=Weather(unit=0, influx=0.5, kill=0)
    )
    scenario.rain.kinds = ("refused",)
    with scenario.opened():
        scenario.play()
        scenario.heal()
        report = scenario.judged()
        set_aside, in_bucket = _values_of_refused(scenario)
        scenario.send_again()
        afterwards = scenario.judged()
    assert set_aside != in_bucket
    assert not report.verdict.wrong, str(report.verdict)
    assert not afterwards.verdict.wrong, str(afterwards.verdict)


def _values_of_refused(scenario: Scenario) -> tuple[list[float], list[float]]:
    """Return the values of the rows set aside that the bucket has other points of, and the values of those."""
    shown = scenario.influx.readings()
    with Store.open(scenario.home.readings) as store:
        refused = store.set_aside_rows(scenario.home.destination)
    both = refused.merge(shown, on=["time", "kind", "name"])
    return both["value_x"].tolist(), both["value_y"].tolist()


def test_a_bucket_that_is_missing_for_hours_gets_everything_afterwards(bench: Bench) -> None:
    report = bench.whole(Event(3, 200, "bucket missing"), hours=4)
    assert report.verdict.counts["minutes live"] >= 240 - MISSED


def test_a_day_has_its_last_totals_though_nobody_asked_at_its_end(bench: Bench) -> None:
    # Japan's midnight, five minutes past which the day is asked for, is in the second hour.
    midnight = datetime(2026, 7, 14, 14, 0, tzinfo=UTC)
    report = bench.whole(Event(60, 12, "unit often", "server-error"), hours=2, start=midnight)
    assert report.verdict.counts["energy rows"] > 0


# The oracle can fail


def _write(scenario: Scenario, line: str) -> None:
    with scenario.home.writer() as writer:
        writer.write([line])


def _ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def _live_time(scenario: Scenario, minute: int = 40) -> datetime:
    with Store.open(scenario.home.readings) as store:
        time = store.live_near(START + minute * MINUTE)
    assert time is not None
    return time


def _a_wrong_value(scenario: Scenario) -> None:
    _write(scenario, f"power,summary={TOTAL_CONSUMPTION}(kW) value=99.9 {_ns(_live_time(scenario))}")


def _a_lost_reading(scenario: Scenario) -> None:
    time = _live_time(scenario)
    with scenario.home.writer() as writer:
        writer.delete(time, time + timedelta(seconds=1))


def _a_point_of_a_second_that_was_not_read(scenario: Scenario) -> None:
    time = _live_time(scenario) + timedelta(seconds=7)
    _write(scenario, f"power,summary={TOTAL_CONSUMPTION}(kW) value=1.0 {_ns(time)}")


def _a_second_series_of_one_circuit(scenario: Scenario) -> None:
    tags = "detail-type=usage,detail-section=とけい,circuit-id=10"
    _write(scenario, f"energy,{tags} wh=1.0 {_ns(START)}")


def _a_stored_wrong_value(scenario: Scenario) -> None:
    time = _live_time(scenario)
    with Store.open(scenario.home.readings) as store:
        rows = store.read(time, time + timedelta(seconds=1))
        store.upsert(rows.assign(value=rows["value"] + 1))


def _a_filled_wrong_value(scenario: Scenario) -> None:
    minute = START + 15 * MINUTE
    _write(scenario, f"power,summary={TOTAL_CONSUMPTION}(kW) value=0.001 {_ns(minute)}")


def _a_lost_row_of_the_store(scenario: Scenario) -> None:
    time = _live_time(scenario, 50)
    with Store.open(scenario.home.readings) as store:
        store.delete(time, time + timedelta(seconds=1))


PLANTS: dict[Callable[[Scenario], None], tuple[str, ...]] = {
    _a_wrong_value: ("lost", "false"),
    _a_filled_wrong_value: ("false",),
    _a_point_of_a_second_that_was_not_read: ("duplicated",),
    _a_second_series_of_one_circuit: ("duplicated",),
    _a_stored_wrong_value: ("lost",),
    _a_lost_reading: ("lost", "unreported"),
    _a_lost_row_of_the_store: ("lost",),
}


def test_the_oracle_names_whatever_is_planted(bench: Bench) -> None:
    scenario = bench.scenario(outages=((START + 10 * MINUTE, START + 20 * MINUTE),))
    with scenario.opened():
        scenario.play()
        scenario.heal()
        before = scenario.judged().verdict
        assert not before.wrong
        for plant, named in PLANTS.items():
            plant(scenario)
            after = scenario.judged().verdict
            for kind in named:
                assert len(getattr(after, kind)) > len(getattr(before, kind)), (plant, kind)
            before = after
