"""The damaged files of a store: their names, the replacement by a new file, and the note beside each of them.

`database` decides what damage is and when a file is replaced; `recovery` restores the rows that can be read.

No file is renamed: SQLite deletes a journal by its name when a file is closed, so a process that still has the damaged
file open would delete the journal of the new one. Instead, the new file gets an unused name, the path becomes a link to it
in one step, and the damaged file and its journal get other names. A process killed before that step leaves the damaged file
as the store, one killed after it the new file.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from aiseg2_pipeline.small_files import replace_text

_JOURNALS = ("-wal", "-shm")


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file and what is wrong with it.

    `salvaged` is a message about the restored rows, None before the first recovery.
    """

    path: Path
    reason: str
    salvaged: str | None


def journals(path: Path) -> list[Path]:
    """Return the names of SQLite's journal files of a file."""
    return [Path(f"{path}{ending}") for ending in _JOURNALS]


def damaged_files(path: Path) -> list[DamagedFile]:
    """Return the damaged files of the store at `path`, oldest first."""
    kept = {file: _read_note(file) for file in _candidates(path) if not _is_store(file, path)}
    return [DamagedFile(file, str(note.get("reason", "")), note.get("salvaged")) for file, note in kept.items()]


def unrecovered(*paths: Path) -> list[DamagedFile]:
    """Return the damaged files of these stores that need a recovery, the newest of each first.

    They are recovered in that order, because older circuits are added before the first list that is stored.
    """
    return [file for path in paths for file in reversed(damaged_files(path)) if file.salvaged is None]


def note_salvaged(damaged: DamagedFile, sentence: str) -> None:
    """Write the note about the restored rows beside the file. Raise OSError."""
    write_json(_note(damaged.path), {"reason": damaged.reason, "salvaged": sentence})


def new_names(path: Path, now: datetime) -> tuple[Path, Path]:
    """Return two unused names: for a new file of the store at `path`, and for the damaged one."""
    folder = path.resolve().parent
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in count(1):
        ending = f"{stamp}{'' if number == 1 else f'-{number}'}{path.suffix}"
        names = folder / f"{path.stem}-{ending}", folder / f"{path.stem}-damaged-{ending}"
        if not any(os.path.lexists(name) for name in names):
            break
    return names


def put_aside(path: Path, new: Path, aside: Path, reason: str) -> None:
    """Make the file `new` the store at `path`, and keep the present one as `aside`.

    The caller holds the lock of the store. Raise OSError, which leaves the store as it was.
    """
    old = path.resolve()
    # A process that was killed at this point has left other names of the present file.
    for file in _candidates(path):
        if _is_store(file, path):
            for leftover in (file, *journals(file), _note(file)):
                leftover.unlink(missing_ok=True)
    for name, new_name in zip((old, *journals(old)), (aside, *journals(aside)), strict=True):
        with contextlib.suppress(FileNotFoundError):
            os.link(name, new_name)
    write_json(_note(aside), {"reason": reason, "salvaged": None})
    _flush(old.parent)
    point(path, new)
    for name in (old, *journals(old)):
        # Where the path was the old file itself, it is the link to the new one by now.
        if name != path.parent.resolve() / path.name:
            name.unlink(missing_ok=True)
    _flush(old.parent)


def point(path: Path, new: Path) -> None:
    """Make `path` a link to `new` in one step."""
    link = path.with_name(f"{path.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(new.name if new.parent == path.parent.resolve() else new)
    link.replace(path)
    _flush(path.parent)


def _candidates(path: Path) -> list[Path]:
    # Sorted by the stem, so that the second file of a second comes after the first.
    return sorted(path.resolve().parent.glob(f"{path.stem}-damaged-*{path.suffix}"), key=lambda file: file.stem)


def _is_store(file: Path, path: Path) -> bool:
    return path.exists() and file.samefile(path)


def _note(aside: Path) -> Path:
    return aside.with_suffix(".json")


def _read_note(aside: Path) -> dict[str, Any]:
    try:
        note = json.loads(_note(aside).read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError):
        return {}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace a file that only its owner may read. Raise OSError."""
    replace_text(path, json.dumps(content, ensure_ascii=False))


def _flush(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
