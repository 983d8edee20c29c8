"""What keeps the memory of services flat that run for years."""

import atexit
import gc
from collections import deque

import alembic.util
import dagster._core.storage.sql
import pytest
from alembic.script import ScriptDirectory
from dagster._core.storage.sql import get_alembic_config

from aiseg2_pipeline.runtime import dagster_tuning

MADE, IN_USE, AT_MOST = 400_000, 20_000, 150_000
IMPORTED = 1_000_000


def test_storages_that_are_made_again_and_again_leave_nothing_to_be_closed_at_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Afterwards it is as it was.
    monkeypatch.setattr(alembic.util, "coerce_resource_to_filename", alembic.util.coerce_resource_to_filename)
    dagster_tuning.look_up_files_once()
    config = get_alembic_config(dagster._core.storage.sql.__file__)  # noqa: SLF001 - Dagster's own
    ScriptDirectory.from_config(config)
    before = atexit._ncallbacks()  # noqa: SLF001 - nothing else tells
    ScriptDirectory.from_config(config)
    assert atexit._ncallbacks() == before  # noqa: SLF001 - as above


def test_an_alembic_that_looks_up_files_in_another_way_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(alembic.util, "coerce_resource_to_filename")
    dagster_tuning.look_up_files_once()
    assert not hasattr(alembic.util, "coerce_resource_to_filename")


class Cycle:
    """What only the collector can take away, and how many there are."""

    alive = 0

    def __init__(self) -> None:
        Cycle.alive += 1
        self.itself = self

    def __del__(self) -> None:
        Cycle.alive -= 1


def test_garbage_does_not_pile_up_however_much_has_been_imported() -> None:
    imported = [[n] for n in range(IMPORTED)]
    dagster_tuning.leave_what_is_there_alone()
    try:
        # Old enough, when it is given up, for the collector's rarest look alone.
        in_use: deque[Cycle] = deque(maxlen=IN_USE)
        most = 0
        for _ in range(MADE):
            in_use.append(Cycle())
            most = max(most, Cycle.alive)
    finally:
        gc.unfreeze()
    assert most < AT_MOST
    assert len(imported) == IMPORTED
