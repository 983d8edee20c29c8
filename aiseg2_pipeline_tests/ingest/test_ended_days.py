"""An ended day keeps no total that predates its end, whatever failed at its end. Against the simulator."""

import io
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed
from aiseg2_pipeline.frames.energy import DAILY_COST, DAILY_TOTAL, HALF_HOUR_S
from aiseg2_pipeline.gaps.find import days_to_ask
from aiseg2_pipeline.ingest.energy import TOTALS
from aiseg2_pipeline.ingest.energy_rows import TITLES
from aiseg2_pipeline.japan_time import day_start
from aiseg2_pipeline.simulator import graphs
from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.card import Card
from aiseg2_pipeline.simulator.graphs import Graph
from aiseg2_pipeline.store import FetchAttempt
from aiseg2_pipeline_tests.support.energy_history import DAY, HOUR, Memory, hours_of, intervals, remembered
from aiseg2_pipeline_tests.support.simulator_client import CARD_PAGE, JAPAN

EVENING = datetime(2026, 7, 14, 18, 5, 5, tzinfo=JAPAN)
TODAY = EVENING.date()
IDS = tuple(str(circuit.circuit_id) for circuit in CIRCUITS)
MORNING = EVENING + 16 * HOUR


def totals(memory: Memory) -> dict[str, float]:
    rows = memory.rows(TODAY)
    rows = rows[rows["kind"] == DAILY_TOTAL]
    return dict(zip(rows["name"], rows["value"], strict=True))


def read_day(memory: Memory, *, circuits: bool = True) -> None:
    with memory.history() as history:
        history.read_day(TODAY, circuits=circuits)


@contextmanager
def read_in_the_evening(folder: Path, *, circuits: bool = True, **options: Any) -> Iterator[Memory]:
    with remembered(folder, EVENING, **options) as memory:
        read_day(memory, circuits=circuits)
        memory.unit.set_clock(MORNING)
        yield memory


def test_a_day_without_its_last_hour_is_requested_again(tmp_path: Path) -> None:
    with read_in_the_evening(tmp_path) as memory:
        start, now = day_start(TODAY), memory.now()
        assert days_to_ask(memory.energy, start, now) == [TODAY]
        before = totals(memory)
        read_day(memory)
        assert totals(memory)["使用電力量(kWh)"] > before["使用電力量(kWh)"]
        assert days_to_ask(memory.energy, start, now) == []


def test_neither_a_running_day_nor_one_before_the_record_is_requested(tmp_path: Path) -> None:
    with remembered(tmp_path, EVENING) as memory:
        assert days_to_ask(memory.energy, day_start(TODAY), memory.now()) == []
        # Its last hour is the device's five minutes past midnight.
        almost = day_start(TODAY) + DAY + timedelta(minutes=4)
        assert days_to_ask(memory.energy, day_start(TODAY), almost) == []


def test_hours_without_energy_are_requested_a_day_later(tmp_path: Path) -> None:
    off = ((EVENING + HOUR, EVENING + 3 * HOUR),)
    with read_in_the_evening(tmp_path, outages=off) as memory:
        read_day(memory)
        start, now = day_start(TODAY), memory.now()
        assert days_to_ask(memory.energy, start, now) == []
        assert TODAY in days_to_ask(memory.energy, start, now + DAY)


@pytest.mark.parametrize("gone", [{"9"}, set(IDS)], ids=["one", "all"])
def test_a_day_with_failed_circuits_is_requested_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: set[str]
) -> None:
    served = graphs.circuit_graph

    def circuit_graph(circuit_id: str | None, names: Mapping[int, str]) -> Graph:
        if circuit_id in gone:
            raise HTTPException(404)
        return served(circuit_id, names)

    with read_in_the_evening(tmp_path) as memory:
        monkeypatch.setattr(graphs, "circuit_graph", circuit_graph)
        read_day(memory)
        monkeypatch.undo()
        start, now = day_start(TODAY), memory.now()
        assert days_to_ask(memory.energy, start, now) == []
        assert TODAY in days_to_ask(memory.energy, start, now + DAY)
        memory.unit.set_clock(MORNING + DAY)
        read_day(memory)
        assert TODAY not in days_to_ask(memory.energy, start, memory.now() + DAY)


@pytest.mark.parametrize("page", ["51111", "53111", "54111", "55111"])
def test_a_page_with_a_stored_total_is_not_optional(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    with read_in_the_evening(tmp_path) as memory:
        before = totals(memory)
        monkeypatch.delitem(graphs.GRAPHS, page)
        with pytest.raises(NotServed):
            read_day(memory)
        monkeypatch.undo()
        # Nothing of it was kept, so it is requested again.
        assert totals(memory) == before
        assert days_to_ask(memory.energy, day_start(TODAY), memory.now()) == [TODAY]


def test_hot_water_of_the_evening_is_replaced_though_the_card_has_the_day(tmp_path: Path) -> None:
    with remembered(tmp_path, EVENING - HOUR / 2, sd_card=True) as memory:
        read_day(memory)
        assert "湯(L)" not in totals(memory)
        # An hour has settled since the export was made, so the pages are read.
        memory.unit.set_clock(EVENING + timedelta(minutes=1))
        read_day(memory)
        before = totals(memory)["湯(L)"]
        memory.unit.set_clock(MORNING)
        with memory.history() as history:
            assert history.read_day(TODAY, circuits=True).source == "sd"
        with memory.client() as client:
            shown = client.graph("hotwater", TODAY, Deadline(READING_TIMEOUT_S)).total
        assert totals(memory)["湯(L)"] == shown != before


def test_an_ended_day_has_the_same_totals_with_a_card_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_water = graphs.GRAPHS["55111"]
    monkeypatch.setitem(graphs.GRAPHS, "57111", replace(of_water, page_id="57111", title="ガス", unit="㎥"))
    days = []
    for sd_card in (False, True):
        folder = tmp_path / str(sd_card)
        folder.mkdir()
        with remembered(folder, MORNING, sd_card=sd_card) as memory:
            with memory.history() as history:
                assert history.read_day(TODAY, circuits=True).source == ("sd" if sd_card else "web")
            days.append(totals(memory))
    without, with_card = days
    assert with_card == pytest.approx(without)
    assert with_card["湯(L)"] > 0
    assert with_card["ガス(㎥)"] > 0


def card_without(monkeypatch: pytest.MonkeyPatch, labels: str) -> None:
    """Let the card have `-` in the rows whose label matches."""
    export = Card.export

    def emptied(card: Card, now: datetime, names: Mapping[int, str]) -> bytes:
        content = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(export(card, now, names))) as whole,
            zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as changed,
        ):
            for name in whole.namelist():
                text = whole.read(name).decode()
                changed.writestr(
                    name,
                    re.sub(
                        rf"^({labels}),.*$",
                        lambda row: row[1] + ",-" * row[0].count(","),
                        text,
                        flags=re.MULTILINE,
                    ),
                )
        return content.getvalue()

    monkeypatch.setattr(Card, "export", emptied)


def test_totals_of_the_evening_are_replaced_though_the_card_has_the_day_without_its_total(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card_without(monkeypatch, f"{TODAY:%Y%m%d}")
    with read_in_the_evening(tmp_path, circuits=False, sd_card=True) as memory:
        before = totals(memory)
        with memory.history() as history:
            assert history.read_day(TODAY, circuits=True).source == "sd"
        with memory.client() as client:
            shown = {
                title: client.graph(series, TODAY, Deadline(READING_TIMEOUT_S)).total
                for series, title in TITLES.items()
            }
        after = totals(memory)
        del after["湯(L)"]
        assert after == {f"{title}(kWh)": total for title, total in shown.items()} != before


def test_hours_that_the_card_does_not_have_come_from_the_graph_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = []
    for name, labels in (("whole", "none"), ("put in at noon", rf"{TODAY:%Y%m%d}(?:0\d|1[01])[^,]*")):
        card_without(monkeypatch, labels)
        with remembered(tmp_path / name, MORNING, sd_card=True) as memory:
            with memory.history() as history:
                assert history.read_day(TODAY, circuits=True).source == "sd"
            stored.append(memory.rows(TODAY))
        monkeypatch.undo()
    whole, joined = (intervals(rows) for rows in stored)
    assert joined.items() <= whole.items()
    assert {key for key in whole if key[1] in ("consumption", "usage")} <= joined.keys()
    assert hours_of(stored[1], "consumption/half") == list(range(12, 24))


def test_an_hour_that_card_and_pages_lack_costs_one_request(tmp_path: Path) -> None:
    off = ((EVENING - 5 * HOUR, EVENING - 3 * HOUR),)
    with remembered(tmp_path, MORNING, outages=off, sd_card=True) as memory:
        read_day(memory)
        assert memory.requests("/page/graph/52111") == memory.requests("/page/graph/584") + 1 == 1


def test_missing_hours_are_noted_before_the_rows_are_stored(tmp_path: Path) -> None:
    off = ((EVENING - 5 * HOUR, EVENING - 3 * HOUR),)
    with remembered(tmp_path, MORNING, outages=off) as memory:
        rows_before: list[bool] = []
        note = memory.energy.note_attempts

        def noting(attempts: Iterable[FetchAttempt]) -> None:
            rows_before.append(memory.rows(TODAY).empty)
            note(attempts)

        memory.energy.note_attempts = noting  # type: ignore[method-assign] # to see the order
        read_day(memory)
        assert rows_before == [True]
        assert memory.noted(TODAY, TOTALS) == {14}


# The card


def card_rows(memory: Memory) -> tuple[int, int]:
    """Return how many costs and half hours are stored of the day."""
    rows = memory.rows(TODAY)
    return int((rows["kind"] == DAILY_COST).sum()), int((rows["interval_s"] == HALF_HOUR_S).sum())


def test_an_export_made_before_the_days_end_is_replaced_once(tmp_path: Path) -> None:
    midnight = day_start(TODAY) + DAY
    with remembered(tmp_path, midnight - timedelta(minutes=52), sd_card=True) as memory:
        read_day(memory)
        memory.unit.set_clock(midnight + timedelta(minutes=5, seconds=8))
        with memory.history() as history:
            for _ in range(2):
                assert history.read_day(TODAY, circuits=True).source == "sd"
        read_day(memory)
        assert memory.requests(CARD_PAGE) == 2 + 2
        assert min(card_rows(memory)) > 0


def test_a_day_whose_export_was_another_page_gets_the_cards_rows_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with remembered(tmp_path, EVENING, sd_card=True) as memory:
        read_day(memory)
        monkeypatch.setattr(Card, "export", lambda *_: b"<html><body>please wait</body></html>")
        memory.unit.set_clock(MORNING)
        with memory.history() as history:
            result = history.read_day(TODAY, circuits=True)
        assert result.source == "web"
        assert "export could not be read" in result.problems[0]
        start, now = day_start(TODAY), memory.now()
        assert days_to_ask(memory.energy, start, now) == []
        assert TODAY in days_to_ask(memory.energy, start, now + DAY)
        monkeypatch.undo()
        memory.unit.set_clock(MORNING + DAY)
        read_day(memory)
        assert min(card_rows(memory)) > 0
        assert TODAY not in days_to_ask(memory.energy, start, memory.now() + DAY)


def test_a_card_that_stays_unreadable_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with remembered(tmp_path, EVENING, sd_card=True) as memory:
        read_day(memory)
        monkeypatch.setattr(Card, "export", lambda *_: b"<html></html>")
        for days in range(4):
            memory.unit.set_clock(MORNING + days * DAY)
            read_day(memory)
            to_ask = days_to_ask(memory.energy, day_start(TODAY), memory.now() + DAY)
            assert (TODAY in to_ask) == (days < 3)
