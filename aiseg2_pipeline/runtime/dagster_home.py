"""Prepare Dagster's home before its services start: its dagster.yaml and the storage of its run history.

The storage is SQLite, or the PostgreSQL of AISEG2_POSTGRES_URL (the extra `postgres`).
"""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import sqlalchemy
import yaml

from aiseg2_pipeline.orchestration.maintenance.sqlite_files import (
    prepare_storage,
    put_aside_damaged,
    restore_states,
)
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.small_files import replace_text

INSTANCE = "dagster.yaml"
# The address holds a password, so that dagster.yaml names the variable instead.
POSTGRES = {"postgres": {"postgres_url": {"env": "AISEG2_POSTGRES_URL"}}}
CONNECT_S = 10
# The message in the last line of a traceback, without the exception's name.
_RAISED = re.compile(r"^[\w.]+(?:Error|Exception): (?:\([\w.]+\) |\[Errno \d+\] )?(.+)$", re.MULTILINE)


class DagsterHomeError(Exception):
    """Dagster's home cannot be prepared; the message is one sentence."""


def make(settings: Settings, folder: Path, variables: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Create or migrate the home from the dagster.yaml in `folder`; `variables` is the environment of the services.

    `say` receives a sentence for each problem that does not prevent the start. Raise DagsterHomeError, and OSError
    where the folder cannot be written.
    """
    home = settings.dagster_home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    instance = yaml.safe_load((folder / INSTANCE).read_text(encoding="utf-8"))
    if settings.run_history:
        check_postgres(settings.run_history.get_secret_value())
        del instance["event_log_storage"]
        instance["storage"] = POSTGRES
    replace_text(home / INSTANCE, yaml.safe_dump(instance))
    if not settings.run_history:
        for message in put_aside_damaged(home, datetime.now(UTC)):
            say(message)
    # Otherwise webserver and daemon would both create the storage, and one of them would fail.
    ended = subprocess.run(
        [sys.executable, "-m", "aiseg2_pipeline.runtime.prepare_storage"],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        reason = (_RAISED.findall(ended.stderr) or ["no reason given"])[-1]
        raise DagsterHomeError(
            f"Dagster's storage in {home} cannot be made ({reason}): correct that, or move the folder away, which loses the history "
            "of runs but no reading."
        )
    restore_states(home)
    for problem in prepare_storage(home):
        say(problem)


def check_postgres(url: str) -> None:
    """Raise DagsterHomeError where the PostgreSQL, or the extra for it, cannot be used."""
    try:
        import_module("dagster_postgres")
    except ImportError:
        raise DagsterHomeError(
            "AISEG2_POSTGRES_URL is set, but its extra is not installed: start with `make run EXTRAS=postgres` (pipx and uv: see "
            "docs/installation.md), or remove the setting."
        ) from None
    engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": CONNECT_S})
    try:
        engine.connect().close()
    except sqlalchemy.exc.DBAPIError as error:
        # The driver's message, which does not hold the password.
        reason = " ".join(str(error.orig).split())
        raise DagsterHomeError(
            f"The PostgreSQL at AISEG2_POSTGRES_URL cannot be used ({reason}): start it, or correct the address."
        ) from None
    finally:
        engine.dispose()
