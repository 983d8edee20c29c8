"""`aiseg2-pipeline doctor`: one line for each check, and what to do where it fails.

The checks of the bucket are here as well. Reading a store and requests to a server belong in their packages.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd

from aiseg2_pipeline.aiseg2.circuits import clean_name
from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Refused, Unreadable
from aiseg2_pipeline.aiseg2.models import LiveReading
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed
from aiseg2_pipeline.alerts import rules
from aiseg2_pipeline.alerts import send as notify
from aiseg2_pipeline.cli import connect, rooms
from aiseg2_pipeline.frames.readings import live_frame
from aiseg2_pipeline.influxdb.client import TYPE_CONFLICT, InfluxError, InfluxWriter, Tags, Unavailable
from aiseg2_pipeline.influxdb.line_protocol import series_tags
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.settings import InfluxSettings, Settings, environment, unknown_settings
from aiseg2_pipeline.store import Destination, Outbox, Store
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.database import StoreError

OK, HINT, FAILED = "ok  ", "--  ", "FAIL"
OTHER_WRITER_WITHIN = timedelta(minutes=10)
SET_ASIDE_SHOWN = 5
SERIES_WITHIN = timedelta(days=7)
SERIES_SHOWN = 6

# Mark, subject, finding.
Line = tuple[str, str, str]
# Kind, name and unit of a series.
Label = tuple[str, str, str]


def examine(
    settings: Settings, clock: Callable[[], datetime], say: Callable[[str], None], *, alert: bool = False
) -> bool:
    """Pass a line for each check to `say`, and return whether none failed.

    `alert` sends a test message to every service of AISEG2_ALERT_URLS.
    """
    passed = True
    taken: list[LiveReading] = []
    for part in (
        _settings(settings),
        _device(settings, clock, taken),
        _store(settings),
        _influx(settings, clock, taken),
        _alerts(settings, send=alert),
    ):
        for mark, subject, finding in part:
            say(f"{mark} {subject}: {finding}")
            passed = passed and mark != FAILED
    return passed


def _settings(settings: Settings) -> Iterator[Line]:
    yield OK, "settings", f"data directory {settings.data_dir}"
    if settings.demo:
        yield HINT, "settings", "no AISEG2_HOST is set, so this is the demo with a simulated home"
    for name in unknown_settings(environment()):
        yield HINT, "settings", f"{name} is not a setting of this program: see .env.example for the names"
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
        yield from (
            (OK if well else HINT, "rooms", text) for well, text in rooms.findings(client, settings, clock)
        )
        try:
            client.export_token(Deadline(READING_TIMEOUT_S))
            yield (
                OK,
                "SD card",
                "the export page answers; with a card, energy is stored by the half hour instead of the hour",
            )
        except Aiseg2Error:
            yield HINT, "SD card", "the export page cannot be read; readings do not need it"


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
    try:
        with Store.open(settings.store_path) as store:
            store.check()
            last = store.last_time()
    except StoreError as error:
        yield FAILED, "store", str(error)
        return
    yield OK, "store", f"{settings.store_path}, last reading {_shown(last) if last else 'none yet'}"
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


def _influx(settings: Settings, clock: Callable[[], datetime], taken: Sequence[LiveReading]) -> Iterator[Line]:
    influx = settings.influx
    if influx is None:
        yield HINT, "InfluxDB", "none is configured (INFLUXDB_HOST); readings are kept in the store only"
        return
    try:
        writer = connect.writer(influx)
    except InfluxError as error:
        yield FAILED, "InfluxDB", str(error)
        return
    with writer:
        try:
            writer.check()
        except Unavailable as error:
            yield FAILED, "InfluxDB", str(error)
            return
        except InfluxError as error:
            yield FAILED, "token and bucket", str(error)
            return
        yield OK, "InfluxDB", f"answers at {influx.url}"
        yield OK, "token and bucket", f"may write to {influx.bucket}"
        try:
            with connect.stores(settings) as stores:
                yield from _bucket(writer, stores[0], influx, clock(), taken)
                yield from _outbox(stores, connect.destination(influx))
        except (InfluxError, StoreError) as error:
            yield FAILED, "bucket", str(error)


def _bucket(
    writer: InfluxWriter, store: Store, influx: InfluxSettings, now: datetime, taken: Sequence[LiveReading]
) -> Iterator[Line]:
    """Compare the bucket's recent readings and its series with ours."""
    since = now - OTHER_WRITER_WITHIN
    ours = [time.to_pydatetime() for time in store.read(since, now, kinds=["total"])["time"]]
    others = writer.other_writers(since, ours)
    present = None if others is None else writer.power_series(now - SERIES_WITHIN)
    if others is None or present is None:
        yield (
            HINT,
            "other writers",
            "unknown, as are the series: the token may write to the bucket, but not read it",
        )
        return
    if others:
        finding = (
            f"another program wrote {len(others)} readings to {influx.bucket} in the last ten minutes, which doubles every sum: stop that "
            "program, or set INFLUXDB_BUCKET to another bucket"
        )
        yield FAILED, "other writers", finding
    else:
        yield OK, "other writers", "none in the last ten minutes"
    for mark, finding in _series(set(present), *_labels(store, taken)):
        yield mark, "series", finding


def _series(present: set[Tags], labels: set[Label], shared: set[Label]) -> Iterator[tuple[str, str]]:
    """Compare the series in the bucket with those that are written."""
    written = set(map(_tags, labels))
    new, missing, summed = written - present, present - written, set(map(_tags, shared)) & present
    if not written:
        yield HINT, "not compared with the bucket's: there is no reading with circuits"
    elif not present:
        yield (
            OK,
            f"the bucket has no point of `power` of the last {SERIES_WITHIN.days} days; {len(written)} series will be written",
        )
    else:
        if written == present:
            yield OK, f"the {len(written)} series of `power` in the bucket are those that are written"
        if new:
            yield HINT, f"{len(new)} new, which the bucket does not have yet: {_names(new)}"
        if missing:
            yield (
                HINT,
                f"{len(missing)} in the bucket that this program does not write (any more): {_names(missing)}",
            )
        if summed:
            yield (
                HINT,
                f"{len(summed)} of several circuits with one name, which are written as their sum: {_names(summed)}",
            )


def _labels(store: Store, taken: Sequence[LiveReading]) -> tuple[set[Label], set[Label]]:
    """Return the series of `power` that are written, and those of them that sum several devices.

    They are those of the reading that was just taken, else of the last one in the store.
    """
    for reading in taken:
        if reading.circuits is not None:
            devices = [("generation", device.name, "W") for device in reading.flow.generators]
            devices += [("usage", circuit.name, "W") for circuit in reading.circuits]
            # With the devices that report no number now.
            shared = {label for label, count in Counter(devices).items() if count > 1}
            return _labels_of(live_frame(reading)) | set(devices), shared
    last = store.last_time()
    return (_labels_of(store.read(last, last + timedelta(seconds=1))) if last else set()), set()


def _tags(label: Label) -> Tags:
    return frozenset(series_tags(*label).items())


def _labels_of(table: pd.DataFrame) -> set[Label]:
    rows = table[table["kind"].isin(["total", "generation", "usage"])]
    return set(zip(rows["kind"], rows["name"], rows["unit"], strict=True))


def _names(series: Collection[Tags]) -> str:
    """Return the names of the first `SERIES_SHOWN` series."""
    names = sorted(clean_name(_name(dict(tags))) for tags in series)
    more = f" and {len(names) - SERIES_SHOWN} more" if len(names) > SERIES_SHOWN else ""
    return ", ".join(names[:SERIES_SHOWN]) + more


def _name(tags: dict[str, str]) -> str:
    if tags.keys() == {"summary"}:
        return tags["summary"]
    if tags.keys() == {"detail-type", "detail-section"}:
        return f"{tags['detail-section']} ({tags['detail-type']})"
    return " ".join(f"{name}={value}" for name, value in sorted(tags.items())) or "one without tags"


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
            finding = (
                f"{name} did not take the test message: check its address in AISEG2_ALERT_URLS and the network"
            )
            yield FAILED, subject, finding


def _outbox(stores: Sequence[Outbox], destination: Destination) -> Iterator[Line]:
    pending = sum(store.pending_count(destination) for store in stores)
    yield OK, "pending", f"{pending} hours have rows that InfluxDB has not acknowledged yet"
    refused = pd.concat([store.set_aside_rows(destination) for store in stores])
    if len(refused):
        finding = f"InfluxDB refused {len(refused)} rows permanently: correct the reasons below, then run `aiseg2-pipeline resend`"
        if refused["reason"].str.contains(TYPE_CONFLICT).any():
            finding += (
                ". Another program wrote another type of number to this bucket: set INFLUXDB_BUCKET to another one"
            )
        yield FAILED, "refused rows", finding
        shown = refused.head(SET_ASIDE_SHOWN)
        for time, name, reason in zip(shown["time"], shown["name"], shown["reason"], strict=True):
            yield HINT, "refused rows", f"{_shown(time)} {name}: {reason}"


def _shown(time: datetime) -> str:
    return time.astimezone(TOKYO).isoformat(sep=" ", timespec="seconds")
