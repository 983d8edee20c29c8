"""What a recovery restores. A damaged store that cannot be recovered or replaced now is reported, and its file is kept."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import filelock
import pandas as pd
import pytest

from aiseg2_pipeline.frames.readings import KINDS, Row, frame
from aiseg2_pipeline.store import Store, StoreError
from aiseg2_pipeline.store.damage import DamagedFile, damaged_files
from aiseg2_pipeline.store.recovery import recover


@pytest.fixture
def damaged(tmp_path: Path) -> DamagedFile:
    """A damaged store beside the new one."""
    path = tmp_path / "readings.sqlite"
    Store.open(path).close()
    path.write_bytes(b"")
    Store.open(path, lambda _: None).close()
    (found,) = damaged_files(path)
    return found


def recovery_message(damaged: DamagedFile) -> str:
    with Store.open(damaged.path.parent / "readings.sqlite") as store, pytest.raises(StoreError) as raised:
        recover(damaged, store, lambda _: None)
    assert damaged.path.exists()
    return str(raised.value)


def test_a_row_of_every_kind_of_reading_is_restored(tmp_path: Path) -> None:
    time = datetime(2026, 7, 14, 8, tzinfo=UTC)
    units = {"total": "kW", "generation": "W", "usage": "W", "battery": "%", "flow": "kW"}
    assert set(units) == set(KINDS)
    rows = frame(Row(time, kind, kind, 1.5, unit, 0) for kind, unit in units.items())
    path = tmp_path / "readings-damaged-20260714T080000Z.sqlite"
    with Store.open(path) as store:
        store.upsert(rows)
    with Store.open(tmp_path / "readings.sqlite") as store:
        recover(DamagedFile(path, "a reason", None), store, lambda _: None)
        pd.testing.assert_frame_equal(store.read(time, time + timedelta(hours=1)), rows)


def test_a_damaged_store_is_salvaged_by_one_process_at_a_time(damaged: DamagedFile) -> None:
    with filelock.FileLock(f"{damaged.path}.lock"):
        assert "is being salvaged by another process" in recovery_message(damaged)


def test_a_damaged_store_that_cannot_be_read_is_kept(
    damaged: DamagedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by permissions, which root ignores.
    denied = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr("aiseg2_pipeline.store.recovery.note_salvaged", denied)
    assert "Permission denied" in recovery_message(damaged)


def test_a_damaged_file_that_was_not_made_here_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "readings.sqlite"
    Store.open(path).close()
    path.with_name(f"{path.name}.known").unlink()
    content = bytearray(path.read_bytes())
    content[100:4096] = b"\xff" * 3996
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged: move it away and put a copy of it back"):
        Store.open(path)
    assert path.read_bytes() == content
