"""A prepared process that forks workers, as the pipeline's warm runs are forked: everything is imported in it.

    python -m aiseg2_pipeline_tests.endurance.prefork FD

For each socket that comes over the one at FD it forks a worker that serves it, and answers with its pid. Time runs
faster in a worker than outside, so that waits, time-outs and budgets keep their proportions.
"""

import os
import signal
import socket
import struct
import sys
import time
from multiprocessing.connection import Connection

_speed = [1.0]


def hurry() -> None:
    """Let this process's clock, sleeps and socket time-outs run as many times as fast as `set_speed` says.

    To be called before the pipeline is imported: some of it takes `time.monotonic` as a default.
    """
    monotonic, perf_counter, sleep = time.monotonic, time.perf_counter, time.sleep
    settimeout = socket.socket.settimeout

    def sooner(self: socket.socket, value: float | None) -> None:
        settimeout(self, value and value / _speed[0])

    time.monotonic = lambda: monotonic() * _speed[0]
    time.perf_counter = lambda: perf_counter() * _speed[0]
    time.sleep = lambda seconds: sleep(float(seconds) / _speed[0])
    socket.socket.settimeout = sooner  # type: ignore[method-assign, assignment] # that is what it is for


def set_speed(speed: float) -> None:
    """Set it, before anything looks at a clock."""
    _speed[0] = speed


def main() -> None:
    """Fork a worker for each socket until the other end is closed."""
    hurry()
    from aiseg2_pipeline_tests.endurance.worker import serve  # noqa: PLC0415 - time must be in a hurry first

    # Nobody waits for the workers: their sockets tell that they have ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as control:
        control.send(b"ready")
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                control.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                serve(Connection(descriptors[0]), set_speed)
                os._exit(0)
            os.close(descriptors[0])
            control.send(struct.pack("q", pid))


if __name__ == "__main__":
    main()
