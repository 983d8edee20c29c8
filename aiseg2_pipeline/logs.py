"""JSON lines on stdout: one for a reading, one for a write-out, one for an error. Nothing else logs.

Dagster's own event log keeps what a run did; these lines are for whoever reads a service's output.
"""

import logging
import sys
from typing import Any

import structlog
from dagster import DagsterExecutionInterruptedError, InitLoggerContext, LoggerDefinition

from aiseg2_pipeline.dagster_internals import set_default_loggers


def log_line(event: str, **fields: Any) -> None:
    """Print one JSON line with a UTC time stamp; `event` is `reading` or `write_out`."""
    _line.info(event, **fields)


def log_warning(message: str, **fields: Any) -> None:
    """Print one JSON line for something that works, but not as it should."""
    _line.warning("warning", message=message, **fields)


def log_error(message: str, **fields: Any) -> None:
    """Print one JSON line for something that went wrong; `message` is the sentence that people see."""
    _line.error("error", message=message, **fields)


_line = structlog.wrap_logger(
    structlog.PrintLogger(sys.stdout),
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ],
)


class _ErrorLines(logging.Handler):
    """Prints a line for each step that failed, without its stack."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", None) or {}
        event = meta.get("dagster_event")
        if event is None or not event.is_step_failure:
            return
        data = event.step_failure_data
        if data.error.cls_name == DagsterExecutionInterruptedError.__name__:
            log_warning(
                "The run was stopped before its end, by a person or because it took too long: look at it in Dagster's pages.",
                run_id=meta.get("run_id"),
                step=event.step_key,
            )
            return
        told = data.user_failure_data.description if data.user_failure_data else None
        log_error(told or _root(data.error), run_id=meta.get("run_id"), step=event.step_key)


def _root(error: Any) -> str:
    """Return the sentence at the bottom of a chain of Dagster's serialized errors."""
    while error.cause is not None:
        error = error.cause
    return str(error.message).strip()


def error_lines() -> LoggerDefinition:
    """Return the logger that takes the place of Dagster's console logger."""

    def console(_: InitLoggerContext) -> logging.Logger:
        # One of its own for each run, as Dagster's: a registered one would collect handlers.
        lines = logging.Logger("aiseg2_pipeline.errors", level=logging.ERROR)  # noqa: LOG001 - as said above
        lines.addHandler(_ErrorLines())
        return lines

    return LoggerDefinition(console, description="Errors as JSON lines on stdout.")


def print_errors_alone() -> None:
    """Let runs whose config names no logger, as those started by hand, print these lines, and not their every event.

    Dagster has no setting for it.
    """
    set_default_loggers([(error_lines(), {})])
