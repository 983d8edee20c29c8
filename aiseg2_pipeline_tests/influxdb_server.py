"""A real InfluxDB for the tests and for trying the pipeline by hand.

What Debian ships is InfluxDB 1.6, a real server with the real line-protocol parser and storage. In front of it
stands a small web application that speaks the part of InfluxDB 2's API that the pipeline uses (write, delete,
ping, health, and the two Flux queries of `aiseg2_pipeline.influx`) and answers refusals as InfluxDB 2 does. A test
can put a fault there; everything else is the server's own doing.

By hand, until Ctrl-C (then set INFLUXDB_HOST=127.0.0.1:8086, INFLUXDB_ORG, INFLUXDB_BUCKET and INFLUXDB_TOKEN):

    python -m aiseg2_pipeline_tests.influxdb_server --port 8086 --org home --bucket aiseg2 --token T --data DIR
"""

import argparse
import asyncio
import csv
import gzip
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pandas as pd
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from aiseg2_pipeline import influx
from aiseg2_pipeline.points import CONSUMPTION_SUMMARY
from aiseg2_pipeline.readings import KEY, Row, frame
from aiseg2_pipeline_tests.faulty_influxdb import Exchange, Fault, InfluxFaults

__all__ = ["Exchange", "Fault", "InfluxServer"]

_PRECISIONS = {"ns": "n", "us": "u", "ms": "ms", "s": "s"}
_CODES = {400: "invalid", 404: "not found", 413: "request too large", 422: "unprocessable entity"}
# Longer than the pipeline waits for an answer (10 s).
SLOW_S = 12.0
_CONFIG = """\
reporting-disabled = true
bind-address = "127.0.0.1:0"
[meta]
dir = "{data}/meta"
[data]
dir = "{data}/data"
wal-dir = "{data}/wal"
[http]
bind-address = "127.0.0.1:0"
log-enabled = false
[monitor]
store-enabled = false
"""


class InfluxServer:
    """influxd and its front. Both listen on the loopback interface only.

    `url` is the front's address; `fault`, when set, is asked about each write first; `requests` are the writes,
    deletes and queries so far.
    """

    def __init__(self, data: Path, *, org: str = "home", token: str, port: int = 0) -> None:
        self.org = org
        self.token = token
        self.may_read = True
        self.requests: list[Exchange] = []
        self.fault: Callable[[Exchange], Fault | None] | None = None
        self._data = data
        self._influxd: subprocess.Popen[bytes] | None = None
        self._influxd_url = "http://127.0.0.1:0"
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        routes = [
            Route("/api/v2/write", self._write, methods=["POST"]),
            Route("/api/v2/delete", self._delete, methods=["POST"]),
            Route("/api/v2/query", self._query, methods=["POST"]),
            Route("/ping", self._ping, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
        ]
        # A fault brings its own Date.
        config = uvicorn.Config(
            Starlette(routes=routes), log_config=None, log_level="critical", lifespan="off", date_header=False
        )
        self._front = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._front.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> Self:
        """Start the server and the front."""
        self.start()
        self._thread.start()
        while not self._front.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both; the data stays."""
        self._front.should_exit = True
        self._thread.join()
        self._socket.close()
        self.stop()

    def start(self) -> None:
        """Start influxd on the data it had; returns when it listens."""
        self._data.mkdir(parents=True, exist_ok=True)
        config = self._data / "influxd.conf"
        config.write_text(_CONFIG.format(data=self._data), encoding="utf-8")
        log = self._data / "influxd.log"
        with log.open("wb") as output:
            self._influxd = subprocess.Popen(  # noqa: S603 - our own arguments
                [_influxd_path(), "run", "-config", str(config)], stdout=output, stderr=output
            )
        while not (listening := re.search(r'"Listening on HTTP".* addr=(\S+)', log.read_text(encoding="utf-8"))):
            if self._influxd.poll() is not None:
                raise RuntimeError(f"influxd ended while starting: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.01)
        self._influxd_url = f"http://{listening[1]}"

    def stop(self) -> None:
        """Stop influxd, keeping its data; the front then answers 503."""
        if self._influxd is not None:
            self._influxd.terminate()
            self._influxd.wait(timeout=30)
            self._influxd = None

    def kill(self) -> None:
        """End influxd as a power failure does."""
        if self._influxd is not None:
            self._influxd.kill()
            self._influxd.wait(timeout=30)
            self._influxd = None

    @property
    def running(self) -> bool:
        """Whether influxd runs."""
        return self._influxd is not None

    def create_bucket(self, name: str, retention: str | None = None) -> None:
        """Create a bucket; `retention` as in InfluxQL (`2h` at the least), none: for ever."""
        duration = f" WITH DURATION {retention}" if retention else ""
        self._statement(f"CREATE DATABASE {_identifier(name)}{duration}")

    def drop_bucket(self, name: str) -> None:
        """Remove a bucket and all in it."""
        self._statement(f"DROP DATABASE {_identifier(name)}")

    def query(self, influxql: str, bucket: str) -> list[dict[str, Any]]:
        """Return the rows of an InfluxQL query, `time` in nanoseconds; tags of a GROUP BY are columns as well."""
        series = self._statement(influxql, bucket).get("series", [])
        return [
            dict(zip(one["columns"], values, strict=True)) | one.get("tags", {})
            for one in series
            for values in one["values"]
        ]

    def readings(self, bucket: str) -> pd.DataFrame:
        """Return what a bucket holds as a readings frame, ordered by its key."""
        fills = {
            (row["time"], *_series(row)): int(row["interval_s"])
            for row in self.query("SELECT interval_s FROM power_fill GROUP BY *", bucket)
        }
        rows = []
        for measurement in ("power", "battery"):
            for row in self.query(f"SELECT value FROM {measurement} GROUP BY *", bucket):  # noqa: S608 - our names
                kind, label = _series(row, measurement)
                name, _, unit = label.removesuffix(")").rpartition("(") if label.endswith(")") else (label, "", "")
                interval_s = fills.pop((row["time"], kind, label), 0)
                rows.append(
                    Row(pd.Timestamp(row["time"], tz="UTC"), kind, name, float(row["value"]), unit, interval_s)
                )
        assert not fills, f"these tell of a fill that is not there: {fills}"
        return frame(rows).sort_values(KEY, ignore_index=True)

    def _statement(self, influxql: str, bucket: str = "") -> dict[str, Any]:
        answer = requests.post(
            f"{self._influxd_url}/query", params={"db": bucket, "epoch": "ns"}, data={"q": influxql}, timeout=30
        ).json()
        result: dict[str, Any] = answer["results"][0] if "results" in answer else answer
        if "error" in result:
            raise RuntimeError(f"influxd refused `{influxql}`: {result['error']}")
        return result

    async def _write(self, request: Request) -> Response:
        body = await request.body()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        exchange = Exchange(request.url.path, dict(request.query_params), body.decode().split("\n"))
        self.requests.append(exchange)
        fault = self.fault(exchange) if self.fault else None
        answer: Response | None = None
        if fault is None or fault.take:
            answer = self._refusal(request) or await run_in_threadpool(self._pass_on, exchange.params, body)
        if fault is not None:
            if fault.then is not None:
                fault.then()
            await asyncio.sleep(fault.delay_s)
            if fault.cut:
                answer = _Cut()
            elif fault.status is not None:
                answer = Response(fault.body, fault.status, dict(fault.headers))
        assert answer is not None
        exchange.status = 0 if isinstance(answer, _Cut) else answer.status_code
        return answer

    def _pass_on(self, params: Mapping[str, str], body: bytes) -> Response:
        """Hand a write to influxd and say in InfluxDB 2's words what it answers."""
        bucket = params["bucket"]
        precision = _PRECISIONS[params.get("precision", "ns")]
        try:
            answer = requests.post(
                f"{self._influxd_url}/write", params={"db": bucket, "precision": precision}, data=body, timeout=30
            )
        except requests.RequestException:
            return JSONResponse(
                {"code": "unavailable", "message": "the server is down"}, 503, headers={"Retry-After": "1"}
            )
        if answer.ok:
            return Response(status_code=204)
        message = answer.json()["error"]
        status = answer.status_code
        if status == 404:
            message = f'bucket "{bucket}" not found'
        elif "field type conflict" in message or "retention policy" in message:
            status = 422
            message = f"failure writing points to database: {message}"
        return _error(status, message)

    async def _delete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(Exchange(request.url.path, dict(request.query_params), []))
        if refusal := self._refusal(request):
            return refusal
        terms = re.findall(r'"?([\w-]+)"? *= *"((?:[^"\\]|\\.)*)"', body.get("predicate", ""))
        measurement = dict(terms)["_measurement"]
        where = [f"{_identifier(key)} = {_string(value)}" for key, value in terms if key != "_measurement"]
        where += [f"time >= {_string(body['start'])}", f"time <= {_string(body['stop'])}"]
        statement = f"DELETE FROM {_identifier(measurement)} WHERE {' AND '.join(where)}"  # noqa: S608 - quoted above
        await run_in_threadpool(self._statement, statement, request.query_params["bucket"])
        return Response(status_code=204)

    async def _query(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(Exchange(request.url.path, dict(request.query_params), []))
        if refusal := self._refusal(request):
            return refusal
        if not self.may_read:
            return JSONResponse({"code": "unauthorized", "message": "unauthorized access"}, 401)
        given = {
            one["assignment"]["id"]["name"]: one["assignment"]["init"]["value"] for one in body["extern"]["body"]
        }
        bucket, since = given["fromBucket"], f"time >= {_string(given['since'])}"
        match body["query"]:
            case influx.OTHER_WRITERS_FLUX:
                tables = await run_in_threadpool(self._consumption_times, bucket, since)
            case influx.SERIES_FLUX:
                tables = await run_in_threadpool(self._power_series, bucket, since)
            case _:
                return _error(400, "this front knows two queries only")
        return Response("\r\n".join(tables), media_type="text/csv")

    def _consumption_times(self, bucket: str, since: str) -> list[str]:
        where = f"summary = {_string(CONSUMPTION_SUMMARY)} AND {since}"
        rows = self.query(f"SELECT value FROM power WHERE {where}", bucket)  # noqa: S608 - quoted above
        return _table("dateTime:RFC3339", ["_time"], [[_rfc3339(row["time"])] for row in rows])

    def _power_series(self, bucket: str, since: str) -> list[str]:
        """Return a table for each series: not all have the same tags."""
        rows = self.query(f"SELECT last(value) FROM power WHERE {since} GROUP BY *", bucket)  # noqa: S608 - quoted above
        every = [{name: row[name] for name in row if name not in ("time", "last") and row[name]} for row in rows]
        return [line for tags in every for line in _table("string", list(tags), [list(tags.values())])]

    async def _ping(self, _: Request) -> Response:
        return Response(status_code=204, headers={"X-Influxdb-Version": "v2.7", "X-Influxdb-Build": "OSS"})

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"name": "influxdb", "message": "ready", "status": "pass"})

    def _refusal(self, request: Request) -> Response | None:
        """Return what InfluxDB 2 answers for a wrong token or organization, which it checks in this order."""
        if request.headers.get("Authorization") != f"Token {self.token}":
            return JSONResponse({"code": "unauthorized", "message": "unauthorized access"}, 401)
        if (org := request.query_params.get("org")) != self.org:
            return _error(404, f'organization name "{org}" not found')
        return None


class _Cut(Response):
    """An answer that breaks off: a length is promised, the connection closes without it."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})


def _series(row: Mapping[str, Any], measurement: str = "power") -> tuple[str, str]:
    """Return kind and label of a row's series; an absent tag is empty, as InfluxQL gives it."""
    if measurement == "battery":
        return "battery", row["detail-section"]
    return (row["detail-type"], row["detail-section"]) if row.get("detail-type") else ("total", row["summary"])


def _error(status: int, message: str) -> Response:
    return JSONResponse({"code": _CODES[status], "message": message}, status)


def _identifier(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _table(datatype: str, columns: list[str], rows: list[list[str]]) -> list[str]:
    """Return a table of Flux's annotated CSV, all columns of one type."""
    annotations = [
        ["#datatype", "string", "long", *([datatype] * len(columns))],
        ["#group", "false", "false", *(["false"] * len(columns))],
        ["#default", "_result", *([""] * (len(columns) + 1))],
        ["", "result", "table", *columns],
    ]
    text = io.StringIO()
    csv.writer(text).writerows([*annotations, *(["", "", "0", *row] for row in rows), []])
    return text.getvalue().split("\r\n")


def _rfc3339(time_ns: int) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time_ns // 10**9))}Z"


def _influxd_path() -> str:
    path = shutil.which("influxd")
    if path is None:
        raise FileNotFoundError("influxd is not installed: run .ci/install-servers (Debian's package influxdb)")
    return path


@contextmanager
def _data_directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given.resolve()
    else:
        with tempfile.TemporaryDirectory() as directory:
            yield Path(directory)


def main() -> None:
    """Run the server by hand until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A real InfluxDB to try the pipeline against, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=8086)
    parser.add_argument("--org", default="home")
    parser.add_argument("--bucket", default="aiseg2")
    parser.add_argument("--token", required=True)
    parser.add_argument("--data", type=Path, help="where its data lives (default: a folder that is removed again)")
    parser.add_argument(
        "--fault-rate", type=float, default=0.0, help="how likely a fault is at each write (0 to 1)"
    )
    parser.add_argument("--fault-seed", type=int, default=1, help="the same seed draws the same faults")
    options = parser.parse_args()
    # Ended by a supervisor it stops influxd as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            _data_directory(options.data) as data,
            InfluxServer(data, org=options.org, token=options.token, port=options.port) as server,
        ):
            server.create_bucket(options.bucket)
            if options.fault_rate:
                server.fault = InfluxFaults(options.fault_seed, options.fault_rate, slow_s=SLOW_S)
            print(f"InfluxDB listens on {server.url}, organization {options.org}, bucket {options.bucket}.")  # noqa: T201 - it is a command
            threading.Event().wait()
    except KeyboardInterrupt:
        sys.exit(0)
    except OSError as error:
        sys.exit(f"InfluxDB could not be started: {error}.")


if __name__ == "__main__":
    main()
