"""SQLite stores of readings, energy and climate, with the rows that are pending for each destination.

Frames are described in `frames`, points in `influxdb`. Dagster's own SQLite files belong in `orchestration/maintenance`.
"""

# Imported on first use, so that a module of this room does not import pandas for its neighbours.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiseg2_pipeline.store.readings import (
        ClimateStore,
        Destination,
        EnergyStore,
        PendingBatch,
        Store,
        StoreError,
        UpsertResult,
    )

__all__ = ["ClimateStore", "Destination", "EnergyStore", "PendingBatch", "Store", "StoreError", "UpsertResult"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("aiseg2_pipeline.store.readings"), name)
