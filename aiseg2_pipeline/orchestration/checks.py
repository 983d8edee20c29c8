"""The asset checks: of the newest reading, and of all stored hours and the device's energy.

A minute run evaluates the checks of its reading itself, without a step for each. Which minutes are missing belongs in `gaps`.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from dagster import (
    AssetCheckEvaluation,
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetChecksDefinition,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    MetadataValue,
    multi_asset_check,
)

from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.aiseg2.models import CircuitMatch
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline
from aiseg2_pipeline.frames.energy import HOUR_S
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION
from aiseg2_pipeline.gaps.find import Hour, hours_between
from aiseg2_pipeline.gaps.past import Record
from aiseg2_pipeline.japan_time import DAY, TOKYO, hour_key, hour_of
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.keys import ENERGY_HISTORY, POWER_READINGS
from aiseg2_pipeline.orchestration.resources import Aiseg2Device, ReadingsStore
from aiseg2_pipeline.store import Store

# The total is shown in steps of 0.1 kW; each circuit is rounded to 1 W.
ROUNDING_TOTAL_W = 50.0
ROUNDING_CIRCUIT_W = 0.5
# The circuits' page is read after the flow: in between, a device may have been switched on.
BETWEEN_PAGES_SHARE = 0.1

WITHIN_TOTAL = AssetCheckSpec(
    "circuits_within_total",
    asset=POWER_READINGS,
    description="The circuits together do not use more than the home does (beyond rounding and the moment between the two pages).",
)
CLOCK = AssetCheckSpec(
    "device_clock",
    asset=POWER_READINGS,
    description="The clock of the AiSEG2 and the clock of this machine differ by at most a minute.",
)
ALL_CIRCUITS = AssetCheckSpec(
    "every_circuit_present",
    asset=POWER_READINGS,
    description="The newest reading has every circuit that is registered in the AiSEG2 (page 734), and no other.",
)
NO_FUTURE = AssetCheckSpec(
    "no_rows_from_the_future",
    asset=POWER_READINGS,
    description="No stored reading is dated later than now.",
)
SPECS = (WITHIN_TOTAL, CLOCK, ALL_CIRCUITS, NO_FUTURE)
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


def evaluate(
    table: pd.DataFrame,
    *,
    clock_offset_s: float | None,
    circuits: CircuitMatch | None,
    future: Sequence[datetime],
) -> Iterator[AssetCheckResult]:
    """Yield a result for each check that one reading allows.

    `table` is the reading's frame, `circuits` are the known ones, `future` the stored times later than now.
    """
    usage = table[table["kind"] == "usage"]
    consumption_kw = table.loc[table["name"] == TOTAL_CONSUMPTION, "value"]
    if len(usage) and len(consumption_kw):
        yield _within_total(usage, float(consumption_kw.iloc[0]))
    if clock_offset_s is not None:
        yield _clock(clock_offset_s)
    if circuits is not None:
        yield _all_circuits(usage, circuits)
    yield _no_future(future)


def as_evaluation(result: AssetCheckResult) -> AssetCheckEvaluation:
    """Return the result as an event, for a run that has no step for the check."""
    return AssetCheckEvaluation(
        asset_key=result.asset_key or POWER_READINGS,
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
    )


def newest_reading_check(clock: Callable[[], datetime]) -> AssetChecksDefinition:
    """Return the checks that a person runs on the newest stored reading and the device's clock now."""

    @multi_asset_check(
        name="newest_reading", specs=list(SPECS), can_subset=True, description="Checks the newest stored reading."
    )
    def newest_reading(
        context: AssetCheckExecutionContext, device: Aiseg2Device, store: ReadingsStore
    ) -> Iterator[AssetCheckResult]:
        now = clock()
        with failures(), store.open() as opened:
            last = opened.last_time() or now
            table = opened.read(last, last + timedelta(seconds=1))
            future = opened.times_after(now)
        circuits, offset_s = None, None
        try:
            with device.client(clock) as client:
                circuits = client.known_circuits()
                client.circuit_page(1, Deadline(READING_TIMEOUT_S))
                offset_s = client.clock_offset_s
        except Aiseg2Error as error:
            context.log.warning(str(error))
        results = {
            str(result.check_name): result
            for result in evaluate(table, clock_offset_s=offset_s, circuits=circuits, future=future)
        }
        for key in context.selected_asset_check_keys:
            yield results.get(key.name) or _result(
                key.name,
                passed=False,
                description="Cannot be judged now, because there is no reading or the device does not answer: run `aiseg2-pipeline doctor`.",
            )

    return newest_reading


def _result(name: str, *, asset: AssetKey = POWER_READINGS, **more: Any) -> AssetCheckResult:
    return AssetCheckResult(asset_key=asset, check_name=name, severity=AssetCheckSeverity.WARN, **more)


def _within_total(usage: pd.DataFrame, consumption_kw: float) -> AssetCheckResult:
    circuits_w = float(usage["value"].sum())
    total_w = consumption_kw * 1000
    allowed_w = total_w * (1 + BETWEEN_PAGES_SHARE) + ROUNDING_TOTAL_W + ROUNDING_CIRCUIT_W * len(usage)
    return _result(
        WITHIN_TOTAL.name,
        passed=circuits_w <= allowed_w,
        description=f"Circuits {circuits_w:.0f} W of {total_w:.0f} W in all."
        + (
            ""
            if circuits_w <= allowed_w
            else " Once is a change between the two pages; if it repeats, check whether a generating device is registered as a circuit."
        ),
        metadata={"circuits_w": circuits_w, "total_w": total_w, "allowed_w": allowed_w},
    )


def _clock(offset_s: float) -> AssetCheckResult:
    agree = abs(offset_s) <= CLOCKS_AGREE_S
    return _result(
        CLOCK.name,
        passed=agree,
        description=f"The AiSEG2 is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine."
        # Dagster stores each description six times a minute: no advice while the check passes.
        + ("" if agree else " Set the device's clock, and NTP on this machine."),
        metadata={"device_minus_host_s": round(offset_s, 1)},
    )


def _all_circuits(usage: pd.DataFrame, circuits: CircuitMatch) -> AssetCheckResult:
    missing = sorted({circuit.name for circuit in circuits.shown} - set(usage["name"]))
    unshown = sorted({circuit.name for circuit in circuits.unshown})
    unlisted = sorted(set(circuits.unlisted))
    findings = []
    if missing:
        findings.append(
            f"Without a reading are {', '.join(missing)}: check whether the AiSEG2's own page of circuits shows them."
        )
    if unshown or unlisted:
        findings.append(
            "Missing minutes are not filled for circuits whose names do not match "
            f"(page 734: {', '.join(unshown) or 'none'}; page 1113: {', '.join(unlisted) or 'none'}): give each a name of its own in the AiSEG2's settings."
        )
    return _result(
        ALL_CIRCUITS.name,
        passed=not findings,
        description=" ".join(findings) or "All are there.",
        metadata={
            "registered": len(circuits.shown) + len(circuits.unshown),
            "missing": MetadataValue.json(missing),
            "unshown": MetadataValue.json(unshown),
            "unlisted": MetadataValue.json(unlisted),
        },
    )


def _no_future(future: Sequence[datetime]) -> AssetCheckResult:
    description = "None."
    if future:
        first, last = (
            moment.astimezone(TOKYO).isoformat(timespec="seconds") for moment in (future[0], future[-1])
        )
        description = (
            f"{len(future)} stored times from {first} to {last} are later than now: the clock of this machine was ahead. "
            f"Remove them with: aiseg2-pipeline remove --from {first} --to {last}"
        )
    return _result(
        NO_FUTURE.name,
        passed=not future,
        description=description,
        metadata={"times": len(future)},
    )


def recent_hours(store: Store, record: Record, now: datetime) -> list[Hour]:
    """Return the ended hours of the last 35 days, from the record's beginning on."""
    return hours_between(store, max(hour_of(now - LOOK_BACK), record.start(store, now)), now, now)


def completeness(hours: Sequence[Hour]) -> AssetCheckResult:
    """Return whether the hours have all their minutes, with the names of those that do not."""
    missing = [hour for hour in hours if hour.missing]
    filled = sum(hour.filled for hour in hours)
    named = ", ".join(hour_key(hour.start) for hour in missing[:NAMED_HOURS])
    more = f" and {len(missing) - NAMED_HOURS} more" if len(missing) > NAMED_HOURS else ""
    return _result(
        COMPLETE.name,
        passed=not missing,
        description=f"Minutes are missing in the hours {named}{more}: run `aiseg2-pipeline gaps`, which says what can be filled."
        if missing
        else f"Nothing is missing; {filled} of {sum(hour.live + hour.filled for hour in hours)} minutes were filled.",
        metadata={
            "live_minutes": sum(hour.live for hour in hours),
            "filled_minutes": filled,
            "missing_minutes": sum(hour.missing for hour in missing),
            "hours": MetadataValue.json([hour_key(hour.start) for hour in missing[:NAMED_HOURS]]),
        },
    )


def balance(energy: pd.DataFrame) -> AssetCheckResult | None:
    """Return whether the hours of an energy frame add up; None if values are missing or the home has storage."""
    hourly = energy[energy["interval_s"] == HOUR_S].pivot_table(
        index="time", columns="kind", values="value", aggfunc="sum"
    )
    if any(kind in hourly and hourly[kind].any() for kind in STORAGE):
        return None
    known = hourly.reindex(columns=["bought", "generation", "sold", "consumption"]).dropna()
    difference_wh = (known["bought"] + known["generation"] - known["sold"] - known["consumption"]).abs()
    if difference_wh.empty:
        return None
    wrong = difference_wh[difference_wh > BALANCE_WH]
    named = ", ".join(
        f"{hour_key(hour)} ({wrong[hour]:.0f} Wh)" for hour in pd.DatetimeIndex(wrong.index)[:NAMED_HOURS]
    )
    return _result(
        BALANCED.name,
        asset=ENERGY_HISTORY,
        passed=wrong.empty,
        description=f"These hours do not add up: {named}; check whether a device that is not measured feeds the home."
        if len(wrong)
        else "All hours add up.",
        metadata={"hours": len(difference_wh), "largest_difference_wh": float(difference_wh.max())},
    )


def record_check(beginning: Record, clock: Callable[[], datetime]) -> AssetChecksDefinition:
    """Return the checks that a person runs over the last 35 days of the stores."""

    @multi_asset_check(
        name="record",
        specs=[COMPLETE, BALANCED],
        can_subset=True,
        description="Checks the record of the last 35 days.",
    )
    def record(context: AssetCheckExecutionContext, store: ReadingsStore) -> Iterator[AssetCheckResult]:
        now = clock()
        with failures(), store.open() as readings, store.open_energy() as energy:
            complete = completeness(recent_hours(readings, beginning, now))
            balanced = balance(energy.read(now - LOOK_BACK, now + DAY))
        for key in context.selected_asset_check_keys:
            if key.name == COMPLETE.name:
                yield complete
            else:
                yield balanced or _result(
                    BALANCED.name,
                    asset=ENERGY_HISTORY,
                    passed=True,
                    description="Not judged: there is no energy yet, or the home has storage or a fuel cell.",
                )

    return record
