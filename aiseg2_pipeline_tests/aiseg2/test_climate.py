"""Page 41 and what becomes of it: a number is read in the one way there is, or told to be missing, and never 0."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.climate import climate_page
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Refused, Unreadable
from aiseg2_pipeline.aiseg2.models import ClimatePage, Room
from aiseg2_pipeline.frames.climate import frame
from aiseg2_pipeline.influxdb.line_protocol import climate_lines
from aiseg2_pipeline.ingest.climate import MAX_PAGES, ClimateReading, Sensors, read_climate
from aiseg2_pipeline_tests.support.device import CAPTURES, PASSWORD, SERVER_TIME, USER, Device, Page, serving

NOW = datetime(2026, 7, 13, 23, 15, 53, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
DOT = '<div class="num_dot"></div>'

CAPTURED = sorted(CAPTURES.glob("airenvironment_41*.html"))


def drawn(kind: str, text: str) -> str:
    """Return a number's elements; `.` draws the point, `_` an element without a digit."""
    return "".join(
        DOT if char == "." else f'<div id="{kind}_{n}" class="num{"" if char == "_" else f" no{char}"}"></div>'
        for n, char in enumerate(text, 1)
    )


def place(n: int, name: str, temperature: str, humidity: str) -> str:
    numbers = drawn(f"num_ond_{n}", temperature) + drawn(f"num_shitudo_{n}", humidity)
    return (
        f'<div id="base{n}_1" class=base><div class="txt_name">{name}</div>'
        f'<div class="num_wrapper"><div class="icon"></div>{numbers}</div></div>'
    )


def shown(places: str) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html><html><body class=pc>&nbsp;R&D
<script>TimeInfoVariable.serverTime = '{SERVER_TIME}';</script>{places}</body></html>""".encode()


def rooms_page(*rooms: tuple[str, str, str]) -> bytes:
    return shown("".join(place(n, *room) for n, room in enumerate(rooms, 1)))


def numbers(temperature: str, humidity: str) -> tuple[float | None, float | None]:
    (room,) = climate_page(rooms_page(("居間", temperature, humidity)), 1).rooms
    return room.temperature_c, room.humidity_percent


# The page


def test_each_room_is_read_with_its_name_and_the_devices_clock() -> None:
    body = rooms_page(("リビング", "235", "48"), ("主寝室", "190", "60"), ("R&amp;D", "087", "9"))
    assert climate_page(body, 1) == ClimatePage(
        (Room("リビング", 23.5, 48), Room("主寝室", 19.0, 60), Room("R&D", 8.7, 9)), (), NOW
    )


@pytest.mark.parametrize(
    ("text", "percent"),
    [("48", 48), ("5", 5), ("048", 48), ("100", 100), ("48.5", 48.5), ("100.0", 100), ("0", 0), ("485", 48.5)],
)
def test_humidity_is_whole_percent_or_has_tenths_where_it_would_be_over_100(text: str, percent: float) -> None:
    assert numbers("235", text)[1] == percent


@pytest.mark.parametrize(("text", "celsius"), [("23.5", 23.5), ("8.7", 8.7), ("08.7", 8.7), ("000", 0)])
def test_a_point_that_is_drawn_counts(text: str, celsius: float) -> None:
    assert numbers(text, "48")[0] == celsius


@pytest.mark.parametrize("text", ["", "___", "__._"])
def test_a_sensor_that_shows_no_digit_tells_nothing(text: str) -> None:
    assert numbers(text, "48") == (None, 48)
    assert numbers("235", text) == (23.5, None)
    assert climate_page(rooms_page(("居間", text, "48")), 1).problems == ()


@pytest.mark.parametrize("text", ["23", "2351", "_87", "23.", "2.3.5", "100.0", "2"])
def test_a_temperature_that_can_be_read_in_two_ways_is_left_out_and_named(text: str) -> None:
    page = climate_page(rooms_page(("居間", text, "48"), ("寝室", "190", "60")), 2)
    assert page.rooms == (Room("居間", None, 48), Room("寝室", 19.0, 60))
    (problem,) = page.problems
    assert "41?page=2" in problem
    assert "`#base1_1 [id^=num_ond_]`" in problem


@pytest.mark.parametrize("text", ["1000", "101.0", "4_", "4.8.1"])
def test_a_humidity_that_is_none_is_left_out_and_named(text: str) -> None:
    page = climate_page(rooms_page(("寝室", "190", "60"), ("居間", "235", text)), 1)
    assert page.rooms == (Room("寝室", 19.0, 60), Room("居間", 23.5, None))
    assert "`#base2_1 [id^=num_shitudo_]`" in page.problems[0]


@pytest.mark.parametrize("style", ["visibility:hidden", "visibility: Hidden;", "color:red;display: none"])
def test_what_is_hidden_is_not_shown(style: str) -> None:
    hidden = f'<div style="{style}">{drawn("num_shitudo_1", "00")}</div>'
    body = rooms_page(("居間", "235", "")).replace(
        b"</div></div></body>", hidden.encode() + b"</div></div></body>"
    )
    assert b"num_shitudo_1" in body
    assert climate_page(body, 1).rooms == (Room("居間", 23.5, None),)


def test_a_page_that_is_hidden_while_it_loads_is_read_all_the_same() -> None:
    body = shown(f'<div style="visibility:hidden">{place(1, "居間", "235", "48")}</div>')
    assert climate_page(body, 1).rooms == (Room("居間", 23.5, 48),)


def test_a_name_is_whole_where_the_page_wraps_it_and_has_no_control_characters() -> None:
    body = rooms_page(("\n主寝室と<br />書斎\n", "235", "48"), ("子\x07供", "190", "60"))
    assert [room.name for room in climate_page(body, 1).rooms] == ["主寝室と書斎", "子 供"]


@pytest.mark.parametrize("places", ["", place(1, "", "", ""), place(1, "&nbsp;", "", "")])
def test_a_page_without_a_room_has_none(places: str) -> None:
    assert climate_page(shown(places), 1).rooms == ()


@pytest.mark.parametrize(
    ("places", "element"),
    [
        (place(1, "", "235", "48"), "#base1_1 .txt_name"),
        ('<div id="base1_1"><div class="txt_name">居間</div></div>', "#base1_1 .num_wrapper"),
        (place(1, "居間", "23", "4_"), "#base1_1 [id^=num_ond_]"),
    ],
)
def test_a_page_whose_rooms_cannot_be_read_is_refused_with_the_element(places: str, element: str) -> None:
    with pytest.raises(Unreadable) as raised:
        climate_page(shown(places), 1)
    assert element in str(raised.value)
    assert_is_one_sentence(str(raised.value))


@pytest.mark.parametrize("body", [b"", b"<html>", rooms_page(("a", "235", "48"))[:-9], b"\xff</html>"])
def test_what_is_no_whole_page_is_refused(body: bytes) -> None:
    with pytest.raises(Unreadable):
        climate_page(body, 1)


@pytest.mark.skipif(not CAPTURED, reason="no capture of page 41 of a real unit is here")
@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.name)
def test_a_captured_page_is_read_without_a_problem(path: Path) -> None:
    page = climate_page(path.read_bytes(), 1)
    assert page.problems == ()
    assert all(room.temperature_c is not None or room.humidity_percent is not None for room in page.rooms)


def assert_is_one_sentence(text: str) -> None:
    assert text.endswith(".")
    assert text.isprintable()
    assert len(text) < 300


def assert_sane(page: ClimatePage) -> None:
    assert len(page.rooms) <= 3
    for room in page.rooms:
        assert room.temperature_c is None or 0 <= room.temperature_c < 100
        assert room.humidity_percent is None or 0 <= room.humidity_percent <= 100
    for problem in page.problems:
        assert_is_one_sentence(problem)
    rows = frame(NOW, page.rooms)
    "\n".join(line for row in climate_lines(rows) for line in row).encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"</html>", b"<html></html>"]))
def test_arbitrary_bytes_give_a_page_or_an_error_of_ours(body: bytes, end: bytes) -> None:
    try:
        assert_sane(climate_page(body + end, 1))
    except Aiseg2Error as error:
        assert_is_one_sentence(str(error))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_a_spoiled_page_gives_a_page_or_an_error_of_ours(data: st.DataObject) -> None:
    page = bytearray(rooms_page(("リビング", "235", "48"), ("寝室", "19.0", "60"), ("R&D", "___", "100")))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(page) - 1))
        end = start + data.draw(st.integers(1, 80))
        kind = data.draw(st.sampled_from(["flip", "delete", "double", "insert"]))
        if kind == "flip":
            page[start] ^= 1 << data.draw(st.integers(0, 7))
        elif kind == "delete":
            del page[start:end]
            page = page or bytearray(b"-")
        elif kind == "double":
            page[end:end] = page[start:end]
        else:
            page[start:start] = data.draw(st.sampled_from([b"\0", b"\xff", b"<", b'"', b"9", b"<div>", b"&#0;"]))
    try:
        assert_sane(climate_page(bytes(page), 1))
    except Aiseg2Error as error:
        assert_is_one_sentence(str(error))


@pytest.mark.parametrize("chunk", [b"<div>", b'<b class="num_dot" id="num_ond_1"></b>', b"</div>"])
def test_a_page_of_many_elements_is_read_or_refused(chunk: bytes) -> None:
    inside = b'<div class="num_wrapper">' + chunk * 6_000
    body = rooms_page(("居間", "235", "48")).replace(b'<div class="num_wrapper">', inside)
    try:
        assert_sane(climate_page(body, 1))
    except Unreadable as error:
        assert_is_one_sentence(str(error))


# The frame


def rows_of(table: pd.DataFrame) -> list[tuple[str, str, float, str]]:
    return list(
        zip(table["kind"], table["name"], table["value"].tolist(), table["unit"], strict=True),
    )


def test_a_reading_is_a_row_for_each_number_that_was_told() -> None:
    table = frame(NOW + timedelta(milliseconds=900), [Room("居間", 23.5, 48), Room("寝室", None, 60)])
    assert rows_of(table) == [
        ("temperature", "居間", 23.5, "℃"),
        ("humidity", "居間", 48.0, "%"),
        ("humidity", "寝室", 60.0, "%"),
    ]
    assert set(table["time"]) == {pd.Timestamp(NOW)}
    assert set(table["interval_s"]) == {0}


def test_rooms_of_one_name_stay_apart() -> None:
    rooms = [Room(name, 20.0 + n, None) for n, name in enumerate(["洋室", "洋室", "洋室 (2)", "洋室"])]
    table = frame(NOW, rooms)
    assert dict(zip(table["name"], table["value"], strict=True)) == {
        "洋室": 20,
        "洋室 (3)": 21,
        "洋室 (2)": 22,
        "洋室 (4)": 23,
    }


def test_a_point_is_what_the_wider_forwarder_writes() -> None:
    lines = climate_lines(frame(NOW, [Room("主 寝室,=", 23.5, 48)]))
    assert lines == [
        (f"climate,detail-section=主\\ 寝室\\,\\=,detail-type=temperature value=23.5 {1783984553}000000000",),
        (f"climate,detail-section=主\\ 寝室\\,\\=,detail-type=humidity value=48.0 {1783984553}000000000",),
    ]


# A reading of all pages


def path(page: int) -> str:
    return f"GET /page/airenvironment/41?page={page}"


def home(rooms: Sequence[tuple[str, str, str]]) -> dict[str, Page]:
    return {path(n // 3 + 1): rooms_page(*rooms[n : n + 3]) for n in range(0, len(rooms), 3)}


def named(count: int) -> list[tuple[str, str, str]]:
    return [(f"部屋{n}", f"{200 + n}", "50") for n in range(count)]


def sensors_of(device: Device, folder: Path) -> Sensors:
    return Sensors(folder, device.address)


def read(device: Device, folder: Path, now: datetime = NOW, password: str = PASSWORD) -> ClimateReading:
    with Aiseg2Client(
        device.address, USER, password, state_dir=folder, clock=lambda: now, slot="background"
    ) as client:
        return read_climate(client, sensors_of(device, folder), lambda: now)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7])
def test_every_room_is_read_with_one_request_a_page(tmp_path: Path, count: int) -> None:
    with serving(home(named(count))) as device:
        read(device, tmp_path)
        device.asked.clear()
        reading = read(device, tmp_path)
        assert device.requests == reading.requests == -(-count // 3)
    assert [room.name for room in reading.rooms] == [name for name, _, _ in named(count)]
    assert reading.problems == ()
    assert reading.answered_at == NOW
    assert reading.clock_offset_s == 0


@pytest.mark.parametrize("after", [None, shown(""), "again"])
@pytest.mark.parametrize("count", [3, 6])
def test_the_page_after_the_last_ends_the_rooms_whatever_it_is(
    tmp_path: Path, count: int, after: bytes | str | None
) -> None:
    pages = home(named(count))
    last = count // 3
    if after == "again":
        # With other numbers by now.
        pages[path(last + 1)] = rooms_page(*((name, "111", "11") for name, _, _ in named(count)[-3:]))
    elif isinstance(after, bytes):
        pages[path(last + 1)] = after
    with serving(pages) as device:
        reading = read(device, tmp_path)
    assert [room.name for room in reading.rooms] == [name for name, _, _ in named(count)]
    assert reading.problems == ()


def test_a_page_that_fails_does_not_cost_the_rooms_before_it(tmp_path: Path) -> None:
    with serving(home(named(3)) | {path(2): b"<html>"}) as device:
        reading = read(device, tmp_path)
    assert len(reading.rooms) == 3
    assert "41?page=2" in reading.problems[0]


def test_a_device_without_end_is_asked_for_a_bounded_number_of_pages(tmp_path: Path) -> None:
    pages: dict[str, Page] = {
        path(n): rooms_page(*((f"{n} {m}", "200", "50") for m in range(3))) for n in range(1, 50)
    }
    with serving(pages) as device:
        assert len(read(device, tmp_path).rooms) == 3 * MAX_PAGES


# When it is asked


def test_a_device_is_asked_at_once_and_with_rooms_every_time(tmp_path: Path) -> None:
    with serving(home(named(2))) as device:
        sensors = sensors_of(device, tmp_path)
        assert sensors.due(NOW)
        read(device, tmp_path)
        assert sensors.due(NOW + 5 * MINUTE)
        assert sensors.due(NOW + 3 * DAY)


@pytest.mark.parametrize("page", [None, shown(""), b"<html>half a page"])
def test_a_device_without_rooms_is_asked_once_a_day(tmp_path: Path, page: bytes | None) -> None:
    with serving({} if page is None else {path(1): page}) as device:
        with pytest.raises((NoData, Unreadable)):
            read(device, tmp_path)
        sensors = sensors_of(device, tmp_path)
        assert not sensors.due(NOW + 5 * MINUTE)
        assert not sensors.due(NOW + DAY - MINUTE)
        assert sensors.due(NOW + DAY)


def test_a_device_that_gave_no_answer_is_asked_again_after_an_hour(tmp_path: Path) -> None:
    with serving(home(named(2))) as device:
        with pytest.raises(Refused):
            read(device, tmp_path, password="wrong")
        sensors = sensors_of(device, tmp_path)
        assert not sensors.due(NOW + 55 * MINUTE)
        assert sensors.due(NOW + HOUR)


def test_sensors_that_are_lost_for_a_moment_are_asked_on_and_given_up_after_a_day(tmp_path: Path) -> None:
    pages = home(named(2))
    with serving(pages) as device:
        read(device, tmp_path)
        pages[path(1)] = shown("")
        sensors = sensors_of(device, tmp_path)
        for later in (5 * MINUTE, 23 * HOUR):
            assert sensors.due(NOW + later)
            with pytest.raises(NoData):
                read(device, tmp_path, NOW + later)
        assert not sensors.due(NOW + 30 * HOUR)
        assert sensors.due(NOW + 47 * HOUR)


def test_another_device_and_a_clock_that_was_wrong_do_not_keep_it_from_being_asked(tmp_path: Path) -> None:
    with serving({}) as device:
        with pytest.raises(NoData):
            read(device, tmp_path, NOW + 400 * DAY)
        assert not sensors_of(device, tmp_path).due(NOW + 400 * DAY + HOUR)
        assert sensors_of(device, tmp_path).due(NOW)
        assert Sensors(tmp_path, "http://192.168.0.99").due(NOW + 400 * DAY + HOUR)


@pytest.mark.parametrize("text", ["", "[]", '{"device": 5}', "\x00", '{"ask_at": "tomorrow", "seen_at": null}'])
def test_a_note_that_cannot_be_read_costs_one_request(tmp_path: Path, text: str) -> None:
    (tmp_path / "climate.json").write_text(text)
    assert Sensors(tmp_path, "http://192.168.0.216").due(NOW)
