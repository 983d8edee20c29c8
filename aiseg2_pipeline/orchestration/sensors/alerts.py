"""The sensor that sends messages to the household: it collects the facts, and sends what `alerts/rules` finds due.

An evaluation takes a few small reads of files, and no run or query of Dagster. The cursor stores the last message of each
service, so that a restart repeats none; services go by their place in AISEG2_ALERT_URLS, whose addresses are secret.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

from dagster import DefaultSensorStatus, SensorDefinition, SensorEvaluationContext, SkipReason, sensor
from pydantic import BaseModel, ValidationError

from aiseg2_pipeline.alerts import send
from aiseg2_pipeline.alerts.rules import Condition, Due, Facts, Verdicts, due, judge
from aiseg2_pipeline.gaps.past import Record
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.logs import log_line, log_warning
from aiseg2_pipeline.orchestration.checks import recent_hours
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import FILES
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store, incidents
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.database import StoreError

INTERVAL_S = 60
# After a longer pause between two evaluations, it is not known whether there were readings.
ASLEEP = timedelta(minutes=5)
TRY_AGAIN = timedelta(minutes=5)
# Dagster ends an evaluation after a minute; a service that hangs can take fifteen seconds of it.
SEND_S = 30.0
# Messages on incomplete hours wait until the morning.
HOURS_CHECKED_FROM = 9


class Service(BaseModel):
    """The conditions that a service got a message on and that still hold; after a failure, when to try again."""

    told: dict[Condition, str] = {}
    retry_at: datetime | None = None

    def sent(self, message: Due) -> None:
        """Store that the service accepted a message."""
        self.retry_at = None
        if message.mark is None:
            del self.told[message.condition]
        else:
            self.told[message.condition] = message.mark


class State(BaseModel):
    """The cursor between two evaluations."""

    watching_since: datetime
    seen_at: datetime
    last_reading: datetime | None = None
    hours_seen_on: date | None = None
    services: list[Service] = []


def alert_sensor(settings: Settings, record: Record, clock: Callable[[], datetime]) -> SensorDefinition | None:
    """Return the sensor; None if AISEG2_ALERT_URLS is not set."""
    if settings.alert_urls is None:
        return None
    addresses = send.split(settings.alert_urls.get_secret_value())
    after = timedelta(minutes=settings.alert_after_minutes)

    @sensor(
        name="tell_the_household",
        minimum_interval_seconds=INTERVAL_S,
        default_status=DefaultSensorStatus.RUNNING,
        description="Sends a message (AISEG2_ALERT_URLS) when readings stop, the login is refused, InfluxDB takes nothing for an hour, the disk "
        "is nearly full, or an hour could not be completed; and one when that is over.",
    )
    def tell(context: SensorEvaluationContext) -> SkipReason:
        if not send.installed():
            return SkipReason(send.MISSING_EXTRA)
        now = clock()
        state = _restored(context.cursor, len(addresses), now)
        if settings.influx is None:
            # It was removed from the settings: the trouble is not over, but no message is due.
            incidents.clear(settings.data_dir, incidents.INFLUXDB)
            for service in state.services:
                service.told.pop(Condition.INFLUXDB, None)
        morning = now.astimezone(TOKYO)
        with_hours = morning.hour >= HOURS_CHECKED_FROM and state.hours_seen_on != morning.date()
        facts = _facts(settings, record, state, now, with_hours=with_hours)
        sent, unsent = _send(addresses, state, judge(facts, after), now, "【デモ】" if settings.simulated else "")
        if with_hours and not unsent:
            state.hours_seen_on = morning.date()
        state.last_reading = facts.last_reading
        context.update_cursor(state.model_dump_json(exclude_defaults=True))
        if not sent and not unsent:
            return SkipReason("No message is due.")
        return SkipReason(f"{sent} messages were sent, {unsent} are pending.")

    return tell


def _restored(cursor: str | None, services: int, now: datetime) -> State:
    state = State(watching_since=now, seen_at=now)
    with contextlib.suppress(ValidationError):
        state = State.model_validate_json(cursor or "")
    if not timedelta(0) <= now - state.seen_at <= ASLEEP:
        state.watching_since = now
    state.seen_at = now
    state.services = [*state.services, *(Service() for _ in range(services))][:services]
    return state


def _facts(settings: Settings, record: Record, state: State, now: datetime, *, with_hours: bool) -> Facts:
    folder = settings.data_dir
    last_reading, store_error, hours = state.last_reading, None, None
    try:
        with Store.open(settings.store_path, log_warning) as store:
            last_reading = _last_reading(store, now)
            hours = recent_hours(store, record, now) if with_hours else None
    except StoreError as error:
        store_error = str(error)
    free_bytes, damaged, history = None, [], []
    # After opening the store, which may detect the damage.
    with contextlib.suppress(OSError):
        paths = (settings.store_path, settings.energy_path, settings.climate_path)
        damaged = [one for path in paths for one in damaged_files(path)]
        history = [one for name in FILES for one in damaged_files(settings.dagster_home / name)]
    with contextlib.suppress(OSError):
        free_bytes = shutil.disk_usage(folder).free
    return Facts(
        now=now,
        watching_since=state.watching_since,
        last_reading=last_reading,
        device=incidents.read(folder, incidents.DEVICE),
        influxdb=incidents.read(folder, incidents.INFLUXDB),
        store_error=store_error,
        free_bytes=free_bytes,
        folder=str(folder),
        hours=hours,
        damaged=damaged,
        history=history,
    )


def _last_reading(store: Store, now: datetime) -> datetime | None:
    last = store.last_time()
    if last is None or last <= now:
        return last
    # Rows with a time later than now are of a clock that was ahead.
    near = store.live_near(now)
    return near if near and near <= now else None


def _send(
    addresses: Sequence[str], state: State, verdicts: Verdicts, now: datetime, prefix: str
) -> tuple[int, int]:
    """Send the due messages; return how many were sent, and how many services still wait for one."""
    sent = waiting = 0
    end = time.monotonic() + SEND_S
    for number, (address, service) in enumerate(zip(addresses, state.services, strict=True), 1):
        for one in due(verdicts, service.told):
            paused = service.retry_at is not None and now < service.retry_at <= now + TRY_AGAIN
            if paused or time.monotonic() > end:
                waiting += 1
                break
            if not send.send(address, f"{prefix}{one.message.title}", one.message.body):
                service.retry_at = now + TRY_AGAIN
                log_warning(
                    f"Service {number} of AISEG2_ALERT_URLS did not take a message, which is sent again in five minutes: "
                    "run `aiseg2-pipeline doctor --alert`, which tries all services."
                )
                waiting += 1
                break
            service.sent(one)
            log_line("alert", condition=one.condition, over=one.mark is None, service=number)
            sent += 1
    return sent, waiting
