"""Every parser of what is untrusted or can be damaged, each with good inputs and with what must hold of it.

`read` returns what the parser returns, or raises an error of ours; anything else is an escape. `test_garbage` gives
each some thousands of spoiled inputs, `benchmarks.fuzz` a million.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

from aiseg2_pipeline.aiseg2 import climate, graphs, live_circuits, pages
from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import CircuitList, CircuitPage, ClimatePage
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.transport import Deadline, load_state
from aiseg2_pipeline.influxdb.client import InfluxError, InfluxWriter, Unavailable
from aiseg2_pipeline.ingest.climate import Sensors
from aiseg2_pipeline_tests.support.device import circuit_list, circuit_page
from aiseg2_pipeline_tests.support.fuzz import Garbage
from aiseg2_pipeline_tests.support.fuzz_inputs import CIRCUIT, LIVE, MOMENTS, pages_of_moments, state_files
from aiseg2_pipeline_tests.support.fuzz_zips import spoiled_csv, spoiled_zip, zipped
from aiseg2_pipeline_tests.support.invariants import assert_message, assert_valid
from aiseg2_pipeline_tests.support.line_protocol import read_back
from aiseg2_pipeline_tests.support.raw_server import RawServer, raw_server

LATER = datetime(2030, 1, 1, tzinfo=UTC)
NOW = datetime.fromisoformat(MOMENTS[0]).astimezone(UTC)
# Less than the first pause before another try: what fails, fails once.
_ONE_TRY_S = 0.45
# More than any answer may have.
_MAX_BYTES = 9 * 2**20
_BETWEEN = b"\n=====\n"
_LABEL = re.compile(rb"\n(20[0-9]{2})([0-9]{2})?([0-9]{2})?")

Read = Callable[[bytes], object]
Spoil = Callable[[Garbage, Sequence[bytes]], bytes]


@dataclass(frozen=True)
class Parser:
    """`names` are the words of which an error says one: the page, the file, the server.

    `quotes`: an error may hold some of the other side's own words. `share`: of the inputs, where most parsers get 1.
    """

    name: str
    good: Sequence[bytes]
    read: Read
    names: Sequence[str] = ()
    spoil: Spoil = Garbage.spoil
    errors: tuple[type[Exception], ...] = (Unreadable, NoData)
    quotes: bool = False
    share: float = 1.0


def spoiled(parser: Parser, seed: int, number: int, lures: Sequence[str]) -> bytes:
    """Return the input of a number: the same for the same seed, whatever else is run."""
    chance = Random(f"{seed}/{parser.name}/{number}")  # noqa: S311 - no secret
    return parser.spoil(Garbage(chance, lures), parser.good)[:_MAX_BYTES]


def outcome(parser: Parser, body: bytes) -> str:
    """Return what a parser made of an input: "read", or its error's name. An AssertionError, or any other, escapes."""
    try:
        value = parser.read(body)
    except parser.errors as error:
        assert_message(error, parser.names, b"" if parser.quotes else body)
        return type(error).__name__
    assert_valid(value)
    return "read"


@contextmanager
def parsers(folder: Path) -> Iterator[list[Parser]]:
    """Give every parser; files go to `folder`, and what needs a server has one while this lasts."""
    good = pages_of_moments()
    with raw_server() as server:
        yield [
            *_pages(good),
            *_card(good, folder / "card.zip"),
            _circuits(),
            *_states(folder),
            *_answers(server, folder),
            _names(),
        ]


def _pages(good: dict[str, list[bytes]]) -> Iterator[Parser]:
    reads: dict[str, Read] = {
        "flow json": pages.flow_from_json,
        "flow html": pages.flow_from_html,
        "circuit page": lambda body: pages.circuit_page(body, 1),
        "circuit list": pages.circuit_list,
        "climate": lambda body: _climate(climate.climate_page(body, 1)),
        "export page": pages.export_token,
    }
    for name, read in reads.items():
        yield Parser(name, good[name], read, (LIVE[name], LIVE[name].partition("?")[0]))
    clocks = [body for name in ("circuit page", "circuit list") for body in good[name]]
    clocks = [body[(at := body.find(b"serverTime")) - 9 : at + 130] for body in clocks]
    yield Parser("device time", clocks, pages.device_time)
    for key in (key for key in good if key.startswith("graph ")):
        series = key.removeprefix("graph ")
        of_circuit = series == graphs.USAGE
        path = graphs.CIRCUIT_GRAPH if of_circuit else graphs.graph_page(cast(graphs.Series, series))
        yield Parser(key, good[key], partial(_graph, series), (path, "no energy of"))


def _graph(series: str, body: bytes) -> object:
    if series == graphs.USAGE:
        return graphs.circuit_graph(body, CIRCUIT)
    shown = graphs.graph(body, cast(graphs.Series, series))
    if series == "consumption":
        return shown, graphs.day_from_web(shown)
    return shown


def _climate(page: ClimatePage) -> object:
    for problem in page.problems:
        assert_message(Unreadable(problem), (climate.CLIMATE,), b"")
    return replace(page, problems=())


def _card(good: dict[str, list[bytes]], file: Path) -> Iterator[Parser]:
    yield Parser("zip", good["zip"], partial(_zip, file), ("SD card",), spoiled_zip)
    for key in (key for key in good if key in _TABLES):
        # The kinds are read by one parser.
        yield Parser(key, good[key], partial(_csv, file, key), (key,), spoiled_csv, share=0.4)


def _zip(file: Path, body: bytes) -> object:
    file.write_bytes(body)
    told: list[object] = []
    with Export(file, made_at=LATER) as card:
        days = card.days()
        for day in [*days[:3], date(2026, 7, 14)]:
            told += (read(card, day) for read in _TABLES.values())
    return told


# What reads each kind of file, of the day, the month or the year that a day lies in.
_TABLES: dict[str, Callable[[Export, date], object]] = {
    "30minhistory": lambda card, day: (card.half_hours(day), card.circuit_names(day)),
    "hourhistory": lambda card, day: card.hours(day),
    "dayhistory": lambda card, day: (card.day_totals(day), card.day_supplies(day)),
    "monthhistory": lambda card, day: card.month_totals(day.year),
    "daycost": lambda card, day: card.day_costs(day),
    "monthcost": lambda card, day: card.month_costs(day.year),
}
_PERIODS = {"30min": "%Y%m%d", "hour": "%Y%m%d", "day": "%Y%m", "month": "%Y"}


def _csv(file: Path, key: str, body: bytes) -> object:
    """Read a file as the one of the time that its first row names."""
    found = _LABEL.search(body)
    day = date(2026, 7, 14)
    if found:
        with suppress(ValueError):
            day = date(*(int(part or 1) for part in found.groups()))
    step = key.removesuffix("history").removesuffix("cost")
    file.write_bytes(zipped({f"{key}_rc_{day.strftime(_PERIODS[step])}.csv": body}))
    with Export(file, made_at=LATER) as card:
        return _TABLES[key](card, day)


class _Source:
    """The circuits' pages as a client would give them, read of bytes."""

    def __init__(self, body: bytes) -> None:
        self._list, *rest = body.split(_BETWEEN)
        self._pages = rest or [b""]

    def circuit_list(self, _: Deadline) -> CircuitList:
        return pages.circuit_list(self._list)

    def circuit_page(self, page: int, _: Deadline) -> CircuitPage:
        return pages.circuit_page(self._pages[min(page, len(self._pages)) - 1], page)


def _circuits() -> Parser:
    """A whole reading of the circuits: the list and two pages, of which one is spoiled."""
    names = [f"回路{n}・電灯" for n in range(12)]
    rows = [(name.replace("・", "<br />"), f" {900 - 7 * n}W") for n, name in enumerate(names)]
    whole = [
        _BETWEEN.join((circuit_list(names), circuit_page(some[:10], 1, 2), circuit_page(some[10:], 2, 2)))
        for some in (rows, [*rows[:9], *((name, "") for name, _ in rows[9:])])
    ]

    def spoil(garbage: Garbage, inputs: Sequence[bytes]) -> bytes:
        parts = garbage.chance.choice(inputs).split(_BETWEEN)
        n = garbage.chance.randrange(len(parts))
        parts[n] = garbage.spoil([parts[n]])
        return _BETWEEN.join(parts)

    def read(body: bytes) -> object:
        return live_circuits.read(_Source(body), live_circuits.Memory(), NOW, Deadline(60))

    return Parser("live circuits", whole, read, (pages.CIRCUITS, pages.CIRCUIT_LIST), spoil)


def _states(folder: Path) -> Iterator[Parser]:
    """The files that are kept between readings: whatever is in them, nothing but a request may be lost."""
    good = state_files()
    url = "http://127.0.0.1"
    sensors = folder / "climate.json"
    device = folder / "device.json"

    def read_sensors(body: bytes) -> object:
        sensors.write_bytes(body.replace(b"@url@", url.encode()))
        known = Sensors(folder, url)
        due = known.due(NOW)
        known.seen(NOW)
        assert known.due(NOW)
        return due

    def read_device(body: bytes) -> object:
        device.write_bytes(body)
        memory = live_circuits.Memory.from_state(load_state(device).get("circuits"))
        assert live_circuits.Memory.from_state(json.loads(json.dumps(memory.to_state()))) == memory
        at_hand = memory.circuits or ()
        return [(circuit.circuit_id, circuit.name) for circuit in at_hand], memory.shown

    yield Parser("climate state", good["climate"], read_sensors, errors=())
    yield Parser("device state", good["device"], read_device, errors=())


def _answers(server: RawServer, folder: Path) -> Iterator[Parser]:
    """What comes over HTTP: whole answers to the client of the device and to the one of InfluxDB."""
    form = b"<html><form><input NAME=csrftoken VALUE=1a2b></form></html>"
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (len(form), form)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(form), form)
    challenge = (
        b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Digest realm="AiSEG2", nonce="ab01", algorithm=MD5, qop="auth"'
        b', opaque="o", stale=FALSE\r\nContent-Length: 5\r\n\r\nlogin'
    )
    login = folder / "live-login.json"

    def token(deadline_s: float) -> str:
        with Aiseg2Client(server.url, "aiseg", "secret", state_dir=folder, clock=lambda: NOW) as client:
            return client.export_token(Deadline(deadline_s))

    def read_answer(body: bytes) -> object:
        server.answer = body
        return token(_ONE_TRY_S)

    def read_login(body: bytes) -> object:
        login.write_bytes(body.replace(b"@url@", server.url.encode()))
        server.answer = page
        assert token(60) == "1a2b"
        return None

    device = (server.url, "AISEG2")
    yield Parser("http answer", [page, chunked, *[challenge] * 3], read_answer, device, errors=(Aiseg2Error,))
    yield Parser("login state", state_files()["login"], read_login, device, errors=())

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
        b"#datatype,string,long,dateTime:RFC3339,string\r\n#group,false,false,false,true\r\n#default,_result,,,\r\n"
        b",result,table,_time,summary\r\n,,0,2026-07-14T03:00:00Z,x(kW)\r\n\r\n"
    )
    found = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nConnection: close\r\n\r\n" + table

    def write(body: bytes) -> object:
        server.answer = body
        with InfluxWriter(server.url, "t", "home", "bucket", timeout_s=2) as writer:
            try:
                writer.write(["power value=1 1"])
            except Unavailable as error:
                assert_valid(error.retry_after_s)
                raise
        return None

    def query(body: bytes) -> object:
        server.answer = body
        # The library prints what it finds odd.
        with redirect_stdout(None), InfluxWriter(server.url, "t", "home", "bucket", timeout_s=2) as writer:
            writer.power_series(NOW)
            writer.other_writers(NOW, ())
        return None

    influx = (server.url, "InfluxDB", "bucket")
    yield Parser("influxdb refusal", refused, write, influx, errors=(InfluxError,), quotes=True)
    yield Parser("influxdb table", [found, refused[1]], query, influx, errors=(InfluxError,), quotes=True)


def _names() -> Parser:
    """Names on their way to InfluxDB; an input is a JSON list of them."""

    def spoil(garbage: Garbage, _: Sequence[bytes]) -> bytes:
        return json.dumps([garbage.name() for _ in range(garbage.chance.randrange(1, 20))]).encode()

    def read(body: bytes) -> object:
        read_back([clean_name(name) for name in json.loads(body)])
        return None

    return Parser("names to points", [b"[]"], read, spoil=spoil, errors=(), share=0.2)
