"""Pages 43 and 41: a number is read where there is one way to read it, or reported as a problem; it is never 0 instead."""

from datetime import UTC, datetime

import pytest

from aiseg2_pipeline.aiseg2 import climate
from aiseg2_pipeline.aiseg2.climate import ClimateSource
from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.models import ClimatePage, Room
from aiseg2_pipeline_tests.support.device_pages import (
    climate_page,
    number_elements,
    room_place,
    rooms_page,
    rooms_page_43,
)

NOW = datetime(2026, 7, 13, 23, 15, 53, tzinfo=UTC)
PAGE_41, PAGE_43 = ClimateSource.PAGE_41, ClimateSource.PAGE_43


def numbers(temperature: str, humidity: str) -> tuple[float | None, float | None]:
    (room,) = climate.climate_page(rooms_page(("居間", temperature, humidity)), 1, PAGE_41).rooms
    return room.temperature_c, room.humidity_percent


# The page


def test_each_room_is_read_with_its_name_and_the_devices_clock() -> None:
    body = rooms_page(("リビング", "235", "48"), ("主寝室", "190", "60"), ("R&amp;D", "087", "9"))
    assert climate.climate_page(body, 1, PAGE_41) == ClimatePage(
        (Room("リビング", 23.5, 48), Room("主寝室", 19.0, 60), Room("R&D", 8.7, 9)), (), NOW
    )


def test_page_43_is_read_alike() -> None:
    rooms = [("リビング", "23.5", "48"), ("屋外", "-2.6", "63"), ("寝室", "087", ""), ("和室", "-12.0", "100")]
    assert climate.climate_page(rooms_page_43(*rooms), 1, PAGE_43) == ClimatePage(
        (Room("リビング", 23.5, 48), Room("屋外", -2.6, 63), Room("寝室", 8.7, None), Room("和室", -12.0, 100)),
        (),
        NOW,
    )
    page = climate.climate_page(rooms_page_43(("居間", "2.3.5", "48"), ("", "", "")), 2, PAGE_43)
    assert page.rooms == (Room("居間", None, 48),)
    (problem,) = page.problems
    assert "airenvironment/43?page=2" in problem
    assert "`.base[1] .num_ond`" in problem


@pytest.mark.parametrize(
    ("text", "percent"),
    [("48", 48), ("5", 5), ("048", 48), ("100", 100), ("48.5", 48.5), ("100.0", 100), ("0", 0), ("485", 48.5)],
)
def test_humidity_is_whole_percent_or_has_tenths_where_it_would_be_over_100(text: str, percent: float) -> None:
    assert numbers("235", text)[1] == percent


@pytest.mark.parametrize(("text", "celsius"), [("23.5", 23.5), ("8.7", 8.7), ("08.7", 8.7), ("000", 0)])
def test_a_decimal_point_is_read(text: str, celsius: float) -> None:
    assert numbers(text, "48")[0] == celsius


@pytest.mark.parametrize(
    ("text", "celsius"), [("-2.6", -2.6), ("-12.6", -12.6), ("-26", -2.6), ("-126", -12.6), ("-00", 0)]
)
def test_a_minus_is_read_and_takes_the_place_of_a_digit(text: str, celsius: float) -> None:
    read = numbers(text, "48")[0]
    assert (read, str(read)) == (celsius, str(float(celsius)))


@pytest.mark.parametrize("text", ["", "___", "__._", "-", "--.-"])
def test_a_sensor_that_shows_no_digit_has_no_value(text: str) -> None:
    assert numbers(text, "48") == (None, 48)
    assert numbers("235", text) == (23.5, None)
    assert climate.climate_page(rooms_page(("居間", text, "48")), 1, PAGE_41).problems == ()


@pytest.mark.parametrize("text", ["23", "2351", "_87", "23.", "2.3.5", "100.0", "2", "-2", "2-6", "--26"])
def test_an_ambiguous_temperature_is_left_out_and_reported(text: str) -> None:
    page = climate.climate_page(rooms_page(("居間", text, "48"), ("寝室", "190", "60")), 2, PAGE_41)
    assert page.rooms == (Room("居間", None, 48), Room("寝室", 19.0, 60))
    (problem,) = page.problems
    assert "41?page=2" in problem
    assert "`#base1_1 [id^=num_ond_]`" in problem


@pytest.mark.parametrize("text", ["1000", "101.0", "4_", "4.8.1", "-48", "-5.0"])
def test_an_invalid_humidity_is_left_out_and_reported(text: str) -> None:
    page = climate.climate_page(rooms_page(("寝室", "190", "60"), ("居間", "235", text)), 1, PAGE_41)
    assert page.rooms == (Room("寝室", 19.0, 60), Room("居間", 23.5, None))
    assert "`#base2_1 [id^=num_shitudo_]`" in page.problems[0]


@pytest.mark.parametrize("style", ["visibility:hidden", "visibility: Hidden;", "color:red;display: none"])
def test_a_hidden_number_is_not_read(style: str) -> None:
    hidden = f'<div style="{style}">{number_elements("num_shitudo_1", "00")}</div>'
    body = rooms_page(("居間", "235", "")).replace(
        b"</div></div></body>", hidden.encode() + b"</div></div></body>"
    )
    assert b"num_shitudo_1" in body
    assert climate.climate_page(body, 1, PAGE_41).rooms == (Room("居間", 23.5, None),)


def test_a_page_that_is_hidden_while_it_loads_is_read() -> None:
    body = climate_page(f'<div style="visibility:hidden">{room_place(1, "居間", "235", "48")}</div>')
    assert climate.climate_page(body, 1, PAGE_41).rooms == (Room("居間", 23.5, 48),)


def test_a_wrapped_name_is_joined_with_a_space_and_has_no_control_characters() -> None:
    body = rooms_page(("\n主寝室と<br />書斎\n", "235", "48"), ("　子\x07供&nbsp;", "190", "60"))
    assert [room.name for room in climate.climate_page(body, 1, PAGE_41).rooms] == ["主寝室と 書斎", "子 供"]


@pytest.mark.parametrize("places", ["", room_place(1, "", "", ""), room_place(1, "&nbsp;", "", "")])
def test_a_page_without_a_room_has_none(places: str) -> None:
    assert climate.climate_page(climate_page(places), 1, PAGE_41).rooms == ()


@pytest.mark.parametrize(
    ("places", "element"),
    [
        (room_place(1, "", "235", "48"), "#base1_1 .txt_name"),
        ('<div id="base1_1"><div class="txt_name">居間</div></div>', "#base1_1 .num_wrapper"),
        (room_place(1, "居間", "23", "4_"), "#base1_1 [id^=num_ond_]"),
    ],
)
def test_a_page_whose_rooms_cannot_be_read_is_refused_by_its_element(places: str, element: str) -> None:
    with pytest.raises(Unreadable) as raised:
        climate.climate_page(climate_page(places), 1, PAGE_41)
    assert element in str(raised.value)
