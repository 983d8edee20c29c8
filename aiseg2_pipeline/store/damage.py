"""The files of a damaged store: kept aside under a name that says since when, while readings go on in a new one.

What counts as damage, and who may put a file aside, says `database`; what can still be read of one comes back by
`recovery`.

Nothing is renamed: SQLite removes a journal by its name when a file is closed, and a process that still has the damaged
file open would remove the new one's. So the new file has a name that was never in use, the path of the old one becomes a
link to it in one step, and the old one gets another name, its journal too. Killed before that step, the damaged file
is still the store; killed after it, the new one is.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

_JOURNALS = ("-wal", "-shm")


@dataclass(frozen=True)
class DamagedFile:
    """A damaged store that is kept, and why.

    `salvaged` says in a sentence what came back of it, None while nobody has looked.
    """

    path: Path
    reason: str
    salvaged: str | None


def journals(path: Path) -> list[Path]:
    """Return the names of SQLite's files beside a file."""
    return [Path(f"{path}{ending}") for ending in _JOURNALS]


def damaged_files(path: Path) -> list[DamagedFile]:
    """Return the damaged files that are kept of the store at `path`, oldest first."""
    kept = [one for one in _candidates(path) if not _is_store(one, path)]
    notes = [_read_note(one) for one in kept]
    return [
        DamagedFile(one, str(note.get("reason", "")), note.get("salvaged"))
        for one, note in zip(kept, notes, strict=True)
    ]


def unsalvaged(*paths: Path) -> list[DamagedFile]:
    """Return the damaged files of these stores that nobody has tried to bring rows back from, the newest of each first.

    In that order they are to be salvaged: circuits come back before the first list that is known.
    """
    return [one for path in paths for one in reversed(damaged_files(path)) if one.salvaged is None]


def note_salvaged(damaged: DamagedFile, sentence: str) -> None:
    """Note beside the file what came back of it. Raise OSError."""
    _write_note(damaged.path, {"reason": damaged.reason, "salvaged": sentence})


def new_names(path: Path, now: datetime) -> tuple[Path, Path]:
    """Return two names that are not in use: for a new file of the store at `path`, and for the damaged one."""
    folder = path.resolve().parent
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in count(1):
        ending = f"{stamp}{'' if number == 1 else f'-{number}'}{path.suffix}"
        names = folder / f"{path.stem}-{ending}", folder / f"{path.stem}-damaged-{ending}"
        if not any(os.path.lexists(name) for name in names):
            break
    return names


def put_aside(path: Path, new: Path, aside: Path, reason: str) -> None:
    """Make the file `new` the store at `path`, and keep the one that is it as `aside`.

    Nobody else may open the store meanwhile. Raise OSError; the store is then as it was.
    """
    old = path.resolve()
    # One that was killed on its way here has left its names.
    for one in _candidates(path):
        if _is_store(one, path):
            for left in (one, *journals(one), one.with_suffix(".json")):
                left.unlink(missing_ok=True)
    for name, new_name in zip((old, *journals(old)), (aside, *journals(aside)), strict=True):
        with contextlib.suppress(FileNotFoundError):
            os.link(name, new_name)
    _write_note(aside, {"reason": reason, "salvaged": None})
    _on_disk(old.parent)
    point(path, new)
    for name in (old, *journals(old)):
        # The link to the new file stays, where it has taken the old one's name.
        if name != path.parent.resolve() / path.name:
            name.unlink(missing_ok=True)
    _on_disk(old.parent)


def point(path: Path, new: Path) -> None:
    """Make `path` a link to `new` in one step, whatever was there."""
    link = path.with_name(f"{path.name}.link")
    link.unlink(missing_ok=True)
    link.symlink_to(new.name if new.parent == path.parent.resolve() else new)
    link.replace(path)
    _on_disk(path.parent)


def _candidates(path: Path) -> list[Path]:
    # By the stem, so that the second one of a second comes after the first.
    return sorted(path.resolve().parent.glob(f"{path.stem}-damaged-*{path.suffix}"), key=lambda one: one.stem)


def _is_store(one: Path, path: Path) -> bool:
    return path.exists() and one.samefile(path)


def _read_note(aside: Path) -> dict[str, Any]:
    try:
        note = json.loads(aside.with_suffix(".json").read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    except (OSError, ValueError):
        return {}


def _write_note(aside: Path, note: dict[str, Any]) -> None:
    path = aside.with_suffix(".json")
    new = path.with_suffix(".tmp")
    new.touch(mode=0o600)
    new.write_text(json.dumps(note, ensure_ascii=False), encoding="utf-8")
    new.replace(path)


def _on_disk(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
