"""A small file whose content does not reach the disk, as in a power cut, is still the old one."""

import errno
import os
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2.state import load_state, save_state
from aiseg2_pipeline.small_files import replace_text


def test_a_file_is_replaced_only_by_one_that_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    text, state = tmp_path / "text", tmp_path / "state.json"
    replace_text(text, "old")
    save_state(state, {"is": "old"})
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        replace_text(text, "new")
    save_state(state, {"is": "new"})
    assert text.read_text(encoding="utf-8") == "old"
    assert load_state(state) == {"is": "old"}
    assert sorted(tmp_path.iterdir()) == [state, text]
