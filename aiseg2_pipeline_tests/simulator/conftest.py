"""Fixtures that several tests of the simulator use."""

from collections.abc import Iterator

import pytest

from aiseg2_pipeline_tests.support.simulator_client import NOON, Unit, simulated


@pytest.fixture(scope="module")
def shared() -> Iterator[Unit]:
    """A simulated device at noon, one for a module's tests."""
    with simulated(NOON) as unit:
        yield unit
