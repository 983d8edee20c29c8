"""The writer's errors for every answer: their class, one sentence, and no token."""

import logging
import socket
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiseg2_pipeline.influxdb.client import (
    BeyondRetention,
    InfluxError,
    InfluxWriter,
    Misconfigured,
    Rejected,
    Unavailable,
)
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.https_server import https_server
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.influxdb_proxy import Fault

TIME = datetime(2026, 7, 14, 8, 0, tzinfo=UTC)
SECRET = "s3cret-t0ken"
TUESDAY = "Tue, 14 Jul 2026 08:00"


def point(time: datetime = TIME, value: str = "1.5", series: str = "summary=総消費電力(kW)") -> str:
    return f"power,{series} value={value} {int(time.timestamp())}000000000"


@pytest.fixture
def writer(influx: Influx) -> Iterator[InfluxWriter]:
    with influx.writer() as writer:
        yield writer


def test_a_wrong_setting_is_named_and_the_token_is_not_shown(
    influx: Influx, caplog: pytest.LogCaptureFixture
) -> None:
    for logger in ("urllib3", "influxdb_client"):
        caplog.set_level(logging.DEBUG, logger)
    server = influx.server
    server.create_bucket("other")
    right: dict[str, Any] = {"url": influx.url, "token": influx.token, "org": influx.org, "bucket": influx.bucket}
    for setting, wrong in [
        ("INFLUXDB_TOKEN", {"token": SECRET}),
        ("INFLUXDB_TOKEN", {"token": f"{SECRET}\n"}),
        ("INFLUXDB_TOKEN", {"token": f"{SECRET}鍵"}),
        ("INFLUXDB_(TOKEN|BUCKET)", {"token": server.create_token(influx.bucket, write=False)}),
        ("INFLUXDB_(TOKEN|BUCKET)", {"token": server.create_token("other")}),
        ("INFLUXDB_ORG", {"org": "elsewhere"}),
        ("INFLUXDB_BUCKET", {"bucket": "elsewhere"}),
        ("INFLUXDB_USE_HTTPS", {"url": influx.url.replace("http:", "https:")}),
        ("INFLUXDB_HOST", {"url": f"{influx.url}/elsewhere"}),
        ("INFLUXDB_HOST", {"url": "http://no host"}),
    ]:
        writer = InfluxWriter(**(right | wrong))
        for action in (writer.check, lambda writer=writer: writer.write([point()])):
            with pytest.raises(Misconfigured, match=setting) as raised:
                action()
            assert_one_sentence_without_secrets(raised)
        assert SECRET not in repr(writer)
    assert caplog.text
    assert SECRET not in caplog.text
    assert influx.points() == []
    server.drop_bucket("other")


def assert_one_sentence_without_secrets(raised: pytest.ExceptionInfo[InfluxError]) -> None:
    assert "\n" not in str(raised.value)
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__context__ is None


def test_check_passes_and_stores_nothing(influx: Influx, writer: InfluxWriter) -> None:
    writer.check()
    body = b'{"code":"invalid","message":"writing requires points"}'
    influx.proxy.fault = lambda _: Fault(400, body=body)
    writer.check()
    assert influx.points() == []


def test_an_unreachable_server_may_be_retried() -> None:
    for url in (f"http://127.0.0.1:{free_port()}", "http://no-such-host.invalid:8086"):
        with pytest.raises(Unavailable, match="INFLUXDB_HOST") as raised:
            InfluxWriter(url, SECRET, "home", "b").check()
        assert_one_sentence_without_secrets(raised)


def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        writer = InfluxWriter(f"http://127.0.0.1:{silent.getsockname()[1]}", SECRET, "home", "b", timeout_s=60)
        with pytest.raises(Unavailable, match="did not answer in time"):
            writer.write([point()], timeout_s=0.05)


@pytest.mark.parametrize(
    ("status", "headers", "retry_after_s"),
    [
        (429, {"Retry-After": "30"}, 30),
        (503, {}, None),
        (500, {"Retry-After": "soon"}, None),
        (503, {"Date": f"{TUESDAY}:00 GMT", "Retry-After": f"{TUESDAY}:05 GMT"}, 5),
    ],
)
def test_a_server_that_is_busy_or_failing_may_be_retried(
    influx: Influx, writer: InfluxWriter, status: int, headers: dict[str, str], retry_after_s: float | None
) -> None:
    body = b'{"code":"internal error","message":"write /wal/1.wal: no space left on device"}'
    influx.proxy.fault = lambda _: Fault(status, headers, body)
    with pytest.raises(Unavailable, match=f"{status}: write /wal/1.wal: no space left on device") as raised:
        writer.write([point()])
    assert raised.value.retry_after_s == retry_after_s
    assert len(influx.proxy.requests) == 1


def test_a_type_conflict_is_refused_with_the_servers_reason(influx: Influx, writer: InfluxWriter) -> None:
    writer.write([point(value="1i")])
    with pytest.raises(Rejected, match="field type conflict") as raised:
        writer.write([point(TIME + timedelta(minutes=1)), point().replace("power", "other", 1)])
    assert "already exists as type integer" in raised.value.reason
    assert str(raised.value).endswith("so set INFLUXDB_BUCKET to another bucket.")
    assert not isinstance(raised.value, BeyondRetention)
    # The server stores the rest of a request of which it refuses a point.
    assert len(influx.points("other")) == 1


def test_the_reason_of_a_refused_line_is_shortened(writer: InfluxWriter) -> None:
    with pytest.raises(Rejected, match="unable to parse") as raised:
        writer.write([f"power,summary={'x' * 1000} value=beyond retention policy"])
    assert len(raised.value.reason) <= 300
    assert not isinstance(raised.value, BeyondRetention)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b"<html>welcome</html>"),
        (200, {}, b"\xff\xfe"),
        (302, {"Location": "http://127.0.0.1:9/login"}, b""),
        (400, {}, b"Client sent an HTTP request to an HTTPS server.\n"),
        *(
            (400, {}, body)
            for body in (b"[" * 100_000, b'{"message":' * 50_000, b'{"message":[]}', b"[]", b"7", b"\xff")
        ),
        (404, {}, b"404 page not found"),
        (405, {}, b""),
    ],
)
def test_an_answer_of_another_program_is_a_wrong_setting(
    influx: Influx, writer: InfluxWriter, status: int, headers: dict[str, str], body: bytes
) -> None:
    influx.proxy.fault = lambda _: Fault(status, headers, body)
    with pytest.raises(Misconfigured, match="INFLUXDB_HOST"):
        writer.write([point()])


def test_points_of_another_writer_are_found(writer: InfluxWriter) -> None:
    minutes = [TIME + timedelta(minutes=minute) for minute in range(4)]
    writer.write([point(time) for time in minutes])
    writer.write([point(TIME + timedelta(seconds=30), series="summary=総発電電力(kW)")])
    assert writer.other_writers(minutes[1], own_times=[minutes[2]]) == [minutes[1], minutes[3]]
    assert writer.other_writers(minutes[0], own_times=minutes) == []


def test_the_series_of_a_bucket_are_listed_by_their_tags(writer: InfluxWriter) -> None:
    writer.write([point(), point(series="detail-type=usage,detail-section=ＬＤ(W)")])
    assert writer.power_series(TIME) == {
        frozenset({("summary", "総消費電力(kW)")}),
        frozenset({("detail-type", "usage"), ("detail-section", "ＬＤ(W)")}),
    }


def test_a_bucket_may_be_given_by_its_id(influx: Influx) -> None:
    bucket = influx.server.client.buckets_api().find_bucket_by_name(influx.bucket)
    token = influx.server.create_token(influx.bucket)
    with InfluxWriter(influx.url, token, influx.org, bucket.id) as writer:
        writer.check()
        writer.write([point()])
        assert writer.other_writers(TIME, own_times=[]) == [TIME]
        writer.delete(TIME, TIME + timedelta(minutes=1))
    assert influx.points() == []


def test_a_token_that_may_only_write_does_everything_but_read(influx: Influx) -> None:
    token = influx.server.create_token(influx.bucket, read=False)
    with InfluxWriter(influx.url, token, influx.org, influx.bucket) as writer:
        writer.check()
        writer.write([point()])
        assert writer.other_writers(TIME, own_times=[]) is None
        assert writer.power_series(TIME) is None
        writer.delete(TIME, TIME + timedelta(minutes=1))
    assert influx.points() == []


def test_delete_removes_the_points_of_the_range_alone(influx: Influx, writer: InfluxWriter) -> None:
    minutes = [TIME + timedelta(minutes=minute) for minute in range(4)]
    measurements = ("power", "power_fill", "battery", "flow", "energy")
    for measurement in measurements:
        writer.write([point(time).replace("power", measurement, 1) for time in minutes])
    writer.delete(minutes[1], minutes[3])
    left = {name: [row["time"] for row in influx.points(name)] for name in measurements}
    kept = [minutes[0], minutes[3]]
    assert left == {**dict.fromkeys(measurements, kept), "energy": minutes}


def test_https_is_verified_by_default(tmp_path: Path) -> None:
    with https_server(tmp_path) as (url, certificate):
        with pytest.raises(Misconfigured, match="INFLUXDB_CA_FILE") as raised:
            InfluxWriter(url, SECRET, "home", "b").check()
        assert_one_sentence_without_secrets(raised)
        InfluxWriter(url, SECRET, "home", "b", verify=str(certificate)).check()
        with pytest.warns(match="Unverified HTTPS"):
            InfluxWriter(url, SECRET, "home", "b", verify=False).check()


def test_an_invalid_ca_file_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    for content in ("", "no certificate"):
        empty.write_text(content)
        with pytest.raises(Misconfigured, match=r"ca\.pem"):
            InfluxWriter("https://127.0.0.1:1", SECRET, "home", "b", verify=str(empty))
