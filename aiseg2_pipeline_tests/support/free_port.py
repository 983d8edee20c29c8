"""Choose ports for servers that bind them later, in another process."""

import itertools
import os
import socket
from contextlib import suppress

# Below the ports that the kernel gives to connections and to port 0, which could take one before its server binds it.
_FIRST, _COUNT = 10_000, 20_000
# Test processes that run at once start at different places.
_numbers = itertools.count(os.getpid() * 100)


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free, and a different one each time."""
    while True:
        port = _FIRST + next(_numbers) % _COUNT
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
