"""The job that deletes old runs and check evaluations from Dagster's storage, and returns the space to the disk.

Retention times are set here; readings and energy are not touched. A run with the last materialization of a partition is
never deleted, at any age, because Dagster would show that partition as missing. The storage is queried for each
batch, so this holds even if no day was ever closed.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    RunsFilter,
    job,
    op,
)

from aiseg2_pipeline.dagster_internals import has_a_file_for_each_run
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.failures import failures
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, CLIMATE_JOB, ENERGY_JOB, LOGGED, MINUTE_JOB
from aiseg2_pipeline.orchestration.maintenance.storage import (
    drop_evaluations,
    give_back_space,
    holding,
)

# Runs that start every hour or more often are kept for AISEG2_KEEP_RUNS_DAYS.
FREQUENT_JOBS = (MINUTE_JOB, ENERGY_JOB)
# 288 runs a day of little interest: they would take a tenth of the space.
CLIMATE_DAYS = 1
OTHER_RUNS_DAYS = 30
# Five checks a minute take a fifth of a minute's space.
EVALUATIONS_KEPT = timedelta(hours=12)
FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
BATCH_RUNS = 20
BATCH_FILES = 200
LOG_EVERY = 1000
# Ends before the next hour is filled. A day's runs take one or two minutes, a long history the rest.
PRUNE_S = 1800.0


@dataclass
class Pruned:
    """The numbers of deleted rows and files; `kept` are old runs with a last materialization, `left` those for the next run."""

    runs: int = 0
    kept: int = 0
    left: int = 0
    evaluations: int = 0
    files: int = 0


@dataclass
class Pace:
    """Work in batches: sleep after each for as long as it took, so that the minute run can write, and stop at `end`."""

    end: float
    sleep: Callable[[float], None] = time.sleep
    _began: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        """Sleep for as long as the batch took; return whether the time is up."""
        self.sleep(time.monotonic() - self._began)
        self._began = time.monotonic()
        return self._began > self.end


def prune_job(keep_runs_days: int, clock: Callable[[], datetime]) -> JobDefinition:
    """Return the job; the runs of the minute and the energy are kept for `keep_runs_days`."""

    @op(name="delete_old_runs", out=Out(Nothing), description="Deletes old runs in batches, oldest first.")
    def delete_old_runs(context: OpExecutionContext) -> None:
        pace = Pace(time.monotonic() + PRUNE_S)
        with failures("Old runs are not deleted"):
            pruned = prune(context.instance, clock(), keep_runs_days, pace, context.log.info)
        log_line("prune", **vars(pruned))

    @job(
        name="prune_history",
        tags=BACKGROUND,
        config=LOGGED,
        description=f"Deletes runs of the climate after {CLIMATE_DAYS} day, of the minute and the energy after {keep_runs_days} days (AISEG2_KEEP_RUNS_DAYS) and other runs after "
        f"{max(keep_runs_days, OTHER_RUNS_DAYS)}, and returns the space to the disk. Readings are never deleted, and every hour stays green.",
    )
    def prune_history() -> None:
        delete_old_runs()

    return prune_history


def prune(
    instance: DagsterInstance, now: datetime, keep_runs_days: int, pace: Pace, info: Callable[[str], None]
) -> Pruned:
    """Delete old runs, evaluations and files until the pace's end; `info` gets the progress."""
    pruned = Pruned()
    _delete_runs(instance, now, keep_runs_days, pruned, pace, info)
    pruned.evaluations = _until_over(pace, drop_evaluations(instance, now - EVALUATIONS_KEPT))
    pruned.files = _until_over(pace, _drop_files_of_runs(instance))
    _until_over(pace, give_back_space(instance))
    info(f"{pruned.runs} runs deleted. {pruned.kept} old ones are kept: they hold the status of an hour or a day.")
    if pruned.left:
        info(f"The time is up; {pruned.left} old runs are left for the next run.")
    return pruned


def _until_over(pace: Pace, batches: Iterator[int]) -> int:
    total = 0
    for count in batches:
        total += count
        if pace.over():
            break
    return total


def _delete_runs(
    instance: DagsterInstance,
    now: datetime,
    keep_runs_days: int,
    pruned: Pruned,
    pace: Pace,
    info: Callable[[str], None],
) -> None:
    kept: set[str] = set()
    ages = [
        (CLIMATE_JOB, CLIMATE_DAYS),
        *((name, keep_runs_days) for name in FREQUENT_JOBS),
        (None, max(keep_runs_days, OTHER_RUNS_DAYS)),
    ]
    for job_name, days in ages:
        old = RunsFilter(job_name=job_name, statuses=FINISHED, created_before=now - timedelta(days=days))
        skipped: set[str] = set()
        for deleted, held, reached in _delete_batches(instance, old):
            skipped |= held
            if (pruned.runs + deleted) // LOG_EVERY > pruned.runs // LOG_EVERY:
                info(
                    f"{pruned.runs + deleted} runs deleted, up to those of {reached.astimezone(TOKYO):%Y-%m-%d %H:%M}."
                )
            pruned.runs += deleted
            pruned.kept = len(kept | skipped)
            if pace.over():
                pruned.left = instance.get_runs_count(old) - len(skipped)
                break
        kept |= skipped
        if pruned.left:
            return


def _delete_batches(instance: DagsterInstance, old: RunsFilter) -> Iterator[tuple[int, set[str], datetime]]:
    """Delete runs, oldest first; yield of each batch the count, the ids that must stay, and the time of its last run."""
    # The last skipped run still exists, and so can be the cursor.
    cursor = None
    while runs := instance.get_run_records(old, limit=BATCH_RUNS, ascending=True, cursor=cursor):
        ids = [run.dagster_run.run_id for run in runs]
        held = holding(instance, ids)
        for run_id in ids:
            if run_id in held:
                cursor = run_id
            else:
                # As `instance.delete_run`, but the events first: after an interruption the run is found again.
                instance.event_log_storage.delete_events(run_id)
                instance.run_storage.delete_run(run_id)
        yield len(ids) - len(held), held, runs[-1].create_timestamp


def _drop_files_of_runs(instance: DagsterInstance) -> Iterator[int]:
    """Delete the files of Dagster's default storage, one for each run, in batches; yield how many.

    Dagster does not read them when all events are in one database.
    """
    if has_a_file_for_each_run(instance):
        return
    unused = (Path(instance.root_directory) / "history" / "runs").glob("*.db*")
    while paths := list(islice(unused, BATCH_FILES)):
        for path in paths:
            path.unlink(missing_ok=True)
        yield len(paths)
