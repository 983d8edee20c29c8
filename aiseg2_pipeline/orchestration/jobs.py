"""The jobs on assets, and the tags and config that all jobs share. When they run belongs in `schedules` and `sensors`.

The jobs on Dagster's own history are in `maintenance`.
"""

from typing import Any

from dagster import AssetKey, AssetSelection, define_asset_job

from aiseg2_pipeline.dagster_internals import AssetJob
from aiseg2_pipeline.ingest.climate import NOT_VERIFIED
from aiseg2_pipeline.orchestration.keys import (
    CLIMATE,
    ENERGY_COST,
    ENERGY_HISTORY,
    INFLUXDB_CLIMATE,
    INFLUXDB_ENERGY,
    INFLUXDB_POWER,
    POWER_READINGS,
)
from aiseg2_pipeline.tags import BACKGROUND_TAG, PENDING_TAG

# Readings until second 50, ten seconds of write-out, and the start. Run monitoring ends an older run.
MINUTE_RUNTIME_S = 80
# Shorter than the schedule's five minutes, so that two runs never overlap.
CLIMATE_RUNTIME_S = 240
BACKGROUND = {BACKGROUND_TAG: "1"}
PENDING_TOO = "; writes pending rows to InfluxDB"

# Dagster uses a logger only if the run config names it; its own would print every event.
LOGGED: dict[str, Any] = {"loggers": {"console": {}}}

MINUTE_JOB, ENERGY_JOB, CLIMATE_JOB = "power_minute", "energy_day", "climate_rooms"

Job = AssetJob


def minute_job(*, influxdb: bool) -> Job:
    """Return the job of one minute: read, store, write to InfluxDB."""
    return _job(
        MINUTE_JOB,
        [POWER_READINGS, INFLUXDB_POWER] if influxdb else [POWER_READINGS],
        f"Reads the AiSEG2 now, and stores the readings{PENDING_TOO if influxdb else ''}.",
        {"dagster/max_runtime": str(MINUTE_RUNTIME_S)},
    )


def fill_job() -> Job:
    """Return the job that fills ended hours; the minute runs write its rows to InfluxDB."""
    description = "Fills the missing minutes of hours that have ended from the energy that the AiSEG2 stores."
    return _job("power_fill", [POWER_READINGS], description, BACKGROUND)


def pending_job() -> Job:
    """Return the job that writes pending rows while there are no readings, whose runs do it otherwise."""
    description = "Writes the pending rows to InfluxDB while the AiSEG2 gives no reading."
    return _job("power_pending", [INFLUXDB_POWER], description, BACKGROUND | {PENDING_TAG: "1"})


def energy_job(*, influxdb: bool, cost: bool) -> Job:
    """Return the job of a day's energy: read, store, compute its cost, write to InfluxDB."""
    description = f"Reads the energy of a day from the AiSEG2, and stores it{PENDING_TOO if influxdb else ''}."
    assets = [ENERGY_HISTORY, *([ENERGY_COST] if cost else []), *([INFLUXDB_ENERGY] if influxdb else [])]
    return _job(ENERGY_JOB, assets, description, BACKGROUND | {PENDING_TAG: "1"})


def climate_job(*, influxdb: bool) -> Job:
    """Return the job of the rooms' climate: read, store, write to InfluxDB."""
    description = f"Reads the temperature and humidity of the rooms, and stores them{PENDING_TOO if influxdb else ''}. {NOT_VERIFIED}"
    assets = [CLIMATE, INFLUXDB_CLIMATE] if influxdb else [CLIMATE]
    # Not background work, which waits in a queue: the sensors show only the current values.
    tags = {PENDING_TAG: "1", "dagster/max_runtime": str(CLIMATE_RUNTIME_S)}
    return _job(CLIMATE_JOB, assets, description, tags)


def _job(name: str, assets: list[AssetKey], description: str, tags: dict[str, str]) -> Job:
    return define_asset_job(
        name,
        selection=AssetSelection.assets(*assets).without_checks(),
        tags=tags,
        config=LOGGED,
        description=description,
    )
