"""TCP servers for tests: a recording proxy, a server whose behaviour a test defines, and one that sends given bytes."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"^content-length: *([0-9]+)\r?$", re.IGNORECASE | re.MULTILINE)


@dataclass
class Recorder:
    """The bytes sent to a device, by connection."""

    address: str = ""
    connections: list[bytearray] = field(default_factory=list)

    def requests(self) -> list[tuple[str, bytes]]:
        """Return method and target of every request, and its body; every byte must belong to one of them."""
        return [request for sent in list(self.connections) for request in _requests(bytes(sent))]

    def clear(self) -> None:
        """Remove the recorded bytes; no request may be in progress."""
        for sent in self.connections:
            sent.clear()

    def everything(self) -> bytes:
        """Return all bytes sent."""
        return b"".join(self.connections)


def _requests(sent: bytes) -> Iterator[tuple[str, bytes]]:
    while sent:
        head, end, rest = sent.partition(b"\r\n\r\n")
        assert end, f"a request without an end: {sent[:200]!r}"
        line, _, headers = head.partition(b"\r\n")
        method, target, version = line.decode("ascii").split(" ")
        assert version == "HTTP/1.1"
        assert not re.search(rb"^[ \t]", headers, re.MULTILINE), "a header that continues in the next line"
        assert b"transfer-encoding" not in headers.lower()
        length = _LENGTH.search(headers)
        size = int(length[1]) if length else 0
        assert len(rest) >= size
        yield f"{method} {target}", rest[:size]
        sent = rest[size:]


@contextmanager
def recording(address: str) -> Iterator[Recorder]:
    """Forward between a client and the device at `http://host:port`, and record the bytes that the client sends."""
    host, port = address.removeprefix("http://").split(":")
    recorder = Recorder()

    def forward(client: socket.socket) -> None:
        sent = bytearray()
        recorder.connections.append(sent)
        with client, socket.create_connection((host, int(port))) as device:
            back = threading.Thread(target=_pump, args=(device, client, None), daemon=True)
            back.start()
            _pump(client, device, sent)
            back.join()

    with peer(forward) as at:
        recorder.address = at
        yield recorder


def _pump(source: socket.socket, target: socket.socket, noted: bytearray | None) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            if noted is not None:
                noted += piece
            target.sendall(piece)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def peer(serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[str]:
    """Run a server that calls `serve` with each connection in a thread; yield its address, and close all at the end."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    open_sockets: list[socket.socket] = []

    def served(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                open_sockets.append(sock)
                threading.Thread(target=served, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for sock in open_sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def request_of(sock: socket.socket) -> bytes:
    """Return the next request, empty at the end of the connection."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = sock.recv(65536)
        if not piece:
            return b""
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    while length and len(body) < int(length[1]):
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    """Return a complete response; `headers` are lines that end in CR LF."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass
class RawServer:
    """`answer` is sent to each connection, followed by `rest` as often as `times`; `connections` counts them."""

    url: str = ""
    answer: bytes = b""
    rest: bytes = b""
    times: int = 0
    connections: int = 0


@contextmanager
def raw_server() -> Iterator[RawServer]:
    """Run a server that sends the same bytes, HTTP or not, to every connection and closes it."""
    server = RawServer()

    def serve(sock: socket.socket) -> None:
        server.connections += 1
        sock.settimeout(5)
        sock.recv(65536)
        sock.sendall(server.answer)
        for _ in range(server.times):
            sock.sendall(server.rest)
        sock.shutdown(socket.SHUT_WR)
        # Until the client has closed: closing with unread bytes would reset the connection.
        while sock.recv(65536):
            pass

    with peer(serve) as server.url:
        yield server
