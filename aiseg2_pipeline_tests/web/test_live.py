"""The live view: how often the device is read for viewers, and when it is left alone."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import filelock

from aiseg2_pipeline.simulator.faults import Fault, Faults
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import Running, running
from aiseg2_pipeline_tests.support.page import Page, served, settings_of, store_reading, utc_now

WATCHED_S = 11
FLOW, BATTERY_FLOW = "/data/electricflow/111/update", "/data/electricflow/112/update"
# An answer within this time does not wait for a device that does not answer.
AT_ONCE_S = 2.0


@contextmanager
def watched(folder: Path, household: Household | None = None, **settings: str) -> Iterator[tuple[Page, Running]]:
    """A page and its device."""
    with running(household) as device:
        given = {"AISEG2_HOST": device.address, "AISEG2_USER": device.user, "AISEG2_PASSWORD": device.password}
        with served(folder, given | settings) as page:
            yield page, device


def look(page: Page, seconds: float = WATCHED_S) -> set[str]:
    """Look at the page as its script does, every 5 s and a little more; return where the power flow was from."""
    end, sources = time.monotonic() + seconds, set()
    while time.monotonic() < end:
        sources.add(page.api("now", live=1)["source"])
        time.sleep(1)
    return sources


def test_five_viewers_cost_the_device_what_one_does_and_nobody_costs_nothing(tmp_path: Path) -> None:
    with watched(tmp_path / "data", Household(battery=True)) as (page, device):
        page.api("now")
        time.sleep(1)
        assert device.tally.requests == {}
        with ThreadPoolExecutor() as viewers:
            assert set().union(*viewers.map(lambda _: look(page), range(5))) == {"live"}
        # Every 5 s in 11 s; the first answer is a 401.
        counted = dict(device.tally.requests)
        assert counted.keys() == {FLOW, BATTERY_FLOW}
        assert counted[FLOW] - device.tally.refused <= 3
        assert counted[BATTERY_FLOW] <= 3
        content = page.api("now", live=1)
        assert content["grid_w"] is not None
        assert content["battery_percent"] is not None
        # It is not stored.
        assert content["circuits"] == []
        assert not (tmp_path / "data" / "readings.sqlite").exists()


def test_the_device_is_not_read_beside_a_minute_s_reading_or_where_that_is_switched_off(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store_reading(folder, utc_now(), 台所=700.0)
    with watched(folder) as (page, device):
        lock = settings_of(folder).device_state_dir / "live.lock"
        lock.parent.mkdir()
        with filelock.FileLock(lock):
            assert look(page, 7) == {"stored"}
            assert device.tally.requests == {}
        assert "live" in look(page, 7)
    with watched(folder, AISEG2_PAGE_LIVE="0") as (page, device):
        assert look(page, 2) == {"stored"}
        assert not page.api("now")["live"]
        assert device.tally.requests == {}


def test_a_slow_or_silent_device_is_given_up_for_a_while_and_the_stored_minute_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store_reading(folder, utc_now(), 台所=700.0)
    with watched(folder) as (page, device):
        assert page.api("now", live=1)["source"] == "live"
        device.faults = Faults(1, 1.0, {Fault.SLOW})
        before = device.tally.requests.total()
        began = time.monotonic()
        assert look(page, 12) == {"live", "stored"}
        assert time.monotonic() - began < 12 + 3 + AT_ONCE_S
        # It was tried once, and is left alone since then.
        assert device.tally.requests.total() == before + 1
        assert page.api("now", live=1)["consumption_w"] == 700
