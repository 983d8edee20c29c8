"""`aiseg2-pipeline doctor`: one line for each check, and what to do where it fails.

The lines on InfluxDB are in `bucket`. Reading a store and requests to a server belong in their packages.
"""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path

from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, EXPORT_TIMEOUT_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Refused, Unreadable
from aiseg2_pipeline.aiseg2.models import LiveReading, Room
from aiseg2_pipeline.aiseg2.sd_card import Export
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed
from aiseg2_pipeline.alerts import rules
from aiseg2_pipeline.alerts import send as notify
from aiseg2_pipeline.cli import bucket, connect
from aiseg2_pipeline.cli.output import FAILED, HINT, OK, Line, checks, japan_time
from aiseg2_pipeline.ingest.climate import Sensors, read_climate
from aiseg2_pipeline.runtime import health
from aiseg2_pipeline.settings import Settings, SettingsError, environment, load_settings, unknown_settings
from aiseg2_pipeline.store import Store, incidents
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.database import StoreError


def examine(clock: Callable[[], datetime], say: Callable[[str], None], *, alert: bool = False) -> bool:
    """Pass a line for each check to `say`, and return whether none failed.

    `alert` sends a test message to every service of AISEG2_ALERT_URLS.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        return checks(_wrong_settings(error), say)
    taken: list[LiveReading] = []
    with connect.without_trace(settings) as looked:
        lines = chain(
            _settings(settings),
            _device(looked, clock, taken),
            _store(settings),
            _pipeline(settings, clock()),
            bucket.influxdb(looked, clock, taken),
            _alerts(settings, send=alert),
        )
        return checks(lines, say)


def _wrong_settings(error: SettingsError) -> Iterator[Line]:
    for problem in error.problems:
        yield FAILED, "settings", problem
    with contextlib.suppress(SettingsError):
        yield from _misspelt()
    yield HINT, "settings", "nothing else can be checked before the settings are right"


def _misspelt() -> Iterator[Line]:
    for name in unknown_settings(environment()):
        yield HINT, "settings", f"{name} is not a setting of this program: see .env.example for the names"


def _settings(settings: Settings) -> Iterator[Line]:
    yield OK, "settings", f"data directory {settings.data_dir}"
    if settings.demo:
        yield HINT, "settings", "no AISEG2_HOST is set, so this is the demo with a simulated home"
    yield from _misspelt()
    if _others_may_read(Path(".env")):
        yield HINT, "settings", "others on this machine can read .env, which holds passwords: run chmod 600 .env"
    kept = [path for _, path in connect.store_files(settings)] + [settings.device_state_dir, settings.dagster_home]
    if _others_may_read(settings.data_dir) and any(map(_others_may_read, kept)):
        folder = shlex.quote(str(settings.data_dir))
        yield HINT, "settings", f"others on this machine can read the data directory: run chmod -R go= {folder}"


def _others_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _device(settings: Settings, clock: Callable[[], datetime], taken: list[LiveReading]) -> Iterator[Line]:
    """Check the device, and append its reading to `taken`."""
    with connect.device(settings, clock) as client:
        try:
            listed = client.circuit_list(Deadline(READING_TIMEOUT_S))
        except (Refused, NotServed, Unreadable) as error:
            refused = isinstance(error, Refused)
            yield OK, "device", f"answers at {settings.device_url}"
            yield FAILED, "login" if refused else "circuit list", str(error)
            # The other pages show whether an AiSEG2 answers.
            if refused:
                return
        except Aiseg2Error as error:
            hint = " In the demo, start it with `make run` or `aiseg2-pipeline simulate`." if settings.demo else ""
            yield FAILED, "device", f"{error}{hint}"
            return
        else:
            yield OK, "device", f"answers at {settings.device_url}"
            yield OK, "login", f"as {settings.device_user}"
            yield OK, "circuit list", f"{len(listed.circuits)} circuits are registered"
        yield from _live(client, taken)
        yield _clock(client.clock_offset_s)
        yield from _rooms(client, settings, clock)
    yield _card(settings, clock)


def _rooms(client: Aiseg2Client, settings: Settings, clock: Callable[[], datetime]) -> Iterator[Line]:
    """Read the rooms' sensors, which most homes do not have."""
    try:
        reading = read_climate(client, Sensors(settings.device_state_dir, settings.device_url), clock)
    except NoData as error:
        yield OK, "rooms", str(error)
    except Aiseg2Error as error:
        yield HINT, "rooms", f"unknown, and not needed for other readings. {error}"
    else:
        yield OK, "rooms", ", ".join(map(_room, reading.rooms))
        for problem in reading.problems:
            yield HINT, "rooms", problem


def _room(room: Room) -> str:
    values = ((room.temperature_c, "℃"), (room.humidity_percent, "%"))
    return " ".join([room.name, *(f"{value:g} {unit}" for value, unit in values if value is not None)])


def _card(settings: Settings, clock: Callable[[], datetime]) -> Line:
    """Export the card, as the device shows in no other way whether it has one."""
    # In the background's slot: an export can take as long as a minute's readings.
    with tempfile.TemporaryDirectory() as folder, connect.device(settings, clock, "background") as client:
        target = Path(folder, "export.zip")
        try:
            made_at = client.download_export(target, Deadline(EXPORT_TIMEOUT_S))
            with Export(target, made_at=made_at) as export:
                newest = max(export.days(), default="none yet")
        except NoData:
            return OK, "SD card", "there is none, or it is not ready: energy is kept by the hour"
        except Aiseg2Error as error:
            return HINT, "SD card", f"unknown, and not needed for readings. {error}"
    return OK, "SD card", f"there is one, the newest day on it is {newest}: energy is kept by the half hour"


def _live(client: Aiseg2Client, taken: list[LiveReading]) -> Iterator[Line]:
    try:
        reading = client.live()
    except Aiseg2Error as error:
        yield FAILED, "power flow", str(error)
        return
    taken.append(reading)
    flow = reading.flow
    generation = "no generating device" if not flow.generators else f"generation {_kw(flow.generation_kw)}"
    yield OK, "power flow", f"{generation}, consumption {_kw(flow.consumption_kw)}"
    if reading.circuits is None:
        yield FAILED, "circuits", str(reading.circuits_error)
    else:
        total_w = sum(row.power_w or 0 for row in reading.circuits)
        yield OK, "circuits", f"{len(reading.circuits)} circuits, {total_w:.0f} W in all"
    if reading.battery_flow_error is not None:
        yield HINT, "battery", str(reading.battery_flow_error)


def _kw(value_kw: float | None) -> str:
    return "unknown" if value_kw is None else f"{value_kw:g} kW"


def _clock(offset_s: float | None) -> Line:
    if offset_s is None:
        return HINT, "clock", "no page shows the device's time"
    direction = "ahead of" if offset_s > 0 else "behind"
    finding = f"the device's clock is {abs(offset_s):.0f} s {direction} this machine's"
    if abs(offset_s) <= CLOCKS_AGREE_S:
        return OK, "clock", finding
    return FAILED, "clock", f"{finding}: set the AiSEG2's clock in its settings, and NTP on this machine"


def _store(settings: Settings) -> Iterator[Line]:
    if not settings.store_path.exists():
        yield _new_store(settings.data_dir)
        return
    try:
        with Store.open(settings.store_path) as store:
            store.check()
            last = store.last_time()
    except StoreError as error:
        yield FAILED, "store", str(error)
        return
    yield OK, "store", f"{settings.store_path}, last reading {japan_time(last) if last else 'none yet'}"
    for kind, path in connect.store_files(settings):
        try:
            with kind.open(path) as store:
                store.check_integrity()
        except StoreError as error:
            yield FAILED, "store", str(error)
        for damaged in damaged_files(path):
            if damaged.salvaged is None:
                finding = f"{damaged.path} is a damaged store ({damaged.reason}): run `aiseg2-pipeline salvage`, or let the pipeline run for some minutes"
                yield FAILED, "damaged store", finding
            else:
                yield HINT, "damaged store", f"{damaged.path} is kept and may be deleted. {damaged.salvaged}"


def _new_store(folder: Path) -> Line:
    """Check that the first run can create the data directory and its files, without creating them."""
    present = next(path for path in (folder, *folder.parents) if path.exists())
    if present.is_dir() and os.access(present, os.W_OK | os.X_OK):
        return OK, "store", f"{folder}, last reading none yet"
    return (
        FAILED,
        "store",
        f"{folder} cannot be written: let this user write to {present}, or set AISEG2_DATA_DIR to another folder.",
    )


def _pipeline(settings: Settings, now: datetime) -> Iterator[Line]:
    """Check the processes where they run, and that they take readings."""
    if not health.is_listening(settings.code_server_socket):
        yield HINT, "pipeline", "it does not run on this data directory: `aiseg2-pipeline run` starts it"
        return
    problems = health.problems(settings, now) or [one for one in [health.damaged(settings)] if one]
    for problem in problems:
        yield FAILED, "pipeline", problem
    if problems:
        return
    yield OK, "pipeline", "the code server answers, and the daemon works"
    if not health.read_lately(settings, now):
        trouble = incidents.read(settings.data_dir, incidents.DEVICE)
        reason = trouble.sentence if trouble else "The newest runs in Dagster's pages show why."
        minutes = settings.alert_after_minutes
        yield FAILED, "readings", f"none for {minutes} minutes or more, though runs are started: {reason}"


def _alerts(settings: Settings, *, send: bool) -> Iterator[Line]:
    if settings.alert_urls is None:
        if send:
            yield (
                FAILED,
                "alerts",
                "AISEG2_ALERT_URLS is not set: set it to your services' addresses, see docs/alerts.md",
            )
        return
    if not notify.installed():
        yield FAILED, "alerts", notify.MISSING_EXTRA
        return
    for number, address in enumerate(notify.split(settings.alert_urls.get_secret_value()), 1):
        subject, name = f"alerts {number}", notify.service(address)
        if name is None:
            yield FAILED, subject, "no address that Apprise understands: correct it in AISEG2_ALERT_URLS"
        elif not send:
            yield OK, subject, f"{name}; `aiseg2-pipeline doctor --alert` sends a test"
        elif notify.send(address, rules.TEST.title, rules.TEST.body):
            yield OK, subject, f"{name} took the test message"
        else:
            finding = f"{name} did not take the test message: check its address in AISEG2_ALERT_URLS, and that this machine reaches the service"
            yield FAILED, subject, finding
