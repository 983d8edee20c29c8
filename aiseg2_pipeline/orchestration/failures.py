"""Errors of the device, the store and the report as Dagster's `Failure`: the one place that turns them into it."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure

from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.report import ReportError
from aiseg2_pipeline.store.database import StoreError


@contextmanager
def failures() -> Iterator[None]:
    """Raise Failure with the error's message; a retry within the same run would not help."""
    try:
        yield
    except (Aiseg2Error, ReportError, StoreError) as error:
        raise Failure(str(error), allow_retries=False) from None
