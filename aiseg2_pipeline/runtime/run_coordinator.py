"""Where a submitted run goes (dagster.yaml names it): a minute starts at once, everything else waits its turn in Dagster's queue.

So the minute is early without a queue that is looked at every second, and a backfill of fifty gaps still starts one run at
a time. Loaded by the daemon and the webserver: nothing of the pipeline itself is imported here.
"""

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator, SubmitRunContext

from aiseg2_pipeline.tags import MINUTE_TAG


class MinuteFirstRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, which the runs of the minute schedule pass by."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Launch a minute's run now; queue any other."""
        run = context.dagster_run
        if MINUTE_TAG not in run.tags or run.status != DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        return self._instance.get_run_by_id(run.run_id) or run
