"""Find out when the services must start again, because they cannot correct something while they run.

Their supervisor asks regularly, and `dagster_home` corrects it before they start.
"""

import contextlib
from datetime import datetime
from pathlib import Path

from aiseg2_pipeline.japan_time import CLOCK_IS_SET, day_start, hour_key
from aiseg2_pipeline.runtime import health
from aiseg2_pipeline.runtime.warm_parent import RUNS_REPLACED
from aiseg2_pipeline.settings import Settings

# The seconds of a minute in which its run has ended, and the next one has not begun when the services have started.
QUIET_SECONDS = range(20, 45)
# How SQLite says that a file is damaged.
_SIGNS_OF_DAMAGE = ("database disk image is malformed", "file is not a database")


class Watch:
    """The state at the start of the services, to compare with the present one, and their output."""

    def __init__(self, settings: Settings, now: datetime) -> None:
        """Remember the record's first hour, and whether later times than now could not be dropped."""
        self._settings = settings
        self._was_ahead = self._is_ahead(now)
        self._first = _text(settings.first_partition_path)
        # A search that has found everything since its start date changes nothing for the definitions.
        self._searched = hour_key(day_start(settings.start_date)) if settings.start_date else ""
        self._suspects_damage = False
        self._runs_replaced = False

    def line(self, text: str) -> None:
        """Take a line of the services' output: Dagster's files may be damaged, or the process of the runs was replaced."""
        self._runs_replaced |= RUNS_REPLACED in text
        self._suspects_damage |= any(sign in text for sign in _SIGNS_OF_DAMAGE)

    def reason(self, now: datetime) -> str | None:
        """Return why the services must start again now, None if they need not."""
        first = _text(self._settings.first_partition_path)
        # Without a file the clock is not set yet, and the code server writes the first one itself.
        self._first = self._first or first
        if first not in ("", self._first, self._searched) and now.second in QUIET_SECONDS:
            return "The start of the record was found, so the services start again with its hours."
        if self._runs_replaced and now.second in QUIET_SECONDS:
            return "A process was killed (perhaps by the system, for want of memory), so the services start again to share their memory."
        if self._is_ahead(now) and not self._was_ahead:
            return "This machine's clock was ahead, so the services start again to continue from now."
        if self._suspects_damage:
            self._suspects_damage = False
            if health.damaged(self._settings):
                return "A file of Dagster's is damaged, so the services start again with a new one."
        return None

    def _is_ahead(self, now: datetime) -> bool:
        # What cannot be read is a problem of the services themselves.
        with contextlib.suppress(OSError):
            return now >= CLOCK_IS_SET and health.ahead(self._settings, now) is not None
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
