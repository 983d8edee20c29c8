"""Starts Dagster's daemon or webserver as calm ones: they look at the code server every 20 seconds, and say a thing once.

Each look is a new connection, from both, answered by the code server: half of what the three cost while nothing runs.
What they look for is a code server that was replaced, and ours never is without them. The interval is a private
name of Dagster's; where that is gone, they look every second again.

Where the disk is full, the daemon meets it some times a second for each of its parts, with a page of stack each time:
2 GB of output a day, on a disk that is full. It is one sentence here, and any error is told once a minute.

    python -m aiseg2_pipeline.runtime.dagster_tuning dagster_webserver <its arguments>
"""

import logging
import re
import runpy
import sys
import time
from importlib import import_module
from typing import ClassVar

from dagster._grpc import server_watcher

from aiseg2_pipeline.orchestration.memory import leave_what_is_there_alone

ATTRIBUTE = "WATCH_INTERVAL"
WATCH_S = 20
SAID_AGAIN_S = 60.0
_DISK = re.compile(r"database or disk is full|disk I/O error|unable to open database file|readonly database")


class CalmLogger(logging.Logger):
    """A logger that tells an error of Dagster's own once a minute, and one of its disk in a sentence."""

    _said_at: ClassVar[dict[str, float]] = {}

    def handle(self, record: logging.LogRecord) -> None:
        """Pass the record on, or drop it."""
        if record.levelno >= logging.ERROR:
            told = record.getMessage() + (str(record.exc_info[1]) if record.exc_info else "")
            if reason := _DISK.search(told):
                told = (
                    f"Dagster's run history cannot be used ({reason[0]}), so no minute is read: see that its disk has free space "
                    "and may be written to; it goes on by itself then."
                )
                record.msg, record.args, record.exc_info = told, (), None
            long_ago = time.monotonic() - SAID_AGAIN_S
            if self._said_at.get(told, long_ago) > long_ago:
                return
            for old in [one for one, at in self._said_at.items() if at <= long_ago]:
                del self._said_at[old]
            self._said_at[told] = time.monotonic()
        super().handle(record)


def main() -> None:
    """Run the module that the first argument names, with the arguments that follow."""
    if hasattr(server_watcher, ATTRIBUTE):
        setattr(server_watcher, ATTRIBUTE, WATCH_S)
    logging.setLoggerClass(CalmLogger)
    del sys.argv[0]
    # What its `__main__` imports.
    import_module(f"{sys.argv[0]}.cli")
    leave_what_is_there_alone()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
