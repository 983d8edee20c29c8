"""The device's energy of a day, into the energy store: from the SD card where there is one, else from the graph pages.

That the device had no energy of an hour is stored as well, so that it is asked again only after a day. When a day is
asked for belongs in `gaps` and the assets, the rows of a day in `energy_rows`, fetching the card in `sd_card`.
"""

import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import clean_name, shown_name
from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.graphs import Series, day_from_web, known_hours, no_energy
from aiseg2_pipeline.aiseg2.models import Circuit, DayGraph
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.energy import CIRCUIT_DAILY_TOTAL, DAILY_TOTAL, DAY_S, HOUR_S, NO_DATA, USAGE
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.ingest.energy_rows import SUPPLIES, TITLES, rows_from_card, settled, totals_of_day
from aiseg2_pipeline.ingest.sd_card import ASK_AGAIN, SdCard, has_ended
from aiseg2_pipeline.japan_time import DAY, HOUR, day_start
from aiseg2_pipeline.store import EnergyStore

TOTALS, CIRCUITS, CARD = "totals", "circuits", "card"


@dataclass
class DayEnergy:
    """What bringing a day brought: its source, how many rows changed, and a sentence for each thing missing."""

    day: date
    source: str | None = None
    rows: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)
    failed_circuits: set[str] = field(default_factory=set)


class History:
    """The device's memory, read into an energy store. One a run: it asks for the circuits and the clock once.

    `now` is the host's time (UTC); `folder` keeps the card's export for an hour. Raises Unreachable where host and
    device are not at the same hour: then nothing may be stored.
    """

    def __init__(
        self, client: Aiseg2Client, store: EnergyStore, folder: Path, now: datetime, *, same_clock: bool = True
    ) -> None:
        """Ask the device for its circuits and its clock; without `same_clock`, go by the device's whatever it shows."""
        self._client = client
        self._store = store
        self._now = now
        self._card = SdCard(client, folder, now)
        self.circuits: Sequence[Circuit] = client.circuit_list(Deadline(READING_TIMEOUT_S)).circuits
        offset_s = client.clock_offset_s or 0.0
        self._device_now = now + timedelta(seconds=offset_s)
        if same_clock and abs(offset_s) > CLOCKS_AGREE_S:
            raise Unreachable(
                f"The AiSEG2's clock is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's, so their hours "
                "are not the same and nothing was filled: set the device's clock in its settings, and NTP on this machine."
            )

    def __enter__(self) -> Self:
        """Return the history."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the card's export."""
        self._card.close()

    def bring(
        self,
        day: date,
        *,
        circuits: bool,
        only: Collection[str] | None = None,
        source: Literal["auto", "web", "sd"] = "auto",
    ) -> DayEnergy:
        """Store what the device knows of a day in Japan, with its circuits if asked for; of those, `only` some ids.

        A circuit's page that fails costs that circuit alone, and is noted; two in a row that nobody answers are the
        device's failure. Circuits come from the card where there is one: their pages cost a request each. `source` asks
        for one of the two alone; raise NoData where that is the card and it has nothing of the day.
        """
        result = DayEnergy(day)
        export = (
            self._card.export(day, result.problems) if (circuits and source == "auto") or source == "sd" else None
        )
        has_day = export is not None and day in export.days()
        if source == "sd" and not has_day:
            raise NoData(
                " ".join(result.problems)
                or f"There is no SD card in the AiSEG2, or it has no file of {day}: choose --source web, or another day."
            )
        asked = [circuit for circuit in self.circuits if circuits and (only is None or circuit.circuit_id in only)]
        rows = None
        if export is not None and has_day and (source == "sd" or self._card.is_current(day)):
            try:
                rows = list(rows_from_card(export, day, self._card.made_at))
                result.source = "sd"
            except Unreadable as error:
                if source == "sd":
                    raise
                result.problems.append(str(error))
        if rows is not None and source == "auto":
            rows += self._not_on_card(day, rows, result, asked)
        if rows is not None and has_ended(day, self._now):
            # They are from the pages, of when the day still ran, and the card does not have them.
            told = {row.name.partition("(")[0] for row in rows if row.kind == DAILY_TOTAL}
            stale = [
                series
                for series, title in (TITLES | SUPPLIES).items()
                if title not in told and self._has_total(title, day)
            ]
            rows += totals_of_day(day, [self._graph(series, day) for series in stale])
        if rows is None:
            rows = list(self._from_web(day, self._graph("consumption", day), result, asked))
            result.source = "web"
        result.rows = len(rows)
        notes = [*self._no_data(day, rows, circuits=circuits and only is None)]
        notes += (
            energy.circuit_note(day_start(day), circuit_id, self._now.timestamp())
            for circuit_id in result.failed_circuits
        )
        if circuits and source == "auto":
            notes += self._card_note(day)
        # First, so that a run that is killed between the two leaves nothing out that nobody asks for again.
        self._store.upsert(energy.frame(notes))
        result.changed = self._store.upsert(energy.frame(rows)).changed
        return result

    def give_up(self, day: date, circuit_ids: Collection[str]) -> None:
        """Note that a day cannot be read, these circuits included, so that it is asked for again a day later."""
        notes = [*self._no_data(day, [], circuits=True)]
        notes += (
            energy.circuit_note(day_start(day), circuit_id, self._now.timestamp()) for circuit_id in circuit_ids
        )
        self._store.upsert(energy.frame(notes))

    def _not_on_card(
        self, day: date, on_card: Sequence[Row], result: DayEnergy, circuits: Sequence[Circuit]
    ) -> list[Row]:
        """Return what the graph pages have beside the card where it lacks hours: it may have been put in on that day."""
        told = {row.time for row in on_card if row.kind == "consumption"}
        hours = [day_start(day) + n * HOUR for n in range(24)]
        lacking = {hour for hour in hours if settled(hour, HOUR_S, self._card.made_at)} - told
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
        shown = [graph for graph in (consumption, generation, bought, sold) if graph is not None]
        of_circuits: list[DayGraph] = []
        if circuits:
            shown += self._supplies(day)
            of_circuits = list(self._circuit_graphs(day, result, circuits))
        for row in day_from_web(consumption, generation, bought, sold, of_circuits):
            if settled(row.time, row.interval_s, self._device_now):
                yield energy.interval(row.time, row.series, row.circuit_id or row.series, row.wh, row.interval_s)
        yield from totals_of_day(day, shown)
        for graph in of_circuits:
            if graph.total is not None and graph.circuit_id is not None:
                yield Row(day_start(day), CIRCUIT_DAILY_TOTAL, graph.circuit_id, graph.total, "kWh", DAY_S)

    def _graph(self, series: Series, day: date) -> DayGraph:
        return self._client.graph(series, day, Deadline(READING_TIMEOUT_S))

    def _graph_if_served(self, series: Series, day: date) -> DayGraph | None:
        """Return a graph that a home without generation may not have; what it would show is known from the others."""
        try:
            return self._graph(series, day)
        except NotServed:
            if self._has_total(TITLES[series], day):
                raise
            return None

    def _supplies(self, day: date) -> Iterator[DayGraph]:
        """Yield hot water and gas, which most homes do not have."""
        for series, title in SUPPLIES.items():
            try:
                yield self._graph(series, day)
            except (NotServed, Unreadable):
                if self._has_total(title, day):
                    raise
                continue

    def _has_total(self, title: str, day: date) -> bool:
        """Return whether a total of that day is stored: it may be of when the day still ran, and must not stay so."""
        start = day_start(day)
        totals = self._store.read(start, start + DAY, kinds=[DAILY_TOTAL])
        return bool(totals["name"].str.startswith(f"{title}(").any())

    def _circuit_graphs(self, day: date, result: DayEnergy, circuits: Sequence[Circuit]) -> Iterator[DayGraph]:
        # Some are asked for alone only where the others were answered; so they were where the day has any.
        start = day_start(day)
        kept = self._store.read(start, start + DAY, kinds=[USAGE])
        answered, away = len(circuits) < len(self.circuits) or not kept.empty, False
        for n, circuit in enumerate(circuits):
            try:
                graph = self._client.circuit_graph(circuit.circuit_id, day, Deadline(READING_TIMEOUT_S))
            except (Unreachable, Unreadable) as error:
                silent = isinstance(error, Unreachable) and not isinstance(error, NotServed)
                if silent and away:
                    raise
                away = silent
                result.problems.append(f"{clean_name(circuit.name)}: {error}")
                result.failed_circuits.add(circuit.circuit_id)
                if isinstance(error, NotServed) and n and not answered:
                    # The device has no such page at all, today or tomorrow.
                    result.failed_circuits.clear()
                    return
            else:
                answered, away = True, False
                yield graph

    def _card_note(self, day: date) -> Iterator[Row]:
        """Yield a note for an ended day whose card could not be read though it was there lately; 0 once that is settled."""
        start = day_start(day)
        lacks_card = not self._card.is_current(day)
        lacks_card = lacks_card and has_ended(day, self._now) and self._card.was_there()
        if lacks_card or not self._store.read(start, start + HOUR, kinds=[NO_DATA], names=[CARD]).empty:
            yield Row(start, NO_DATA, CARD, self._now.timestamp() if lacks_card else 0.0, "", DAY_S)

    def _no_data(self, day: date, rows: Sequence[Row], *, circuits: bool) -> Iterator[Row]:
        """Yield a note for each ended hour of which the device had nothing, so that it is not asked again for a day."""
        known = {(row.time, USAGE if row.kind == USAGE else TOTALS) for row in rows if row.interval_s == HOUR_S}
        for n in range(24):
            hour = day_start(day) + n * HOUR
            # By both clocks: an hour that only one of them has settled was held back, not absent.
            if settled(hour, HOUR_S, min(self._now, self._device_now)):
                if (hour, TOTALS) not in known:
                    yield Row(hour, NO_DATA, TOTALS, self._now.timestamp(), "", DAY_S)
                if circuits and (hour, USAGE) not in known:
                    yield Row(hour, NO_DATA, CIRCUITS, self._now.timestamp(), "", DAY_S)


@dataclass(frozen=True)
class DayTold:
    """What the device tells of a day: its intervals in Wh as an energy frame, the circuits' names by id, and what is missing."""

    table: pd.DataFrame
    names: dict[str, str]
    source: str
    problems: tuple[str, ...]


def day_on_device(
    client: Aiseg2Client, folder: Path, day: date, now: datetime, *, source: Literal["auto", "web", "sd"]
) -> DayTold:
    """Return the energy of a day in Japan, keeping none of it. Raise NoData where the asked source has nothing of it."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        EnergyStore.open(Path(scratch) / "energy.sqlite") as store,
        # Only shown: by the device's own clock, and never laid beside our minutes.
        History(client, store, folder, now, same_clock=False) as history,
    ):
        brought = history.bring(day, circuits=True, source=source)
        table = store.read(day_start(day), day_start(day) + DAY)
        hours = table[table["interval_s"] <= HOUR_S]
        if hours.empty:
            raise NoData(" ".join(brought.problems) or str(no_energy(day)))
        # Half hours where there are any: their hours would say the same again.
        halves = hours[hours["interval_s"] < HOUR_S]
        names = {circuit.circuit_id: shown_name(circuit.name) for circuit in history.circuits}
        return DayTold(hours if halves.empty else halves, names, brought.source or "web", tuple(brought.problems))


def asked_lately(table: pd.DataFrame, name: str, now: datetime) -> set[datetime]:
    """Return the hours of an energy frame of which the device said within a day that it has nothing."""
    notes = table[(table["kind"] == NO_DATA) & (table["name"] == name)]
    lately = notes[notes["value"] > (now - ASK_AGAIN).timestamp()]
    return {time.to_pydatetime() for time in lately["time"]}
