"""The asset `daily_report`, a day as a picture, with the job and the nightly schedule that draw it.

The picture is a file, and is shown in Dagster's UI. Without the extra `report` (matplotlib) the asset fails with a message
and the schedule skips. How the picture is drawn belongs in `report`.
"""

import base64
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from dagster import (
    AssetDep,
    AssetExecutionContext,
    AssetsDefinition,
    AssetSelection,
    DailyPartitionsDefinition,
    MetadataValue,
    Nothing,
    Output,
    ScheduleDefinition,
    TimeWindowPartitionMapping,
    define_asset_job,
)

from aiseg2_pipeline.japan_time import day_of
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.assets.partitioned import materialize, partitioned_asset
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, LOGGED, Job
from aiseg2_pipeline.orchestration.keys import DAILY_REPORT, ENERGY_HISTORY, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import day_from_key
from aiseg2_pipeline.orchestration.resources import ReadingsStore
from aiseg2_pipeline.orchestration.schedules import YESTERDAY, partition_schedule
from aiseg2_pipeline.report import NoReadings
from aiseg2_pipeline.report.saving import NO_MATPLOTLIB, Report, installed, report_path, save_report

# Dagster's storage keeps a day's picture until it is 30 days old. A usual one has half this size.
MOST_BYTES_SHOWN = 80_000


def daily_report_asset(
    days: DailyPartitionsDefinition, *, data_dir: Path, demo: bool, cost: bool, clock: Callable[[], datetime]
) -> AssetsDefinition:
    """Return the asset, partitioned by `days`; the files lie under `data_dir`."""
    # On the first day and today, not every hour is a partition.
    hours_of_the_day = TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @partitioned_asset(
        DAILY_REPORT,
        days,
        deps=[AssetDep(POWER_READINGS, partition_mapping=hours_of_the_day), ENERGY_HISTORY],
        dagster_type=Nothing,
        group_name="report",
        kinds={"python", "matplotlib"},
        description="The day as a picture: generation, consumption, bought and sold, every circuit; filled minutes are hatched, missing ones "
        "blank. To see it, open a day's materialization and its `picture`; it is also a file in `reports/` of the data directory. Drawn every "
        "night for yesterday; materialize a day to draw it again after it was filled, or today until now."
        + ("" if installed() else f" {NO_MATPLOTLIB}"),
    )
    def daily_report(context: AssetExecutionContext, store: ReadingsStore) -> Iterator[Output[None]]:
        with failures(), store.open() as readings, store.open_energy() as energy:
            for key in context.partition_keys:
                day = day_of(day_from_key(key))
                try:
                    report = save_report(
                        readings, energy, day, clock(), report_path(data_dir, day), demo=demo, cost=cost
                    )
                except NoReadings as error:
                    context.log.warning(str(error))
                    continue
                log_line("report", day=key, path=str(report.path), bytes=len(report.png))
                yield from materialize(context, key, _metadata(report))

    return daily_report


def report_job() -> Job:
    """Return the job that draws a day."""
    return define_asset_job(
        "draw_the_day",
        selection=AssetSelection.assets(DAILY_REPORT).without_checks(),
        tags=BACKGROUND,
        config=LOGGED,
        description="Draws the picture of a day from the stored rows; the AiSEG2 is not read.",
    )


def report_schedule(job: Job, first: datetime) -> ScheduleDefinition:
    """Return the nightly schedule, from the day of `first` on.

    It ticks after yesterday's energy was read, its last hour filled and the day closed.
    """
    return partition_schedule(
        "report_of_yesterday",
        job,
        "50 0 * * *",
        YESTERDAY,
        "Draws the picture of yesterday every night.",
        first,
        lambda _: None if installed() else NO_MATPLOTLIB,
    )


def _metadata(report: Report) -> dict[str, Any]:
    day, amounts = report.day, report.day.amounts
    names = ("generation_kwh", "consumption_kwh", "bought_kwh", "sold_kwh", "self_sufficiency_percent")
    numbers = {name: getattr(amounts, name) for name in names}
    return {
        "picture": MetadataValue.md(_picture(report)),
        "file": MetadataValue.path(report.path),
        **{name: round(value, 3) for name, value in numbers.items() if value is not None},
        "energy_from": "the AiSEG2's own Wh" if amounts.measured else "the minutes that are known",
        "live_minutes": day.live_minutes,
        "filled_minutes": day.filled_minutes,
        "missing_minutes": day.missing_minutes,
    }


def _picture(report: Report) -> str:
    if len(report.png) > MOST_BYTES_SHOWN:
        return f"This picture is too large to be kept here: open the file {report.path.name}."
    # Dagster's UI shows a picture only from a data URL; it has no access to files.
    return f"![{report.day.date}](data:image/png;base64,{base64.b64encode(report.png).decode()})"
