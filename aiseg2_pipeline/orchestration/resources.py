"""The device, the stores and InfluxDB as Dagster resources; their classes belong in the packages that these use.

No resource takes configuration from a run, or anyone with access to Dagster's UI could launch a run that sends the token
to another server. So no secret is in Dagster's storage or in a repr.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster import IOManagerDefinition, ResourceDefinition, ResourceParam, mem_io_manager

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.transport import Slot
from aiseg2_pipeline.frames.energy import COST
from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.orchestration.io_manager import StoreIOManager
from aiseg2_pipeline.settings import InfluxSettings, Settings
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Outbox, Store

WRITE_OUT_S = 10.0


@dataclass(frozen=True)
class _Device:
    """The AiSEG2 in the LAN."""

    settings: Settings

    def client(self, clock: Callable[[], datetime], slot: Slot = "live") -> Aiseg2Client:
        """Return a client; use it as a context manager."""
        return Aiseg2Client(
            self.settings.device_url,
            self.settings.device_user,
            self.settings.device_password.get_secret_value(),
            state_dir=self.settings.device_state_dir,
            clock=clock,
            slot=slot,
            verify=self.settings.device_verify,
        )


@dataclass(frozen=True)
class _Stores:
    """The local stores. Their warnings are also written to the log of the run, if there is one."""

    settings: Settings
    log: logging.Logger | None

    @property
    def paths(self) -> list[Path]:
        """The files of readings, energy and climate."""
        return [self.settings.store_path, self.settings.energy_path, self.settings.climate_path]

    def _warn(self, message: str) -> None:
        log_warning(message)
        if self.log is not None:
            self.log.warning(message)

    def open(self) -> Store:
        """Return the open store of readings; use it as a context manager. Raise StoreError."""
        return Store.open(self.settings.store_path, self._warn)

    def open_energy(self) -> EnergyStore:
        """Return the open store of the device's energy, as `open` does."""
        return EnergyStore.open(self.settings.energy_path, self._warn)

    def open_climate(self) -> ClimateStore:
        """Return the open store of the rooms' climate, as `open` does."""
        return ClimateStore.open(self.settings.climate_path, self._warn)


@dataclass
class _InfluxDB:
    """The InfluxDB 2 that rows are written to; without settings, none is configured."""

    settings: InfluxSettings | None
    _deadline: float | None = field(default=None, init=False)

    @property
    def destination(self) -> Destination | None:
        """The destination that rows are pending for; None if no InfluxDB is configured."""
        influx = self.settings
        return None if influx is None else Destination(influx.host, influx.org, influx.bucket)

    def writer(self) -> InfluxWriter:
        """Return a writer to the destination; use it as a context manager."""
        influx = self.settings
        assert influx is not None  # noqa: S101 - there is a destination
        token = influx.token.get_secret_value()
        return InfluxWriter(
            influx.url, token, influx.org, influx.bucket, verify=influx.verify, timeout_s=WRITE_OUT_S
        )

    def minute_deadline(self) -> float:
        """Return the end (time.monotonic) of this run's write-out: its retries share one budget."""
        if self._deadline is None:
            self._deadline = time.monotonic() + WRITE_OUT_S
        return self._deadline


# The types by which assets, checks, ops and sensors request them.
Aiseg2Device = ResourceParam[_Device]
ReadingsStore = ResourceParam[_Stores]
InfluxDB = ResourceParam[_InfluxDB]


def resources(settings: Settings) -> dict[str, ResourceDefinition]:
    """Return the resources of these settings, by the names that the assets use."""
    influx = settings.influx
    where = (
        f"The InfluxDB at {influx.url}, bucket {influx.bucket}."
        if influx
        else "None is configured (INFLUXDB_HOST)."
    )
    return {
        "device": _fixed(
            "Aiseg2Device",
            lambda _: _Device(settings),
            f"The AiSEG2 at {settings.device_url}, as {settings.device_user}.",
        ),
        "store": _fixed(
            "ReadingsStore",
            lambda context: _Stores(settings, context.log),
            f"The local stores in {settings.data_dir}.",
        ),
        "readings_io": _io_manager(Store, settings.store_path, "Keeps readings."),
        "energy_io": _io_manager(EnergyStore, settings.energy_path, "Keeps the device's energy."),
        "cost_io": _io_manager(EnergyStore, settings.energy_path, "Keeps what the energy cost.", [COST]),
        "climate_io": _io_manager(ClimateStore, settings.climate_path, "Keeps the rooms' climate."),
        # For assets without a frame; Dagster's default would make a folder for them.
        "io_manager": mem_io_manager,
        "influxdb": _fixed("InfluxDB", lambda _: _InfluxDB(influx), where),
    }


def _io_manager(
    kind: type[Outbox], path: Path, description: str, kinds: Sequence[str] | None = None
) -> ResourceDefinition:
    return _fixed(
        f"{kind.__name__}IOManager", lambda _: StoreIOManager(kind, path, kinds), description, IOManagerDefinition
    )


def _fixed(
    name: str,
    make: Callable[[Any], Any],
    description: str,
    definition: type[ResourceDefinition] = ResourceDefinition,
) -> ResourceDefinition:
    """Return a resource that is made for each run and has no run config."""
    # Dagster's UI shows the name.
    make.__name__ = name
    return definition(make, config_schema={}, description=description)
