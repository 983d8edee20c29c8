"""Simulate Dagster's storage over years: its size with closing and pruning, its green hours, and the time of a status query.

A few runs are real (`real_runs`). The others are copies of their rows, with ids, partitions and times of their own;
closing and pruning are the pipeline's, on every simulated day. Deleting half a million runs takes hours, so most days
have one run of the minute in each hour instead of sixty. Every minute has a run in the two weeks in which all of
them fail, in the days after, and in the last days, twice as long as runs are kept: the size at the end and the largest
size are the same. `--every-minute` gives every minute a run.

    python -m benchmarks.run_history --years 1 3
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster import DagsterInstance

from aiseg2_pipeline.frames.energy import ENERGY
from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.japan_time import TOKYO, hour_key
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.maintenance.prune import Pace, prune
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import FILES, prepare_storage
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Destination, EnergyStore, Store
from benchmarks.real_runs import PROJECT, file_of_a_run, real_runs
from benchmarks.run_copies import RUNS, SCHEDULES, Copies, Rows, Template, connected, selected

HOUR, DAY, MINUTE = timedelta(hours=1), timedelta(days=1), timedelta(minutes=1)
HOURS_A_DAY, DAYS_A_YEAR = 24, 365
BURST_DAYS = 14
# Every minute has a run in the last days, and in those after the burst.
FULL_DAYS = 6
# One hour of so many has no rows.
GAP_EVERY_HOURS, GAP_AT = 171, 100
SENSOR_TICKS_AN_HOUR = 12
PRUNES_A_DAY = 4
NOTHING_LISTENS = "127.0.0.1:9"


class History:
    """A pipeline's data directory over the years, with a simulated clock."""

    def __init__(self, folder: Path, first: datetime, kinds: dict[str, Template], ticks: Rows) -> None:
        """Start with an empty data directory at `first`."""
        environment = {
            "AISEG2_HOST": NOTHING_LISTENS,
            "AISEG2_PASSWORD": "none",
            "AISEG2_DATA_DIR": str(folder),
            "INFLUXDB_HOST": NOTHING_LISTENS,
            "INFLUXDB_TOKEN": "none",
            "INFLUXDB_ORG": "home",
            "INFLUXDB_BUCKET": "energy",
            "AISEG2_START_DATE": day_key(first),
        }
        self.settings = Settings.from_environment(environment)
        self.home = self.settings.dagster_home
        self.home.mkdir(parents=True)
        self.environment = environment | {"DAGSTER_HOME": str(self.home)}
        os.environ.update(self.environment)
        shutil.copyfile(PROJECT / "dagster.yaml", self.home / "dagster.yaml")
        self._instance = DagsterInstance.from_config(str(self.home))
        prepare_storage(self.home)
        self.now = self.first = first
        self.hours_with_rows = 0
        self._kinds, self._ticks = kinds, ticks
        definitions = build_definitions(self.settings, lambda: self.now)
        self._close_the_day = definitions.resolve_job_def("close_the_day")

    def day(self, start: datetime, *, full: bool, failing: bool) -> None:
        """Simulate a day and the night after it: a `full` day has a run each minute, a `failing` one no rows."""
        hours = self._store(start, failing=failing)
        prunes = PRUNES_A_DAY if full else 1
        for n in range(prunes):
            begin, end = start + n * DAY / prunes, start + (n + 1) * DAY / prunes
            self._runs(begin, end, hours, full=full)
            self.now = end + 40 * MINUTE
            if n == prunes - 1:
                self._close()
            pace = Pace(time.monotonic() + 3600, sleep=lambda _: None)
            prune(self._instance, end + 75 * MINUTE, self.settings.keep_runs_days, pace, lambda _: None)

    def _runs(self, begin: datetime, end: datetime, with_rows: set[datetime], *, full: bool) -> None:
        with Copies(self.home) as copies:
            at = begin
            while at < end:
                of_hour = at.replace(minute=0) in with_rows
                if full or at.minute == 0:
                    copies.add(self._kinds["minute" if of_hour else "failed minute"], at, hour_key(at))
                copies.tick(self._ticks[0], at)
                if at.minute == 0:
                    copies.add(self._kinds["fill" if of_hour else "failed fill"], at, hour_key(at))
                    copies.add(self._kinds["energy" if of_hour else "failed energy"], at, day_key(at))
                    for _ in range(SENSOR_TICKS_AN_HOUR):
                        copies.tick(self._ticks[-1], at)
                at += MINUTE
            copies.add(self._kinds["prune"], at, "")

    def _close(self) -> None:
        run = self._close_the_day.execute_in_process(instance=self._instance)
        with connected(self.home / RUNS) as runs:
            stamp = self.now.strftime("%Y-%m-%d %H:%M:%S")
            runs.execute("UPDATE runs SET create_timestamp = ? WHERE run_id = ?", (stamp, run.run_id))

    def _store(self, start: datetime, *, failing: bool) -> set[datetime]:
        """Store and acknowledge a day's rows; return the hours with rows."""
        number = int((start - self.first) / HOUR)
        hours = [
            start + n * HOUR
            for n in range(HOURS_A_DAY)
            if not failing and (number + n) % GAP_EVERY_HOURS != GAP_AT
        ]
        self.hours_with_rows += len(hours)
        power = [
            Row(hour, "total", name, 0.5, "kW", 0)
            for hour in hours
            for name in (TOTAL_CONSUMPTION, TOTAL_EXCHANGE)
        ]
        energy = [Row(hour, "consumption", "consumption", 500.0, "Wh", 3600) for hour in hours]
        to = Destination(NOTHING_LISTENS, "home", "energy")
        with (
            Store.open(self.settings.store_path) as store,
            EnergyStore.open(self.settings.energy_path) as energy_store,
        ):
            store.upsert(frame(power))
            energy_store.upsert(frame(energy, ENERGY))
            for one in (store, energy_store):
                batch = one.pending_rows(to, hours, 10_000)
                one.acknowledge(to, batch, len(batch.frame))
        return set(hours)

    def report(self, title: str) -> None:
        """Print sizes, green hours and query times."""
        sizes = {name: _size(self.home / name) for name in FILES}
        print(
            f"\n{title}: {sum(sizes.values()) / 1e6:.0f} MB "
            + str({k: f"{v / 1e6:.1f} MB" for k, v in sizes.items()})
        )
        with connected(self.home / RUNS) as runs:
            counts = runs.execute("SELECT pipeline_name, count(*) FROM runs GROUP BY 1 ORDER BY 2 DESC").fetchall()
        print("runs:", ", ".join(f"{count} {job}" for job, count in counts))
        subprocess.run(  # noqa: S603 - our own arguments
            [sys.executable, "-m", "benchmarks.status_query", str(self.home)],
            env=os.environ | self.environment,
            cwd=PROJECT,
            check=True,
        )
        print(f"hours with rows: {self.hours_with_rows}", flush=True)


def simulate(folder: Path, years: list[float], *, every_minute: bool) -> None:
    """Print the size of the storage after each of these years."""
    real = folder / "real"
    real.mkdir()
    homes = real_runs(real)
    kinds = {
        "minute": Template.of(homes.ours, "power_minute", "SUCCESS"),
        "failed minute": Template.of(homes.failing, "power_minute", "FAILURE"),
        "fill": Template.of(homes.ours, "power_fill", "SUCCESS"),
        "energy": Template.of(homes.ours, "energy_day", "SUCCESS"),
        "prune": Template.of(homes.ours, "prune_history", "SUCCESS"),
    }
    for job, name in (("power_fill", "failed fill"), ("energy_day", "failed energy")):
        kinds[name] = kinds["failed minute"].of_job(job)
    with connected(homes.ours / SCHEDULES) as schedules:
        ticks = selected(schedules, "job_ticks ORDER BY type")
    print(
        f"a minute run on Dagster's default storage: {file_of_a_run(homes.default) / 1000:.0f} kB, in a file of its own"
    )
    for name, kind in kinds.items():
        stored = sum(len(str(value)) for rows in kind.rows.values() for row in rows for value in row.values())
        print(f"rows of a {name} run: {stored / 1000:.1f} kB")
    for length in years:
        days = round(length * DAYS_A_YEAR)
        today = datetime.now(TOKYO).replace(hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)
        history = History(folder / f"{length}", today - days * DAY, kinds, ticks)
        burst = range(days // 2, days // 2 + BURST_DAYS)
        full = {*range(burst.start, burst.stop + FULL_DAYS), *range(days - FULL_DAYS, days)}
        began = time.monotonic()
        largest = 0
        for n in range(days):
            history.day(history.first + n * DAY, full=every_minute or n in full, failing=n in burst)
            largest = max(largest, sum(_size(history.home / name) for name in FILES))
            if n in (0, 30):
                print(f"after {n + 1} days: {largest / 1e6:.1f} MB")
            if n % 50 == 0:
                print(
                    f"day {n} after {time.monotonic() - began:.0f} s: {largest / 1e6:.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )
        history.report(f"{length} years ({time.monotonic() - began:.0f} s; at most {largest / 1e6:.0f} MB)")
        shutil.rmtree(history.settings.data_dir)


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in path.parent.glob(f"{path.name}*"))


def main() -> None:
    """Simulate and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=float, nargs="+", default=[1 / 12, 1])
    parser.add_argument("--every-minute", action="store_true")
    options = parser.parse_args()
    # In memory if possible: writing years of runs would wear out a disk.
    memory = Path("/dev/shm")  # noqa: S108 - the name in it is random
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        simulate(Path(folder), options.years, every_minute=options.every_minute)


if __name__ == "__main__":
    main()
