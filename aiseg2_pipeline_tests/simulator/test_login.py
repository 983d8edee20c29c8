"""The simulator's HTTP Digest login and its connections, with several clients."""

import re
import time
from http.client import HTTPConnection

import pytest
import requests
from requests.auth import HTTPDigestAuth

from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support.simulator_client import (
    CARD_PAGE,
    CIRCUIT_LIST,
    CIRCUITS_PAGE,
    FLOW,
    FLOW_HTML,
    Unit,
    simulated,
)


@pytest.fixture
def unit(shared: Unit) -> Unit:
    """A new session that is logged in."""
    unit = Unit(shared.served, shared.times)
    unit.flow()
    return unit


def test_a_session_logs_in_once() -> None:
    with simulated() as unit:
        for _ in range(3):
            unit.flow()
            unit.get(CIRCUITS_PAGE, id="1")
        assert unit.served.tally.refused == 1
        assert unit.served.tally.requests == {FLOW: 4, CIRCUITS_PAGE: 3}


@pytest.mark.parametrize(
    "path", [FLOW_HTML, CIRCUIT_LIST, "/page/graph/51111", CARD_PAGE, "/", "/action/anything"]
)
def test_every_path_needs_the_right_password(unit: Unit, path: str) -> None:
    user, password = unit.served.user, unit.served.password
    for auth in (None, HTTPDigestAuth(user, "wrong"), HTTPDigestAuth("wrong", password), (user, password)):
        response = requests.get(unit.url(path), auth=auth, timeout=10)
        assert response.status_code == 401
        challenge = response.headers["WWW-Authenticate"]
        assert re.fullmatch(
            r'Digest realm="AiSEG2", nonce="\w+", opaque="\w+", algorithm=MD5, qop="auth"', challenge
        )


@pytest.mark.parametrize(("old", "new"), [(r'(qop|algorithm)="(\w+)"', r"\1=\2"), (r"nc=(\w+)", r'nc="\1"')])
def test_values_of_the_login_may_be_quoted_or_not(unit: Unit, old: str, new: str) -> None:
    path = f"{CIRCUITS_PAGE}?id=2"
    header = re.sub(old, new, unit.authorization(path))
    assert unit.get_once(path, header).status_code == 200


def test_a_nonce_accepts_each_counter_once_in_any_order(unit: Unit) -> None:
    first, second, third = (unit.authorization(CIRCUIT_LIST) for _ in range(3))
    for header in (first, third, second):
        assert unit.get_once(CIRCUIT_LIST, header).status_code == 200
    again = unit.get_once(CIRCUIT_LIST, third)
    assert (again.status_code, "stale=true" in again.headers["WWW-Authenticate"]) == (401, True)


def test_an_expired_nonce_is_stale() -> None:
    with simulated(nonce_life_s=0) as unit:
        response = unit.get(FLOW_HTML)
        assert (response.status_code, "stale=true" in response.headers["WWW-Authenticate"]) == (401, True)


def test_a_session_survives_a_restart_of_the_simulator() -> None:
    with simulated() as unit:
        assert unit.get(FLOW_HTML).status_code == 200
    with running(port=int(unit.served.address.rpartition(":")[2])) as again:
        response = unit.get(FLOW_HTML)
        assert (response.status_code, "stale=true" in response.history[0].headers["WWW-Authenticate"]) == (
            200,
            True,
        )
        assert unit.get(FLOW_HTML).status_code == 200
        assert again.tally.refused == 1


@pytest.mark.parametrize("header", ["", "Digest", "Digest ,", "Digest nonce", 'Digest nc="x', "Basic YTpi", "Ｘ"])
def test_an_invalid_login_or_one_for_another_address_is_refused(unit: Unit, header: str) -> None:
    assert unit.get_once(FLOW_HTML, header).status_code == 401
    assert unit.get_once(f"{CIRCUITS_PAGE}?id=2", unit.authorization(CIRCUITS_PAGE)).status_code == 401


def test_a_connection_serves_many_requests(unit: Unit) -> None:
    connection = HTTPConnection(unit.served.address, timeout=10)
    sockets = set()
    for _ in range(3):
        connection.request("GET", FLOW_HTML, headers={"Authorization": unit.authorization(FLOW_HTML)})
        sockets.add(connection.sock)
        response = connection.getresponse()
        response.read()
        assert (response.status, response.version) == (200, 11)
    assert len(sockets) == 1
    connection.close()


def test_a_port_in_use_is_reported(unit: Unit) -> None:
    port = int(unit.served.address.rpartition(":")[2])
    with (
        pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}.*choose another port"),
        running(port=port),
    ):
        pass


def test_every_response_is_delayed_by_the_latency() -> None:
    with simulated(latency_s=0.05) as unit:
        start = time.monotonic()
        unit.get(FLOW_HTML)
        assert time.monotonic() - start >= 0.1
