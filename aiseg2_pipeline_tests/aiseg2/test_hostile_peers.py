"""Hostile devices: endless responses, invalid logins, and damaged files in the state folder."""

import io
import json
import tracemalloc
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.endpoints import Page
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Refused
from aiseg2_pipeline.aiseg2.transport import MAX_ANSWER_BYTES, Deadline
from aiseg2_pipeline_tests.support.device import PASSWORD, USER, household, serving
from aiseg2_pipeline_tests.support.invariants import assert_message
from aiseg2_pipeline_tests.support.wire import RawServer, raw_server

NOW = datetime(2026, 7, 14, 3, tzinfo=UTC)
MEBIBYTE = 2**20
FORM = b"<html><form><input NAME=csrftoken VALUE=1a2b></form></html>"


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as served:
        yield served


def client(url: str, folder: Path) -> Aiseg2Client:
    return Aiseg2Client(url, USER, PASSWORD, state_dir=folder, clock=lambda: NOW)


# Endless responses

MEBI_PAGE = b"<b>x</b>" * (MEBIBYTE // 8)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# The begin of a response, and the part that follows a hundred times.
ENDLESS = {
    "of a length": (OK + b"Content-Length: %d\r\n\r\n" % (100 * MEBIBYTE), MEBI_PAGE),
    "until it closes": (OK + b"\r\n", MEBI_PAGE),
    "of a length that lies": (OK + b"Content-Length: 99999999999999999999\r\n\r\n", MEBI_PAGE),
    "in one chunk": (CHUNKED + b"%x\r\n" % (100 * MEBIBYTE), MEBI_PAGE),
    "in many chunks": (CHUNKED, b"8\r\n<b>x</b>\r\n" * (MEBIBYTE // 8)),
    "in one header": (OK + b"X: ", MEBI_PAGE),
    "in many headers": (OK, b"X: y\r\n" * (MEBIBYTE // 6)),
    "of provisional answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * (MEBIBYTE // 25)),
    "of one chunk's size": (CHUNKED, b"1" * MEBIBYTE),
    "of a refused login": (b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % (100 * MEBIBYTE), MEBI_PAGE),
}


@pytest.mark.parametrize("how", ENDLESS)
def test_an_endless_response_is_refused_in_little_memory(server: RawServer, tmp_path: Path, how: str) -> None:
    server.answer, server.rest = ENDLESS[how]
    server.times = 100
    tracemalloc.start()
    try:
        with client(server.url, tmp_path) as device, pytest.raises(Aiseg2Error) as caught:
            # A download is not retried.
            device.transport.download(
                Page.EXPORT_FORM, io.BytesIO(), Deadline(60), max_bytes=MAX_ANSWER_BYTES, timeout_s=60
            )
        # A page may have 8 MiB, of which one copy is made.
        assert tracemalloc.get_traced_memory()[1] < 24 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert_message(caught.value, ("AISEG2_HOST",), MEBI_PAGE[:999])
    assert "too long" not in str(caught.value)


def test_a_provisional_response_is_skipped(server: RawServer, tmp_path: Path) -> None:
    server.answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (
        len(FORM),
        FORM,
    )
    with client(server.url, tmp_path) as device:
        assert device.export_token(Deadline(60)) == "1a2b"


# Logins

CHALLENGES = [
    'Digest realm="x", nonce',
    "Digest realm, nonce, qop, algorithm, opaque",
    'Digest realm="x", nonce="y", algorithm',
    'Digest realm="x", nonce="y", algorithm=ROT13',
    'Digest realm="x", nonce="y", qop="auth-int"',
    'Digest realm="\xff\x80", nonce="\xe3"',
    "Digest nonce=, realm=",
    "Digest ,,,",
    "Digest",
    "Basic realm=x",
    "",
    'Digest realm="' + "x" * 60_000 + '", nonce="y"',
]


@pytest.mark.parametrize("challenge", CHALLENGES, ids=[text[:40] for text in CHALLENGES])
def test_a_challenge_that_cannot_be_answered_is_a_refused_login(
    server: RawServer, tmp_path: Path, challenge: str
) -> None:
    server.answer = f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode(
        "latin-1"
    )
    with client(server.url, tmp_path) as device, pytest.raises(Refused, match="AISEG2_PASSWORD"):
        device.export_token(Deadline(60))
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(FORM), FORM)
    with client(server.url, tmp_path) as device:
        assert device.export_token(Deadline(60)) == "1a2b"


# Files of the state folder

NONCE: dict[str, object] = {"realm": "AiSEG2", "nonce": "n"}
REMEMBERED = {
    "circuits": [["8", "ＬＤ"]],
    "listed_at": NOW.timestamp(),
    "full_read_at": NOW.timestamp(),
    "dash_seen": False,
    "shown": {},
}
STATES: list[Mapping[str, object]] = [
    *({"challenge": NONCE | {"nonce": nonce}} for nonce in ("\ud800", "a\r\nX-Evil: 1", "寝室", None)),
    *(
        {"challenge": NONCE | changed}
        for changed in ({"realm": ["x"]}, {"qop": 7, "algorithm": {}}, {"opaque": "\0"})
    ),
    *({"nonce_count": count} for count in (10**4300 - 1, -1, True, 1e300)),
    *({"circuits": REMEMBERED | {"shown": {"ＬＤ": shown}}} for shown in ("\ud800", 7)),
    *({"circuits": REMEMBERED | {"circuits": circuits}} for circuits in ([["8", ["ＬＤ"]]], [["8"]])),
    {"circuits": REMEMBERED | {"full_read_at": float("inf")}},
    {"circuits": REMEMBERED | {"listed_at": float("nan")}},
    {"flow_html_only_since": float("nan")},
    {"other": "\udfff"},
]


@pytest.mark.parametrize("changed", STATES, ids=range(len(STATES)))
def test_a_damaged_state_file_costs_a_request_and_no_reading(
    tmp_path: Path, changed: Mapping[str, object]
) -> None:
    with serving(household([("ＬＤ<br />", " 5W")])) as device:
        owner = {"base_url": device.address}
        login = owner | {"user": USER, "challenge": NONCE, "nonce_count": 1} | dict(changed)
        for name, state in (("live-login.json", login), ("device.json", {"device": owner} | dict(changed))):
            (tmp_path / name).write_text(json.dumps(state), encoding="utf-8")
        for _ in range(2):
            with client(device.address, tmp_path) as reader:
                circuits = reader.live().circuits
            assert circuits is not None
            assert [row.name for row in circuits] == ["ＬＤ"]
