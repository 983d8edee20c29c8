"""A run that closes a store leaves its journal while the pipeline runs, and a stop leaves none."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.runtime.open_stores import close_journals, keep_open
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.store import in_another_process, kill_this_process

NOW = datetime(2026, 7, 14, 8, tzinfo=UTC)


def store_a_row(path: Path) -> None:
    with Store.open(path) as store:
        store.upsert(frame([Row(NOW, "usage", "台所", time.monotonic(), "W", 0)]))


def store_a_row_and_be_killed(path: Path) -> None:
    with Store.open(path):
        store_a_row(path)
        kill_this_process()


def journal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def test_a_journal_stays_when_a_run_closes_the_store(tmp_path: Path) -> None:
    path = tmp_path / "readings.sqlite"
    keep_open([path], poll_s=0.05)
    end = time.monotonic() + 60
    while True:
        store_a_row(path)
        if journal(path).exists():
            break
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_stop_leaves_one_file_for_each_store(tmp_path: Path) -> None:
    path, missing = tmp_path / "readings.sqlite", tmp_path / "climate.sqlite"
    in_another_process(store_a_row_and_be_killed, path)
    assert journal(path).exists()
    close_journals([path, missing])
    assert not journal(path).exists()
    assert not missing.exists()
    with Store.open(path) as store:
        assert store.count(NOW, NOW + timedelta(minutes=1)) == 1
