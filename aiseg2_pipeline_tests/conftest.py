"""Fixtures that several test modules share."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer, influxd_path
from aiseg2_pipeline_tests.support.missing import missing
from aiseg2_pipeline_tests.support.postgres import postgres, postgres_programs

if TYPE_CHECKING:
    from aiseg2_pipeline_tests.support.guarded_pipeline import Evidence

_bucket_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """The one real server of all tests; most use `influx`, an empty bucket on it."""
    try:
        influxd_path()
    except FileNotFoundError as error:
        missing(str(error))
    with InfluxServer(tmp_path_factory.mktemp("influxdb"), token="test-token") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """The port of the one real PostgreSQL of all tests."""
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


@pytest.fixture(scope="session")
def recordings(
    tmp_path_factory: pytest.TempPathFactory,
    influx_server: InfluxServer,  # noqa: ARG001 - skips where no InfluxDB is installed
    postgres_port: int,
) -> "tuple[Evidence, Evidence]":
    """What two pipelines printed and left behind; the second has its history in PostgreSQL."""
    from aiseg2_pipeline_tests.support.guarded_pipeline import run_all, run_on_postgres  # noqa: PLC0415 - slow to import, for a few tests

    others: list[Evidence] = []
    evidence = run_all(
        tmp_path_factory.mktemp("evidence"),
        lambda: others.append(run_on_postgres(tmp_path_factory.mktemp("postgres"), postgres_port)),
    )
    return evidence, others[0]


@pytest.fixture(scope="session")
def evidence(recordings: "tuple[Evidence, Evidence]") -> "Evidence":
    return recordings[0]


@pytest.fixture(scope="session")
def evidence_on_postgres(recordings: "tuple[Evidence, Evidence]") -> "Evidence":
    return recordings[1]
