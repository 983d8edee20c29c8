"""What `aiseg2-pipeline run` says at its start: the page's address, the data directory, what is read and written."""

import socket
from collections.abc import Callable
from pathlib import Path

from aiseg2_pipeline.alerts import send
from aiseg2_pipeline.same_site import is_loopback
from aiseg2_pipeline.settings import Settings

# Files that Docker and Podman create in a container.
_IN_CONTAINER = (Path("/.dockerenv"), Path("/run/.containerenv"))
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared, not opened
# An address that nobody has: no packet is sent, only the own address on the way there is found.
_NOBODY = ("192.0.2.1", 9)


def say_page(settings: Settings, say: Callable[[str], None]) -> None:
    """Say where the household's page is, also for a phone, and who can see it."""
    if not settings.page:
        return
    host, port = settings.page_host, settings.page_port
    if any(path.exists() for path in _IN_CONTAINER):
        say(
            f"Your home's page: http://127.0.0.1:{port}, or the address and port that docker-compose.yml publishes."
        )
        return
    own = "127.0.0.1" if host in _EVERY_ADDRESS else host
    address = f"Your home's page: {_url(own, port)}"
    if is_loopback(host):
        say(f"{address} (AISEG2_PAGE_HOST=0.0.0.0 shows it to the phones in your network).")
        return
    phone = _own_address() if host in _EVERY_ADDRESS else host
    say(f"{address}, on a phone {_url(phone, port) if phone else f'port {port} of this machine'}.")
    if settings.page_password is None:
        say("Everyone in your network can look at it: AISEG2_PAGE_PASSWORD asks for a login.")


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_NOBODY)
        except OSError:
            return None
        return str(probe.getsockname()[0])


def say_settings(settings: Settings, say: Callable[[str], None]) -> None:
    """Say which settings the services run with."""
    say(f"Readings and run history: {settings.data_dir}")
    if not settings.store_path.exists():
        say(
            "There is no reading in that folder, so a new record begins there. If it had one before, is its disk mounted?"
        )
    if settings.demo:
        say("DEMO: no AISEG2_HOST is set, so a simulated home is read. Its readings stay in the folder above.")
    else:
        say(f"Reading the AiSEG2 at {settings.device_url} every minute.")
    if settings.influx:
        say(f"Writing to InfluxDB at {settings.influx.url}, bucket {settings.influx.bucket}.")
    else:
        say("No InfluxDB is configured (INFLUXDB_HOST): readings are stored only here.")
    if settings.alert_urls and not send.installed():
        say(send.MISSING_EXTRA)


def say_address(settings: Settings, more: str, say: Callable[[str], None]) -> None:
    """Say where Dagster's pages are served, and warn where others can reach them."""
    say(f"Dagster's pages: {_url(settings.ui_host, settings.ui_port)}{settings.ui_path} ({more}).")
    if not is_loopback(settings.ui_host):
        say(
            "Anyone who reaches that address can end and delete runs, because the pages have no login (AISEG2_UI_HOST)."
        )
