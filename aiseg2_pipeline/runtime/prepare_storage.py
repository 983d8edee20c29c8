"""Makes Dagster's storage ready before anything of Dagster starts: its tables, and no run that only seems to go on.

A run whose process ended together with the code server (a power cut, a killed machine) stays "started" for ever:
Dagster has nobody left who could tell. Of the background work one run goes at a time, so that one would keep
all healing waiting.

    python -m aiseg2_pipeline.runtime.prepare_storage
"""

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

# What waits in the queue can still go.
GOING = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
ENDED = "The pipeline ended before this run did. What it had stored is kept, and what is left goes to later runs."


def end_left_runs(instance: DagsterInstance) -> None:
    """Mark every run as failed that was going when the pipeline ended; call it while none runs."""
    for run in instance.get_runs(RunsFilter(statuses=GOING)):
        instance.report_run_failed(run, ENDED)


def main() -> None:
    """Bring the storage of DAGSTER_HOME up to date."""
    with DagsterInstance.get() as instance:
        instance.upgrade()
        end_left_runs(instance)


if __name__ == "__main__":
    main()
