"""The past of the simulated home is what the pipeline would have read, and a first start stores it once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.demo.past import store_past
from aiseg2_pipeline.demo.rows import Past
from aiseg2_pipeline.frames.climate import frame as climate_frame
from aiseg2_pipeline.frames.readings import KEY, live_frame
from aiseg2_pipeline.gaps import simulated
from aiseg2_pipeline.gaps.find import find_gaps
from aiseg2_pipeline.ingest.climate import Sensors, read_climate
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start, hour_of
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store import EnergyStore, Store

NOW = datetime(2026, 11, 10, 6, 41, 30, tzinfo=UTC)
YESTERDAY = day_of(NOW) - DAY


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(KEY, ignore_index=True)


def test_the_computed_past_is_what_the_device_would_have_served(tmp_path: Path) -> None:
    past, now = Past(Household(), NOW), NOW
    with (
        running(clock=lambda: now) as device,
        Aiseg2Client(
            f"http://{device.address}", device.user, device.password, state_dir=tmp_path, clock=lambda: now
        ) as client,
        EnergyStore.open(tmp_path / "energy.sqlite") as energy,
    ):
        for age in (timedelta(0), timedelta(hours=4), timedelta(days=5, hours=7)):
            now = (NOW - age).replace(second=3)
            reading = client.live()
            of_hour = past.minutes(hour_of(now))
            assert reading.known_circuits is not None
            assert reading.known_circuits.shown == past.circuits
            pd.testing.assert_frame_equal(ordered(of_hour[of_hour["time"] == now]), ordered(live_frame(reading)))
        now = day_start(YESTERDAY).replace(second=3) + timedelta(hours=9, minutes=12)
        rooms = read_climate(client, Sensors(tmp_path, "device"), lambda: now).rooms
        of_day = past.climate(YESTERDAY)
        pd.testing.assert_frame_equal(ordered(of_day[of_day["time"] == now]), ordered(climate_frame(now, rooms)))

        now = NOW
        with History(client, energy, tmp_path, now) as history:
            for day in (YESTERDAY, day_of(NOW)):
                history.read_day(day, circuits=True)
        hours = [past.hours(day) for day in (YESTERDAY, day_of(NOW))]
        computed = pd.concat([*hours, past.totals([YESTERDAY, day_of(NOW)])], ignore_index=True)
        read = energy.read(day_start(YESTERDAY), NOW)
        # The totals of a day that goes on are those of the device.
        ended = read[(read["interval_s"] <= 3600) | (read["time"] < day_start(day_of(NOW)))]
        pd.testing.assert_frame_equal(ordered(computed), ordered(ended))


def rows(settings: Settings) -> pd.DataFrame:
    with Store.open(settings.store_path) as readings, EnergyStore.open(settings.energy_path) as energy:
        return ordered(pd.concat([store.read(NOW - 400 * DAY, NOW + DAY) for store in (readings, energy)]))


def first_start(folder: Path) -> Settings:
    settings = Settings.from_environment({"AISEG2_DATA_DIR": str(folder)})
    simulated.begin(settings.data_dir, settings.first_partition_path, settings.store_path, NOW)
    assert simulated.due(settings.data_dir) == NOW
    return settings


def test_a_killed_first_start_is_completed_without_a_gap_that_healing_would_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "DAYS_OF_MINUTES", 3)
    monkeypatch.setattr(simulated, "MONTHS_OF_HOURS", 0)
    monkeypatch.setattr(simulated, "MONTHS_OF_DAYS", 1)
    whole, killed = first_start(tmp_path / "whole"), first_start(tmp_path / "killed")
    store_past(whole, NOW)

    minutes, began = Past.minutes, NOW - 50 * HOUR
    with monkeypatch.context() as patch:
        patch.setattr(Past, "minutes", lambda past, hour: minutes(past, hour) if hour > began else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store_past(killed, NOW)
    with Store.open(killed.store_path) as readings, EnergyStore.open(killed.energy_path) as energy:
        # What the pipeline reads meanwhile, and a value that it has read itself.
        later = Past(Household(), NOW + HOUR).minutes(hour_of(NOW) + HOUR)
        readings.upsert(later)
        start = readings.live_near(datetime.fromtimestamp(0, UTC))
        assert start is not None
        gaps = find_gaps(readings, energy, start, NOW, NOW)
        assert gaps.fillable == gaps.hopeless == ()
    store_past(killed, NOW)
    assert simulated.due(killed.data_dir) == NOW
    with Store.open(whole.store_path) as readings:
        readings.upsert(later)
    pd.testing.assert_frame_equal(rows(killed), rows(whole))

    with Store.open(killed.store_path) as readings, EnergyStore.open(killed.energy_path) as energy:
        gaps = find_gaps(readings, energy, day_start(YESTERDAY - 2 * DAY), NOW, NOW)
        assert gaps.fillable == gaps.hopeless == ()
        assert sum(hour.removed for hour in gaps.removed) == 40
        assert sum(filled for _, filled, _ in readings.coverage(NOW - 4 * DAY, NOW).values()) == 145


def test_only_a_new_data_directory_gets_a_past_and_only_once(tmp_path: Path) -> None:
    new = first_start(tmp_path / "new")
    simulated.begin(new.data_dir, new.first_partition_path, new.store_path, NOW + HOUR)
    assert simulated.due(new.data_dir) == NOW
    simulated.done(new.data_dir, NOW)
    assert simulated.stored_at(new.data_dir)
    assert simulated.due(new.data_dir) is None

    old = Settings.from_environment({"AISEG2_DATA_DIR": str(tmp_path / "old")})
    Store.open(old.store_path).close()
    simulated.begin(old.data_dir, old.first_partition_path, old.store_path, NOW)
    assert simulated.due(old.data_dir) is None
    assert not old.first_partition_path.exists()
