"""Addresses that a hostile page names, and that nothing may open: a file and a server that tell when somebody does."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiseg2_pipeline_tests.support.raw_server import raw_server

BAIT = b"99W"


@contextmanager
def lured(folder: Path) -> Iterator[tuple[list[str], Callable[[], bool]]]:
    """Give the addresses, and a function that tells whether anything took the bait.

    The file is a pipe with the bait in it: who reads the file takes it out.
    """
    pipe = folder / "lure"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, BAIT)
        with raw_server() as server:
            server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BAIT), BAIT)
            taken = False

            def is_taken() -> bool:
                nonlocal taken
                taken = taken or server.connections > 0 or not _still_there(descriptor)
                return taken

            yield [pipe.as_uri(), str(pipe), f"{server.url}/lure.dtd"], is_taken
    finally:
        os.close(descriptor)


def _still_there(descriptor: int) -> bool:
    try:
        found = os.read(descriptor, len(BAIT))
    except BlockingIOError:
        return False
    os.write(descriptor, found)
    return found == BAIT
