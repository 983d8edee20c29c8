"""Reads the rooms' sensors, and stores when to read them next.

Most homes have no sensors, and only the rooms' page shows that. So a state file stores when rooms were seen and when to
request the page again: every five minutes with rooms, once a day without. Parsing the page belongs in `aiseg2`, the
schedule and the assets in `orchestration`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.climate import ROOMS_A_PAGE
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import Room
from aiseg2_pipeline.aiseg2.state import load_state, save_state
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed

MAX_PAGES = 20
NOT_VERIFIED = "Not verified on a real unit."
NO_SENSORS = "The AiSEG2 shows no room with a sensor for temperature or humidity; its page is read once a day."
_DAY = timedelta(days=1)
# After a request without an answer.
_SOON = timedelta(hours=1)


@dataclass(frozen=True)
class ClimateReading:
    """The rooms' values when the device answered (UTC), and a sentence for each problem."""

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
        state = self._state()
        since_s = now.timestamp() - state.get("seen_at", 0.0)
        left_s = state.get("ask_at", 0.0) - now.timestamp()
        # A time further ahead than a day was stored while the clock was wrong.
        return 0 <= since_s < _DAY.total_seconds() or not 0 < left_s <= _DAY.total_seconds()

    def seen(self, now: datetime) -> None:
        """Store that the device has rooms."""
        save_state(self._path, self._device | {"seen_at": now.timestamp()})

    def not_seen(self, now: datetime, ask_again: timedelta) -> None:
        """Store that no room was shown, and when to request the page again."""
        ask_at = (now + ask_again).timestamp()
        save_state(self._path, self._device | self._state() | {"ask_at": ask_at})

    def _state(self) -> dict[str, float]:
        state = load_state(self._path)
        if not self._device.items() <= state.items():
            return {}
        return {key: value for key, value in state.items() if isinstance(value, float)}


def read_climate(client: Aiseg2Client, sensors: Sensors, clock: Callable[[], datetime]) -> ClimateReading:
    """Return the current values of all rooms' sensors, and store in `sensors` whether there are any.

    Raise NoData if the device shows no room, or another Aiseg2Error if the first page cannot be read.
    """
    try:
        reading = _read(client, clock)
    except (NoData, Unreadable):
        sensors.not_seen(clock(), _DAY)
        raise
    except Aiseg2Error:
        sensors.not_seen(clock(), _SOON)
        raise
    sensors.seen(reading.answered_at)
    return reading


def _read(client: Aiseg2Client, clock: Callable[[], datetime]) -> ClimateReading:
    deadline = Deadline(READING_TIMEOUT_S)
    sent_before = client.transport.requests
    try:
        shown = client.climate_page(1, deadline)
    except NotServed:
        raise NoData(NO_SENSORS) from None
    answered_at = clock().astimezone(UTC)
    rooms, problems = list(shown.rooms), list(shown.problems)
    for page in range(2, MAX_PAGES + 1):
        if len(shown.rooms) < ROOMS_A_PAGE:
            break
        names_before = [room.name for room in shown.rooms]
        try:
            shown = client.climate_page(page, deadline)
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
    if not rooms:
        raise NoData(NO_SENSORS)
    requests = client.transport.requests - sent_before
    return ClimateReading(answered_at, tuple(rooms), tuple(problems), requests, client.clock_offset_s)
