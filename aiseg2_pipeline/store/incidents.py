"""Notes beside the store about a device or an InfluxDB that does not work, for as long as that lasts.

A run that fails writes the note, and a run that succeeds deletes it. So the start and the reason of a failure can be read
from a small file, independently of the run history. The alerts that follow are decided in `alerts/rules`.
"""

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aiseg2_pipeline.aiseg2.errors import Refused
from aiseg2_pipeline.store.damage import write_json

DEVICE, INFLUXDB = "device", "influxdb"


@dataclass(frozen=True)
class Trouble:
    """The start of the failure, the newest error message, whether that was a refused login, and when it was noted."""

    since: datetime
    sentence: str
    refused: bool = False
    at: datetime | None = None


def note(folder: Path, what: str, error: Exception, now: datetime) -> None:
    """Note that `what` (DEVICE, INFLUXDB) fails; raise nothing, because the run reports an error of its own."""
    before = read(folder, what)
    # A note of a clock that was ahead must not delay the alert.
    since = min(before.since, now) if before else now
    content = {
        "since": since.isoformat(),
        "sentence": str(error),
        "refused": isinstance(error, Refused),
        "at": now.isoformat(),
    }
    with contextlib.suppress(OSError):
        write_json(_path(folder, what), content)


def clear(folder: Path, what: str) -> None:
    """Delete the note, because `what` works."""
    with contextlib.suppress(OSError):
        _path(folder, what).unlink(missing_ok=True)


def read(folder: Path, what: str) -> Trouble | None:
    """Return the note, None if there is none that can be read."""
    try:
        note = json.loads(_path(folder, what).read_text(encoding="utf-8"))
        since = datetime.fromisoformat(note["since"])
        # A note of an earlier version has no `at`.
        at = datetime.fromisoformat(note.get("at", note["since"]))
        return Trouble(since, str(note["sentence"]), bool(note["refused"]), at)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(folder: Path, what: str) -> Path:
    return folder / f"trouble-{what}.json"
