"""The stores of the device's energy and of the rooms' climate, with the file format and guarantees of `readings`."""

from datetime import datetime

from aiseg2_pipeline.frames.climate import CLIMATE
from aiseg2_pipeline.frames.energy import ENERGY
from aiseg2_pipeline.store.outbox import of_both
from aiseg2_pipeline.store.readings import Store
from aiseg2_pipeline.store.transactions import datetime_of

OLDEST_ENERGY = (
    "SELECT min(time) FROM {table} WHERE series_id = (SELECT id FROM series WHERE kind = 'consumption')"
)


class EnergyStore(Store):
    """An open store of energy frames."""

    shape = ENERGY

    def oldest(self) -> datetime | None:
        """Return the first hour that has a consumption, None if there is none."""
        with self._reading() as execute:
            times = [time for (time,) in of_both(execute, OLDEST_ENERGY) if time is not None]
            return datetime_of(min(times)) if times else None


class ClimateStore(Store):
    """An open store of climate frames."""

    shape = CLIMATE
