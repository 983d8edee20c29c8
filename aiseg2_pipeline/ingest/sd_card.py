"""Fetches the SD card's export at most once an hour, and stores whether the device has a card.

Parsing its files belongs in `aiseg2/sd_card`, storing their rows in `energy`.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from aiseg2_pipeline.aiseg2.client import EXPORT_TIMEOUT_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.state import load_state, save_state
from aiseg2_pipeline.aiseg2.transport import Deadline
from aiseg2_pipeline.frames.energy import DAY_S, HOUR_S
from aiseg2_pipeline.ingest.energy_rows import settled
from aiseg2_pipeline.japan_time import HOUR, day_start

EXPORT_LASTS = timedelta(hours=1)
ASK_AGAIN = timedelta(days=1)
# In some homes the card is requested once a night only.
CARD_LASTS = timedelta(days=3)


class SdCard:
    """Access to one device's card during a run; `now` is the host's time (UTC), `folder` keeps the export."""

    def __init__(self, client: Aiseg2Client, folder: Path, now: datetime) -> None:
        """Prepare without a request."""
        self._client = client
        self._now = now
        self._zip = folder / "export.zip"
        self._state_path = folder / "export.json"
        self._device = client.transport.base_url
        self._requested = self._renewed = False
        self._card: Export | None = None
        self.made_at = now

    def export(self, day: date, problems: list[str]) -> Export | None:
        """Return the card's export, at most an hour old; None without a card, which is requested again after a day."""
        if not self._requested:
            self._requested = True
            self._open_export(problems)
        # An ended day is read once: an export made before its end would leave it without the card's rows.
        if self._card is not None and has_ended(day, self._now) and not (self.is_current(day) or self._renewed):
            self._renewed = True
            self._open_export(problems, renew=True)
        return self._card

    def _open_export(self, problems: list[str], *, renew: bool = False) -> None:
        try:
            if made_at := self._exported_at(renew=renew):
                card = Export(self._zip, made_at=made_at)
                self.close()
                self._card, self.made_at = card, made_at
        except (Aiseg2Error, OSError) as error:
            # There may be a card, so retry, but not at once: an export is slow for the device.
            self._note_export(self._now, EXPORT_LASTS, has_export=False)
            problems.append(f"The card's export could not be read. {error}")

    def close(self) -> None:
        """Close the export."""
        if self._card is not None:
            self._card.__exit__(None, None, None)

    def _exported_at(self, *, renew: bool) -> datetime | None:
        """Return when the export on disk was requested, requesting a new one if it is too old; None without a card."""
        state = self._noted()
        asked_at, lasts_s = state.get("asked_at"), state.get("lasts_s")
        if not renew and isinstance(asked_at, float) and isinstance(lasts_s, float):
            then = datetime.fromtimestamp(asked_at, UTC)
            if timedelta(0) <= self._now - then < timedelta(seconds=lasts_s):
                return then if state.get("has_export") is True else None
        try:
            made_at = self._client.download_export(self._zip, Deadline(EXPORT_TIMEOUT_S))
        except NoData:
            # If a card was seen lately, one answer without a zip does not mean that it was removed.
            if self.was_seen():
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
        """Return the stored state of this device's card; empty if it belongs to another device."""
        state = load_state(self._state_path)
        return state if state.get("device") == self._device else {}

    def was_seen(self) -> bool:
        """Return whether a card was seen within CARD_LASTS."""
        seen_at = self._noted().get("seen_at")
        return isinstance(seen_at, float) and self._now.timestamp() - seen_at < CARD_LASTS.total_seconds()

    def is_current(self, day: date) -> bool:
        """Return whether there is an export, and no hour of the day has settled since."""
        hours = [day_start(day) + n * HOUR for n in range(24)]
        return self._card is not None and all(
            settled(hour, HOUR_S, self.made_at) == settled(hour, HOUR_S, self._now) for hour in hours
        )


def has_ended(day: date, now: datetime) -> bool:
    """Return whether a day in Japan has ended and all of its energy has settled."""
    return settled(day_start(day), DAY_S, now)
