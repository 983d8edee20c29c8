"""SQLite stores of readings, energy and climate, with the rows that are pending for each destination.

Frames are described in `frames`, points in `influxdb`. Dagster's own SQLite files belong in `orchestration/maintenance`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiseg2_pipeline.store.database import StoreError
    from aiseg2_pipeline.store.energy import ClimateStore, EnergyStore, FetchAttempt
    from aiseg2_pipeline.store.outbox import Destination, Outbox, PendingBatch
    from aiseg2_pipeline.store.readings import Store
    from aiseg2_pipeline.store.rows import UpsertResult

__all__ = [
    "ClimateStore",
    "Destination",
    "EnergyStore",
    "FetchAttempt",
    "Outbox",
    "PendingBatch",
    "Store",
    "StoreError",
    "UpsertResult",
]

# Imported on first use, so that an import of another module of this package does not import pandas.
_MODULES = {
    "ClimateStore": "energy",
    "Destination": "outbox",
    "EnergyStore": "energy",
    "FetchAttempt": "energy",
    "Outbox": "outbox",
    "PendingBatch": "outbox",
    "Store": "readings",
    "StoreError": "database",
    "UpsertResult": "rows",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
