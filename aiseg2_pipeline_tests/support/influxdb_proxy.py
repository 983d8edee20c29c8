"""A proxy in front of the real InfluxDB, which injects faults that the server cannot produce.

It forwards every request and logs the writes, deletes and queries. Its `fault` decides about each write: answer in the
server's place (429, 503, a page of another program), answer late, or cut the connection. Other faults (a stopped or
killed server, a deleted bucket, a token without rights, a retention) are produced on the server itself.
"""

import gzip
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

import requests

_WRITE = "/api/v2/write"
_LOGGED = (_WRITE, "/api/v2/delete", "/api/v2/query")


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# A proxy in front of InfluxDB with a small limit.
TOO_LARGE_ABOVE_LINES = 20

KINDS = (
    "unavailable",  # 503
    "busy",  # 429 with Retry-After
    "unauthorized",  # 401
    "no_bucket",  # 404
    "too_large",  # 413 for all but small requests
    "refused",  # 422 because of one row's lines, which are refused for good; the server stores the rest
    "slow",  # taken, but answered too late
    "silent",  # not taken, and the connection is cut after a long time
    "cut_before",  # the connection is cut before the write was taken
    "cut_after",  # the connection is cut after it
)


@dataclass(frozen=True)
class Fault:
    """The answer to a write; `take` forwards the write to the server first, `cut` closes the connection without an answer.

    The answer, or the cut, comes after `delay_s`. Without `status` it is the server's own answer to the forwarded write,
    whose lines are replaced by `lines` if there are any. `then` is called after the server's answer, before the delay.
    """

    status: int | None = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    take: bool = False
    lines: tuple[str, ...] = ()
    cut: bool = False
    delay_s: float = 0.0
    then: Callable[[], None] | None = None


@dataclass
class Exchange:
    """One logged request, and the status of its answer (0: the connection was cut)."""

    path: str
    params: Mapping[str, str]
    lines: list[str]
    status: int = 0
    # Unix seconds.
    answered_at: float = 0.0


class InfluxFaults:
    """Injects a fault into a write with probability `rate`; it lasts for that write and up to `lasts` - 1 following ones.

    `slow_s` must exceed the writer's timeout. `tally` counts the faults by kind. `poisoned` are the lines that are refused
    for good: the writer must set their rows aside. The same seed and writes give the same faults.
    """

    def __init__(
        self, seed: int, rate: float, kinds: Sequence[str] = KINDS, *, slow_s: float = 0.3, lasts: int = 3
    ) -> None:
        """Set up the random generator."""
        if unknown := set(kinds) - set(KINDS):
            raise ValueError(f"there are no faults {sorted(unknown)}: choose from {', '.join(KINDS)}")
        self.rate = rate
        self.kinds = tuple(kinds)
        self.tally: Counter[str] = Counter()
        self.poisoned: set[str] = set()
        self._marked: set[tuple[str, ...]] = set()
        self._slow_s = slow_s
        self._lasts = lasts
        self._chance = random.Random(seed)  # noqa: S311 - reproducible test data
        self._kind = ""
        self._left = 0

    def stop(self) -> None:
        """Inject no fault from now on, and accept the poisoned lines."""
        self.rate = 0.0
        self._left = 0
        self.poisoned.clear()

    def __call__(self, exchange: Exchange) -> Fault | None:
        """Return the fault of this write; None for no fault."""
        fault = self._next(exchange)
        # A row whose mark of a fill was accepted is never refused: the mark would stay without its value.
        marks = (line for line in exchange.lines if line.startswith("power_fill,"))
        self._marked.update(_row(mark) for mark in marks if mark not in self.poisoned)
        return fault

    def _next(self, exchange: Exchange) -> Fault | None:
        if not self.poisoned.isdisjoint(exchange.lines):
            return self._refused(exchange)
        if self._left == 0 and self._chance.random() < self.rate:
            self._kind = self._chance.choice(self.kinds)
            self._left = self._chance.randint(1, self._lasts)
        if self._left == 0:
            return None
        self._left -= 1
        fault = self._fault(self._kind, exchange)
        if fault is not None:
            self.tally[self._kind] += 1
        return fault

    def _fault(self, kind: str, exchange: Exchange) -> Fault | None:
        if kind == "too_large" and len(exchange.lines) <= TOO_LARGE_ABOVE_LINES:
            return None
        if kind == "refused":
            self._left = 0
            rows = [row for line in exchange.lines if (row := _row(line)) not in self._marked]
            if not rows:
                return None
            row = self._chance.choice(rows)
            self.poisoned.update(line for line in exchange.lines if _row(line) == row)
            return self._refused(exchange)
        return {
            "unavailable": _answer(503, "unavailable", "the server is starting"),
            "busy": _answer(429, "too many requests", "slow down", {"Retry-After": "1"}),
            "unauthorized": _answer(401, "unauthorized", "unauthorized access"),
            "no_bucket": _answer(404, "not found", f'bucket "{exchange.params["bucket"]}" not found'),
            "too_large": _answer(413, "request too large", "request body too large"),
            "slow": Fault(None, take=True, delay_s=self._slow_s),
            "silent": Fault(cut=True, delay_s=self._slow_s),
            "cut_before": Fault(cut=True),
            "cut_after": Fault(take=True, cut=True),
        }[kind]

    def _refused(self, exchange: Exchange) -> Fault:
        # The server always refuses a field named `time`.
        lines = (_LINE.sub(r"\1time=\3", line) if line in self.poisoned else line for line in exchange.lines)
        return Fault(None, take=True, lines=tuple(lines))


_LINE = re.compile(r"(\w+,(.*) )\w+=(\S+ (\d+))")


def _row(line: str) -> tuple[str, ...]:
    """Return the tags and the time, which all points of a row share."""
    found = _LINE.fullmatch(line)
    return found.group(2, 4) if found else (line,)


def _answer(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Fault:
    return Fault(status, headers or {}, json.dumps({"code": code, "message": message}).encode())


class InfluxProxy:
    """The proxy of the server at `target`, on a port of its own.

    `requests` are the writes, deletes and queries so far; `fault`, when set, is called for each write. `token`, when set,
    replaces the token of every request, as if that had been revoked.
    """

    def __init__(self, target: str, port: int = 0) -> None:
        """Bind the port; `start` serves it."""
        self.target = target
        self.requests: list[Exchange] = []
        self.fault: Callable[[Exchange], Fault | None] | None = None
        self.token: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
        self._server.proxy = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        self._session = requests.Session()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> None:
        """Serve until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and release the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Return the answer to a request, None to cut the connection."""
        parts = urlsplit(path)
        if parts.path not in _LOGGED:
            return self._forward(method, path, headers, body)
        plain = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        lines = plain.decode().split("\n") if parts.path == _WRITE else []
        exchange = Exchange(parts.path, dict(parse_qsl(parts.query)), lines)
        self.requests.append(exchange)
        fault = self.fault(exchange) if self.fault and parts.path == _WRITE else None
        if fault is not None and fault.lines:
            headers = {name: value for name, value in headers.items() if name != "Content-Encoding"}
            body = "\n".join(fault.lines).encode()
        answer = self._forward(method, path, headers, body) if fault is None or fault.take else None
        if fault is not None:
            if fault.then is not None:
                fault.then()
            time.sleep(fault.delay_s)
            if fault.cut:
                answer = None
            elif fault.status is not None:
                answer = Answer(fault.status, fault.headers, fault.body)
        exchange.status, exchange.answered_at = answer.status if answer else 0, time.time()
        return answer

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self.token is not None:
            headers = {**headers, "Authorization": f"Token {self.token}"}
        try:
            got = self._session.request(
                method, self.target + path, headers=headers, data=body, timeout=600, allow_redirects=False
            )
        except requests.RequestException:
            # As a reverse proxy does.
            return Answer(HTTPStatus.BAD_GATEWAY, {}, b"")
        # requests has unpacked the body.
        left_out = {"connection", "content-encoding", "content-length", "transfer-encoding"}
        kept = {name: value for name, value in got.headers.items() if name.lower() not in left_out}
        return Answer(got.status_code, kept, got.content)


class _Handler(BaseHTTPRequestHandler):
    """Reads a request and sends what the proxy answers."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet.
    wbufsize = -1

    def handle(self) -> None:
        """Serve a connection until it ends; a killed client resets it."""
        with suppress(ConnectionError):
            super().handle()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
        }
        proxy: InfluxProxy = self.server.proxy  # type: ignore[attr-defined]
        answer = proxy.answer(self.command, self.path, headers, body)
        if answer is None:
            # The connection closes before the announced length is sent.
            answer = Answer(HTTPStatus.OK, {"Content-Length": "100"}, b"")
            self.close_connection = True
        elif answer.status != HTTPStatus.NO_CONTENT:
            answer = Answer(
                answer.status, {**answer.headers, "Content-Length": str(len(answer.body))}, answer.body
            )
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - names of the base class

    def log_message(self, *_: object) -> None:
        """Print nothing."""
