"""What the commands open, from the settings: the device's client, the writer. Dagster's resources do the same for assets."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import click

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.transport import Slot
from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.settings import InfluxSettings, Settings
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store


def device(settings: Settings, clock: Callable[[], datetime], slot: Slot = "live") -> Aiseg2Client:
    """Return a client of the device, which says on stderr when it tries again; use it as a context manager."""
    return Aiseg2Client(
        settings.device_url,
        settings.device_user,
        settings.device_password.get_secret_value(),
        state_dir=settings.device_state_dir,
        clock=clock,
        slot=slot,
        verify=settings.device_verify,
        on_retry=lambda sentence: click.echo(sentence, err=True),
    )


def stores(settings: Settings) -> list[tuple[type[Store], Path]]:
    """Return the stores, each with its file: readings, energy, climate."""
    return [
        (Store, settings.store_path),
        (EnergyStore, settings.energy_path),
        (ClimateStore, settings.climate_path),
    ]


def writer(influx: InfluxSettings) -> InfluxWriter:
    """Return a writer to the bucket; use it as a context manager."""
    return InfluxWriter(
        influx.url, influx.token.get_secret_value(), influx.org, influx.bucket, verify=influx.verify
    )


def destination(influx: InfluxSettings) -> Destination:
    """Return what rows are pending for."""
    return Destination(influx.host, influx.org, influx.bucket)
