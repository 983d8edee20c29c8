"""Forty days of a household with many kinds of outages, and a record without a gap, in the store and in InfluxDB.

Device and pipeline share one clock, which the test sets. The live minutes are taken by the function that a minute run
calls, a few around each outage; in between the pipeline is down, for a minute or for days.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from dagster import DagsterInstance

from aiseg2_pipeline.aiseg2.circuits import shown_name
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE, TOTAL_GENERATION
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.gaps.find import find_gaps
from aiseg2_pipeline.influxdb.client import Unavailable
from aiseg2_pipeline.influxdb.delivery import deliver
from aiseg2_pipeline.ingest import power as live
from aiseg2_pipeline.japan_time import hour_of
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import Household, Rename
from aiseg2_pipeline.simulator.meter import Meter, is_off
from aiseg2_pipeline_tests.support.energy_history import Record, recorded, remembered
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.simulated_pipeline import SimulatedPipeline
from aiseg2_pipeline_tests.support.simulator_client import JAPAN, simulated

MINUTE, HALF, HOUR, DAY = (timedelta(minutes=minutes) for minutes in (1, 30, 60, 1440))


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """Return a time in Japan, counted from the first day, as UTC."""
    start = datetime(2026, 6, 1, tzinfo=JAPAN)
    return (start + timedelta(days=day, hours=hour, minutes=minute)).astimezone(UTC)


# Three circuits: two have the same name, the third is renamed.
KEPT = (10, 11, 30)
NEW_NAME, RENAMED_AT = "書斎・エアコン", at(20, 10, 30)
RENAMES: list[Rename] = [
    *((at(-400, 0), circuit.circuit_id, None) for circuit in CIRCUITS if circuit.circuit_id not in KEPT),
    (RENAMED_AT, 30, NEW_NAME),
]
# The device is off: within an hour, for some hours, for more than a day.
OFF = [(at(0, 14), at(0, 14, 12)), (at(1, 2), at(1, 5, 30)), (at(33, 10, 15), at(34, 12, 15))]
# The minutes in which the pipeline runs: the first, their number, and those that it misses.
RUNS: list[tuple[datetime, int, set[int]]] = [
    (at(0, 8, 5), 20, {7}),
    (at(0, 13, 55), 20, set()),
    (at(1, 9), 3, set()),
    (at(6, 9, 3), 3, set()),
    (at(11, 6), 3, set()),
    (at(15, 23, 58), 4, set()),
    (at(20, 10, 25), 30, {15, 16, 17, 18, 19}),
    (at(25, 10), 3, set()),
    (at(30, 10), 3, set()),
    (at(34, 12, 10), 10, set()),
    (at(39, 12), 3, set()),
]
NO_INFLUXDB = (at(20, 0), at(24, 0))
CARD_FROM = at(24, 0)
BEGIN, END = at(0, 8), at(39, 14, 30)
# The pages' hours and the card's half hours in which the device was off from start to end.
UNKNOWN = [(at(1, 2), at(1, 5)), (at(33, 10, 30), at(34, 12))]


@dataclass
class WrittenRecord(Record):
    """The pipeline's stores, its InfluxDB, and the live frames that were taken."""

    influx: Influx
    live: list[pd.DataFrame] = field(default_factory=list)

    def run(self, start: datetime, minutes: int, missed: set[int]) -> None:
        """Take the live minutes of a run of the pipeline."""
        now = self.memory.now
        with self.memory.client() as client:
            for minute in (start + n * MINUTE for n in range(minutes) if n not in missed):
                self.memory.unit.set_clock(minute + timedelta(seconds=4))
                taken = live.take_minute(client, self.store, minute=minute, samples=1, clock=now)
                assert bool(taken.frames) != is_off(OFF, now())
                self.live += taken.frames

    def fill_all(self) -> int:
        """Fill all fillable hours; return the number of minutes filled."""
        now = self.memory.now()
        gaps = find_gaps(self.store, self.memory.energy, BEGIN, now, now)
        return self.fill([hour.start for hour in gaps.fillable])

    def write_out(self) -> None:
        to, now = self.influx.destination, self.memory.now()
        with self.influx.writer() as writer:
            deliver(self.store, writer, to, now=now)

    def rows(self) -> pd.DataFrame:
        return self.store.read(BEGIN - DAY, END + DAY).sort_values(KEY, ignore_index=True)


@pytest.fixture(scope="module")
def household() -> Household:
    return Household(renames=RENAMES)


@pytest.fixture(scope="module")
def record(
    household: Household, influx_server: InfluxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WrittenRecord]:
    """Return the record after the forty days and all fills."""
    with ExitStack() as stack:
        influx = stack.enter_context(Influx(influx_server, "record"))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        # Do not wait for the device while it is off.
        patch.setattr(live, "READING_TIMEOUT_S", 0.2)
        folder = tmp_path_factory.mktemp("record")
        memory = stack.enter_context(remembered(folder, BEGIN, household, outages=OFF))
        with_card = stack.enter_context(simulated(BEGIN, household, outages=OFF, sd_card=True))
        record = WrittenRecord(memory, stack.enter_context(recorded(memory, folder)).store, influx)
        for start, minutes, missed in RUNS:
            if start >= CARD_FROM:
                memory.unit = with_card
            if influx_server.running and NO_INFLUXDB[0] <= start < NO_INFLUXDB[1]:
                influx_server.stop()
            if not influx_server.running and start >= NO_INFLUXDB[1]:
                influx_server.start()
            record.run(start, minutes, missed)
            # The pipeline fills when the hour has settled; the last fill is left to the sensor.
            memory.unit.set_clock(hour_of(start + minutes * MINUTE) + HOUR + 6 * MINUTE)
            if start != RUNS[-1][0]:
                record.fill_all()
            if influx_server.running:
                record.write_out()
            else:
                with pytest.raises(Unavailable):
                    record.write_out()
        memory.unit.set_clock(END)
        _backfill_in_dagster(record)
        record.fill_all()
        record.write_out()
        yield record


def _backfill_in_dagster(record: WrittenRecord) -> None:
    """Execute the runs that the backfill sensor requests."""
    served = record.memory.unit.served
    environment = {
        "AISEG2_HOST": served.address,
        "AISEG2_USER": served.user,
        "AISEG2_PASSWORD": served.password,
        "AISEG2_DATA_DIR": str(record.store.path.parent),
    }
    with DagsterInstance.ephemeral() as instance:
        pipeline = SimulatedPipeline(environment, record.memory.unit, instance)
        pipeline.set_clock(END)
        assert {request.job_name for request in pipeline.healing()} == {"power_fill"}
        pipeline.execute_requests()
        assert isinstance(pipeline.heal(), str)


@pytest.fixture(scope="module")
def rows(record: WrittenRecord) -> pd.DataFrame:
    return record.rows()


def test_every_minute_that_the_device_could_know_is_in_influxdb_once(record: WrittenRecord) -> None:
    count = (hour_of(END) - BEGIN) // MINUTE
    every = (BEGIN + n * MINUTE for n in range(count))
    known = [minute for minute in every if not any(start <= minute < end for start, end in UNKNOWN)]
    points = record.influx.points("power")
    for summary in (TOTAL_CONSUMPTION, TOTAL_GENERATION, TOTAL_EXCHANGE):
        times = [point["time"] for point in points if point.get("summary") == f"{summary}(kW)"]
        assert [time.replace(second=0) for time in sorted(times)] == known


def test_influxdb_has_what_the_store_has(record: WrittenRecord, rows: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(record.influx.readings(), rows, check_exact=True)
    assert record.store.pending_count(record.influx.destination) == 0


def test_what_was_read_live_is_untouched(record: WrittenRecord, rows: pd.DataFrame) -> None:
    read = pd.concat(record.live, ignore_index=True).sort_values(KEY, ignore_index=True)
    assert len(record.live) == 20 - 1 + 20 - 12 + 4 * 3 + 4 + 30 - 5 + 2 * 3 + 10 - 5
    stored = rows[rows["interval_s"] == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(stored, read, check_exact=True)


@pytest.mark.parametrize("interval_s", [3600, 1800])
def test_an_interval_that_was_wholly_filled_has_the_devices_energy(
    household: Household, rows: pd.DataFrame, interval_s: int
) -> None:
    interval = pd.Timedelta(seconds=interval_s)
    table = rows.assign(start=rows["time"].dt.floor(interval))
    of_interval = table[table["name"] == TOTAL_CONSUMPTION].groupby("start")["interval_s"]
    wholly = of_interval.agg(["count", "min", "max"]).query(
        f"count == {interval_s // 60} and min == max == {interval_s}"
    )
    assert len(wholly) > 100
    device_wh = _device_energy(household, interval_s)
    filled = table[table["start"].isin(wholly.index)]
    sums = filled.groupby(["start", "kind", "name"], as_index=False)["value"].sum()
    for start, kind, name, value in zip(sums["start"], sums["kind"], sums["name"], sums["value"], strict=True):
        wh = value / 60 * (1000 if kind == "total" else 1)
        assert wh == pytest.approx(device_wh[start][name], abs=1), (start, name)


def _device_energy(household: Household, interval_s: int) -> dict[pd.Timestamp, dict[str, float]]:
    """Return the device's energy of each interval, by the names of that time."""
    meter = Meter(household, outages=OFF)
    energy: dict[pd.Timestamp, dict[str, float]] = {}
    first = BEGIN.astimezone(JAPAN).date()
    for day in (first + n * DAY for n in range(40)):
        halves = np.nan_to_num(meter.half_hours(day, END + DAY))
        parts = halves if interval_s == 1800 else halves.reshape(24, 2, -1).sum(axis=1)
        for n, (own, bought, sold, _, *circuits) in enumerate(parts):
            start = datetime(day.year, day.month, day.day, tzinfo=JAPAN) + n * timedelta(seconds=interval_s)
            wh_by_name = {
                TOTAL_CONSUMPTION: own + bought,
                TOTAL_GENERATION: own + sold,
                TOTAL_EXCHANGE: sold - bought,
            }
            wh_by_name["太陽光発電"] = own + sold
            names = household.names(start)
            for circuit, wh in zip(CIRCUITS, circuits, strict=True):
                if circuit.circuit_id in names:
                    name = shown_name(names[circuit.circuit_id])
                    wh_by_name[name] = wh_by_name.get(name, 0.0) + wh
            energy[pd.Timestamp(start).tz_convert("UTC")] = wh_by_name
    return energy


def test_each_minute_has_its_circuits_under_the_names_of_its_time(
    household: Household, rows: pd.DataFrame
) -> None:
    usage = rows[rows["kind"] == "usage"]
    old, new = (shown_name(household.names(moment)[30]) for moment in (BEGIN, END))
    assert old != new
    names = usage.groupby("time")["name"].agg(frozenset)
    assert set(names[names.index < RENAMED_AT]) == {frozenset({"ＬＤ", old})}
    assert set(names[names.index >= RENAMED_AT]) == {frozenset({"ＬＤ", new})}
    # Also in the hour of the renaming, which has live and filled minutes.
    of_hour = usage[(usage["time"] >= at(20, 10)) & (usage["time"] < at(20, 11))]
    assert len(set(of_hour["interval_s"])) == 2
    assert len(of_hour) == 60 * 2


def test_a_repetition_changes_nothing_and_sends_no_request(record: WrittenRecord, rows: pd.DataFrame) -> None:
    sent, written = record.memory.requests(), len(record.influx.proxy.requests)
    assert record.fill_all() == 0
    record.write_out()
    assert record.memory.requests() == sent
    assert len(record.influx.proxy.requests) == written
    pd.testing.assert_frame_equal(record.rows(), rows, check_exact=True)
