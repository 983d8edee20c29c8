"""What the services share is imported before they are forked; where they cannot be, a sentence says what that costs."""

import subprocess
import sys

import pytest

from aiseg2_pipeline.runtime import warm_parent


def test_a_system_that_cannot_fork_starts_separate_services_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warm_parent, "CAN_FORK", False)
    said: list[str] = []
    assert not warm_parent.ready(said.append)
    (sentence,) = said
    assert "a Python of its own, because this system cannot fork them" in sentence


READY = """
import os, sys, threading
from aiseg2_pipeline.runtime import warm_parent
before = dict(os.environ)
print(warm_parent.ready(print), {"pandas", "dagster._daemon"} <= set(sys.modules), dict(os.environ) == before)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not warm_parent.CAN_FORK, reason="this system forks no services")
def test_the_services_modules_are_imported_without_a_thread_and_the_environment_stays() -> None:
    printed = subprocess.check_output([sys.executable, "-c", READY], text=True, timeout=60)  # noqa: S603 - ours
    assert printed.split() == ["True", "True", "True", "1"]
