"""Every mutated input is read or refused with a message of ours. `python -m benchmarks.fuzz` runs many more inputs."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiseg2_pipeline_tests.support.fuzz_targets import targets

SEED = 1
# About 20 s.
INPUTS = 1000


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Disable logs and warnings: a library writes one for each invalid response."""
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_mutated_inputs_are_read_or_refused_with_a_message(tmp_path: Path) -> None:
    with targets(tmp_path) as every:
        for target in every:
            outcomes = set()
            for number in range(int(INPUTS * target.share)):
                body = target.input(SEED, number)
                try:
                    outcomes.add(target.outcome(body))
                except Exception as error:
                    again = f'python -m benchmarks.fuzz --only "{target.name}" --seed {SEED} --start {number} --inputs 1'
                    error.add_note(f"{body[:500]!r}\n{again}")
                    raise
            # Otherwise the mutations would change nothing, or too much.
            assert target.name == "influxdb refusal" or "read" in outcomes, target.name
            assert not target.errors or len(outcomes) > 1, target.name
