"""A real InfluxDB 2 for tests, benchmarks, and for trying the pipeline by hand.

`InfluxServer` is the process and its administration; `Influx` is a test's own bucket with its own token, behind a proxy
that injects faults (`influxdb_proxy`). `.ci/install-servers` builds the server.

By hand, until Ctrl-C (then set INFLUXDB_HOST=127.0.0.1:8086, INFLUXDB_ORG, INFLUXDB_BUCKET and INFLUXDB_TOKEN):

    python -m aiseg2_pipeline_tests.support.influxdb --port 8086 --org home --bucket aiseg2 --token T --data DIR
"""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Self

import click
import pandas as pd
import requests
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.domain.authorization import Authorization
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.domain.permission import Permission
from influxdb_client.domain.permission_resource import PermissionResource

from aiseg2_pipeline.frames.readings import KEY, Row, frame
from aiseg2_pipeline.influxdb.client import InfluxWriter
from aiseg2_pipeline.store import Destination
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.influxdb_proxy import InfluxFaults, InfluxProxy

# A year of minutes on a busy machine took more than 30 s; only a failing test waits longer.
START_S = 180
# Longer than the pipeline waits for an answer (10 s).
SLOW_S = 12.0
_COMPOSE_FILE = Path(__file__).parents[2] / "docker-compose.yml"
_ALWAYS = "range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z)"
# What Flux adds to the tags of a record.
_NO_TAGS = {"result", "table", "_start", "_stop", "_time", "_value", "_field", "_measurement"}


class InfluxServer:
    """influxd on the loopback interface, with one organization; `token` has all permissions.

    `folder` keeps its data across restarts.
    """

    def __init__(self, folder: Path, *, org: str = "home", token: str, port: int = 0) -> None:
        """Choose the port; entering starts the server."""
        self.org = org
        self.token = token
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, Authorization] = {}

    def __enter__(self) -> Self:
        """Start the server; the first start in a folder creates the organization and the token."""
        self.start()
        if requests.get(f"{self.url}/api/v2/setup", timeout=START_S).json()["allowed"]:
            first = {
                "username": "test",
                "password": "test-password",
                "bucket": "first",
                "retentionPeriodSeconds": 0,
            }
            first |= {"org": self.org, "token": self.token}
            requests.post(f"{self.url}/api/v2/setup", json=first, timeout=START_S).raise_for_status()
        self.client = InfluxDBClient(self.url, self.token, org=self.org, timeout=600_000)
        self._org_id = self.client.organizations_api().find_organizations(org=self.org)[0].id
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and keep its data."""
        self.client.close()
        self.stop()

    def start(self) -> None:
        """Start influxd; return when it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "influxd.log"
        paths = {"bolt": "influxd.bolt", "sqlite": "influxd.sqlite", "engine": "engine"}
        options = [f"--{name}-path={self.folder / file}" for name, file in paths.items()]
        options += [f"--http-bind-address=127.0.0.1:{self.port}", "--reporting-disabled", "--log-level=error"]
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                [influxd_path(), *options],
                stdout=output,
                stderr=output,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            )
        end = time.monotonic() + START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"influxd did not start: {log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/health", timeout=5).ok
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """Stop influxd and keep its data."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill influxd, as a power failure does."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=START_S)
            self._process = None

    @property
    def running(self) -> bool:
        """Return whether influxd runs."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Return the process's id."""
        assert self._process is not None
        return self._process.pid

    def create_bucket(self, name: str, retention: timedelta | None = None) -> None:
        """Create a bucket with a retention of at least an hour, or without one."""
        rules = BucketRetentionRules(
            type="expire", every_seconds=int(retention.total_seconds()) if retention else 0
        )
        self.client.buckets_api().create_bucket(bucket_name=name, org=self.org, retention_rules=rules)

    def set_retention(self, name: str, retention: timedelta) -> None:
        """Change for how long a bucket keeps points."""
        buckets = self.client.buckets_api()
        bucket = buckets.find_bucket_by_name(name)
        bucket.retention_rules = [
            BucketRetentionRules(type="expire", every_seconds=int(retention.total_seconds()))
        ]
        buckets.update_bucket(bucket)

    def drop_bucket(self, name: str) -> None:
        """Delete a bucket and its points."""
        buckets = self.client.buckets_api()
        buckets.delete_bucket(buckets.find_bucket_by_name(name))

    def rename_bucket(self, name: str, new_name: str) -> None:
        """Rename a bucket: writes to the old name get a 404, and its points stay."""
        buckets = self.client.buckets_api()
        bucket = buckets.find_bucket_by_name(name)
        bucket.name = new_name
        buckets.update_bucket(bucket)

    def create_token(self, bucket: str | None = None, *, read: bool = True, write: bool = True) -> str:
        """Return a new token for a bucket, or for all of the organization's buckets."""
        bucket_id = self.client.buckets_api().find_bucket_by_name(bucket).id if bucket else None
        resource = PermissionResource(org_id=self._org_id, type="buckets", id=bucket_id)
        actions = [action for action, allowed in (("read", read), ("write", write)) if allowed]
        permissions = [Permission(action=action, resource=resource) for action in actions]
        created = self.client.authorizations_api().create_authorization(self._org_id, permissions)
        self._tokens[created.token] = created
        return str(created.token)

    def allow(self, token: str, *, active: bool) -> None:
        """Activate or deactivate a token of `create_token`; an inactive one gets a 403."""
        self._tokens[token].status = "active" if active else "inactive"
        self.client.authorizations_api().update_authorization(self._tokens[token])

    def query(self, flux: str) -> list[dict[str, Any]]:
        """Return the records of a Flux query."""
        return [record.values for record in self.client.query_api().query_stream(flux)]  # noqa: PD011 - no frame

    def points(self, bucket: str, measurement: str | None = None) -> list[dict[str, Any]]:
        """Return a bucket's points, each its `measurement`, `time` (UTC), tags, and the field under its name."""
        chosen = f" |> filter(fn: (r) => r._measurement == {json.dumps(measurement)})" if measurement else ""
        return [
            {"measurement": record["_measurement"], "time": record["_time"], record["_field"]: record["_value"]}
            | {name: value for name, value in record.items() if name not in _NO_TAGS and value is not None}
            for record in self.query(f"from(bucket: {json.dumps(bucket)}) |> {_ALWAYS}{chosen}")
        ]

    def readings(self, bucket: str) -> pd.DataFrame:
        """Return a bucket's points as a readings frame, ordered by its key."""
        fills = {
            (point["time"], *_series(point)): point["interval_s"] for point in self.points(bucket, "power_fill")
        }
        rows = []
        points = (self.points(bucket, measurement) for measurement in ("power", "battery", "flow"))
        for point in chain.from_iterable(points):
            kind, label = _series(point)
            name, _, unit = label.removesuffix(")").rpartition("(") if label.endswith(")") else (label, "", "")
            interval_s = fills.pop((point["time"], kind, label), 0)
            rows.append(Row(pd.Timestamp(point["time"]), kind, name, point["value"], unit, interval_s))
        assert not fills, f"marks without a filled value: {fills}"
        return frame(rows).sort_values(KEY, ignore_index=True)


class Influx:
    """A test's own bucket, with a token for the organization's buckets, behind the proxy `proxy`."""

    def __init__(self, server: InfluxServer, bucket: str, *, retention: timedelta | None = None) -> None:
        """Bind the proxy's port; entering creates the bucket, with a retention if given."""
        self.server = server
        self.org = server.org
        self.bucket = bucket
        self._retention = retention
        self.proxy = InfluxProxy(server.url)
        self.url = self.proxy.url

    def __enter__(self) -> Self:
        """Create the bucket and the token, and start the proxy."""
        self.server.create_bucket(self.bucket, self._retention)
        self.token = self.server.create_token()
        self.proxy.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Delete the bucket; restart the server if a test stopped it."""
        self.proxy.stop()
        if not self.server.running:
            self.server.start()
        self.server.drop_bucket(self.bucket)

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings of a pipeline that writes to this bucket."""
        return {
            "INFLUXDB_HOST": self.url.removeprefix("http://"),
            "INFLUXDB_TOKEN": self.token,
            "INFLUXDB_ORG": self.org,
            "INFLUXDB_BUCKET": self.bucket,
        }

    @property
    def destination(self) -> Destination:
        """Return the destination that a pipeline with `settings` has."""
        return Destination(self.settings["INFLUXDB_HOST"], self.org, self.bucket)

    def writer(self) -> InfluxWriter:
        """Return a writer to the bucket."""
        return InfluxWriter(self.url, self.token, self.org, self.bucket)

    def empty(self) -> None:
        """Delete the bucket and create a new one with its name."""
        self.server.drop_bucket(self.bucket)
        self.server.create_bucket(self.bucket, self._retention)

    def points(self, measurement: str | None = None) -> list[dict[str, Any]]:
        """Return the bucket's points: see `InfluxServer.points`."""
        return self.server.points(self.bucket, measurement)

    def readings(self) -> pd.DataFrame:
        """Return the bucket's points as a readings frame, ordered by its key."""
        return self.server.readings(self.bucket)


def _series(point: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind and the label of a point's series."""
    if point["measurement"] == "battery":
        return "battery", point["detail-section"]
    if point["measurement"] == "flow":
        return "flow", point["summary"]
    return (
        (point["detail-type"], point["detail-section"]) if "detail-type" in point else ("total", point["summary"])
    )


@cache
def influxd_path() -> Path:
    """Return the server built by .ci/install-servers, or an influxd 2 on PATH. Raise FileNotFoundError."""
    version = re.findall(r"image: influxdb:([0-9.]+)-", _COMPOSE_FILE.read_text(encoding="utf-8"))[0]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    built = caches / "aiseg2-pipeline" / f"influxdb-v{version}" / "influxd"
    if built.is_file():
        return built
    if (found := shutil.which("influxd")) is not None:
        said = subprocess.run([found, "version"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - influxd
        if re.match(r"InfluxDB v?2\.", said):
            return Path(found)
    raise FileNotFoundError("InfluxDB 2 is not installed: run .ci/install-servers")


@click.command(context_settings={"show_default": True})
@click.option("--port", type=int, default=8086)
@click.option("--org", default="home")
@click.option("--bucket", default="aiseg2")
@click.option("--token", required=True)
@click.option(
    "--data", type=click.Path(path_type=Path, resolve_path=True), required=True, help="The folder of its data."
)
@click.option("--fault-rate", default=0.0, help="The share of writes with a fault.")
@click.option("--fault-seed", default=1, help="The same seed gives the same faults.")
def main(port: int, org: str, bucket: str, token: str, data: Path, fault_rate: float, fault_seed: int) -> None:
    """Run a real InfluxDB 2 until Ctrl-C, to try the pipeline with it."""
    # A supervisor's SIGTERM stops influxd as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt), InfluxServer(data, org=org, token=token) as server:
        if server.client.buckets_api().find_bucket_by_name(bucket) is None:
            server.create_bucket(bucket)
        proxy = InfluxProxy(server.url, port)
        if fault_rate:
            proxy.fault = InfluxFaults(fault_seed, fault_rate, slow_s=SLOW_S)
        proxy.start()
        click.echo(f"InfluxDB listens on {proxy.url}, organization {org}, bucket {bucket}.")
        try:
            threading.Event().wait()
        finally:
            proxy.stop()


if __name__ == "__main__":
    main()
