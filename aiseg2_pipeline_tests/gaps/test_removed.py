"""Minutes that a person removed are not missing, and no fill brings them back until a person allows it."""

from pathlib import Path

from aiseg2_pipeline.gaps.find import find_gaps, hours_between
from aiseg2_pipeline.japan_time import HOUR, MINUTE, hour_of
from aiseg2_pipeline_tests.support.energy_history import NOON, recorded, remembered


def test_removed_minutes_stay_empty_until_a_person_allows_to_fill_them(tmp_path: Path) -> None:
    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        store, now = record.store, memory.now()
        record.read_live(NOON)
        hour = hour_of(now) - 2 * HOUR
        assert record.fill([hour]) == 60
        store.remove(hour + 10 * MINUTE, hour + 20 * MINUTE, now)
        (found,) = hours_between(store, hour, hour + HOUR, now)
        assert (found.filled, found.missing, found.removed) == (50, 0, 10)
        assert [one.start for one in find_gaps(store, memory.energy, hour, hour + HOUR, now).removed] == [hour]
        assert record.fill([hour]) == 0
        store.allow_fill(hour + 15 * MINUTE, now)
        assert record.fill([hour]) == 5
        store.allow_fill(hour, hour + 12 * MINUTE)
        assert store.removed_minutes(hour, now) == {hour + n * MINUTE for n in (12, 13, 14)}


def test_minutes_still_to_come_are_not_removed(tmp_path: Path) -> None:
    with remembered(tmp_path, NOON) as memory, recorded(memory, tmp_path) as record:
        now = memory.now()
        record.store.remove(now - 2 * MINUTE, now + HOUR, now)
        assert max(record.store.removed_minutes(now - HOUR, now + HOUR)) <= now
