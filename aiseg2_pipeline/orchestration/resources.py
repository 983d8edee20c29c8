"""The device, the stores and InfluxDB as Dagster resources; their classes belong in the packages that these use.

No resource takes configuration from a run, or anyone with access to Dagster's UI could launch a run that sends the token
to another server. So no secret is in Dagster's storage or in a repr.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster import (
    ConfigurableIOManager,
    ConfigurableResource,
    InitResourceContext,
    IOManagerDefinition,
    ResourceDefinition,
    mem_io_manager,
)
from pydantic import Field, PrivateAttr

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.transport import Slot
from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.orchestration.io_manager import ClimateIOManager, EnergyIOManager, StoreIOManager
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store

WRITE_OUT_S = 10.0


class Aiseg2Device(ConfigurableResource[Aiseg2Client]):
    """The AiSEG2 in the LAN."""

    base_url: str = Field(description="http(s)://host of the device, from AISEG2_HOST and AISEG2_USE_HTTPS.")
    user: str = Field(description="AISEG2_USER.")
    password: str = Field(repr=False, description="AISEG2_PASSWORD.")
    state_dir: str = Field(description="The folder of the login's challenge and the circuit list.")
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
    """The local stores."""

    path: str = Field(description="The SQLite file of readings, under AISEG2_DATA_DIR.")
    energy_path: str = Field(description="The SQLite file of the device's energy, beside it.")
    climate_path: str = Field(description="The SQLite file of the rooms' climate, beside it.")

    _log: logging.Logger | None = PrivateAttr(default=None)

    @property
    def paths(self) -> list[Path]:
        """The files of readings, energy and climate."""
        return [Path(self.path), Path(self.energy_path), Path(self.climate_path)]

    def log_to(self, log: logging.Logger) -> None:
        """Write the stores' warnings to a run's log as well."""
        self._log = log

    def _warn(self, message: str) -> None:
        log_warning(message)
        if self._log is not None:
            self._log.warning(message)

    def open(self) -> Store:
        """Return the open store of readings; use it as a context manager. Raise StoreError."""
        return Store.open(Path(self.path), self._warn)

    def open_energy(self) -> EnergyStore:
        """Return the open store of the device's energy, as `open` does."""
        return EnergyStore.open(Path(self.energy_path), self._warn)

    def open_climate(self) -> ClimateStore:
        """Return the open store of the rooms' climate, as `open` does."""
        return ClimateStore.open(Path(self.climate_path), self._warn)

    def not_upgraded(self) -> list[str]:
        """Return the names of the files that have rows of an older version. Raise StoreError."""
        with self.open() as readings, self.open_energy() as energy, self.open_climate() as climate:
            return [store.path.stem for store in (readings, energy, climate) if not store.is_upgraded]


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
        """The destination that rows are pending for; None if no InfluxDB is configured."""
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
        """Return the end (time.monotonic) of this run's write-out: its retries share one budget."""
        if self._deadline is None:
            self._deadline = time.monotonic() + WRITE_OUT_S
        return self._deadline


def resources(settings: Settings) -> dict[str, ResourceDefinition]:
    """Return the resources of these settings, by the names that the assets use."""
    influx, verify = settings.influx, settings.device_verify
    return {
        "device": _fixed(
            Aiseg2Device,
            f"The AiSEG2 at {settings.device_url}, as {settings.device_user}.",
            base_url=settings.device_url,
            user=settings.device_user,
            password=settings.device_password.get_secret_value(),
            state_dir=str(settings.device_state_dir),
            verify=verify is not False,
            ca_file=verify if isinstance(verify, str) else "",
        ),
        "store": _fixed(
            ReadingsStore,
            f"The local stores in {settings.data_dir}.",
            path=str(settings.store_path),
            energy_path=str(settings.energy_path),
            climate_path=str(settings.climate_path),
        ),
        "readings_io": _fixed(StoreIOManager, "Keeps readings.", path=str(settings.store_path)),
        "energy_io": _fixed(EnergyIOManager, "Keeps the device's energy.", path=str(settings.energy_path)),
        "climate_io": _fixed(ClimateIOManager, "Keeps the rooms' climate.", path=str(settings.climate_path)),
        # For assets without a frame; Dagster's default would make a folder for them.
        "io_manager": mem_io_manager,
        "influxdb": _fixed(
            InfluxDB,
            f"The InfluxDB at {influx.url}, bucket {influx.bucket}."
            if influx
            else "None is configured (INFLUXDB_HOST).",
            host=influx.host if influx else "",
            url=influx.url if influx else "",
            token=influx.token.get_secret_value() if influx else "",
            org=influx.org if influx else "",
            bucket=influx.bucket if influx else "",
            verify=influx is None or influx.verify is not False,
            ca_file=influx.verify if influx and isinstance(influx.verify, str) else "",
        ),
    }


def _fixed(kind: type[Any], description: str, **fields: str | bool) -> ResourceDefinition:
    """Return a resource that is created for each run with these fields, and has no run config."""

    def make(context: InitResourceContext) -> Any:
        resource = kind(**fields)
        if isinstance(resource, ReadingsStore) and context.log is not None:
            resource.log_to(context.log)
        return resource

    # Dagster's UI shows the name.
    make.__name__ = kind.__name__
    definition = IOManagerDefinition if issubclass(kind, ConfigurableIOManager) else ResourceDefinition
    return definition(make, config_schema={}, description=description)
