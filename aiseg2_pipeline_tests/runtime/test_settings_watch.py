"""Which changes of `.env` start the services again; that they do is in `test_services`."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.runtime.settings_watch import SettingsWatch
from aiseg2_pipeline.settings import Settings, environment

DEVICE = "AISEG2_HOST=192.168.0.216\nAISEG2_PASSWORD=p\n"
RUN = datetime(2026, 7, 14, 8, 15, 5, tzinfo=UTC)
QUIET = RUN.replace(second=30)


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("AISEG2_", "INFLUXDB_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".env"
    path.write_text(DEVICE, encoding="utf-8")
    return path


def test_a_change_counts_once_it_is_read_twice_and_the_minutes_run_has_ended(env_file: Path) -> None:
    watch = SettingsWatch(environment(), lambda _: None, pytest.fail)
    assert not watch.changed(QUIET)
    env_file.write_text(f"# a comment\n{DEVICE}", encoding="utf-8")
    assert [watch.changed(QUIET) for _ in range(3)] == [False] * 3
    env_file.write_text(f"{DEVICE}INFLUXDB_TOKEN=t\n", encoding="utf-8")
    assert [watch.changed(now) for now in (QUIET, RUN, QUIET)] == [False, False, True]


def test_settings_that_cannot_be_used_are_reported_once_and_do_not_stop_the_readings(env_file: Path) -> None:
    said: list[str] = []

    def problem(settings: Settings) -> str | None:
        return "Port 80 cannot be used." if settings.ui_port == 80 else None

    watch = SettingsWatch(environment(), problem, said.append)
    for text in ("", "AISEG2_HOST=http://device\n", f"{DEVICE}AISEG2_UI_PORT=80\n", "\0"):
        env_file.write_text(text, encoding="utf-8")
        assert [watch.changed(QUIET) for _ in range(3)] == [False] * 3
    assert len(said) == 4
    for sentence, named in zip(
        said, ("is not set any more", "AISEG2_HOST must be", "Port 80 cannot", "is not UTF-8"), strict=True
    ):
        assert sentence.startswith("The settings have changed, but the pipeline continues with those before. ")
        assert named in sentence
    env_file.write_text(f"{DEVICE}AISEG2_UI_PORT=81\n", encoding="utf-8")
    assert [watch.changed(QUIET) for _ in range(2)] == [False, True]
