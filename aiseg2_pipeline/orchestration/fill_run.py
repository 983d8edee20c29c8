"""A run over hours that have ended: fills their missing minutes, day by day, and says for each hour how it stands.

What is missing and how it is filled belongs in `filling`.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from dagster import AssetExecutionContext, AssetMaterialization

from aiseg2_pipeline.frames.energy import HOUR_S
from aiseg2_pipeline.frames.readings import TOTAL_CONSUMPTION
from aiseg2_pipeline.gaps.fill import MINUTES_AN_HOUR, Hour, fill_hours
from aiseg2_pipeline.ingest.energy import WH_PER_KWH, History
from aiseg2_pipeline.japan_time import HOUR
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.checks import as_evaluation, completeness, recent_hours
from aiseg2_pipeline.orchestration.keys import POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import hour_key
from aiseg2_pipeline.orchestration.resources import Aiseg2Device, ReadingsStore
from aiseg2_pipeline.store import EnergyStore, Store


def fill_ended(
    context: AssetExecutionContext,
    device: Aiseg2Device,
    stores: ReadingsStore,
    store: Store,
    *,
    hours: Sequence[datetime],
    clock: Callable[[], datetime],
) -> None:
    """Fill these hours (UTC starts) and turn those that have rows green. Raises an Aiseg2Error and StoreError."""
    now, done = clock(), 0
    with stores.open_energy() as energy, ExitStack() as stack:

        def history() -> History:
            client = stack.enter_context(device.client(clock, slot="background"))
            return stack.enter_context(History(client, energy, Path(device.state_dir), now))

        for day in fill_hours(store, energy, hours, now=now, history=history):
            done += len(day.hours)
            for problem in day.problems:
                context.log.warning(problem)
            missing = sum(hour.missing for hour in day.hours)
            context.log.info(
                f"{day.day}: {day.filled_minutes} minutes filled, {missing} still missing; {done} of {len(hours)} hours done."
            )
            log_line("fill", day=str(day.day), filled_minutes=day.filled_minutes, missing_minutes=missing)
            for hour in day.hours:
                if hour.live or hour.filled:
                    metadata = _hour_metadata(store, energy, hour)
                    context.log_event(
                        AssetMaterialization(POWER_READINGS, partition=hour_key(hour.start), metadata=metadata)
                    )
    context.log_event(as_evaluation(completeness(recent_hours(store, now))))


def _hour_metadata(store: Store, energy: EnergyStore, hour: Hour) -> dict[str, Any]:
    """Return the minutes of an hour, and its energy as our minutes and as the device has it."""
    told: dict[str, Any] = {
        "live_minutes": hour.live,
        "filled_minutes": hour.filled,
        "missing_minutes": hour.missing,
    }
    end = hour.start + HOUR
    rows = store.read(hour.start, end)
    told["rows"] = len(rows)
    table = energy.read(hour.start, end, kinds=["consumption"])
    device_wh = table.loc[table["interval_s"] == HOUR_S, "value"]
    if len(device_wh) and hour.missing == 0:
        minutes_kwh = float(_per_minute(rows[rows["name"] == TOTAL_CONSUMPTION]).sum()) / MINUTES_AN_HOUR
        device_kwh = float(device_wh.iloc[0]) / WH_PER_KWH
        told |= {"minutes_kwh": round(minutes_kwh, 3), "device_kwh": device_kwh}
        if device_kwh:
            told["difference_percent"] = round(100 * (minutes_kwh - device_kwh) / device_kwh, 2)
    return told


def _per_minute(power: pd.DataFrame) -> "pd.Series[float]":
    """Return the mean of each minute's readings."""
    return power.groupby(power["time"].dt.floor("min"))["value"].mean()
