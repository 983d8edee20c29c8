"""Start a minute's run at once and queue every other run (dagster.yaml names this module).

The minute is then on time without a queue that is polled every second, and a backfill of fifty gaps still starts one
run at a time. The daemon and the webserver load this module, so it imports nothing else of the pipeline but the tags.
"""

from dagster import DagsterRun, DagsterRunStatus, QueuedRunCoordinator, SubmitRunContext

from aiseg2_pipeline.tags import MINUTE_TAG


class MinuteFirstRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue, bypassed by the runs of the minute schedule."""

    def submit_run(self, context: SubmitRunContext) -> DagsterRun:
        """Launch a minute's run now; queue any other."""
        run = context.dagster_run
        if MINUTE_TAG not in run.tags or run.status != DagsterRunStatus.NOT_STARTED:
            return super().submit_run(context)
        self._instance.launch_run(run.run_id, context.workspace)
        return self._instance.get_run_by_id(run.run_id) or run
