"""The memory of services that run for years stays constant, and repeated errors of Dagster are logged rarely."""

import atexit
import gc
import logging
import sqlite3
import time
from collections import deque

import dagster._core.storage.sql
import pytest
import sqlalchemy
from alembic.ddl.impl import DefaultImpl
from alembic.script import ScriptDirectory
from dagster._core.storage.sql import check_alembic_revision, get_alembic_config, stamp_alembic_rev

from aiseg2_pipeline.dagster_internals import SQLITE_STORAGES
from aiseg2_pipeline.runtime import dagster_tuning
from aiseg2_pipeline.runtime.dagster_tuning import RateLimitedLogger

CREATED, IN_USE, AT_MOST = 400_000, 20_000, 60_000
IMPORTED = 1_000_000


def test_storages_created_again_read_no_script_compile_no_query_and_register_nothing_at_exit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Restored after the test.
    monkeypatch.setattr(ScriptDirectory, "from_config", ScriptDirectory.from_config)
    monkeypatch.setattr(DefaultImpl, "version_table_impl", DefaultImpl.version_table_impl)
    for module in SQLITE_STORAGES:
        monkeypatch.setattr(f"{module}.create_engine", sqlalchemy.create_engine)
    dagster_tuning.cache_storage_setup()
    config = get_alembic_config(dagster._core.storage.sql.__file__)  # noqa: SLF001 - Dagster's own
    scripts = ScriptDirectory.from_config(config)
    before = atexit._ncallbacks()  # noqa: SLF001 - there is no public count
    assert ScriptDirectory.from_config(config) is scripts
    assert atexit._ncallbacks() == before  # noqa: SLF001 - as above
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    with sqlalchemy.create_engine("sqlite://").connect() as connection:
        stamp_alembic_rev(config, connection)
        for _ in range(2):
            caplog.clear()
            assert check_alembic_revision(config, connection)[0] == scripts.get_current_head()
    assert any("[cached since" in record.getMessage() for record in caplog.records), caplog.text


class Cycle:
    """An object that only the garbage collector can free."""

    alive = 0

    def __init__(self) -> None:
        Cycle.alive += 1
        self.itself = self

    def __del__(self) -> None:
        Cycle.alive -= 1


def test_garbage_is_collected_early_whatever_has_been_imported() -> None:
    imported = [[n] for n in range(IMPORTED)]
    thresholds = gc.get_threshold()
    # Those of Python 3.11 in each Python.
    gc.set_threshold(700, 10, 10)
    dagster_tuning.freeze_imported_objects()
    try:
        # Objects are released when they are old enough for full collections only.
        in_use: deque[Cycle] = deque(maxlen=IN_USE)
        most = 0
        for _ in range(CREATED):
            in_use.append(Cycle())
            most = max(most, Cycle.alive)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    assert most < AT_MOST
    assert len(imported) == IMPORTED


@pytest.fixture
def daemon_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger as the daemon's parts have one, without a history."""
    monkeypatch.setattr(RateLimitedLogger, "_logged_at", {})
    logger = RateLimitedLogger("dagster.daemon.SensorDaemon")
    logger.addHandler(caplog.handler)
    return logger


def test_a_repeated_error_is_logged_once_a_minute_and_a_warning_always(
    daemon_log: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for log in (daemon_log.error, daemon_log.error, daemon_log.warning, daemon_log.warning):
        log("Something is wrong.")
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "WARNING"]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    daemon_log.error("Something is wrong.")
    assert len(caplog.records) == 4


@pytest.mark.parametrize(
    ("reason", "step"),
    [("database or disk is full", "free space"), ("attempt to write a readonly database", "let this user write")],
)
def test_an_error_of_the_disk_is_logged_in_a_sentence_without_a_stack(
    reason: str, step: str, daemon_log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    daemon_log.error("Failed to add heartbeat:\nOperationalError: %s\nStack Trace:\n…", reason)
    daemon_log.error("SensorDaemon caught an error", exc_info=sqlite3.OperationalError(reason))
    (message,) = caplog.messages
    assert reason.removeprefix("attempt to write a ") in message
    assert step in message
    assert "Stack" not in caplog.text
