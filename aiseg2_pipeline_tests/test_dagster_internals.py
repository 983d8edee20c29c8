"""The private names of Dagster's: the pinned version has each of them, and what happens in one that does not."""

import importlib.util
import inspect
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import dagster_webserver.cli
import pytest
import uvicorn
from dagster import DagsterInstance, JobDefinition
from dagster._core.execution import context_creation_job
from dagster._grpc import server_watcher
from dagster._grpc.server import DagsterApiServer

from aiseg2_pipeline import dagster_internals as internals
from aiseg2_pipeline.orchestration.maintenance.close_day import close_job
from aiseg2_pipeline.orchestration.maintenance.prune import prune_job
from aiseg2_pipeline.orchestration.resources import resources
from aiseg2_pipeline.runtime import code_server, webserver
from aiseg2_pipeline.settings import Settings

TUNED_MAIN = "aiseg2_pipeline.runtime.dagster_tuning.main"
NOW = datetime(2026, 7, 14, tzinfo=UTC)


def now() -> datetime:
    return NOW


def test_dagster_has_every_module_that_is_preloaded_or_run() -> None:
    for name in (*internals.RUN_MODULES, f"{internals.DAEMON}.__main__", f"{internals.DAEMON}.cli"):
        assert importlib.util.find_spec(name), name


def test_dagster_starts_runs_in_the_context_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DagsterApiServer, "_mp_ctx", None, raising=False)
    ours = multiprocessing.get_context("forkserver")
    internals.set_run_context(lambda: ours)
    server = cast(Any, DagsterApiServer.__new__(DagsterApiServer))
    server._mp_ctx = multiprocessing.get_context("spawn")  # noqa: SLF001 - as Dagster does
    assert server._mp_ctx is ours  # noqa: SLF001 - as above


def test_dagster_polls_the_code_server_at_the_interval_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "WATCH_INTERVAL" in inspect.getsource(server_watcher.watch_grpc_server_thread)
    monkeypatch.setattr(server_watcher, "WATCH_INTERVAL", 1)
    internals.poll_code_server(20)
    assert server_watcher.WATCH_INTERVAL == 20
    monkeypatch.delattr(server_watcher, "WATCH_INTERVAL")
    internals.poll_code_server(20)
    assert not hasattr(server_watcher, "WATCH_INTERVAL")


def test_dagster_takes_the_default_loggers_that_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_creation_job, "default_system_loggers", None)
    internals.set_default_loggers([(1, {})])
    assert cast(Any, context_creation_job).default_system_loggers(None) == [(1, {})]
    monkeypatch.delattr(context_creation_job, "default_system_loggers")
    internals.set_default_loggers([(1, {})])
    assert not hasattr(context_creation_job, "default_system_loggers")


def test_a_code_server_that_cannot_serve_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("dagster._cli.api.grpc_command")
    monkeypatch.setattr(code_server, "load_settings", lambda: Settings(AISEG2_WARM_RUNS=False))
    for effect in ("look_up_files_once", "import_module", "leave_what_is_there_alone"):
        monkeypatch.setattr(code_server, effect, lambda *_: None)
    with pytest.raises(
        SystemExit, match="definitions cannot be served, because this Dagster has no `grpc_command`"
    ):
        code_server.main()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: prune_job(3, now), "Old runs are not deleted"),
        (lambda: close_job(NOW, now), "The day is not closed"),
    ],
)
def test_without_dagsters_tables_its_history_is_left_as_it_is(
    make: Callable[[], JobDefinition], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delattr("dagster._core.storage.event_log.schema.SqlEventLogStorageTable")
    settings = Settings(AISEG2_DATA_DIR=tmp_path)
    with DagsterInstance.ephemeral() as instance:
        result = make().execute_in_process(
            instance=instance, resources=cast(Any, resources(settings)), raise_on_error=False
        )
    told = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert [str(one.description) for one in told if one] == [
        f"{said}, because this Dagster has no `SqlEventLogStorageTable`: install the pipeline's own versions again."
    ]


def test_no_file_of_a_run_is_deleted_where_it_cannot_be_known_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with DagsterInstance.ephemeral() as instance:
        assert not internals.has_a_file_for_each_run(instance)
        monkeypatch.delattr("dagster._core.storage.event_log.SqliteEventLogStorage")
        assert internals.has_a_file_for_each_run(instance)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[Any]:
    """The apps that our webserver gives to uvicorn; nothing listens."""
    apps: list[Any] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **_: apps.append(app))
    monkeypatch.setattr(dagster_webserver.cli, "uvicorn", uvicorn)
    monkeypatch.setattr(webserver, "load_settings", Settings)
    monkeypatch.setattr("sys.argv", ["webserver"])
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    cli = dagster_webserver.cli.cli
    monkeypatch.setattr(TUNED_MAIN, lambda: cli(["--empty-workspace"], standalone_mode=False))
    return apps


def test_every_page_is_behind_the_guard(served: list[Any]) -> None:
    webserver.main()
    assert [type(app) for app in served] == [webserver.Door]


def test_no_page_is_served_where_the_guard_cannot_be_set(
    monkeypatch: pytest.MonkeyPatch, served: list[Any]
) -> None:
    monkeypatch.delattr(dagster_webserver.cli, "uvicorn")
    with pytest.raises(SystemExit, match=r"pages are not served.*this Dagster has no `uvicorn`"):
        webserver.main()
    assert served == []


def test_no_page_is_served_by_a_dagster_that_starts_its_server_in_another_way(
    monkeypatch: pytest.MonkeyPatch, served: list[Any]
) -> None:
    monkeypatch.setattr(TUNED_MAIN, lambda: cast(Any, dagster_webserver.cli).uvicorn.Server)
    with pytest.raises(SystemExit, match=r"pages are not served.*this Dagster uses `uvicorn\.Server`"):
        webserver.main()
    assert served == []
