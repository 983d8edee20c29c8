"""The simulated unit's faults: what each is on the wire, that a seed replays them, and that none invents a number."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from itertools import pairwise
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.simulator.faults import ALL, BEFORE_THE_LOGIN, Fault, Faults
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline_tests.support.simulator_client import (
    CARD_PAGE,
    CIRCUIT_LIST,
    CIRCUITS_PAGE,
    EVENING,
    FLOW,
    FLOW_HTML,
    JAPAN,
    NOON,
    Unit,
    session_for,
    simulated,
)

GRAPH = "/page/graph/52111"
PAGES = (FLOW_HTML, CIRCUITS_PAGE, CIRCUIT_LIST, GRAPH, "/page/airenvironment/41", CARD_PAGE)


@pytest.fixture(scope="module")
def shared_unit() -> Iterator[Unit]:
    with simulated(EVENING) as unit:
        yield unit


@pytest.fixture
def unit(shared_unit: Unit) -> Unit:
    """A unit without faults, to which one session is logged in."""
    shared_unit.served.faults = None
    shared_unit.set_clock(EVENING)
    unit = Unit(shared_unit.served, shared_unit.times)
    unit.flow()
    tally = unit.served.tally
    tally.requests.clear()
    tally.faults.clear()
    tally.refused = 0
    return unit


def let(unit: Unit, *kinds: Fault, seed: int = 1, **options: float) -> Counter[Fault]:
    """Let every request meet one of these faults, and return where they are counted."""
    unit.served.faults = Faults(seed, 1.0, kinds, **options)
    return unit.served.tally.faults


def once(unit: Unit, path: str, **headers: str) -> requests.Response:
    """Send one request, without another one after a 401."""
    return requests.get(f"http://{unit.served.address}{path}", headers=headers, timeout=10)


def login(unit: Unit, path: str) -> str:
    """Return the header that the unit's session would send next."""
    auth: Any = unit.session.auth
    header: str = auth.build_digest_header("GET", f"http://{unit.served.address}{path}")
    return header


def raw(unit: Unit, path: str) -> tuple[HTTPResponse, HTTPConnection]:
    connection = HTTPConnection(unit.served.address, timeout=10)
    connection.request("GET", path, headers={"Authorization": login(unit, path)})
    return connection.getresponse(), connection


def is_closed(connection: socket.socket) -> bool:
    with connection:
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True


def server_time(text: str) -> datetime:
    match = re.search(r"serverTime = '(.*?)'", text)
    assert match is not None
    year, month, day, hour, minute, second = (int(number) for number in re.findall(r':"(\d+)"', match[1])[:6])
    return datetime(2000 + year, month, day, hour, minute, second, tzinfo=JAPAN)


# What each fault is on the wire


def test_unauthorized_refuses_a_login_that_is_right(unit: Unit) -> None:
    counted = let(unit, Fault.UNAUTHORIZED)
    answer = once(unit, CIRCUITS_PAGE, Authorization=login(unit, CIRCUITS_PAGE))
    assert answer.status_code == 401
    assert 'nonce="' in answer.headers["WWW-Authenticate"]
    assert "stale" not in answer.headers["WWW-Authenticate"]
    assert (counted, unit.served.tally.refused) == ({Fault.UNAUTHORIZED: 1}, 1)


def test_not_found_is_a_404(unit: Unit) -> None:
    counted = let(unit, Fault.NOT_FOUND)
    assert unit.get(CIRCUITS_PAGE).status_code == 404
    assert counted == {Fault.NOT_FOUND: 1}


def test_a_server_error_is_one_of_three(unit: Unit) -> None:
    counted = let(unit, Fault.SERVER_ERROR)
    assert {unit.get(CIRCUITS_PAGE).status_code for _ in range(20)} == {500, 502, 503}
    assert counted == {Fault.SERVER_ERROR: 20}


def test_slow_is_the_right_answer_of_the_moment_in_which_it_comes(unit: Unit) -> None:
    let(unit, Fault.SLOW, slow_s=0.2)
    began = time.monotonic()
    answer = unit.get(CIRCUITS_PAGE)
    assert time.monotonic() - began >= 0.2
    unit.served.faults = None
    assert answer.content == unit.get(CIRCUITS_PAGE).content


@pytest.mark.parametrize("path", PAGES)
def test_cut_closes_the_connection_in_the_middle(unit: Unit, path: str) -> None:
    whole = unit.get(path).content
    let(unit, Fault.CUT)
    answer, connection = raw(unit, path)
    assert answer.getheader("Content-Length") == str(len(whole))
    with pytest.raises(IncompleteRead) as cut:
        answer.read()
    assert len(cut.value.partial) < len(whole)
    assert whole.startswith(cut.value.partial)
    connection.close()


@pytest.mark.parametrize("path", PAGES)
def test_truncated_ends_early_and_says_so(unit: Unit, path: str) -> None:
    whole = unit.get(path).content
    let(unit, Fault.TRUNCATED)
    for _ in range(5):
        answer, connection = raw(unit, path)
        body = answer.read()
        assert answer.getheader("Content-Length") == str(len(body)) != str(len(whole))
        assert whole.startswith(body)
        connection.close()


def test_unrelated_is_an_error_a_login_or_another_page_with_a_200(unit: Unit) -> None:
    title = re.compile(r"<title>(.*?)</title>")
    rights = {path: unit.get(path).text for path in PAGES}
    let(unit, Fault.UNRELATED)
    for path, right in rights.items():
        answers = [unit.get(path) for _ in range(15)]
        assert {answer.status_code for answer in answers} == {200}
        assert right not in {answer.text for answer in answers}
        assert len({tuple(title.findall(answer.text)) for answer in answers}) > 2
        assert any("<h1>Error" in answer.text for answer in answers) or any("<form" in a.text for a in answers)
    answer = unit.session.post(f"http://{unit.served.address}{FLOW}", data={"data": "{}"}, timeout=10)
    assert answer.status_code == 200
    assert not answer.text.startswith("{")


def test_wrong_day_is_a_true_page_of_another_day_that_it_names(unit: Unit) -> None:
    asked = EVENING.date() - timedelta(days=3)
    let(unit, Fault.WRONG_DAY)
    wrong = [unit.graph("52111", asked) for _ in range(12)] + [unit.graph("584", asked, "30")]
    assert len({page["val_current"] for page in wrong}) > 2
    unit.served.faults = None
    for page in wrong[:-1]:
        shown = datetime.strptime(page["val_current"], "%Y/%m/%d").astimezone().date()
        assert shown != asked
        assert page == unit.graph("52111", shown)


def test_a_stale_nonce_is_refused_for_good_and_the_new_one_is_welcome(unit: Unit) -> None:
    counted = let(unit, Fault.STALE_NONCE)
    answer = once(unit, CIRCUITS_PAGE, Authorization=login(unit, CIRCUITS_PAGE))
    assert answer.status_code == 401
    assert "stale=true" in answer.headers["WWW-Authenticate"]
    assert counted == {Fault.STALE_NONCE: 1}
    unit.served.faults = None
    again = once(unit, CIRCUITS_PAGE, Authorization=login(unit, CIRCUITS_PAGE))
    assert (again.status_code, "stale=true" in again.headers["WWW-Authenticate"]) == (401, True)
    assert unit.get(CIRCUITS_PAGE).status_code == 200


def test_resorted_doubles_or_misses_a_circuit_beside_a_page_boundary(unit: Unit) -> None:
    right = unit.all_circuits()
    assert [value for value, _ in right[9:11]] != ["", ""]
    pages = [right[n : n + 10] for n in (0, 10, 20, 30)]
    let(unit, Fault.RESORTED)
    moved = 0
    for number, page in enumerate(pages, start=1):
        for _ in range(6):
            shown = unit.circuits(number)
            changed = [(n, row) for n, row in enumerate(shown) if row != page[n]]
            if changed:
                ((n, row),) = changed
                neighbour = 10 * (number - 1) - 1 if n == 0 else 10 * number
                assert row == right[neighbour]
                moved += 1
    assert moved >= 15


def test_resorted_never_hides_power_behind_a_first_page_that_ends_with_a_blank(unit: Unit) -> None:
    let(unit, Fault.RESORTED, Fault.NOT_FOUND)
    for hour in range(24):
        for minute in (5, 35):
            unit.set_clock(EVENING.replace(hour=hour, minute=minute))
            answer = unit.get(CIRCUITS_PAGE)
            if answer.status_code == 200 and '<div class="c_value"></div>' in answer.text:
                shown = sum(int(watts) for watts in re.findall(r"> (\d+)W<", answer.text))
                unit.served.faults, faults = None, unit.served.faults
                assert shown == sum(int(value.strip("W ") or 0) for value, _ in unit.all_circuits())
                unit.served.faults = faults


def test_rebooted_drops_every_connection_for_a_while_and_forgets_the_logins(unit: Unit) -> None:
    other = session_for(unit.served)
    url = f"http://{unit.served.address}{CIRCUITS_PAGE}"
    other.get(url, timeout=10)
    idle = socket.create_connection(("127.0.0.1", int(unit.served.address.rpartition(":")[2])), timeout=10)
    counted = let(unit, Fault.REBOOTED, reboot_s=0.4)
    unit.served.tally.requests.clear()
    began = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        unit.get(CIRCUITS_PAGE)
    assert is_closed(idle)
    with pytest.raises(requests.ConnectionError):
        other.get(url, timeout=10)
    unit.served.faults = None
    assert (counted, unit.served.tally.requests) == ({Fault.REBOOTED: 1}, {CIRCUITS_PAGE: 1})
    time.sleep(max(0.0, began + 0.5 - time.monotonic()))
    unit.served.tally.refused = 0
    assert [unit.get(CIRCUITS_PAGE).status_code, other.get(url, timeout=10).status_code] == [200, 200]
    assert unit.served.tally.refused == 2


def test_clock_off_shows_another_time_and_the_same_numbers() -> None:
    def numbers(unit: Unit) -> Any:
        day = EVENING.date()
        graphs = [unit.graph("52111", day), unit.graph("584", day, "30"), unit.graph("53111", day)]
        return unit.flow(), unit.all_circuits(), unit.registered(), graphs, unit.card()

    with simulated(EVENING, sd_card=True) as unit:
        right = numbers(unit)
        ahead = set()
        for seed in range(8):
            counted = let(unit, Fault.CLOCK_OFF, seed=seed)
            counted.clear()
            times = {server_time(unit.get(path).text) for path in PAGES[:-1]}
            assert len(times) == 1
            assert counted == {Fault.CLOCK_OFF: 5}
            (off,) = {shown - EVENING for shown in times}
            assert timedelta(hours=1) <= abs(off) <= timedelta(hours=12)
            ahead.add(off > timedelta())
            assert numbers(unit) == right
        assert ahead == {True, False}
        later = Faults(3, 0.5, [Fault.CLOCK_OFF])
        hours = [bool(later.clock_off(NOON.replace(minute=0) + timedelta(hours=n))) for n in range(2000)]
        assert 900 < sum(hours) < 1100
        assert all(later.clock_off(EVENING.replace(minute=m)) == later.clock_off(EVENING) for m in range(0, 60, 7))


def test_dashes_stand_in_place_of_readings_and_nothing_else_changes(unit: Unit) -> None:
    right, page = unit.flow(), unit.circuits(1)
    let(unit, Fault.DASHES)
    seen: Counter[str] = Counter()
    for _ in range(40):
        flow = unit.flow()
        dashed = {key for key in flow if flow[key] != right[key]}
        assert {flow[key] for key in dashed} == {"-"}
        assert flow.keys() == right.keys()
        seen.update(dashed)
        html_page = unit.page(FLOW_HTML)
        texts = {key: html_page.get_element_by_id(key).text for key in ("g_capacity", "u_capacity")}
        assert all(text in {"-", right[key]} for key, text in texts.items())
        rows = unit.circuits(1)
        assert any(value == " -" for value, _ in rows)
        assert all(row in (true, (" -", true[1])) for row, true in zip(rows, page, strict=True))
    places = {f"u_d_{n}_capacity" for n in (1, 2, 3)} | {"g_capacity", "u_capacity", "g_d_1_capacity"}
    assert seen.keys() == places
    assert unit.served.tally.faults[Fault.DASHES] == 120


def test_a_battery_too_can_have_no_reading() -> None:
    with simulated(EVENING, Household(1, battery=True), faults=Faults(1, 1.0, [Fault.DASHES])) as unit:
        percents = {unit.flow()["percent"] for _ in range(20)}
        assert percents == {"-", 49}
        assert unit.page(FLOW_HTML).xpath("//@id").count("percent") == 0


@pytest.mark.parametrize("kind", [Fault.WRONG_DAY, Fault.RESORTED, Fault.DASHES])
def test_a_page_that_has_no_place_for_a_fault_does_not_meet_it(unit: Unit, kind: Fault) -> None:
    right = unit.get(CIRCUIT_LIST).content
    counted = let(unit, kind)
    assert unit.get(CIRCUIT_LIST).content == right
    counted_with_another = let(unit, kind, Fault.NOT_FOUND)
    assert unit.get(CIRCUIT_LIST).status_code == 404
    assert (counted, counted_with_another) == ({Fault.NOT_FOUND: 1}, {Fault.NOT_FOUND: 1})


def test_faults_stand_before_the_login_too(unit: Unit) -> None:
    counted = let(unit, *ALL, slow_s=0.0, reboot_s=0.0)
    statuses: Counter[int] = Counter()
    for _ in range(60):
        try:
            statuses[once(unit, CIRCUITS_PAGE).status_code] += 1
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            statuses[0] += 1
    assert counted.keys() == BEFORE_THE_LOGIN
    assert statuses.keys() == {0, 200, 401, 404, 500, 502, 503}
    assert counted.total() == 60
    # Without a login no page of the unit comes, an unrelated one neither.
    let(unit, Fault.UNRELATED)
    assert not any("serverTime" in once(unit, CIRCUITS_PAGE).text for _ in range(20))


# Chance


def statuses(unit: Unit, count: int) -> list[tuple[int, int]]:
    found = []
    for _ in range(count):
        try:
            answer = once(unit, CIRCUITS_PAGE, Authorization=login(unit, CIRCUITS_PAGE))
            found.append((answer.status_code, len(answer.content)))
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            found.append((0, 0))
    return found


def test_the_same_seed_is_the_same_sequence_from_when_it_was_set(unit: Unit) -> None:
    kinds = set(ALL) - {Fault.STALE_NONCE, Fault.REBOOTED}
    faults = Faults(7, 0.5, kinds, slow_s=0.0)
    told = []
    for seed in (7, 7, 8):
        unit.served.faults = None
        unit.get(FLOW_HTML)
        unit.served.faults = replace(faults, seed=seed)
        told.append((statuses(unit, 40), unit.served.tally.faults.copy()))
    (first, _), (second, _), (other, _) = told
    assert first == second != other


def test_the_rate_holds_and_kinds_are_equally_likely() -> None:
    faults = Faults(5, 0.05)
    fitting = BEFORE_THE_LOGIN
    drawn = [faults.drawn(number, fitting) for number in range(20_000)]
    kinds = Counter(fault.kind for fault in drawn if fault)
    assert 860 < kinds.total() < 1140
    assert kinds.keys() == fitting
    assert min(kinds.values()) > 0.7 * kinds.total() / len(fitting)
    # That a fault does not fit a page changes which one it is, not whether there is one.
    fewer = [faults.drawn(number, {Fault.SLOW, Fault.WRONG_DAY}) for number in range(20_000)]
    assert [bool(fault) for fault in fewer] == [bool(fault) for fault in drawn]
    after = [next_ is not None for fault, next_ in pairwise(drawn) if fault]
    assert sum(after) < 0.1 * len(after)


def test_what_is_counted_is_what_was_drawn(unit: Unit) -> None:
    kinds = (Fault.NOT_FOUND, Fault.SERVER_ERROR)
    unit.served.faults = Faults(4, 0.3, kinds)
    found = Counter(status for status, _ in statuses(unit, 100))
    assert unit.served.tally.faults.total() == 100 - found[200] > 10
    assert unit.served.tally.faults[Fault.NOT_FOUND] == found[404]


def test_rate_0_is_a_unit_without_faults_byte_for_byte() -> None:
    def told(unit: Unit) -> list[Any]:
        paths = [*PAGES, f"{CIRCUITS_PAGE}?id=3", "/", "/page/graph/584"]
        answers = [unit.get(path) for path in paths] + [once(unit, path) for path in paths]
        flow = unit.session.post(f"http://{unit.served.address}{FLOW}", data={"data": "{}"}, timeout=10)
        token_or_nonce = re.compile(r'(?<=VALUE=")[0-9]{5}|(?<=nonce=")[0-9a-f]+')
        return [
            (a.status_code, token_or_nonce.sub("", a.text), token_or_nonce.sub("", str(a.headers)))
            for a in [*answers, flow]
        ]

    with simulated(EVENING) as without, simulated(EVENING, faults=Faults(1, 0.0)) as with_none:
        assert told(with_none) == told(without)
        assert with_none.served.tally.faults == without.served.tally.faults == {}


@pytest.mark.parametrize("wrong", [{"rate": -0.1}, {"rate": 1.1}, {"slow_s": -1}, {"clock_off_h": 0.5}], ids=str)
def test_faults_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="from"):
        Faults(**{"seed": 1, "rate": 0.1, **wrong})  # type: ignore[arg-type]  # mypy cannot see which is which


# The command


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fault-rate", "2"], "2.0 is not in the range 0<=x<=1"),
        (["--fault-rate", "often"], "'often' is not a valid float"),
        (
            ["--fault-rate", "0.1", "--faults", "slow,broken"],
            "'broken' is not a kind of fault: choose from unauthorized, not-found, ",
        ),
        (
            ["--fault-rate", "0.1", "--faults", ""],
            "'' is not a kind of fault: choose from unauthorized, not-found, ",
        ),
        (["--faults", "slow"], "--faults needs --fault-rate: set the share of requests that fail, such as 0.05."),
        (["--fault-rate", "0.1", "--fault-seed", "x"], "'x' is not a valid integer"),
    ],
    ids=str,
)
def test_simulate_refuses_faults_that_cannot_be_in_a_sentence(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(main, ["simulate", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_the_help_of_simulate_names_every_kind_of_fault() -> None:
    told = " ".join(CliRunner().invoke(main, ["simulate", "--help"], terminal_width=1000).stdout.split())
    assert f"Only these: {', '.join(Fault)}. Default: all." in told


def test_simulate_is_a_unit_under_the_faults_that_it_was_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        "--port",
        str(port),
        "--fault-rate",
        "0.5",
        "--fault-seed",
        "7",
        "--faults",
        "not-found, Server-Error",
    ]
    command = [sys.executable, "-m", "aiseg2_pipeline.cli", "simulate", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            found = [status_when_it_listens(port) for _ in range(40)]
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
    faults = Faults(7, 0.5, [Fault.NOT_FOUND, Fault.SERVER_ERROR])
    drawn = [faults.drawn(number, BEFORE_THE_LOGIN) for number in range(40)]
    assert [status == 401 for status in found] == [fault is None for fault in drawn]
    assert set(found) == {401, 404, 500, 502, 503}
    assert (process.returncode, err) == (0, b"")


def status_when_it_listens(port: int) -> int:
    for _ in range(400):
        try:
            return requests.get(f"http://127.0.0.1:{port}{CIRCUITS_PAGE}", timeout=10).status_code
        except requests.ConnectionError:
            time.sleep(0.05)
    raise TimeoutError("the simulator does not listen")
