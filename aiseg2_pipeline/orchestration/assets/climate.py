"""The assets `climate`, the values of the rooms' sensors, and `influxdb_climate`, the same in InfluxDB.

When the device is read and how its page is parsed belongs in `ingest/climate`. The device stores no past climate, so
only today's partition can get new rows.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pandas as pd
from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    DailyPartitionsDefinition,
    MetadataValue,
    Output,
    TableColumn,
    TableRecord,
    TableSchema,
)

from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S
from aiseg2_pipeline.aiseg2.errors import NoData
from aiseg2_pipeline.frames.climate import HUMIDITY, TEMPERATURE, frame
from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.ingest.climate import NO_SENSORS, NOT_VERIFIED, ClimateReading, Sensors, read_climate
from aiseg2_pipeline.japan_time import DAY, TOKYO
from aiseg2_pipeline.logs import log_error, log_line
from aiseg2_pipeline.orchestration.assets.influxdb import Rows
from aiseg2_pipeline.orchestration.assets.partitioned import materialize, partitioned_asset
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.keys import CLIMATE, INFLUXDB_CLIMATE
from aiseg2_pipeline.orchestration.partitions import DAYS, day_from_key, day_key
from aiseg2_pipeline.orchestration.resources import Aiseg2Device, ReadingsStore
from aiseg2_pipeline.store import ClimateStore

# Dagster's own tag of a run that a schedule started.
_SCHEDULED_TAG = "dagster/schedule_name"


def climate_asset(days: DailyPartitionsDefinition, *, clock: Callable[[], datetime]) -> AssetsDefinition:
    """Return the asset, partitioned by `days`."""

    @partitioned_asset(
        CLIMATE,
        days,
        io_manager_key="climate_io",
        group_name="climate",
        kinds={"python", "sqlite"},
        description="Temperature and humidity of the rooms that have sensors, every five minutes; without sensors, the AiSEG2 is read once a day. "
        f"{NOT_VERIFIED} Green: the store holds rows of that day.",
    )
    def climate(
        context: AssetExecutionContext, device: Aiseg2Device, store: ReadingsStore
    ) -> Iterator[Output[pd.DataFrame]]:
        with failures(), store.open_climate() as opened:
            if day_key(clock()) in context.partition_keys:
                _take(context, device, opened, clock)
            for key in context.partition_keys:
                rows = opened.read(day_from_key(key), day_from_key(key) + DAY)
                if rows.empty:
                    context.log.info(f"{key}: there are no rows, and the AiSEG2 stores no past climate.")
                else:
                    yield from materialize(context, key, _metadata(rows), rows)

    return climate


def climate_rows(days: DailyPartitionsDefinition) -> Rows:
    """Return what the asset `influxdb_climate` writes."""
    return Rows(
        asset=INFLUXDB_CLIMATE,
        upstream=CLIMATE,
        group="climate",
        description="The rooms' temperature and humidity in InfluxDB.",
        partitions=days,
        period=DAYS,
        open=lambda store: store.open_climate(),
        lines=lambda _, table: line_protocol.climate_lines(table),
    )


def _take(
    context: AssetExecutionContext, device: Aiseg2Device, store: ClimateStore, clock: Callable[[], datetime]
) -> None:
    """Read the sensors, store the values, and log the missing ones."""
    sensors = Sensors(device.settings.device_state_dir, device.settings.device_url)
    # Several runs of the schedule may have waited in the queue.
    if _SCHEDULED_TAG in context.run.tags and not sensors.due(clock()):
        context.log.info(NO_SENSORS)
        return
    try:
        with device.client(clock, slot="background") as client:
            reading = read_climate(client, sensors, clock)
    except NoData as error:
        context.log.info(str(error))
        return
    problems = list(reading.problems)
    table = frame(reading.answered_at, reading.rooms)
    if table.empty:
        problems.append(
            f"The AiSEG2 shows {len(reading.rooms)} rooms, but no temperature and no humidity: see its own page."
        )
    elif refusal := _refusal(reading, store.last_time()):
        problems.append(refusal)
    else:
        store.upsert(table)
    for problem in problems:
        context.log.warning(problem)
        log_error(problem, run_id=context.run.run_id)
    log_line("climate", rooms=len(reading.rooms), rows=len(table), requests=reading.requests)


def _refusal(reading: ClimateReading, last: datetime | None) -> str | None:
    """Return why a reading must not be stored: after a start, the machine's clock may be behind."""
    agree = reading.clock_offset_s is not None and abs(reading.clock_offset_s) <= CLOCKS_AGREE_S
    if last is None or agree or reading.answered_at.replace(microsecond=0) >= last:
        return None
    return (
        f"The rooms' reading of {reading.answered_at.astimezone(TOKYO):%Y-%m-%d %H:%M:%S} was not kept, because the store already holds one of "
        f"{last.astimezone(TOKYO):%Y-%m-%d %H:%M:%S}: this machine's clock is behind, or was ahead before; set it (NTP)."
    )


def _metadata(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the counts of a day, and each room's values in its newest reading."""
    newest = rows[rows["time"] == rows["time"].max()]
    values = {
        kind: dict(zip(of_kind["name"], of_kind["value"].tolist(), strict=True))
        for kind, of_kind in newest.groupby("kind")
    }
    temperatures, humidities = values.get(TEMPERATURE, {}), values.get(HUMIDITY, {})
    records = [
        TableRecord({"room": name, "℃": temperatures.get(name), "%": humidities.get(name)})
        for name in dict.fromkeys([*temperatures, *humidities])
    ]
    schema = TableSchema([TableColumn("room", "string"), TableColumn("℃", "float"), TableColumn("%", "float")])
    return {
        "readings": int(rows["time"].nunique()),
        "rows": len(rows),
        "rooms": MetadataValue.table(records, schema=schema),
    }
