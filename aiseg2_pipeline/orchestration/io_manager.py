"""The IO manager: it stores an asset's frame, and loads it for any range of partitions.

Frames pass between assets in no other way, so that a person's own downstream asset gets a DataFrame as well.
"""

from collections.abc import Collection
from pathlib import Path

import pandas as pd
from dagster import InputContext, IOManager, OutputContext

from aiseg2_pipeline.frames.readings import frame
from aiseg2_pipeline.logs import log_warning
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.store import Outbox


class StoreIOManager(IOManager):
    """Store the frames of an asset in the file of a store, and load them by partition range."""

    def __init__(self, kind: type[Outbox], path: Path, kinds: Collection[str] | None) -> None:
        """Set the class of the store, its file, and the kinds of rows to load (None: all)."""
        self._kind = kind
        self._path = path
        self._kinds = kinds

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:  # noqa: ARG002 - Dagster's signature
        """Upsert the frame; a stored row that is equal keeps its version."""
        with failures(), self._kind.open(self._path, log_warning) as store:
            store.upsert(obj)

    def load_input(self, context: InputContext) -> pd.DataFrame:
        """Return all rows of the requested partitions in one frame."""
        if not context.has_asset_partitions:
            return frame([], self._kind.shape)
        window = context.asset_partitions_time_window
        with failures(), self._kind.open(self._path, log_warning) as store:
            return store.read(window.start, window.end, self._kinds)
