"""`aiseg2-pipeline doctor`: one line for each thing the pipeline needs, and what to do where it fails."""

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
from aiseg2_pipeline.cli import connect
from aiseg2_pipeline.frames.readings import live_frame
from aiseg2_pipeline.influxdb.client import InfluxError, InfluxWriter, Tags, Unavailable
from aiseg2_pipeline.influxdb.line_protocol import series_tags
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.settings import InfluxSettings, Settings, environment, unknown_settings
from aiseg2_pipeline.store import ClimateStore, Destination, EnergyStore, Store
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.database import StoreError

OK, HINT, FAILED = "ok  ", "--  ", "FAIL"
OTHER_WRITER_WITHIN = timedelta(minutes=10)
SET_ASIDE_SHOWN = 5
SERIES_WITHIN = timedelta(days=7)
SERIES_SHOWN = 6

# A mark, what was looked at, and what was found.
Line = tuple[str, str, str]


def examine(
    settings: Settings, clock: Callable[[], datetime], say: Callable[[str], None], *, alert: bool = False
) -> bool:
    """Say a line for each thing; return whether nothing failed. `alert` sends a test message to every service."""
    passed = True
    taken: list[LiveReading] = []
    for part in (
        _settings(settings),
        _device(settings, clock, taken),
        _store(settings),
        _influx(settings, clock, taken),
        _alerts(settings, send=alert),
    ):
        for mark, what, found in part:
            say(f"{mark} {what}: {found}")
            passed = passed and mark != FAILED
    return passed


def _settings(settings: Settings) -> Iterator[Line]:
    yield OK, "settings", f"data directory {settings.data_dir}"
    if settings.demo:
        yield HINT, "settings", "no AISEG2_HOST is set, so this is the demo with a simulated home"
    for name in unknown_settings(environment()):
        yield HINT, "settings", f"{name} is no setting of this program: see .env.example for its name"
    if _others_may_read(Path(".env")):
        yield HINT, "settings", "others on this machine can read .env, which holds passwords: run chmod 600 .env"
    kept = (
        settings.store_path,
        settings.energy_path,
        settings.climate_path,
        settings.device_state_dir,
        settings.dagster_home,
    )
    if _others_may_read(settings.data_dir) and any(map(_others_may_read, kept)):
        found = (
            f"others on this machine can read what is kept: run chmod -R go= {shlex.quote(str(settings.data_dir))}"
        )
        yield HINT, "settings", found


def _others_may_read(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def _device(settings: Settings, clock: Callable[[], datetime], taken: list[LiveReading]) -> Iterator[Line]:
    """Look at the device; the reading that it gives is added to `taken`."""
    with connect.device(settings, clock) as client:
        try:
            listed = client.circuit_list(Deadline(READING_TIMEOUT_S))
        except Refused as error:
            yield OK, "device", f"answers at {settings.device_url}"
            yield FAILED, "login", str(error)
            return
        except (NotServed, Unreadable) as error:
            # Something answers; whether it is an AiSEG2, its other pages show.
            yield OK, "device", f"answers at {settings.device_url}"
            yield FAILED, "circuit list", str(error)
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
        try:
            client.export_token(Deadline(READING_TIMEOUT_S))
            yield OK, "SD card", "the export page is there; a card in the unit gives half hours instead of hours"
        except Aiseg2Error:
            yield HINT, "SD card", "the export page is not readable; nothing needs it to take readings"


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


def _kw(value_kw: float | None) -> str:
    return "not told" if value_kw is None else f"{value_kw:g} kW"


def _clock(offset_s: float | None) -> Line:
    if offset_s is None:
        return HINT, "clock", "no page told the device's time"
    found = (
        f"the device's clock is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"
    )
    if abs(offset_s) <= CLOCKS_AGREE_S:
        return OK, "clock", found
    return FAILED, "clock", f"{found}: set the AiSEG2's clock in its settings, and NTP on this machine"


def _store(settings: Settings) -> Iterator[Line]:
    try:
        with Store.open(settings.store_path) as store:
            store.check()
            last = store.last_time()
    except StoreError as error:
        yield FAILED, "store", str(error)
        return
    yield OK, "store", f"{settings.store_path}, last reading {_shown(last) if last else 'none yet'}"
    for kind, path in connect.stores(settings):
        try:
            with kind.open(path) as store:
                store.look_over()
        except StoreError as error:
            yield FAILED, "store", str(error)
        for damaged in damaged_files(path):
            if damaged.salvaged is None:
                found = f"{damaged.path} is a damaged store ({damaged.reason}): run `aiseg2-pipeline salvage`, or wait some minutes while the pipeline runs"
                yield FAILED, "damaged store", found
            else:
                found = f"{damaged.path} is kept and may be deleted. {damaged.salvaged}"
                yield HINT, "damaged store", found


def _influx(settings: Settings, clock: Callable[[], datetime], taken: Sequence[LiveReading]) -> Iterator[Line]:
    influx = settings.influx
    if influx is None:
        yield HINT, "InfluxDB", "none is configured (INFLUXDB_HOST); readings are kept in the store alone"
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
            with (
                Store.open(settings.store_path) as store,
                EnergyStore.open(settings.energy_path) as energy,
                ClimateStore.open(settings.climate_path) as climate,
            ):
                yield from _bucket(writer, store, influx, clock(), taken)
                yield from _outbox([store, energy, climate], connect.destination(influx))
        except (InfluxError, StoreError) as error:
            yield FAILED, "bucket", str(error)


def _bucket(
    writer: InfluxWriter, store: Store, influx: InfluxSettings, now: datetime, taken: Sequence[LiveReading]
) -> Iterator[Line]:
    since = now - OTHER_WRITER_WITHIN
    ours = [time.to_pydatetime() for time in store.read(since, now, kinds=["total"])["time"]]
    others = writer.other_writers(since, ours)
    there = None if others is None else writer.power_series(now - SERIES_WITHIN)
    if others is None or there is None:
        yield (
            HINT,
            "other writers",
            "not known, and neither are its series: the token may write, but not read the bucket",
        )
        return
    yield from _other_writers(others, influx)
    yield from _series(there, store, taken)


def _other_writers(others: Sequence[datetime], influx: InfluxSettings) -> Iterator[Line]:
    if others:
        found = (
            f"somebody else wrote {len(others)} readings to {influx.bucket} in the last ten minutes: stop the old program, or set "
            "INFLUXDB_BUCKET to another bucket, or every sum is doubled"
        )
        yield FAILED, "other writers", found
    else:
        yield OK, "other writers", "none in the last ten minutes"


def _series(there: Collection[Tags], store: Store, taken: Sequence[LiveReading]) -> Iterator[Line]:
    """Compare the series that are in the bucket with those of a reading now, or else of the last one in the store."""
    labels, shared = _labels(store, taken)
    if not labels:
        yield (
            HINT,
            "series",
            "not compared with the bucket's: there is no reading with circuits to compare them with",
        )
        return
    ours = {_tags(label) for label in labels}
    if not there:
        found = f"the bucket has no point of `power` of the last {SERIES_WITHIN.days} days; {len(ours)} series will be in it"
        yield OK, "series", found
        return
    added = shared & set(there)
    new, missing = ours - set(there), set(there) - ours
    if not new and not missing:
        yield OK, "series", f"the {len(ours)} series of `power` in the bucket are those that are written"
    if new:
        yield HINT, "series", f"{len(new)} new, which the bucket does not have yet: {_names(new)}"
    if missing:
        found = (
            f"{len(missing)} in the bucket that are not written (any more, or by this program): {_names(missing)}"
        )
        yield HINT, "series", found
    if added:
        found = f"{len(added)} of several circuits with one name, which rise from the last of them to their sum: {_names(added)}"
        yield HINT, "series", found


def _labels(store: Store, taken: Sequence[LiveReading]) -> tuple[set[tuple[str, str, str]], set[Tags]]:
    """Return kind, name and unit of every series that is written to `power`, and the series that add several devices up."""
    for reading in taken:
        if reading.circuits is not None:
            devices = [("generation", device.name, "W") for device in reading.flow.generators]
            devices += [("usage", circuit.name, "W") for circuit in reading.circuits]
            counted = Counter(devices)
            # Also those that tell no number just now.
            return _of_power(live_frame(reading)) | set(devices), {
                _tags(one) for one in counted if counted[one] > 1
            }
    last = store.last_time()
    return (_of_power(store.read(last, last + timedelta(seconds=1))) if last else set()), set()


def _tags(label: tuple[str, str, str]) -> Tags:
    return frozenset(series_tags(*label).items())


def _of_power(table: pd.DataFrame) -> set[tuple[str, str, str]]:
    rows = table[table["kind"] != "battery"]
    return set(zip(rows["kind"], rows["name"], rows["unit"], strict=True))


def _names(series: Collection[Tags]) -> str:
    """Return the names of some series, at most as many as one reads."""
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
                "AISEG2_ALERT_URLS is not set: set it to the addresses of your services, see the README",
            )
        return
    if not notify.installed():
        yield FAILED, "alerts", notify.MISSING_EXTRA
        return
    for number, address in enumerate(notify.split(settings.alert_urls.get_secret_value()), 1):
        name = notify.service(address)
        if name is None:
            yield (
                FAILED,
                f"alerts {number}",
                "no address that Apprise understands: correct it in AISEG2_ALERT_URLS",
            )
        elif not send:
            yield OK, f"alerts {number}", f"{name}; `aiseg2-pipeline doctor --alert` sends a test"
        elif notify.send(address, rules.TEST.title, rules.TEST.body):
            yield OK, f"alerts {number}", f"{name} took the test message"
        else:
            found = f"{name} did not take the test message: see that its address in AISEG2_ALERT_URLS is right and the network is there"
            yield FAILED, f"alerts {number}", found


def _outbox(stores: Sequence[Store], destination: Destination) -> Iterator[Line]:
    pending = sum(store.pending_count(destination) for store in stores)
    yield OK, "pending", f"{pending} hours have rows that InfluxDB has not acknowledged yet"
    refused = pd.concat([store.set_aside_rows(destination) for store in stores])
    if len(refused):
        found = f"{len(refused)} rows were refused by InfluxDB for good: see the reasons below, and when they are gone, run `aiseg2-pipeline resend`"
        yield FAILED, "refused rows", found
        shown = refused.head(SET_ASIDE_SHOWN)
        for time, name, reason in zip(shown["time"], shown["name"], shown["reason"], strict=True):
            yield HINT, "refused rows", f"{_shown(time)} {name}: {reason}"


def _shown(time: datetime) -> str:
    return time.astimezone(TOKYO).isoformat(sep=" ", timespec="seconds")
