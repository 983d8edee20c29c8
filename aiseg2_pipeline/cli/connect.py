"""Open the device's client, the stores and the InfluxDB writer for a command. Dagster's resources do the same for assets."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.transport import Slot
from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.settings import InfluxSettings, Settings
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Outbox, Store


@contextmanager
def without_trace(settings: Settings) -> Iterator[Settings]:
    """Yield the settings for a command that only looks: without a record, those of a temporary data directory.

    Opening a store or the device's client creates files.
    """
    if settings.store_path.exists():
        yield settings
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield settings.model_copy(update={"base_data_dir": Path(folder)})


def device(settings: Settings, clock: Callable[[], datetime], slot: Slot = "live") -> Aiseg2Client:
    """Return a client of the device, a context manager. It reports retries on stderr."""
    return Aiseg2Client(
        settings.device_url,
        settings.device_user,
        settings.device_password.get_secret_value(),
        state_dir=settings.device_state_dir,
        clock=clock,
        slot=slot,
        verify=settings.device_verify,
        on_retry=lambda message: click.echo(message, err=True),
    )


def store_files(settings: Settings) -> list[tuple[type[Outbox], Path]]:
    """Return the class and the file of each store: readings, energy, climate."""
    return [
        (Store, settings.store_path),
        (EnergyStore, settings.energy_path),
        (ClimateStore, settings.climate_path),
    ]


@contextmanager
def stores(settings: Settings) -> Iterator[tuple[Store, EnergyStore, ClimateStore]]:
    """Yield the open stores."""
    with (
        Store.open(settings.store_path) as readings,
        EnergyStore.open(settings.energy_path) as energy,
        ClimateStore.open(settings.climate_path) as climate,
    ):
        yield readings, energy, climate


def writer(influx: InfluxSettings) -> InfluxWriter:
    """Return a writer to the bucket, a context manager."""
    token = influx.token.get_secret_value()
    return InfluxWriter(influx.url, token, influx.org, influx.bucket, verify=influx.verify)


def destination(influx: InfluxSettings) -> Destination:
    """Return the destination whose pending rows are tracked."""
    return Destination(influx.host, influx.org, influx.bucket)
