"""The IO managers: they store an asset's frame, and load it for any range of partitions.

Frames pass between assets in no other way, so that a person's own downstream asset gets a DataFrame as well.
"""

from pathlib import Path
from typing import ClassVar

import pandas as pd
from dagster import ConfigurableIOManager, InputContext, OutputContext
from pydantic import Field

from aiseg2_pipeline.frames.readings import frame
from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.store import ClimateStore, EnergyStore, Outbox, Store


class StoreIOManager(ConfigurableIOManager):
    """Store the frames of an asset, and load them by partition range."""

    path: str = Field(description="The SQLite file, under AISEG2_DATA_DIR.")

    _store: ClassVar[type[Outbox]] = Store

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:  # noqa: ARG002 - Dagster's signature
        """Upsert the frame; a stored row that is equal keeps its version."""
        with failures(), self._store.open(Path(self.path), log_warning) as store:
            store.upsert(obj)

    def load_input(self, context: InputContext) -> pd.DataFrame:
        """Return all rows of the requested partitions in one frame."""
        if not context.has_asset_partitions:
            return frame([], self._store.shape)
        window = context.asset_partitions_time_window
        with failures(), self._store.open(Path(self.path), log_warning) as store:
            return store.read(window.start, window.end)


class EnergyIOManager(StoreIOManager):
    """Store and load energy frames."""

    _store: ClassVar[type[Outbox]] = EnergyStore


class ClimateIOManager(StoreIOManager):
    """Store and load climate frames."""

    _store: ClassVar[type[Outbox]] = ClimateStore
