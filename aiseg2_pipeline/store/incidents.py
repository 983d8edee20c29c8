"""What keeps readings from being taken or written out, noted beside the store for as long as it lasts.

The run that meets an error notes it, and the run that works again removes the note: so since when and why is known
at the cost of reading a small file, whatever becomes of the history of runs. What follows from it, says `alerts/rules`.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aiseg2_pipeline.aiseg2.errors import Refused

DEVICE, INFLUXDB = "device", "influxdb"


@dataclass(frozen=True)
class Trouble:
    """Since when it has not worked, the newest error's sentence, and whether that was a refused login."""

    since: datetime
    sentence: str
    refused: bool = False


def note(folder: Path, what: str, error: Exception, now: datetime) -> None:
    """Note that `what` (DEVICE, INFLUXDB) does not work; it never fails, for the run has an error of its own to tell."""
    before = read(folder, what)
    # A clock that was ahead must not put off for years what is to be told.
    since = min(before.since, now) if before else now
    told = {"since": since.isoformat(), "sentence": str(error), "refused": isinstance(error, Refused)}
    new = _path(folder, what).with_suffix(f".{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        new.touch(mode=0o600)
        new.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")
        new.replace(_path(folder, what))


def clear(folder: Path, what: str) -> None:
    """Note that `what` works."""
    with contextlib.suppress(OSError):
        _path(folder, what).unlink(missing_ok=True)


def read(folder: Path, what: str) -> Trouble | None:
    """Return what is noted, None where there is no note, or none that can be read."""
    try:
        told = json.loads(_path(folder, what).read_text(encoding="utf-8"))
        return Trouble(datetime.fromisoformat(told["since"]), str(told["sentence"]), bool(told["refused"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(folder: Path, what: str) -> Path:
    return folder / f"trouble-{what}.json"
