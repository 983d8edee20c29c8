"""Dagster's home as it is before anything starts, on SQLite and on a real PostgreSQL."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from dagster import DagsterInstance, Definitions, asset, in_process_executor

from aiseg2_pipeline.orchestration.maintenance.prune import Pace, prune
from aiseg2_pipeline.runtime import dagster_home
from aiseg2_pipeline.runtime.dagster_home import DagsterHomeError, make
from aiseg2_pipeline.settings import Settings, environment
from aiseg2_pipeline_tests.support.postgres import PASSWORD, address

PROJECT = Path(__file__).parents[2]


UNIT = {"AISEG2_HOST": "unit", "AISEG2_PASSWORD": "p"}


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, **given: str) -> Settings:
    """Make the home of these settings, and leave the environment as what starts then will have it."""
    settings = Settings.from_environment(UNIT | {"AISEG2_DATA_DIR": str(folder)} | given)
    monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    if settings.run_history:
        monkeypatch.setenv("AISEG2_POSTGRES_URL", settings.run_history.get_secret_value())
    said: list[str] = []
    make(settings, PROJECT, environment(folder), said.append)
    assert said == []
    return settings


@asset
def something() -> None:
    """An asset whose run leaves a history."""


def run_once(instance: DagsterInstance) -> str:
    job = Definitions(assets=[something], executor=in_process_executor).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance).run_id


def test_sqlite_files_are_made_able_to_shrink_and_for_their_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = made(tmp_path, monkeypatch).dagster_home
    files = sorted(path.relative_to(home).as_posix() for path in home.rglob("*.db"))
    assert files == ["event_log.db", "history/runs.db", "schedules/schedules.db"]
    for name in files:
        with closing(sqlite3.connect(home / name)) as connection:
            assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_made_again_it_keeps_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, monkeypatch)
    with DagsterInstance.get() as instance:
        run_id = run_once(instance)
    made(tmp_path, monkeypatch)
    with DagsterInstance.get() as instance:
        assert [run.run_id for run in instance.get_runs()] == [run_id]


def test_the_history_lies_in_postgres_where_that_is_set_and_is_pruned_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_port: int
) -> None:
    home = made(tmp_path, monkeypatch, AISEG2_POSTGRES_URL=address(postgres_port)).dagster_home
    with DagsterInstance.get() as instance:
        run_ids = [run_once(instance), run_once(instance)]
        assert list(home.rglob("*.db")) == []
        later = datetime.now(UTC) + timedelta(days=100)
        pace = Pace(end=float("inf"), sleep=lambda _: None)
        pruned = prune(instance, later, 3, pace, lambda _: None)
        assert (pruned.runs, pruned.kept, pruned.left) == (1, 1, 0)
        assert [run.run_id for run in instance.get_runs()] == run_ids[1:]
        events = instance.fetch_materializations(something.key, limit=10).records
        assert [event.run_id for event in events] == run_ids[1:]
    assert PASSWORD not in "".join(path.read_text(encoding="utf-8") for path in home.rglob("*.yaml"))


@pytest.mark.parametrize("wrong", ["password", "port"])
def test_a_postgres_that_cannot_be_used_is_told_with_its_setting_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_port: int, wrong: str
) -> None:
    url = address(postgres_port, "another-secret") if wrong == "password" else address(1)
    with pytest.raises(DagsterHomeError, match="AISEG2_POSTGRES_URL cannot be used") as caught:
        made(tmp_path, monkeypatch, AISEG2_POSTGRES_URL=url)
    for secret in ("another-secret", PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value.__context__)


def test_an_option_that_postgres_does_not_know_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_port: int
) -> None:
    with pytest.raises(DagsterHomeError, match=r"AISEG2_POSTGRES_URL cannot be used .*colour"):
        made(tmp_path, monkeypatch, AISEG2_POSTGRES_URL=f"{address(postgres_port)}?colour=red")


def test_the_demo_keeps_its_history_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there.
    home = made(tmp_path, monkeypatch, AISEG2_HOST="", AISEG2_POSTGRES_URL=address(1)).dagster_home
    assert (home / "history" / "runs.db").exists()
    assert "POSTGRES" not in (home / "dagster.yaml").read_text(encoding="utf-8")


def test_without_the_extra_the_sentence_names_it(tmp_path: Path) -> None:
    without = (
        "import sys; sys.modules['dagster_postgres'] = None\n"
        "from pathlib import Path\n"
        "from aiseg2_pipeline.runtime import dagster_home\n"
        "from aiseg2_pipeline.settings import load_settings\n"
        f"dagster_home.make(load_settings(), Path({str(PROJECT)!r}), {{}}, print)\n"
    )
    given = UNIT | {"AISEG2_DATA_DIR": str(tmp_path), "AISEG2_POSTGRES_URL": "postgresql://a:b@127.0.0.1:1/c"}
    ended = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", without],
        cwd=tmp_path,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"{dagster_home.__name__}.{DagsterHomeError.__name__}: AISEG2_POSTGRES_URL is set, but")
    assert "aiseg2-pipeline[postgres]" in last
