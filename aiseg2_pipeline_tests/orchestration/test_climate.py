"""The climate of the rooms from the device's page to a real InfluxDB, run by Dagster, and a home without sensors."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from dagster import ExecuteInProcessResult, RunRequest

from aiseg2_pipeline.aiseg2.climate import ClimateSource, climate_page
from aiseg2_pipeline.aiseg2.models import Room
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.climate import frame
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.orchestration.keys import CLIMATE, INFLUXDB_CLIMATE
from aiseg2_pipeline.store import ClimateStore
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.pipeline import DAY, HOUR, MINUTE, failure
from aiseg2_pipeline_tests.support.simulated_pipeline import (
    NIGHT,
    NOW,
    DatedPipeline,
    SimulatedPipeline,
    dated_pipeline,
    simulated_pipeline,
)
from aiseg2_pipeline_tests.support.simulator_client import JAPAN, Unit, simulated

PAGE = ClimateSource.PAGE_43.value
KEY_TODAY, KEY_YESTERDAY = "2026-07-14", "2026-07-13"
ROOMS = ("居間", "主寝室", "子供部屋", "屋外")
FROST = datetime(2026, 2, 1, 5, 0, 5, tzinfo=JAPAN).astimezone(UTC)
# A backslash at the end would be the escape of what follows it.
AWKWARD = ('a,b=c "d" \'', "絵文字🔌 室", "\\居間\\x", "<b>&amp;")


@pytest.fixture
def pipeline(tmp_path: Path, influx: Influx) -> Iterator[SimulatedPipeline]:
    """A home with four rooms, two pages, that writes to an empty bucket of the real server."""
    with simulated_pipeline(tmp_path, influx.settings, rooms=ROOMS) as writing:
        yield writing


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[SimulatedPipeline]:
    """The same home without an InfluxDB."""
    with simulated_pipeline(tmp_path, {}, rooms=ROOMS) as pipeline:
        yield pipeline


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[SimulatedPipeline]:
    """A home without sensors."""
    with simulated_pipeline(tmp_path, {}, rooms=()) as pipeline:
        yield pipeline


@pytest.fixture
def aging(tmp_path: Path) -> Iterator[DatedPipeline]:
    with dated_pipeline(tmp_path, rooms=ROOMS) as pipeline:
        yield pipeline


def read(
    pipeline: SimulatedPipeline, now: datetime = NOW, tags: Mapping[str, str] | None = None
) -> ExecuteInProcessResult:
    pipeline.set_clock(now)
    return pipeline.run("climate_rooms", now.astimezone(JAPAN).strftime("%Y-%m-%d"), **(tags or {}))


def stored(pipeline: SimulatedPipeline) -> pd.DataFrame:
    with ClimateStore.open(pipeline.settings.climate_path) as store:
        return store.read(NOW - 50 * DAY, NOW + 50 * DAY).sort_values(KEY, ignore_index=True)


def shown_rooms(unit: Unit, source: ClimateSource = ClimateSource.PAGE_43) -> list[Room]:
    answers = (unit.get(source.value, page=str(n)) for n in (1, 2))
    return [room for n, answer in enumerate(answers, 1) for room in climate_page(answer.content, n, source).rooms]


def page_requests(pipeline: SimulatedPipeline) -> int:
    """Return how often page 43 was requested, without the login."""
    return pipeline.requests(PAGE) - pipeline.unit.served.tally.refused


def in_influx(influx: Influx) -> list[tuple[datetime, str, str, float]]:
    rows = influx.points("climate")
    return sorted((row["time"], row["detail-type"], row["detail-section"], row["value"]) for row in rows)


def as_points(table: pd.DataFrame) -> list[tuple[datetime, str, str, float]]:
    times = table["time"].dt.to_pydatetime()
    return sorted(zip(times, table["kind"], table["name"], table["value"].tolist(), strict=True))


# A home with sensors


def test_every_room_of_every_page_is_stored_at_the_time_of_its_reading_and_written(
    pipeline: SimulatedPipeline, influx: Influx
) -> None:
    expected = []
    for time in (NOW, NOW + 5 * MINUTE, NOW + 10 * MINUTE):
        assert read(pipeline, time).success
        expected.append(frame(time, shown_rooms(pipeline.unit)))
    table = stored(pipeline)
    pd.testing.assert_frame_equal(table, pd.concat(expected).sort_values(KEY, ignore_index=True))
    assert len(table) == 3 * 2 * len(ROOMS)
    assert in_influx(influx) == as_points(table)
    assert pipeline.green(CLIMATE) == pipeline.green(INFLUXDB_CLIMATE) == {KEY_TODAY}
    metadata = pipeline.metadata(CLIMATE, KEY_TODAY)
    assert (metadata["readings"], metadata["rows"]) == (3, 24)
    assert [record.data["room"] for record in metadata["rooms"]] == list(ROOMS)


def test_a_temperature_below_zero_is_stored_and_written(tmp_path: Path, influx: Influx) -> None:
    with simulated_pipeline(tmp_path, influx.settings, rooms=["屋外"]) as pipeline:
        assert read(pipeline, FROST).success
        shown = shown_rooms(pipeline.unit, ClimateSource.PAGE_41)[0]
        assert shown.temperature_c is not None
        assert shown.temperature_c < 0
        with ClimateStore.open(pipeline.settings.climate_path) as store:
            table = store.read(FROST, FROST + MINUTE)
        assert set(table["value"]) == {shown.temperature_c, shown.humidity_percent}
        assert in_influx(influx) == as_points(table)


def test_influxdb_returns_names_with_any_characters(tmp_path: Path, influx: Influx) -> None:
    with simulated_pipeline(tmp_path, influx.settings, rooms=AWKWARD) as pipeline:
        assert read(pipeline).success
        assert set(stored(pipeline)["name"]) == set(AWKWARD)
        assert in_influx(influx) == as_points(stored(pipeline))


def test_rows_that_influxdb_did_not_accept_are_written_later(pipeline: SimulatedPipeline, influx: Influx) -> None:
    influx.server.drop_bucket(influx.bucket)
    result = read(pipeline)
    assert "INFLUXDB_BUCKET" in failure(result)
    assert (pipeline.green(CLIMATE), pipeline.green(INFLUXDB_CLIMATE)) == ({KEY_TODAY}, set())
    influx.server.create_bucket(influx.bucket)
    assert read(pipeline, NOW + DAY).success
    assert in_influx(influx) == as_points(stored(pipeline))
    assert pipeline.green(INFLUXDB_CLIMATE) == {KEY_TODAY, "2026-07-15"}


def test_resend_writes_all_rows_to_an_emptied_bucket(
    pipeline: SimulatedPipeline, influx: Influx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(pipeline).success
    influx.empty()
    ended = CliRunner().invoke(main, ["resend"], env=pipeline.environment)
    assert ended.exit_code == 0, ended.output
    assert read(pipeline, NOW + 5 * MINUTE).success
    assert in_influx(influx) == as_points(stored(pipeline))
    assert len(stored(pipeline)) == 16


def test_without_an_influxdb_the_rows_are_only_stored(alone: SimulatedPipeline) -> None:
    assert read(alone).success
    assert len(stored(alone)) == 8
    assert (alone.green(CLIMATE), alone.green(INFLUXDB_CLIMATE)) == ({KEY_TODAY}, set())


def test_a_refused_login_is_one_sentence(alone: SimulatedPipeline) -> None:
    with alone.refused():
        result = read(alone)
    assert "AISEG2_PASSWORD" in failure(result)
    assert "Traceback" not in failure(result)
    assert alone.green(CLIMATE) == set()


def test_a_reading_before_the_last_one_is_stored_only_where_the_devices_clock_agrees(
    alone: SimulatedPipeline,
) -> None:
    assert read(alone).success
    alone.now = NOW - HOUR
    assert alone.run("climate_rooms", KEY_TODAY).success
    assert len(stored(alone)) == 8
    alone.unit.set_clock(NOW - HOUR)
    assert alone.run("climate_rooms", KEY_TODAY).success
    assert len(stored(alone)) == 16


# Partitions materialized by hand


def test_a_past_day_costs_no_request_and_is_green_only_with_rows(
    pipeline: SimulatedPipeline, influx: Influx
) -> None:
    assert read(pipeline, NOW - DAY).success
    pipeline.set_clock(NOW)
    requests = pipeline.requests()
    assert pipeline.run("climate_rooms", "2026-07-12").success
    assert pipeline.run("climate_rooms", KEY_YESTERDAY).success
    assert pipeline.requests() == requests
    assert pipeline.green(CLIMATE) == pipeline.green(INFLUXDB_CLIMATE) == {KEY_YESTERDAY}
    assert in_influx(influx) == as_points(stored(pipeline))


def test_in_a_range_today_is_read_and_only_days_with_rows_are_green(alone: SimulatedPipeline) -> None:
    assert read(alone, NOW - 2 * DAY).success
    alone.set_clock(NOW)
    assert alone.run("climate_rooms", "2026-07-11", KEY_TODAY).success
    assert alone.green(CLIMATE) == {"2026-07-12", KEY_TODAY}
    assert len(stored(alone)) == 16


# A home without sensors


def test_a_home_without_sensors_costs_one_request_and_one_run_a_day(bare: SimulatedPipeline) -> None:
    runs = 0
    for n in range(2 * 288):
        planned = NOW.replace(minute=2, second=0) + n * 5 * MINUTE
        request = bare.tick("climate_every_five_minutes", planned)
        if isinstance(request, RunRequest):
            runs += 1
            assert read(bare, planned + timedelta(seconds=4), request.tags).success
        else:
            assert "no room with a sensor" in request
    assert (runs, page_requests(bare)) == (2, 2)
    assert bare.green(CLIMATE) == set()
    assert stored(bare).empty


def test_queued_runs_of_the_schedule_send_one_request(bare: SimulatedPipeline) -> None:
    scheduled = {"dagster/schedule_name": "climate_every_five_minutes"}
    for _ in range(3):
        assert read(bare, tags=scheduled).success
    assert page_requests(bare) == 1
    # A person who starts a run may have just put up a sensor.
    assert read(bare).success
    assert page_requests(bare) == 2


# Deleted runs


def test_the_runs_of_a_closed_day_are_deleted(aging: DatedPipeline) -> None:
    for n in range(2):
        assert read(aging, NOW - DAY + n * 5 * MINUTE).success
    aging.close()
    aging.prune_history(NIGHT + 4 * DAY)
    assert aging.runs("climate_rooms") == set()
    assert aging.green_in_ui(CLIMATE) == {KEY_YESTERDAY}
    assert len(stored(aging)) == 16


def test_a_day_is_closed_in_influxdb_once_all_its_rows_are_acknowledged(
    alone: SimulatedPipeline, influx: Influx
) -> None:
    assert read(alone, NOW - DAY).success
    environment = {
        "AISEG2_HOST": alone.unit.served.address,
        "AISEG2_PASSWORD": alone.unit.served.password,
        "AISEG2_DATA_DIR": str(alone.settings.base_data_dir),
    } | influx.settings
    writing = SimulatedPipeline(environment, alone.unit, alone.instance)
    assert writing.execute("close_the_day", None, {}).success
    assert writing.green(INFLUXDB_CLIMATE) == set()
    with ClimateStore.open(writing.settings.climate_path) as store:
        batch = store.pending_rows(influx.destination, store.pending_hours(influx.destination), 100)
        assert len(batch.frame) == 8
        store.acknowledge(influx.destination, batch, len(batch.frame))
    assert writing.execute("close_the_day", None, {}).success
    assert writing.green(INFLUXDB_CLIMATE) == {KEY_YESTERDAY}


def test_asset_job_and_schedule_say_that_climate_is_not_verified(alone: SimulatedPipeline) -> None:
    assets = alone.definitions.resolve_asset_graph()
    descriptions = [
        assets.get(CLIMATE).description,
        alone.definitions.resolve_job_def("climate_rooms").description,
        alone.definitions.resolve_schedule_def("climate_every_five_minutes").description,
    ]
    assert all("Not verified on a real unit" in str(description) for description in descriptions)


# The simulated device


@pytest.mark.parametrize(("rooms", "pages"), [(ROOMS, [3, 1]), (ROOMS[:3], [3, 3]), ((), [0, 0])])
def test_the_simulator_shows_three_rooms_a_page_and_its_last_page_again(
    rooms: tuple[str, ...], pages: list[int]
) -> None:
    with simulated(NOW, rooms=rooms) as unit:
        for source in ClimateSource:
            shown = [climate_page(unit.get(source.value, page=str(n)).content, n, source) for n in (1, 2)]
            assert [len(page.rooms) for page in shown] == pages
            assert shown[0].device_time == NOW
        assert shown_rooms(unit) == shown_rooms(unit, ClimateSource.PAGE_41)


def test_the_simulated_climate_is_plausible_and_the_same_for_the_same_time() -> None:
    with simulated(NOW, rooms=ROOMS) as unit:
        rooms = [shown_rooms(unit)]
        for n in range(1, 366, 7):
            unit.set_clock(NOW + n * DAY + n * HOUR)
            rooms.append(shown_rooms(unit))
        unit.set_clock(NOW)
        assert shown_rooms(unit) == rooms[0]
    for room in (room for of_time in rooms for room in of_time if room.name != "屋外"):
        assert room.temperature_c is not None
        assert room.humidity_percent is not None
        assert 10 < room.temperature_c < 35
        assert 25 <= room.humidity_percent <= 85
    assert len({room.temperature_c for of_time in rooms for room in of_time}) > 30
