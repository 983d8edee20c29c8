"""Build the definitions from settings and a clock, without global state; only the record's first hour is stored."""

import warnings
from collections.abc import Callable
from datetime import UTC, datetime

from dagster import (
    AssetsDefinition,
    BetaWarning,
    DailyPartitionsDefinition,
    Definitions,
    HourlyPartitionsDefinition,
    in_process_executor,
)

from aiseg2_pipeline.gaps.past import Record, note_first_hour
from aiseg2_pipeline.ingest.climate import Sensors
from aiseg2_pipeline.orchestration.assets.climate import climate_asset, climate_rows
from aiseg2_pipeline.orchestration.assets.daily_report import daily_report_asset, report_job, report_schedule
from aiseg2_pipeline.orchestration.assets.energy_cost import energy_cost_asset
from aiseg2_pipeline.orchestration.assets.energy_history import energy_history_asset, energy_rows
from aiseg2_pipeline.orchestration.assets.influxdb import influxdb_asset, power_rows
from aiseg2_pipeline.orchestration.assets.power_readings import power_readings_asset
from aiseg2_pipeline.orchestration.checks import newest_reading_check, record_check
from aiseg2_pipeline.orchestration.jobs import climate_job, energy_job, fill_job, minute_job, pending_job
from aiseg2_pipeline.orchestration.loggers import error_lines
from aiseg2_pipeline.orchestration.maintenance.close_day import close_job
from aiseg2_pipeline.orchestration.maintenance.prune import prune_job
from aiseg2_pipeline.orchestration.maintenance.recover import salvage_job
from aiseg2_pipeline.orchestration.partitions import daily, hourly
from aiseg2_pipeline.orchestration.resources import resources
from aiseg2_pipeline.orchestration.schedules import (
    background_schedules,
    climate_schedule,
    every_minute,
    history_schedules,
)
from aiseg2_pipeline.orchestration.sensors.alerts import alert_sensor
from aiseg2_pipeline.orchestration.sensors.backfill import healing_sensor
from aiseg2_pipeline.settings import Settings


def utc_now() -> datetime:
    """Return the host's time."""
    return datetime.now(UTC)


def build_definitions(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Definitions:
    """Return everything that Dagster runs and shows."""
    with warnings.catch_warnings():
        # Runs for a range of partitions are beta, and a user can do nothing about Dagster's warning.
        warnings.simplefilter("ignore", BetaWarning)
        definitions = _build(settings, clock)
        # Dagster caches the repository, and building it later would also warn.
        definitions.get_repository_def()
    return definitions


def _build(settings: Settings, clock: Callable[[], datetime]) -> Definitions:
    note_first_hour(settings.first_partition_path, clock(), settings.store_path)
    record = Record.of(settings.first_partition_path, settings.start_date, clock())
    first = record.first
    hours, days = hourly(first), daily(first)
    influxdb = settings.influx is not None
    minute, energy, fill = (
        minute_job(influxdb=influxdb),
        energy_job(influxdb=influxdb, cost=settings.tariff is not None),
        fill_job(),
    )
    pending = pending_job() if influxdb else None
    close, prune = (
        close_job(first, clock, cost=settings.tariff is not None),
        prune_job(settings.keep_runs_days, clock),
    )
    climate, sensors = climate_job(influxdb=influxdb), Sensors(settings.device_state_dir, settings.device_url)
    salvage = salvage_job()
    alerts, report = alert_sensor(settings, record, clock), report_job()
    return Definitions(
        assets=[
            power_readings_asset(
                hours, record, samples=settings.samples_per_minute, demo=settings.simulated, clock=clock
            ),
            energy_history_asset(days, record, clock=clock),
            climate_asset(days, clock=clock),
            daily_report_asset(
                days,
                data_dir=settings.data_dir,
                demo=settings.simulated,
                cost=settings.tariff is not None,
                clock=clock,
            ),
            *([energy_cost_asset(days, settings.tariff, clock=clock)] if settings.tariff else []),
            *(_influxdb_assets(hours, days, record, clock) if influxdb else []),
        ],
        asset_checks=[newest_reading_check(clock), record_check(record, clock)],
        jobs=[minute, energy, fill, climate, close, prune, report, salvage, *([pending] if pending else [])],
        schedules=[
            every_minute(minute),
            *background_schedules(energy, fill, first),
            climate_schedule(climate, sensors, first),
            *history_schedules(close, prune),
            report_schedule(report, first),
        ],
        sensors=[
            healing_sensor(fill, energy, pending, salvage, close, report, record, clock),
            *([alerts] if alerts else []),
        ],
        resources=resources(settings),
        # One process for a run: a second one for each step costs more than the step.
        executor=in_process_executor,
        loggers={"console": error_lines()},
        metadata={"demo": settings.demo, "device": settings.device_url, "data": str(settings.data_dir)},
    )


def _influxdb_assets(
    hours: HourlyPartitionsDefinition,
    days: DailyPartitionsDefinition,
    record: Record,
    clock: Callable[[], datetime],
) -> list[AssetsDefinition]:
    others = [energy_rows(days), climate_rows(days)]
    return [
        influxdb_asset(power_rows(hours, record), clock, others),
        *(influxdb_asset(rows, clock) for rows in others),
    ]
