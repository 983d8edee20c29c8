"""What an answer of the server says: its message, and when to try again. The errors belong in `client`."""

import json
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from influxdb_client.rest import ApiException

REASON_CHARS = 300


def server_message(error: ApiException) -> str | None:
    """Return the message of InfluxDB's answer (`error` in InfluxDB 1.8, which is not tested); None for another program's."""
    try:
        answer = json.loads(error.body or "")
    except (ValueError, RecursionError):
        return None
    message = (answer.get("message") or answer.get("error")) if isinstance(answer, dict) else None
    return message if isinstance(message, str) else None


def retry_after_s(error: ApiException) -> float | None:
    """Return the seconds of `Retry-After`; None if there are none."""
    value = str(error.retry_after or "").strip()
    if re.fullmatch("[0-9]{1,9}", value):
        return float(value)
    try:
        # A date, relative to the server's own clock.
        headers: Mapping[str, str] = error.headers or {}
        until = parsedate_to_datetime(value) - parsedate_to_datetime(headers["Date"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return max(0.0, until.total_seconds())


def shortened(message: str) -> str:
    """Return a message in one line of printable characters."""
    text = " ".join("".join(char if char.isprintable() else " " for char in message).split())
    return text if len(text) <= REASON_CHARS else f"{text[: REASON_CHARS - 1]}…"
