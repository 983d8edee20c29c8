"""The asset `influxdb_power`: the readings, acknowledged by InfluxDB."""

from collections.abc import Callable
from datetime import datetime

from dagster import AssetsDefinition, HourlyPartitionsDefinition

from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.japan_time import HOUR
from aiseg2_pipeline.orchestration.assets.influxdb import Rows, influxdb_asset
from aiseg2_pipeline.orchestration.keys import INFLUXDB_POWER, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import first_of, hour_from_key, hour_key


def influxdb_power_asset(hours: HourlyPartitionsDefinition, *, clock: Callable[[], datetime]) -> AssetsDefinition:
    """Return the asset, partitioned by `hours`."""
    rows = Rows(
        asset=INFLUXDB_POWER,
        upstream=POWER_READINGS,
        open=lambda store: store.open(),
        lines=lambda _, table: line_protocol.lines(table),
        key=hour_key,
        start=hour_from_key,
        length=HOUR,
        first=first_of(hours),
    )
    return influxdb_asset(
        rows,
        hours,
        clock,
        group="power",
        description="The readings in InfluxDB. Green: InfluxDB has acknowledged every row that the store holds of that hour. Materializing an "
        "hour by hand writes all its rows again.",
    )
