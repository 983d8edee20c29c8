"""The fault harness: the real pipeline in killable processes, a simulated unit, a real InfluxDB, and everything going wrong.

A scenario is one seed: some simulated hours, minute by minute, with drawn faults of the unit and of InfluxDB, kills, and
events (outages, clocks, disks, locks). Then all faults stop, the record gets the time to heal that it would have in
life, and the oracle judges it. Dagster is left out; what its schedules and its sensor would launch, and when, is here,
by the host's simulated clock. What a run does belongs in `worker`, what will happen in `plan`, what is true
in `oracle`.

The same seed draws the same faults. What two processes do at once, and where a kill falls by the millisecond, is the
machine's chance: a failure that does not come back at once comes back with the same seed some time later.
"""

import random
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from multiprocessing.connection import wait
from pathlib import Path

from aiseg2_pipeline.aiseg2.client import CLOCKS_AGREE_S
from aiseg2_pipeline.gaps.find import find_gaps
from aiseg2_pipeline.japan_time import day_of, hour_of
from aiseg2_pipeline.simulator.faults import Fault as UnitFault
from aiseg2_pipeline.simulator.faults import Faults
from aiseg2_pipeline.simulator.server import Running, running
from aiseg2_pipeline.store import EnergyStore, Store
from aiseg2_pipeline_tests.endurance.oracle import Acknowledged, Oracle, Verdict
from aiseg2_pipeline_tests.endurance.plan import Event, Plan
from aiseg2_pipeline_tests.endurance.worker import Ended, Home, Job, Stored
from aiseg2_pipeline_tests.endurance.world import (
    KILL_POINTS,
    LONG_AGO,
    Escaped,
    Prefork,
    Requests,
    Trap,
    Worker,
    World,
)
from aiseg2_pipeline_tests.support import damage
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.influxdb_proxy import Exchange, Fault, InfluxFaults

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# Waits, time-outs and budgets are so many times as short as in life; while the record heals, nothing has to be late.
SPEED, HEALING_SPEED = 100.0, 5.0
# In our seconds: longer than a patience of 10 s, and the half of a minute.
SLOW_S, REBOOT_S = 15 / SPEED, 40 / SPEED
STUCK_S = 60.0
# How many minutes the work in the background may fall behind.
BACKGROUND_LAG = 5
LISTENS_NOWHERE = "http://127.0.0.1:9"
# The device is not asked in vain again within a day.
HEALED_AFTER = timedelta(hours=25)


@dataclass
class Report:
    """What a scenario went through and what came of it."""

    seed: int
    plan: Plan
    verdict: Verdict
    faults: Counter[str] = field(default_factory=Counter)
    sentences: Counter[str] = field(default_factory=Counter)
    left_to_fill: int = 0


class Scenario:
    """One seed and its plan, run with `run`: see the module. `folder` is its own."""

    def __init__(
        self,
        seed: int,
        plan: Plan,
        *,
        folder: Path,
        server: InfluxServer,
        prefork: Prefork,
        kill_points: Sequence[str] = KILL_POINTS,
        speed: float = SPEED,
    ) -> None:
        """Prepare; nothing runs yet. `speed` is how many times as short as in life everything is waited for."""
        self._speed = speed
        self._plan = plan
        self._seed = seed
        self._chance = random.Random(f"course of {seed}")  # noqa: S311 - a test's dice
        self._server = server
        self.influx = Influx(server, f"chaos-{seed}")
        self._prefork = prefork
        self._kill_points = kill_points
        self._folder = folder
        self.world = World(plan.start, folder / "clock", seed)
        self._faults: Counter[str] = Counter()
        self._sentences: Counter[str] = Counter()
        self._acknowledged = Acknowledged()
        self._verdict = Verdict()
        self.rain = InfluxFaults(seed, 0.0, slow_s=SLOW_S)
        self._only: InfluxFaults | None = None
        self._traps: list[Trap] = []
        self._live: Worker | None = None
        self._background: Worker | None = None
        self._background_since = 0
        self._queue: deque[Job] = deque()
        self._asked_for: set[tuple[Job, datetime]] = set()
        self.future: tuple[datetime, datetime] | None = None
        self._influx_url: str | None = None
        self._file_limit: int | None = None
        self._locked: sqlite3.Connection | None = None
        self._going: list[Event] = []
        self._administered: set[str] = set()

    def run(self) -> Report:
        """Run it and judge what is left. Raise Escaped."""
        with self.opened():
            self.play()
            self.heal()
            report = self.judged()
            if report.verdict.counts["rows set aside"] and not report.verdict.wrong:
                self.send_again()
                refused, report = report, self.judged()
                report.verdict.counts["rows set aside"] = refused.verdict.counts["rows set aside"]
            return report

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Start the unit, and have a bucket."""
        with ExitStack() as stack:
            stack.enter_context(self.influx)
            stack.callback(self._leave)
            self._unit: Running = stack.enter_context(
                running(
                    self._plan.household,
                    clock=self.world.now,
                    outages=self._plan.outages,
                    sd_card=self._plan.has_card,
                    card_days=3,
                )
            )
            self._unit.tally.requests = Requests(self._on_request)
            self.influx.proxy.fault = self._on_write
            self.home = Home(
                data=self._folder,
                clock=self._folder / "clock",
                device_url=f"http://{self._unit.address}",
                user=self._unit.user,
                password=self._unit.password,
                influx_url=self.influx.url,
                token=self.influx.token,
                org=self.influx.org,
                bucket=self.influx.bucket,
                speed=self._speed,
            )
            yield

    def play(self) -> None:
        """Let everything happen, minute by minute, and then all faults stop."""
        for minute in range(self._plan.minutes):
            self._minute(minute)
        self._calm_down()

    def _leave(self) -> None:
        """End what was started, whatever came of it."""
        for worker in (self._live, self._background):
            if worker is not None:
                worker.kill()
                worker.connection.close()
        self._end_events(None)

    # The course of things

    def _minute(self, number: int) -> None:
        began = self._plan.start + number * MINUTE
        self.world.pass_until(began + self._chance.uniform(0.2, 4.0) * timedelta(seconds=1))
        weather = self._plan.weathers[number // 60]
        self.rain.rate = weather.influx
        self._end_events(number)
        for event in self._plan.events:
            if event.begins == number:
                self._faults[event.name] += 1
                self._going.append(event)
                self._begin(event, number)
        self._administer()
        self._fault_unit(number, weather.unit)
        host = self.world.host()
        minute = host.replace(second=0, microsecond=0)
        self._schedule(minute)
        self._live = self._start(
            self._live,
            Job("take", minute=minute, influx_url=self._influx_url, file_limit=self._file_limit),
            weather.kill,
        )
        self._work_in_background(number, weather.kill)
        self._until(lambda: self._is_idle(self._live))
        if self._background_since + BACKGROUND_LAG < number:
            self._until(lambda: self._is_idle(self._background))

    def _schedule(self, minute: datetime) -> None:
        """Queue what the schedules and the sensor launch at this minute of the host's clock."""
        hour = hour_of(minute)
        if minute.minute == 5:
            self._queue.append(Job("bring", day=day_of(minute - HOUR)))
        if minute.minute == 8:
            self._queue.append(Job("fill", hours=(hour - HOUR,)))
        if minute.minute % 5 == 0 and self._is_idle(self._background) and not self._queue:
            self._queue.append(Job("heal", first=self._plan.start))

    def _work_in_background(self, number: int, kill: float) -> None:
        """Start the next of the queue where nothing goes on; one run at a time."""
        if self._queue and self._is_idle(self._background):
            job = replace(self._queue.popleft(), influx_url=self._influx_url, file_limit=self._file_limit)
            self._background = self._start(self._background, job, 2 * kill)
            self._background_since = number

    def _begin(self, event: Event, number: int) -> None:
        """Let something happen."""
        match event.name:
            case "influxd stopped":
                self._server.stop()
            case "influxd killed":
                self._server.kill()
            case "nothing listens":
                self._influx_url = LISTENS_NOWHERE
            case "influxdb only":
                self._only = InfluxFaults(self._seed + number, 1.0, (event.value,), slow_s=SLOW_S)
            case "host's clock":
                self.world.step_host(timedelta(seconds=round(event.value)))
            case "disk full":
                self._file_limit = event.value
            case "file locked":
                self._lock(f"{event.value}.sqlite")
            case _:
                self._disturb(event.name)

    def _disturb(self, what: str) -> None:
        """Do what is over at once."""
        if what == "all killed":
            for worker in (self._live, self._background):
                if worker is not None:
                    worker.kill()
        elif what == "file damaged":
            damage.execute_in(self.home.readings.resolve(), "PRAGMA wal_checkpoint(TRUNCATE)")
            damage.zero_table(self.home.readings, "series")
        elif what == "second delivery":
            self._queue.appendleft(Job("power_out"))

    def _fault_unit(self, number: int, rate: float) -> None:
        """Let the unit have the faults of this hour, or those of an event."""
        kinds: Collection[UnitFault] = tuple(UnitFault)
        for event in self._going:
            if event.name == "unit often":
                kinds, rate = (UnitFault(event.value),), 0.5
            elif event.name == "unit's clock off":
                kinds, rate = (UnitFault.CLOCK_OFF,), 1.0
        faults = Faults(self._seed * 1000 + number // 60, rate, kinds, slow_s=SLOW_S, reboot_s=REBOOT_S)
        # Requests are counted from when faults are set, so only others are set.
        if faults != self._unit.faults:
            self._unit.faults = faults

    def _end_events(self, number: int | None) -> None:
        """Undo what is over by this minute; None: everything."""
        over = [one for one in self._going if number is None or number >= one.begins + one.lasts]
        self._going = [one for one in self._going if one not in over]
        still = {one.name for one in self._going}
        for event in over:
            if event.name in still:
                continue
            match event.name:
                case "nothing listens":
                    self._influx_url = None
                case "influxdb only":
                    if self._only is not None:
                        self._faults.update({f"influxdb: {kind}": n for kind, n in self._only.tally.items()})
                    self._only = None
                case "host's clock":
                    self.world.step_host(timedelta())
                case "disk full":
                    self._file_limit = None
                case "file locked" if self._locked is not None:
                    self._locked.close()
                    self._locked = None
        if not {"influxd stopped", "influxd killed"} & still and not self._server.running:
            self._server.start()
        self._administer()

    def _administer(self) -> None:
        """Have the token refused, or no bucket of that name, while such an event goes on; only a server that runs can be asked."""
        wanted = {event.name for event in self._going} & {"token refused", "bucket missing"}
        if self._server.running:
            for name in wanted ^ self._administered:
                if name == "token refused":
                    self._server.allow(self.influx.token, active=name not in wanted)
                else:
                    names = self.influx.bucket, f"{self.influx.bucket}, renamed"
                    self._server.rename_bucket(*(names if name in wanted else reversed(names)))
            self._administered = wanted

    def _lock(self, name: str) -> None:
        """Hold a store's file as a process that hangs in a transaction."""
        path = self._folder / name
        if self._locked is None and path.exists():
            self._locked = sqlite3.connect(path, isolation_level=None)
            try:
                self._locked.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                # Somebody is writing just now.
                self._locked.close()
                self._locked = None

    # The end

    def _calm_down(self) -> None:
        """Stop all faults, and end what is going on."""
        self._end_events(None)
        if self.world.ahead:
            self.world.step_host(timedelta())
        self._unit.faults = None
        self.rain.stop()
        self._drain()
        for worker in (self._live, self._background):
            if worker is not None:
                worker.kill()
        self.home = replace(self.home, speed=HEALING_SPEED)

    def heal(self) -> None:
        """Do what a person was told to do, and let a day pass, with what the sensor finds to do."""
        self._do(Job("take", minute=self.world.host().replace(second=0, microsecond=0)))
        if self.future is not None:
            self._do(Job("remove", hours=self.future))
        for later in range(1, 4):
            self.world.pass_until(self._plan.end + later * HEALED_AFTER)
            ended = self._do(Job("heal", first=self._plan.start))
            days: set[date] = set()
            for found in ended.found or ():
                # The days of healing are not what is judged; but filling an hour of a day asks for all of it.
                within = tuple(hour for hour in found.hours if hour < self._plan.end)
                days |= {day_of(hour) for hour in found.hours} & {day_of(self._plan.end - MINUTE)}
                if within or not found.hours:
                    self._do(replace(found, hours=within))
            for day in sorted(days):
                self._do(Job("bring", day=day))
            self._do(Job("power_out"))
            self._do(Job("energy_out"))

    def send_again(self) -> None:
        """Do what a person does once nothing is refused any longer."""
        for name in ("resend", "power_out", "energy_out"):
            self._do(Job(name))

    def _do(self, job: Job) -> Ended:
        """Do a job and wait for it."""
        self._background = self._start(self._background, job, 0.0)
        self._until(lambda: self._is_idle(self._background))
        return self._last

    def _drain(self) -> None:
        """Do all that is queued."""
        while self._queue or not self._is_idle(self._background):
            self._work_in_background(self._plan.minutes, 0.0)
            self._until(lambda: self._is_idle(self._background))

    def judged(self) -> Report:
        """Judge what there is now."""
        oracle = Oracle(
            self._plan.household,
            outages=self._plan.outages,
            changes=self._plan.changes,
            offsets=self.world.offsets,
            now=self.world.now(),
        )
        report = Report(self._seed, self._plan, self._verdict, self._faults.copy(), self._sentences)
        # An event's own faults are counted when it ends.
        report.faults.update({f"influxdb: {kind}": count for kind, count in self.rain.tally.items()})
        # That clock is counted by page; the event is one.
        of_unit = {kind: n for kind, n in self._unit.tally.faults.items() if kind is not UnitFault.CLOCK_OFF}
        report.faults.update({f"unit: {kind}": count for kind, count in of_unit.items()})
        with Store.open(self.home.readings) as store, EnergyStore.open(self.home.energy) as energy:
            now = self.world.host()
            start = hour_of(store.live_near(LONG_AGO) or self._plan.end)
            verdict = oracle.judge(
                store,
                energy,
                self._server,
                self.home.destination,
                self._acknowledged,
                start=start,
                end=self._plan.end,
                now=now,
            )
            report.left_to_fill = len(find_gaps(store, energy, start, self._plan.end, now).fillable)
        verdict.false += self._verdict.false
        verdict.counts += self._verdict.counts
        report.verdict = verdict
        return report

    # The workers

    @staticmethod
    def _is_idle(worker: Worker | None) -> bool:
        return worker is None or worker.job is None

    def _start(self, worker: Worker | None, job: Job, kill: float) -> Worker:
        """Give a job to a worker, to a new one where that is dead; with this chance a trap is laid."""
        if worker is not None:
            self._traps = [trap for trap in self._traps if trap.worker is not worker]
        if worker is None or worker.killed:
            if worker is not None:
                worker.connection.close()
            worker = self._prefork.fork(self.home)
        if self._chance.random() < kill:
            self._lay_trap(worker, job)
        worker.job = job
        worker.clocks_differ = self._clocks_differ()
        # A trap of a moment may have killed it already, which is noticed as any later kill.
        with suppress(ConnectionError):
            worker.connection.send(job)
        return worker

    def _lay_trap(self, worker: Worker, job: Job) -> None:
        live = job.name == "take"
        point = self._chance.choice(self._kill_points)
        count = {"request": 5 if live else 45, "stored": 2, "write": 2, "taken": 2, "moment": 1}[point]
        trap = Trap(worker, point, self._chance.randint(1, count), self._faults)
        self._traps.append(trap)
        if point == "moment":
            after_s = self._chance.uniform(0, 0.06 if live else 0.5)
            timer = threading.Timer(after_s, trap.step, ("moment",))
            timer.daemon = True
            timer.start()

    def _until(self, done: Callable[[], bool]) -> None:
        """Listen to the workers until it is so."""
        stuck_at = time.monotonic() + STUCK_S
        while not done():
            busy = [one for one in (self._live, self._background) if one is not None and one.job is not None]
            told = wait([one.connection for one in busy], timeout=1.0)
            for worker in busy:
                if worker.connection in told:
                    self._listen(worker)
            if time.monotonic() > stuck_at:
                raise Escaped(f"nothing was heard for {STUCK_S:.0f} s of {[one.job for one in busy]}")

    def _listen(self, worker: Worker) -> None:
        try:
            message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            if not worker.killed:
                raise Escaped(f"a process ended by itself at {worker.job}") from None
            worker.job = None
            return
        if isinstance(message, Stored):
            self._note(message, worker)
            for trap in list(self._traps):
                if trap.worker is worker:
                    trap.step("stored")
            return
        worker.job = None
        self._hear(message)

    def _note(self, stored: Stored, worker: Worker) -> None:
        self._acknowledged.add(stored.kind, stored.frame)
        if stored.kind == "energy" and len(stored.frame) and worker.clocks_differ and self._clocks_differ():
            self._verdict.false.append(
                f"energy was stored at {stored.now} while host and unit were not at the same hour"
            )

    def _hear(self, ended: Ended) -> None:
        """Take up how a job ended."""
        if ended.escaped:
            raise Escaped(f"out of {ended.job} came:\n{ended.escaped}")
        self._last = ended
        self._sentences.update(ended.sentences)
        match ended.job.name:
            case "heal" if ended.found:
                self._launch(ended.found)
            case "take":
                self.future = ended.found
            case "remove":
                self._acknowledged.remove(*ended.found)

    def _launch(self, found: list[Job]) -> None:
        """Queue what the sensor launches: each once an hour."""
        hour = hour_of(self.world.host())
        for job in found:
            if (job, hour) not in self._asked_for:
                self._asked_for.add((job, hour))
                self._queue.append(job)

    def _clocks_differ(self) -> bool:
        faults = self._unit.faults
        off = faults.clock_off(self.world.now()) if faults else timedelta()
        return abs((off - self.world.ahead).total_seconds()) > CLOCKS_AGREE_S

    # In the threads of the servers

    def _on_request(self) -> None:
        self.world.pass_some()
        for trap in list(self._traps):
            trap.step("request")

    def _on_write(self, exchange: Exchange) -> Fault | None:
        self.influx.proxy.requests.clear()
        for trap in list(self._traps):
            trap.step("write")
        fault = (self._only or self.rain)(exchange)
        waiting = [trap for trap in self._traps if trap.waits_for_taken]
        if waiting and (fault is None or fault.take):
            return replace(fault or Fault(None, take=True), then=lambda: waiting[0].step("taken"))
        return fault
