"""The logger of Dagster's runs: JSON lines for errors on stdout, instead of a line for every event.

Dagster's event log stores every event of a run anyway. The pipeline's own log lines belong in `logs`.
"""

import logging
from typing import Any

from dagster import DagsterExecutionInterruptedError, InitLoggerContext, LoggerDefinition

from aiseg2_pipeline.dagster_internals import set_default_loggers
from aiseg2_pipeline.logs import log_error, log_warning


class _ErrorLines(logging.Handler):
    """Print a line for each step that failed, without its stack trace."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", None) or {}
        event = meta.get("dagster_event")
        if event is None or not event.is_step_failure:
            return
        data = event.step_failure_data
        if data.error.cls_name == DagsterExecutionInterruptedError.__name__:
            log_warning(
                "The run was stopped before its end, by a person or because it took too long: see the run in Dagster's pages.",
                run_id=meta.get("run_id"),
                step=event.step_key,
            )
            return
        description = data.user_failure_data.description if data.user_failure_data else None
        log_error(description or _root(data.error), run_id=meta.get("run_id"), step=event.step_key)


def _root(error: Any) -> str:
    """Return the message of the first cause in a chain of Dagster's serialized errors."""
    while error.cause is not None:
        error = error.cause
    return str(error.message).strip()


def error_lines() -> LoggerDefinition:
    """Return the logger that replaces Dagster's console logger."""

    def console(_: InitLoggerContext) -> logging.Logger:
        # A new logger for each run, as in Dagster: a registered one would collect handlers.
        lines = logging.Logger("aiseg2_pipeline.errors", level=logging.ERROR)  # noqa: LOG001 - see above
        lines.addHandler(_ErrorLines())
        return lines

    return LoggerDefinition(console, description="Errors as JSON lines on stdout.")


def print_errors_alone() -> None:
    """Use this logger also for runs whose config names none, such as those started by hand.

    Dagster has no setting for it.
    """
    set_default_loggers([(error_lines(), {})])
