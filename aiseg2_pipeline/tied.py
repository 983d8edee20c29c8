"""A service's end of the tie to the process that started it: when that is gone, however it went, the service ends as well.

The starter holds a lock on a file for as long as it lives; a service waits for that lock. The system gives it up even
after `kill -9`, and where it is out of memory. So nothing goes on unseen, and what starts the pipeline again
(systemd, a supervisor, a person) meets no leftovers.

    python -m aiseg2_pipeline.tied LOCK SOCKET MODULE <arguments of the module>

SOCKET is what must be there before the module starts; nothing where it needs none.
"""

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

LOOK_S = 0.2


@contextmanager
def starter(path: Path) -> Iterator[None]:
    """Be the process that the services are tied to while the `with` block runs, or until it ends in any other way.

    Raise OSError where another one is.
    """
    # Not filelock's kind of lock: processes that are forked from this one must not hold it.
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def is_there(path: Path) -> bool:
    """Return whether the starter lives."""
    try:
        with path.open() as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


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


if __name__ == "__main__":
    main()
