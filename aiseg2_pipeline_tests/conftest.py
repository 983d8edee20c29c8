"""Fixtures that several test modules share."""

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer, influxd_path
from aiseg2_pipeline_tests.support.missing import missing
from aiseg2_pipeline_tests.support.postgres import postgres, postgres_programs

_bucket_numbers = itertools.count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return a process more than there are cores: some tests wait for a minute, or for other processes."""
    return (os.cpu_count() or 1) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each reason for which tests were skipped on one line."""
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """The real server of this process's tests; most use `influx`, an empty bucket on it."""
    try:
        influxd_path()
    except FileNotFoundError as error:
        missing(str(error))
    with InfluxServer(tmp_path_factory.mktemp("influxdb"), token="test-token") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """The port of the real PostgreSQL of this process's tests."""
    if postgres_programs() is None:
        missing("PostgreSQL is not installed: run .ci/install-servers")
    # Not in pytest's folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (inner := Path(folder) / "server").mkdir()
        with postgres(inner) as number:
            yield number


@pytest.fixture
def influx(influx_server: InfluxServer) -> Iterator[Influx]:
    """An empty bucket of the test's own on the running server, behind a pass-through."""
    with Influx(influx_server, f"bucket-{next(_bucket_numbers)}") as influx:
        yield influx
