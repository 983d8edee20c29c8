"""What a person reads when something of this machine is in the way: settings, ports, folders, stores, extras, wrong options."""

import resource
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import filelock
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat

from aiseg2_pipeline.frames import energy
from aiseg2_pipeline.gaps.fill import fill_hours
from aiseg2_pipeline.orchestration.assets.energy_history import lines
from aiseg2_pipeline.orchestration.maintenance.sqlite_files import prepare_storage
from aiseg2_pipeline.report.font import find_font
from aiseg2_pipeline.runtime import dagster_home, health, services
from aiseg2_pipeline.settings import environment, load_settings
from aiseg2_pipeline.store import EnergyStore, Store, StoreError
from aiseg2_pipeline.store.damage import damaged_files
from aiseg2_pipeline.store.database import StoreFile
from aiseg2_pipeline.store.recovery import salvage
from aiseg2_pipeline_tests.support.damage import empty, overwrite, scramble_all_but_first_page
from aiseg2_pipeline_tests.support.error_messages import Sentence
from aiseg2_pipeline_tests.support.error_stage import DAY, HOUR, NOW, Stage, told_by
from aiseg2_pipeline_tests.support.store import readings

PROJECT = Path(__file__).parents[2]


def _wrong(name: str, value: str) -> Callable[[Stage], str]:
    """Set one setting wrong, and run a command."""
    return lambda stage: stage.command("gaps", **(stage.to_influx | {name: value}))


def _env_file(stage: Stage) -> str:
    (stage.folder / ".env").write_bytes(b"AISEG2_PASSWORD=\xff\n")
    return told_by(load_settings)


def _env_file_closed(stage: Stage) -> str:
    def closed(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    # As root, who runs some tests, nothing is closed.
    stage.patch.setattr("aiseg2_pipeline.settings.dotenv_values", closed)
    return told_by(load_settings)


WRONG_VALUES = [
    ("AISEG2_HOST", "http://192.168.0.216", "host name"),
    ("INFLUXDB_HOST", "192.168.0.10:8086/", "host name"),
    ("AISEG2_USER", 'ai"seg', "quotes"),
    ("AISEG2_PASSWORD", "", "not set"),
    ("INFLUXDB_TOKEN", "", "not set"),
    ("AISEG2_USE_HTTPS", "https", "0 or 1"),
    ("INFLUXDB_CA_FILE", "/nowhere", "not a file"),
    ("AISEG2_DATA_DIR", "~no-such-user/data", "user"),
    ("AISEG2_START_DATE", "2024-13-01", "2024-01-01"),
    ("AISEG2_SAMPLES_PER_MINUTE", "0", "at least 1"),
    ("AISEG2_SAMPLES_PER_MINUTE", "13", "at most 12"),
    ("AISEG2_UI_PORT", "x", "whole number"),
    ("AISEG2_UI_HOST", "http://127.0.0.1", "this machine"),
    ("AISEG2_UI_NAMES", "https://power.example.org", "names"),
    ("AISEG2_ALERT_URLS", "home", "Apprise"),
    ("AISEG2_POSTGRES_URL", "mysql://a@b/c", "postgresql://"),
]
SETTINGS = [
    Sentence(f"settings: {name}={value}", _wrong(name, value), (words,), name)
    for name, value, words in WRONG_VALUES
]
SETTINGS += [
    Sentence("settings: no device", _wrong("AISEG2_HOST", ""), ("INFLUXDB_HOST",), "AISEG2_HOST"),
    Sentence(
        "settings: one port for two",
        lambda stage: stage.command("gaps", AISEG2_HOST="", AISEG2_UI_PORT="8420"),
        ("AISEG2_SIMULATOR_PORT",),
        "AISEG2_UI_PORT",
    ),
    Sentence("settings: .env is no text", _env_file, (".env", "UTF-8")),
    Sentence("settings: .env is closed", _env_file_closed, (".env", "Permission denied")),
    Sentence(
        "settings: misspelt",
        lambda stage: _with_environment(stage, "AISEG2_HOTS").examined("settings", "AISEG2_HOTS"),
        ("AISEG2_HOTS", ".env.example"),
        line=True,
    ),
]


def _with_environment(stage: Stage, name: str) -> Stage:
    stage.patch.setenv(name, "x")
    return stage


# The store


@contextmanager
def _connections(stage: Stage) -> Iterator[list[sqlite3.Connection]]:
    """Give the connections that are opened from here on."""
    opened: list[sqlite3.Connection] = []

    def kept(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        opened.append(sqlite3.Connection(*args, **kwargs))
        return opened[-1]

    stage.patch.setattr(sqlite3, "connect", kept)
    yield opened


def _store_with(pragma: str) -> Callable[[Stage], str]:
    """Store readings where SQLite meets a bound or a lock of its own."""

    def said(stage: Stage) -> str:
        with _connections(stage) as opened, stage.store() as store:
            opened[0].execute(pragma)
            return told_by(lambda: store.upsert(readings(NOW.replace(second=0), 1000)))

    return said


def _store_on_a_disk_with_a_quota(stage: Stage) -> str:
    with stage.store() as store:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
        try:
            return told_by(lambda: store.upsert(readings(NOW.replace(second=0), 2000)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _store_held(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.store.database.BUSY_S", 0.05)
    with stage.store() as store:
        holder = sqlite3.connect(store.path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        try:
            return told_by(store.check)
        finally:
            holder.close()


def _store_to_be_damaged(stage: Stage) -> Path:
    with stage.store() as store:
        store.upsert(readings(NOW.replace(second=0), 600))
        return store.path


def _store_damaged(harm: Callable[[Path], None]) -> Callable[[Stage], str]:
    """Return what a store that was harmed says when it is opened and read."""

    def said(stage: Stage) -> str:
        path = _store_to_be_damaged(stage)
        harm(path)
        told: list[str] = []
        with suppress(StoreError), Store.open(path, told.append) as opened:
            opened.read(NOW, NOW + DAY)
        return told[0]

    return said


def _without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE meta")
    connection.close()


def _copy_damaged(stage: Stage) -> str:
    path = _store_to_be_damaged(stage)
    overwrite(path, 100, b"\xff" * 3996)
    # As of a file that was put there, and was not made here.
    path.with_name(f"{FILE}.known").unlink()
    return told_by(lambda: Store.open(path))


def _damaged_again(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.store.database.MOST_DAMAGED", 1)
    path = _store_to_be_damaged(stage)
    for _ in range(2):
        Store.open(path, lambda _: None).close()
        empty(path)
    return told_by(lambda: Store.open(path))


def _store_replaced(stage: Stage) -> str:
    path = _store_to_be_damaged(stage)
    file = StoreFile(path)
    scramble_all_but_first_page(path)
    with suppress(StoreError), Store.open(path, lambda _: None) as other:
        other.read(NOW, NOW + DAY)
    try:
        return told_by(file.follow)
    finally:
        file.close()


class DiskUsage(NamedTuple):
    """As shutil's, where only what is free matters."""

    free: int


def _salvage(stage: Stage, *, held: bool = False, free: int = 10**12) -> str:
    """Bring back what can be read of a damaged store, in one way that does not work."""
    _store_damaged(scramble_all_but_first_page)(stage)
    (damaged,) = damaged_files(stage.folder / FILE)
    stage.patch.setattr(shutil, "disk_usage", lambda _: DiskUsage(free))
    with stage.store() as store, ExitStack() as stack:
        if held:
            stack.enter_context(filelock.FileLock(f"{damaged.path}.lock"))
        return told_by(lambda: salvage(damaged, store, lambda _: None))


def _after_damage(stage: Stage, tell: Callable[[], str]) -> str:
    """Return what is told while nobody has looked at a damaged store."""
    _store_damaged(scramble_all_but_first_page)(stage)
    return tell()


def _fill(stage: Stage) -> str:
    hour = NOW.replace(minute=0, second=0) - HOUR
    with stage.store() as store, EnergyStore.open(stage.folder / "energy.sqlite") as energy:

        def no_device() -> NoReturn:
            raise AssertionError

        (day,) = fill_hours(store, energy, [hour], now=NOW, history=no_device)
        return day.problems[0]


def _energy_out(stage: Stage) -> str:
    with stage.store() as store:
        return told_by(lambda: lines(store, energy.frame([])))


def _not_damaged(stage: Stage) -> str:
    path = _store_to_be_damaged(stage)
    return stage.command("salvage", str(path))


def _salvage_what_is_closed(stage: Stage) -> str:
    def closed(*_: object, **__: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    # As root, who runs some tests, nothing is closed.
    stage.patch.setattr("aiseg2_pipeline.store.recovery.note_salvaged", closed)
    return _salvage(stage)


def _store_of(*statements: str) -> Callable[[Stage], str]:
    """Open what other statements of SQL have made."""

    def said(stage: Stage) -> str:
        path = stage.folder / "readings.sqlite"
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()
        return told_by(lambda: Store.open(path))

    return said


def _store_that_is_text(stage: Stage) -> str:
    (stage.folder / "readings.sqlite").write_text("not a database " * 1000)
    return told_by(lambda: Store.open(stage.folder / "readings.sqlite"))


def _store_in_a_file(stage: Stage) -> str:
    (stage.folder / "data").touch()
    return told_by(lambda: Store.open(stage.folder / "data" / "readings.sqlite"))


def _store_that_is_a_folder(stage: Stage) -> str:
    return told_by(lambda: Store.open(stage.folder))


def _store_closed(stage: Stage) -> str:
    with stage.store() as store:
        pass
    return told_by(store.check)


FILE = "readings.sqlite"
STORE = [
    Sentence("store: full disk", _store_with("PRAGMA max_page_count = 20"), (FILE, "disk is full"), "AISEG2_DATA_DIR"),
    Sentence("store: read-only", _store_with("PRAGMA query_only = ON"), (FILE, "read-only"), "AISEG2_DATA_DIR"),
    Sentence("store: quota", _store_on_a_disk_with_a_quota, (FILE, "quota")),
    Sentence("store: held", _store_held, (FILE, "another process")),
    Sentence("store: damaged", _store_damaged(scramble_all_but_first_page), (FILE, "malformed", "aiseg2-pipeline salvage")),
    Sentence("store: a damaged copy", _copy_damaged, (FILE, "damaged"), "AISEG2_DATA_DIR"),
    Sentence("store: without a table", _store_damaged(_without_a_table), (FILE, "tables are missing", "aiseg2-pipeline salvage")),
    Sentence("store: emptied", _store_damaged(empty), (FILE, "empty", "aiseg2-pipeline salvage")),
    Sentence("store: damaged again", _damaged_again, (FILE, "disk is failing"), "AISEG2_DATA_DIR"),
    Sentence("store: replaced", _store_replaced, (FILE, "another process")),
    Sentence("salvage: no room", lambda stage: _salvage(stage, free=10**6), (FILE, "MB", "aiseg2-pipeline salvage")),
    Sentence("salvage: two at once", lambda stage: _salvage(stage, held=True), ("-damaged-", "another process")),
    Sentence("salvage: no damaged store", _not_damaged, (FILE, "-damaged-")),
    Sentence("salvage: still to come, by `gaps`", lambda stage: _after_damage(stage, lambda: stage.command("gaps")), ("-damaged-", "aiseg2-pipeline salvage")),
    Sentence("salvage: still to come, by the doctor", lambda stage: _after_damage(stage, lambda: stage.examined("damaged store")), ("-damaged-", "aiseg2-pipeline salvage"), line=True),
    Sentence("salvage: still to come, by a fill", lambda stage: _after_damage(stage, lambda: _fill(stage)), ("damaged", "salvage_the_record")),
    Sentence("salvage: still to come, by energy", lambda stage: _after_damage(stage, lambda: _energy_out(stage)), (FILE, "salvage_the_record")),
    Sentence("salvage: closed", _salvage_what_is_closed, ("-damaged-", "Permission denied")),
    Sentence("store: newer", _store_of("PRAGMA user_version = 99"), (FILE, "version 99"), "AISEG2_DATA_DIR"),
    Sentence("store: another program's", _store_of("CREATE TABLE a (b)"), (FILE, "not a store"), "AISEG2_DATA_DIR"),
    Sentence("store: text", _store_that_is_text, (FILE, "not a store"), "AISEG2_DATA_DIR"),
    Sentence("store: a folder", _store_that_is_a_folder, ("/data", "cannot be opened"), "AISEG2_DATA_DIR"),
    Sentence("store: in a file", _store_in_a_file, (FILE, "cannot be opened"), "AISEG2_DATA_DIR"),
    Sentence("store: closed", _store_closed, (FILE, "closed"), "AISEG2_DATA_DIR"),
]  # fmt: skip


# The services


def _port_taken(stage: Stage) -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return stage.command("run", AISEG2_UI_PORT=str(taken.getsockname()[1]))


def _runs_already(stage: Stage) -> str:
    stage.patch.setattr(services, "ENDING_S", 0)
    with filelock.FileLock(stage.folder / "run.lock"):
        return stage.command("run")


def _no_data_folder(stage: Stage) -> str:
    (stage.folder / "file").touch()
    return stage.command("run", AISEG2_DATA_DIR="file/data")


def _killed_before(stage: Stage) -> str:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stage.folder / "code.sock"))
        left.listen()
        return stage.command("run", AISEG2_UI="0")


def _nowhere(stage: Stage) -> str:
    stage.patch.setattr(services, "__file__", "/nowhere/services.py")
    return stage.command("run")


def _home_that_cannot_be_made(stage: Stage) -> str:
    (stage.folder / "dagster").mkdir()
    (stage.folder / "dagster" / "history").touch()
    stage.patch.setenv("DAGSTER_HOME", str(stage.folder / "dagster"))
    settings = stage.settings()
    return told_by(lambda: dagster_home.make(settings, PROJECT, environment(), print))


def _home_in_postgres(stage: Stage) -> str:
    settings = stage.settings(AISEG2_POSTGRES_URL="postgresql://me:top-secret@127.0.0.1:1/runs")
    return told_by(lambda: dagster_home.make(settings, PROJECT, environment(), print))


def _without_postgres(stage: Stage) -> str:
    stage.patch.setitem(sys.modules, "dagster_postgres", None)
    return _home_in_postgres(stage)


def _history_that_cannot_shrink(stage: Stage) -> str:
    (stage.folder / "event_log.db").write_text("not a database " * 1000)
    return prepare_storage(stage.folder)[0]


SERVICES = [
    Sentence("services: port taken", _port_taken, ("Port", "127.0.0.1"), "AISEG2_UI_PORT"),
    Sentence("services: no address of ours", lambda stage: stage.command("run", AISEG2_UI_HOST="192.0.2.1"), ("192.0.2.1",), "AISEG2_UI_HOST"),
    Sentence("services: a second pipeline", _runs_already, ("already runs", "/data"), "AISEG2_DATA_DIR"),
    Sentence("services: no folder", _no_data_folder, ("file/data", "Not a directory"), "AISEG2_DATA_DIR"),
    Sentence("services: killed before", _killed_before, ("killed", "/data"), "AISEG2_DATA_DIR"),
    Sentence("services: long path", lambda stage: stage.command("run", AISEG2_DATA_DIR="long" * 30, AISEG2_UI="0"), ("code.sock",), "AISEG2_DATA_DIR"),
    Sentence("services: path with a comma", lambda stage: stage.command("run", AISEG2_DATA_DIR="a,b", AISEG2_UI="0"), ("code.sock", "comma"), "AISEG2_DATA_DIR"),
    Sentence("services: elsewhere", _nowhere, ("workspace.yaml", "dagster.yaml")),
    Sentence("services: pages of nothing", lambda stage: stage.command("ui"), ("/data", "aiseg2-pipeline run")),
    Sentence("services: no home for Dagster", _home_that_cannot_be_made, ("/dagster", "File exists")),
    Sentence("services: no PostgreSQL", _home_in_postgres, ("PostgreSQL", "refused"), "AISEG2_POSTGRES_URL"),
    Sentence("services: without the extra `postgres`", _without_postgres, ("[postgres]",), "AISEG2_POSTGRES_URL"),
    Sentence("services: a history that cannot shrink", _history_that_cannot_shrink, ("event_log.db",)),
]  # fmt: skip


# Health


def _health(stage: Stage, n: int, **given: str) -> str:
    return health.problems(stage.settings(**given), NOW)[n]


def _health_without_postgres(stage: Stage) -> str:
    stage.patch.setitem(sys.modules, "psycopg2", None)
    return _health(stage, 1, AISEG2_POSTGRES_URL=AWAY)


def _daemon(stage: Stage, *, silent: bool) -> str:
    home = stage.folder / "dagster"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        if silent:
            instance.add_daemon_heartbeat(DaemonHeartbeat((NOW - HOUR).timestamp(), "SCHEDULER", "id", None))
        return _health(stage, 1)


AWAY = "postgresql://me:top-secret@127.0.0.1:1/runs"
HEALTH = [
    Sentence("health: no code server", lambda stage: _health(stage, 0), ("code server", "code.sock")),
    Sentence("health: no history", lambda stage: _health(stage, 1), ("run history", "runs.db")),
    Sentence("health: without the extra `postgres`", _health_without_postgres, ("`postgres` is not installed",), "AISEG2_POSTGRES_URL"),
    Sentence("health: no PostgreSQL", lambda stage: _health(stage, 1, AISEG2_POSTGRES_URL=AWAY), ("refused",), "AISEG2_POSTGRES_URL"),
    Sentence("health: daemon never came", lambda stage: _daemon(stage, silent=False), ("daemon", "yet")),
    Sentence("health: daemon silent", lambda stage: _daemon(stage, silent=True), ("daemon", "3600 s")),
]  # fmt: skip


# The command


def _report(stage: Stage, *arguments: str) -> str:
    with stage.store() as store:
        store.upsert(readings(datetime(2026, 7, 14, tzinfo=UTC), 2))
    return stage.command("report", *arguments)


def _report_nowhere(stage: Stage) -> str:
    (stage.folder / "file").touch()
    stage.patch.setattr("aiseg2_pipeline.report.picture.draw", lambda *_, **__: b"png")
    return _report(stage, "2026-07-14", "--output", "file/day.png")


def _without_matplotlib(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.report.saving.installed", lambda: False)
    return _report(stage, "2026-07-14")


def _without_a_font(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.report.font._best", lambda _: None)
    return told_by(find_font)


def _simulator(stage: Stage) -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return stage.command("simulate", "--port", str(taken.getsockname()[1]))


def _dates(*arguments: str) -> Callable[[Stage], str]:
    return lambda stage: stage.command("gaps", *arguments)


COMMAND = [
    Sentence("command: no date", _dates("--from", "yesterday"), ("'yesterday'", "2026-07-14T08:15")),
    Sentence("command: an end before its start", _dates("--from", "2026-07-14", "--to", "2026-07-13"), ("--to", "--from")),
    Sentence("command: resend to nowhere", lambda stage: stage.command("resend"), ("InfluxDB",), "INFLUXDB_HOST"),
    Sentence("command: fill before a reading", lambda stage: stage.command("fill"), ("live reading",)),
    Sentence("command: no reading to draw", lambda stage: _report(stage, "2026-07-20"), ("2026-07-20", "picture")),
    Sentence("command: picture to nowhere", _report_nowhere, ("file/day.png",)),
    Sentence("command: no kind of fault", lambda stage: stage.command("simulate", "--fault-rate", "1", "--faults", "broken"), ("'broken'", "slow")),
    Sentence("command: faults without a rate", lambda stage: stage.command("simulate", "--faults", "slow"), ("--faults", "--fault-rate")),
    Sentence("command: without the extra `report`", _without_matplotlib, ("[report]",)),
    Sentence("command: without a font", _without_a_font, ("font", "[report]")),
    Sentence("command: simulator's port taken", _simulator, ("simulator", "--port"), "AISEG2_SIMULATOR_PORT"),
]  # fmt: skip


# The doctor's own


ALERTS = "AISEG2_ALERT_URLS"


def _without_apprise(stage: Stage) -> str:
    stage.patch.setattr("aiseg2_pipeline.alerts.send.installed", lambda: False)
    return stage.examined("alerts", given={ALERTS: "json://127.0.0.1:1"}).removeprefix("alerts: ")


def _open_to_others(stage: Stage, name: str) -> str:
    (stage.folder / ".env").touch(mode=0o600)
    with stage.store():
        pass
    for path in (stage.folder / name, stage.folder):
        path.chmod(0o755)
    return stage.examined("settings", "others on this machine")


DOCTOR = [
    Sentence("doctor: .env is open to others", lambda stage: _open_to_others(stage, ".env"), (".env", "chmod"), line=True),
    Sentence("doctor: the data are open to others", lambda stage: _open_to_others(stage, "readings.sqlite"), ("/data", "chmod"), line=True),
    Sentence("doctor: clock", lambda stage: stage.examined("clock"), ("device's clock",), line=True),
    Sentence("doctor: no alerts", lambda stage: stage.examined("alerts", alert=True), ("alerts",), ALERTS, line=True),
    Sentence("doctor: without the extra `alerts`", _without_apprise, ("[alerts]",), ALERTS),
    Sentence("doctor: no service", lambda stage: stage.examined("alerts 1", given={ALERTS: "nosuch://x"}), ("alerts 1",), ALERTS, line=True),
    Sentence("doctor: service away", lambda stage: stage.examined("alerts 1", given={ALERTS: "json://127.0.0.1:1"}, alert=True), ("JSON",), ALERTS, line=True),
]  # fmt: skip

OF_MACHINE = [*SETTINGS, *STORE, *SERVICES, *HEALTH, *COMMAND, *DOCTOR]
