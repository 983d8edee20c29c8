"""What is checked of the record as a whole: whether it is complete, and whether the device's energy adds up."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import pandas as pd
from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    Failure,
    MetadataValue,
    multi_asset_check,
)

from aiseg2_pipeline.frames.energy import HOUR_S
from aiseg2_pipeline.gaps.fill import Hour, hours_between
from aiseg2_pipeline.japan_time import DAY, hour_of
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, POWER_READINGS
from aiseg2_pipeline.orchestration.partitions import hour_key
from aiseg2_pipeline.orchestration.resources import ReadingsStore
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.store.database import StoreError

LOOK_BACK = timedelta(days=35)
NAMED_HOURS = 24
# Each of the four numbers of an hour is rounded to 1 Wh.
BALANCE_WH = 3

COMPLETE = AssetCheckSpec(
    "record_complete",
    asset=POWER_READINGS,
    description="Every minute of the last 35 days was read or filled. Names the hours that have missing minutes.",
)
BALANCED = AssetCheckSpec(
    "energy_adds_up",
    asset=ENERGY_HISTORY,
    description="Bought and generated less sold is what the home consumed, by the device's own energy (homes without storage).",
)
STORAGE = ("battery-charge", "battery-discharge", "ev-charge", "ev-discharge", "fuelcell")


def recent_hours(store: Store, now: datetime) -> list[Hour]:
    """Return the hours of the last 35 days that have ended; those before the first reading are no gap."""
    start = hour_of(now - LOOK_BACK)
    began = store.live_near(start)
    return [] if began is None else hours_between(store, max(start, hour_of(began)), now, now)


def completeness(hours: Sequence[Hour]) -> AssetCheckResult:
    """Return whether the hours have all their minutes, naming those that have not."""
    missing = [hour for hour in hours if hour.missing]
    named = ", ".join(hour_key(hour.start) for hour in missing[:NAMED_HOURS])
    more = f" and {len(missing) - NAMED_HOURS} more" if len(missing) > NAMED_HOURS else ""
    return AssetCheckResult(
        asset_key=POWER_READINGS,
        check_name=COMPLETE.name,
        passed=not missing,
        severity=AssetCheckSeverity.WARN,
        description=f"Minutes are missing in the hours {named}{more}: run `aiseg2-pipeline gaps`, which says what can be filled."
        if missing
        else "Nothing is missing.",
        metadata={
            "live_minutes": sum(hour.live for hour in hours),
            "filled_minutes": sum(hour.filled for hour in hours),
            "missing_minutes": sum(hour.missing for hour in missing),
            "hours": MetadataValue.json([hour_key(hour.start) for hour in missing[:NAMED_HOURS]]),
        },
    )


def balance(energy: pd.DataFrame) -> AssetCheckResult | None:
    """Return whether an energy frame's hours add up; None where that cannot be judged."""
    hourly = energy[energy["interval_s"] == HOUR_S].pivot_table(
        index="time", columns="kind", values="value", aggfunc="sum"
    )
    if any(kind in hourly and hourly[kind].any() for kind in STORAGE):
        return None
    if not {"bought", "generation", "sold", "consumption"} <= set(hourly.columns):
        return None
    difference_wh = (
        (hourly["bought"] + hourly["generation"] - hourly["sold"] - hourly["consumption"]).dropna().abs()
    )
    if difference_wh.empty:
        return None
    wrong = difference_wh[difference_wh > BALANCE_WH]
    named = ", ".join(
        f"{hour_key(hour)} ({wrong[hour]:.0f} Wh)" for hour in pd.DatetimeIndex(wrong.index)[:NAMED_HOURS]
    )
    return AssetCheckResult(
        asset_key=ENERGY_HISTORY,
        check_name=BALANCED.name,
        passed=wrong.empty,
        severity=AssetCheckSeverity.WARN,
        description=f"These hours do not add up: {named}; look whether a device that is not measured feeds the home."
        if len(wrong)
        else "All hours add up.",
        metadata={"hours": len(difference_wh), "largest_difference_wh": float(difference_wh.max())},
    )


def record_check(clock: Callable[[], datetime]) -> AssetChecksDefinition:
    """Return the checks as a person runs them, over the last 35 days of the stores."""

    @multi_asset_check(
        name="record",
        specs=[COMPLETE, BALANCED],
        can_subset=True,
        description="Checks the record of the last 35 days.",
    )
    def record(context: AssetCheckExecutionContext, store: ReadingsStore) -> Iterator[AssetCheckResult]:
        now = clock()
        try:
            with store.open() as readings, store.open_energy() as energy:
                complete = completeness(recent_hours(readings, now))
                balanced = balance(energy.read(now - LOOK_BACK, now + DAY))
        except StoreError as error:
            raise Failure(str(error), allow_retries=False) from None
        for key in context.selected_asset_check_keys:
            if key.name == COMPLETE.name:
                yield complete
            else:
                yield balanced or AssetCheckResult(
                    asset_key=ENERGY_HISTORY,
                    check_name=BALANCED.name,
                    passed=True,
                    description="Not judged: there is no energy yet, or the home has storage or a fuel cell.",
                )

    return record
