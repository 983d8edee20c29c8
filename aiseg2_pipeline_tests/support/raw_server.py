"""A server that answers every connection with the same bytes, HTTP or not, and then hangs up."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_REQUEST_BYTES = 2**16


@dataclass
class RawServer:
    """`answer` is what the next connections get, and after it `rest` so many `times`; `connections` counts them."""

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
            # Closing alone would not wake the thread.
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
            # Until the client has read it all: closing with something unread would reset the connection.
            while connection.recv(_REQUEST_BYTES):
                pass
