"""Replace a small file so that a power cut leaves either the old or the new one. Databases belong in `store`.

`aiseg2`, which imports nothing of the package, does the same in `state`.
"""

import contextlib
import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, readable by the owner alone; create its folder. Raise OSError."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, readable by the owner alone; create its folder. Raise OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Another process may write the same file.
    new = path.parent / f"{path.name}.{os.getpid()}.new"
    try:
        with new.open("wb") as file:
            new.chmod(0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    # Not every file system flushes folders.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
