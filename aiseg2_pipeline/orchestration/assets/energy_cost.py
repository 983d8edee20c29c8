"""The asset `energy_cost`: what each hour cost by the tariff file, computed again wherever energy or tariff have changed.

A late hour moves the steps of all hours after it, so a billing period is always computed whole. Prices belong in `tariff`;
base fee and rounding belong to the bill, not to an hour.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path

import pandas as pd
from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    DailyPartitionsDefinition,
    Output,
)

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.japan_time import DAY, day_of, day_start
from aiseg2_pipeline.orchestration.assets.partitioned import log_materialization, materialize, partitioned_asset
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.keys import ENERGY_COST, ENERGY_HISTORY
from aiseg2_pipeline.orchestration.partitions import day_from_key, first_of
from aiseg2_pipeline.orchestration.resources import ReadingsStore
from aiseg2_pipeline.small_files import replace_text
from aiseg2_pipeline.store import EnergyStore
from aiseg2_pipeline.tariff.calendar import Period, period_of
from aiseg2_pipeline.tariff.cost import Markets, PeriodCost, cost_of_period, hours_of
from aiseg2_pipeline.tariff.load import load_markets, load_tariff
from aiseg2_pipeline.tariff.plans import Tariff

# Which tariff the stored costs are of, and up to which change of the energy.
COMPUTED = "cost_computed"


def energy_cost_asset(
    days: DailyPartitionsDefinition, tariff_path: Path, *, clock: Callable[[], datetime]
) -> AssetsDefinition:
    """Return the asset, partitioned by `days`."""

    @partitioned_asset(
        ENERGY_COST,
        days,
        deps=[ENERGY_HISTORY],
        io_manager_key="cost_io",
        group_name="energy",
        kinds={"python", "sqlite"},
        description="What each hour cost by the tariff file (AISEG2_TARIFF), in yen: bought, sold, and saved by generation. Green: the store "
        "holds costs of that day.",
    )
    def energy_cost(context: AssetExecutionContext, store: ReadingsStore) -> Iterator[Output[pd.DataFrame]]:
        with failures(), store.open_energy() as opened:
            tariff = load_tariff(tariff_path)
            markets = load_markets(tariff_path, tariff)
            changed = update_costs(opened, tariff, markets, store.settings.data_dir / COMPUTED)
            context.log.info(f"The costs of {len(changed)} days were computed.")
            own = set(context.partition_keys)
            first = first_of(days)
            for day in sorted(changed):
                key = day.isoformat()
                if key not in own and first <= day_start(day) <= clock():
                    log_materialization(context, ENERGY_COST, key)
            for key in sorted(own):
                start = day_from_key(key)
                table = opened.read(start, start + DAY, [energy.COST])
                if not table.empty:
                    sums = table.groupby("name")["value"].sum()
                    metadata = {f"{name}_yen": round(float(yen), 2) for name, yen in sums.items()}
                    yield from materialize(context, key, metadata | {"hours": int(table["time"].nunique())}, table)

    return energy_cost


def update_costs(store: EnergyStore, tariff: Tariff, markets: Markets, state: Path) -> set[date]:
    """Store the costs of all billing periods whose energy has changed since the last call, or all for another tariff.

    Return the days of which costs were computed. `state` is the file that says what was computed.
    """
    digest = _digest(tariff, markets)
    computed, since = _read(state)
    changed, version = store.changed_hours(since if computed == digest else 0)
    if version < since:
        # A new store took the place of a damaged one.
        changed, version = store.changed_hours(0)
    periods = sorted({period_of(day_of(hour), tariff.meter_day) for hour in changed}, key=lambda one: one.first)
    days: set[date] = set()
    for period in periods:
        days |= _store_costs(store, tariff, period, markets)
    replace_text(state, json.dumps({"tariff": digest, "version": version}))
    return days


def _store_costs(store: EnergyStore, tariff: Tariff, period: Period, markets: Markets) -> set[date]:
    hours = hours_of(store.read(day_start(period.first), day_start(period.end), ["bought", "sold", "consumption"]))
    table = energy.frame(_rows(cost_of_period(tariff, period, hours, markets)))
    store.upsert(table)
    # Hours that no plan covers any more.
    store.keep_only(table, energy.COST, day_start(period.first), day_start(period.end))
    return {day_of(time) for time in table["time"].dt.to_pydatetime()}


def _rows(cost: PeriodCost) -> Iterator[Row]:
    for hour in cost.hours:
        for name, yen in (("bought", hour.bought_yen), ("sold", hour.sold_yen), ("saved", hour.saved_yen)):
            if yen is not None:
                yield Row(hour.start, energy.COST, name, float(yen), "yen", energy.HOUR_S)


def _digest(tariff: Tariff, markets: Markets) -> str:
    prices = {
        str(path): sorted((time.isoformat(), str(yen)) for time, yen in of.items()) for path, of in markets.items()
    }
    return hashlib.sha256(f"{tariff.model_dump_json()}{json.dumps(prices, sort_keys=True)}".encode()).hexdigest()


def _read(state: Path) -> tuple[str, int]:
    """Return the tariff and the version of the stored costs; none where the file cannot be read."""
    try:
        content = json.loads(state.read_text(encoding="utf-8"))
        return str(content["tariff"]), int(content["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", 0
