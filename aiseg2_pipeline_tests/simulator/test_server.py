"""The virtual unit, read as programs read a real one: over HTTP, with clients that know nothing of it."""

import base64
import hashlib
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import Any

import numpy as np
import pytest
import requests
from lxml import html
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.simulator.appliances import CIRCUITS
from aiseg2_pipeline.simulator.household import Household, step_of
from aiseg2_pipeline.simulator.server import Running, running, simulated_clock
from aiseg2_pipeline_tests.support.simulator_client import (
    CAPTURES,
    CARD_PAGE,
    CIRCUIT_LIST,
    CIRCUITS_PAGE,
    EVENING,
    FLOW,
    FLOW_HTML,
    JAPAN,
    NOON,
    Unit,
    graph_data,
    session_for,
    simulated,
)

ALL_PATHS = (
    FLOW_HTML,
    CIRCUITS_PAGE,
    CIRCUIT_LIST,
    "/page/graph/51111",
    "/page/graph/584",
    CARD_PAGE,
    "/",
    "/action/anything",
)


def watts(value: str) -> int:
    return int(value.removesuffix("W").strip() or "0")


def server_time(text: str) -> dict[str, str]:
    match = re.search(r"TimeInfoVariable\.serverTime = '(.*?)';", text)
    assert match is not None
    clock: dict[str, str] = json.loads(match[1])
    return clock


@pytest.fixture(scope="module")
def shared_unit() -> Iterator[Unit]:
    with simulated(NOON) as unit:
        yield unit


@pytest.fixture
def unit(shared_unit: Unit) -> Unit:
    """A unit as if it had just begun: nothing was asked, nobody is logged in, its clock shows noon."""
    shared_unit.set_clock(NOON)
    shared_unit.served.tally.requests.clear()
    shared_unit.served.tally.refused = 0
    return Unit(shared_unit.served, shared_unit.times)


@pytest.fixture(scope="module")
def served() -> Iterator[Running]:
    with running(clock=lambda: EVENING) as served:
        yield served


# The household


def test_the_same_seed_is_the_same_household_and_another_seed_another() -> None:
    steps = np.arange(0, 8640, 7) + step_of(NOON)
    assert np.array_equal(Household(3).power(steps).circuits_w, Household(3).power(steps).circuits_w)
    assert not np.array_equal(Household(3).power(steps).circuits_w, Household(4).power(steps).circuits_w)
    assert not np.array_equal(Household(3).generation_w(steps), Household(4).generation_w(steps))


def test_power_depends_on_nothing_that_was_asked_before_or_with_it() -> None:
    household = Household(1)
    steps = np.arange(8640) + step_of(NOON)
    whole = household.power(steps)
    shuffled = np.random.default_rng(0).permutation(8640)[:500]
    part = household.power(steps[shuffled])
    assert np.array_equal(part.circuits_w, whole.circuits_w[shuffled])
    assert np.array_equal(part.consumption_w, whole.consumption_w[shuffled])
    assert np.array_equal(part.generation_w, whole.generation_w[shuffled])
    assert np.array_equal(household.circuits_w(steps[3:4]), whole.circuits_w[3:4])


@pytest.mark.parametrize("month", [1, 4, 7, 10])
def test_a_day_has_times_with_fewer_and_times_with_more_than_ten_circuits_on(month: int) -> None:
    for day in range(1, 8):
        midnight = step_of(datetime(2026, month, day, tzinfo=JAPAN))
        on = (Household(1).circuits_w(np.arange(8640) + midnight) > 0).sum(axis=1)
        assert on.min() < 10
        assert on.max() > 10


def test_the_household_is_believable_over_a_year() -> None:
    steps = step_of(datetime(2026, 1, 1, tzinfo=JAPAN)) + np.arange(0, 365 * 8640, 30)
    power = Household(1).power(steps)
    assert (power.circuits_w >= 0).all()
    assert 0.93 < power.circuits_w.sum() / power.consumption_w.sum() < 0.97
    assert (power.consumption_w > power.circuits_w.sum(axis=1)).all()
    assert power.consumption_w.max() < 12_000
    hours = (steps * 10 // 3600 + 9) % 24
    assert not power.generation_w[(hours < 4) | (hours > 19)].any()
    assert 3000 < power.generation_w.max() < 4500
    kwh_a_day = power.consumption_w.mean() * 24 / 1000
    assert 10 < kwh_a_day < 35


def test_energy_is_the_exact_sum_of_power_for_any_interval() -> None:
    household = Household(1)
    start = NOON.replace(second=0)
    hour = household.power(np.arange(360) + step_of(start))
    energy = household.energy_wh(start, start + timedelta(hours=1))
    assert energy.consumption_wh == pytest.approx(hour.consumption_w.sum() / 360, rel=1e-12)
    assert energy.circuits_wh == pytest.approx(hour.circuits_w.sum(axis=0) / 360, rel=1e-12)
    assert energy.bought_wh - energy.sold_wh == pytest.approx(energy.consumption_wh - energy.generation_wh)

    odd = start + timedelta(seconds=1234.5)
    before, after = household.energy_wh(start, odd), household.energy_wh(odd, start + timedelta(days=3))
    whole = household.energy_wh(start, start + timedelta(days=3))
    assert before.generation_wh + after.generation_wh == pytest.approx(whole.generation_wh, rel=1e-12)
    within = household.energy_wh(start + timedelta(seconds=2), start + timedelta(seconds=5))
    assert within.consumption_wh == pytest.approx(hour.consumption_w[0] * 3 / 3600)
    assert household.energy_wh(start, start).consumption_wh == 0


# The login


def test_a_session_logs_in_once(unit: Unit) -> None:
    for _ in range(3):
        unit.flow()
        unit.get(CIRCUITS_PAGE, id="1")
    assert unit.served.tally.refused == 1
    assert unit.served.tally.requests == {FLOW: 4, CIRCUITS_PAGE: 3}


def test_every_path_needs_the_login_and_a_wrong_password_is_no_login(served: Running) -> None:
    for path in ALL_PATHS:
        answer = requests.get(f"http://{served.address}{path}", timeout=10)
        assert answer.status_code == 401
        assert "stale" not in answer.headers["WWW-Authenticate"]
        wrong = requests.get(
            f"http://{served.address}{path}", auth=HTTPDigestAuth(served.user, "wrong"), timeout=10
        )
        assert wrong.status_code == 401
        assert "stale" not in wrong.headers["WWW-Authenticate"]
    assert (
        requests.get(f"http://{served.address}/", auth=(served.user, served.password), timeout=10).status_code
        == 401
    )


def challenge(served: Running, path: str) -> dict[str, str]:
    header = requests.get(f"http://{served.address}{path}", timeout=10).headers["WWW-Authenticate"]
    assert header.startswith("Digest ")
    assert ('qop="auth"' in header, "algorithm=MD5" in header) == (True, True)
    return dict(re.findall(r'(\w+)="([^"]*)"', header))


def authorization(served: Running, given: dict[str, str], uri: str, counter: int = 1, quote: str = "") -> str:
    """Build the header by hand; clients differ in whether they quote `qop`, `nc` and `algorithm`."""

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 - what the login asks for

    secret = md5(f"{served.user}:{given['realm']}:{served.password}")
    middle = f"{given['nonce']}:{counter:08x}:abcd:auth"
    response = md5(f"{secret}:{middle}:{md5(f'GET:{uri}')}")
    return (
        f'Digest username="{served.user}", realm="{given["realm"]}", nonce="{given["nonce"]}", uri="{uri}", '
        f'response="{response}", opaque="{given["opaque"]}", cnonce="abcd", '
        f"algorithm={quote}MD5{quote}, qop={quote}auth{quote}, nc={quote}{counter:08x}{quote}"
    )


def status(served: Running, path: str, header: str) -> tuple[int, str]:
    answer = requests.get(f"http://{served.address}{path}", headers={"Authorization": header}, timeout=10)
    return answer.status_code, answer.headers.get("WWW-Authenticate", "")


@pytest.mark.parametrize("quote", ["", '"'])
def test_values_of_the_login_may_be_quoted_or_not(served: Running, quote: str) -> None:
    path = "/page/electricflow/1113?id=2"
    header = authorization(served, challenge(served, path), path, quote=quote)
    assert status(served, path, header)[0] == 200


def test_a_nonce_serves_while_its_counter_is_new(served: Running) -> None:
    given = challenge(served, CIRCUIT_LIST)
    for counter in (1, 3, 2):  # two requests in flight may overtake each other
        assert status(served, CIRCUIT_LIST, authorization(served, given, CIRCUIT_LIST, counter))[0] == 200
    again, header = status(served, CIRCUIT_LIST, authorization(served, given, CIRCUIT_LIST, 3))
    assert again == 401
    assert "stale=true" in header


def test_a_nonce_that_is_too_old_or_unknown_is_stale() -> None:
    with running(clock=lambda: NOON, nonce_life_s=0) as served:
        given = challenge(served, FLOW_HTML)
        for nonce in (given["nonce"], "0" * 32):
            code, header = status(served, FLOW_HTML, authorization(served, given | {"nonce": nonce}, FLOW_HTML))
            assert code == 401
            assert "stale=true" in header


def test_a_session_goes_on_after_the_unit_was_started_again() -> None:
    with running(clock=lambda: NOON) as served:
        session = session_for(served)
        url = f"http://{served.address}{FLOW_HTML}"
        assert session.get(url, timeout=10).status_code == 200
    with running(clock=lambda: NOON, port=int(served.address.rpartition(":")[2])) as again:
        assert [session.get(url, timeout=10).status_code for _ in range(2)] == [200, 200]
        assert again.tally.refused == 1


def test_a_login_for_another_address_is_none(served: Running) -> None:
    given = challenge(served, CIRCUITS_PAGE)
    assert status(served, f"{CIRCUITS_PAGE}?id=2", authorization(served, given, CIRCUITS_PAGE))[0] == 401


@pytest.mark.parametrize("header", ["", "Digest", "Digest ,", "Digest nonce", 'Digest nc="x', "Basic YTpi", "Ｘ"])
def test_a_login_header_that_is_none_is_refused(served: Running, header: str) -> None:
    answer = requests.get(
        f"http://{served.address}{FLOW_HTML}", headers={"Authorization": header.encode()}, timeout=10
    )
    assert answer.status_code == 401


def test_pythons_own_digest_client_reads_it(served: Running) -> None:
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, f"http://{served.address}/", served.user, served.password)
    opener = urllib.request.build_opener(urllib.request.HTTPDigestAuthHandler(passwords))
    for number in (1, 2):
        with opener.open(f"http://{served.address}{CIRCUITS_PAGE}?id={number}", timeout=10) as answer:
            assert answer.status == 200
            assert b"stage_10" in answer.read()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_reads_it(served: Running) -> None:
    login = f"{served.user}:{served.password}"
    command = ["curl", "-sS", "--digest", "-u", login, "-d", "data={}", f"http://{served.address}{FLOW}"]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=20)  # noqa: S603 - our own command
    assert json.loads(answer.stdout)["measReg"] == 1


def test_a_connection_serves_many_requests(served: Running) -> None:
    connection = HTTPConnection(served.address, timeout=10)
    sockets = set()
    given = challenge(served, FLOW_HTML)
    for counter in range(1, 4):
        header = authorization(served, given, FLOW_HTML, counter)
        connection.request("GET", FLOW_HTML, headers={"Authorization": header})
        sockets.add(connection.sock)
        answer = connection.getresponse()
        answer.read()
        assert (answer.status, answer.version) == (200, 11)
    assert len(sockets) == 1
    connection.close()


# What stands where


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/action/x",
        "/page/electricflow/112",
        "/page/electricflow/111/",
        "/page/graph/99999",
        "/page/smartmeter/2",
    ],
)
def test_any_other_path_is_not_found(unit: Unit, path: str) -> None:
    assert unit.get(path).status_code == 404


def test_only_the_flow_takes_a_post(unit: Unit) -> None:
    base = f"http://{unit.served.address}"
    assert unit.session.post(f"{base}{CIRCUIT_LIST}", data={"a": "b"}, timeout=10).status_code == 404
    assert unit.session.put(f"{base}{FLOW}", data={"a": "b"}, timeout=10).status_code == 404
    assert unit.get(FLOW).status_code == 404


def test_the_settings_page_has_its_token_before_the_body(unit: Unit) -> None:
    text = unit.get(CARD_PAGE).text
    assert 0 < text.index(f'NAME="csrftoken" VALUE="{unit.token()}"') < text.index("<body")


@pytest.mark.parametrize(
    "path", [CIRCUITS_PAGE, CIRCUIT_LIST, FLOW_HTML, "/page/graph/51111", "/page/graph/55111"]
)
def test_pages_begin_as_on_a_real_unit_and_carry_its_clock_in_japan_time(unit: Unit, path: str) -> None:
    unit.set_clock(datetime(2026, 1, 4, 15, 7, 9, tzinfo=UTC))
    answer = unit.get(path)
    assert answer.headers["Content-Type"] == "text/html; charset=UTF-8"
    assert answer.text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html')
    assert "&nbsp;" in answer.text
    clock = {"year": "26", "month": "1", "day": "5", "hour": "0", "min": "7", "sec": "9", "weekday": "1"}
    assert server_time(answer.text) == clock


# The live pages


@pytest.mark.parametrize("time", [NOON, EVENING, datetime(2026, 1, 10, 3, 20, tzinfo=JAPAN)])
def test_the_pages_of_one_moment_agree(unit: Unit, time: datetime) -> None:
    unit.set_clock(time)
    flow = unit.flow()
    rows = unit.all_circuits()
    power = Household(1).power(np.array([step_of(time)]))
    assert sorted(watts(value) for value, _ in rows) == sorted(power.circuits_w[0].tolist())
    assert flow["u_capacity"] == f"{power.consumption_w[0] / 1000:.1f}"
    assert float(flow["u_capacity"]) >= sum(watts(value) for value, _ in rows) / 1000 - 0.05
    assert flow["g_d_1_capacity"] == power.generation_w[0]
    assert flow["g_capacity"] == f"{power.generation_w[0] / 1000:.1f}"
    assert flow["lo_buy_sell"] == int(power.generation_w[0] > power.consumption_w[0])
    largest = [
        (flow[f"u_d_{number}_title"].replace("・", ""), flow[f"u_d_{number}_capacity"]) for number in (1, 2, 3)
    ]
    assert largest == [(name, watts(value)) for value, name in rows[:3]]

    page = unit.page(FLOW_HTML)
    shown = {element: page.get_element_by_id(element).text for element in ("g_capacity", "u_capacity")}
    assert shown == {"g_capacity": flow["g_capacity"], "u_capacity": flow["u_capacity"]}
    assert page.get_element_by_id("g_d_1_title").text == flow["g_d_1_title"] == "太陽光発電"
    assert page.get_element_by_id("g_d_1_capacity").text == f"{flow['g_d_1_capacity']}W"
    assert not page.get_element_by_id("g_d_2_title").text


def test_the_flow_sells_at_noon_and_buys_at_night(unit: Unit) -> None:
    assert unit.flow()["lo_buy_sell"] == 1
    unit.set_clock(EVENING)
    assert (unit.flow()["lo_buy_sell"], unit.flow()["g_capacity"]) == (0, "0.0")


def test_a_battery_charges_by_night_and_discharges_in_the_evening_without_a_leap(unit: Unit) -> None:
    without = unit.flow()
    assert (without["connSb"], without["percent"]) == (0, "-")
    with simulated(NOON, Household(1, battery=True)) as home:
        flow = home.flow()
        changed = {key for key in flow if flow[key] != without[key]}
        assert changed == {"connSb", "percent", "soc"}
        midnight = NOON.replace(hour=0, minute=0, second=0)
        before = None
        seen = set()
        for n in range(24 * 12 + 1):
            home.set_clock(midnight + timedelta(minutes=5 * n))
            flow = home.flow()
            assert flow["soc"] == -(-flow["percent"] // 20)
            if before:
                # What it said that it does is what became of its charge.
                gain = flow["percent"] - before["percent"]
                assert {0: 0 <= gain <= 2, 1: -2 <= gain <= 0, 2: gain == 0}[before["charge"]]
            before = flow
            seen.add((flow["charge"], flow["soc"]))
        assert {charge for charge, _ in seen} == {0, 1, 2}
        assert {soc for _, soc in seen} == {1, 2, 3, 4, 5}


def test_circuits_come_largest_first_and_blanks_last(unit: Unit) -> None:
    for hour in range(0, 24, 3):
        unit.set_clock(NOON.replace(hour=hour))
        values = [value for value, _ in unit.all_circuits()]
        assert [watts(value) for value in values] == sorted(map(watts, values), reverse=True)
        assert values == sorted(values, key=lambda value: not value)
        assert all(re.fullmatch(r"( [1-9]\d*W)?", value) for value in values)


def test_circuits_are_those_of_the_list_duplicates_included(unit: Unit) -> None:
    text = unit.get(CIRCUIT_LIST).text
    match = re.search(r"window\.onload = init\((\{.*\})\);", text)
    assert match is not None
    places = json.loads(match[1])["arrayCircuitNameList"]
    registered = [place for place in places if place["strBtnType"] == "1"]
    assert (len(places), len(registered)) == (45, 32)
    assert [place["strId"] for place in registered] == [str(number) for number in range(8, 40)]
    names = Counter(place["strCircuit"].replace("・", "") for place in registered)
    assert {name: count for name, count in names.items() if count > 1} == {"ＬＤ": 2, "電子レンジ": 3, "ＩＨ": 2}
    assert names == Counter(name for _, name in unit.all_circuits())


def test_long_names_break_after_six_characters_or_at_their_dot(unit: Unit) -> None:
    text = "".join(unit.get(CIRCUITS_PAGE, id=str(number)).text for number in (1, 2, 3, 4))
    for name in (
        "キッチン　パ<br />ントリー",
        "洋室１<br />エアコン",
        "寝室　エアコ<br />ン",
        "-<br />",
        "玄関<br />",
    ):
        assert f'<div class="c_device">{name}</div>' in text


def test_the_pages_of_the_circuits_are_ten_ten_ten_two_and_no_more(unit: Unit) -> None:
    assert [len(unit.circuits(number)) for number in (1, 2, 3, 4)] == [10, 10, 10, 2]
    assert unit.circuits(5) == unit.circuits(10**6) == unit.circuits(4)
    for number in (1, 2, 3, 4, 5):
        hrefs = unit.page(CIRCUITS_PAGE, id=str(number)).xpath("//@href")
        linked = [int(match[1]) for href in hrefs if (match := re.search(r"1113\?id=(\d+)&track=", href))]
        assert any(other > number for other in linked) == (number < 4)


@pytest.mark.parametrize("number", ["", "0", "-1", "x", "1.5"])
def test_a_page_number_that_is_none_is_the_first(unit: Unit, number: str) -> None:
    assert unit.get(CIRCUITS_PAGE, id=number).text == unit.get(CIRCUITS_PAGE).text


def test_the_clock_begins_at_its_start_and_runs_at_its_speed() -> None:
    clock = simulated_clock(NOON, speed=1_000_000)
    first = clock()
    time.sleep(0.01)
    assert timedelta(0) <= first - NOON
    assert clock() - first >= timedelta(seconds=10_000)
    assert simulated_clock(NOON, speed=0)() == NOON
    real = datetime.now(UTC)
    assert timedelta(0) <= simulated_clock()() - real < timedelta(minutes=1)
    with pytest.raises(ValueError, match="time zone"):
        simulated_clock(datetime(2026, 7, 14))  # noqa: DTZ001 - what is refused
    with running(clock=simulated_clock(NOON, speed=0)) as served:
        text = session_for(served).get(f"http://{served.address}{CIRCUIT_LIST}", timeout=10).text
    assert (server_time(text)["day"], server_time(text)["hour"]) == ("14", "12")


# The graph pages


def test_an_hour_of_the_graph_is_what_the_flow_showed_in_it(unit: Unit) -> None:
    """The sum over an hour of what the flow shows each ten seconds is the graph's hour, to the watt-hour."""
    start = NOON.replace(hour=10, second=0)
    shown_w = 0
    for step in range(360):
        unit.set_clock(start + timedelta(seconds=10 * step))
        shown_w += unit.flow()["g_d_1_capacity"]
    unit.set_clock(NOON)
    assert unit.graph("51111")["total1"][10] == pytest.approx(shown_w / 360_000, abs=0.002)


def test_the_hours_of_a_day_add_up_to_its_energy(unit: Unit) -> None:
    day = NOON.date() - timedelta(days=2)
    midnight = datetime(day.year, day.month, day.day, tzinfo=JAPAN)
    energy = Household(1).energy_wh(midnight, midnight + timedelta(days=1))
    used, made = unit.graph("52111", day), unit.graph("51111", day)
    bought, sold = unit.graph("53111", day), unit.graph("54111", day)
    for page, exact_wh in (
        (made, energy.generation_wh),
        (used, energy.consumption_wh),
        (bought, energy.bought_wh),
        (sold, energy.sold_wh),
    ):
        hours = page["total1"] + page["val2"]
        assert sum(hours) == pytest.approx(exact_wh / 1000, abs=0.0021)
        assert page["val_kwh"] == page["totalValue"] == f"{sum(hours):.3f}"
        assert page["val_current"] == f"{day:%Y/%m/%d}"
        assert [round(hour, 3) for hour in hours] == hours
    assert used["val2"] == bought["total1"]
    assert [round(1000 * hour) for hour in made["total1"]] == [
        round(1000 * (own + out)) for own, out in zip(used["total1"], sold["total1"], strict=True)
    ]
    circuits = [unit.graph("584", day, str(circuit.circuit_id)) for circuit in CIRCUITS]
    assert [float(page["val_kwh"]) for page in circuits] == pytest.approx(energy.circuits_wh / 1000, abs=0.001)
    assert all(f"{sum(page['total1']):.3f}" == page["val_kwh"] for page in circuits)


def test_hours_that_have_not_come_are_0_and_the_running_one_grows(unit: Unit) -> None:
    unit.set_clock(NOON.replace(minute=0, second=0))
    assert not any(unit.graph("52111")["total1"][12:])
    unit.set_clock(NOON.replace(minute=30))
    half = unit.graph("52111")
    unit.set_clock(NOON.replace(hour=13))
    whole = unit.graph("52111")
    assert 0 < half["total1"][12] < whole["total1"][12]
    assert half["total1"][:12] == whole["total1"][:12]
    assert not any(half["total1"][13:])
    assert len(half["total1"]) == len(half["val2"]) == len(half["total2"]) == 24
    assert half["val_current"] == "2026/07/14"


def test_a_graph_compares_with_the_day_before(unit: Unit) -> None:
    yesterday = unit.graph("52111", NOON.date() - timedelta(days=1))
    own_and_bought = zip(yesterday["total1"], yesterday["val2"], strict=True)
    assert unit.graph("52111")["total2"] == [round(own + bought, 3) for own, bought in own_and_bought]
    assert unit.graph("54111")["total2"] == unit.graph("54111", NOON.date() - timedelta(days=1))["total1"]


@pytest.mark.parametrize("days", [1, -401, -20_000])
def test_a_day_that_the_unit_does_not_know_is_no_data(unit: Unit, days: int) -> None:
    day = NOON.date() + timedelta(days=days)
    for page in (unit.graph("52111", day), unit.graph("51111", day), unit.graph("584", day, "30")):
        assert (page["val_kwh"], page["total1"], page["val_current"]) == ("-", [0] * 24, f"{day:%Y/%m/%d}")
    assert unit.graph("52111", NOON.date() - timedelta(days=400))["val_kwh"] != "-"


@pytest.mark.parametrize("days", [0, -3, -500])
def test_what_the_household_does_not_measure_is_empty(unit: Unit, days: int) -> None:
    page = unit.graph("57111", NOON.date() + timedelta(days=days))
    assert (page["val_kwh"], page["total1"], page["val2"], page["total2"]) == ("-", [], [], [])


@pytest.mark.parametrize("circuit_id", [None, "7", "40", "x"])
def test_a_circuit_that_is_not_registered_has_no_graph(unit: Unit, circuit_id: str | None) -> None:
    page = unit.graph("584", NOON.date(), circuit_id)
    assert (page["val_kwh"], page["total1"]) == ("-", [])


@pytest.mark.parametrize(
    "asked", ["x", "\xff", "[]", '{"day": 3}', '{"day": [2026, 2, 30]}', '{"day": [1, 1, 1]}']
)
def test_a_day_that_is_none_is_today(unit: Unit, asked: str) -> None:
    data = base64.b64encode(asked.encode("latin-1")).decode()
    assert graph_data(unit.get("/page/graph/51111", data=data).text)["val_current"] == "2026/07/14"
    assert graph_data(unit.get("/page/graph/51111", data=asked).text)["val_current"] == "2026/07/14"


# Against a real unit's pages


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="needs captures of a real unit")
class TestAgainstCaptures:
    @pytest.mark.parametrize(
        ("name", "address"),
        [
            ("electricflow_1113_id1.html", f"{CIRCUITS_PAGE}?id=1"),
            ("electricflow_1113_id4.html", f"{CIRCUITS_PAGE}?id=4"),
            ("electricflow_1113_id5.html", f"{CIRCUITS_PAGE}?id=5"),
            ("installation_734.html", CIRCUIT_LIST),
            ("graph_51111.html", "/page/graph/51111"),
            ("graph_52111.html", "/page/graph/52111"),
        ],
    )
    def test_a_page_has_the_ids_in_the_real_order(self, unit: Unit, name: str, address: str) -> None:
        real = html.fromstring((CAPTURES / name).read_bytes()).xpath("//@id")
        assert html.fromstring(unit.get(address).content).xpath("//@id") == real

    @pytest.mark.parametrize("number", [1, 4])
    def test_the_circuits_and_their_tabs_are_built_alike(self, unit: Unit, number: int) -> None:
        def shape(content: bytes) -> list[tuple[Any, ...]]:
            areas: Any = html.fromstring(content).xpath("//*[@id='tab-area' or @id='m_capacity']//*")
            return [(area.tag, area.get("class"), area.get("href")) for area in areas]

        real = (CAPTURES / f"electricflow_1113_id{number}.html").read_bytes()
        assert shape(unit.get(CIRCUITS_PAGE, id=str(number)).content) == shape(real)

    def test_the_flow_has_the_same_keys_in_the_same_order_with_the_same_types(self, unit: Unit) -> None:
        real = json.loads((CAPTURES / "electricflow_111.json").read_bytes())
        ours = unit.flow()
        assert [(key, type(value)) for key, value in ours.items()] == [
            (key, type(value)) for key, value in real.items()
        ]

    @pytest.mark.parametrize("page_id", ["51111", "52111"])
    def test_a_graphs_variables_are_the_same(self, unit: Unit, page_id: str) -> None:
        unit.set_clock(datetime(2026, 7, 14, 8, 17, 22, tzinfo=JAPAN))
        real_text = (CAPTURES / f"graph_{page_id}.html").read_text(encoding="utf-8")
        text = unit.get(f"/page/graph/{page_id}").text
        real, ours = graph_data(real_text), graph_data(text)
        assert [(key, type(value)) for key, value in ours.items()] == [
            (key, type(value)) for key, value in real.items()
        ]
        fixed = re.compile(r"var (?:tabs|back_url|termStr|term) = .*;")
        assert fixed.findall(text) == fixed.findall(real_text)
        constant = real.keys() - {"total1", "val2", "total2", "max", "totalValue", "val_kwh"}
        assert {key: ours[key] for key in constant} == {key: real[key] for key in constant}

    def test_the_circuit_list_is_the_same(self, unit: Unit) -> None:
        def circuits(text: str) -> list[dict[str, str]]:
            match = re.search(r"window\.onload = init\((\{.*\})\);", text)
            assert match is not None
            places: list[dict[str, str]] = json.loads(match[1])["arrayCircuitNameList"]
            return places

        real = (CAPTURES / "installation_734.html").read_text(encoding="utf-8")
        assert circuits(unit.get(CIRCUIT_LIST).text) == circuits(real)

    def test_the_settings_form_is_the_same(self, unit: Unit) -> None:
        fields = re.compile(r'<input type="hidden" NAME="(\w+)" +VALUE=')
        real = (CAPTURES / "exectop2.html").read_text(encoding="utf-8")
        ours = unit.get(CARD_PAGE).text
        assert fields.findall(re.sub(" +", " ", ours)) == fields.findall(re.sub(" +", " ", real))


# As a process


def hang_up(port: int) -> None:
    """Send a request that waits for its answer, and reset the connection."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_serves_until_a_signal_and_says_nothing(number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = f"from aiseg2_pipeline.simulator.server import serve; serve({port}, latency_ms=50, start=None)"
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # noqa: S603 - our own
    try:
        for _ in range(600):
            assert process.poll() is None
            try:
                answer = requests.get(f"http://127.0.0.1:{port}/", timeout=10)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        assert answer.status_code == 401
        hang_up(port)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"no HTTP at all\r\n\r\n")
            client.recv(1000)
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, output) == (0, b"")


def test_a_port_that_is_taken_is_one_clear_sentence(served: Running) -> None:
    port = int(served.address.rpartition(":")[2])
    with (
        pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*choose another port"),
        running(port=port),
    ):
        pass


def test_every_answer_takes_its_latency() -> None:
    with running(clock=lambda: NOON, latency_s=0.05) as served:
        began = time.monotonic()
        session_for(served).get(f"http://{served.address}{FLOW_HTML}", timeout=10)
        assert time.monotonic() - began >= 0.1
