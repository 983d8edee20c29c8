"""Errors of the device, the store and the report as Dagster's `Failure`: the one place that turns them into it."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure

from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.dagster_internals import MissingInternalError
from aiseg2_pipeline.report import ReportError
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.tariff.load import TariffError


@contextmanager
def failures(consequence: str = "") -> Iterator[None]:
    """Raise Failure with the error's message; a retry within the same run would not help.

    `consequence` starts the message where this Dagster lacks a private name that the block needs.
    """
    try:
        yield
    except (Aiseg2Error, ReportError, StoreError, TariffError) as error:
        raise Failure(str(error), allow_retries=False) from None
    except MissingInternalError as error:
        raise Failure(
            f"{consequence}, because {error}: install the pipeline's own versions again.", allow_retries=False
        ) from None
