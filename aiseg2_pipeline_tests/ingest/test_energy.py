"""The device's memory in the energy store: what is asked, what is kept, and what is not asked twice. Against the simulator."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import tenacity
from starlette.exceptions import HTTPException

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import NoData, Unreachable
from aiseg2_pipeline.aiseg2.graphs import no_energy
from aiseg2_pipeline.frames.energy import NO_DATA
from aiseg2_pipeline.frames.readings import KEY, Row, frame
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.gaps.find import fillable, find_gaps, hours_between
from aiseg2_pipeline.ingest.energy import CIRCUITS, TOTALS, History, day_on_device
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.japan_time import day_start
from aiseg2_pipeline.simulator import graphs
from aiseg2_pipeline.simulator.appliances import CIRCUITS as ALL_CIRCUITS
from aiseg2_pipeline.simulator.card import Card
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.support.simulator_client import CARD_PAGE, JAPAN, Unit, simulated

TODAY = date(2026, 7, 14)
YESTERDAY = date(2026, 7, 13)
NOON = datetime(2026, 7, 14, 12, 0, 5, tzinfo=JAPAN)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
OF_CIRCUIT = "/page/graph/584"
OF_CONSUMPTION = "/page/graph/52111"


@dataclass
class Memory:
    """A simulated device, and an energy store that what it remembers is brought into."""

    unit: Unit
    energy: EnergyStore
    folder: Path
    skew: timedelta = timedelta(0)

    def now(self) -> datetime:
        return (self.unit.times[0] + self.skew).astimezone(UTC)

    def client(self) -> Aiseg2Client:
        served = self.unit.served
        return Aiseg2Client(
            f"http://{served.address}",
            served.user,
            served.password,
            state_dir=self.folder,
            clock=self.now,
            slot="background",
        )

    @contextmanager
    def history(self) -> Iterator[History]:
        with self.client() as client, History(client, self.energy, self.folder, self.now()) as history:
            yield history

    def rows(self, day: date) -> pd.DataFrame:
        table = self.energy.read(day_start(day), day_start(day) + DAY)
        return table.sort_values(KEY, ignore_index=True)

    def asked(self, path: str) -> int:
        return self.unit.served.tally.requests[path]

    def requests(self) -> int:
        return sum(self.unit.served.tally.requests.values())

    def noted(self, day: date, name: str) -> set[int]:
        """Return the hours in Japan of which it is noted that the device had nothing."""
        table = self.rows(day)
        notes = table[(table["kind"] == NO_DATA) & (table["name"] == name)]
        return {time.tz_convert(JAPAN).hour for time in notes["time"]}


@contextmanager
def remembered(
    folder: Path, now: datetime = NOON, household: Household | None = None, **options: Any
) -> Iterator[Memory]:
    with (
        simulated(now, household, **options) as unit,
        EnergyStore.open(folder / "energy.sqlite") as energy,
    ):
        yield Memory(unit, energy, folder / "device")


def intervals(table: pd.DataFrame, interval_s: int = 3600) -> dict[tuple[pd.Timestamp, str, str], float]:
    kept = table[table["interval_s"] == interval_s]
    keys = zip(kept["time"], kept["kind"], kept["name"], strict=True)
    return dict(zip(keys, kept["value"], strict=True))


def hours_of(table: pd.DataFrame, kind: str = "consumption") -> list[int]:
    times = table.loc[table["kind"] == kind, "time"]
    return sorted({time.tz_convert(JAPAN).hour for time in times})


# What is brought


@pytest.mark.parametrize("sd_card", [False, True], ids=["web", "card"])
def test_the_energy_of_a_day_is_the_integral_of_the_power_that_was_shown(tmp_path: Path, *, sd_card: bool) -> None:
    home = Household()
    with remembered(tmp_path, household=home, sd_card=sd_card) as memory, memory.history() as history:
        brought = history.bring(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
    assert (brought.source, brought.problems) == ("sd" if sd_card else "web", [])
    told = intervals(rows)
    for n in (0, 11, 18, 23):
        start = day_start(YESTERDAY) + n * HOUR
        real = home.energy_wh(start, start + HOUR)
        assert told[pd.Timestamp(start), "consumption", "consumption"] == pytest.approx(real.consumption_wh, abs=2)
        assert told[pd.Timestamp(start), "generation", "generation"] == pytest.approx(real.generation_wh, abs=2)
        assert told[pd.Timestamp(start), "sold", "sold"] == pytest.approx(real.sold_wh, abs=2)
        for place, circuit in enumerate(ALL_CIRCUITS):
            wh = told[pd.Timestamp(start), "usage", str(circuit.circuit_id)]
            assert wh == pytest.approx(real.circuits_wh[place], abs=1)


def test_web_pages_and_card_agree_to_the_wh(tmp_path: Path) -> None:
    with remembered(tmp_path / "web") as memory, memory.history() as history:
        history.bring(YESTERDAY, circuits=True)
        web = intervals(memory.rows(YESTERDAY))
    with remembered(tmp_path / "card", sd_card=True) as memory, memory.history() as history:
        history.bring(YESTERDAY, circuits=True)
        card = intervals(memory.rows(YESTERDAY))
        halves = intervals(memory.rows(YESTERDAY), 1800)
    assert len(web) == 24 * (4 + len(ALL_CIRCUITS))
    assert {key: card[key] for key in web} == web
    for (time, kind, name), wh in web.items():
        parts = [halves[time + n * pd.Timedelta(minutes=30), f"{kind}/half", name] for n in (0, 1)]
        assert sum(parts) == wh


def test_a_days_totals_are_those_of_its_pages(tmp_path: Path) -> None:
    with remembered(tmp_path) as memory, memory.history() as history:
        history.bring(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
        shown = {
            title: float(memory.unit.graph(page_id, YESTERDAY)["val_kwh"])
            for page_id, title in (
                ("51111", "発電量(kWh)"),
                ("52111", "使用電力量(kWh)"),
                ("53111", "買電量(kWh)"),
            )
        }
        of_30 = float(memory.unit.graph("584", YESTERDAY, "30")["val_kwh"])
    totals = rows[rows["kind"] == "daily_total"].set_index("name")["value"].to_dict()
    assert shown.items() <= totals.items()
    of_circuits = rows[rows["kind"] == "circuit_daily_total"].set_index("name")["value"]
    assert of_circuits["30"] == of_30
    assert len(of_circuits) == len(ALL_CIRCUITS)


def test_the_card_tells_what_a_day_cost(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory, memory.history() as history:
        history.bring(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
    yen = rows[rows["kind"] == "daily_cost"].set_index("name")["value"]
    told = intervals(rows)
    bought_wh = sum(wh for (_, kind, _), wh in told.items() if kind == "bought")
    assert yen["bought"] == pytest.approx(bought_wh * 31 / 1000, abs=0.01)
    assert "usage/30" in yen


@pytest.mark.parametrize(
    ("minute", "last"), [(4, 10), (6, 11)], ids=["four minutes after the hour", "six minutes after it"]
)
@pytest.mark.parametrize("sd_card", [False, True], ids=["web", "card"])
def test_an_hour_of_today_is_kept_five_minutes_after_it_ended(
    tmp_path: Path, minute: int, last: int, *, sd_card: bool
) -> None:
    now = NOON.replace(minute=minute)
    with remembered(tmp_path, now, sd_card=sd_card) as memory, memory.history() as history:
        history.bring(TODAY, circuits=True)
        rows = memory.rows(TODAY)
    assert hours_of(rows) == hours_of(rows, "usage") == list(range(last + 1))
    assert set(intervals(rows, 1800)) == set() or sd_card
    assert not (rows["kind"] == NO_DATA).any()


def test_the_totals_alone_cost_no_circuit(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory:
        with memory.history() as history:
            brought = history.bring(TODAY, circuits=False)
        assert brought.source == "web"
        assert memory.asked(OF_CIRCUIT) == memory.asked(CARD_PAGE) == 0
        assert memory.noted(TODAY, CIRCUITS) == set()
        assert memory.requests() == 4 + 2


def test_bringing_a_day_again_changes_nothing(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory:
        changed = []
        for _ in range(2):
            with memory.history() as history:
                changed.append(history.bring(YESTERDAY, circuits=True).changed)
        assert changed[0] > 0
        assert changed[1] == 0


# The clock


@pytest.mark.parametrize(("skew_s", "words"), [(-75, "75 s ahead"), (75, "75 s behind")])
def test_nothing_is_brought_while_the_clocks_are_more_than_a_minute_apart(
    tmp_path: Path, skew_s: int, words: str
) -> None:
    with remembered(tmp_path) as memory:
        memory.skew = timedelta(seconds=skew_s)
        with pytest.raises(Unreachable) as raised, memory.history() as history:
            history.bring(YESTERDAY, circuits=True)
        assert words in str(raised.value)
        assert "NTP" in str(raised.value)
        assert memory.rows(YESTERDAY).empty
        memory.skew = timedelta(seconds=50)
        with memory.history() as history:
            assert history.bring(YESTERDAY, circuits=False).rows > 0


def test_an_hour_that_the_devices_clock_has_not_settled_is_not_noted_as_absent(tmp_path: Path) -> None:
    with remembered(tmp_path, datetime(2026, 7, 14, 0, 4, 38, tzinfo=JAPAN)) as memory:
        memory.skew = timedelta(seconds=30)
        with memory.history() as history:
            history.bring(YESTERDAY, circuits=True)
        assert hours_of(memory.rows(YESTERDAY)) == list(range(23))
        assert memory.noted(YESTERDAY, TOTALS) == memory.noted(YESTERDAY, CIRCUITS) == set()


# The card


def test_no_card_is_remembered_for_a_day(tmp_path: Path) -> None:
    with remembered(tmp_path) as memory:
        asked = []
        for hours in (0, 1, 23.5, 24.5):
            memory.unit.set_clock(NOON + hours * HOUR)
            with memory.history() as history:
                assert history.bring(YESTERDAY, circuits=True).source == "web"
            asked.append(memory.asked(CARD_PAGE))
    # The form, and the download that gives no zip.
    assert asked == [2, 2, 2, 4]


def test_the_export_is_asked_for_once_an_hour_at_most(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory:
        asked = []
        for minutes in (0, 30, 59, 61):
            memory.unit.set_clock(NOON + minutes * MINUTE)
            with memory.history() as history:
                for day in (YESTERDAY, YESTERDAY - DAY):
                    assert history.bring(day, circuits=True).source == "sd"
            asked.append(memory.asked(CARD_PAGE))
    assert asked == [2, 2, 2, 4]


def test_the_card_of_another_unit_is_not_used(tmp_path: Path) -> None:
    totals = []
    with (
        remembered(tmp_path / "old", sd_card=True) as old,
        remembered(tmp_path / "new", household=Household(seed=7), sd_card=True) as new,
    ):
        for memory, folder in ((new, new.folder), (old, old.folder), (new, old.folder)):
            memory.folder = folder
            with memory.history() as history:
                assert history.bring(YESTERDAY, circuits=True).source == "sd"
            totals.append(intervals(memory.rows(YESTERDAY)))
    assert totals[2] == totals[0] != totals[1]


def test_an_hour_that_ended_since_the_export_was_made_comes_from_the_graph_pages(tmp_path: Path) -> None:
    with remembered(tmp_path, NOON.replace(minute=20), sd_card=True) as memory:
        with memory.history() as history:
            assert history.bring(TODAY, circuits=True).source == "sd"
        memory.unit.set_clock(NOON.replace(hour=13, minute=8))
        with memory.history() as history:
            assert history.bring(TODAY, circuits=True).source == "web"
            assert history.bring(YESTERDAY, circuits=True).source == "sd"
        assert memory.asked(CARD_PAGE) == 2
        assert hours_of(memory.rows(TODAY)) == hours_of(memory.rows(TODAY), "usage") == list(range(13))
        assert memory.noted(TODAY, TOTALS) == memory.noted(TODAY, CIRCUITS) == set()


def test_an_export_that_cannot_be_read_costs_an_hour_of_half_hours_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Card, "export", lambda *_: b"PK\3\4 and no more")
    with remembered(tmp_path, sd_card=True) as memory:
        with memory.history() as history:
            brought = history.bring(YESTERDAY, circuits=True)
        assert brought.source == "web"
        assert "export could not be read" in brought.problems[0]
        assert hours_of(memory.rows(YESTERDAY), "usage") == list(range(24))
        memory.unit.set_clock(NOON + 50 * MINUTE)
        with memory.history() as history:
            assert history.bring(YESTERDAY, circuits=True).source == "web"
        assert memory.asked(CARD_PAGE) == 2
        monkeypatch.undo()
        memory.unit.set_clock(NOON + 65 * MINUTE)
        with memory.history() as history:
            assert history.bring(YESTERDAY, circuits=True).source == "sd"


# What the device does not have


def test_hours_in_which_the_device_was_off_are_noted(tmp_path: Path) -> None:
    start = day_start(YESTERDAY)
    with (
        remembered(tmp_path, outages=[(start + 2 * HOUR, start + 5.5 * HOUR)]) as memory,
        memory.history() as history,
    ):
        history.bring(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
        assert hours_of(rows) == hours_of(rows, "usage") == [0, 1, *range(5, 24)]
        assert memory.noted(YESTERDAY, TOTALS) == memory.noted(YESTERDAY, CIRCUITS) == {2, 3, 4}


def test_a_day_before_the_devices_memory_costs_one_request_and_is_noted(tmp_path: Path) -> None:
    with remembered(tmp_path, memory_days=3) as memory, memory.history() as history:
        history.bring(YESTERDAY, circuits=True)
        before = memory.requests()
        brought = history.bring(TODAY - 4 * DAY, circuits=True)
        assert memory.requests() - before == 1
        assert brought.problems == [str(no_energy(date(2026, 7, 10)))]
        assert brought.rows == 0
        assert memory.noted(TODAY - 4 * DAY, TOTALS) == set(range(24))


def test_one_circuits_page_costs_that_circuit_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = graphs.circuit_graph

    def in_litres(circuit_id: str | None, names: Mapping[int, str]) -> graphs.Graph:
        graph = shown(circuit_id, names)
        return replace(graph, unit="L") if circuit_id == "30" else graph

    monkeypatch.setattr(graphs, "circuit_graph", in_litres)
    with remembered(tmp_path) as memory, memory.history() as history:
        brought = history.bring(YESTERDAY, circuits=True)
        usage = memory.rows(YESTERDAY).query("kind == 'usage'")
    (problem,) = brought.problems
    assert "584" in problem
    assert set(usage["name"]) == {str(circuit.circuit_id) for circuit in ALL_CIRCUITS} - {"30"}
    assert len(usage) == 24 * (len(ALL_CIRCUITS) - 1)


def failing(monkeypatch: pytest.MonkeyPatch, status: int, *circuit_ids: str) -> set[str]:
    """Let these circuits' pages fail; return their ids, to be changed as time goes on."""
    # Tried once, not for 20 s.
    monkeypatch.setattr("tenacity.stop_before_delay", lambda _: tenacity.stop_after_attempt(1))
    shown, ids = graphs.circuit_graph, set(circuit_ids)

    def circuit_graph(circuit_id: str | None, names: Mapping[int, str]) -> graphs.Graph:
        if circuit_id in ids:
            raise HTTPException(status)
        return shown(circuit_id, names)

    monkeypatch.setattr(graphs, "circuit_graph", circuit_graph)
    return ids


IDS = [str(circuit.circuit_id) for circuit in ALL_CIRCUITS]


@pytest.mark.parametrize("status", [404, 503])
def test_circuits_whose_pages_fail_here_and_there_cost_themselves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    gone = failing(monkeypatch, status, IDS[3], IDS[9], IDS[-1])
    with remembered(tmp_path) as memory, memory.history() as history:
        brought = history.bring(YESTERDAY, circuits=True)
        usage = memory.rows(YESTERDAY).query("kind == 'usage'")
    assert len(brought.problems) == 3
    assert all(str(status) in problem for problem in brought.problems)
    assert set(usage["name"]) == set(IDS) - gone


def test_a_device_that_goes_away_between_circuits_is_not_waited_for_at_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 503, *IDS[3:])
    with remembered(tmp_path) as memory, memory.history() as history:
        with pytest.raises(Unreachable, match="503"):
            history.bring(YESTERDAY, circuits=True)
        assert memory.asked(OF_CIRCUIT) == 5
        assert memory.rows(YESTERDAY).empty


def test_a_device_without_the_circuits_page_is_asked_for_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 404, *IDS)
    with remembered(tmp_path) as memory, memory.history() as history:
        assert history.bring(YESTERDAY, circuits=True).rows
        assert memory.asked(OF_CIRCUIT) == 2


@pytest.mark.parametrize("status", [404, 503])
def test_a_circuit_that_failed_is_asked_for_again_a_day_later_and_its_minutes_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    gone = failing(monkeypatch, status, IDS[0], IDS[9])
    hours = [day_start(YESTERDAY) + n * HOUR for n in (12, 13)]
    with remembered(tmp_path, NOON - DAY) as memory, recorded(memory, tmp_path) as record:
        record.read_live(NOON - DAY)
        memory.unit.set_clock(NOON)
        record.read_live(NOON)
        assert record.fill(hours) == 119
        names = record.names(hours[1])

        def to_fill() -> list[datetime]:
            shown = hours_between(record.store, hours[0], hours[-1] + HOUR, memory.now())
            return [hour.start for hour in fillable(record.store, memory.energy, shown, memory.now())]

        # At first not again; a day later, for those two alone; then once more for the one that still fails.
        asked = []
        for later, still in ((HOUR, gone), (25 * HOUR, {IDS[9]}), (26 * HOUR, {IDS[9]}), (51 * HOUR, ())):
            gone.intersection_update(still)
            memory.unit.set_clock(NOON + later)
            before = memory.asked(OF_CIRCUIT)
            assert record.fill(to_fill()) == 0
            asked.append(memory.asked(OF_CIRCUIT) - before)
            asked_names = len(record.names(hours[1]) - names)
            assert asked_names == {HOUR: 0, 25 * HOUR: 1, 26 * HOUR: 1, 51 * HOUR: 2}[later]
        assert asked == [0, 2, 0, 1]
        assert to_fill() == []
        assert record.names(hours[1]) == record.names(hours[0])


# Requests


@dataclass
class Record:
    """A store of readings beside the memory's energy, with a live reading at the start and at the end of an outage."""

    memory: Memory
    store: Store

    def read_live(self, at: datetime) -> None:
        self.memory.unit.set_clock(at)
        with self.memory.client() as client:
            minute = at.replace(second=0)
            taken = take_minute(client, self.store, minute=minute, samples=1, clock=self.memory.now)
        assert taken.problems == []

    def names(self, hour: datetime) -> set[str]:
        """Return the circuits that every minute of an hour has."""
        usage = self.store.read(hour, hour + HOUR, kinds=["usage"])
        minutes = usage.groupby("name")["time"].nunique()
        return set(minutes[minutes == 60].index)

    def fill(self, hours: list[datetime]) -> int:
        """Fill these hours; return the minutes filled."""
        opened = []

        def history() -> History:
            client = self.memory.client()
            opened.append(client)
            return History(client, self.memory.energy, self.memory.folder, self.memory.now())

        days = fill_hours(self.store, self.memory.energy, hours, now=self.memory.now(), history=history)
        filled = sum(day.filled_minutes for day in days)
        for client in opened:
            client.__exit__(None, None, None)
        return filled


@contextmanager
def recorded(memory: Memory, folder: Path) -> Iterator[Record]:
    with Store.open(folder / "readings.sqlite") as store:
        yield Record(memory, store)


@pytest.mark.parametrize(("sd_card", "most"), [(False, 30 * (32 + 6) + 10), (True, 5)], ids=["web", "card"])
def test_thirty_days_are_filled_with_few_requests(tmp_path: Path, most: int, *, sd_card: bool) -> None:
    with (
        remembered(tmp_path, NOON - 30 * DAY, sd_card=sd_card) as memory,
        recorded(memory, tmp_path) as record,
    ):
        record.read_live(NOON - 30 * DAY)
        record.read_live(NOON)
        before = memory.requests()
        # One hour of each day: what a day costs does not depend on how many hours are missing.
        hours = [day_start(TODAY) - n * DAY + 20 * HOUR for n in range(1, 31)]
        gaps = find_gaps(record.store, memory.energy, hours[-1], memory.now(), memory.now())
        assert record.fill(hours) == 30 * 60
        assert memory.requests() - before <= min(most, gaps.requests)
        asked = memory.requests()
        assert record.fill(hours) == 0
        assert memory.requests() == asked


def test_what_the_device_does_not_have_is_asked_again_after_a_day_only(tmp_path: Path) -> None:
    start = day_start(YESTERDAY)
    with (
        remembered(tmp_path, NOON - 2 * DAY, outages=[(start, start + DAY)]) as memory,
        recorded(memory, tmp_path) as record,
    ):
        record.read_live(NOON - 2 * DAY)
        record.read_live(NOON)
        hours = [start + n * HOUR for n in range(24)]
        asked = []
        for later in (timedelta(0), HOUR, 23 * HOUR, 25 * HOUR):
            memory.unit.set_clock(NOON + later)
            before = memory.asked(OF_CONSUMPTION)
            assert record.fill(hours) == 0
            asked.append(memory.asked(OF_CONSUMPTION) - before)
            gaps = find_gaps(record.store, memory.energy, start, start + DAY, memory.now())
            assert (len(gaps.fillable), len(gaps.hopeless), gaps.requests) == (0, 24, 0)
    assert asked == [1, 0, 0, 1]


def test_a_day_whose_page_cannot_be_read_keeps_no_other_day_from_being_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph_page = graphs.graph_page

    def other_day(graph: graphs.Graph, day: date, *of_day: Any) -> bytes:
        return graph_page(graph, max(day, YESTERDAY), *of_day)

    hours = [day_start(YESTERDAY) - n * DAY + 12 * HOUR for n in (1, 0)]
    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        record.read_live(NOON)
        monkeypatch.setattr(graphs, "graph_page", other_day)
        assert record.fill(hours) == 60
        asked = memory.requests()
        assert record.fill(hours) == 0
        assert memory.requests() == asked
        monkeypatch.undo()
        memory.unit.set_clock(NOON + 25 * HOUR)
        assert record.fill(hours) == 60


def test_a_page_that_cannot_be_read_once_puts_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph_page, asked = graphs.graph_page, []

    def first_of_another_day(graph: graphs.Graph, day: date, *of_day: Any) -> bytes:
        asked.append(day)
        return graph_page(graph, day + DAY if len(asked) == 1 else day, *of_day)

    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        record.read_live(NOON)
        monkeypatch.setattr(graphs, "graph_page", first_of_another_day)
        assert record.fill([day_start(YESTERDAY) + 12 * HOUR]) == 60


# What is filled


def test_half_hours_replace_what_an_hour_had_filled(tmp_path: Path) -> None:
    hours = [day_start(YESTERDAY) + n * HOUR for n in (12, 13)]
    with remembered(tmp_path, NOON - DAY) as memory, recorded(memory, tmp_path) as record:
        record.read_live(day_start(YESTERDAY) + 12 * HOUR + 10 * MINUTE)
        memory.unit.set_clock(NOON)
        assert record.fill(hours) == 119
        table = record.store.read(hours[0], hours[-1] + HOUR)
        assert set(table["interval_s"]) == {0, 3600}
    with remembered(tmp_path, NOON, sd_card=True) as memory, recorded(memory, tmp_path) as record:
        (memory.folder / "export.json").unlink()
        with memory.history() as history:
            assert history.bring(YESTERDAY, circuits=True).source == "sd"
        assert record.fill(hours) == 0
        after = record.store.read(hours[0], hours[-1] + HOUR)
        assert set(after["interval_s"]) == {0, 1800}
        assert set(zip(after["time"], after["name"], strict=True)) == set(
            zip(table["time"], table["name"], strict=True)
        )
        assert record.fill(hours) == 0
        pd.testing.assert_frame_equal(record.store.read(hours[0], hours[-1] + HOUR), after)


def test_what_was_read_stays_where_its_minute_is_filled(tmp_path: Path) -> None:
    hour = day_start(YESTERDAY) + 12 * HOUR
    # The generation was not shown at that moment, so that the minute is not covered.
    partial = frame([Row(hour + 20 * MINUTE, "total", "総消費電力", 9.9, "kW", 0)])
    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        record.read_live(hour + 10 * MINUTE)
        record.store.upsert(partial)
        memory.unit.set_clock(NOON)
        assert record.fill([hour]) == 59
        table = record.store.read(hour + 20 * MINUTE, hour + 21 * MINUTE)
    values = table.set_index("name")[["value", "interval_s"]]
    assert tuple(values.loc["総消費電力"]) == (9.9, 0)
    assert values.loc["売買電力", "interval_s"] == 3600


def test_the_generation_is_filled_under_no_name_where_another_device_was_only_silent(tmp_path: Path) -> None:
    hour = day_start(YESTERDAY) + 12 * HOUR
    earlier = frame([Row(hour - 20 * HOUR, "generation", "燃料電池", 700.0, "W", 0)])
    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        record.read_live(hour)
        record.store.upsert(earlier)
        memory.unit.set_clock(NOON)
        assert record.fill([hour]) == 59
        filled = record.store.read(hour + MINUTE, hour + HOUR)
    assert set(filled["kind"]) == {"total", "usage"}
    assert (filled["name"] == "総発電電力").sum() == 59


# What the command shows


def test_a_day_is_told_without_being_kept(tmp_path: Path) -> None:
    with remembered(tmp_path) as memory, memory.client() as client:
        told = day_on_device(client, memory.folder, TODAY, memory.now(), source="auto")
        assert told.source == "web"
        assert hours_of(told.table) == list(range(11))
        assert told.names["8"] == "キッチン　パントリー"
        assert memory.rows(TODAY).empty


def test_a_card_tells_half_hours_alone(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory, memory.client() as client:
        told = day_on_device(client, memory.folder, YESTERDAY, memory.now(), source="auto")
        web = day_on_device(client, memory.folder, YESTERDAY, memory.now(), source="web")
    assert told.source == "sd"
    assert set(told.table["interval_s"]) == {1800}
    assert set(web.table["interval_s"]) == {3600}
    sums = [
        table.loc[table["kind"].isin(["consumption", "consumption/half"]), "value"].sum()
        for table in (told.table, web.table)
    ]
    assert sums[0] == sums[1]


@pytest.mark.parametrize(
    ("day", "source", "words"),
    [
        (YESTERDAY, "sd", "no SD card"),
        (date(2025, 1, 1), "auto", "2025-01-01"),
        (TODAY + DAY, "web", "2026-07-15"),
    ],
    ids=["no card", "too long ago", "tomorrow"],
)
def test_a_day_of_which_the_device_has_nothing_is_a_sentence(
    tmp_path: Path, day: date, source: Literal["auto", "web", "sd"], words: str
) -> None:
    with remembered(tmp_path) as memory, memory.client() as client, pytest.raises(NoData, match=words):
        day_on_device(client, memory.folder, day, memory.now(), source=source)
