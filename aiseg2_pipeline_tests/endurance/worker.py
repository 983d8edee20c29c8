"""The pipeline's own work in a process that may be killed: what its assets do, in their order, with everything real.

A worker does jobs one after the other, each with everything opened anew, as a run has it, and says on its socket what
the store took before it goes on. Dagster itself is left out: runs, schedules and the sensor are the harness's, so that
a minute costs what its work costs. Which job when, which fault and which kill belong in `chaos`.
"""

import mmap
import os
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.aiseg2.transport import Slot
from aiseg2_pipeline.frames.readings import KEY
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.gaps.find import settled
from aiseg2_pipeline.gaps.past import Record
from aiseg2_pipeline.influxdb import line_protocol
from aiseg2_pipeline.influxdb.client import InfluxError, InfluxWriter, Unavailable
from aiseg2_pipeline.influxdb.delivery import LEAST_REQUEST_S, deliver, deliver_coverage, delivery_lock
from aiseg2_pipeline.ingest.energy import History
from aiseg2_pipeline.ingest.power import take_minute
from aiseg2_pipeline.japan_time import MINUTE, day_start
from aiseg2_pipeline.orchestration.assets import energy_history
from aiseg2_pipeline.orchestration.resources import WRITE_OUT_S
from aiseg2_pipeline.orchestration.sensors import backfill
from aiseg2_pipeline.store import Destination, EnergyStore, Outbox, Store, UpsertResult, database
from aiseg2_pipeline.store.damage import unrecovered
from aiseg2_pipeline.store.database import StoreError
from aiseg2_pipeline.store.recovery import recover

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
RETRY_WAITS_S = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Home:
    """Where everything is. The host's clock is 8 bytes at `clock`: microseconds since 1970, UTC.

    Waits, time-outs and budgets are `speed` times as short as in life.
    """

    data: Path
    clock: Path
    device_url: str
    user: str
    password: str
    influx_url: str
    token: str
    org: str
    bucket: str
    speed: float

    @property
    def readings(self) -> Path:
        return self.data / "readings.sqlite"

    @property
    def energy(self) -> Path:
        return self.data / "energy.sqlite"

    @property
    def device(self) -> Path:
        return self.data / "device"

    @property
    def destination(self) -> Destination:
        return Destination("influxdb:8086", self.org, self.bucket)

    def writer(self, url: str | None = None) -> InfluxWriter:
        return InfluxWriter(url or self.influx_url, self.token, self.org, self.bucket, timeout_s=WRITE_OUT_S)


@dataclass(frozen=True)
class Job:
    """One run. `name` is a method of `Worker`; `file_limit` is the size (bytes) over which no file can grow."""

    name: str
    minute: datetime | None = None
    day: date | None = None
    hours: tuple[datetime, ...] = ()
    first: datetime | None = None
    influx_url: str | None = None
    file_limit: int | None = None


@dataclass(frozen=True)
class Stored:
    """What a store has taken: the columns of a frame. `now` is the host's time (UTC)."""

    job: Job
    kind: str
    now: datetime
    frame: pd.DataFrame


@dataclass(frozen=True)
class Ended:
    """How a job ended: what it found to do, the sentences that it would show, or what escaped from it."""

    job: Job
    found: Any = None
    sentences: tuple[str, ...] = ()
    escaped: str | None = None


class _ToldReadings(Store):
    """A store that tells what it took, as soon as it has it."""

    tell: Callable[[str, pd.DataFrame], None]

    def upsert(self, frame: pd.DataFrame) -> UpsertResult:
        result = super().upsert(frame)
        if result.changed:
            self.tell("readings", frame)
        return result


class _ToldEnergy(EnergyStore):
    """The same for energy."""

    tell: Callable[[str, pd.DataFrame], None]

    def upsert(self, frame: pd.DataFrame) -> UpsertResult:
        result = super().upsert(frame)
        if result.changed:
            self.tell("energy", frame)
        return result


class Worker:
    """Does jobs for one home."""

    def __init__(self, home: Home, socket: Connection) -> None:
        self._home = home
        self._socket = socket
        self._job = Job("")
        with home.clock.open("r+b") as file:
            self._clock = memoryview(mmap.mmap(file.fileno(), 8)).cast("q")

    def now(self) -> datetime:
        """Return the host's time."""
        return datetime.fromtimestamp(self._clock[0] / 1e6, UTC)

    def do(self, job: Job) -> Ended:
        """Do one job."""
        self._job = job
        if job.file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit, resource.RLIM_INFINITY))
        try:
            found, sentences = getattr(self, job.name)(job)
            return Ended(job, found, tuple(sentences))
        except (Aiseg2Error, StoreError, InfluxError) as error:
            return Ended(job, sentences=(str(error),))
        except Exception:  # noqa: BLE001 - whatever it is, it is what the harness looks for
            return Ended(job, escaped=traceback.format_exc())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def take(self, job: Job) -> tuple[Any, Sequence[str]]:
        """Do the job of a minute: read, keep, write out; find the stored times that are later than now."""
        assert job.minute is not None
        with self._readings() as store:
            if self.now() >= job.minute + MINUTE:
                return None, ["The run began after its minute had ended."]
            with self._device("live") as client:
                taken = take_minute(client, store, minute=job.minute, samples=1, clock=self.now)
            if not taken.readings:
                return None, taken.problems
            future = store.times_after(self.now())
        # What Dagster hands to the IO manager.
        with self._readings() as store:
            store.upsert(pd.concat(taken.frames, ignore_index=True).drop_duplicates(KEY, keep="last"))
        deadline = time.monotonic() + WRITE_OUT_S
        return (future[0], future[-1]) if future else None, taken.problems + self._power_out(
            deadline
        ) + self._coverage_out(deadline)

    def fill(self, job: Job) -> tuple[Any, Sequence[str]]:
        """Do the job of hours that have ended."""
        now = self.now()
        ended = [hour for hour in job.hours if settled(hour, now)]
        problems: list[str] = []
        with self._readings() as store, self._energy() as energy, ExitStack() as stack:

            def history() -> History:
                client = stack.enter_context(self._device("background"))
                return stack.enter_context(History(client, energy, self._home.device, now))

            for day in fill_hours(store, energy, ended, now=now, history=history):
                problems += day.problems
        return None, problems

    def bring(self, job: Job) -> tuple[Any, Sequence[str]]:
        """Do the job of a day's energy: ask, keep, write out."""
        assert job.day is not None
        now, start = self.now(), day_start(job.day)
        with (
            self._energy() as energy,
            self._device("background") as client,
            History(client, energy, self._home.device, now) as history,
        ):
            day = history.read_day(job.day, circuits=start + DAY <= now)
            table = energy.read(start, start + DAY)
        if not day.rows:
            return None, day.problems
        with self._energy() as energy:
            energy.upsert(table)
        return None, day.problems + self._energy_out()

    def heal(self, job: Job) -> tuple[Any, Sequence[str]]:
        """Find what the sensor would launch: jobs, in their order."""
        assert job.first is not None
        now = self.now()
        if unrecovered(self._home.readings, self._home.energy):
            return [Job("bring_back")], ()
        with self._readings() as store, self._energy() as energy:
            start = max(job.first, Record(self._home.readings, job.first, None).start(store, now))
            read = store.live_near(now) is not None
            hours = backfill.hours_to_fill(store, energy, start, now) if read else []
            days = backfill.days_to_renew(energy, hours, start, now) if read else []
            owed = backfill.must_write(store, self._home.destination, now)
        found = []
        for first, last in backfill.contiguous(hours):
            found.append(Job("fill", hours=tuple(first + n * HOUR for n in range((last - first) // HOUR + 1))))
        found += [Job("bring", day=day) for day in days]
        if owed:
            found.append(Job("power_out"))
        return found, ()

    def bring_back(self, _: Job) -> tuple[Any, Sequence[str]]:
        """Do the job that brings back what can be read of damaged files."""
        told = []
        for path, opened in ((self._home.readings, self._readings), (self._home.energy, self._energy)):
            for damaged in unrecovered(path):
                with opened() as store:
                    told.append(recover(damaged, store, lambda _: None))
        return None, told

    def power_out(self, _: Job) -> tuple[Any, Sequence[str]]:
        """Do the job that writes older hours out."""
        return None, self._power_out(None) + self._coverage_out(None)

    def energy_out(self, _: Job) -> tuple[Any, Sequence[str]]:
        """Write out what is pending of the energy."""
        return None, self._energy_out()

    def remove(self, job: Job) -> tuple[Any, Sequence[str]]:
        """Do what a person does whom the check has told so: remove the rows between two times, both included."""
        start, end = job.hours[0], job.hours[1] + timedelta(seconds=1)
        with (
            self._readings() as store,
            delivery_lock(store, self._home.destination, -1),
            self._home.writer() as writer,
        ):
            writer.delete(start, end)
            store.remove(start, end, self.now())
        return (start, end), ()

    def resend(self, _: Job) -> tuple[Any, Sequence[str]]:
        """Do what a person does once nothing is refused any longer: have what was set aside sent again."""
        for opened in (self._readings, self._energy):
            with opened() as store:
                store.resend(destination=self._home.destination)
        return None, ()

    def _readings(self) -> Store:
        store = _ToldReadings.open(self._home.readings)
        store.tell = self._tell
        return store

    def _energy(self) -> EnergyStore:
        store = _ToldEnergy.open(self._home.energy)
        store.tell = self._tell
        return store

    def _tell(self, kind: str, frame: pd.DataFrame) -> None:
        self._socket.send(Stored(self._job, kind, self.now(), frame))

    def _device(self, slot: Slot) -> Aiseg2Client:
        home = self._home
        return Aiseg2Client(
            home.device_url, home.user, home.password, state_dir=home.device, clock=self.now, slot=slot
        )

    def _power_out(self, deadline: float | None) -> list[str]:
        return self._write_out(deadline, self._readings, lambda _, table: line_protocol.lines(table))

    def _coverage_out(self, deadline: float | None) -> list[str]:
        """Write out the coverage of the ended hours since the first live reading; return why it failed, if it did."""
        home, now = self._home, self.now()
        try:
            with self._readings() as store, home.writer(self._job.influx_url) as writer:
                since = Record(home.readings, now, None).start(store, now)
                refusal = deliver_coverage(
                    store, writer, home.destination, now=now, since=since, deadline=deadline
                )
        except InfluxError as error:
            return [str(error)]
        return [refusal] if refusal else []

    def _energy_out(self) -> list[str]:
        return self._write_out(None, self._energy, energy_history.lines)

    def _write_out(
        self,
        deadline: float | None,
        opened: Callable[[], Outbox],
        lines: Callable[[Store, pd.DataFrame], list[tuple[str, ...]]],
    ) -> list[str]:
        """Write out as the op does under its retry policy; return the sentence that it fails with, if it does."""
        waits = iter(RETRY_WAITS_S)
        while True:
            try:
                with (
                    opened() as store,
                    self._readings() as readings,
                    self._home.writer(self._job.influx_url) as writer,
                ):
                    deliver(
                        store,
                        writer,
                        self._home.destination,
                        now=self.now(),
                        deadline=deadline,
                        lines=lambda table, readings=readings: lines(readings, table),  # type: ignore[misc] # as bound
                    )
                    return []
            except Unavailable as error:
                wait_s = next(waits, None)
                left_s = float("inf") if deadline is None else deadline - time.monotonic()
                if wait_s is None or left_s < LEAST_REQUEST_S or (error.retry_after_s or 0) > left_s:
                    return [str(error)]
                time.sleep(error.retry_after_s or wait_s)
            except InfluxError as error:
                return [str(error)]


def serve(socket: Connection, set_speed: Callable[[float], None]) -> None:
    """Do the jobs that come over the socket, after the home they are for, until it is closed."""
    # Its lines are for a service's log; it says here what it has to say.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        home: Home = socket.recv()
        set_speed(home.speed)
        # SQLite waits by a clock of its own.
        database.BUSY_S /= home.speed
        worker = Worker(home, socket)
        while True:
            socket.send(worker.do(socket.recv()))
    except (EOFError, OSError):
        return
