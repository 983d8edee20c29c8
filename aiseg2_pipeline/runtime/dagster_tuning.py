"""What makes Dagster's services cheap to run for years: slower polling, rate-limited errors, and flat memory.

    python -m aiseg2_pipeline.runtime.dagster_tuning dagster_webserver <its arguments>

starts Dagster's daemon or webserver with it. Both poll the code server every second for having been replaced, which
ours never is without them: half of what the three cost while nothing runs. On a full disk the daemon logs a page of
stack several times a second, 2 GB a day; here it is one sentence, and any error is logged once a minute.

The size of the C library's heaps is an environment variable in `services`.
"""

import functools
import gc
import logging
import re
import runpy
import sys
import time
from importlib import import_module
from typing import ClassVar

from aiseg2_pipeline.dagster_internals import poll_code_server

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


def look_up_files_once() -> None:
    """Have alembic look up Dagster's files once.

    Dagster makes its storages anew for each tick, and for each of them alembic keeps something to be closed at
    exit: 5 MB a day.
    """
    from alembic import util  # noqa: PLC0415 - the daemon and the webserver have no need of it

    # An alembic without it is left as it is: growing memory is better than no start.
    if look_up := getattr(util, "coerce_resource_to_filename", None):
        util.coerce_resource_to_filename = functools.cache(look_up)


def leave_what_is_there_alone() -> None:
    """Have Python's collector pass over what has been imported until now, which lives as long as the process.

    It looks through everything only when a quarter as much is new. So some 20 MB of a service's would be garbage, the
    last of it hours after the start.
    """
    gc.collect()
    gc.freeze()
    # So that it knows how little is left to look through.
    gc.collect()


def main() -> None:
    """Run the module that the first argument names, with the arguments that follow."""
    poll_code_server(WATCH_S)
    logging.setLoggerClass(CalmLogger)
    del sys.argv[0]
    # What its `__main__` imports.
    import_module(f"{sys.argv[0]}.cli")
    leave_what_is_there_alone()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
