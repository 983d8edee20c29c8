"""The simulator's faults: what each changes in a response, their reproducibility, and the command's options."""

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import Any

import pytest
import requests
from click.testing import CliRunner

from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.simulator.faults import ALL, BEFORE_THE_LOGIN, Fault, Faults
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.simulator_client import (
    CARD_PAGE,
    CIRCUIT_LIST,
    CIRCUITS_PAGE,
    EVENING,
    FLOW_HTML,
    JAPAN,
    NOON,
    Unit,
    shown_clock,
    simulated,
)

GRAPH = "/page/graph/52111"
PAGES = (FLOW_HTML, CIRCUITS_PAGE, CIRCUIT_LIST, GRAPH, "/page/airenvironment/41", CARD_PAGE)
DROPPED = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)


@pytest.fixture(scope="module")
def shared() -> Iterator[Unit]:
    with simulated(EVENING) as unit:
        yield unit


@pytest.fixture
def unit(shared: Unit) -> Unit:
    """A simulator without faults, and a new session that is logged in."""
    shared.served.faults = None
    shared.set_clock(EVENING)
    unit = Unit(shared.served, shared.times)
    unit.flow()
    tally = unit.served.tally
    tally.requests.clear()
    tally.faults.clear()
    tally.refused = 0
    return unit


def inject(unit: Unit, *kinds: Fault, seed: int = 1, **options: float) -> Counter[Fault]:
    """Inject one of these faults into every request, and return their tally."""
    unit.served.faults = Faults(seed, 1.0, kinds, **options)
    return unit.served.tally.faults


def get_authorized(unit: Unit) -> requests.Response:
    return unit.get_once(CIRCUITS_PAGE, unit.authorization(CIRCUITS_PAGE))


def raw(unit: Unit, path: str) -> HTTPResponse:
    connection = HTTPConnection(unit.served.address, timeout=10)
    connection.request("GET", path, headers={"Authorization": unit.authorization(path)})
    return connection.getresponse()


def clock_of(text: str) -> datetime:
    year, *rest = (int(value) for value in list(shown_clock(text).values())[:6])
    return datetime(2000 + year, *rest, tzinfo=JAPAN)  # type: ignore[misc,arg-type]  # mypy: the count of numbers


# The response of each fault


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [(Fault.UNAUTHORIZED, {401}), (Fault.NOT_FOUND, {404}), (Fault.SERVER_ERROR, {500, 502, 503})],
)
def test_a_fault_may_be_a_status(unit: Unit, kind: Fault, statuses: set[int]) -> None:
    tally = inject(unit, kind)
    responses = [get_authorized(unit) for _ in range(20)]
    assert {response.status_code for response in responses} == statuses
    assert (tally, unit.served.tally.refused) == ({kind: 20}, 20 if statuses == {401} else 0)
    challenge = responses[0].headers.get("WWW-Authenticate", "")
    assert ('nonce="' in challenge, "stale" in challenge) == (statuses == {401}, False)


def test_slow_is_a_late_correct_response(unit: Unit) -> None:
    inject(unit, Fault.SLOW, slow_s=0.2)
    start = time.monotonic()
    response = unit.get(CIRCUITS_PAGE)
    assert time.monotonic() - start >= 0.2
    unit.served.faults = None
    assert response.content == unit.get(CIRCUITS_PAGE).content


@pytest.mark.parametrize("path", PAGES)
def test_cut_and_truncated_end_early_and_only_cut_declares_the_whole_length(unit: Unit, path: str) -> None:
    whole = unit.get(path).content
    inject(unit, Fault.CUT)
    with raw(unit, path) as response:
        assert response.getheader("Content-Length") == str(len(whole))
        with pytest.raises(IncompleteRead) as cut:
            response.read()
    assert len(cut.value.partial) < len(whole)
    assert whole.startswith(cut.value.partial)
    inject(unit, Fault.TRUNCATED)
    for _ in range(5):
        with raw(unit, path) as response:
            body = response.read()
            assert response.getheader("Content-Length") == str(len(body)) != str(len(whole))
            assert whole.startswith(body)


def test_unrelated_is_another_page_with_a_200(unit: Unit) -> None:
    correct = {path: unit.get(path).text for path in PAGES}
    inject(unit, Fault.UNRELATED)
    for path, text in correct.items():
        responses = [unit.get(path) for _ in range(15)]
        assert {response.status_code for response in responses} == {200}
        others = {response.text for response in responses}
        assert text not in others
        assert len(others) > 2
    response = unit.post_flow()
    assert (response.status_code, response.text.startswith("{")) == (200, False)


def test_wrong_day_is_a_correct_page_of_another_day_which_it_shows(unit: Unit) -> None:
    requested = EVENING.date() - timedelta(days=3)
    inject(unit, Fault.WRONG_DAY)
    wrong = [unit.graph("52111", requested) for _ in range(12)]
    assert unit.graph("584", requested, "30")["val_current"] != f"{requested:%Y/%m/%d}"
    assert len({page["val_current"] for page in wrong}) > 2
    unit.served.faults = None
    for page in wrong:
        shown = datetime.strptime(page["val_current"], "%Y/%m/%d").astimezone().date()
        assert shown != requested
        assert page == unit.graph("52111", shown)


def test_a_stale_nonce_stays_refused_and_a_new_one_is_accepted(unit: Unit) -> None:
    tally = inject(unit, Fault.STALE_NONCE)
    responses = [get_authorized(unit)]
    assert tally == {Fault.STALE_NONCE: 1}
    unit.served.faults = None
    responses.append(get_authorized(unit))
    for response in responses:
        assert (response.status_code, "stale=true" in response.headers["WWW-Authenticate"]) == (401, True)
    assert unit.get(CIRCUITS_PAGE).status_code == 200


def test_resorted_duplicates_or_omits_a_circuit_beside_a_page_boundary(unit: Unit) -> None:
    correct = unit.all_circuits()
    assert [value for value, _ in correct[9:11]] != ["", ""]
    inject(unit, Fault.RESORTED)
    swapped = 0
    for first in (0, 10, 20, 30):
        for _ in range(6):
            shown = unit.circuits(first // 10 + 1)
            changed = [(n, row) for n, row in enumerate(shown) if row != correct[first + n]]
            if changed:
                ((n, row),) = changed
                assert row == correct[first - 1 if n == 0 else first + 10]
                swapped += 1
    assert swapped >= 15


def test_resorted_never_hides_power_behind_a_blank_of_the_first_page(unit: Unit) -> None:
    for half_hour in range(48):
        unit.set_clock(EVENING.replace(hour=half_hour // 2, minute=5 + half_hour % 2 * 30))
        inject(unit, Fault.RESORTED, seed=half_hour)
        shown = [value for value, _ in unit.circuits(1)]
        unit.served.faults = None
        if "" in shown:
            assert Counter(filter(None, shown)) == Counter(
                filter(None, (value for value, _ in unit.all_circuits()))
            )


def test_rebooted_drops_all_connections_for_a_while_and_invalidates_all_nonces(unit: Unit) -> None:
    other = Unit(unit.served, unit.times)
    other.get(CIRCUITS_PAGE)
    idle = socket.create_connection(("127.0.0.1", int(unit.served.address.rpartition(":")[2])), timeout=10)
    tally = inject(unit, Fault.REBOOTED, reboot_s=2.0)
    unit.served.tally.requests.clear()
    start = time.monotonic()
    with pytest.raises(requests.ConnectionError):
        unit.get(CIRCUITS_PAGE)
    with idle, contextlib.suppress(ConnectionResetError):
        assert idle.recv(1) == b""
    with pytest.raises(requests.ConnectionError):
        other.get(CIRCUITS_PAGE)
    unit.served.faults = None
    assert (tally, unit.served.tally.requests) == ({Fault.REBOOTED: 1}, {CIRCUITS_PAGE: 1})
    time.sleep(max(0.0, start + 2.1 - time.monotonic()))
    unit.served.tally.refused = 0
    assert [unit.get(CIRCUITS_PAGE).status_code, other.get(CIRCUITS_PAGE).status_code] == [200, 200]
    assert unit.served.tally.refused == 2


def test_clock_off_changes_the_shown_clock_and_no_reading(unit: Unit) -> None:
    def readings() -> Any:
        return unit.flow(), unit.all_circuits(), unit.graph("52111", EVENING.date())

    correct, is_ahead = readings(), set()
    for seed in range(8):
        inject(unit, Fault.CLOCK_OFF, seed=seed)
        (offset,) = {clock_of(unit.get(path).text) - EVENING for path in PAGES[:-1]}
        assert timedelta(hours=1) <= abs(offset) <= timedelta(hours=12)
        is_ahead.add(offset > timedelta())
        assert readings() == correct
    assert is_ahead == {True, False}
    faults = Faults(3, 0.5, [Fault.CLOCK_OFF])
    hours = [bool(faults.clock_off(NOON.replace(minute=0) + timedelta(hours=n))) for n in range(2000)]
    assert 900 < sum(hours) < 1100
    assert len({faults.clock_off(EVENING.replace(minute=minute)) for minute in range(60)}) == 1


def test_dashes_replace_readings_and_nothing_else(unit: Unit) -> None:
    correct, correct_rows = unit.flow(), unit.circuits(1)
    inject(unit, Fault.DASHES)
    seen: set[str] = set()
    for _ in range(40):
        flow = unit.flow()
        assert flow.keys() == correct.keys()
        dashed = {key for key in flow if flow[key] != correct[key]}
        assert {flow[key] for key in dashed} == {"-"}
        seen |= dashed
        shown = unit.page(FLOW_HTML).get_element_by_id("g_capacity").text
        assert shown in {"-", correct["g_capacity"]}
        rows = unit.circuits(1)
        assert any(value == " -" for value, _ in rows)
        assert all(row in (true, (" -", true[1])) for row, true in zip(rows, correct_rows, strict=True))
    assert seen == {*(f"u_d_{n}_capacity" for n in (1, 2, 3)), "g_capacity", "u_capacity", "g_d_1_capacity"}
    with simulated(EVENING, Household(1, battery=True), faults=Faults(1, 1.0, [Fault.DASHES])) as home:
        assert {home.flow()["percent"] for _ in range(20)} == {"-", 49}


@pytest.mark.parametrize("kind", [Fault.WRONG_DAY, Fault.RESORTED, Fault.DASHES])
def test_a_page_gets_only_faults_that_it_can_show(unit: Unit, kind: Fault) -> None:
    correct = unit.get(CIRCUIT_LIST).content
    inject(unit, kind)
    assert unit.get(CIRCUIT_LIST).content == correct
    tally = inject(unit, kind, Fault.NOT_FOUND)
    assert unit.get(CIRCUIT_LIST).status_code == 404
    assert tally == {Fault.NOT_FOUND: 1}


def test_requests_without_a_login_get_faults_but_no_page(unit: Unit) -> None:
    tally = inject(unit, *ALL, slow_s=0.0, reboot_s=0.0)
    statuses: Counter[int] = Counter()
    for _ in range(60):
        try:
            statuses[unit.get_once(CIRCUITS_PAGE).status_code] += 1
        except DROPPED:
            statuses[0] += 1
    assert tally.keys() == BEFORE_THE_LOGIN
    assert statuses.keys() == {0, 200, 401, 404, 500, 502, 503}
    assert tally.total() == 60
    inject(unit, Fault.UNRELATED)
    assert not any("serverTime" in unit.get_once(CIRCUITS_PAGE).text for _ in range(20))


# Randomness


def test_a_seed_reproduces_its_faults_from_when_it_was_set(unit: Unit) -> None:
    def responses(seed: int) -> list[tuple[int, int]]:
        unit.served.faults = None
        unit.get(FLOW_HTML)
        unit.served.faults = replace(faults, seed=seed)
        seen = []
        for _ in range(40):
            try:
                response = get_authorized(unit)
                seen.append((response.status_code, len(response.content)))
            except DROPPED:
                seen.append((0, 0))
        return seen

    faults = Faults(7, 0.5, set(ALL) - {Fault.STALE_NONCE, Fault.REBOOTED}, slow_s=0.0)
    assert responses(7) == responses(7) != responses(8)


def test_faults_have_the_given_rate_and_equally_likely_kinds() -> None:
    faults = Faults(5, 0.05)
    drawn = [faults.draw(number, BEFORE_THE_LOGIN) for number in range(20_000)]
    kinds = Counter(fault.kind for fault in drawn if fault)
    assert 860 < kinds.total() < 1140
    assert kinds.keys() == BEFORE_THE_LOGIN
    assert min(kinds.values()) > 0.7 * kinds.total() / len(BEFORE_THE_LOGIN)
    # The possible kinds change which fault a request gets, not whether it gets one.
    fewer = [faults.draw(number, {Fault.SLOW, Fault.WRONG_DAY}) for number in range(20_000)]
    assert [bool(fault) for fault in fewer] == [bool(fault) for fault in drawn]


@pytest.mark.parametrize("wrong", [{"rate": -0.1}, {"rate": 1.1}, {"slow_s": -1}], ids=str)
def test_impossible_faults_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"the rate of faults is|must be at least"):
        Faults(**{"seed": 1, "rate": 0.1, **wrong})  # type: ignore[arg-type]  # mypy cannot see which is which


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--fault-rate 2", "2.0 is not in the range 0<=x<=1"),
        ("--fault-rate 0.1 --faults slow,broken", "'broken' is not a kind of fault"),
        ("--faults slow", "--faults needs --fault-rate: set the share of requests that fail, such as 0.05."),
    ],
)
def test_simulate_refuses_impossible_faults(arguments: str, message: str) -> None:
    result = CliRunner().invoke(main, ["simulate", *arguments.split()])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_simulate_injects_the_given_faults_until_a_signal_and_writes_no_errors(number: signal.Signals) -> None:
    port = free_port()
    options = f"--port {port} --fault-rate 0.5 --fault-seed 7 --faults not-found,Server-Error".split()
    command = [sys.executable, "-m", "aiseg2_pipeline.cli", "simulate", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            statuses = [status_when_it_listens(port) for _ in range(40)]
            reset_before_the_response(port)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(b"no HTTP at all\r\n\r\n")
                client.recv(1000)
        finally:
            process.send_signal(number)
            _, err = process.communicate(timeout=180)
    faults = Faults(7, 0.5, [Fault.NOT_FOUND, Fault.SERVER_ERROR])
    drawn = [faults.draw(request, BEFORE_THE_LOGIN) for request in range(40)]
    assert [status == 401 for status in statuses] == [fault is None for fault in drawn]
    assert set(statuses) == {401, 404, 500, 502, 503}
    assert (process.returncode, err) == (0, b"")


def status_when_it_listens(port: int) -> int:
    for _ in range(2000):
        try:
            return requests.get(f"http://127.0.0.1:{port}{CIRCUITS_PAGE}", timeout=10).status_code
        except requests.ConnectionError:
            time.sleep(0.05)
    raise TimeoutError("the simulator does not listen")


def reset_before_the_response(port: int) -> None:
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
