"""The run, some times a day, that deletes what nobody needs any more of Dagster's own history, and gives the room back.

How long what is kept is decided here; readings and energy are not touched. One rule stands above all ages: a run that
holds the last materialization of a partition is never deleted, for Dagster would then show that partition as missing.
It is asked of the storage for each bite, and so holds also where no day was ever closed.
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
    Failure,
    JobDefinition,
    Nothing,
    OpExecutionContext,
    Out,
    RunsFilter,
    job,
    op,
)

from aiseg2_pipeline.dagster_internals import MissingInternalError, has_a_file_for_each_run
from aiseg2_pipeline.japan_time import TOKYO
from aiseg2_pipeline.logs import log_line
from aiseg2_pipeline.orchestration.jobs import BACKGROUND, CLIMATE_JOB, ENERGY_JOB, LOGGED, MINUTE_JOB
from aiseg2_pipeline.orchestration.maintenance.storage import (
    drop_evaluations,
    drop_ticks,
    give_back_space,
    holding,
)

# What runs every hour or more often is kept for AISEG2_KEEP_RUNS_DAYS.
FREQUENT_JOBS = (MINUTE_JOB, ENERGY_JOB)
# 288 runs a day that tell little: they would be a tenth of the history.
CLIMATE_DAYS = 1
OTHER_RUNS_DAYS = 30
# Five checks a minute: a fifth of what a minute takes.
EVALUATIONS_KEPT = timedelta(hours=12)
TICKS_KEPT = timedelta(days=3)
FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
BITE_RUNS = 20
BITE_FILES = 200
SAID_EVERY = 1000
# It ends before the next hour is settled. A day's runs take a minute or two, the rest is for an old history.
PRUNE_S = 1800.0


@dataclass
class Pruned:
    """What was deleted; `kept` are runs old enough that hold the status of a partition, `left` those for the next run."""

    runs: int = 0
    kept: int = 0
    left: int = 0
    evaluations: int = 0
    ticks: int = 0
    files: int = 0


@dataclass
class Pace:
    """Work in small bites: as long a pause after each, so that the live minute can write, and an end."""

    end: float
    sleep: Callable[[float], None] = time.sleep
    _began: float = field(default_factory=time.monotonic)

    def over(self) -> bool:
        """Pause for as long as the bite took; return whether the time is up."""
        self.sleep(time.monotonic() - self._began)
        self._began = time.monotonic()
        return self._began > self.end


def prune_job(keep_runs_days: int, clock: Callable[[], datetime]) -> JobDefinition:
    """Return the job; the runs of the minute and the energy are kept for `keep_runs_days`."""

    @op(name="delete_old_runs", out=Out(Nothing), description="Deletes what is old, oldest first, in small bites.")
    def delete_old_runs(context: OpExecutionContext) -> None:
        pace = Pace(time.monotonic() + PRUNE_S)
        try:
            pruned = prune(context.instance, clock(), keep_runs_days, pace, context.log.info)
        except MissingInternalError as error:
            raise Failure(
                f"Old runs are not deleted, because {error}: install the pipeline's own versions again.",
                allow_retries=False,
            ) from None
        log_line("prune", **vars(pruned))

    @job(
        name="prune_history",
        tags=BACKGROUND,
        config=LOGGED,
        description=f"Deletes runs of the climate after {CLIMATE_DAYS} day, of the minute and the energy after {keep_runs_days} days (AISEG2_KEEP_RUNS_DAYS) and other runs after "
        f"{max(keep_runs_days, OTHER_RUNS_DAYS)}, and gives the room back. Readings are never deleted, and no hour loses its green.",
    )
    def prune_history() -> None:
        delete_old_runs()

    return prune_history


def prune(
    instance: DagsterInstance, now: datetime, keep_runs_days: int, pace: Pace, say: Callable[[str], None]
) -> Pruned:
    """Delete what is older than it may be at `now`, until the pace's end; `say` gets how far it is."""
    pruned = Pruned()
    _delete_runs(instance, now, keep_runs_days, pruned, pace, say)
    for count in drop_evaluations(instance, now - EVALUATIONS_KEPT):
        pruned.evaluations += count
        if pace.over():
            break
    for count in drop_ticks(instance, now - TICKS_KEPT):
        pruned.ticks += count
        if pace.over():
            break
    for count in _drop_files_of_runs(instance):
        pruned.files += count
        if pace.over():
            break
    for _ in give_back_space(instance):
        if pace.over():
            break
    say(f"{pruned.runs} runs deleted. {pruned.kept} old ones are kept: they hold the status of an hour or a day.")
    if pruned.left:
        say(f"The time is up; {pruned.left} old runs are left for the next run.")
    return pruned


def _delete_runs(
    instance: DagsterInstance,
    now: datetime,
    keep_runs_days: int,
    pruned: Pruned,
    pace: Pace,
    say: Callable[[str], None],
) -> None:
    kept: set[str] = set()
    ages = [
        (CLIMATE_JOB, CLIMATE_DAYS),
        *((name, keep_runs_days) for name in FREQUENT_JOBS),
        (None, max(keep_runs_days, OTHER_RUNS_DAYS)),
    ]
    for job_name, days in ages:
        old = RunsFilter(job_name=job_name, statuses=FINISHED, created_before=now - timedelta(days=days))
        passed: set[str] = set()
        for deleted, held, reached in _bites(instance, old):
            passed |= held
            if (pruned.runs + deleted) // SAID_EVERY > pruned.runs // SAID_EVERY:
                say(
                    f"{pruned.runs + deleted} runs deleted, up to those of {reached.astimezone(TOKYO):%Y-%m-%d %H:%M}."
                )
            pruned.runs += deleted
            pruned.kept = len(kept | passed)
            if pace.over():
                pruned.left = instance.get_runs_count(old) - len(passed)
                break
        kept |= passed
        if pruned.left:
            return


def _bites(instance: DagsterInstance, old: RunsFilter) -> Iterator[tuple[int, set[str], datetime]]:
    """Delete runs, oldest first; yield for each bite how many, those that must stay, and when its last run began."""
    # The last run that was passed over is still there, and so can say where to go on.
    cursor = None
    while runs := instance.get_run_records(old, limit=BITE_RUNS, ascending=True, cursor=cursor):
        ids = [run.dagster_run.run_id for run in runs]
        held = holding(instance, ids)
        for run_id in ids:
            if run_id in held:
                cursor = run_id
            else:
                # As `delete_run`, but the events first: what is cut off in between is found again by its run.
                instance.event_log_storage.delete_events(run_id)
                instance.run_storage.delete_run(run_id)
        yield len(ids) - len(held), held, runs[-1].create_timestamp


def _drop_files_of_runs(instance: DagsterInstance) -> Iterator[int]:
    """Delete what Dagster's default storage left behind, a file for each run, bite by bite; yield how many.

    Nobody reads them once the events lie in one database.
    """
    if has_a_file_for_each_run(instance):
        return
    left_behind = (Path(instance.root_directory) / "history" / "runs").glob("*.db*")
    while paths := list(islice(left_behind, BITE_FILES)):
        for path in paths:
            path.unlink(missing_ok=True)
        yield len(paths)
