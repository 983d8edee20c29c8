"""The JSON and CSV under /api/v1, against real stores and the real process."""

import csv
import io
import re
import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.japan_time import TOKYO, day_of, day_start, hour_key
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline.web import coverage
from aiseg2_pipeline.web.record import Record
from aiseg2_pipeline_tests.support.page import (
    HOME,
    Page,
    hours_of_day,
    served,
    store_energy,
    store_reading,
    utc_now,
)

DAY = date(2026, 7, 14)
NOON = day_start(DAY) + timedelta(hours=12)
MINUTE = timedelta(minutes=1)
FORMULA = '=HYPERLINK("http://other.example","台所")'
TARIFF = """
[[plan]]
name = "flat"
valid_from = 2020-01-01
base = { yen = 1000 }
[[plan.price]]
name = "all day"
yen = 30
"""
INFLUX = {
    "INFLUXDB_HOST": "influx:8086",
    "INFLUXDB_TOKEN": "token-of-test",
    "INFLUXDB_ORG": "home",
    "INFLUXDB_BUCKET": "b",
}


def iso(moment: datetime) -> str:
    return moment.astimezone(TOKYO).isoformat()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record: from 12:00 two live minutes, one missing, and one filled; two days of energy, and the cost of one."""
    folder = tmp_path_factory.mktemp("record") / "data"
    for n, watts in enumerate((1000.0, 3000.0)):
        store_reading(folder, NOON + n * MINUTE + timedelta(seconds=20), **{FORMULA: watts, "寝室": 500.0})
    with Store.open(folder / "readings.sqlite") as store:
        filled = [
            Row(NOON + 3 * MINUTE, "total", name, value, "kW", 1800)
            for name, value in (("総消費電力", 2.0), ("売買電力", -2.0))
        ]
        store.upsert(frame(filled))
        store.record_circuits([Circuit("7", FORMULA), Circuit("8", "寝室"), Circuit("9", "寝室")], NOON)
    (folder / "first_partition").write_text(hour_key(NOON))
    store_energy(
        folder, hours_of_day(DAY), consumption=1000, bought=1000, sold=0, generation=0, usage_7=600, usage_8=100
    )
    # Only a part of the next day, whose total the device has.
    store_energy(folder, hours_of_day(DAY + timedelta(days=1), 2), consumption=1000, bought=900)
    with EnergyStore.open(folder / "energy.sqlite") as store:
        total = Row(day_start(DAY + timedelta(days=1)), "daily_total", "使用電力量(kWh)", 17.5, "kWh", 86_400)
        cost = [Row(hour, "cost", "bought", 30.0, "yen", 3600) for hour in hours_of_day(DAY)]
        store.upsert(energy.frame([total, *cost]))
    (folder / "tariff.toml").write_text(TARIFF, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    with served(folder, HOME | INFLUX | {"AISEG2_TARIFF": str(folder / "tariff.toml")}) as page:
        yield page


def test_a_series_has_a_value_a_minute_null_where_one_is_missing_and_the_interval_of_a_filled_one(
    page: Page,
) -> None:
    query = {"kind": "total", "name": "総消費電力", "start": iso(NOON), "end": iso(NOON + 5 * MINUTE)}
    content = page.api("series", **query)
    assert (content["unit"], content["step_s"], content["next"]) == ("kW", 60, None)
    assert content["time"][:2] == ["2026-07-14T12:00:00+09:00", "2026-07-14T12:01:00+09:00"]
    assert content["mean"] == [1.5, 3.5, None, 2.0, None]
    assert content["interval_s"] == [0, 0, None, 1800, None]
    # A `+` that a script does not encode is a space.
    unencoded = page.get(
        "/api/v1/series?kind=total&name=総消費電力&start=2026-07-14T12:00:00+09:00&points=1"
    ).json()
    assert unencoded["mean"][0] == pytest.approx(7 / 3, abs=0.001)
    assert (unencoded["min"][0], unencoded["max"][0]) == (1.5, 3.5)


def test_a_long_range_comes_in_pieces_that_join_without_a_gap(page: Page) -> None:
    content = page.api("series", kind="total", name="総消費電力", start="2026-07-10", end="2026-07-25", step=60)
    pieces = [content["time"]]
    while content["next"]:
        content = page.get(content["next"]).json()
        pieces.append(content["time"])
    times = [datetime.fromisoformat(time) for piece in pieces for time in piece]
    assert len(pieces) > 1
    assert times == [day_start(date(2026, 7, 10)) + n * MINUTE for n in range(15 * 1440)]


def test_all_series_of_a_kind_share_their_times_and_hours_are_summaries(page: Page) -> None:
    content = page.api("series", kind="usage", start="2026-07-14", end="2026-07-15", step=3600)
    assert len(content["time"]) == 24
    means = {one["name"]: one["mean"][12] for one in content["series"]}
    assert means == {FORMULA: 2000.0, "寝室": 500.0}
    assert {one["name"]: one["hue"] for one in content["series"]} == {FORMULA: None, "寝室": None}


def test_energy_is_the_sum_of_hours_or_the_device_s_own_total_of_a_day_without_all_of_them(page: Page) -> None:
    content = page.api("energy", by="day", start="2026-07-13", end="2026-07-16", circuits=1)
    assert content["consumption_kwh"] == [None, 24.0, 17.5]
    assert content["bought_kwh"] == [None, 24.0, None]
    assert content["complete"] == [False, True, True]
    circuits = [(one["id"], one["name"], one["kwh"]) for one in content["circuits"]]
    assert circuits == [("7", FORMULA, [None, 14.4, None]), ("8", "寝室", [None, 2.4, None])]
    month = page.api("energy", by="month", start="2026-07", end="2026-08")
    assert (month["consumption_kwh"], month["complete"]) == ([41.5], [False])
    hours = page.api("energy", by="hour", start="2026-07-14", end="2026-07-15")
    assert hours["consumption_kwh"] == [1.0] * 24


def test_the_hours_of_today_without_energy_are_estimated_from_the_readings(tmp_path: Path) -> None:
    folder, now = tmp_path / "data", utc_now()
    # Two minutes that have ended, in one hour of today.
    for n in (1, 2):
        store_reading(folder, max(now - n * MINUTE, day_start(day_of(now))), 台所=3000.0)
    with served(folder) as page:
        content = page.api("energy", by="day")
    assert content["consumption_kwh"][0] == pytest.approx(0.1, abs=0.051)
    assert content["bought_kwh"] == content["consumption_kwh"]
    assert (content["complete"], content["estimated"]) == ([False], [True])


def test_cost_is_that_of_the_hours_and_by_month_the_bill(page: Page) -> None:
    content = page.api("cost", by="day", start="2026-07-14", end="2026-07-16")
    assert content["bought_yen"] == [720.0, None]
    assert content["missing_hours"] == [0, 24]
    month = page.api("cost", by="month", start="2026-07", end="2026-08")
    # The base fee, and 25.8 kWh at 30 yen.
    assert (month["start"], month["total_yen"]) == (["2026-07-01T00:00:00+09:00"], [1774])
    assert [line["name"] for line in month["bill"][0]["lines"]] == ["flat: base fee", "all day"]
    assert month["missing_hours"] == [31 * 24 - 26]


def test_coverage_counts_the_minutes_since_the_record_began_but_those_that_a_person_removed(
    folder: Path, page: Page
) -> None:
    content = page.api("coverage", by="hour", start="2026-07-14T11:00", end="2026-07-14T14:00")
    counts = list(zip(content["read"], content["filled"], content["missing"], strict=True))
    assert counts == [(0, 0, 0), (2, 1, 57), (0, 0, 60)]
    days = page.api("coverage", by="day", start="2026-07-14", end="2026-07-15")
    assert (days["read"], days["filled"], days["missing"]) == ([2], [1], [12 * 60 - 3])
    with Store.open(folder / "readings.sqlite") as store:
        store.remove(NOON + 10 * MINUTE, NOON + 70 * MINUTE, utc_now())
    content = page.api("coverage", by="hour", start="2026-07-14T12:00", end="2026-07-14T14:00")
    assert content["missing"] == [7, 50]


def test_a_reading_of_the_running_minute_hides_no_missing_one(tmp_path: Path) -> None:
    for n in (0, 2):
        store_reading(tmp_path, NOON + n * MINUTE + timedelta(seconds=20), 寝室=500.0)
    settings = Settings.from_environment(
        {"AISEG2_HOST": "device", "AISEG2_PASSWORD": "p", "AISEG2_DATA_DIR": str(tmp_path)}
    )
    start_s = int(NOON.timestamp())
    content = coverage.coverage(Record(settings), "hour", start_s, start_s + 3600, start_s + 150)
    assert (content["read"], content["missing"]) == ([2], [1])


def test_the_summary_of_the_record_has_what_influxdb_has_yet_to_get(folder: Path, page: Page) -> None:
    before = page.api("record")
    assert before["first_hour"] == "2026-07-14T12:00:00+09:00"
    assert before["influxdb"]["configured"]
    assert before["influxdb"]["oldest"] == "2026-07-14T00:00:00+09:00"
    destination = Destination("influx:8086", "home", "b")
    with Store.open(folder / "readings.sqlite") as store:
        batch = store.pending_rows(destination, store.pending_hours(destination), 100)
        store.acknowledge(destination, batch, len(batch.frame))
    after = page.api("record")["influxdb"]["pending_hours"]
    assert after == before["influxdb"]["pending_hours"] - 1


def test_a_spreadsheet_computes_no_name_of_the_device(page: Page) -> None:
    answer = page.get("/api/v1/energy.csv", params={"start": "2026-07-14", "end": "2026-07-15", "circuits": 1})
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    header, row = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))
    assert header[0] == "start"
    assert f"'{FORMULA}" in header
    assert FORMULA not in header
    assert dict(zip(header, row, strict=True))[f"'{FORMULA}"] == "14.4"
    series = page.get(
        "/api/v1/series.csv", params={"kind": "usage", "start": "2026-07-14", "end": "2026-07-25", "step": 60}
    )
    assert "series.csv?" in series.links["next"]["url"]


@pytest.mark.parametrize(
    "path",
    [
        "series?kind=usage&step=60&points=10",
        "series?kind=total&name=総消費電力&step=3600&points=5000",
        "energy?by=hour&circuits=1",
        "cost?by=month",
        "coverage?by=hour",
    ],
)
def test_no_request_keeps_the_process_busy_for_long(page: Page, path: str) -> None:
    started = time.monotonic()
    assert page.get(f"/api/v1/{path}&start=2000-01-01&end=2099-12-31").status_code == 200
    # Without a limit, each of them takes minutes, or much memory.
    assert time.monotonic() - started < 15
    memory = Path(f"/proc/{page.process.pid}/status")
    if memory.exists():
        (peak_kb,) = re.findall(r"VmHWM:\s+([0-9]+)", memory.read_text())
        assert int(peak_kb) < 120_000


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("series?kind=total&name=nobody", 404, "`kind` and `name`"),
        ("series?kind=total&points=0", 400, "`points`"),
        ("series?kind=total&step=7", 400, "`step`"),
        ("energy?start=yesterday", 400, "`start`"),
        ("energy?start=9999-12-31", 400, "`start`"),
        ("energy?start=2026-07-15&end=2026-07-14", 400, "`end`"),
        ("energy?by=week", 400, "`by`"),
        ("nothing", 404, "no such page"),
    ],
)
def test_a_wrong_request_gets_one_sentence(page: Page, path: str, status: int, word: str) -> None:
    answer = page.get(f"/api/v1/{path}")
    assert answer.status_code == status
    assert word in answer.json()["error"]
    assert answer.json()["error"].endswith(".")


def test_a_wrong_tariff_is_one_sentence_and_no_tariff_as_well(tmp_path: Path) -> None:
    wrong = tmp_path / "tariff.toml"
    wrong.write_text("meter_day = 99", encoding="utf-8")
    with served(tmp_path / "data", HOME | {"AISEG2_TARIFF": str(wrong)}) as page:
        assert "line 1" in page.api("cost", 503, by="month")["error"]
    with served(tmp_path / "data") as page:
        assert "AISEG2_TARIFF" in page.api("cost", 404)["error"]


def test_the_openapi_document_describes_every_answer_and_its_columns(page: Page) -> None:
    document = page.api("openapi.json")
    assert document["openapi"].startswith("3.")
    queries: dict[str, dict[str, Any]] = {
        "now": {},
        "series": {"kind": "total", "name": "総消費電力", "start": "2026-07-14"},
        "energy": {"circuits": 1},
        "cost": {"by": "month", "start": "2026-07"},
        "coverage": {},
        "record": {},
    }
    assert {path.removeprefix("/api/v1/") for path in document["paths"]} == queries.keys()
    for name, query in queries.items():
        operation = document["paths"][f"/api/v1/{name}"]["get"]
        described = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
        assert page.api(name, **query).keys() <= described.keys()
        assert query.keys() <= {parameter["name"] for parameter in operation.get("parameters", ())}
