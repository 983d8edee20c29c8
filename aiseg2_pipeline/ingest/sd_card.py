"""The SD card: its export is fetched at most once an hour, and whether the device has a card is remembered.

How the files are read belongs in `aiseg2/sd_card`, what is stored of them in `energy`.
"""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from aiseg2_pipeline.aiseg2.client import EXPORT_TIMEOUT_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.transport import Deadline, load_state, save_state
from aiseg2_pipeline.frames.energy import DAY_S, HOUR_S
from aiseg2_pipeline.ingest.energy_rows import settled
from aiseg2_pipeline.japan_time import HOUR, day_start

EXPORT_LASTS = timedelta(hours=1)
ASK_AGAIN = timedelta(days=1)
# Some homes have it asked for once a night only.
CARD_LASTS = timedelta(days=3)


class SdCard:
    """The card of one device, for one run; `now` is the host's time (UTC), `folder` keeps the export."""

    def __init__(self, client: Aiseg2Client, folder: Path, now: datetime) -> None:
        """Ask for nothing yet."""
        self._client = client
        self._now = now
        self._zip = folder / "export.zip"
        self._state_path = folder / "export.json"
        self._device = client.transport.base_url
        self._looked_for_card = self._asked_anew = False
        self._card: Export | None = None
        self.made_at = now

    def export(self, day: date, problems: list[str]) -> Export | None:
        """Return the card's export, at most an hour old; None without a card, which is asked for again after a day."""
        if not self._looked_for_card:
            self._looked_for_card = True
            self._look_for_card(problems)
        # A day that has ended is not asked for again: an export of before its end would leave it without the card's rows.
        if self._card is not None and has_ended(day, self._now) and not (self.is_current(day) or self._asked_anew):
            self._asked_anew = True
            self._look_for_card(problems, anew=True)
        return self._card

    def _look_for_card(self, problems: list[str], *, anew: bool = False) -> None:
        try:
            if made_at := self._exported_at(anew=anew):
                card = Export(self._zip, made_at=made_at)
                self.close()
                self._card, self.made_at = card, made_at
        except (Aiseg2Error, OSError) as error:
            # The card may be there, so it is tried again, but not at once: it is slow for the device.
            self._note_export(self._now, EXPORT_LASTS, has_export=False)
            problems.append(f"The card's export could not be read. {error}")

    def close(self) -> None:
        """Close the export."""
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
            if self.was_there():
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

    def was_there(self) -> bool:
        """Return whether there was a card lately."""
        seen_at = self._noted().get("seen_at")
        return isinstance(seen_at, float) and self._now.timestamp() - seen_at < CARD_LASTS.total_seconds()

    def is_current(self, day: date) -> bool:
        """Return whether there is an export that no hour of the day has settled after."""
        hours = [day_start(day) + n * HOUR for n in range(24)]
        return self._card is not None and all(
            settled(hour, HOUR_S, self.made_at) == settled(hour, HOUR_S, self._now) for hour in hours
        )


def has_ended(day: date, now: datetime) -> bool:
    """Return whether a day in Japan has ended and the device knows all of it."""
    return settled(day_start(day), DAY_S, now)
