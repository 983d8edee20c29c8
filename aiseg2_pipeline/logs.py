"""Print JSON lines to stdout: one for a reading, one for a delivery, one for a warning or an error.

Dagster's event log stores the events of a run; these lines are for people who read a service's output. Loggers for Dagster's
runs belong in `orchestration/loggers`.
"""

import sys
from typing import Any

# structlog would import rich, which comes with Dagster, for colours that nothing here prints: 7 MB in each process.
_hidden = sys.modules.setdefault("rich", None) is None  # type: ignore[arg-type]  # the import system's "not to be found"
import structlog  # noqa: E402 - see above

if _hidden:
    del sys.modules["rich"]


def log_line(event: str, **fields: Any) -> None:
    """Print one JSON line with a UTC time stamp; `event` is `reading` or `write_out`."""
    _line.info(event, **fields)


def log_warning(message: str, **fields: Any) -> None:
    """Print one JSON line for something that still works, but not as intended."""
    _line.warning("warning", message=message, **fields)


def log_error(message: str, **fields: Any) -> None:
    """Print one JSON line for something that went wrong; `message` is the sentence that people see."""
    _line.error("error", message=message, **fields)


_line = structlog.wrap_logger(
    # A new one for each line, because a forked process has another stdout.
    None,
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ],
)
