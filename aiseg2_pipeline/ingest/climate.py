"""Reads the rooms' sensors, and stores when to read them next.

Most homes have no sensors, and only the rooms' pages show that. So a state file stores when rooms were seen, on which of
the pages, and when to request them again: every five minutes with rooms, once a day without. Parsing a page belongs in
`aiseg2`, the schedule and the assets in `orchestration`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.climate import ROOMS_A_PAGE, ClimateSource
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.models import ClimatePage, Room
from aiseg2_pipeline.aiseg2.state import load_state, save_state
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed

MAX_PAGES = 20
NOT_VERIFIED = "Not verified on a real unit."
NO_SENSORS = "The AiSEG2 shows no room with a sensor for temperature or humidity; its pages are read once a day."
_DAY = timedelta(days=1)
# After a request without an answer.
_SOON = timedelta(hours=1)


@dataclass(frozen=True)
class ClimateReading:
    """The rooms' values when the device answered (UTC), and a sentence for each problem."""

    source: ClimateSource
    answered_at: datetime
    rooms: tuple[Room, ...]
    problems: tuple[str, ...]
    requests: int
    clock_offset_s: float | None


class Sensors:
    """State of a device's sensors, in a file of the client's state folder; losing it costs a request."""

    def __init__(self, state_dir: Path, device_url: str) -> None:
        """Set the file's path."""
        self._path = state_dir / "climate.json"
        self._device = {"device": device_url}

    def due(self, now: datetime) -> bool:
        """Return whether to read now: rooms were seen within a day, or the last answer without rooms is a day old."""
        since_s = now.timestamp() - self._time("seen_at")
        left_s = self._time("ask_at") - now.timestamp()
        # A time further ahead than a day was stored while the clock was wrong.
        return 0 <= since_s < _DAY.total_seconds() or not 0 < left_s <= _DAY.total_seconds()

    def sources(self, now: datetime) -> tuple[ClimateSource, ...]:
        """Return the pages to request in turn until one shows rooms: one alone for a day after it was chosen."""
        since_s = now.timestamp() - self._time("chosen_at")
        chosen = (source for source in ClimateSource if source.value == self._state().get("source"))
        return tuple(chosen if 0 <= since_s < _DAY.total_seconds() else ()) or tuple(ClimateSource)

    def seen(self, now: datetime, source: ClimateSource) -> None:
        """Store that this page shows rooms; the first choice stays chosen as long as it does."""
        chosen_at = now.timestamp()
        if source is not next(iter(ClimateSource)) and self.sources(now) == (source,):
            # A day after this page was chosen, the first one is requested again.
            chosen_at = self._time("chosen_at")
        state = {"seen_at": now.timestamp(), "source": source.value, "chosen_at": chosen_at}
        save_state(self._path, self._device | state)

    def not_seen(self, now: datetime, ask_again: timedelta) -> None:
        """Store that no room was shown, and when to request the pages again."""
        ask_at = (now + ask_again).timestamp()
        save_state(self._path, self._state() | self._device | {"ask_at": ask_at})

    def _time(self, key: str) -> float:
        time = self._state().get(key)
        return time if isinstance(time, float) else 0.0

    def _state(self) -> dict[str, Any]:
        state = load_state(self._path)
        return state if self._device.items() <= state.items() else {}


def read_climate(client: Aiseg2Client, sensors: Sensors, clock: Callable[[], datetime]) -> ClimateReading:
    """Return the current values of all rooms' sensors, and store in `sensors` which page has them.

    Raise NoData if the device shows no room, or another Aiseg2Error if the first page cannot be read.
    """
    try:
        reading = _read(client, sensors.sources(clock()), clock)
    except (NoData, Unreadable):
        sensors.not_seen(clock(), _DAY)
        raise
    except Aiseg2Error:
        sensors.not_seen(clock(), _SOON)
        raise
    sensors.seen(reading.answered_at, reading.source)
    return reading


def _read(client: Aiseg2Client, sources: Sequence[ClimateSource], clock: Callable[[], datetime]) -> ClimateReading:
    """Return the rooms of the first source that has any."""
    deadline = Deadline(READING_TIMEOUT_S)
    sent_before = client.transport.requests
    problem: Aiseg2Error = NoData(NO_SENSORS)
    for source in sources:
        try:
            shown = client.climate_page(source, 1, deadline.part(READING_TIMEOUT_S / len(sources)))
        except NotServed:
            continue
        except (Unreachable, Unreadable) as error:
            problem = error
            continue
        answered_at = clock().astimezone(UTC)
        rooms, problems = _all_pages(client, source, shown, deadline)
        if rooms:
            requests = client.transport.requests - sent_before
            return ClimateReading(source, answered_at, rooms, problems, requests, client.clock_offset_s)
    raise problem


def _all_pages(
    client: Aiseg2Client, source: ClimateSource, shown: ClimatePage, deadline: Deadline
) -> tuple[tuple[Room, ...], tuple[str, ...]]:
    """Return the rooms and the problems of page 1, which is `shown`, and of the pages after it."""
    rooms, problems = list(shown.rooms), list(shown.problems)
    for page in range(2, MAX_PAGES + 1):
        if len(shown.rooms) < ROOMS_A_PAGE:
            break
        names_before = [room.name for room in shown.rooms]
        try:
            shown = client.climate_page(source, page, deadline)
        except NotServed:
            break
        except Aiseg2Error as error:
            problems.append(str(error))
            break
        # After its last page the device may serve that page again, as it does for circuits.
        if [room.name for room in shown.rooms] == names_before:
            break
        rooms += shown.rooms
        problems += shown.problems
    return tuple(rooms), tuple(problems)
