"""Output that cannot be written: it is dropped, one sentence says why, and writing resumes by itself."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from aiseg2_pipeline.runtime.standard_output import DroppingOutput

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_lines_for_a_full_disk_are_dropped_and_reported_until_there_is_room(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fd = os.open(FULL, os.O_WRONLY)
    output = DroppingOutput(fd)
    for line in (b"first\n", b"second\n"):
        assert output.write(line) == len(line)
    reported = capfd.readouterr().err
    assert reported.strip().startswith("The output cannot be written (No space left on device): lines")
    room = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(room, fd)
    for line in (b"third\n", b"fourth\n"):
        output.write(line)
    assert (tmp_path / "log").read_text(encoding="utf-8") == f"{reported}third\nfourth\n"
    os.close(room)
    os.close(fd)


def test_lines_for_a_reader_that_is_gone_or_has_stopped_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    output = DroppingOutput(writer, stalled_s=0.1)
    data = b"x" * 1_000_000
    assert output.write(data) == len(data)
    assert "its reader has stopped reading" in capfd.readouterr().err
    os.set_blocking(reader, False)
    with suppress(BlockingIOError):
        while os.read(reader, len(data)):
            pass
    output.write(b"end\n")
    assert os.read(reader, 65536).endswith(b"readings go on.\nend\n")
    os.close(reader)
    assert output.write(data) == len(data)
    assert "Broken pipe" in capfd.readouterr().err
    os.close(writer)
