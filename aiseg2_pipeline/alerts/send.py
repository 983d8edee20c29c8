"""Sends a message to a service through apprise, which is imported on first use (the extra `alerts`).

The addresses contain tokens and passwords. So none is ever shown: a service is named by its type and its position in
AISEG2_ALERT_URLS, and apprise's own log, which repeats parts of the addresses, is silenced.
"""

import importlib.util
import logging
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import apprise

# Apprise's own separators between addresses.
_ADDRESS = re.compile(r"[a-z0-9]+?://.*?(?=$|[\s,;]{1,32}[a-z0-9]{1,32}?://)", re.IGNORECASE)
MISSING_EXTRA = (
    "AISEG2_ALERT_URLS is set, but its extra is not installed, so no message is sent: start with "
    "`make run EXTRAS=alerts` (pipx and uv: see docs/installation.md), or remove the setting."
)


def split(addresses: str) -> list[str]:
    """Split addresses at spaces and commas as apprise does."""
    return _ADDRESS.findall(addresses.strip())


def installed() -> bool:
    """Return whether apprise is installed; if not, MISSING_EXTRA says what to do."""
    return importlib.util.find_spec("apprise") is not None


def service(address: str) -> str | None:
    """Return the name of the service, such as Slack; None if apprise does not accept the address."""
    try:
        return next((str(one.service_name) for one in _services(address)), None)
    except Exception:  # noqa: BLE001 - as in `send`
        return None


def send(address: str, title: str, body: str) -> bool:
    """Send plain text; return whether the service accepted it. Errors are not raised."""
    try:
        # As text, so that device names are escaped for a service that shows HTML.
        return bool(_services(address).notify(body=body, title=title, body_format="text"))
    except Exception:  # noqa: BLE001 - each of a hundred services has its own errors, which may repeat the address
        return False


def _services(address: str) -> "apprise.Apprise":
    """Return the service of an address; none if apprise does not accept it."""
    import apprise  # noqa: PLC0415 - slow to import, and mostly no message is due

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    services = apprise.Apprise()
    services.add(address)
    return services
