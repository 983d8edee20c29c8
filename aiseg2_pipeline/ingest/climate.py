"""Reads what the rooms' sensors tell now, and knows when it is worth asking.

Most homes have no sensors, and no page says so but that of the rooms. So it is noted when rooms were seen and when to
ask again: every five minutes where there are rooms, once a day where there are none. What a page says is the
library's; the schedule and the assets are `orchestration`'s.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.climate import ROOMS_A_PAGE
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Unreadable
from aiseg2_pipeline.aiseg2.models import Room
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed, load_state, save_state

MAX_PAGES = 20
NOT_VERIFIED = "Not verified on a real unit."
NO_SENSORS = "The AiSEG2 shows no room with a sensor for temperature or humidity; it is asked once a day."
_DAY = timedelta(days=1)
# After a device that did not answer at all.
_SOON = timedelta(hours=1)


@dataclass(frozen=True)
class ClimateReading:
    """What the rooms' sensors told when the device answered (UTC), and a sentence for each thing that is missing."""

    answered_at: datetime
    rooms: tuple[Room, ...]
    problems: tuple[str, ...]
    requests: int
    clock_offset_s: float | None


class Sensors:
    """What is known of a device's sensors, in a file of the client's state folder; lost, it costs a request."""

    def __init__(self, state_dir: Path, device_url: str) -> None:
        """Open nothing yet."""
        self._path = state_dir / "climate.json"
        self._device = {"device": device_url}

    def due(self, now: datetime) -> bool:
        """Return whether to ask now: rooms were seen within a day, or the last answer without any is a day old."""
        state = self._state()
        since_s = now.timestamp() - state.get("seen_at", 0.0)
        left_s = state.get("ask_at", 0.0) - now.timestamp()
        # What is further ahead than ever noted is from a clock that was wrong.
        return 0 <= since_s < _DAY.total_seconds() or not 0 < left_s <= _DAY.total_seconds()

    def seen(self, now: datetime) -> None:
        """Note that there are rooms."""
        save_state(self._path, self._device | {"seen_at": now.timestamp()})

    def not_seen(self, now: datetime, ask_again: timedelta) -> None:
        """Note that there is no room to be seen."""
        ask_at = (now + ask_again).timestamp()
        save_state(self._path, self._device | self._state() | {"ask_at": ask_at})

    def _state(self) -> dict[str, float]:
        state = load_state(self._path)
        if not self._device.items() <= state.items():
            return {}
        return {key: value for key, value in state.items() if isinstance(value, float)}


def read_climate(client: Aiseg2Client, sensors: Sensors, clock: Callable[[], datetime]) -> ClimateReading:
    """Return what the sensors of all rooms tell now, noting in `sensors` whether there are any.

    Raise NoData where the device shows no room, else an Aiseg2Error where the first page cannot be read.
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
        # Past its last page the device may answer with that page again, as it does for circuits.
        if [room.name for room in shown.rooms] == names_before:
            break
        rooms += shown.rooms
        problems += shown.problems
    if not rooms:
        raise NoData(NO_SENSORS)
    requests = client.transport.requests - sent_before
    return ClimateReading(answered_at, tuple(rooms), tuple(problems), requests, client.clock_offset_s)
