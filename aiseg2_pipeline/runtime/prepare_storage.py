"""Prepare Dagster's storage before its services start: create or migrate the tables, and end orphaned runs.

A run whose process ended together with the code server (a power cut, a killed machine) stays "started" for ever,
because no Dagster process is left to update it. Only one background run is active at a time, so an orphaned one would
block every backfill.

    python -m aiseg2_pipeline.runtime.prepare_storage
"""

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

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


if __name__ == "__main__":
    main()
