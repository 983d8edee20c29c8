"""The jobs on assets, and what all jobs have in common. When they run belongs in `schedules` and `sensors`.

The jobs on Dagster's own history are in `maintenance`.
"""

from typing import Any

from dagster import AssetKey, AssetSelection, define_asset_job

from aiseg2_pipeline.dagster_internals import AssetJob
from aiseg2_pipeline.ingest.climate import NOT_VERIFIED
from aiseg2_pipeline.orchestration.keys import (
    CLIMATE,
    ENERGY_HISTORY,
    INFLUXDB_CLIMATE,
    INFLUXDB_ENERGY,
    INFLUXDB_POWER,
    POWER_READINGS,
)
from aiseg2_pipeline.tags import BACKGROUND_TAG, PENDING_TAG

# Readings to second 50, ten seconds of write-out, and what starting takes. Run monitoring ends a run at this age.
MINUTE_RUNTIME_S = 80
# Two runs of the climate never go at once.
CLIMATE_RUNTIME_S = 240
BACKGROUND = {BACKGROUND_TAG: "1"}

# A logger that no config names is not used: Dagster's own would print every event.
LOGGED: dict[str, Any] = {"loggers": {"console": {}}}

MINUTE_JOB, ENERGY_JOB, CLIMATE_JOB = "power_minute", "energy_day", "climate_rooms"

Job = AssetJob


def minute_job() -> Job:
    """Return the job of one minute: read, keep, write out."""
    return _job(
        MINUTE_JOB,
        [POWER_READINGS, INFLUXDB_POWER],
        "Reads the AiSEG2 now, keeps the readings, and writes what is pending to InfluxDB.",
        {"dagster/max_runtime": str(MINUTE_RUNTIME_S)},
    )


def fill_job() -> Job:
    """Return the job that fills ended hours; what it stores is pending and goes out with the minute runs."""
    description = "Fills the missing minutes of hours that have ended from what the AiSEG2 remembers."
    return _job("power_fill", [POWER_READINGS], description, BACKGROUND)


def pending_job() -> Job:
    """Return the job that writes what is pending of older hours."""
    description = "Writes to InfluxDB what many hours still owe it."
    return _job("power_pending", [INFLUXDB_POWER], description, BACKGROUND | {PENDING_TAG: "1"})


def energy_job() -> Job:
    """Return the job of a day's energy: ask, keep, write out."""
    description = (
        "Asks the AiSEG2 for the energy of a day, keeps it, and writes what is pending of it to InfluxDB."
    )
    assets = [ENERGY_HISTORY, INFLUXDB_ENERGY]
    return _job(ENERGY_JOB, assets, description, BACKGROUND | {PENDING_TAG: "1"})


def climate_job() -> Job:
    """Return the job of the rooms' climate: read, keep, write out."""
    description = (
        "Reads the temperature and humidity of the rooms, keeps them, and writes what is pending of them to "
        f"InfluxDB. {NOT_VERIFIED}"
    )
    # No background work, which waits for its turn: what the sensors tell is of now.
    tags = {PENDING_TAG: "1", "dagster/max_runtime": str(CLIMATE_RUNTIME_S)}
    return _job(CLIMATE_JOB, [CLIMATE, INFLUXDB_CLIMATE], description, tags)


def _job(name: str, assets: list[AssetKey], description: str, tags: dict[str, str]) -> Job:
    return define_asset_job(
        name,
        selection=AssetSelection.assets(*assets).without_checks(),
        tags=tags,
        config=LOGGED,
        description=description,
    )
