"""What garbage once did beyond the parsers, or could: answers without end, logins and files that no reading survived."""

import json
import struct
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Refused, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline.influxdb.client import InfluxWriter, Misconfigured, Rejected, Unavailable
from aiseg2_pipeline_tests.support.device import PASSWORD, USER, Page, household, serving
from aiseg2_pipeline_tests.support.fuzz_inputs import LIVE
from aiseg2_pipeline_tests.support.invariants import assert_sentence
from aiseg2_pipeline_tests.support.raw_server import RawServer, raw_server

NOW = datetime(2026, 7, 14, 3, tzinfo=UTC)
SINCE = datetime(2026, 7, 13, tzinfo=UTC)
MEBIBYTE = 2**20
FORM = b"<html><form><input NAME=csrftoken VALUE=1a2b></form></html>"


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as served:
        yield served


def client(url: str, folder: Path) -> Aiseg2Client:
    return Aiseg2Client(url, USER, PASSWORD, state_dir=folder, clock=lambda: NOW)


# Answers without end

MEBI_PAGE = b"<b>x</b>" * (MEBIBYTE // 8)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
# How an answer begins, and what then comes a hundred times.
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
def test_an_answer_of_a_hundred_megabytes_is_refused_in_little_memory(
    server: RawServer, tmp_path: Path, how: str
) -> None:
    server.answer, server.rest = ENDLESS[how]
    server.times = 100
    tracemalloc.start()
    try:
        with client(server.url, tmp_path) as device, pytest.raises(Aiseg2Error) as caught:
            # Shorter than the first pause before another try.
            device.export_token(Deadline(0.45))
        # Of what it may hold (8 MiB), one copy is made of the parts.
        assert tracemalloc.get_traced_memory()[1] < 24 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert_sentence(caught.value, ("AISEG2_HOST",), MEBI_PAGE[:999])


def test_a_provisional_answer_is_followed_by_the_one_that_counts(server: RawServer, tmp_path: Path) -> None:
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
def test_a_challenge_that_cannot_be_met_is_a_refused_login(
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

NONCE = {"realm": "AiSEG2", "nonce": "n"}
LOGINS = [
    ({"nonce": "\ud800"}, 1),
    ({"realm": "\udfff"}, 1),
    ({"nonce": "a\r\nX-Evil: 1"}, 1),
    ({"nonce": "寝室"}, 1),
    ({"nonce": None}, 1),
    ({"realm": ["x"]}, 1),
    ({"qop": 7, "algorithm": {}}, 1),
    ({"opaque": "\0"}, 1),
    ({}, 10**4300 - 1),
    ({}, -1),
    ({}, True),
    ({}, 1e300),
]


@pytest.mark.parametrize(("changed", "count"), LOGINS, ids=range(len(LOGINS)))
def test_a_damaged_login_costs_a_request_and_no_reading(
    tmp_path: Path, changed: dict[str, object], count: float
) -> None:
    with serving(household([("ＬＤ<br />", " 5W")])) as device:
        state = {"base_url": device.address, "user": USER, "challenge": NONCE | changed, "nonce_count": count}
        (tmp_path / "live-login.json").write_text(json.dumps(state), encoding="utf-8")
        for _ in range(2):
            with client(device.address, tmp_path) as reader:
                reading = reader.live()
            assert reading.circuits is not None
        assert "\\ud" not in (tmp_path / "live-login.json").read_text(encoding="utf-8")


REMEMBERED = {
    "circuits": [["8", "ＬＤ"]],
    "listed_at": NOW.timestamp(),
    "full_read_at": NOW.timestamp(),
    "dash_seen": False,
}
DEVICES = [
    {"circuits": REMEMBERED | {"shown": {"ＬＤ": "\ud800"}}},
    {"circuits": REMEMBERED | {"shown": {"ＬＤ": 7}}},
    {"circuits": REMEMBERED | {"shown": {}, "circuits": [["8", ["ＬＤ"]]]}},
    {"circuits": REMEMBERED | {"shown": {}, "circuits": [["8"]]}},
    {"circuits": REMEMBERED | {"shown": {}, "full_read_at": float("inf")}},
    {"circuits": REMEMBERED | {"shown": {}, "listed_at": float("nan")}},
    {"flow_html_only_since": float("nan")},
    {"other": "\udfff"},
]


@pytest.mark.parametrize("changed", DEVICES)
def test_a_damaged_memory_of_the_device_costs_a_request_and_no_reading(
    tmp_path: Path, changed: dict[str, object]
) -> None:
    with serving(household([("ＬＤ<br />", " 5W")])) as device:
        state = {"device": {"base_url": device.address}} | changed
        (tmp_path / "device.json").write_text(json.dumps(state), encoding="utf-8")
        for _ in range(2):
            with client(device.address, tmp_path) as reader:
                reading = reader.live()
            assert reading.circuits is not None
            assert [row.name for row in reading.circuits] == ["ＬＤ"]


# The card's zip, on its way

_LOCATOR = struct.pack("<4sIQI", b"PK\6\7", 1, 0, 9)
_END = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)


def test_a_zip_of_several_disks_is_refused(tmp_path: Path) -> None:
    pages: dict[str, Page] = {
        f"GET {LIVE['export page']}": FORM,
        f"GET {LIVE['export page']}?downType=1&csrftoken=1a2b": b"PK\3\4" + b"\0" * 80 + _LOCATOR + _END,
    }
    refused = pytest.raises(Unreadable, match="ends in the middle of the zip")
    with serving(pages) as device, client(device.address, tmp_path) as reader, refused:
        reader.download_export(tmp_path / "card.zip", Deadline(60))
    assert not list(tmp_path.glob("card*"))


# InfluxDB's answers


@pytest.fixture
def writer(server: RawServer) -> Iterator[InfluxWriter]:
    with InfluxWriter(server.url, "secret", "home", "aiseg2", timeout_s=5) as writing:
        yield writing


def answer(server: RawServer, status: int, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status} No\r\nConnection: close\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    server.answer = head.encode() + body


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"message":' * 50_000, b'{"message":[]}', b"[]", b"7", b"\xff"]
)
def test_a_refusal_that_is_not_influxdbs_names_its_address(
    server: RawServer, writer: InfluxWriter, body: bytes
) -> None:
    answer(server, 400, body)
    with pytest.raises(Misconfigured, match="INFLUXDB_HOST"):
        writer.write(["power value=1 1"])


def test_a_refusal_is_told_in_characters_that_can_be_shown(server: RawServer, writer: InfluxWriter) -> None:
    answer(server, 400, json.dumps({"message": "a\x1b[31m\0\u202eb\n\ud800" + "x" * 999}).encode())
    with pytest.raises(Rejected) as caught:
        writer.write(["power value=1 1"])
    assert str(caught.value).isprintable()
    assert len(caught.value.reason) <= 300


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ("Retry-After: 30\r\n", 30),
        ("Retry-After: ٣\r\n", None),
        (f"Retry-After: {'9' * 400}\r\n", None),
        ("Retry-After: -5\r\n", None),
        ("Date: Tue, 14 Jul 2026 03:00:00 GMT\r\nRetry-After: Tue, 14 Jul 99999999999 03:00:00 GMT\r\n", None),
        ("Date: x\r\nRetry-After: Tue, 14 Jul 2026 03:00:00 GMT\r\n", None),
    ],
)
def test_how_long_to_wait_is_a_number_or_unknown(
    server: RawServer, writer: InfluxWriter, headers: str, seconds: float | None
) -> None:
    answer(server, 503, b"", headers)
    with pytest.raises(Unavailable) as caught:
        writer.write(["power value=1 1"])
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("length", ["10000000000000000000", "999999999999999"])
def test_an_answer_of_a_length_that_no_memory_has_is_an_error_of_ours(
    server: RawServer, writer: InfluxWriter, length: str
) -> None:
    server.answer = f"HTTP/1.1 400 No\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n".encode()
    with pytest.raises((Misconfigured, Unavailable), match="INFLUXDB_"):
        writer.write(["power value=1 1"])


HEAD = "#datatype,string,long,dateTime:RFC3339\n#group,false,false,false\n#default,_result,,\n"
TABLES = ["{", ",", "#datatype,x\n,y,z\n", f"{HEAD},result,table,_time\n,,x,y\n", f"{HEAD},result,table,_time\n,,0\n",
          f"{HEAD},result,table,_time\n,,0,2026-07-14\n,,0,2026-07-14T03:00:00Z\n", f"{HEAD},result,table,other\n,,0,\n",
          "#datatype,string,long,duration\n" + HEAD.split("\n", 1)[1] + ",result,table,_time\n,,0,x\n", "\0"]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_is_none_answers_nothing(server: RawServer, writer: InfluxWriter, table: str) -> None:
    answer(server, 200, table.encode(), "Content-Type: text/csv\r\n")
    times = writer.other_writers(SINCE, ())
    assert times is None or all(time.tzinfo is not None for time in times)
    writer.power_series(SINCE)


def test_nothing_that_listens_is_no_garbage(tmp_path: Path) -> None:
    with raw_server() as gone:
        url = gone.url
    with client(url, tmp_path) as device, pytest.raises(Unreachable, match="nothing listens there"):
        device.export_token(Deadline(0.45))
