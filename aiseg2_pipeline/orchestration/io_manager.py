"""The IO managers: an asset's frame is stored in its store, and loaded from it for any range of partitions.

They are the only way of a frame between assets, so that somebody's own downstream asset gets a DataFrame as well.
"""

from pathlib import Path
from typing import ClassVar

import pandas as pd
from dagster import ConfigurableIOManager, Failure, InputContext, OutputContext
from pydantic import Field

from aiseg2_pipeline.frames.readings import frame
from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.store import ClimateStore, EnergyStore, Store
from aiseg2_pipeline.store.database import StoreError


class StoreIOManager(ConfigurableIOManager):
    """Keeps the frames of an asset in the store, and gives them back by partition range."""

    path: str = Field(description="The SQLite file, under AISEG2_DATA_DIR.")

    _store: ClassVar[type[Store]] = Store

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:  # noqa: ARG002 - Dagster's signature
        """Upsert the frame; rows that are there already and equal keep their version."""
        try:
            with self._store.open(Path(self.path), log_warning) as store:
                store.upsert(obj)
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None

    def load_input(self, context: InputContext) -> pd.DataFrame:
        """Return all rows of the partitions asked for, in one frame."""
        if not context.has_asset_partitions:
            return frame([], self._store.shape)
        window = context.asset_partitions_time_window
        try:
            with self._store.open(Path(self.path), log_warning) as store:
                return store.read(window.start, window.end)
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None


class EnergyIOManager(StoreIOManager):
    """The same for energy frames."""

    _store: ClassVar[type[Store]] = EnergyStore


class ClimateIOManager(StoreIOManager):
    """The same for climate frames."""

    _store: ClassVar[type[Store]] = ClimateStore
