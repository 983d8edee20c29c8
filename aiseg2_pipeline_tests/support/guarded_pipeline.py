"""A pipeline whose every secret is one that is found nowhere else, as real processes: what it does is done once, for all tests.

It reads, writes, draws, checks and alerts; it is refused by the device, by InfluxDB and by a service for messages; it finds no
device; each command is run. What all of that said and left is kept as evidence.
"""

import http.client
import http.server
import json
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests
import sqlalchemy
from click.testing import CliRunner

from aiseg2_pipeline.cli import main as cli
from aiseg2_pipeline.orchestration.jobs import LOGGED
from aiseg2_pipeline.orchestration.partitions import day_key, hour_key
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support import postgres as postgres_server
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.running_pipeline import (
    PROC,
    STARTED_WITHIN_S,
    Pages,
    Pipeline,
    started,
    two_free_ports,
)

DEVICE_USER = "aiseg"
# With what addresses, JSON, HTML and Python write otherwise.
DEVICE_PASSWORD = 'devicé "s3cret"/+%&<\\'
INFLUXDB_TOKEN = "tok3n-of-influxdb+/=%&<=="
TAKING_SERVICE, DEAF_SERVICE = "t4king-hook-token", "d3af-hook-token"
SERVICE_PASSWORD = "s3rvice pass/word"
SECRETS = (
    DEVICE_PASSWORD,
    INFLUXDB_TOKEN,
    TAKING_SERVICE,
    DEAF_SERVICE,
    SERVICE_PASSWORD,
    postgres_server.PASSWORD,
)
ORGANIZATION = "home"
# No secret, and therefore to be found: where a search does not see it, it would see no secret either.
BUCKET = "buck3t-that-is-no-secret"
REPOSITORY = {"repositoryLocationName": "aiseg2-pipeline", "repositoryName": "__repository__"}
SOMEBODY = "http://somebody.example"

_FRAGMENT = """fragment E on MetadataEntry { label description
    ... on TextMetadataEntry { text } ... on UrlMetadataEntry { url } ... on PathMetadataEntry { path }
    ... on JsonMetadataEntry { jsonString } ... on MarkdownMetadataEntry { mdStr }
    ... on TableMetadataEntry { table { records } } }"""
_ERROR = "message stack className causes { message stack className }"
# All that Dagster's pages show of runs, of the definitions and of the instance.
_ASKED = (
    """{ runsOrError { ... on Runs { results {
        runId jobName status runConfigYaml tags { key value } assetSelection { path }
        eventConnection { events { __typename ... on MessageEvent { message stepKey level }
            ... on ErrorEvent { error { %(error)s } } ... on MaterializationEvent { metadataEntries { ...E } }
            ... on EngineEvent { metadataEntries { ...E } }
            ... on ExecutionStepFailureEvent { failureMetadata { metadataEntries { ...E } } }
            ... on AssetCheckEvaluationEvent { evaluation { description metadataEntries { ...E } } } } } } } } } """,
    """{ workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } locationOrLoadError {
        ... on PythonError { %(error)s } ... on RepositoryLocation { repositories { displayMetadata { key value }
            jobs { name description tags { key value } metadataEntries { ...E } }
            schedules { name description scheduleState { ticks { status error { %(error)s } skipReason cursor runKeys } } }
            sensors { name description sensorState { typeSpecificData { ... on SensorData { lastCursor } }
                ticks { status error { %(error)s } skipReason cursor logEvents { events { message } } } } }
            assetNodes { assetKey { path } description opNames metadataEntries { ...E }
                assetChecksOrError { ... on AssetChecks { checks { name description } } } }
            allTopLevelResourceDetails { name description resourceType configFields { name description defaultValueAsJson }
                configuredValues { key value } } } } } } } } } """,
    """query ($in: RepositorySelector!) { instance { info executablePath
        daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors { %(error)s } } }
        runLauncher { name } runQueueConfig { tagConcurrencyLimitsYaml } }
        utilizedEnvVarsOrError(repositorySelector: $in) { ... on EnvVarWithConsumersList { results { envVarName } } } } """,
    """query ($job: PipelineSelector!) { runConfigSchemaOrError(selector: $job) { ... on RunConfigSchema { rootDefaultYaml
        allConfigTypes { key description ... on CompositeConfigType { fields { name description defaultValueAsJson } } } } }
        pipelineOrError(params: $job) { ... on Pipeline { modes {
            resources { name description configField { defaultValueAsJson } } loggers { name } } } } } """,
)
_TELL = """mutation ($sensor: SensorSelector!, $cursor: String) { sensorDryRun(selectorData: $sensor, cursor: $cursor) {
    __typename ... on PythonError { message stack }
    ... on DryRunInstigationTick { evaluationResult { skipReason cursor error { message stack } } } } }"""


@dataclass
class Lived:
    """What a pipeline said, showed and left; it has ended.

    `told` is what each process or page said, `statuses` how each run ended, `cmdlines` the command lines of all its
    processes, `listening` the addresses on which they listened, `open_sockets` those of them that are files which others
    could reach, and `answers` the statuses of requests of foreign pages.
    """

    folder: Path
    told: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, str] = field(default_factory=dict)
    cmdlines: list[bytes] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    open_sockets: set[str] = field(default_factory=set)
    answers: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    ui_port: str = ""

    @property
    def pipeline(self) -> Path:
        """Where the pipeline was started, with its home, its temporary files and what it printed."""
        return self.folder / "pipeline"

    @property
    def data(self) -> Path:
        return self.pipeline / "a folder" / "data"

    def said(self, name: str) -> str:
        return self.told[name].decode()


class _Guard:
    """Steps of the life of one pipeline; each notes what was said."""

    def __init__(self, pipeline: Pipeline, settings: Mapping[str, str], lived: Lived) -> None:
        self.pipeline = pipeline
        self.pages = pipeline.pages
        self.settings = settings
        self.lived = lived
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def close(self) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        """Look at all its processes until the end: what they were called with, and where they listen."""
        while not self._ended.wait(0.5):
            listening = _listening_sockets()
            for pid in self.pipeline.processes():
                try:
                    self.lived.cmdlines.append((PROC / str(pid) / "cmdline").read_bytes())
                    for file in (PROC / str(pid) / "fd").iterdir():
                        if (link := str(file.readlink())) in listening:
                            self._note(listening[link])
                except OSError:
                    continue

    def _note(self, where: str) -> None:
        self.lived.listening.add(where)
        path = Path(where)
        if path.is_absolute():
            reached = all(one.stat().st_mode & 0o077 for one in (path, path.parent))
            self.lived.open_sockets |= {where} if reached else set()

    def commands(self, *commands: str, case: str = "", **changed: str) -> None:
        """Run commands with these settings; `case` is for their names."""
        unset = {str(one.alias): None for one in Settings.model_fields.values()}
        mask = os.umask(0)
        with chdir(self.pipeline.folder):
            for command in commands:
                ended = CliRunner().invoke(cli.main, command.split(), env={**unset, **self.settings, **changed})
                broken_off = ended.exc_info and not isinstance(ended.exception, SystemExit)
                trace = "".join(traceback.format_exception(ended.exception)) if broken_off else ""
                said = f"{ended.output}\nexit code {ended.exit_code}\n{trace}"
                self.lived.told[f"{command} {case}".strip()] = said.encode()
        os.umask(mask)

    def launch(self, job: str, partition: str | None = None, **selection: Any) -> str:
        """Launch a run as a person does by hand, with the configuration that the pages show at first."""
        tags = [{"key": "dagster/partition", "value": partition}] if partition else []
        told = self.pages.ask(
            """mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) {
                __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }""",
            run={
                "selector": REPOSITORY | {"jobName": job} | selection,
                "runConfigData": LOGGED,
                "executionMetadata": {"tags": tags},
            },
        )["launchRun"]
        assert told["__typename"] == "LaunchRunSuccess", told
        run_id: str = told["run"]["runId"]
        return run_id

    def finished(self, **runs: str) -> None:
        """Wait for runs, by name."""
        for name, run_id in runs.items():
            self.lived.statuses[name] = self.pages.finished(run_id, 120)["status"]

    def ask_for_everything(self) -> None:
        """Note what the pages show."""
        job = REPOSITORY | {"pipelineName": "power_minute"}
        in_repository = {"repositoryLocationName": "aiseg2-pipeline", "repositoryName": "__repository__"}
        for number, query in enumerate(_ASKED):
            text = query.replace("%(error)s", _ERROR) + (_FRAGMENT if "...E" in query else "")
            variables = {
                name: value for name, value in (("job", job), ("in", in_repository)) if f"${name}:" in text
            }
            told = self.pages.ask(text, **variables)
            self.lived.told[f"pages {number}"] = json.dumps(told, ensure_ascii=False).encode()
        for run_id in {run["runId"] for run in json.loads(self.lived.told["pages 0"])["runsOrError"]["results"]}:
            file = requests.get(f"{self.pages.url}/download_debug/{run_id}", timeout=60)
            self.lived.told[f"debug file {run_id}"] = file.content
        for page in ("", "server_info", "graphql"):
            shown = requests.get(f"{self.pages.url}/{page}", headers={"Accept": "text/html"}, timeout=60)
            self.lived.told[f"/{page}"] = repr(shown.headers).encode() + shown.content


def _listening_sockets() -> dict[str, str]:
    """Return where each listening socket of this machine listens, by the link to it in /proc/PID/fd."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in (PROC / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
            _, address, _, state, *more = line.split()
            if state == "0A":
                host, port = address.split(":")
                # Words of four bytes, each the wrong way round.
                words = [bytes.fromhex(host[n : n + 8])[::-1] for n in range(0, len(host), 8)]
                number = ".".join(map(str, words[0])) if name == "tcp" else b"".join(words).hex()
                found[f"socket:[{more[5]}]"] = f"{number}:{int(port, 16)}"
    for line in (PROC / "net" / "unix").read_text(encoding="utf-8").splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = line.split(maxsplit=7)
        if int(flags, 16) & 0x10000:
            found[f"socket:[{inode}]"] = path[0] if path else "@"
    return found


# What a page of another site can have a browser send, by what is done against it; PORT is that of the pages.
_MUTATION = "mutation { setAutoMaterializePaused(paused: true) }"
_AS_JSON = json.dumps({"query": _MUTATION})
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
FOREIGN: dict[str, tuple[str, str, dict[str, str], str]] = {
    "an image": ("GET", f"/graphql?query={quote(_MUTATION)}", {"Accept": "image/*"}, ""),
    "a form": ("POST", f"/graphql?query={quote(_MUTATION)}", {"Origin": SOMEBODY}, ""),
    "a form of nobody": ("POST", f"/graphql?query={quote(_MUTATION)}", {"Origin": "null"}, ""),
    "a script": ("POST", "/graphql", {"Origin": SOMEBODY, "Content-Type": "application/json"}, _AS_JSON),
    "a simple request": (
        "POST",
        "/graphql",
        {"Origin": SOMEBODY, "Content-Type": "text/plain; application/json"},
        _AS_JSON,
    ),
    "another port": (
        "POST",
        "/graphql",
        {"Origin": "http://127.0.0.1:1", "Content-Type": "application/json"},
        _AS_JSON,
    ),
    "a report": ("POST", "/report_asset_materialization/power_readings", {"Origin": SOMEBODY}, ""),
    "a WebSocket": (
        "GET",
        "/graphql",
        {"Origin": SOMEBODY} | _UPGRADE,
        "",
    ),
    "a rebound name": ("GET", "/", {"Host": "somebody.example:PORT"}, ""),
}


def _answers(pages: Pages) -> Iterator[tuple[str, int]]:
    """Send what a foreign page could, and then what our own sends."""
    port = pages.url.rpartition(":")[2]
    own = {"Origin": pages.url, "Content-Type": "application/json"}
    socket = {"Origin": pages.url, "Sec-WebSocket-Protocol": "graphql-ws"} | _UPGRADE
    ours = {
        "our own script": ("POST", "/graphql", own, json.dumps({"query": "{ version }"})),
        "our own WebSocket": ("GET", "/graphql", socket, ""),
        "localhost": ("GET", "/server_info", {"Host": f"localhost:{port}"}, ""),
    }
    for name, (method, path, headers, body) in (FOREIGN | ours).items():
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        sent = {header: value.replace("PORT", port) for header, value in headers.items()}
        connection.request(method, path, body or None, sent)
        yield name, connection.getresponse().status
        connection.close()


@contextmanager
def _taking_service() -> Iterator[str]:
    """Give the address of a service that takes every message."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"json://service:{quote(SERVICE_PASSWORD, safe='')}@127.0.0.1:{server.server_address[1]}/{TAKING_SERVICE}"
        server.shutdown()
        thread.join()


@contextmanager
def _influx(tmp_path: Path) -> Iterator[Influx]:
    with (
        InfluxServer(tmp_path / "influxdb", org=ORGANIZATION, token=INFLUXDB_TOKEN) as server,
        Influx(server, BUCKET) as influx,
    ):
        yield influx


def _settings(folder: Path, influx: Influx, device_port: int, **more: str) -> dict[str, str]:
    (folder / "tmp").mkdir()
    ports = two_free_ports()
    return ports | {
        "AISEG2_HOST": f"127.0.0.1:{device_port}",
        "AISEG2_USER": DEVICE_USER,
        "AISEG2_PASSWORD": DEVICE_PASSWORD,
        **influx.settings,
        "INFLUXDB_TOKEN": INFLUXDB_TOKEN,
        "TMPDIR": str(folder / "tmp"),
        **more,
    }


def live(tmp_path: Path, meanwhile: Callable[[], None] = lambda: None) -> Lived:
    """Live through everything once, with Dagster's history in SQLite; do something else while it waits for a device."""
    lived = Lived(tmp_path)
    lived.pipeline.mkdir()
    device_port = int(two_free_ports()["AISEG2_UI_PORT"])
    with _taking_service() as service, _influx(tmp_path) as influx:
        settings = _settings(
            lived.pipeline, influx, device_port, AISEG2_ALERT_URLS=f"{service} json://127.0.0.1:1/{DEAF_SERVICE}"
        )
        lived.ui_port = settings["AISEG2_UI_PORT"]
        with started(lived.pipeline, settings, umask=0) as pipeline:
            guard = _Guard(pipeline, settings, lived)
            try:
                pipeline.wait(pipeline.pages.served, STARTED_WITHIN_S)
                _without_a_device(guard, meanwhile)
                with running(port=device_port, user=DEVICE_USER, password=DEVICE_PASSWORD):
                    _with_a_device(guard)
                    influx.proxy.token = "another"
                    guard.finished(refused_token=guard.pages.launch_minute())
                    guard.commands(
                        "doctor", "remove --from 2026-01-01 --to 2026-01-02 --yes", case="refused token"
                    )
                    influx.proxy.token = None
                with running(port=device_port, user=DEVICE_USER, password="another"):
                    run_id = guard.pages.launch_minute()
                    guard.commands("read", "doctor", case="refused login")
                    guard.finished(refused_login=run_id)
                guard.ask_for_everything()
                lived.answers |= _answers(guard.pages)
            finally:
                guard.close()
            lived.exit_code = pipeline.stop(signal.SIGINT)
            lived.told["services"] = pipeline.log.read_bytes()
    return lived


def _without_a_device(guard: _Guard, meanwhile: Callable[[], None]) -> None:
    """Do what needs no device while a run looks for one in vain."""
    unreachable = guard.pages.launch_minute()
    began = datetime.now(UTC)
    watched = {"watching_since": (began - timedelta(hours=2)).isoformat(), "seen_at": began.isoformat()}
    sensor = REPOSITORY | {"sensorName": "tell_the_household"}
    told = guard.pages.ask(_TELL, sensor=sensor, cursor=json.dumps(watched))
    guard.lived.told["alerts"] = json.dumps(told).encode()
    guard.commands("health", "gaps", "resend", "report", "remove --from 2026-01-01 --to 2026-01-02 --yes")
    guard.commands("read", case="broken alerts", AISEG2_ALERT_URLS=TAKING_SERVICE)
    guard.commands("read", case="broken port", AISEG2_UI_PORT=DEVICE_PASSWORD)
    guard.commands(
        "read",
        case="broken postgres",
        AISEG2_POSTGRES_URL=f"mysql://{quote(postgres_server.PASSWORD, safe='')}@127.0.0.1/db",
    )
    meanwhile()
    guard.finished(unreachable=unreachable)


def _with_a_device(guard: _Guard) -> None:
    now = datetime.now(UTC)
    today, yesterday = day_key(now), day_key(now - timedelta(days=1))
    clock = {"assetKey": {"path": ["power_readings"]}, "name": "device_clock"}
    guard.finished(minute=guard.pages.launch_minute())
    by_hand = {
        "check": guard.launch("__ASSET_JOB", assetSelection=[], assetCheckSelection=[clock]),
        "materialized": guard.launch("__ASSET_JOB", hour_key(now), assetSelection=[{"path": ["influxdb_power"]}]),
        "report": guard.launch("__ASSET_JOB", today, assetSelection=[{"path": ["daily_report"]}]),
    }
    some_hours = f"--from {yesterday} --to {yesterday}T01:59"
    guard.commands("read", "doctor --alert", f"history {yesterday}", f"fill {some_hours}", f"report {today}")
    guard.commands(f"remove {some_hours}")
    guard.finished(**by_hand)


def live_on_postgres(tmp_path: Path, port: int) -> Lived:
    """Take a reading with Dagster's history in the PostgreSQL on this port, into a folder that was there before."""
    lived = Lived(tmp_path)
    lived.data.mkdir(parents=True)
    lived.data.chmod(0o755)
    device_port = int(two_free_ports()["AISEG2_UI_PORT"])
    url = postgres_server.address(port)
    with (
        _influx(tmp_path) as influx,
        running(port=device_port, user=DEVICE_USER, password=DEVICE_PASSWORD),
        started(
            lived.pipeline, settings := _settings(lived.pipeline, influx, device_port, AISEG2_POSTGRES_URL=url)
        ) as pipeline,
    ):
        guard = _Guard(pipeline, settings, lived)
        try:
            pipeline.wait(pipeline.pages.served, STARTED_WITHIN_S)
            guard.finished(minute=guard.pages.launch_minute())
            guard.commands("health")
            away = url.replace(str(port), "1")
            guard.commands("health", case="broken postgres", AISEG2_POSTGRES_URL=away)
            # Not on the port of the pages, and on data of its own.
            elsewhere = {"AISEG2_UI": "0", "AISEG2_DATA_DIR": "elsewhere"}
            guard.commands("run", case="broken postgres", AISEG2_POSTGRES_URL=away, **elsewhere)
            guard.ask_for_everything()
        finally:
            guard.close()
        lived.exit_code = pipeline.stop(signal.SIGINT)
        lived.told["services"] = pipeline.log.read_bytes()
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:", 1))
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(engine).get_table_names()
        for table in tables:
            rows = connection.execute(sqlalchemy.table(table, sqlalchemy.literal_column("*")).select())
            values = (value for row in rows for value in row)
            lived.told[f"table {table}"] = b"\n".join(
                bytes(value) if isinstance(value, memoryview) else str(value).encode() for value in values
            )
    engine.dispose()
    return lived
