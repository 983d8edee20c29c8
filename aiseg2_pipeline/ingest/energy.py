"""Brings the device's energy of a day into the energy store: from the card where there is one, else from the graph pages.

What it asks is kept, and so is that the device had nothing, so that nobody asks twice. How a page or a file is read is
the library's; what is done with the energy, `filling`'s and the assets'.
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import clean_name, shown_name
from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, EXPORT_TIMEOUT_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.graphs import Series, day_from_web, known_hours, no_energy
from aiseg2_pipeline.aiseg2.models import Circuit, DayGraph, EnergyRow
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed, load_state, save_state
from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.frames.energy import (
    CIRCUIT_DAILY_TOTAL,
    DAILY_COST,
    DAILY_TOTAL,
    DAY_S,
    HOUR_S,
    NO_DATA,
    USAGE,
)
from aiseg2_pipeline.frames.readings import Row
from aiseg2_pipeline.japan_time import DAY, HOUR, day_start
from aiseg2_pipeline.store import EnergyStore

# The device finishes an hour some time after it has ended.
SETTLED_AFTER = timedelta(minutes=5)
EXPORT_LASTS = timedelta(hours=1)
ASK_AGAIN = timedelta(days=1)
# Some homes have it asked for once a night only.
CARD_LASTS = timedelta(days=3)
WH_PER_KWH = 1000
TOTALS, CIRCUITS, CARD = "totals", "circuits", "card"
# As page 51111 and its like name them, for the card's days.
TITLES: dict[Series, str] = {
    "generation": "発電量",
    "consumption": "使用電力量",
    "bought": "買電量",
    "sold": "売電量",
}
SUPPLIES: dict[Series, str] = {"hotwater": "湯", "gas": "ガス"}


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
        self._zip = folder / "export.zip"
        self._state_path = folder / "export.json"
        self._device = client.transport.base_url
        self._looked_for_card = self._asked_anew = False
        self._card: Export | None = None
        self._card_made_at = now
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
        self._close_card()

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
        export = self._export(result, day) if (circuits and source == "auto") or source == "sd" else None
        has_day = export is not None and day in export.days()
        if source == "sd" and not has_day:
            raise NoData(
                " ".join(result.problems)
                or f"There is no SD card in the AiSEG2, or it has no file of {day}: choose --source web, or another day."
            )
        asked = [circuit for circuit in self.circuits if circuits and (only is None or circuit.circuit_id in only)]
        rows = None
        if export is not None and has_day and (source == "sd" or self._card_is_of_now(day)):
            try:
                rows = list(self._from_card(export, day))
                result.source = "sd"
            except Unreadable as error:
                if source == "sd":
                    raise
                result.problems.append(str(error))
        if rows is not None and source == "auto":
            rows += self._not_on_card(day, rows, result, asked)
        if rows is not None and self._has_ended(day):
            # They are from the pages, of when the day still ran, and the card does not have them.
            told = {row.name.partition("(")[0] for row in rows if row.kind == DAILY_TOTAL}
            stale = [
                series
                for series, title in (TITLES | SUPPLIES).items()
                if title not in told and self._has_total(title, day)
            ]
            rows += _totals_of_day(day, [self._graph(series, day) for series in stale])
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

    def _from_card(self, export: Export, day: date) -> Iterator[Row]:
        halves = list(export.half_hours(day))
        hours = {(row.time, row.series, row.circuit_id): row for row in export.hours(day)}
        for row in _whole_hours(halves):
            hours.setdefault((row.time, row.series, row.circuit_id), row)
        for row in [*halves, *hours.values()]:
            if _settled(row.time, row.interval_s, self._card_made_at):
                yield energy.interval(row.time, row.series, row.circuit_id or row.series, row.wh, row.interval_s)
        start = day_start(day)
        for total in export.day_totals(day):
            if total.time != start:
                continue
            if total.circuit_id is not None:
                yield Row(start, CIRCUIT_DAILY_TOTAL, total.circuit_id, total.wh / WH_PER_KWH, "kWh", DAY_S)
            elif total.series in TITLES:
                name = f"{TITLES[total.series]}(kWh)"
                yield Row(start, DAILY_TOTAL, name, total.wh / WH_PER_KWH, "kWh", DAY_S)
        for cost in export.day_costs(day):
            if cost.time == start:
                name = cost.series if cost.circuit_id is None else f"{energy.COST_OF_CIRCUIT}{cost.circuit_id}"
                yield Row(start, DAILY_COST, name, cost.yen, "yen", DAY_S)

    def _not_on_card(
        self, day: date, on_card: Sequence[Row], result: DayEnergy, circuits: Sequence[Circuit]
    ) -> list[Row]:
        """Return what the graph pages have beside the card where it lacks hours: it may have been put in on that day."""
        told = {row.time for row in on_card if row.kind == "consumption"}
        hours = [day_start(day) + n * HOUR for n in range(24)]
        lacking = {hour for hour in hours if _settled(hour, HOUR_S, self._card_made_at)} - told
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
            if _settled(row.time, row.interval_s, self._device_now):
                yield energy.interval(row.time, row.series, row.circuit_id or row.series, row.wh, row.interval_s)
        yield from _totals_of_day(day, shown)
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

    def _export(self, result: DayEnergy, day: date) -> Export | None:
        """Return the card's export, at most an hour old; None without a card, which is asked for again after a day."""
        if not self._looked_for_card:
            self._looked_for_card = True
            self._look_for_card(result)
        # A day that has ended is not asked for again: an export of before its end would leave it without the card's rows.
        if self._card is not None and self._has_ended(day) and not (self._card_is_of_now(day) or self._asked_anew):
            self._asked_anew = True
            self._look_for_card(result, anew=True)
        return self._card

    def _look_for_card(self, result: DayEnergy, *, anew: bool = False) -> None:
        try:
            if made_at := self._exported_at(anew=anew):
                card = Export(self._zip, made_at=made_at)
                self._close_card()
                self._card, self._card_made_at = card, made_at
        except (Aiseg2Error, OSError) as error:
            # The card may be there, so it is tried again, but not at once: it is slow for the device.
            self._note_export(self._now, EXPORT_LASTS, has_export=False)
            result.problems.append(f"The card's export could not be read. {error}")

    def _close_card(self) -> None:
        if self._card is not None:
            self._card.__exit__(None, None, None)

    def _exported_at(self, *, anew: bool) -> datetime | None:
        """Return when the export on disk was asked for, asking for a new one where it is too old; None: no card."""
        state = self._noted()
        asked_at, lasts_s = state.get("asked_at"), state.get("lasts_s")
        if not anew and isinstance(asked_at, float) and isinstance(lasts_s, float):
            then = datetime.fromtimestamp(asked_at, UTC)
            if timedelta(0) <= self._now - then < timedelta(seconds=lasts_s):
                return then if state.get("has_export") is True else None
        try:
            made_at = self._client.download_export(self._zip, Deadline(EXPORT_TIMEOUT_S))
        except NoData:
            # Where there was a card lately, one answer without a zip does not show that it is gone.
            if self._card_was_there():
                raise
            self._note_export(self._now, ASK_AGAIN, has_export=False)
            return None
        self._note_export(made_at, EXPORT_LASTS, has_export=True)
        return made_at

    def _note_export(self, asked_at: datetime, lasts: timedelta, *, has_export: bool) -> None:
        noted = {"asked_at": asked_at.timestamp(), "lasts_s": lasts.total_seconds(), "has_export": has_export}
        seen_at = noted["asked_at"] if has_export else self._noted().get("seen_at")
        save_state(self._state_path, noted | {"seen_at": seen_at, "device": self._device})

    def _noted(self) -> dict[str, Any]:
        """Return what is noted of this device's card; nothing of another device's."""
        state = load_state(self._state_path)
        return state if state.get("device") == self._device else {}

    def _card_was_there(self) -> bool:
        seen_at = self._noted().get("seen_at")
        return isinstance(seen_at, float) and self._now.timestamp() - seen_at < CARD_LASTS.total_seconds()

    def _card_note(self, day: date) -> Iterator[Row]:
        """Yield a note for an ended day whose card could not be read though it was there lately; 0 once that is settled."""
        start = day_start(day)
        lacks_card = self._card is None or not self._card_is_of_now(day)
        lacks_card = lacks_card and self._has_ended(day) and self._card_was_there()
        if lacks_card or not self._store.read(start, start + HOUR, kinds=[NO_DATA], names=[CARD]).empty:
            yield Row(start, NO_DATA, CARD, self._now.timestamp() if lacks_card else 0.0, "", DAY_S)

    def _no_data(self, day: date, rows: Sequence[Row], *, circuits: bool) -> Iterator[Row]:
        """Yield a note for each ended hour of which the device had nothing, so that it is not asked again for a day."""
        known = {(row.time, USAGE if row.kind == USAGE else TOTALS) for row in rows if row.interval_s == HOUR_S}
        for n in range(24):
            hour = day_start(day) + n * HOUR
            # By both clocks: an hour that only one of them has settled was held back, not absent.
            if _settled(hour, HOUR_S, min(self._now, self._device_now)):
                if (hour, TOTALS) not in known:
                    yield Row(hour, NO_DATA, TOTALS, self._now.timestamp(), "", DAY_S)
                if circuits and (hour, USAGE) not in known:
                    yield Row(hour, NO_DATA, CIRCUITS, self._now.timestamp(), "", DAY_S)

    def _has_ended(self, day: date) -> bool:
        return _settled(day_start(day), DAY_S, self._now)

    def _card_is_of_now(self, day: date) -> bool:
        """Return whether no hour of the day has settled since the export was made, which may be an hour old."""
        hours = [day_start(day) + n * HOUR for n in range(24)]
        return all(
            _settled(hour, HOUR_S, self._card_made_at) == _settled(hour, HOUR_S, self._now) for hour in hours
        )


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


def _totals_of_day(day: date, graphs: Iterable[DayGraph]) -> Iterator[Row]:
    """Yield the days' totals as the device shows them."""
    for graph in graphs:
        if graph.total is not None:
            name = f"{graph.title}({graph.unit})"
            yield Row(day_start(day), DAILY_TOTAL, name, graph.total, graph.unit, DAY_S)


def asked_lately(table: pd.DataFrame, name: str, now: datetime) -> set[datetime]:
    """Return the hours of an energy frame of which the device said within a day that it has nothing."""
    notes = table[(table["kind"] == NO_DATA) & (table["name"] == name)]
    lately = notes[notes["value"] > (now - ASK_AGAIN).timestamp()]
    return {time.to_pydatetime() for time in lately["time"]}


def _settled(time: datetime, interval_s: int, at: datetime) -> bool:
    return time + timedelta(seconds=interval_s) + SETTLED_AFTER <= at


def _whole_hours(halves: Sequence[EnergyRow]) -> Iterator[EnergyRow]:
    """Yield the hours of which both halves are known."""
    by_time = {(row.time, row.series, row.circuit_id): row.wh for row in halves}
    for (time, series, circuit_id), wh in by_time.items():
        second = by_time.get((time + HOUR / 2, series, circuit_id))
        if time.minute == 0 and second is not None:
            yield EnergyRow(time, HOUR_S, series, circuit_id, wh + second)
