"""What a soak leaves: every minute live and true, filled and marked, or told as missing; in the store and in InfluxDB alike.

Whether values are true, and the two sides the same, is the oracle's to say; here minutes are counted, and the readings
that the pipeline's output reports are looked up.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.gaps.find import find_gaps
from aiseg2_pipeline.japan_time import HOUR, hour_of
from aiseg2_pipeline.simulator.household import Household
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline_tests.endurance.oracle import Acknowledged, Offset, Oracle
from aiseg2_pipeline_tests.support.influxdb import InfluxServer

MINUTE = timedelta(minutes=1)
NAMED = 5
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_READING = re.compile(r'{"time": .*"event": "reading".*}')


@dataclass
class Account:
    """How many minutes are what, and a sentence for each thing that is wrong."""

    live: int = 0
    filled: int = 0
    missing: int = 0
    running_hour: int = 0
    reported: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def account(
    data: Path,
    household: Household,
    server: InfluxServer,
    destination: Destination,
    start: datetime,
    end: datetime,
    log: str,
) -> Account:
    """Compare the store and the bucket with the household and with the pipeline's output; minutes from `start` to `end`."""
    result = Account()
    # When all of it is in the past and may have been filled.
    later = hour_of(end) + 2 * HOUR
    oracle = Oracle(household, offsets=[Offset(LONG_AGO, timedelta())], now=datetime.now(UTC))
    with Store.open(data / "readings.sqlite") as store, EnergyStore.open(data / "energy.sqlite") as energy:
        minutes = store.minutes(start, end)
        gaps = find_gaps(store, energy, start, end, later)
        owed = store.pending_count(destination) + energy.pending_count(destination)
        verdict = oracle.judge(
            *(store, energy, server, destination, Acknowledged()),
            start=hour_of(start),
            end=hour_of(end) + HOUR,
            now=later,
        )
        for time, rows in reported(log):
            result.reported += 1
            kept = store.read(time, time + timedelta(seconds=1))
            if int((kept["interval_s"] == 0).sum()) != rows:
                result.wrong.append(
                    f"the reading of {time:%H:%M:%S} was reported with {rows} rows, and {len(kept)} are there"
                )
    # It was not told of any: what was reported is above.
    result.judged = {what: count for what, count in verdict.counts.items() if what != "rows acknowledged"}
    if owed:
        result.wrong.append(f"{owed} hours are still owed to InfluxDB")
    for kind, sentences in verdict.wrong.items():
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


def reported(log: str) -> Iterator[tuple[datetime, int]]:
    """Yield the time (UTC) and the number of rows of each reading that the pipeline's output reports as taken."""
    for line in _READING.findall(log):
        told = json.loads(line)
        yield datetime.fromisoformat(told["time"]), told["rows"]
