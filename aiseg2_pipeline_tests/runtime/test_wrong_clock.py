"""The clock of all processes was ahead, then right, as on a box without a battery clock."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiseg2_pipeline_tests.support.running_pipeline import (
    COMMAND,
    Pipeline,
    environment,
    free_ports,
    needs_proc,
    started,
)
from aiseg2_pipeline_tests.support.shifted_clock import shifted_clock

DAY = timedelta(days=1)
# The next minute's reading, without a person; a minute and the start are part of it.
WITHIN_S = 120


def reads_from(pipeline: Pipeline, now: datetime) -> bool:
    """Return whether there is a live reading of this time or of the ten minutes after it."""
    return any(now <= time < now + timedelta(minutes=10) for time in pipeline.times())


@needs_proc
def test_after_a_clock_that_was_ahead_the_next_minute_is_read_within_two_minutes(tmp_path: Path) -> None:
    clock = shifted_clock(tmp_path)
    settings = free_ports() | clock.variables
    clock.set_ahead(DAY)
    with started(tmp_path, settings) as pipeline:
        pipeline.wait(lambda: reads_from(pipeline, datetime.now(UTC) + DAY - timedelta(minutes=5)))
    clock.set_ahead(timedelta(0))
    # Ahead before the start, then ahead while it runs.
    with started(tmp_path, settings) as pipeline:
        right_since = datetime.now(UTC)
        pipeline.wait(lambda: reads_from(pipeline, right_since), WITHIN_S)
        clock.set_ahead(2 * DAY)
        ahead_since = datetime.now(UTC) + 2 * DAY
        pipeline.wait(lambda: reads_from(pipeline, ahead_since))
        clock.set_ahead(timedelta(0))
        right_since = datetime.now(UTC)
        health = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, "health"],
            cwd=pipeline.folder,
            env=environment(settings),
            capture_output=True,
            text=True,
            check=False,
        )
        assert health.returncode == 1
        assert "lies in the future" in health.stderr
        pipeline.wait(lambda: reads_from(pipeline, right_since), WITHIN_S)
