"""Notice that the settings in `.env` have changed, so that the services start again with them.

The environment of the services is fixed when they start. Settings that are wrong, or with which they could not start,
are reported once, and the services continue with those that they have.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from aiseg2_pipeline.runtime.watch import QUIET_SECONDS
from aiseg2_pipeline.settings import Settings, SettingsError, environment


class SettingsWatch:
    """The settings that the services run with, to compare with the present ones."""

    def __init__(
        self, used: Mapping[str, str], problem: Callable[[Settings], str | None], say: Callable[[str], None]
    ) -> None:
        """Compare with the environment `used`; `problem` returns why the services could not start with other settings."""
        self._problem = problem
        self._say = say
        self._used = used
        self._seen: Mapping[str, str] | str = used
        self._refused: Mapping[str, str] | str = {}

    def changed(self, now: datetime) -> bool:
        """Return whether the services must start again now."""
        given, before = _read(), self._seen
        self._seen = given
        # An editor may be writing the file: accept what was read twice.
        if given in (self._used, self._refused) or given != before:
            return False
        if problem := self._refusal(given):
            self._refused = given
            self._say(f"The settings have changed, but the pipeline continues with those before. {problem}")
            return False
        return now.second in QUIET_SECONDS

    def _refusal(self, given: Mapping[str, str] | str) -> str | None:
        if isinstance(given, str):
            return given
        try:
            settings = Settings.from_environment(given)
        except SettingsError as error:
            return str(error)
        # Probably a file that was emptied or lost.
        if settings.demo and not Settings.from_environment(self._used).demo:
            return "AISEG2_HOST is not set any more: set it, or start the pipeline again for the demo."
        return self._problem(settings)


def _read() -> Mapping[str, str] | str:
    """Return the settings of the environment and `.env`, or the sentence of an `.env` that cannot be read."""
    try:
        return environment()
    except SettingsError as error:
        return str(error)
