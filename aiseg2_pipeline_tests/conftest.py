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
    from aiseg2_pipeline_tests.support.guarded_pipeline import Lived

_bucket_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def influx_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """One real server for all tests; most use `influx`, which leaves it as it was."""
    try:
        influxd_path()
    except FileNotFoundError as error:
        missing(str(error))
    with InfluxServer(tmp_path_factory.mktemp("influxdb"), token="test-token") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_port() -> Iterator[int]:
    """The port of one real PostgreSQL for all tests that ask for it."""
    if postgres_programs() is None:
        missing("PostgreSQL is not installed: run .ci/install-servers")
    # Not pytest's own folder, which only its owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (inner := Path(folder) / "server").mkdir()
        with postgres(inner) as number:
            yield number


@pytest.fixture
def influx(influx_server: InfluxServer) -> Iterator[Influx]:
    """An empty bucket of the test's own on the real server, which runs, and the pass-through in front of it."""
    with Influx(influx_server, f"bucket-{next(_bucket_numbers)}") as influx:
        yield influx


@pytest.fixture(scope="session")
def lives(
    tmp_path_factory: pytest.TempPathFactory,
    influx_server: InfluxServer,  # noqa: ARG001 - it tells where no InfluxDB is installed
    postgres_port: int,
) -> "tuple[Lived, Lived]":
    """What two pipelines said and left, after all that can happen to one; the second with its history in PostgreSQL."""
    from aiseg2_pipeline_tests.support.guarded_pipeline import live, live_on_postgres  # noqa: PLC0415 - slow to import, for a few tests

    others: list[Lived] = []
    lived = live(
        tmp_path_factory.mktemp("lived"),
        lambda: others.append(live_on_postgres(tmp_path_factory.mktemp("postgres"), postgres_port)),
    )
    return lived, others[0]


@pytest.fixture(scope="session")
def lived(lives: "tuple[Lived, Lived]") -> "Lived":
    """The pipeline that went through everything."""
    return lives[0]


@pytest.fixture(scope="session")
def lived_on_postgres(lives: "tuple[Lived, Lived]") -> "Lived":
    """The one with its history in PostgreSQL."""
    return lives[1]
