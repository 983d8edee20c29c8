"""Fixtures that several test modules share."""

import itertools
import os
import shutil
from collections.abc import Iterator

import pytest

from aiseg2_pipeline_tests.influxdb_server import InfluxServer

_bucket_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """One real server for all tests; they use `influx`, which leaves it as it was."""
    if shutil.which("influxd") is None:
        missing = "influxd is not installed: run .ci/install-servers to test against a real server"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with InfluxServer(tmp_path_factory.mktemp("influxdb"), token="test-token") as server:
        yield server


@pytest.fixture
def influx(influx_server: InfluxServer) -> Iterator[InfluxServer]:
    """The real server, running, without faults, its log of requests empty."""
    influx_server.requests.clear()
    yield influx_server
    influx_server.fault = None
    influx_server.may_read = True
    if not influx_server.running:
        influx_server.start()


@pytest.fixture
def bucket(influx: InfluxServer) -> Iterator[str]:
    """An empty bucket of the test's own."""
    name = f"bucket-{next(_bucket_numbers)}"
    influx.create_bucket(name)
    yield name
    if not influx.running:
        influx.start()
    influx.drop_bucket(name)
