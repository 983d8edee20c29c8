"""Brings the device's energy of a day into the energy store: from the card where there is one, else from the graph pages.

What it asks is kept, and so is that the device had nothing, so that nobody asks twice. How a page or a file is read is
the library's; what is done with the energy, `filling`'s and the assets'.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo

import pandas as pd

from aiseg2_pipeline import energy
from aiseg2_pipeline.aiseg2.circuits import shown_name
from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, EXPORT_TIMEOUT_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.export import Export
from aiseg2_pipeline.aiseg2.graphs import Series, day_from_web
from aiseg2_pipeline.aiseg2.models import Circuit, DayGraph, EnergyRow
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed, load_state, save_state
from aiseg2_pipeline.energy import CIRCUIT_DAILY_TOTAL, DAILY_COST, DAILY_TOTAL, DAY_S, HOUR_S, NO_DATA, USAGE
from aiseg2_pipeline.readings import Row
from aiseg2_pipeline.store import EnergyStore

TOKYO = ZoneInfo("Asia/Tokyo")
HOUR = timedelta(hours=1)
# The device finishes an hour some time after it has ended.
SETTLED_AFTER = timedelta(minutes=5)
EXPORT_LASTS = timedelta(hours=1)
ASK_AGAIN = timedelta(days=1)
WH_PER_KWH = 1000
TOTALS, CIRCUITS = "totals", "circuits"
# As page 51111 and its like name them, for the card's days.
TITLES = {"generation": "発電量", "consumption": "使用電力量", "bought": "買電量", "sold": "売電量"}


@dataclass
class DayEnergy:
    """What bringing a day brought: its source, how many rows changed, and a sentence for each thing missing."""

    day: date
    source: str | None = None
    rows: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)


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
        self._looked_for_card = False
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
        if self._card is not None:
            self._card.__exit__(None, None, None)

    def bring(self, day: date, *, circuits: bool, source: Literal["auto", "web", "sd"] = "auto") -> DayEnergy:
        """Store what the device knows of a day in Japan, with its circuits if asked for.

        Circuits come from the card where there is one: their pages cost a request each. `source` asks for one of the
        two alone; raise NoData where that is the card and it has nothing of the day.
        """
        result = DayEnergy(day)
        export = self._export(result) if (circuits and source == "auto") or source == "sd" else None
        has_day = export is not None and day in export.days()
        if source == "sd" and not has_day:
            reason = (
                " ".join(result.problems) or "there is no SD card in the AiSEG2, or it has no file of that day"
            )
            raise NoData(f"Nothing of {day} can be read from the SD card: {reason}.")
        rows = None
        if export is not None and has_day and (source == "sd" or self._card_is_of_now(day)):
            try:
                rows = list(self._from_card(export, day))
                result.source = "sd"
            except Unreadable as error:
                if source == "sd":
                    raise
                result.problems.append(str(error))
        if rows is None:
            rows = list(self._from_web(day, result, circuits=circuits))
            result.source = "web"
        result.rows = len(rows)
        result.changed = self._store.upsert(energy.frame(rows)).changed
        self._store.upsert(energy.frame(self._no_data(day, rows, circuits=circuits)))
        return result

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

    def _from_web(self, day: date, result: DayEnergy, *, circuits: bool) -> Iterator[Row]:
        consumption = self._graph("consumption", day)
        if not consumption.total:
            result.problems.append(f"The AiSEG2 has no energy of {day}.")
            return
        totals: tuple[Series, ...] = ("generation", "bought", "sold")
        generation, bought, sold = (self._graph_if_served(series, day) for series in totals)
        shown = [graph for graph in (consumption, generation, bought, sold) if graph is not None]
        of_circuits: list[DayGraph] = []
        if circuits:
            shown += self._supplies(day)
            of_circuits = list(self._circuit_graphs(day, result))
        for row in day_from_web(consumption, generation, bought, sold, of_circuits):
            if _settled(row.time, row.interval_s, self._device_now):
                yield energy.interval(row.time, row.series, row.circuit_id or row.series, row.wh, row.interval_s)
        start = day_start(day)
        for graph in shown:
            if graph.total is not None:
                yield Row(start, DAILY_TOTAL, f"{graph.title}({graph.unit})", graph.total, graph.unit, DAY_S)
        for graph in of_circuits:
            if graph.total is not None and graph.circuit_id is not None:
                yield Row(start, CIRCUIT_DAILY_TOTAL, graph.circuit_id, graph.total, "kWh", DAY_S)

    def _graph(self, series: Series, day: date) -> DayGraph:
        return self._client.graph(series, day, Deadline(READING_TIMEOUT_S))

    def _graph_if_served(self, series: Series, day: date) -> DayGraph | None:
        """Return a graph that a home without generation may not have; what it would show is known from the others."""
        try:
            return self._graph(series, day)
        except NotServed:
            return None

    def _supplies(self, day: date) -> Iterator[DayGraph]:
        """Yield hot water and gas, which most homes do not have."""
        supplies: tuple[Series, ...] = ("hotwater", "gas")
        for series in supplies:
            try:
                yield self._graph(series, day)
            except (NotServed, Unreadable):
                continue

    def _circuit_graphs(self, day: date, result: DayEnergy) -> Iterator[DayGraph]:
        for circuit in self.circuits:
            try:
                yield self._client.circuit_graph(circuit.circuit_id, day, Deadline(READING_TIMEOUT_S))
            except NotServed as error:
                result.problems.append(str(error))
                return
            except Unreadable as error:
                result.problems.append(f"{circuit.name}: {error}")

    def _export(self, result: DayEnergy) -> Export | None:
        """Return the card's export, at most an hour old; None without a card, which is asked for again after a day."""
        if not self._looked_for_card:
            self._looked_for_card = True
            try:
                if made_at := self._exported_at():
                    self._card = Export(self._zip, made_at=made_at)
                    self._card_made_at = made_at
            except (Aiseg2Error, OSError) as error:
                # The card may be there, so it is tried again, but not at once: it is slow for the device.
                self._note_export(self._now, EXPORT_LASTS, has_export=False)
                result.problems.append(f"The card's export could not be read, so the graph pages were. {error}")
        return self._card

    def _exported_at(self) -> datetime | None:
        """Return when the export on disk was asked for, asking for a new one where it is too old; None: no card."""
        state = load_state(self._state_path)
        asked_at, lasts_s = state.get("asked_at"), state.get("lasts_s")
        if isinstance(asked_at, float) and isinstance(lasts_s, float):
            then = datetime.fromtimestamp(asked_at, UTC)
            if timedelta(0) <= self._now - then < timedelta(seconds=lasts_s):
                return then if state.get("has_export") is True else None
        try:
            made_at = self._client.download_export(self._zip, Deadline(EXPORT_TIMEOUT_S))
        except NoData:
            self._note_export(self._now, ASK_AGAIN, has_export=False)
            return None
        self._note_export(made_at, EXPORT_LASTS, has_export=True)
        return made_at

    def _note_export(self, asked_at: datetime, lasts: timedelta, *, has_export: bool) -> None:
        noted = {"asked_at": asked_at.timestamp(), "lasts_s": lasts.total_seconds(), "has_export": has_export}
        save_state(self._state_path, noted)

    def _no_data(self, day: date, rows: Sequence[Row], *, circuits: bool) -> Iterator[Row]:
        """Yield a note for each ended hour of which the device had nothing, so that it is not asked again for a day."""
        known = {(row.time, USAGE if row.kind == USAGE else TOTALS) for row in rows if row.interval_s == HOUR_S}
        for n in range(24):
            hour = day_start(day) + n * HOUR
            if _settled(hour, HOUR_S, self._now):
                if (hour, TOTALS) not in known:
                    yield Row(hour, NO_DATA, TOTALS, self._now.timestamp(), "", DAY_S)
                if circuits and (hour, USAGE) not in known:
                    yield Row(hour, NO_DATA, CIRCUITS, self._now.timestamp(), "", DAY_S)

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
        table = store.read(day_start(day), day_start(day) + timedelta(days=1))
        hours = table[table["interval_s"] <= HOUR_S]
        if hours.empty:
            raise NoData(" ".join(brought.problems) or f"The AiSEG2 has no energy of {day}.")
        # Half hours where there are any: their hours would say the same again.
        halves = hours[hours["interval_s"] < HOUR_S]
        names = {circuit.circuit_id: shown_name(circuit.name) for circuit in history.circuits}
        return DayTold(hours if halves.empty else halves, names, brought.source or "web", tuple(brought.problems))


def day_start(day: date) -> datetime:
    """Return the UTC start of a day in Japan."""
    return datetime(day.year, day.month, day.day, tzinfo=TOKYO).astimezone(UTC)


def day_of(moment: datetime) -> date:
    """Return the day in Japan that `moment` lies in."""
    return moment.astimezone(TOKYO).date()


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
