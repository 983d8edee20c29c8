"""Let the supervisor continue when its output cannot be written: a full disk, a reader that ended or stopped reading.

The lines of all services pass through the supervisor, so an error there would stop the readings.
"""

import errno
import io
import os
import select
import sys
from contextlib import suppress
from typing import Any

# How long a reader may take nothing, such as `less` on its first page, before lines are dropped.
STALLED_S = 5.0
_STDERR = 2


class DroppingOutput(io.RawIOBase):
    """A file descriptor that drops what cannot be written, and reports that on stderr and where writing resumes."""

    def __init__(self, fd: int, stalled_s: float = STALLED_S) -> None:
        """Write to `fd`."""
        self._fd = fd
        self._stalled_s = stalled_s
        self._report = b""

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write all of `data`, or drop it."""
        try:
            if self._report:
                _write(self._fd, self._report, 0)
                self._report = b""
            _write(self._fd, bytes(data), self._stalled_s)
        except OSError as error:
            if not self._report:
                reason = error.strerror or str(error)
                sentence = (
                    f"The output cannot be written ({reason}): lines are left out until it can; readings go on."
                )
                self._report = f"\n{sentence}\n".encode()
                with suppress(OSError):
                    _write(_STDERR, self._report, 0)
        return len(data)


def drop_what_cannot_be_written() -> None:
    """Replace this process's stdout and stderr, where nothing else has."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue
        fd = stream.fileno() if stream else os.open(os.devnull, os.O_WRONLY)
        # Without a buffer, which would be written again at the end.
        output: Any = DroppingOutput(fd)
        setattr(sys, name, io.TextIOWrapper(output, "utf-8", "backslashreplace", write_through=True))


def _write(fd: int, data: bytes, stalled_s: float) -> None:
    while data:
        if not select.select([], [fd], [], stalled_s)[1]:
            raise OSError(errno.EAGAIN, "its reader has stopped reading")
        # That a pipe is ready promises room for this many bytes.
        data = data[os.write(fd, data[: select.PIPE_BUF]) :]
