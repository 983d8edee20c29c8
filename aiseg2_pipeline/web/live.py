"""The live view: while somebody looks, the power flow is read every 5 s, once for all viewers, and not stored.

The device is small and the minute's reading comes first. So a live flow is never read beside it, uses the background slot,
is given up after 3 s, and after a failure it is not tried again for a while: the page shows the stored minute then.
Without a viewer there is no request, no connection and no timer.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.aiseg2.models import CurrentFlow
from aiseg2_pipeline.settings import Settings

if TYPE_CHECKING:
    from aiseg2_pipeline.aiseg2.client import Aiseg2Client

EVERY_S, GIVEN_UP_S = 5.0, 3.0
# Answers to viewers that ask a moment too early, so that the period of many viewers is that of one.
EARLY_S = 0.5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 300.0
# Without a viewer for so long, the connection is closed.
IDLE_S = 15.0


class LiveFlow:
    """The newest live flow, shared by all viewers."""

    def __init__(self, settings: Settings, clock: Callable[[], datetime]) -> None:
        """Connect to nothing yet."""
        self._settings, self._clock = settings, clock
        self._client: Aiseg2Client | None = None
        self._reading: asyncio.Task[CurrentFlow | None] | None = None
        self._newest: CurrentFlow | None = None
        self._begun = self._read_at = self._paused_until = float("-inf")
        self._pause_s = FIRST_PAUSE_S
        self._closing: asyncio.TimerHandle | None = None

    async def get(self) -> CurrentFlow | None:
        """Return the present flow, at most 5 s old; None where the stored minute is to be shown."""
        if not self._settings.page_live:
            return None
        if self._reading is None and time.monotonic() >= self._begun + EVERY_S - EARLY_S:
            if time.monotonic() < self._paused_until:
                return None
            self._begun = time.monotonic()
            self._reading = asyncio.ensure_future(self._read())
        # A viewer that goes away does not end the reading of the others.
        return self._newest if self._reading is None else await asyncio.shield(self._reading)

    async def _read(self) -> CurrentFlow | None:
        if self._closing:
            self._closing.cancel()
        try:
            flow = await asyncio.to_thread(self._current_flow)
            if flow is not None:
                self._newest, self._read_at = flow, time.monotonic()
            elif time.monotonic() > self._read_at + 2 * EVERY_S:
                # A minute's reading goes on, and the last flow is old: show the stored minute.
                self._newest = None
            self._pause_s = FIRST_PAUSE_S
        except Aiseg2Error:
            self._newest = None
            self._paused_until = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        finally:
            self._reading = None
            self._closing = asyncio.get_running_loop().call_later(IDLE_S, self._close)
        return self._newest

    def _current_flow(self) -> CurrentFlow | None:
        if self._client is None:
            self._client = _client(self._settings, self._clock)
        return self._client.current_flow(GIVEN_UP_S)

    def _close(self) -> None:
        if self._client:
            self._client.transport.close()
        self._newest = None


def _client(settings: Settings, clock: Callable[[], datetime]) -> "Aiseg2Client":
    # HTTP and HTML take 12 MB, which a home where nobody looks does not need.
    from aiseg2_pipeline.aiseg2.client import Aiseg2Client  # noqa: PLC0415

    return Aiseg2Client(
        settings.device_url,
        settings.device_user,
        settings.device_password.get_secret_value(),
        state_dir=settings.device_state_dir,
        clock=clock,
        slot="background",
        verify=settings.device_verify,
    )
