"""`aiseg2-pipeline doctor`: one line for each thing the pipeline needs, and what to do where it fails."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd

from aiseg2_pipeline import opening
from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Refused, Unreadable
from aiseg2_pipeline.aiseg2.transport import READING_TIMEOUT_S, Deadline, NotServed
from aiseg2_pipeline.influx import InfluxError, InfluxWriter, Unavailable
from aiseg2_pipeline.settings import InfluxSettings, Settings, environment, unknown_settings
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from aiseg2_pipeline.store_file import StoreError

OK, HINT, FAILED = "ok  ", "--  ", "FAIL"
OTHER_WRITER_WITHIN = timedelta(minutes=10)
SET_ASIDE_SHOWN = 5
TOKYO = ZoneInfo("Asia/Tokyo")

# A mark, what was looked at, and what was found.
Line = tuple[str, str, str]


def examine(settings: Settings, clock: Callable[[], datetime], say: Callable[[str], None]) -> bool:
    """Say a line for each thing; return whether nothing failed."""
    passed = True
    for part in (_settings(settings), _device(settings, clock), _store(settings), _influx(settings, clock)):
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


def _device(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Line]:
    with opening.device(settings, clock) as client:
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
        yield from _live(client)
        yield _clock(client.clock_offset_s)
        try:
            client.export_token(Deadline(READING_TIMEOUT_S))
            yield OK, "SD card", "the export page is there; a card in the unit gives half hours instead of hours"
        except Aiseg2Error:
            yield HINT, "SD card", "the export page is not readable; nothing needs it to take readings"


def _live(client: Aiseg2Client) -> Iterator[Line]:
    try:
        reading = client.live()
    except Aiseg2Error as error:
        yield FAILED, "power flow", str(error)
        return
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


def _influx(settings: Settings, clock: Callable[[], datetime]) -> Iterator[Line]:
    influx = settings.influx
    if influx is None:
        yield HINT, "InfluxDB", "none is configured (INFLUXDB_HOST); readings are kept in the store alone"
        return
    try:
        writer = opening.writer(influx)
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
            with Store.open(settings.store_path) as store, EnergyStore.open(settings.energy_path) as energy:
                yield from _other_writers(writer, store, influx, clock())
                yield from _outbox([store, energy], opening.destination(influx))
        except (InfluxError, StoreError) as error:
            yield FAILED, "bucket", str(error)


def _other_writers(writer: InfluxWriter, store: Store, influx: InfluxSettings, now: datetime) -> Iterator[Line]:
    since = now - OTHER_WRITER_WITHIN
    ours = [time.to_pydatetime() for time in store.read(since, now, kinds=["total"])["time"]]
    others = writer.other_writers(since, ours)
    if others is None:
        yield HINT, "other writers", "not known: the token may write, but not read the bucket"
    elif others:
        found = (
            f"somebody else wrote {len(others)} readings to {influx.bucket} in the last ten minutes: stop the old program, or set "
            "INFLUXDB_BUCKET to another bucket, or every sum is doubled"
        )
        yield FAILED, "other writers", found
    else:
        yield OK, "other writers", "none in the last ten minutes"


def _outbox(stores: Sequence[Store], destination: Destination) -> Iterator[Line]:
    pending = sum(store.pending_count(destination) for store in stores)
    yield OK, "pending", f"{pending} hours have rows that InfluxDB has not acknowledged yet"
    refused = pd.concat([store.set_aside_rows(destination) for store in stores])
    if len(refused):
        found = f"{len(refused)} rows were refused by InfluxDB for good; `aiseg2-pipeline resend` tries them again"
        yield FAILED, "refused rows", found
        shown = refused.head(SET_ASIDE_SHOWN)
        for time, name, reason in zip(shown["time"], shown["name"], shown["reason"], strict=True):
            yield HINT, "refused rows", f"{_shown(time)} {name}: {reason}"


def _shown(time: datetime) -> str:
    return time.astimezone(TOKYO).isoformat(sep=" ", timespec="seconds")
