"""What a soak leaves: every minute live and true, filled and marked, or told as missing; in the store and in InfluxDB alike.

Whether values are true is the oracle's to say; here minutes are counted, and the two sides held against each other.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

from aiseg2_pipeline.filling import find_gaps
from aiseg2_pipeline.orchestration.partitions import HOUR, hour_of
from aiseg2_pipeline.readings import KEY
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline_tests.influxdb_server import InfluxServer
from aiseg2_pipeline_tests.oracle import Acknowledged, Offset, Oracle

MINUTE = timedelta(minutes=1)
NAMED = 5
ALWAYS = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


@dataclass
class Account:
    """How many minutes are what, and a sentence for each thing that is wrong."""

    live: int = 0
    filled: int = 0
    missing: int = 0
    running_hour: int = 0
    set_aside: int = 0
    rows: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def account(
    data: Path,
    household: Household,
    server: InfluxServer,
    destination: Destination,
    start: datetime,
    end: datetime,
) -> Account:
    """Compare the store and the bucket with the household; minutes from `start` to `end`."""
    result = Account()
    # When all of it is in the past and may have been filled.
    later = hour_of(end) + 2 * HOUR
    oracle = Oracle(household, offsets=[Offset(ALWAYS[0], timedelta())], now=datetime.now(UTC))
    with Store.open(data / "readings.sqlite") as store, EnergyStore.open(data / "energy.sqlite") as energy:
        kept = store.read(*ALWAYS)
        aside = store.set_aside_rows(destination)
        minutes = store.minutes(start, end)
        gaps = find_gaps(store, energy, start, end, later)
        owed = store.pending_count(destination) + energy.pending_count(destination)
        verdict = oracle.judge(
            *(store, energy, server, destination.bucket, Acknowledged()),
            start=hour_of(start),
            end=hour_of(end) + HOUR,
            now=later,
        )
        aside_in_all = len(aside) + len(energy.set_aside_rows(destination))
    result.rows, result.set_aside, result.judged = len(kept), aside_in_all, dict(verdict.counts)
    if owed:
        result.wrong.append(f"{owed} hours are still owed to InfluxDB")
    _compare_sides(result, kept, server.readings(destination.bucket), aside)
    for kind, sentences in verdict.wrong.items():
        # To the oracle, a row that InfluxDB refused for good is lost; here it is known to be set aside.
        if kind != "lost" or not aside_in_all:
            result.wrong += [f"{kind}: {sentence}" for sentence in sentences[:NAMED]]
    told = {hour.start for hour in (*gaps.fillable, *gaps.hopeless)}
    minute = start
    while minute < end:
        interval_s, hour = minutes.get(minute), hour_of(minute)
        result.live += interval_s == 0
        result.filled += bool(interval_s)
        if interval_s is None and hour not in told:
            result.wrong.append(f"{minute:%H:%M} UTC is neither there nor told as missing")
        elif interval_s is None:
            result.running_hour += hour + HOUR > end
            result.missing += hour + HOUR <= end
        minute += MINUTE
    return result


def _compare_sides(result: Account, kept: pd.DataFrame, written: pd.DataFrame, aside: pd.DataFrame) -> None:
    ours, theirs, refused = (_by_key(frame) for frame in (kept, written, aside))
    lost = ours.index.difference(theirs.index).difference(refused.index)
    if len(lost):
        result.wrong.append(f"{len(lost)} rows of the store are not in InfluxDB, the first of them {lost[0]}")
    strange = theirs.index.difference(ours.index)
    if len(strange):
        result.wrong.append(
            f"{len(strange)} points of InfluxDB are not in the store, the first of them {strange[0]}"
        )
    both = ours.index.intersection(theirs.index).difference(refused.index)
    other = (ours.loc[both] != theirs.loc[both]).any(axis=1)
    if other.any():
        result.wrong.append(f"{other.sum()} points differ from the store, the first of them {both[other][0]}")


def _by_key(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_index(KEY)[["value", "interval_s"]].sort_index()
