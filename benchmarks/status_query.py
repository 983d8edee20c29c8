"""Measure how long Dagster's pages take for the status of an asset's partitions, without and with a cache.

    python -m benchmarks.status_query DAGSTER_HOME

Run it with the environment of the pipeline. Each query runs without a cache ("cold"), then with one ("warm").
"""

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

from dagster import AssetKey, DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.schema import create_schema

PROJECT = Path(__file__).parents[1]
ASSETS = ("power_readings", "influxdb_power", "energy_history", "influxdb_energy")
# The query of an asset's page, without its parts for partitions that are no times.
QUERY = """query PartitionHealthQuery($assetKey: AssetKeyInput!) { assetNodeOrError(assetKey: $assetKey) { ... on AssetNode {
    id partitionKeysByDimension { name type partitionKeys }
    assetPartitionStatuses { ... on TimePartitionStatuses { ranges { status startTime endTime startKey endKey } } } } } }"""
HOUR_S = 3600


def query_status(schema: Any, context: WorkspaceProcessContext, asset: str) -> tuple[float, dict[str, Any]]:
    """Return the seconds that the query took, and its result."""
    variables = {"assetKey": {"path": [asset]}}
    request = context.create_request_context()
    began = time.perf_counter()
    answer = asyncio.run(schema.execute_async(QUERY, context_value=request, variable_values=variables))
    took_s = time.perf_counter() - began
    if answer.errors:
        raise SystemExit(str(answer.errors[0]))
    node: dict[str, Any] = answer.data["assetNodeOrError"]
    return took_s, node


def main() -> None:
    """Print a line for each asset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path)
    home = parser.parse_args().home
    schema = create_schema()
    target = ModuleTarget("aiseg2_pipeline.definitions", None, str(PROJECT), "aiseg2-pipeline")
    with (
        DagsterInstance.from_config(str(home)) as instance,
        WorkspaceProcessContext(instance, target, code_server_log_level="warning") as context,
    ):
        for asset in ASSETS:
            instance.wipe_asset_cached_status([AssetKey(asset)])
            cold_s, node = query_status(schema, context, asset)
            warm_s, node = query_status(schema, context, asset)
            ranges = node["assetPartitionStatuses"]["ranges"]
            green_s = sum(one["endTime"] - one["startTime"] for one in ranges if one["status"] == "MATERIALIZED")
            partitions = len(node["partitionKeysByDimension"][0]["partitionKeys"])
            print(
                f"{asset}: cold {cold_s:.2f} s, warm {warm_s:.2f} s; {green_s / HOUR_S:.0f} hours green in {len(ranges)} ranges of "
                f"{partitions} partitions"
            )


if __name__ == "__main__":
    main()
