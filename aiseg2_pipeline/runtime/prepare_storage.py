"""Prepare Dagster's storage before its services start: migrate the tables, end orphaned runs, drop later times than now.

A run whose process ended together with the code server (a power cut, a killed machine) stays "started" for ever,
because no Dagster process is left to update it. Only one background run is active at a time, so an orphaned one would
block every backfill. After a clock that was ahead, Dagster would run nothing before the time of its newest tick.

    python -m aiseg2_pipeline.runtime.prepare_storage
"""

import contextlib
from datetime import UTC, datetime

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from aiseg2_pipeline.dagster_internals import MissingInternalError
from aiseg2_pipeline.japan_time import CLOCK_IS_SET
from aiseg2_pipeline.orchestration.maintenance.storage import drop_later_than

# A queued run can still start.
ACTIVE = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
ENDED = "The pipeline stopped before this run ended. What the run had stored is kept; the rest goes to later runs."


def fail_orphaned_runs(instance: DagsterInstance) -> None:
    """Mark every active run as failed; call it while no run process exists."""
    for run in instance.get_runs(RunsFilter(statuses=ACTIVE)):
        instance.report_run_failed(run, ENDED)


def main() -> None:
    """Bring the storage of DAGSTER_HOME up to date."""
    with DagsterInstance.get() as instance:
        instance.upgrade()
        fail_orphaned_runs(instance)
        now = datetime.now(UTC)
        # Otherwise the later times are the right ones.
        if now >= CLOCK_IS_SET:
            with contextlib.suppress(MissingInternalError):
                drop_later_than(instance, now)


if __name__ == "__main__":
    main()
