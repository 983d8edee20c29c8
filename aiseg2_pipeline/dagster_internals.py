"""Wrap every private name of Dagster's that is used, with what happens in a Dagster that does not have it.

No other module names anything under `dagster._` (dagster.yaml does). A name is looked up when it is used, so that a
missing one disables only what needs it, and the supervisor runs without importing Dagster. This module imports no
other one of the package.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from socket import socket

    import sqlalchemy as db
    from alembic.config import Config
    from dagster import DagsterInstance
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
    from starlette.types import ASGIApp

    AssetJob = UnresolvedAssetJobDefinition
else:
    # A type only: without it, nothing but a type checker fails.
    AssetJob = Any

# The daemon's package, run by `services` through `dagster_tuning`. Without it, the daemon ends at once, and so does `run`.
DAEMON = "dagster._daemon"

# Modules that Dagster imports only when a run starts. `preload` logs a warning for each missing one; runs then start later.
RUN_MODULES = (
    "dagster._cli.api",
    "dagster._core.execution.api",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.launcher.default_run_launcher",
    "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log",
    "dagster._core.storage.legacy_storage",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.noop_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.system_config.composite_descent",
    "dagster._core.utility_ops",
    "dagster._core.workspace.autodiscovery",
    "dagster._grpc.impl",
    "dagster._utils.test.definitions",
)

# The modules that connect to Dagster's SQLite files.
SQLITE_STORAGES = (
    "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
)

# Modules that all services import. `warm_parent` imports them before it forks; each service imports a missing one itself.
SHARED_MODULES = (*RUN_MODULES, "dagster._grpc.server", "dagster._core.workspace.context")


class MissingInternalError(Exception):
    """A private name that this Dagster does not have, as the end of a sentence that says what does not work."""


class Tables(NamedTuple):
    """Dagster's SQLAlchemy definitions of the tables that have no public query."""

    events: "db.Table"
    evaluations: "db.Table"
    ticks: "db.Table"
    run_tags: "db.Table"


def serve_code() -> None:
    """Run the code server of `dagster api grpc` with sys.argv. Without the name: no code server, and `run` ends."""
    _private("dagster._cli.api", "grpc_command")()


def set_run_context(make: Callable[[], BaseContext]) -> None:
    """Start runs in the context that `make` returns. Without the name, MissingInternalError: each in a new Python."""
    server = _private("dagster._grpc.server", "DagsterApiServer")
    if "_mp_ctx" not in server.__init__.__code__.co_names:
        raise MissingInternalError("this Dagster has no `_mp_ctx`")
    context = make()
    # Dagster assigns its own context to the attribute; this property ignores that.
    server._mp_ctx = property(lambda _: context, lambda _, spawning: None)  # noqa: ARG005, SLF001 - a setter's signature, and the name in question


def poll_code_server(interval_s: float) -> None:
    """Set how often the daemon and the webserver poll the code server. Without the name: every second."""
    _replace("dagster._grpc.server_watcher", "WATCH_INTERVAL", interval_s)


def migrations() -> "Config | None":
    """Return the configuration of alembic for Dagster's storages. Without the name: None, and each process reads it."""
    with suppress(MissingInternalError):
        configured: Config = _private("dagster._core.storage.sql", "get_alembic_config")(
            import_module("dagster._core.storage.sql").__file__
        )
        return configured
    return None


def cache_engines() -> None:
    """Keep one SQLAlchemy engine, and one open connection, for each of Dagster's SQLite files. Without a name: as Dagster does.

    Dagster makes both anew for each query, which is two thirds of the query's time, and the last connection that is closed
    copies the whole journal into the file. A thread that finds the connection in use opens another one.
    A power cut may cost the last seconds of Dagster's history, because not every event waits for the disk.
    """
    for module in SQLITE_STORAGES:
        with suppress(MissingInternalError):
            make = _private(module, "create_engine")
            setattr(import_module(module), "create_engine", _one_for_each(make))  # noqa: B010 - not the module's attribute for mypy


def _one_for_each(make: Callable[..., Any]) -> Callable[..., Any]:
    engines: dict[str, Any] = {}

    def engine(url: str, **options: Any) -> Any:
        from sqlalchemy import event, pool  # noqa: PLC0415 - only once Dagster is imported

        key = f"{url} {sorted(options.items(), key=str)}"
        if key not in engines:
            made = make(url, **options | {"poolclass": pool.QueuePool, "pool_size": 1, "max_overflow": -1})
            event.listen(made, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL"))
            engines.setdefault(key, made)
        return engines[key]

    return engine


def set_default_loggers(loggers: Sequence[tuple[Any, dict[str, Any]]]) -> None:
    """Set the loggers of runs whose config names none. Without the name: Dagster's own, a line for every event."""
    _replace("dagster._core.execution.context_creation_job", "default_system_loggers", lambda _: list(loggers))


def guard_pages(guard: Callable[["ASGIApp"], "ASGIApp"], listeners: list["socket"]) -> None:
    """Serve the webserver's app wrapped in `guard` on these sockets, or nothing at all. Raise MissingInternalError.

    The webserver starts its app with `uvicorn.run`. Afterwards it has nothing else of uvicorn: a webserver that starts
    its app in another way then raises the same error, and serves no page.
    """
    uvicorn = _private("dagster_webserver.cli", "uvicorn")
    cli: Any = import_module("dagster_webserver.cli")

    class Guarded:
        def run(self, app: "ASGIApp", **settings: Any) -> None:
            server = uvicorn.Server(uvicorn.Config(guard(app), **settings))
            # As `uvicorn.run`: Dagster turns SIGTERM into it.
            with suppress(KeyboardInterrupt):
                server.run(listeners)

        def __getattr__(self, name: str) -> Any:
            raise MissingInternalError(f"this Dagster uses `uvicorn.{name}`")

    cli.uvicorn = Guarded()


def tables() -> Tables:
    """Return Dagster's tables.

    Without a name, MissingInternalError: nothing is pruned, no day is closed, and ticks of a wrong clock stay.
    """
    events = "dagster._core.storage.event_log.schema"
    return Tables(
        _private(events, "SqlEventLogStorageTable"),
        _private(events, "AssetCheckExecutionsTable"),
        _private("dagster._core.storage.schedules.schema", "JobTickTable"),
        _private("dagster._core.storage.runs.schema", "RunTagsTable"),
    )


def connection(storage: object) -> AbstractContextManager["db.Connection"]:
    """Connect to the database of one of an instance's storages. Raise TypeError where that is not an SQL database."""
    # An event log stores the rows of all runs in a database of its own.
    connect = getattr(storage, "index_connection", None) or getattr(storage, "connect", None)
    if connect is None:
        raise TypeError("Dagster's storage must be SQLite or Postgres: set it so in dagster.yaml.")
    connected: AbstractContextManager[db.Connection] = connect()
    return connected


def has_a_file_for_each_run(instance: "DagsterInstance") -> bool:
    """Return whether the event log is Dagster's default one. Without the name: yes, so that no file is deleted."""
    try:
        default = _private("dagster._core.storage.event_log", "SqliteEventLogStorage")
    except MissingInternalError:
        return True
    return isinstance(instance.event_log_storage, default)


def _private(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise MissingInternalError(f"this Dagster has no `{name}`") from None


def _replace(module: str, name: str, value: object) -> None:
    """Replace a private name; a Dagster without it is left unchanged."""
    with suppress(MissingInternalError):
        _private(module, name)
        setattr(import_module(module), name, value)
