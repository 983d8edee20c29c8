"""Stores the SD card's totals of days and months, which the card keeps for longer than hours: 1.3 and 11 years (reported).

The hours of a day, and its totals once it has ended, belong in `energy`.
"""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import partial

import pandas as pd

from aiseg2_pipeline.aiseg2.errors import Unreadable
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.ingest.energy_rows import days_from_card, months_from_card
from aiseg2_pipeline.ingest.sd_card import ASK_AGAIN, SdCard
from aiseg2_pipeline.japan_time import DAY, HOUR, day_of, day_start
from aiseg2_pipeline.store import EnergyStore, FetchAttempt

# Stored with the first day, at the time when the totals since that day were read.
READ = "card totals"


def read_card_totals(card: SdCard, store: EnergyStore, since: date, now: datetime) -> list[str]:
    """Store the totals since a day in Japan, at most once a day; return a sentence for each problem.

    Stored rows stay unchanged. Later calls read only the files since the last call.
    """
    problems: list[str] = []
    start, today = day_start(since), day_of(now)
    read_at = {attempt.what: attempt.at for attempt in store.attempts(start, start + HOUR)}.get(READ)
    if read_at is not None and read_at > now - ASK_AGAIN:
        return problems
    export = card.export(today, problems)
    if export is None:
        return problems
    for rows in _files(export, max(since, day_of(read_at - DAY)) if read_at else since, today):
        try:
            store.add(energy.frame(row for row in rows() if row.time >= start))
        except Unreadable as error:
            problems.append(str(error))
    store.note_attempts([FetchAttempt(start, READ, now)])
    return problems


def _files(export: Export, first: date, last: date) -> Iterator[Callable[[], Iterator[Row]]]:
    """Yield for each file of days and of months a function that reads it."""
    for month in pd.period_range(first, last, freq="M"):
        yield partial(days_from_card, export, month.start_time.date())
    for year in range(first.year, last.year + 1):
        yield partial(months_from_card, export, year)
