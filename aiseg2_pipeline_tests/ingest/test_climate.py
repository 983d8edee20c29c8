"""Reading the rooms' climate: which pages are requested, when, and what a failure changes."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import NoData, Refused, Unreadable
from aiseg2_pipeline.aiseg2.models import Room
from aiseg2_pipeline.frames.climate import frame
from aiseg2_pipeline.influxdb.line_protocol import climate_lines
from aiseg2_pipeline.ingest.climate import MAX_PAGES, ClimateReading, Sensors, read_climate
from aiseg2_pipeline_tests.support.device import PASSWORD, USER, Answer, Device, Page, serving
from aiseg2_pipeline_tests.support.device_pages import climate_page, rooms_page, rooms_page_43

NOW = datetime(2026, 7, 13, 23, 15, 53, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
LAYOUTS = {41: rooms_page, 43: rooms_page_43}


def path(page: int, source: int = 41) -> str:
    return f"GET /page/airenvironment/{source}?page={page}"


def home(rooms: Sequence[tuple[str, str, str]], source: int = 41) -> dict[str, Page]:
    return {path(n // 3 + 1, source): LAYOUTS[source](*rooms[n : n + 3]) for n in range(0, len(rooms), 3)}


def named(count: int) -> list[tuple[str, str, str]]:
    return [(f"部屋{n}", f"{200 + n}", "50") for n in range(count)]


def sensors_of(device: Device, folder: Path) -> Sensors:
    return Sensors(folder, device.address)


def read(device: Device, folder: Path, now: datetime = NOW, password: str = PASSWORD) -> ClimateReading:
    with Aiseg2Client(
        device.address, USER, password, state_dir=folder, clock=lambda: now, slot="background"
    ) as client:
        return read_climate(client, sensors_of(device, folder), lambda: now)


@pytest.mark.parametrize("after", ["not served", "empty", "the last one again"])
@pytest.mark.parametrize("count", [1, 3, 5, 6])
@pytest.mark.parametrize("source", [41, 43])
def test_every_room_is_read_up_to_the_last_page(tmp_path: Path, source: int, count: int, after: str) -> None:
    pages, last = home(named(count), source), -(-count // 3)
    if after == "the last one again":
        # With other numbers by now.
        again = LAYOUTS[source](*((name, "111", "11") for name, _, _ in named(count)[-3:]))
        pages[path(last + 1, source)] = again
    elif after == "empty":
        pages[path(last + 1, source)] = climate_page("")
    with serving(pages) as device:
        reading = read(device, tmp_path)
        # One request for the login, one for page 43 where it is not served, and one to see the end where the last page is full.
        assert device.requests == reading.requests == 1 + (source == 41) + last + (count % 3 == 0)
    assert [room.name for room in reading.rooms] == [name for name, _, _ in named(count)]
    assert (reading.problems, reading.answered_at, reading.clock_offset_s) == ((), NOW, 0)


def test_a_page_that_fails_keeps_the_rooms_before_it(tmp_path: Path) -> None:
    with serving(home(named(3)) | {path(2): b"<html>"}) as device:
        reading = read(device, tmp_path)
    assert len(reading.rooms) == 3
    assert "41?page=2" in reading.problems[0]


def test_the_number_of_requested_pages_is_limited(tmp_path: Path) -> None:
    pages: dict[str, Page] = {
        path(n): rooms_page(*((f"{n} {m}", "200", "50") for m in range(3))) for n in range(1, 50)
    }
    with serving(pages) as device:
        assert len(read(device, tmp_path).rooms) == 3 * MAX_PAGES


# When it is requested


@pytest.mark.parametrize("page_43", [None, climate_page(""), b"<html>half a page", Answer(b"", 500)])
def test_page_41_is_read_where_page_43_has_no_rooms_which_is_requested_once_a_day(
    tmp_path: Path, page_43: Page | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiseg2_pipeline.ingest.climate.READING_TIMEOUT_S", 2)
    pages = home(named(2)) | ({} if page_43 is None else {path(1, 43): page_43})
    with serving(pages) as device:
        asked: list[list[str]] = []
        for later in (0 * MINUTE, 5 * MINUTE, 23 * HOUR, DAY, DAY + 5 * MINUTE):
            device.log.clear()
            assert len(read(device, tmp_path, NOW + later).rooms) == 2
            asked.append(list(dict.fromkeys(line for line, _ in device.log)))
    assert asked == [[path(1, 43), path(1)], [path(1)], [path(1)], [path(1, 43), path(1)], [path(1)]]


def test_page_43_alone_is_read_where_it_has_rooms(tmp_path: Path) -> None:
    pages = home(named(2)) | home([("屋外", "-2.6", "63")], 43)
    with serving(pages) as device:
        for later in (0 * MINUTE, 5 * MINUTE, 23 * HOUR, 46 * HOUR):
            assert read(device, tmp_path, NOW + later).rooms == (Room("屋外", -2.6, 63),)
        # A single bad response does not change the series.
        pages[path(1, 43)] = b"<html>half a page"
        with pytest.raises(Unreadable):
            read(device, tmp_path, NOW + 47 * HOUR)
        assert {line for line, _ in device.log} == {path(1, 43)}
        assert [room.name for room in read(device, tmp_path, NOW + 70 * HOUR).rooms] == ["部屋0", "部屋1"]


def test_a_device_with_rooms_is_read_every_time(tmp_path: Path) -> None:
    with serving(home(named(2))) as device:
        sensors = sensors_of(device, tmp_path)
        assert sensors.due(NOW)
        read(device, tmp_path)
        assert all(sensors.due(NOW + later) for later in (5 * MINUTE, 3 * DAY))


@pytest.mark.parametrize("page", [None, climate_page(""), b"<html>half a page"])
def test_a_device_without_rooms_is_read_once_a_day(tmp_path: Path, page: bytes | None) -> None:
    with serving({} if page is None else {path(1): page}) as device:
        with pytest.raises((NoData, Unreadable)):
            read(device, tmp_path)
        sensors = sensors_of(device, tmp_path)
        assert not sensors.due(NOW + 5 * MINUTE)
        assert not sensors.due(NOW + DAY - MINUTE)
        assert sensors.due(NOW + DAY)


def test_a_device_that_failed_is_read_again_after_an_hour(tmp_path: Path) -> None:
    with serving(home(named(2))) as device:
        with pytest.raises(Refused):
            read(device, tmp_path, password="wrong")
        sensors = sensors_of(device, tmp_path)
        assert not sensors.due(NOW + 55 * MINUTE)
        assert sensors.due(NOW + HOUR)


def test_lost_sensors_are_read_for_a_day_before_they_are_given_up(tmp_path: Path) -> None:
    pages = home(named(2))
    with serving(pages) as device:
        read(device, tmp_path)
        pages[path(1)] = climate_page("")
        sensors = sensors_of(device, tmp_path)
        for later in (5 * MINUTE, 23 * HOUR):
            assert sensors.due(NOW + later)
            with pytest.raises(NoData):
                read(device, tmp_path, NOW + later)
        assert not sensors.due(NOW + 30 * HOUR)
        assert sensors.due(NOW + 47 * HOUR)


def test_another_device_or_a_corrected_clock_is_read_at_once(tmp_path: Path) -> None:
    with serving({}) as device:
        with pytest.raises(NoData):
            read(device, tmp_path, NOW + 400 * DAY)
        assert not sensors_of(device, tmp_path).due(NOW + 400 * DAY + HOUR)
        assert sensors_of(device, tmp_path).due(NOW)
        assert Sensors(tmp_path, "http://192.168.0.99").due(NOW + 400 * DAY + HOUR)


@pytest.mark.parametrize("text", ["", "[]", '{"device": 5}', "\x00", '{"ask_at": "tomorrow", "seen_at": null}'])
def test_an_unreadable_state_file_costs_one_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "climate.json").write_text(text)
    assert Sensors(tmp_path, "http://192.168.0.216").due(NOW)


def test_a_point_has_the_series_of_the_wider_forwarder() -> None:
    lines = climate_lines(frame(NOW, [Room("主 寝室,=", -2.6, 48)]))
    assert lines == [
        (f"climate,detail-section=主\\ 寝室\\,\\=,detail-type=temperature value=-2.6 {1783984553}000000000",),
        (f"climate,detail-section=主\\ 寝室\\,\\=,detail-type=humidity value=48.0 {1783984553}000000000",),
    ]
