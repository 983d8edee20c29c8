"""What a page reads of a store: hours and days of series, covered minutes by day, and no file where none was."""

import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.queries import Covered, Queries, Summary

MIDNIGHT = datetime(2026, 7, 14, tzinfo=TOKYO)
DAY_S = 86_400
START_S = int(MIDNIGHT.timestamp())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with values in the last hour of a day, and in the first two of the next, the last of which is running."""
    path = tmp_path / "readings.sqlite"
    values = {-1: (1.0, 10.0), 0: (2.0, 20.0), 59: (4.0, 40.0), 60: (8.0, 80.0)}
    rows = [
        row
        for minute, (exchange, usage) in values.items()
        for row in (
            Row(MIDNIGHT + timedelta(minutes=minute), "total", "売買電力", exchange, "kW", 0),
            Row(MIDNIGHT + timedelta(minutes=minute), "usage", "台所", usage, "W", 0),
            Row(MIDNIGHT + timedelta(minutes=minute), "usage", "車", 1.0, "W", 0),
        )
    ]
    with Store.open(path) as store:
        store.upsert(frame(rows))
    return path


def test_days_are_those_of_japan_and_have_the_running_hour(path: Path) -> None:
    with Queries(path) as queries:
        days = queries.by_day("usage", START_S - DAY_S, START_S + DAY_S)
        one = queries.by_day("usage", START_S, START_S + DAY_S, "台所")
        hours = queries.by_hour("usage", START_S, START_S + DAY_S, "台所")
        covered = queries.coverage_by_day(START_S - DAY_S, START_S + DAY_S)
    assert days == [
        Summary(START_S - DAY_S, "台所", 1, 10.0, 10.0, 10.0),
        Summary(START_S - DAY_S, "車", 1, 1.0, 1.0, 1.0),
        Summary(START_S, "台所", 3, 140.0, 20.0, 80.0),
        Summary(START_S, "車", 3, 3.0, 1.0, 1.0),
    ]
    assert one == days[2:3]
    assert hours == [
        Summary(START_S, "台所", 2, 60.0, 20.0, 40.0),
        Summary(START_S + 3600, "台所", 1, 80.0, 80.0, 80.0),
    ]
    assert covered == [Covered(START_S - DAY_S, 1, 0), Covered(START_S, 3, 0)]


def test_looking_creates_no_store(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        Queries(tmp_path / "readings.sqlite")
    assert list(tmp_path.iterdir()) == []
