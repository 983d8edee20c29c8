"""What `aiseg2-pipeline run` says at its start: the data directory, what is read and written, the pages' address."""

from collections.abc import Callable

from aiseg2_pipeline.alerts import send
from aiseg2_pipeline.same_site import is_loopback
from aiseg2_pipeline.settings import Settings


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
    host = f"[{settings.ui_host}]" if ":" in settings.ui_host else settings.ui_host
    say(f"Dagster's pages: http://{host}:{settings.ui_port}{settings.ui_path} ({more}).")
    if not is_loopback(settings.ui_host):
        say(
            "Anyone who reaches that address can end and delete runs, because the pages have no login (AISEG2_UI_HOST)."
        )
