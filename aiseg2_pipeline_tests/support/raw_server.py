"""A server that sends the same bytes, HTTP or not, to every connection and closes it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_REQUEST_BYTES = 2**16


@dataclass
class RawServer:
    """`answer` is sent to the next connections, followed by `rest` as often as `times`; `connections` counts them."""

    url: str
    answer: bytes = b""
    rest: bytes = b""
    times: int = 0
    connections: int = 0


@contextmanager
def raw_server() -> Iterator[RawServer]:
    """Serve on a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=_serve, args=(listener, served), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            # Closing does not wake the thread.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, served: RawServer) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        served.connections += 1
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            connection.recv(_REQUEST_BYTES)
            connection.sendall(served.answer)
            for _ in range(served.times):
                connection.sendall(served.rest)
            connection.shutdown(socket.SHUT_WR)
            # Until the client has closed: closing with unread bytes would reset the connection.
            while connection.recv(_REQUEST_BYTES):
                pass
