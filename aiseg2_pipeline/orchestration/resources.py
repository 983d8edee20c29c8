"""The outside world as Dagster resources: the device, the store, InfluxDB. They only open what the rooms below define.

Secrets are environment variables by name in what Dagster shows, and no repr holds them.
"""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from dagster import ConfigurableIOManager, ConfigurableResource, EnvVar, Failure, InputContext, OutputContext
from pydantic import Field, PrivateAttr

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.transport import Slot
from aiseg2_pipeline.influx import InfluxWriter
from aiseg2_pipeline.readings import frame
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store
from aiseg2_pipeline.store_file import StoreError

WRITE_OUT_S = 10.0


class Aiseg2Device(ConfigurableResource[Aiseg2Client]):
    """The AiSEG2 in the LAN."""

    base_url: str = Field(description="http(s)://host of the device, from AISEG2_HOST and AISEG2_USE_HTTPS.")
    user: str = Field(description="AISEG2_USER.")
    password: str = Field(repr=False, description="AISEG2_PASSWORD.")
    state_dir: str = Field(description="Where the login's challenge and the circuit list are kept.")
    verify: bool = Field(description="AISEG2_TLS_VERIFY: whether an https certificate is verified.")
    ca_file: str = Field(description="AISEG2_CA_FILE; empty for the system's.")

    def client(self, clock: Callable[[], datetime], slot: Slot = "live") -> Aiseg2Client:
        """Return a client; use it as a context manager."""
        return Aiseg2Client(
            self.base_url,
            self.user,
            self.password,
            state_dir=Path(self.state_dir),
            clock=clock,
            slot=slot,
            verify=self.ca_file or self.verify if self.verify else False,
        )


class ReadingsStore(ConfigurableResource[Store]):
    """The local store of all readings."""

    path: str = Field(description="The SQLite file of readings, under AISEG2_DATA_DIR.")
    energy_path: str = Field(description="The SQLite file of the device's energy, beside it.")
    climate_path: str = Field(description="The SQLite file of the rooms' climate, beside it.")

    def open(self) -> Store:
        """Return the open store; use it as a context manager. Raise StoreError."""
        return Store.open(Path(self.path))

    def open_energy(self) -> EnergyStore:
        """Return the open store of the device's energy, as `open` does."""
        return EnergyStore.open(Path(self.energy_path))

    def open_climate(self) -> ClimateStore:
        """Return the open store of the rooms' climate, as `open` does."""
        return ClimateStore.open(Path(self.climate_path))


class InfluxDB(ConfigurableResource[InfluxWriter]):
    """The InfluxDB 2 that rows are written to; an empty host means that none is configured."""

    host: str = Field(description="INFLUXDB_HOST, host:port; empty: none configured.")
    url: str = Field(description="http(s)://host:port.")
    token: str = Field(repr=False, description="INFLUXDB_TOKEN.")
    org: str = Field(description="INFLUXDB_ORG.")
    bucket: str = Field(description="INFLUXDB_BUCKET.")
    verify: bool = Field(description="INFLUXDB_TLS_VERIFY: whether an https certificate is verified.")
    ca_file: str = Field(description="INFLUXDB_CA_FILE; empty for the system's.")

    _deadline: float | None = PrivateAttr(default=None)

    @property
    def destination(self) -> Destination | None:
        """What rows are pending for; None where no InfluxDB is configured."""
        return Destination(self.host, self.org, self.bucket) if self.host else None

    def writer(self) -> InfluxWriter:
        """Return a writer; use it as a context manager."""
        return InfluxWriter(
            self.url,
            self.token,
            self.org,
            self.bucket,
            verify=self.ca_file or self.verify if self.verify else False,
            timeout_s=WRITE_OUT_S,
        )

    def minute_deadline(self) -> float:
        """Return when this run's write-out must have ended (time.monotonic): one budget for all its tries."""
        if self._deadline is None:
            self._deadline = time.monotonic() + WRITE_OUT_S
        return self._deadline


class StoreIOManager(ConfigurableIOManager):
    """Keeps the frames of an asset in the store, and gives them back by partition range."""

    path: str = Field(description="The SQLite file, under AISEG2_DATA_DIR.")

    _store: ClassVar[type[Store]] = Store

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:  # noqa: ARG002 - Dagster's signature
        """Upsert the frame; rows that are there already and equal keep their version."""
        try:
            with self._store.open(Path(self.path)) as store:
                store.upsert(obj)
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None

    def load_input(self, context: InputContext) -> pd.DataFrame:
        """Return all rows of the partitions asked for, in one frame."""
        if not context.has_asset_partitions:
            return frame([], self._store.shape)
        window = context.asset_partitions_time_window
        try:
            with self._store.open(Path(self.path)) as store:
                return store.read(window.start, window.end)
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None


class EnergyIOManager(StoreIOManager):
    """The same for energy frames."""

    _store: ClassVar[type[Store]] = EnergyStore


class ClimateIOManager(StoreIOManager):
    """The same for climate frames."""

    _store: ClassVar[type[Store]] = ClimateStore


def resources(settings: Settings) -> dict[str, Any]:
    """Return the resources of these settings, under the names that the assets ask for."""
    influx = settings.influx
    verify = settings.device_verify
    return {
        "device": Aiseg2Device(
            base_url=settings.device_url,
            user=settings.device_user,
            password=settings.device_password.get_secret_value() if settings.demo else EnvVar("AISEG2_PASSWORD"),
            state_dir=str(settings.device_state_dir),
            verify=verify is not False,
            ca_file=verify if isinstance(verify, str) else "",
        ),
        "store": ReadingsStore(
            path=str(settings.store_path),
            energy_path=str(settings.energy_path),
            climate_path=str(settings.climate_path),
        ),
        "readings_io": StoreIOManager(path=str(settings.store_path)),
        "energy_io": EnergyIOManager(path=str(settings.energy_path)),
        "climate_io": ClimateIOManager(path=str(settings.climate_path)),
        "influxdb": InfluxDB(
            host=influx.host if influx else "",
            url=influx.url if influx else "",
            token=EnvVar("INFLUXDB_TOKEN") if influx else "",
            org=influx.org if influx else "",
            bucket=influx.bucket if influx else "",
            verify=influx is None or influx.verify is not False,
            ca_file=influx.verify if influx and isinstance(influx.verify, str) else "",
        ),
    }
