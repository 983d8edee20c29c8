"""Takes a minute's live readings within its time budget, and stores each before the next is taken.

It decides when to take a reading and whether to keep it. Reading the pages belongs in `aiseg2`, the frame in `frames`.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas as pd

from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Refused
from aiseg2_pipeline.aiseg2.models import LiveReading
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S
from aiseg2_pipeline.frames.readings import live_frame
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.store import Store, incidents

READINGS_END_S = 50


@dataclass
class LiveMinute:
    """Sum up a minute: the stored readings with their frames, a sentence for each problem, and the readings left out."""

    readings: list[LiveReading] = field(default_factory=list)
    frames: list[pd.DataFrame] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: int = 0


def take_minute(
    client: Aiseg2Client,
    store: Store,
    *,
    minute: datetime,
    samples: int,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None] = time.sleep,
) -> LiveMinute:
    """Take `samples` readings spread from now to second 50 of `minute`; count those that do not fit as left out.

    The first one is always tried, with a timeout of 20 s. A refused login or a silent device ends the minute. Raises StoreError, because
    readings that cannot be stored must not be taken.
    """
    result = LiveMinute()
    started = clock()
    end = minute + timedelta(seconds=READINGS_END_S)
    spacing = max(timedelta(0), end - started) / samples
    for n in range(samples):
        due = started + n * spacing
        left_s = (end - clock()).total_seconds()
        if n and (left_s <= 0 or clock() > due + spacing):
            result.left_out += 1
            continue
        sleep(max(0.0, (due - clock()).total_seconds()))
        timeout_s = READING_TIMEOUT_S if n == 0 else min(READING_TIMEOUT_S, (end - clock()).total_seconds())
        try:
            reading = client.live(timeout_s)
        except Aiseg2Error as error:
            result.problems.append(str(error))
            incidents.note(store.path.parent, incidents.DEVICE, error, clock())
            if isinstance(error, Refused) or client.transport.is_silent:
                # The device may lock out a user after repeated wrong passwords, and a silent one is tried once a minute.
                break
            continue
        _keep(result, store, reading)
    if result.left_out:
        result.problems.append(
            f"{result.left_out} of {samples} readings did not fit before second {READINGS_END_S} of the minute: lower "
            "AISEG2_SAMPLES_PER_MINUTE if this continues."
        )
    return result


def _keep(result: LiveMinute, store: Store, reading: LiveReading) -> None:
    last = store.last_time()
    agree = reading.clock_offset_s is not None and abs(reading.clock_offset_s) <= CLOCKS_AGREE_S
    if last is not None and reading.answered_at.replace(microsecond=0) < last and not agree:
        result.problems.append(
            f"The reading of {reading.answered_at.astimezone(TOKYO):%Y-%m-%d %H:%M:%S} was not kept, because the store already holds "
            f"one of {last.astimezone(TOKYO):%Y-%m-%d %H:%M:%S}: this machine's clock is behind, or was ahead before; set it (NTP).",
        )
        return
    result.problems += reading.problems
    table = live_frame(reading)
    if table.empty:
        result.problems.append(
            "The AiSEG2 shows no number at all (`g_capacity` and `u_capacity` are `-`): check its own page.",
        )
        return
    store.upsert(table)
    incidents.clear(store.path.parent, incidents.DEVICE)
    if (known := reading.known_circuits) is not None:
        store.record_circuits(known.shown, reading.answered_at, unshown=known.unshown)
    result.readings.append(reading)
    result.frames.append(table)
    log_line(
        "reading",
        time=reading.answered_at.isoformat(timespec="seconds"),
        rows=len(table),
        requests=reading.requests,
        elapsed_s=round(reading.elapsed_s, 3),
        generation_kw=reading.flow.generation_kw,
        consumption_kw=reading.flow.consumption_kw,
        circuits=None if reading.circuits is None else len(reading.circuits),
        clock_offset_s=reading.clock_offset_s,
    )
