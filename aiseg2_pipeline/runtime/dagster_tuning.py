"""Reduce the cost of Dagster's services: slower polling, rate-limited errors and constant memory use.

    python -m aiseg2_pipeline.runtime.dagster_tuning dagster_webserver <its arguments>

runs Dagster's daemon or webserver with these changes. Both poll the code server every second to detect a replacement,
although ours is never replaced without them: that is half of the CPU that the three services use while no run is
active. On a full disk the daemon logs a page of stack several times a second, 2 GB a day; here each error is logged
once a minute, and this one without its stack.

The size of the C library's heaps is an environment variable, set in `services`.
"""

import gc
import logging
import re
import runpy
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from aiseg2_pipeline.dagster_internals import DAEMON, cache_engines, migrations, poll_code_server
from aiseg2_pipeline.runtime import open_stores

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Table

POLL_S = 20
REPEAT_S = 60.0
# SQLite's words for an unusable disk, and what to do.
_STEPS = {
    "database or disk is full": "free space on its disk",
    # SQLite says so of a full disk as well.
    "disk I/O error": "free space on its disk, or see that it has no fault",
    "unable to open database file": "let this user read and write it",
    "readonly database": "let this user write to it",
}
_DISK = re.compile("|".join(_STEPS))


class RateLimitedLogger(logging.Logger):
    """A logger that passes on equal errors once a minute, and an error of Dagster's disk without its stack."""

    _logged_at: ClassVar[dict[str, float]] = {}

    def handle(self, record: logging.LogRecord) -> None:
        """Pass the record on, or drop it as a repetition."""
        if record.levelno >= logging.ERROR:
            text = record.getMessage() + (str(record.exc_info[1]) if record.exc_info else "")
            if reason := _DISK.search(text):
                text = (
                    f"Dagster's run history cannot be used ({reason[0]}), so no minute is read: {_STEPS[reason[0]]}. "
                    "Readings then resume by themselves."
                )
                record.msg, record.args, record.exc_info = text, (), None
            now = time.monotonic()
            # Of all loggers of the process; expired texts are dropped, so that the dictionary stays small.
            recent = {one: at for one, at in list(self._logged_at.items()) if now - at < REPEAT_S}
            if text in recent:
                return
            RateLimitedLogger._logged_at = recent | {text: now}
        super().handle(record)


def cache_storage_setup() -> None:
    """Read alembic's migration scripts once, define its table once, and keep one engine for each of Dagster's files.

    Dagster creates its storages again for each tick and each run. Each would import 88 scripts to learn the newest
    revision, which is a quarter of a run's CPU time, and register a function to be called at exit: 5 MB a day. With a
    table of its own it would compile its query again, of which an engine keeps 500: 20 MB.
    """
    from alembic.ddl.impl import DefaultImpl  # noqa: PLC0415 - only once Dagster is imported
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    read = ScriptDirectory.from_config
    folders: dict[str | None, ScriptDirectory] = {}

    def from_config(config: "Config") -> ScriptDirectory:
        location = config.get_main_option("script_location")
        return folders.get(location) or folders.setdefault(location, read(config))

    define = DefaultImpl.version_table_impl
    tables: dict[str, Table] = {}

    def version_table(self: DefaultImpl, **options: Any) -> "Table":
        name = str(sorted(options.items()))
        if name not in tables:
            tables[name] = define(self, **options)
        return tables[name]

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]  # for all callers
    DefaultImpl.version_table_impl = version_table  # type: ignore[method-assign]  # as above
    # Now, so that forked processes need not read them.
    if config := migrations():
        from_config(config).as_revision_number("head")
    cache_engines()


def freeze_imported_objects() -> None:
    """Exclude the objects imported so far, which live as long as the process, from garbage collection.

    Python starts a full collection only when the new objects are a quarter of the old ones. A service would therefore
    hold some 20 MB of garbage, the last of it collected hours after the start. Python also waits for ten smaller
    collections, for which the daemon takes a quarter of an hour and 8 MB; it waits for one here.
    """
    gc.collect()
    gc.freeze()
    # Updates the collector's count of old objects, which is now small.
    gc.collect()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1)


def prepare() -> None:
    """Import the module that the first argument names, with the changes."""
    poll_code_server(POLL_S)
    logging.setLoggerClass(RateLimitedLogger)
    # The module that its `__main__` imports.
    import_module(f"{sys.argv[1]}.cli")
    cache_storage_setup()
    freeze_imported_objects()


def serve() -> None:
    """Run the module that the first argument names, with the arguments that follow."""
    del sys.argv[0]
    if sys.argv[0] == DAEMON:
        open_stores.keep_those_of_environment_open()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def main() -> None:
    """Prepare and serve."""
    prepare()
    serve()


if __name__ == "__main__":
    main()
