"""Shift the wall clock of real processes, all their children included, while they run."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shifted_clock.c")


@dataclass(frozen=True)
class ShiftedClock:
    """A clock that is ahead; `variables` are the environment of processes that go by it."""

    library: Path
    file: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_SHIFT": str(self.file)}

    def set_ahead(self, shift: timedelta) -> None:
        """Set how far it is ahead; running processes see that at once."""
        # Not replaced: the processes have the file mapped.
        handle = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(handle, int(shift.total_seconds()).to_bytes(8, "little", signed=True))
        os.close(handle)


def shifted_clock(folder: Path) -> ShiftedClock:
    """Return a clock with files in this folder; skip the test where it cannot be compiled."""
    clock = ShiftedClock(folder / "shifted_clock.so", folder / "shift")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    command = [compiler, "-shared", "-fPIC", "-o", str(clock.library), str(SOURCE), "-ldl"]
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own source
        pytest.skip("the clock of processes can be shifted on Linux only")
    clock.set_ahead(timedelta(0))
    return clock
