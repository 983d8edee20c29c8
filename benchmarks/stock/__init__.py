"""The project as it is without anything done about cost: the same assets, schedules and resources on Dagster as it comes.

Dagster's own executor, loggers and `dagster.yaml`; a module for each executor, because a workspace names modules.
"""

from dagster import Definitions, ExecutorDefinition

from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.settings import load_settings


def stock_definitions(executor: ExecutorDefinition | None) -> Definitions:
    """Return our definitions under another executor; None is Dagster's default, a process for each step."""
    ours = build_definitions(load_settings())
    return Definitions(
        assets=ours.assets,
        asset_checks=ours.asset_checks,
        jobs=ours.jobs,
        schedules=ours.schedules,
        sensors=ours.sensors,
        resources=ours.resources,
        executor=executor,
    )
