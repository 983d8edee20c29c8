"""Where services cannot be forked, they are started as programs, and a sentence says what that costs."""

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
