"""Reads the device's energy of a day into the energy store: from the SD card if there is one, else from the graph pages.

What the device did not have is stored as an attempt, so that it is requested again only after a day. When to request
a day belongs in `gaps` and the assets, the rows of a day in `energy_rows`, fetching the card in `sd_card`.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.graphs import Series, day_from_web, known_hours, no_energy
from aiseg2_pipeline.aiseg2.models import Circuit, DayGraph
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.energy import CIRCUIT_DAILY_TOTAL, DAILY_TOTAL, DAY_S, HOUR_S, USAGE
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.ingest.card_totals import read_card_totals
from aiseg2_pipeline.ingest.energy_rows import (
    SUPPLIES,
    TITLES,
    rows_from_card,
    settled,
    totals_of_day,
)
from aiseg2_pipeline.ingest.sd_card import ASK_AGAIN, SdCard, has_ended
from aiseg2_pipeline.japan_time import DAY, HOUR, day_start
from aiseg2_pipeline.store import EnergyStore, FetchAttempt

# What an attempt was in vain for: an hour's totals or circuits; a day's card, or a circuit (with its id).
TOTALS, CIRCUITS, CARD, CIRCUIT = "totals", "circuits", "card", "circuits/"


@dataclass
class DayEnergy:
    """Sum up how a day was read: its source, its rows and how many of them changed, and a sentence for each problem."""

    day: date
    source: str | None = None
    rows: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)
    failed_circuits: set[str] = field(default_factory=set)


class History:
    """Reads the device's stored energy into an energy store. Create one for each run: it requests circuits and clock once.

    `now` is the host's time (UTC); `folder` keeps the card's export for an hour. Raises Unreachable if the clocks of host
    and device differ by more than CLOCKS_AGREE_S, because then nothing may be stored.
    """

    def __init__(
        self, client: Aiseg2Client, store: EnergyStore, folder: Path, now: datetime, *, same_clock: bool = True
    ) -> None:
        """Request the circuits and the clock; without `same_clock`, accept any difference between the clocks."""
        self._client = client
        self._store = store
        self._now = now
        self._card = SdCard(client, folder, now)
        self.circuits: Sequence[Circuit] = client.registered(Deadline(READING_TIMEOUT_S))
        offset_s = client.clock_offset_s or 0.0
        self._device_now = now + timedelta(seconds=offset_s)
        if same_clock and abs(offset_s) > CLOCKS_AGREE_S:
            raise Unreachable(
                f"The AiSEG2's clock is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's, so their hours "
                "are not the same and nothing was filled: set the device's clock in its settings, and NTP on this machine."
            )

    def __enter__(self) -> Self:
        """Return the history, which closes the card's export on exit."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the card's export."""
        self._card.close()

    def read_day(
        self,
        day: date,
        *,
        circuits: bool,
        only: Collection[str] | None = None,
        source: Literal["auto", "web", "sd"] = "auto",
    ) -> DayEnergy:
        """Store the device's energy of a day in Japan, with its circuits if `circuits`; only some of them if `only` has ids.

        A circuit whose page fails is skipped and noted; if two pages in a row get no answer, the error is raised. Circuits
        come from the card if there is one, because their pages cost a request each. `source` selects the card or the pages
        alone; raise NoData if the card is selected and has nothing of the day.
        """
        result = DayEnergy(day)
        selected = [
            circuit for circuit in self.circuits if circuits and (only is None or circuit.circuit_id in only)
        ]
        uses_card = source == "sd" or (circuits and source == "auto")
        rows = self._from_card(day, result, required=source == "sd") if uses_card else None
        if rows is None:
            rows = list(self._from_web(day, self._graph("consumption", day), result, selected))
            result.source = "web"
        else:
            if source == "auto":
                rows += self._not_on_card(day, rows, result, selected)
            if has_ended(day, self._now):
                rows += self._totals_not_on_card(day, rows, supplies=source == "auto")
        result.rows = len(rows)
        # The attempts first: a run that is killed in between must not leave a gap that is never requested again.
        self._store.note_attempts(
            [
                *self._hours_in_vain(day, rows, circuits=circuits and only is None),
                *self._circuits_in_vain(day, result.failed_circuits),
            ]
        )
        if circuits and source == "auto":
            self._note_card(day)
        result.changed = self._store.upsert(energy.frame(rows)).changed
        return result

    def read_card_totals(self, since: date) -> list[str]:
        """Store the card's totals of days and months since a day, as `card_totals` says."""
        return read_card_totals(self._card, self._store, since, self._now)

    def give_up(self, day: date, circuit_ids: Collection[str]) -> None:
        """Note that a day and these circuits cannot be read, so that they are requested again a day later."""
        self._store.note_attempts(
            [*self._hours_in_vain(day, [], circuits=True), *self._circuits_in_vain(day, circuit_ids)]
        )

    def _circuits_in_vain(self, day: date, circuit_ids: Collection[str]) -> Iterator[FetchAttempt]:
        for circuit_id in circuit_ids:
            yield FetchAttempt(day_start(day), CIRCUIT + circuit_id, self._now)

    def _from_card(self, day: date, result: DayEnergy, *, required: bool) -> list[Row] | None:
        """Return the card's rows of a day; None if it has none, or if an hour settled after the export.

        If the card is `required`, raise NoData or Unreadable instead, and accept an older export.
        """
        export = self._card.export(day, result.problems)
        if export is None or day not in export.days():
            if required:
                raise NoData(
                    " ".join(result.problems)
                    or f"There is no SD card in the AiSEG2, or it has no file of {day}: choose --source web, or another day."
                )
            return None
        if not required and not self._card.is_current(day):
            return None
        try:
            rows = list(rows_from_card(export, day, self._card.made_at))
        except Unreadable as error:
            if required:
                raise
            result.problems.append(str(error))
            return None
        result.source = "sd"
        return rows

    def _totals_not_on_card(self, day: date, on_card: Sequence[Row], *, supplies: bool) -> Iterator[Row]:
        """Yield an ended day's totals that the card does not have, from the pages.

        These are hot water and gas, if `supplies`, and those that the pages had before the day ended.
        """
        titles = {row.name.partition("(")[0] for row in on_card if row.kind == DAILY_TOTAL}
        lacking = [
            series
            for series, title in (TITLES | SUPPLIES).items()
            if title not in titles and ((supplies and series in SUPPLIES) or self._has_total(title, day))
        ]
        graphs = [self._graph_if_served(series, day, (NotServed, Unreadable)) for series in lacking]
        return totals_of_day(day, [graph for graph in graphs if graph is not None])

    def _not_on_card(
        self, day: date, on_card: Sequence[Row], result: DayEnergy, circuits: Sequence[Circuit]
    ) -> list[Row]:
        """Return the graph pages' rows of hours that the card lacks: it may have been inserted on that day."""
        on_card_hours = {row.time for row in on_card if row.kind == "consumption"}
        hours = [day_start(day) + n * HOUR for n in range(24)]
        lacking = {hour for hour in hours if settled(hour, HOUR_S, self._card.made_at)} - on_card_hours
        if not lacking:
            return []
        try:
            consumption = self._graph("consumption", day)
            known = {hour for hour, is_known in zip(hours, known_hours(consumption), strict=True) if is_known}
            if not known & lacking:
                return []
            rows = list(self._from_web(day, consumption, result, circuits))
        except (NotServed, Unreadable) as error:
            result.problems.append(str(error))
            return []
        keys = {row[:3] for row in on_card}
        return [row for row in rows if row[:3] not in keys and (row.time in lacking or row.interval_s == DAY_S)]

    def _from_web(
        self, day: date, consumption: DayGraph, result: DayEnergy, circuits: Sequence[Circuit]
    ) -> Iterator[Row]:
        if not consumption.total:
            result.problems.append(str(no_energy(day)))
            return
        totals: tuple[Series, ...] = ("generation", "bought", "sold")
        generation, bought, sold = (self._graph_if_served(series, day) for series in totals)
        shown = [consumption, generation, bought, sold]
        of_circuits: list[DayGraph] = []
        if circuits:
            # Most homes have neither hot water nor gas.
            shown += [self._graph_if_served(series, day, (NotServed, Unreadable)) for series in SUPPLIES]
            of_circuits = list(self._circuit_graphs(day, result, circuits))
        for row in day_from_web(consumption, generation, bought, sold, of_circuits):
            if settled(row.time, row.interval_s, self._device_now):
                yield energy.interval(row.time, row.series, row.circuit_id or row.series, row.wh, row.interval_s)
        yield from totals_of_day(day, [graph for graph in shown if graph is not None])
        for graph in of_circuits:
            if graph.total is not None and graph.circuit_id is not None:
                yield Row(day_start(day), CIRCUIT_DAILY_TOTAL, graph.circuit_id, graph.total, "kWh", DAY_S)

    def _graph(self, series: Series, day: date) -> DayGraph:
        return self._client.graph(series, day, Deadline(READING_TIMEOUT_S))

    def _graph_if_served(
        self, series: Series, day: date, failures: tuple[type[Aiseg2Error], ...] = (NotServed,)
    ) -> DayGraph | None:
        """Return a graph that the home may not have; None if its page fails with one of `failures`."""
        try:
            return self._graph(series, day)
        except failures:
            if self._has_total((TITLES | SUPPLIES)[series], day):
                raise
            return None

    def _has_total(self, title: str, day: date) -> bool:
        """Return whether a total of the day is stored: it may predate the end of the day, and must be replaced."""
        start = day_start(day)
        totals = self._store.read(start, start + DAY, kinds=[DAILY_TOTAL])
        return bool(totals["name"].str.startswith(f"{title}(").any())

    def _circuit_graphs(self, day: date, result: DayEnergy, circuits: Sequence[Circuit]) -> Iterator[DayGraph]:
        # The device serves circuits if the day has energy of any. Some are requested alone only after others were served.
        start = day_start(day)
        known = self._store.read(start, start + DAY, kinds=[USAGE])
        served, unanswered = len(circuits) < len(self.circuits) or not known.empty, False
        for n, circuit in enumerate(circuits):
            try:
                graph = self._client.circuit_graph(circuit.circuit_id, day, Deadline(READING_TIMEOUT_S))
            except (Unreachable, Unreadable) as error:
                no_answer = isinstance(error, Unreachable) and not isinstance(error, NotServed)
                if no_answer and unanswered:
                    raise
                unanswered = no_answer
                result.problems.append(f"{clean_name(circuit.name)}: {error}")
                result.failed_circuits.add(circuit.circuit_id)
                if isinstance(error, NotServed) and n and not served:
                    # The device has no page of circuits at all.
                    result.failed_circuits.clear()
                    return
            else:
                served, unanswered = True, False
                yield graph

    def _note_card(self, day: date) -> None:
        """Store whether the card was seen lately but could not be read for an ended day."""
        lacks_card = not self._card.is_current(day)
        if lacks_card and has_ended(day, self._now) and self._card.was_seen():
            self._store.note_attempts([FetchAttempt(day_start(day), CARD, self._now)])
        else:
            self._store.forget_attempts(day_start(day), [CARD])

    def _hours_in_vain(self, day: date, rows: Sequence[Row], *, circuits: bool) -> Iterator[FetchAttempt]:
        """Yield an attempt for each ended hour without energy on the device."""
        known = {(row.time, USAGE if row.kind == USAGE else TOTALS) for row in rows if row.interval_s == HOUR_S}
        for n in range(24):
            hour = day_start(day) + n * HOUR
            # By both clocks: an hour that has settled by one of them only was withheld, not absent.
            if settled(hour, HOUR_S, min(self._now, self._device_now)):
                if (hour, TOTALS) not in known:
                    yield FetchAttempt(hour, TOTALS, self._now)
                if circuits and (hour, USAGE) not in known:
                    yield FetchAttempt(hour, CIRCUITS, self._now)


@dataclass(frozen=True)
class DeviceDay:
    """The device's energy of a day: its intervals in Wh as an energy frame, the circuits' names by id, and its problems."""

    table: pd.DataFrame
    names: dict[str, str]
    source: str
    problems: tuple[str, ...]


def day_on_device(
    client: Aiseg2Client, folder: Path, day: date, now: datetime, *, source: Literal["auto", "web", "sd"]
) -> DeviceDay:
    """Return the energy of a day in Japan without storing it. Raise NoData if the selected source has none."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        EnergyStore.open(Path(scratch) / "energy.sqlite") as store,
        # Only displayed by the device's own clock, never combined with stored minutes.
        History(client, store, folder, now, same_clock=False) as history,
    ):
        result = history.read_day(day, circuits=True, source=source)
        table = store.read(day_start(day), day_start(day) + DAY)
        hours = table[table["interval_s"] <= HOUR_S]
        if hours.empty:
            raise NoData(" ".join(result.problems) or str(no_energy(day)))
        # Half hours if there are any: their hours repeat them.
        halves = hours[hours["interval_s"] < HOUR_S]
        return DeviceDay(
            hours if halves.empty else halves,
            dict(history.circuits),
            result.source or "web",
            tuple(result.problems),
        )


def tried_lately(attempts: Iterable[FetchAttempt], what: str, now: datetime) -> set[datetime]:
    """Return the hours or days for which this was requested in vain within the last day."""
    return {attempt.time for attempt in attempts if attempt.what == what and attempt.at > now - ASK_AGAIN}
