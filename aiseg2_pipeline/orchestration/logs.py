"""JSON lines on stdout: one for a reading, one for a write-out, one for an error. Nothing else logs.

Dagster's own event log keeps what a run did; these lines are for whoever reads a service's output.
"""

import logging
import sys
from typing import Any

import structlog
from dagster import InitLoggerContext, LoggerDefinition


def log_line(event: str, **fields: Any) -> None:
    """Print one JSON line with a UTC time stamp; `event` is `reading`, `write_out` or `error`."""
    _line.info(event, **fields)


_line = structlog.wrap_logger(
    structlog.PrintLogger(sys.stdout),
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ],
)


class _ErrorLines(logging.Handler):
    """Prints what Dagster logs as an error, one line each, without its stack."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", None) or {}
        event = meta.get("dagster_event")
        failure = getattr(getattr(event, "event_specific_data", None), "error", None)
        # A run's failure repeats that of its step.
        if event is not None and not event.is_step_event:
            return
        _line.error(
            "error",
            run_id=meta.get("run_id"),
            step=meta.get("step_key") or meta.get("op_name"),
            message=_root(failure) if failure else str(meta.get("orig_message") or record.getMessage()),
        )


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
