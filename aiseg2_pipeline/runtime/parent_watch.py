"""A service's end of the tie to the process that started it: when that is gone, however it went, the service ends as well.

The starter holds a lock on a file for as long as it lives; a service waits for that lock. The system gives it up even
after `kill -9`, and where it is out of memory. So nothing goes on unseen, and what starts the pipeline again
(systemd, a supervisor, a person) meets no leftovers.

    python -m aiseg2_pipeline.runtime.parent_watch LOCK SOCKET MODULE <arguments of the module>

SOCKET is what must be there before the module starts; nothing where it needs none.
"""

import errno
import fcntl
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

LOOK_S = 0.2


@contextmanager
def starter(path: Path, patience_s: float = 0) -> Iterator[None]:
    """Be the process that the services are tied to while the `with` block runs, or until it ends in any other way.

    `patience_s` is how long to wait for services of a starter that has gone: they hold the lock until they have
    ended. Raise BlockingIOError where they have not, or another starter lives.
    """
    end = time.monotonic() + patience_s
    # Not filelock's kind of lock: processes that are forked from this one must not hold it.
    with path.open("w") as file:
        while not _taken(file):
            if time.monotonic() >= end:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
            time.sleep(LOOK_S)
        yield


def _taken(file: TextIO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def main() -> None:
    """Run the module that the arguments name, tied to the starter."""
    lock, socket = Path(sys.argv[1]), sys.argv[2]
    threading.Thread(target=_end_with_the_starter, args=(lock,), daemon=True).start()
    while socket and not Path(socket).is_socket():
        time.sleep(LOOK_S)
    del sys.argv[:3]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_the_starter(lock: Path) -> None:
    with lock.open() as file:
        fcntl.lockf(file, fcntl.LOCK_SH)
        # The whole group: what this service has started as well.
        os.killpg(0, signal.SIGTERM)
        # The next starter waits for this lock, and so for the end of this service.
        threading.Event().wait()


if __name__ == "__main__":
    main()
