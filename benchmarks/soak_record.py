"""Check the record after a soak: each minute is live, filled or reported as missing, in the store and in InfluxDB.

The oracle compares the values with the household and the two sides with each other; this module counts the minutes,
and compares the readings that the output reports with the store.
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
    """The number of minutes of each kind, and a sentence for each problem."""

    live: int = 0
    filled: int = 0
    missing: int = 0
    running_hour: int = 0
    reported: int = 0
    compared: dict[str, int] = field(default_factory=dict)
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
    # By then every hour has ended and may have been filled.
    later = hour_of(end) + 2 * HOUR
    oracle = Oracle(household, offsets=[Offset(LONG_AGO, timedelta())], now=datetime.now(UTC))
    with Store.open(data / "readings.sqlite") as store, EnergyStore.open(data / "energy.sqlite") as energy:
        minutes = store.minutes(start, end)
        gaps = find_gaps(store, energy, start, end, later)
        pending = store.pending_count(destination) + energy.pending_count(destination)
        verdict = oracle.judge(
            *(store, energy, server, destination, Acknowledged()),
            start=hour_of(start),
            # The coverage of the running hour goes out after its end; its minutes are counted below.
            end=hour_of(end),
            now=later,
        )
        for time, rows in reported(log):
            result.reported += 1
            kept = store.read(time, time + timedelta(seconds=1))
            if int((kept["interval_s"] == 0).sum()) != rows:
                result.wrong.append(
                    f"the reading of {time:%H:%M:%S} was reported with {rows} rows, and {len(kept)} are stored"
                )
    # The oracle got none of them; reported readings are compared above.
    result.compared = {what: count for what, count in verdict.counts.items() if what != "rows acknowledged"}
    if pending:
        result.wrong.append(f"{pending} hours are still pending for InfluxDB")
    for kind, sentences in verdict.wrong.items():
        result.wrong += [f"{kind}: {sentence}" for sentence in sentences[:NAMED]]
    reported_missing = {hour.start for hour in (*gaps.fillable, *gaps.hopeless)}
    minute = start
    while minute < end:
        interval_s, hour = minutes.get(minute), hour_of(minute)
        result.live += interval_s == 0
        result.filled += bool(interval_s)
        if interval_s is None and hour not in reported_missing:
            result.wrong.append(f"{minute:%H:%M} UTC is neither stored nor reported as missing")
        elif interval_s is None:
            result.running_hour += hour + HOUR > end
            result.missing += hour + HOUR <= end
        minute += MINUTE
    return result


def reported(log: str) -> Iterator[tuple[datetime, int]]:
    """Yield the time (UTC) and the number of rows of each reading that the pipeline's output reports as taken."""
    for line in _READING.findall(log):
        fields = json.loads(line)
        yield datetime.fromisoformat(fields["time"]), fields["rows"]
