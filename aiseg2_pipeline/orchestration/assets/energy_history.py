"""The assets `energy_history`, a day's energy in the device's own Wh, and `influxdb_energy`, the same in InfluxDB."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pandas as pd
from dagster import AssetExecutionContext, AssetsDefinition, DailyPartitionsDefinition, Output

from aiseg2_pipeline.gaps.past import Record
from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.ingest.energy import DayEnergy, History
from aiseg2_pipeline.japan_time import DAY, day_of
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.assets.influxdb import Rows
from aiseg2_pipeline.orchestration.assets.partitioned import materialize, partitioned_asset
from aiseg2_pipeline.orchestration.checks import as_evaluation, balance
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, INFLUXDB_ENERGY
from aiseg2_pipeline.orchestration.partitions import DAYS, day_from_key
from aiseg2_pipeline.orchestration.resources import Aiseg2Device, ReadingsStore
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.damage import unrecovered
from aiseg2_pipeline.store.database import StoreError


def energy_history_asset(
    days: DailyPartitionsDefinition, record: Record, *, clock: Callable[[], datetime]
) -> AssetsDefinition:
    """Return the asset, partitioned by `days`."""

    @partitioned_asset(
        ENERGY_HISTORY,
        days,
        io_manager_key="energy_io",
        group_name="energy",
        kinds={"python", "sqlite"},
        description="The energy that the AiSEG2 remembers, in Wh for each hour (half hours with an SD card): totals, and circuits of the days "
        "that have ended. Green: the store holds energy of that day.",
    )
    def energy_history(
        context: AssetExecutionContext, device: Aiseg2Device, store: ReadingsStore
    ) -> Iterator[Output[pd.DataFrame]]:
        now = clock()
        with (
            failures(),
            store.open_energy() as energy,
            device.client(clock, slot="background") as client,
            History(client, energy, device.settings.device_state_dir, now) as history,
        ):
            for n, key in enumerate(context.partition_keys, 1):
                start = day_from_key(key)
                # Today's circuits would cost a request each, every hour; a fill that needs them requests them itself.
                ended = start + DAY <= now
                day = history.read_day(day_of(start), circuits=ended)
                if ended:
                    day.problems += history.read_card_totals(record.start_date or day_of(record.first))
                _report(context, day, n)
                table = energy.read(start, start + DAY)
                if result := balance(table):
                    context.log_event(as_evaluation(result))
                if day.rows:
                    yield from materialize(context, key, energy_metadata(day), table)

    return energy_history


def energy_rows(days: DailyPartitionsDefinition) -> Rows:
    """Return what the asset `influxdb_energy` writes."""
    return Rows(
        asset=INFLUXDB_ENERGY,
        upstream=ENERGY_HISTORY,
        group="energy",
        description="The device's energy in InfluxDB.",
        partitions=days,
        period=DAYS,
        open=lambda store: store.open_energy(),
        lines=lines,
    )


def lines(readings: Store, table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return the points of an energy frame; a circuit has the name that it had at that time.

    Raise StoreError while a damaged store is not yet recovered, which may hold other names: they are other series.
    """
    if unrecovered(readings.path):
        raise StoreError(
            f"The names of the circuits may be recoverable from a damaged file of {readings.path}, so no energy is written out before: wait for "
            "the job `salvage_the_record`, or run `aiseg2-pipeline salvage`."
        )
    names: dict[datetime, dict[str, str]] = {}

    def name_of(circuit_id: str, time: datetime) -> str | None:
        if time not in names:
            names[time] = readings.circuit_names_at(time)
        return names[time].get(circuit_id)

    return line_protocol.energy_lines(table, name_of)


def _report(context: AssetExecutionContext, day: DayEnergy, n: int) -> None:
    for problem in day.problems:
        context.log.warning(problem)
    context.log.info(
        f"{day.day}: {day.rows} rows, {day.changed} of them new; {n} of {len(context.partition_keys)} days done."
    )
    log_line("energy", day=str(day.day), source=day.source, rows=day.rows, changed=day.changed)


def energy_metadata(day: DayEnergy) -> dict[str, Any]:
    """Return the metadata of a day that was read."""
    return {
        "source": {"sd": "SD card, half hours", "web": "graph pages, hours"}.get(day.source or "", "none"),
        "rows": day.rows,
        "changed": day.changed,
    }
