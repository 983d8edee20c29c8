"""What a client keeps for the next process, in small JSON files: whatever is lost can be requested again."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any


def load_state(path: Path) -> dict[str, Any]:
    """Return the state that `save_state` wrote; {} where it cannot be read, as all of it can be requested again."""
    try:
        state = json.loads(path.read_bytes())
        # A value that cannot be written again (a lone surrogate) would fail every later reading.
        json.dumps(state, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Replace the file atomically. A failed write costs a request next time, not this reading."""
    new = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with new.open("w", encoding="utf-8") as file:
            new.chmod(0o600)
            file.write(json.dumps(state, ensure_ascii=False))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)


class Silence:
    """Keep since when the device has not answered, in a file that all processes share."""

    def __init__(self, path: Path, base_url: str, clock: Callable[[], datetime]) -> None:
        """Use this file; `clock` returns the host's time."""
        self._path, self._base_url, self._clock = path, base_url, clock

    def lasts_s(self) -> float:
        """Return for how long the device has been silent; 0 after an answer."""
        state = load_state(self._path)
        since = state.get("since") if state.get("base_url") == self._base_url else None
        return self._clock().timestamp() - since if isinstance(since, float) else 0.0

    def began(self) -> None:
        """Note a request without an answer."""
        if not self.lasts_s():
            save_state(self._path, {"base_url": self._base_url, "since": self._clock().timestamp()})

    def ended(self) -> None:
        """Note an answer."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
