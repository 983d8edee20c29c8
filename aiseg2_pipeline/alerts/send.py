"""Sends a message to a service: apprise's matter, which is imported only then (the extra `alerts`).

The addresses hold tokens and passwords. So none is ever shown, a service is named by what it is and its place in
AISEG2_ALERT_URLS, and apprise's own log, which repeats parts of them, is silenced.
"""

import importlib.util
import logging
import re

# As apprise tells one address from the next.
_ADDRESS = re.compile(r"[a-z0-9]+?://.*?(?=$|[\s,;]{1,32}[a-z0-9]{1,32}?://)", re.IGNORECASE)
MISSING_EXTRA = (
    "AISEG2_ALERT_URLS is set, but the extra is not installed, so no message is sent: run pip install "
    "'aiseg2-pipeline[alerts]' (in a clone: pip install '.[alerts]'), or remove the setting."
)


def split(addresses: str) -> list[str]:
    """Return the addresses that are separated by spaces or commas, as apprise does."""
    return _ADDRESS.findall(addresses.strip())


def installed() -> bool:
    """Return whether there is an apprise; MISSING_EXTRA says what to do where there is none."""
    return importlib.util.find_spec("apprise") is not None


def service(address: str) -> str | None:
    """Return the name of the service, such as Slack; None for an address that apprise does not understand."""
    import apprise  # noqa: PLC0415 - it takes longer to import than all else that looks whether there is something to tell

    _silence()
    try:
        services = apprise.Apprise()
        services.add(address)
        return next((str(one.service_name) for one in services), None)
    except Exception:  # noqa: BLE001 - as in `send`
        return None


def send(address: str, title: str, body: str) -> bool:
    """Send plain text; return whether the service took it. Nothing that goes wrong is raised."""
    import apprise  # noqa: PLC0415 - as above

    _silence()
    try:
        services = apprise.Apprise()
        # As text, so that a service that shows HTML gets what a name of the device holds escaped.
        return services.add(address) and bool(
            services.notify(body=body, title=title, body_format=apprise.NotifyFormat.TEXT)
        )
    except Exception:  # noqa: BLE001 - more than a hundred services, each with errors of its own that may repeat the address
        return False


def _silence() -> None:
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
