"""Hostile responses of an InfluxDB: every one is an error of ours or an unknown value."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from aiseg2_pipeline.influxdb.client import InfluxWriter, Misconfigured, Rejected, Unavailable
from aiseg2_pipeline_tests.support.wire import RawServer, raw_server

SINCE = datetime(2026, 7, 13, tzinfo=UTC)


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as served:
        yield served


@pytest.fixture
def writer(server: RawServer) -> Iterator[InfluxWriter]:
    with InfluxWriter(server.url, "secret", "home", "aiseg2", timeout_s=5) as writing:
        yield writing


def answer(server: RawServer, status: int, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status} No\r\nConnection: close\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    server.answer = head.encode() + body


def test_a_refusal_is_reported_in_printable_characters(server: RawServer, writer: InfluxWriter) -> None:
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


def test_a_handshake_that_is_cut_is_one_message(server: RawServer) -> None:
    url = server.url.replace("http:", "https:")
    with (
        InfluxWriter(url, "t0ken", "home", "power", timeout_s=5) as writer,
        pytest.raises(Unavailable, match=f"The secure connection to {url} could not be made: check INFLUXDB"),
    ):
        writer.write(["power,summary=a value=1 1"])


RULES = '{"buckets":[{"orgID":"1","name":"aiseg2","retentionRules":%s}]}'


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        '{"buckets":7}',
        *(RULES % each for each in ("7", "[7]", '[{"everySeconds":"x"}]', f'[{{"everySeconds":{"9" * 30}}}]')),
    ],
)
def test_a_retention_that_is_none_is_unknown(server: RawServer, writer: InfluxWriter, body: str) -> None:
    answer(server, 200, body.encode(), "Content-Type: application/json\r\n")
    assert writer.retention() is None
