"""The connection to a peer that is slow, endless, gone or invalid: every exchange ends in time, and a connection is kept."""

import contextlib
import itertools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.connection import Connection
from aiseg2_pipeline.aiseg2.endpoints import Page
from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.transport import Deadline, NotServed
from aiseg2_pipeline_tests.support.device import flow_json
from aiseg2_pipeline_tests.support.https_server import new_certificate
from aiseg2_pipeline_tests.support.wire import answer, peer, request_of

NOW = datetime(2026, 7, 13, 23, 15, 50, tzinfo=UTC)
FLOW = answer(flow_json())
OK = "HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def client(
    url: str, folder: Path, messages: list[str] | None = None, *, verify: bool | str = True
) -> Iterator[Aiseg2Client]:
    on_retry = None if messages is None else messages.append
    with Aiseg2Client(
        url, "aiseg", "secret", state_dir=folder, clock=lambda: NOW, verify=verify, on_retry=on_retry
    ) as opened:
        yield opened


def sending(pieces: Callable[[], Iterable[bytes]], pause_s: float = 0.0) -> Callable[[socket.socket], None]:
    """Answer each request with these pieces, one after the other, until the client hangs up."""

    def serve(sock: socket.socket) -> None:
        while request_of(sock):
            for piece in pieces():
                sock.sendall(piece)
                time.sleep(pause_s)

    return serve


def assert_ends_in_time(reader: Aiseg2Client, message: str | None = None) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match=message):
        reader.flow_json(Deadline(0.4))
    assert time.monotonic() - started < 5


def in_bytes(text: bytes) -> Iterator[bytes]:
    return (text[n : n + 1] for n in range(len(text)))


LONG = b" " * 10_000
# Responses that would take minutes, or be endless.
DRIPPED: dict[str, Callable[[], Iterable[bytes]]] = {
    "status line": lambda: in_bytes(b"HTTP/1.1 200 " + LONG),
    "header": lambda: in_bytes(f"{OK}X: ".encode() + LONG),
    "headers": lambda: itertools.chain([OK.encode()], itertools.repeat(b"X: 1\r\n")),
    "body": lambda: in_bytes(f"{OK}Content-Length: 10000\r\n\r\n".encode() + LONG),
    "size of a chunk": lambda: in_bytes(f"{OK}Transfer-Encoding: chunked\r\n\r\n1;".encode() + LONG),
    "chunks": lambda: itertools.chain([f"{OK}Transfer-Encoding: chunked\r\n\r\n".encode()], itertools.repeat(b"1\r\nx\r\n")),
    "end of chunks": lambda: itertools.chain(
        [f"{OK}Transfer-Encoding: chunked\r\n\r\n0\r\n".encode()], itertools.repeat(b"X: 1\r\n")
    ),
    "100 continue": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "redirect": lambda: itertools.chain([b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"], itertools.repeat(b"x")),
    "error": lambda: itertools.chain([b"HTTP/1.1 503 Busy\r\n\r\n"], itertools.repeat(b"x")),
    "refusal": lambda: itertools.chain([b"HTTP/1.1 401 No\r\n\r\n"], itertools.repeat(b"x")),
    "nothing": lambda: itertools.repeat(b""),
}  # fmt: skip


@pytest.mark.parametrize("what", DRIPPED)
def test_a_response_that_arrives_byte_by_byte_ends_at_the_deadline(tmp_path: Path, what: str) -> None:
    with peer(sending(DRIPPED[what], 0.02)) as url, client(url, tmp_path) as reader:
        assert_ends_in_time(reader)


def test_a_fast_endless_response_ends_at_the_deadline(tmp_path: Path) -> None:
    endless = sending(lambda: itertools.chain([f"{OK}\r\n".encode()], itertools.repeat(LONG)))
    with (
        peer(endless) as url,
        client(url, tmp_path) as reader,
        Path(os.devnull).open("wb") as nowhere,
        pytest.raises(Unreachable, match="took too long"),
    ):
        reader.transport.download(Page.EXPORT_FORM, nowhere, Deadline(0.4), max_bytes=2**40, timeout_s=5)


# Connecting


@pytest.mark.parametrize(
    ("wait_s", "message"), [(20, "took too long"), (0, "the connection was dropped")], ids=["no answer", "closed"]
)
def test_a_tls_handshake_that_does_not_end_is_reported(tmp_path: Path, wait_s: float, message: str) -> None:
    with (
        peer(lambda sock: time.sleep(wait_s * len(sock.recv(65536)))) as url,
        client(url.replace("http:", "https:"), tmp_path) as reader,
    ):
        assert_ends_in_time(reader, message)


def test_a_connection_that_is_not_accepted_ends_at_the_deadline(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        with contextlib.suppress(TimeoutError):
            for _ in range(20):
                waiting.enter_context(socket.create_connection(full.getsockname(), 0.2))
        with client(f"http://127.0.0.1:{full.getsockname()[1]}", tmp_path) as reader:
            assert_ends_in_time(reader, "took too long")


def noting(requests: list[bytes]) -> Callable[[socket.socket], None]:
    """Answer each request with the flow, and note it."""

    def serve(sock: socket.socket) -> None:
        while request := request_of(sock):
            requests.append(request)
            sock.sendall(FLOW)

    return serve


def test_an_ipv6_address_is_read(tmp_path: Path) -> None:
    requests: list[bytes] = []
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(peer(noting(requests), "::1"))
        except OSError:
            pytest.skip("this system has no IPv6")
        with client(url, tmp_path) as reader:
            assert reader.flow_json(Deadline(5)).consumption_kw == 1.2
        assert f"Host: {url.removeprefix('http://')}\r\n".encode() in requests[0]


def test_proxies_and_logins_of_the_environment_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password from-the-netrc")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    requests: list[bytes] = []
    with peer(noting(requests)) as url, client(url, tmp_path) as reader:
        assert reader.flow_json(Deadline(5)).consumption_kw == 1.2
    assert b"authorization" not in requests[0].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://device/action/reset",
        "http://device?doReset=1",
        "http://user:password@device",
        "http://a b",
        "ftp://device",
        "http://",
    ],
)
def test_an_address_is_only_a_host(url: str) -> None:
    with pytest.raises(ValueError, match="host"):
        Connection(url, verify=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    both = folder / "both.pem"
    both.write_text("".join(path.read_text() for path in new_certificate(folder)))
    return both


def over_tls(certificate: Path, serve: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def served(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as wrapped:
            serve(wrapped)

    return served


def test_a_device_behind_tls_is_read_on_one_connection(tmp_path: Path, certificate: Path) -> None:
    connections: list[int] = []

    def serve(sock: socket.socket) -> None:
        connections.append(1)
        sending(lambda: [FLOW])(sock)

    with peer(over_tls(certificate, serve)) as at:
        url = at.replace("http:", "https:")
        with client(url, tmp_path, verify=str(certificate)) as reader:
            for _ in range(3):
                assert reader.flow_json(Deadline(5)).consumption_kw == 1.2
        assert len(connections) == 1
        with client(url, tmp_path, verify=False) as reader:
            assert reader.flow_json(Deadline(5)).consumption_kw == 1.2
        with client(url, tmp_path) as reader, pytest.raises(Unreachable, match="AISEG2_CA_FILE"):
            reader.flow_json(Deadline(5))
        # Nothing is sent to a peer without a trusted certificate.
        assert len(connections) == 2


def test_a_tls_response_that_arrives_slowly_ends_at_the_deadline(tmp_path: Path, certificate: Path) -> None:
    with (
        peer(over_tls(certificate, sending(DRIPPED["headers"], 0.02))) as at,
        client(at.replace("http:", "https:"), tmp_path, verify=str(certificate)) as reader,
    ):
        assert_ends_in_time(reader, "took too long")


@pytest.mark.parametrize("content", ["", "no certificate", None])
def test_a_file_without_a_certificate_is_reported_with_its_setting(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with (
        peer(sending(lambda: [FLOW])) as at,
        client(at.replace("http:", "https:"), tmp_path, verify=str(path)) as reader,
        pytest.raises(Unreachable, match="AISEG2_CA_FILE"),
    ):
        reader.flow_json(Deadline(5))


# A kept connection


def close(sock: socket.socket) -> None:
    sock.close()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("end", [close, reset])
@pytest.mark.parametrize("when", ["after an answer", "after the next request"])
def test_a_closed_kept_connection_is_replaced_without_delay(
    tmp_path: Path, end: Callable[[socket.socket], None], when: str
) -> None:
    connections: list[int] = []
    messages: list[str] = []

    def serve(sock: socket.socket) -> None:
        connections.append(1)
        request_of(sock)
        sock.sendall(FLOW)
        if when == "after the next request":
            request_of(sock)
        end(sock)

    with peer(serve) as url, client(url, tmp_path, messages) as reader:
        for n in range(4):
            reader.flow_json(Deadline(5))
            if when == "after an answer":
                # Until it is closed; otherwise this can be the other case.
                time.sleep(0.05)
            assert len(connections) in (n, n + 1)
    assert messages == []
    assert len(connections) == 4


def test_a_dropped_new_connection_is_retried_with_a_message(tmp_path: Path) -> None:
    connections: list[int] = []
    messages: list[str] = []

    def serve(sock: socket.socket) -> None:
        connections.append(1)
        request_of(sock)
        if len(connections) == 2:
            sock.sendall(FLOW)

    with peer(serve) as url, client(url, tmp_path, messages) as reader:
        reader.flow_json(Deadline(5))
        assert reader.transport.requests == 2
    (message,) = messages
    assert "the connection was dropped" in message
    assert "tried again" in message


FALSE = answer(flow_json(u_capacity="9.9"))


def test_bytes_after_a_response_are_not_read_as_the_next_one(tmp_path: Path) -> None:
    followed = threading.Event()

    def serve(sock: socket.socket) -> None:
        request_of(sock)
        sock.sendall(FLOW)
        if not followed.is_set():
            # Not in one piece with the response, which would be read with it.
            time.sleep(0.05)
            sock.sendall(FALSE)
            followed.set()
        sending(lambda: [FLOW])(sock)

    with peer(serve) as url, client(url, tmp_path) as reader:
        for _ in range(3):
            assert reader.flow_json(Deadline(5)).consumption_kw == 1.2
            assert followed.wait(5)


@pytest.mark.parametrize("late", [FALSE, b""])
def test_a_connection_that_timed_out_is_not_used_again(tmp_path: Path, late: bytes) -> None:
    gave_up, done = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        request_of(sock)
        if gave_up.is_set():
            sock.sendall(FLOW)
        else:
            gave_up.wait(5)
            sock.sendall(late)
            done.wait(5)

    with peer(serve) as url, client(url, tmp_path) as reader:
        with pytest.raises(Unreachable, match="took too long"):
            reader.flow_json(Deadline(0.3))
        gave_up.set()
        assert reader.flow_json(Deadline(2)).consumption_kw == 1.2
        done.set()


@pytest.mark.parametrize("status", ["404 No", "503 Busy", "302 Found", "103 Early", "204 No"])
def test_a_response_other_than_a_page_is_followed_by_a_new_connection(tmp_path: Path, status: str) -> None:
    connections: list[int] = []

    def serve(sock: socket.socket) -> None:
        connections.append(1)
        while request_of(sock):
            if len(connections) > 1:
                sock.sendall(FLOW)
            else:
                sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode() + FALSE)

    with peer(serve) as url, client(url, tmp_path) as reader:
        with contextlib.suppress(Unreachable):
            reader.flow_json(Deadline(0.3))
        assert reader.flow_json(Deadline(5)).consumption_kw == 1.2


@pytest.mark.parametrize("location", ["/", "http://[", "//action/"])
def test_a_redirect_is_not_followed_and_refused_when_it_is_repeated(tmp_path: Path, location: str) -> None:
    moved = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    with (
        peer(sending(lambda: [moved])) as url,
        client(url, tmp_path) as reader,
        pytest.raises(NotServed, match=r"redirected .* while it starts .* AISEG2_HOST"),
    ):
        reader.flow_json(Deadline(5))
    assert reader.transport.requests == 2


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 x OK\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"\xff\xfe\0\0",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12",
        b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="a",\r\n nonce="b"\r\nContent-Length: 0\r\n\r\n',
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm=a, nonce=b, algorithm=\xff\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_response_that_is_not_http_is_an_error_of_ours(tmp_path: Path, odd: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        request_of(sock)
        sock.sendall(odd)

    with peer(serve) as url, client(url, tmp_path) as reader, pytest.raises((Unreachable, Refused, Unreadable)):
        reader.flow_json(Deadline(0.3))
