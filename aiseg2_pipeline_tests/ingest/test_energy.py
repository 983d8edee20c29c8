"""Reading the device's energy into the energy store: requests, rows, notes and fills. Against the simulator."""

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.errors import NoData, Unreachable
from aiseg2_pipeline.aiseg2.graphs import no_energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.find import fillable, find_gaps, hours_between
from aiseg2_pipeline.ingest.energy import CIRCUITS, TOTALS, day_on_device
from aiseg2_pipeline.japan_time import day_start
from aiseg2_pipeline.simulator import graphs
from aiseg2_pipeline.simulator.appliances import CIRCUITS as ALL_CIRCUITS
from aiseg2_pipeline.simulator.card import Card
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline_tests.support.energy_history import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    failing,
    hours_of,
    intervals,
    recorded,
    remembered,
)
from aiseg2_pipeline_tests.support.simulator_client import CARD_PAGE, JAPAN, energy_wh

TODAY = date(2026, 7, 14)
YESTERDAY = date(2026, 7, 13)
OF_CIRCUIT = "/page/graph/584"
OF_CONSUMPTION = "/page/graph/52111"


def test_the_cards_totals_of_days_and_months_reach_further_back_than_its_hours(tmp_path: Path) -> None:
    since = date(2026, 5, 1)
    with remembered(tmp_path, sd_card=True) as memory, memory.history() as history:
        assert history.read_card_totals(since) == []
        assert history.read_card_totals(since) == []
        rows = memory.energy.read(day_start(date(2026, 1, 1)), memory.now())
    assert memory.requests(CARD_PAGE) == 2
    assert rows["time"].min() == pd.Timestamp(day_start(since))
    consumed = rows[rows["name"] == "使用電力量(kWh)"].set_index("time")
    months = consumed.loc[consumed["kind"] == "monthly_total", "value"]
    assert list(months.index) == [pd.Timestamp(day_start(date(2026, month, 1))) for month in (5, 6)]
    days = consumed.loc[consumed["kind"] == "daily_total", "value"]
    assert days[: months.index[1] - pd.Timedelta(seconds=1)].sum() == pytest.approx(months.iloc[0])
    assert set(rows["kind"]) == {"daily_total", "circuit_daily_total", "daily_cost", "monthly_total"}


# Rows of a day


@pytest.mark.parametrize("sd_card", [False, True], ids=["web", "card"])
def test_the_energy_of_a_day_is_the_integral_of_the_power(tmp_path: Path, *, sd_card: bool) -> None:
    home = Household()
    with remembered(tmp_path, household=home, sd_card=sd_card) as memory, memory.history() as history:
        result = history.read_day(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
    assert (result.source, result.problems) == ("sd" if sd_card else "web", [])
    stored = intervals(rows)
    for n in (0, 11, 18, 23):
        start = day_start(YESTERDAY) + n * HOUR
        real = energy_wh(home, start, start + HOUR)
        assert stored[pd.Timestamp(start), "consumption", "consumption"] == pytest.approx(
            real.consumption_wh, abs=2
        )
        assert stored[pd.Timestamp(start), "generation", "generation"] == pytest.approx(real.generation_wh, abs=2)
        assert stored[pd.Timestamp(start), "sold", "sold"] == pytest.approx(real.sold_wh, abs=2)
        for place, circuit in enumerate(ALL_CIRCUITS):
            wh = stored[pd.Timestamp(start), "usage", str(circuit.circuit_id)]
            assert wh == pytest.approx(real.circuits_wh[place], abs=1)


def test_web_pages_and_card_agree_to_the_wh(tmp_path: Path) -> None:
    with remembered(tmp_path / "web") as memory, memory.history() as history:
        history.read_day(YESTERDAY, circuits=True)
        web = intervals(memory.rows(YESTERDAY))
    with remembered(tmp_path / "card", sd_card=True) as memory, memory.history() as history:
        history.read_day(YESTERDAY, circuits=True)
        card = intervals(memory.rows(YESTERDAY))
        halves = intervals(memory.rows(YESTERDAY), 1800)
    assert len(web) == 24 * (4 + len(ALL_CIRCUITS))
    assert {key: card[key] for key in web} == web
    for (time, kind, name), wh in web.items():
        parts = [halves[time + n * pd.Timedelta(minutes=30), f"{kind}/half", name] for n in (0, 1)]
        assert sum(parts) == wh


def test_a_days_totals_are_those_of_its_pages(tmp_path: Path) -> None:
    with remembered(tmp_path) as memory, memory.history() as history:
        history.read_day(YESTERDAY, circuits=True)
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


def test_the_card_has_the_cost_of_a_day(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory, memory.history() as history:
        history.read_day(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
    yen = rows[rows["kind"] == "daily_cost"].set_index("name")["value"]
    stored = intervals(rows)
    bought_wh = sum(wh for (_, kind, _), wh in stored.items() if kind == "bought")
    assert yen["bought"] == pytest.approx(bought_wh * 31 / 1000, abs=0.01)
    assert "usage/30" in yen


@pytest.mark.parametrize(
    ("minute", "last"), [(4, 10), (6, 11)], ids=["four minutes after the hour", "six minutes after it"]
)
@pytest.mark.parametrize("sd_card", [False, True], ids=["web", "card"])
def test_an_hour_of_today_is_stored_five_minutes_after_its_end(
    tmp_path: Path, minute: int, last: int, *, sd_card: bool
) -> None:
    now = NOON.replace(minute=minute)
    with remembered(tmp_path, now, sd_card=sd_card) as memory, memory.history() as history:
        history.read_day(TODAY, circuits=True)
        rows = memory.rows(TODAY)
        assert memory.noted(TODAY, TOTALS) == set()
    assert hours_of(rows) == hours_of(rows, "usage") == list(range(last + 1))
    assert set(intervals(rows, 1800)) == set() or sd_card


def test_reading_the_totals_alone_requests_no_circuit(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory:
        with memory.history() as history:
            result = history.read_day(TODAY, circuits=False)
        assert result.source == "web"
        assert memory.requests(OF_CIRCUIT) == memory.requests(CARD_PAGE) == 0
        assert memory.noted(TODAY, CIRCUITS) == set()
        assert memory.requests() == 4 + 2


# The clock


@pytest.mark.parametrize(("skew_s", "words"), [(-75, "75 s ahead"), (75, "75 s behind")])
def test_nothing_is_read_while_the_clocks_differ_by_more_than_a_minute(
    tmp_path: Path, skew_s: int, words: str
) -> None:
    with remembered(tmp_path) as memory:
        memory.skew = timedelta(seconds=skew_s)
        with pytest.raises(Unreachable) as raised, memory.history() as history:
            history.read_day(YESTERDAY, circuits=True)
        assert words in str(raised.value)
        assert "NTP" in str(raised.value)
        assert memory.rows(YESTERDAY).empty
        memory.skew = timedelta(seconds=50)
        with memory.history() as history:
            assert history.read_day(YESTERDAY, circuits=False).rows > 0


def test_an_hour_that_the_devices_clock_has_not_settled_is_not_noted_as_absent(tmp_path: Path) -> None:
    with remembered(tmp_path, datetime(2026, 7, 14, 0, 4, 38, tzinfo=JAPAN)) as memory:
        memory.skew = timedelta(seconds=30)
        with memory.history() as history:
            history.read_day(YESTERDAY, circuits=True)
        assert hours_of(memory.rows(YESTERDAY)) == list(range(23))
        assert memory.noted(YESTERDAY, TOTALS) == memory.noted(YESTERDAY, CIRCUITS) == set()


# The card


@pytest.mark.parametrize(
    ("source", "times"),
    [
        ("web", [0 * HOUR, HOUR, 23.5 * HOUR, 24.5 * HOUR]),
        ("sd", [0 * HOUR, 30 * MINUTE, 59 * MINUTE, 61 * MINUTE]),
    ],
)
def test_the_card_is_requested_once_an_hour_and_once_a_day_if_there_is_none(
    tmp_path: Path, source: str, times: list[timedelta]
) -> None:
    with remembered(tmp_path, sd_card=source == "sd") as memory:
        sent = []
        for later in times:
            memory.unit.set_clock(NOON + later)
            with memory.history() as history:
                for day in (YESTERDAY, YESTERDAY - DAY):
                    assert history.read_day(day, circuits=True).source == source
            sent.append(memory.requests(CARD_PAGE))
    # The form and the download.
    assert sent == [2, 2, 2, 4]


def test_the_card_of_another_device_is_not_used(tmp_path: Path) -> None:
    totals = []
    with (
        remembered(tmp_path / "old", sd_card=True) as old,
        remembered(tmp_path / "new", household=Household(seed=7), sd_card=True) as new,
    ):
        for memory, folder in ((new, new.folder), (old, old.folder), (new, old.folder)):
            memory.folder = folder
            with memory.history() as history:
                assert history.read_day(YESTERDAY, circuits=True).source == "sd"
            totals.append(intervals(memory.rows(YESTERDAY)))
    assert totals[2] == totals[0] != totals[1]


def test_an_hour_that_ended_since_the_export_was_made_comes_from_the_graph_pages(tmp_path: Path) -> None:
    with remembered(tmp_path, NOON.replace(minute=20), sd_card=True) as memory:
        with memory.history() as history:
            assert history.read_day(TODAY, circuits=True).source == "sd"
        memory.unit.set_clock(NOON.replace(hour=13, minute=8))
        with memory.history() as history:
            assert history.read_day(TODAY, circuits=True).source == "web"
            assert history.read_day(YESTERDAY, circuits=True).source == "sd"
        assert memory.requests(CARD_PAGE) == 2
        assert hours_of(memory.rows(TODAY)) == hours_of(memory.rows(TODAY), "usage") == list(range(13))
        assert memory.noted(TODAY, TOTALS) == memory.noted(TODAY, CIRCUITS) == set()


def test_an_unreadable_export_is_retried_after_an_hour_and_the_pages_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Card, "export", lambda *_: b"PK\3\4 and no more")
    with remembered(tmp_path, sd_card=True) as memory:
        with memory.history() as history:
            result = history.read_day(YESTERDAY, circuits=True)
        assert result.source == "web"
        assert "export could not be read" in result.problems[0]
        assert hours_of(memory.rows(YESTERDAY), "usage") == list(range(24))
        memory.unit.set_clock(NOON + 50 * MINUTE)
        with memory.history() as history:
            assert history.read_day(YESTERDAY, circuits=True).source == "web"
        assert memory.requests(CARD_PAGE) == 2
        monkeypatch.undo()
        memory.unit.set_clock(NOON + 65 * MINUTE)
        with memory.history() as history:
            assert history.read_day(YESTERDAY, circuits=True).source == "sd"


# Missing energy and failing pages


def test_hours_in_which_the_device_was_off_are_noted(tmp_path: Path) -> None:
    start = day_start(YESTERDAY)
    with (
        remembered(tmp_path, outages=[(start + 2 * HOUR, start + 5.5 * HOUR)]) as memory,
        memory.history() as history,
    ):
        history.read_day(YESTERDAY, circuits=True)
        rows = memory.rows(YESTERDAY)
        assert hours_of(rows) == hours_of(rows, "usage") == [0, 1, *range(5, 24)]
        assert memory.noted(YESTERDAY, TOTALS) == memory.noted(YESTERDAY, CIRCUITS) == {2, 3, 4}


def test_a_day_before_the_devices_history_costs_one_request_and_is_noted(tmp_path: Path) -> None:
    with remembered(tmp_path, memory_days=3) as memory, memory.history() as history:
        history.read_day(YESTERDAY, circuits=True)
        before = memory.requests()
        result = history.read_day(TODAY - 4 * DAY, circuits=True)
        assert memory.requests() - before == 1
        assert result.problems == [str(no_energy(date(2026, 7, 10)))]
        assert result.rows == 0
        assert memory.noted(TODAY - 4 * DAY, TOTALS) == set(range(24))


IDS = [str(circuit.circuit_id) for circuit in ALL_CIRCUITS]


@pytest.mark.parametrize(("status", "word"), [(404, "404"), (503, "503"), (None, "584")])
def test_circuits_whose_pages_fail_are_skipped_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, word: str
) -> None:
    gone = failing(monkeypatch, status, IDS[3], IDS[9], IDS[-1])
    with remembered(tmp_path) as memory, memory.history() as history:
        result = history.read_day(YESTERDAY, circuits=True)
        usage = memory.rows(YESTERDAY).query("kind == 'usage'")
    assert len(result.problems) == 3
    assert all(word in problem for problem in result.problems)
    assert set(usage["name"]) == set(IDS) - gone
    assert len(usage) == 24 * (len(IDS) - 3)


def test_a_device_that_stops_answering_is_not_retried_at_each_circuit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 503, *IDS[3:])
    with remembered(tmp_path) as memory, memory.history() as history:
        with pytest.raises(Unreachable, match="503"):
            history.read_day(YESTERDAY, circuits=True)
        assert memory.requests(OF_CIRCUIT) == 5
        assert memory.rows(YESTERDAY).empty


def test_a_device_without_the_circuits_page_gets_two_requests_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 404, *IDS)
    with remembered(tmp_path) as memory, memory.history() as history:
        assert history.read_day(YESTERDAY, circuits=True).rows
        assert memory.requests(OF_CIRCUIT) == 2


@pytest.mark.parametrize("status", [404, 503])
def test_a_failed_circuit_is_retried_a_day_later_and_filled_into_its_minutes(
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
        sent = []
        for later, still in ((HOUR, gone), (25 * HOUR, {IDS[9]}), (26 * HOUR, {IDS[9]}), (51 * HOUR, ())):
            gone.intersection_update(still)
            memory.unit.set_clock(NOON + later)
            before = memory.requests(OF_CIRCUIT)
            assert record.fill(to_fill()) == 0
            sent.append(memory.requests(OF_CIRCUIT) - before)
            asked_names = len(record.names(hours[1]) - names)
            assert asked_names == {HOUR: 0, 25 * HOUR: 1, 26 * HOUR: 1, 51 * HOUR: 2}[later]
        assert sent == [0, 2, 0, 1]
        assert to_fill() == []
        assert record.names(hours[1]) == record.names(hours[0])


# Requests


# With a card, hot water and gas alone come from the pages.
@pytest.mark.parametrize(
    ("sd_card", "most"), [(False, 10 * (32 + 6) + 10), (True, 10 * 2 + 5)], ids=["web", "card"]
)
def test_ten_days_are_filled_with_few_requests(tmp_path: Path, most: int, *, sd_card: bool) -> None:
    with (
        remembered(tmp_path, NOON - 10 * DAY, sd_card=sd_card) as memory,
        recorded(memory, tmp_path) as record,
    ):
        record.read_live(NOON - 10 * DAY)
        record.read_live(NOON)
        before = memory.requests()
        # One hour of each day: what a day costs does not depend on how many hours are missing.
        hours = [day_start(TODAY) - n * DAY + 20 * HOUR for n in range(1, 11)]
        gaps = find_gaps(record.store, memory.energy, hours[-1], memory.now(), memory.now())
        assert record.fill(hours) == 10 * 60
        assert memory.requests() - before <= min(most, gaps.requests)
        sent = memory.requests()
        assert record.fill(hours) == 0
        assert memory.requests() == sent


def test_hours_without_energy_are_requested_again_after_a_day_only(tmp_path: Path) -> None:
    start = day_start(YESTERDAY)
    with (
        remembered(tmp_path, NOON - 2 * DAY, outages=[(start, start + DAY)]) as memory,
        recorded(memory, tmp_path) as record,
    ):
        record.read_live(NOON - 2 * DAY)
        record.read_live(NOON)
        hours = [start + n * HOUR for n in range(24)]
        sent = []
        for later in (timedelta(0), HOUR, 23 * HOUR, 25 * HOUR):
            memory.unit.set_clock(NOON + later)
            before = memory.requests(OF_CONSUMPTION)
            assert record.fill(hours) == 0
            sent.append(memory.requests(OF_CONSUMPTION) - before)
            gaps = find_gaps(record.store, memory.energy, start, start + DAY, memory.now())
            assert (len(gaps.fillable), len(gaps.hopeless), gaps.requests) == (0, 24, 0)
    assert sent == [1, 0, 0, 1]


def test_a_day_with_an_unreadable_page_does_not_stop_the_fill_of_others(
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
        sent = memory.requests()
        assert record.fill(hours) == 0
        assert memory.requests() == sent
        monkeypatch.undo()
        memory.unit.set_clock(NOON + 25 * HOUR)
        assert record.fill(hours) == 60


def test_a_page_that_is_unreadable_once_is_read_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph_page, sent = graphs.graph_page, []

    def first_of_another_day(graph: graphs.Graph, day: date, *of_day: Any) -> bytes:
        sent.append(day)
        return graph_page(graph, day + DAY if len(sent) == 1 else day, *of_day)

    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        record.read_live(NOON)
        monkeypatch.setattr(graphs, "graph_page", first_of_another_day)
        assert record.fill([day_start(YESTERDAY) + 12 * HOUR]) == 60


# Fills


def test_half_hours_replace_minutes_filled_by_their_hour(tmp_path: Path) -> None:
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
            assert history.read_day(YESTERDAY, circuits=True).source == "sd"
        assert record.fill(hours) == 0
        after = record.store.read(hours[0], hours[-1] + HOUR)
        assert set(after["interval_s"]) == {0, 1800}
        assert set(zip(after["time"], after["name"], strict=True)) == set(
            zip(table["time"], table["name"], strict=True)
        )
        assert record.fill(hours) == 0
        pd.testing.assert_frame_equal(record.store.read(hours[0], hours[-1] + HOUR), after)


def test_live_values_are_kept_when_their_minute_is_filled(tmp_path: Path) -> None:
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


def test_the_generation_has_no_device_name_when_another_device_had_no_value(tmp_path: Path) -> None:
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


# The energy that the command shows


def test_a_day_is_shown_without_being_stored(tmp_path: Path) -> None:
    with remembered(tmp_path) as memory, memory.client() as client:
        shown = day_on_device(client, memory.folder, TODAY, memory.now(), source="auto")
        assert shown.source == "web"
        assert hours_of(shown.table) == list(range(11))
        assert shown.names["8"] == "キッチン　パントリー"
        assert memory.rows(TODAY).empty


def test_a_day_of_the_card_is_shown_in_half_hours(tmp_path: Path) -> None:
    with remembered(tmp_path, sd_card=True) as memory, memory.client() as client:
        card = day_on_device(client, memory.folder, YESTERDAY, memory.now(), source="auto")
        web = day_on_device(client, memory.folder, YESTERDAY, memory.now(), source="web")
    assert card.source == "sd"
    assert (set(card.table["interval_s"]), set(web.table["interval_s"])) == ({1800}, {3600})
    sums = [
        shown.table.loc[shown.table["kind"].isin(["consumption", "consumption/half"]), "value"].sum()
        for shown in (card, web)
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
def test_a_day_without_energy_raises_no_data(
    tmp_path: Path, day: date, source: Literal["auto", "web", "sd"], words: str
) -> None:
    with remembered(tmp_path) as memory, memory.client() as client, pytest.raises(NoData, match=words):
        day_on_device(client, memory.folder, day, memory.now(), source=source)
