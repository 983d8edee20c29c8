"""The fuzz targets: each parser of untrusted or damaged data, with valid inputs and its permitted errors."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import astuple, dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

from aiseg2_pipeline.aiseg2 import battery_flow, climate, graphs, live_circuits, pages
from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import Exchange
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.state import load_state
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline.influxdb.client import InfluxError, InfluxWriter, Unavailable
from aiseg2_pipeline.ingest.climate import Sensors
from aiseg2_pipeline_tests.support.fuzz import Mutator, zipped
from aiseg2_pipeline_tests.support.fuzz_inputs import CIRCUIT, LIVE, state_files, valid_inputs
from aiseg2_pipeline_tests.support.invariants import assert_message, assert_valid
from aiseg2_pipeline_tests.support.line_protocol import read_back
from aiseg2_pipeline_tests.support.wire import RawServer, raw_server

LATER = datetime(2030, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 7, 14, 3, tzinfo=UTC)
# Shorter than the delay before a retry.
_ONE_ATTEMPT_S = 0.45
_MAX_BYTES = 9 * 2**20
_LABEL = re.compile(rb"\n(20[0-9]{2})([0-9]{2})?([0-9]{2})?")

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A parser: `read` returns its result or raises one of `errors`, whose message has one of `names`.

    `quotes`: the message may quote the input. `share` is the target's share of the inputs, for slow ones less than 1.
    """

    name: str
    valid: Sequence[bytes]
    read: Read
    names: Sequence[str] = ()
    mutate: Callable[[Mutator, Sequence[bytes]], bytes] = Mutator.mutate
    errors: tuple[type[Exception], ...] = (Unreadable, NoData)
    quotes: bool = False
    share: float = 1.0

    def input(self, seed: int, number: int) -> bytes:
        """Return the input with this number, which depends on nothing else than the seed."""
        rng = Random(f"{seed}/{self.name}/{number}")  # noqa: S311 - no secret
        return self.mutate(Mutator(rng), self.valid)[:_MAX_BYTES]

    def outcome(self, body: bytes) -> str:
        """Return "read" or the name of the permitted error; any other exception is a failure."""
        try:
            value = self.read(body)
        except self.errors as error:
            assert_message(error, self.names, b"" if self.quotes else body)
            return type(error).__name__
        assert_valid(value)
        return "read"


@contextmanager
def targets(folder: Path) -> Iterator[list[Target]]:
    """Provide all targets, with a server for those that need one; their files are in `folder`."""
    valid = valid_inputs()
    with raw_server() as server:
        yield [*_pages(valid), *_card(valid, folder / "card.zip"), *_responses(server, folder), _names()]


def _pages(valid: dict[str, list[bytes]]) -> Iterator[Target]:
    reads: dict[str, Read] = {
        "flow json": pages.flow_from_json,
        "battery flow": _battery_flow,
        "flow html": pages.flow_from_html,
        "circuit page": lambda body: pages.circuit_page(body, 1),
        "circuit list": pages.circuit_list,
        "climate": _climate,
        "export page": pages.export_token,
    }
    for name, read in reads.items():
        yield Target(name, valid[name], read, (LIVE[name], LIVE[name].partition("?")[0]))
    for key in (key for key in valid if key.startswith("graph ")):
        series = key.removeprefix("graph ")
        is_circuit = series == graphs.USAGE
        path = graphs.CIRCUIT_GRAPH if is_circuit else graphs.graph_page(cast(graphs.Series, series))
        yield Target(key, valid[key], partial(_graph, series), (path, "no energy of"))


def _battery_flow(body: bytes) -> object:
    # Without the signs, which are directions.
    return [power_kw and abs(power_kw) for power_kw in astuple(battery_flow.battery_flow(body, Exchange.SELLING))]


def _climate(body: bytes) -> object:
    source = climate.ClimateSource.PAGE_43
    page = climate.climate_page(body, 1, source)
    for problem in page.problems:
        assert_message(Unreadable(problem), (source.value,), b"")
    return replace(page, problems=())


def _graph(series: str, body: bytes) -> object:
    if series == graphs.USAGE:
        return graphs.circuit_graph(body, CIRCUIT)
    graph = graphs.graph(body, cast(graphs.Series, series))
    return graph, graphs.day_from_web(graph) if series == "consumption" else None


def _card(valid: dict[str, list[bytes]], file: Path) -> Iterator[Target]:
    yield Target("zip", valid["zip"], partial(_zip, file), ("SD card",), Mutator.zip, share=0.25)
    for key in _TABLES:
        yield Target(key, valid[key], partial(_csv, file, key), (key,), Mutator.table, share=0.2)


def _zip(file: Path, body: bytes) -> object:
    file.write_bytes(body)
    with Export(file, made_at=LATER) as card:
        days = [*card.days()[:3], date(2026, 7, 14)]
        return [read(card, day) for day in days for read in _TABLES.values()]


# By kind of file, how to read the one that contains a day.
_TABLES: dict[str, Callable[[Export, date], object]] = {
    "30minhistory": lambda card, day: (card.half_hours(day), card.circuit_names(day)),
    "hourhistory": lambda card, day: card.hours(day),
    "dayhistory": lambda card, day: card.day_totals(day),
    "monthhistory": lambda card, day: card.month_totals(day.year),
    "daycost": lambda card, day: card.day_costs(day),
}
_PERIODS = {"30min": "%Y%m%d", "hour": "%Y%m%d", "day": "%Y%m", "month": "%Y"}


def _csv(file: Path, key: str, body: bytes) -> object:
    """Read a file under the name that fits the label of its first row."""
    day = date(2026, 7, 14)
    if found := _LABEL.search(body):
        with suppress(ValueError):
            day = date(*(int(part or 1) for part in found.groups()))
    step = key.removesuffix("history").removesuffix("cost")
    file.write_bytes(zipped({f"{key}_rc_{day.strftime(_PERIODS[step])}.csv": body}))
    with Export(file, made_at=LATER) as card:
        return _TABLES[key](card, day)


def _responses(server: RawServer, folder: Path) -> Iterator[Target]:
    """Yield the targets that read an HTTP response, and the state files of the device's client."""
    form = b"<html><form><input NAME=csrftoken VALUE=1a2b></form></html>"
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(form), form)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    challenge = (
        b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm="AiSEG2", nonce="ab01", algorithm=MD5, qop="auth"'
        b', opaque="o", stale=FALSE\r\nContent-Length: 5\r\n\r\nlogin'
    )

    def token(answer: bytes, deadline_s: float) -> str:
        server.answer = answer
        with Aiseg2Client(server.url, "aiseg", "secret", state_dir=folder, clock=lambda: NOW) as client:
            return client.export_token(Deadline(deadline_s))

    def read_state(body: bytes) -> object:
        for name in ("live-login.json", "device.json", "climate.json"):
            (folder / name).write_bytes(body.replace(b"@url@", server.url.encode()))
        assert token(page, 60) == "1a2b"
        memory = live_circuits.Memory.from_state(load_state(folder / "device.json").get("circuits"))
        assert live_circuits.Memory.from_state(json.loads(json.dumps(memory.to_state()))) == memory
        sensors = Sensors(folder, server.url)
        sensors.due(NOW)
        for source in climate.ClimateSource:
            sensors.seen(NOW, source)
            assert sensors.sources(NOW) == (source,)
        assert sensors.due(NOW)
        return memory.names

    device = (server.url, "AISEG2")
    responses = [page, chunked, *[challenge] * 3]
    yield Target(
        "http response",
        responses,
        lambda body: token(body, _ONE_ATTEMPT_S),
        device,
        errors=(Aiseg2Error,),
        share=0.2,
    )
    yield Target("state files", state_files(), read_state, device, errors=(), share=0.2)

    refusals = [
        (400, '{"code":"invalid","message":"unable to parse \'power,a=b\': missing fields"}', ""),
        (422, '{"code":"unprocessable entity","message":"partial write: points beyond retention policy dropped=1"}', ""),
        (404, '{"code":"not found","message":"bucket \\"x\\" not found"}', ""),
        (429, "", "Retry-After: 30\r\n"),
        (503, '{"error":"timeout"}', "Date: Tue, 14 Jul 2026 03:00:00 GMT\r\nRetry-After: Tue, 14 Jul 2026 03:00:30 GMT\r\n"),
    ]  # fmt: skip
    refused = [
        f"HTTP/1.1 {status} No\r\n{headers}Connection: close\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
        for status, text, headers in refusals
    ]
    table = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nConnection: close\r\n\r\n"
        b"#datatype,string,long,dateTime:RFC3339,string\r\n#group,false,false,false,true\r\n#default,_result,,,\r\n"
        b",result,table,_time,summary\r\n,,0,2026-07-14T03:00:00Z,x(kW)\r\n\r\n"
    )

    def write(body: bytes) -> None:
        server.answer = body
        with InfluxWriter(server.url, "t", "home", "bucket", timeout_s=2) as writer:
            try:
                writer.write(["power value=1 1"])
            except Unavailable as error:
                assert_valid(error.retry_after_s)
                raise

    def query(body: bytes) -> None:
        server.answer = body
        # The library prints warnings.
        with redirect_stdout(None), InfluxWriter(server.url, "t", "home", "bucket", timeout_s=2) as writer:
            writer.power_series(NOW)
            writer.other_writers(NOW, ())

    influx = partial(
        Target, names=(server.url, "InfluxDB", "bucket"), errors=(InfluxError,), quotes=True, share=0.2
    )
    yield influx("influxdb refusal", refused, write)
    yield influx("influxdb table", [table, refused[1]], query)


def _names() -> Target:
    """Return the target whose inputs are names, which become points."""

    def names(mutator: Mutator, _: Sequence[bytes]) -> bytes:
        return json.dumps([mutator.name() for _ in range(mutator.rng.randrange(1, 20))]).encode()

    def read(body: bytes) -> None:
        read_back([clean_name(name) for name in json.loads(body)])

    return Target("names to points", [], read, mutate=names, errors=(), share=0.05)
