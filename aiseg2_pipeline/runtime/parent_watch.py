"""Stop a child process when its supervisor dies, even after `kill -9`.

The supervisor holds a lock on a file for as long as it lives, and a child waits for that lock. The kernel releases it
however the supervisor ends, also when memory runs out. So no service continues unnoticed, and the next start (by
systemd, another supervisor, a person) finds no leftover processes.

    python -m aiseg2_pipeline.runtime.parent_watch LOCK SOCKET MODULE <arguments of the module>

The module starts when the Unix socket SOCKET exists; at once where SOCKET is empty.
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

POLL_S = 0.2


@contextmanager
def supervisor_lock(path: Path, timeout_s: float = 0) -> Iterator[None]:
    """Hold the lock that the child processes watch, while the `with` block runs or until this process ends.

    Children of a dead supervisor hold the lock until they have ended: wait up to `timeout_s` for that. Raise
    BlockingIOError where they have not ended by then, or another supervisor lives.
    """
    end = time.monotonic() + timeout_s
    # `lockf`, unlike the lock of filelock, is not inherited by processes that are forked from this one.
    with path.open("w") as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise
            time.sleep(POLL_S)
        yield


def main() -> None:
    """Run the module that the arguments name until it or the supervisor ends."""
    lock, socket = Path(sys.argv[1]), sys.argv[2]
    begin(lock, Path(socket) if socket else None)
    del sys.argv[:3]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def begin(lock: Path, socket: Path | None) -> None:
    """End this process's group when the holder of the lock ends; return once the Unix socket exists."""
    threading.Thread(target=_end_with_supervisor, args=(lock,), daemon=True).start()
    while socket and not socket.is_socket():
        time.sleep(POLL_S)


def _end_with_supervisor(lock: Path) -> None:
    with lock.open() as file:
        fcntl.lockf(file, fcntl.LOCK_SH)
        # The process group, which includes the processes that this service has started.
        os.killpg(0, signal.SIGTERM)
        # Keep the lock until this process has ended: the next supervisor waits for it.
        threading.Event().wait()


if __name__ == "__main__":
    main()
