"""Load the settings for a command, read the clock, and print expected errors as one message on stderr."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from aiseg2_pipeline.settings import Settings, SettingsError, load_settings

DEMO_HINT = "No AISEG2_HOST is set, so this is the demo: start its simulated home with `make run` or `aiseg2-pipeline simulate`."


@contextmanager
def settings_or_exit() -> Iterator[Settings]:
    """Yield the settings, and turn the package's own errors into one message and exit code 1."""
    with errors_or_exit():
        yield load_settings()


@contextmanager
def errors_or_exit() -> Iterator[None]:
    """Turn the package's own errors into one message and exit code 1."""
    try:
        yield
    except Exception as error:
        from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Unreachable
        from aiseg2_pipeline.influxdb.client import InfluxError
        from aiseg2_pipeline.report import ReportError
        from aiseg2_pipeline.runtime.services import ServicesError
        from aiseg2_pipeline.store.database import StoreError
        from aiseg2_pipeline.tariff.load import TariffError

        expected = (
            SettingsError | Aiseg2Error | StoreError | InfluxError | ServicesError | ReportError | TariffError
        )
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            # What is left of the output cannot be written at the exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise click.ClickException("The output cannot be written: free space where it goes.") from None
        if not isinstance(error, expected):
            raise
        hint = f" {DEMO_HINT}" if isinstance(error, Unreachable) and load_settings().demo else ""
        raise click.ClickException(f"{error}{hint}") from None


def utc_now() -> datetime:
    """Return the host's time."""
    return datetime.now(UTC)
