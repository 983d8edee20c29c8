"""The pinned Dagster has each private name that is used, and the effect of a missing one is the documented one."""

import importlib.util
import inspect
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import dagster_webserver.cli
import pytest
import uvicorn
from alembic.script import ScriptDirectory
from dagster import DagsterInstance, JobDefinition
from dagster._core.execution import context_creation_job
from dagster._grpc import server_watcher
from dagster._grpc.server import DagsterApiServer
from sqlalchemy.pool import NullPool

from aiseg2_pipeline import dagster_internals as internals
from aiseg2_pipeline.orchestration.maintenance.close_day import close_job
from aiseg2_pipeline.orchestration.maintenance.prune import prune_job
from aiseg2_pipeline.orchestration.resources import resources
from aiseg2_pipeline.runtime import code_server, middleware, webserver
from aiseg2_pipeline.settings import Settings

TUNING = "aiseg2_pipeline.runtime.dagster_tuning"
TUNED_MAIN = f"{TUNING}.serve"
NOW = datetime(2026, 7, 14, tzinfo=UTC)
# SQLite's number of the level at which only the copying of the journal waits for the disk.
NORMAL = 1


def now() -> datetime:
    return NOW


def test_dagster_has_every_module_that_is_preloaded_or_run() -> None:
    for name in (
        *internals.SHARED_MODULES,
        *internals.SQLITE_STORAGES,
        f"{internals.DAEMON}.__main__",
        f"{internals.DAEMON}.cli",
    ):
        assert importlib.util.find_spec(name), name


def test_dagster_starts_runs_in_the_context_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DagsterApiServer, "_mp_ctx", None, raising=False)
    ours = multiprocessing.get_context("forkserver")
    internals.set_run_context(lambda: ours)
    server = cast(Any, DagsterApiServer.__new__(DagsterApiServer))
    server._mp_ctx = multiprocessing.get_context("spawn")  # noqa: SLF001 - as Dagster does
    assert server._mp_ctx is ours  # noqa: SLF001 - as above


def test_dagsters_polling_reads_its_interval_at_run_time() -> None:
    assert "WATCH_INTERVAL" in inspect.getsource(server_watcher.watch_grpc_server_thread)


def test_dagsters_migrations_are_found_or_left_to_dagster(monkeypatch: pytest.MonkeyPatch) -> None:
    config = internals.migrations()
    assert config
    assert ScriptDirectory.from_config(config).get_current_head()
    monkeypatch.delattr("dagster._core.storage.sql.get_alembic_config")
    assert internals.migrations() is None


def test_one_engine_and_its_open_connection_serve_all_queries_of_a_file_of_dagsters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = [importlib.import_module(name) for name in internals.SQLITE_STORAGES]
    for module in modules:
        monkeypatch.setattr(module, "create_engine", module.create_engine)
    internals.cache_engines()
    for module in modules:
        engines = [module.create_engine(f"sqlite:///{tmp_path}/{name}.db", poolclass=NullPool) for name in "aab"]
        assert engines[0] is engines[1]
        assert engines[1] is not engines[2]
        connected = []
        for _ in range(2):
            with engines[0].connect() as connection:
                connected.append(connection.connection.dbapi_connection)
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == NORMAL
        assert connected[0] is connected[1]
        engines[0].dispose()
        monkeypatch.delattr(module, "create_engine")
    internals.cache_engines()
    assert not any(hasattr(module, "create_engine") for module in modules)


@pytest.mark.parametrize(
    ("module", "name", "replace", "value"),
    [
        (server_watcher, "WATCH_INTERVAL", lambda: internals.poll_code_server(20), 20),
        (
            context_creation_job,
            "default_system_loggers",
            lambda: internals.set_default_loggers([(1, {})]),
            [(1, {})],
        ),
    ],
)
def test_a_private_name_is_replaced_only_where_it_exists(
    module: Any, name: str, replace: Callable[[], None], value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, name, getattr(module, name))
    replace()
    new = getattr(module, name)
    assert (new(None) if callable(new) else new) == value
    monkeypatch.delattr(module, name)
    replace()
    assert not hasattr(module, name)


def test_a_code_server_that_cannot_serve_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("dagster._cli.api.grpc_command")
    monkeypatch.setattr(code_server, "load_settings", lambda: Settings(AISEG2_WARM_RUNS=False))
    for effect in ("cache_storage_setup", "import_module", "freeze_imported_objects"):
        monkeypatch.setattr(code_server, effect, lambda *_: None)
    with pytest.raises(
        SystemExit, match="definitions cannot be served, because this Dagster has no `grpc_command`"
    ):
        code_server.main()


@pytest.mark.parametrize(
    ("make", "consequence"),
    [
        (lambda: prune_job(3, now), "Old runs are not deleted"),
        (lambda: close_job(NOW, now, cost=False), "The day is not closed"),
    ],
)
def test_without_dagsters_tables_its_history_is_unchanged(
    make: Callable[[], JobDefinition], consequence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delattr("dagster._core.storage.event_log.schema.SqlEventLogStorageTable")
    settings = Settings(AISEG2_DATA_DIR=tmp_path)
    with DagsterInstance.ephemeral() as instance:
        result = make().execute_in_process(
            instance=instance, resources=cast(Any, resources(settings)), raise_on_error=False
        )
    failures = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert [str(failure.description) for failure in failures if failure] == [
        f"{consequence}, because this Dagster has no `SqlEventLogStorageTable`: install the pipeline's own versions again."
    ]


def test_an_unknown_event_log_counts_as_one_with_a_file_for_each_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with DagsterInstance.ephemeral() as instance:
        assert not internals.has_a_file_for_each_run(instance)
        monkeypatch.delattr("dagster._core.storage.event_log.SqliteEventLogStorage")
        assert internals.has_a_file_for_each_run(instance)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[Any]:
    """The apps that our webserver gives to uvicorn for the first connection, which is there already."""
    apps: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, _: apps.append(server.config.app))
    monkeypatch.setattr(dagster_webserver.cli, "uvicorn", uvicorn)
    monkeypatch.setattr(webserver, "load_settings", Settings)
    monkeypatch.setattr("select.select", lambda *_: None)
    monkeypatch.setattr(webserver, "_listen", lambda _: [])
    monkeypatch.setattr("sys.argv", ["webserver"])
    monkeypatch.setattr(f"{TUNING}.prepare", lambda: None)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    cli = dagster_webserver.cli.cli
    monkeypatch.setattr(TUNED_MAIN, lambda: cli(["--empty-workspace"], standalone_mode=False))
    return apps


def test_every_page_is_behind_the_middleware(served: list[Any]) -> None:
    webserver.main()
    assert [type(app) for app in served] == [middleware.SameSiteMiddleware]


def test_no_page_is_served_without_the_middleware(monkeypatch: pytest.MonkeyPatch, served: list[Any]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TUNED_MAIN, lambda: cast(Any, dagster_webserver.cli).uvicorn.Server)
        with pytest.raises(SystemExit, match=r"pages are not served.*this Dagster uses `uvicorn\.Server`"):
            webserver.main()
    monkeypatch.delattr(dagster_webserver.cli, "uvicorn")
    with pytest.raises(SystemExit, match=r"pages are not served.*this Dagster has no `uvicorn`"):
        webserver.main()
    assert served == []
