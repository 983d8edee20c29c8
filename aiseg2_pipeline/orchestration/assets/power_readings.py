"""The asset `power_readings`: completes an hour as far as that is possible now.

In the running hour it reads this minute's values. In an hour that has ended it fills missing minutes from the device's
stored energy, day by day. The schedules, the backfill sensor and a person's backfill all use it. Which minutes are missing,
and how they are filled, belongs in `gaps`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

import pandas as pd
from dagster import (
    AssetExecutionContext,
    AssetsDefinition,
    Failure,
    HourlyPartitionsDefinition,
    MetadataValue,
    Output,
    TableColumn,
    TableRecord,
    TableSchema,
)

from aiseg2_pipeline.frames.energy import HOUR_S
from aiseg2_pipeline.frames.names import BATTERY_CHARGE, TOTAL_CONSUMPTION, TOTAL_GENERATION
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.gaps.find import MINUTES_AN_HOUR, Hour, settled
from aiseg2_pipeline.gaps.past import Record
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.ingest.energy_rows import WH_PER_KWH
from aiseg2_pipeline.ingest.power import LiveMinute, take_minute
from aiseg2_pipeline.japan_time import HOUR, MINUTE, TOKYO, hour_from_key, hour_key, hour_of
from aiseg2_pipeline.logs import log_error, log_line
from aiseg2_pipeline.orchestration.assets.energy_history import energy_metadata
from aiseg2_pipeline.orchestration.assets.partitioned import log_materialization, materialize, partitioned_asset
from aiseg2_pipeline.orchestration.checks import as_evaluation, completeness, evaluate, recent_hours
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, POWER_READINGS
from aiseg2_pipeline.orchestration.resources import Aiseg2Device, ReadingsStore
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline.tags import MINUTE_TAG


def power_readings_asset(
    hours: HourlyPartitionsDefinition, record: Record, *, samples: int, demo: bool, clock: Callable[[], datetime]
) -> AssetsDefinition:
    """Return the asset, partitioned by `hours`, with `samples` readings a minute; in the demo its description says so."""

    @partitioned_asset(
        POWER_READINGS,
        hours,
        io_manager_key="readings_io",
        group_name="power",
        kinds={"python", "sqlite"},
        description=("DEMO, a simulated home. " if demo else "")
        + "The home's power as the AiSEG2 shows it: generation, consumption, exchange, and every circuit. One row per series "
        "and time. Green: the store holds rows of that hour.",
    )
    def power_readings(
        context: AssetExecutionContext, device: Aiseg2Device, store: ReadingsStore
    ) -> Iterator[Output[pd.DataFrame]]:
        requested = [hour_from_key(key) for key in context.partition_keys]
        now = clock()
        minute = _minute(context, now)
        with failures(), store.open() as opened:
            if now >= minute + MINUTE:
                context.log.warning(
                    f"No reading was taken: the run for {minute.astimezone(TOKYO):%H:%M} began after that minute had ended; if this "
                    "repeats, see what keeps this machine so busy."
                )
            elif hour_of(now) in requested:
                with device.client(clock) as client:
                    taken = take_minute(client, opened, minute=minute, samples=samples, clock=clock)
                _report(context, taken, opened, record, clock())
                # Two readings may be of one second; the store holds the later one.
                table = pd.concat(taken.frames, ignore_index=True).drop_duplicates(KEY, keep="last")
                yield from materialize(context, hour_key(now), _metadata(taken), table)
            if ended := [hour for hour in requested if settled(hour, now)]:
                _fill_ended(context, device, store, opened, record, hours=ended, clock=clock)
            elif hour_of(now) not in requested:
                context.log.info("Nothing to fill: an hour is filled from five minutes after its end on.")

    return power_readings


def _minute(context: AssetExecutionContext, now: datetime) -> datetime:
    # A re-executed run has the tags of the first one, but reads the minute that it runs in.
    tag = None if context.run.parent_run_id else context.run.tags.get(MINUTE_TAG)
    return datetime.fromisoformat(tag) if tag else now.replace(second=0, microsecond=0)


def _report(
    context: AssetExecutionContext, taken: LiveMinute, store: Store, record: Record, now: datetime
) -> None:
    """Log the problems and evaluate the checks; raise Failure if the minute has no reading."""
    if not taken.readings:
        raise Failure(" ".join(dict.fromkeys(taken.problems)), allow_retries=False)
    for problem in dict.fromkeys(taken.problems):
        context.log.warning(problem)
        log_error(problem, run_id=context.run.run_id)
    newest = taken.readings[-1]
    for result in evaluate(
        taken.frames[-1],
        clock_offset_s=newest.clock_offset_s,
        circuits=newest.known_circuits,
        future=store.times_after(now),
    ):
        context.log_event(as_evaluation(result))
    # Dagster shows a check as not evaluated after a newer materialization, so every minute evaluates it.
    context.log_event(as_evaluation(completeness(recent_hours(store, record, now))))


def _metadata(taken: LiveMinute) -> dict[str, Any]:
    newest = taken.readings[-1]
    table = taken.frames[-1]
    requests = sum(reading.requests for reading in taken.readings)
    battery = table.loc[table["name"] == BATTERY_CHARGE, "value"]
    numbers = {
        "generation_kw": newest.flow.generation_kw if newest.flow.generators else None,
        "consumption_kw": newest.flow.consumption_kw,
        "battery_percent": battery.iloc[0] if len(battery) else None,
        "device_clock_offset_s": newest.clock_offset_s,
    }
    metadata: dict[str, Any] = {
        name: round(float(value), 3) for name, value in numbers.items() if value is not None
    }
    if newest.flow.exchange is not None:
        metadata["grid"] = newest.flow.exchange.value
    metadata |= {
        "rows": sum(len(frame) for frame in taken.frames),
        "series": len(table),
        "readings": len(taken.readings),
        "requests": requests,
        "device_latency_s": round(sum(reading.elapsed_s for reading in taken.readings) / requests, 3),
        "read_at": newest.answered_at.astimezone(TOKYO).isoformat(timespec="seconds"),
        "circuits": _circuit_table(table),
    }
    if taken.problems:
        metadata["missing"] = " ".join(dict.fromkeys(taken.problems))
    return metadata


def _circuit_table(table: pd.DataFrame) -> MetadataValue[Any]:
    usage = table[table["kind"] == "usage"].sort_values("value", ascending=False)
    return MetadataValue.table(
        [
            TableRecord({"circuit": name, "watts": value})
            for name, value in zip(usage["name"], usage["value"], strict=True)
        ],
        schema=TableSchema([TableColumn("circuit", "string"), TableColumn("watts", "float")]),
    )


def _fill_ended(
    context: AssetExecutionContext,
    device: Aiseg2Device,
    stores: ReadingsStore,
    store: Store,
    record: Record,
    *,
    hours: Sequence[datetime],
    clock: Callable[[], datetime],
) -> None:
    """Fill these hours (UTC starts) and materialize those with rows. Raise Aiseg2Error or StoreError."""
    now, done = clock(), 0
    with stores.open_energy() as energy, ExitStack() as stack:

        def history() -> History:
            client = stack.enter_context(device.client(clock, slot="background"))
            opened = stack.enter_context(History(client, energy, device.settings.device_state_dir, now))
            for problem in opened.read_card_totals(record.start_date) if record.start_date else ():
                context.log.warning(problem)
            return opened

        for day in fill_hours(store, energy, hours, now=now, history=history):
            done += len(day.hours)
            for problem in day.problems:
                context.log.warning(problem)
            missing = sum(hour.missing for hour in day.hours)
            context.log.info(
                f"{day.day}: {day.filled_minutes} minutes filled, {missing} still missing; {done} of {len(hours)} hours done."
            )
            log_line("fill", day=str(day.day), filled_minutes=day.filled_minutes, missing_minutes=missing)
            if day.energy and day.energy.rows:
                log_materialization(context, ENERGY_HISTORY, day.day.isoformat(), energy_metadata(day.energy))
            for hour in day.hours:
                if hour.live or hour.filled:
                    metadata = _hour_metadata(store, energy, hour)
                    log_materialization(context, POWER_READINGS, hour_key(hour.start), metadata)
    context.log_event(as_evaluation(completeness(recent_hours(store, record, now))))


def _hour_metadata(store: Store, energy: EnergyStore, hour: Hour) -> dict[str, Any]:
    """Return the counts of an hour's minutes, and its energy by the minutes and by the device (kWh)."""
    metadata: dict[str, Any] = {
        "live_minutes": hour.live,
        "filled_minutes": hour.filled,
        "missing_minutes": hour.missing,
    }
    end = hour.start + HOUR
    rows = store.read(hour.start, end)
    metadata |= {"rows": len(rows)} | _mean_totals(rows)
    table = energy.read(hour.start, end, kinds=["consumption"])
    device_wh = table.loc[table["interval_s"] == HOUR_S, "value"]
    if len(device_wh) and hour.missing == 0:
        power = rows[rows["name"] == TOTAL_CONSUMPTION]
        # A minute can have several readings.
        by_minute = power.groupby(power["time"].dt.floor("min"))["value"].mean()
        minutes_kwh = float(by_minute.sum()) / MINUTES_AN_HOUR
        device_kwh = float(device_wh.iloc[0]) / WH_PER_KWH
        metadata |= {"minutes_kwh": round(minutes_kwh, 3), "device_kwh": device_kwh}
        if device_kwh:
            metadata["difference_percent"] = round(100 * (minutes_kwh - device_kwh) / device_kwh, 2)
    return metadata


def _mean_totals(rows: pd.DataFrame) -> dict[str, float]:
    """Return the hour's means under the names that a minute's run uses, so that the plots of an ended hour go on."""
    means = rows[rows["kind"] == "total"].groupby("name")["value"].mean()
    names = {"generation_kw": TOTAL_GENERATION, "consumption_kw": TOTAL_CONSUMPTION}
    return {label: round(float(means[name]), 3) for label, name in names.items() if name in means}
