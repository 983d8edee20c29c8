"""Run a real pipeline with unique secrets through its functions and failures once, and record its output for all tests.

It reads, writes, draws, checks and alerts; the device, InfluxDB and a messaging service refuse it; the device is
unreachable; every command is run.
"""

import http.client
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
from urllib.parse import quote

import requests
import sqlalchemy
from click.testing import CliRunner

from aiseg2_pipeline.cli import main as cli
from aiseg2_pipeline.japan_time import hour_key
from aiseg2_pipeline.orchestration.partitions import day_key
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline_tests.support import postgres as postgres_server
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.influxdb import Influx, InfluxServer
from aiseg2_pipeline_tests.support.running_pipeline import (
    PROC,
    REPOSITORY,
    Pages,
    Pipeline,
    free_ports,
    started,
)
from aiseg2_pipeline_tests.support.wire import raw_server

DEVICE_USER = "aiseg"
# With characters that URLs, JSON, HTML and Python escape.
DEVICE_PASSWORD = 'devicé "s3cret"/+%&<\\'
INFLUXDB_TOKEN = "tok3n-of-influxdb+/=%&<=="
ACCEPTING_SERVICE, UNREACHABLE_SERVICE = "accepting-h00k-token", "unreachable-h00k-token"
SERVICE_PASSWORD = "s3rvice pass/word"
SECRETS = (
    DEVICE_PASSWORD,
    INFLUXDB_TOKEN,
    ACCEPTING_SERVICE,
    UNREACHABLE_SERVICE,
    SERVICE_PASSWORD,
    postgres_server.PASSWORD,
)
ORGANIZATION = "home"
# Not secret: a search that does not find it would not find a secret either.
BUCKET = "buck3t-that-is-no-secret"
# A run takes its one reading at once; the long minute allows for a slow start.
LONG_S = 60.0
OTHER_SITE = "http://other.example"

_FRAGMENT = """fragment E on MetadataEntry { label description
    ... on TextMetadataEntry { text } ... on UrlMetadataEntry { url } ... on PathMetadataEntry { path }
    ... on JsonMetadataEntry { jsonString } ... on MarkdownMetadataEntry { mdStr }
    ... on TableMetadataEntry { table { records } } }"""
_ERROR = "message stack className causes { message stack className }"
# Everything that Dagster's pages show of runs, of the definitions and of the instance.
_QUERIES = (
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
_EVALUATE_ALERTS = """mutation ($sensor: SensorSelector!, $cursor: String) { sensorDryRun(selectorData: $sensor, cursor: $cursor) {
    __typename ... on PythonError { message stack }
    ... on DryRunInstigationTick { evaluationResult { skipReason cursor error { message stack } } } } }"""


@dataclass
class Evidence:
    """What an ended pipeline printed, showed and left behind."""

    folder: Path
    # The output of each process, command and page, by name.
    outputs: dict[str, bytes] = field(default_factory=dict)
    # The final status of each run.
    statuses: dict[str, str] = field(default_factory=dict)
    # The command lines of all its processes, and the addresses on which they listened.
    cmdlines: list[bytes] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    # The Unix sockets among these that other users could reach.
    open_sockets: set[str] = field(default_factory=set)
    # The HTTP status of each request in CROSS_SITE and of our own.
    answers: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    ports: tuple[str, ...] = ()

    @property
    def pipeline(self) -> Path:
        """The folder of the pipeline, with its home, its temporary files and its log."""
        return self.folder / "pipeline"

    @property
    def data(self) -> Path:
        return self.pipeline / "a folder" / "data"

    def output(self, name: str) -> str:
        return self.outputs[name].decode()


class _Recorder:
    """Perform steps with one pipeline and record their output."""

    def __init__(self, pipeline: Pipeline, settings: Mapping[str, str], evidence: Evidence) -> None:
        self.pipeline = pipeline
        self.pages = pipeline.pages
        self.settings = settings
        self.evidence = evidence
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def close(self) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        """Record the command lines of all its processes, and where they listen, until the end."""
        while not self._ended.wait(0.5):
            listening = _listening_sockets()
            for pid in self.pipeline.processes():
                try:
                    self.evidence.cmdlines.append((PROC / str(pid) / "cmdline").read_bytes())
                    for file in (PROC / str(pid) / "fd").iterdir():
                        if (link := str(file.readlink())) in listening:
                            self._note(listening[link])
                except OSError:
                    continue

    def _note(self, where: str) -> None:
        self.evidence.listening.add(where)
        path = Path(where)
        if path.is_absolute():
            reached = all(one.stat().st_mode & 0o077 for one in (path, path.parent))
            self.evidence.open_sockets |= {where} if reached else set()

    def commands(self, *commands: str, case: str = "", **changed: str) -> None:
        """Run commands with these settings; `case` is added to their names in the record."""
        unset = {str(one.alias): None for one in Settings.model_fields.values()}
        mask = os.umask(0)
        with chdir(self.pipeline.folder):
            for command in commands:
                ended = CliRunner().invoke(cli.main, command.split(), env={**unset, **self.settings, **changed})
                raised = ended.exc_info and not isinstance(ended.exception, SystemExit)
                trace = "".join(traceback.format_exception(ended.exception)) if raised else ""
                output = f"{ended.output}\nexit code {ended.exit_code}\n{trace}"
                self.evidence.outputs[f"{command} {case}".strip()] = output.encode()
        os.umask(mask)

    def finished(self, **runs: str) -> None:
        """Wait for runs and record their statuses, by name."""
        for name, run_id in runs.items():
            self.evidence.statuses[name] = self.pages.finished(run_id)["status"]

    def record_pages(self) -> None:
        """Record everything that the pages show."""
        job = REPOSITORY | {"pipelineName": "power_minute"}
        for number, query in enumerate(_QUERIES):
            text = query.replace("%(error)s", _ERROR) + (_FRAGMENT if "...E" in query else "")
            variables = {name: value for name, value in (("job", job), ("in", REPOSITORY)) if f"${name}:" in text}
            shown = json.dumps(self.pages.ask(text, **variables), ensure_ascii=False)
            self.evidence.outputs[f"pages {number}"] = shown.encode()
        for run_id in {
            run["runId"] for run in json.loads(self.evidence.outputs["pages 0"])["runsOrError"]["results"]
        }:
            file = requests.get(f"{self.pages.url}/download_debug/{run_id}", timeout=60)
            self.evidence.outputs[f"debug file {run_id}"] = file.content
        for page in ("", "server_info", "graphql"):
            answer = requests.get(f"{self.pages.url}/{page}", headers={"Accept": "text/html"}, timeout=60)
            self.evidence.outputs[f"/{page}"] = repr(answer.headers).encode() + answer.content


def _listening_sockets() -> dict[str, str]:
    """Return where each listening socket of this machine listens, by the link to it in /proc/PID/fd."""
    found = {}
    for name in ("tcp", "tcp6"):
        for line in (PROC / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
            _, address, _, state, *more = line.split()
            if state == "0A":
                host, port = address.split(":")
                # Words of four bytes, each in little-endian order.
                words = [bytes.fromhex(host[n : n + 8])[::-1] for n in range(0, len(host), 8)]
                number = ".".join(map(str, words[0])) if name == "tcp" else b"".join(words).hex()
                found[f"socket:[{more[5]}]"] = f"{number}:{int(port, 16)}"
    for line in (PROC / "net" / "unix").read_text(encoding="utf-8").splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = line.split(maxsplit=7)
        if int(flags, 16) & 0x10000:
            found[f"socket:[{inode}]"] = path[0] if path else "@"
    return found


_MUTATION = "mutation { setAutoMaterializePaused(paused: true) }"
_QUERY = f"/graphql?query={quote(_MUTATION)}"
_AS_JSON = json.dumps({"query": _MUTATION})
_JSON = {"Content-Type": "application/json"}
_FOREIGN = {"Origin": OTHER_SITE}
_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
# Requests that a page of another site can make a browser send; PORT is that of the pages.
CROSS_SITE: dict[str, tuple[str, str, dict[str, str], str]] = {
    "an image": ("GET", _QUERY, {"Accept": "image/*"}, ""),
    "a form": ("POST", _QUERY, _FOREIGN, ""),
    "a form without an origin": ("POST", _QUERY, {"Origin": "null"}, ""),
    "a script": ("POST", "/graphql", _FOREIGN | _JSON, _AS_JSON),
    "a simple request": (
        "POST",
        "/graphql",
        _FOREIGN | {"Content-Type": "text/plain; application/json"},
        _AS_JSON,
    ),
    "another port": ("POST", "/graphql", {"Origin": "http://127.0.0.1:1"} | _JSON, _AS_JSON),
    "a report": ("POST", "/report_asset_materialization/power_readings", _FOREIGN, ""),
    "a WebSocket": ("GET", "/graphql", _FOREIGN | _UPGRADE, ""),
    "a rebound name": ("GET", "/", {"Host": "other.example:PORT"}, ""),
}


def _answers(pages: Pages) -> Iterator[tuple[str, int]]:
    """Send the requests of a foreign page and those of our own; yield the status of each."""
    port = pages.url.rpartition(":")[2]
    own = {"Origin": pages.url, "Content-Type": "application/json"}
    socket = {"Origin": pages.url, "Sec-WebSocket-Protocol": "graphql-ws"} | _UPGRADE
    ours = {
        "our own script": ("POST", "/graphql", own, json.dumps({"query": "{ version }"})),
        "our own WebSocket": ("GET", "/graphql", socket, ""),
        "localhost": ("GET", "/server_info", {"Host": f"localhost:{port}"}, ""),
    }
    for name, (method, path, headers, body) in (CROSS_SITE | ours).items():
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
        sent = {header: value.replace("PORT", port) for header, value in headers.items()}
        connection.request(method, path, body or None, sent)
        yield name, connection.getresponse().status
        connection.close()


@contextmanager
def _influx(tmp_path: Path) -> Iterator[Influx]:
    with (
        InfluxServer(tmp_path / "influxdb", org=ORGANIZATION, token=INFLUXDB_TOKEN) as server,
        Influx(server, BUCKET) as influx,
    ):
        yield influx


def _settings(folder: Path, influx: Influx, device_port: int, **more: str) -> dict[str, str]:
    (folder / "tmp").mkdir()
    ports = free_ports()
    return ports | {
        "AISEG2_HOST": f"127.0.0.1:{device_port}",
        "AISEG2_USER": DEVICE_USER,
        "AISEG2_PASSWORD": DEVICE_PASSWORD,
        "AISEG2_PAGE_PASSWORD": DEVICE_PASSWORD,
        **influx.settings,
        "INFLUXDB_TOKEN": INFLUXDB_TOKEN,
        "TMPDIR": str(folder / "tmp"),
        **more,
    }


def run_all(tmp_path: Path, meanwhile: Callable[[], None] = lambda: None) -> Evidence:
    """Run through everything once, with Dagster's history in SQLite; call `meanwhile` while a run waits for the device."""
    evidence = Evidence(tmp_path)
    evidence.pipeline.mkdir()
    device_port = free_port()
    with raw_server() as service, _influx(tmp_path) as influx:
        service.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        login = f"service:{quote(SERVICE_PASSWORD, safe='')}"
        accepting = f"json://{login}@{service.url.removeprefix('http://')}/{ACCEPTING_SERVICE}"
        alerts = f"{accepting} json://127.0.0.1:1/{UNREACHABLE_SERVICE}"
        settings = _settings(evidence.pipeline, influx, device_port, AISEG2_ALERT_URLS=alerts)
        evidence.ports = settings["AISEG2_UI_PORT"], settings["AISEG2_PAGE_PORT"]
        with started(evidence.pipeline, settings, umask=0) as pipeline:
            recorder = _Recorder(pipeline, settings, evidence)
            try:
                pipeline.wait(pipeline.pages.served)
                _without_a_device(recorder, meanwhile)
                with running(port=device_port, user=DEVICE_USER, password=DEVICE_PASSWORD):
                    _with_a_device(recorder)
                    influx.proxy.token = "another"
                    recorder.finished(refused_token=recorder.pages.launch_minute(LONG_S))
                    recorder.commands(
                        "doctor", "remove --from 2026-01-01 --to 2026-01-02 --yes", case="refused token"
                    )
                    influx.proxy.token = None
                with running(port=device_port, user=DEVICE_USER, password="another"):
                    run_id = recorder.pages.launch_minute(LONG_S)
                    recorder.commands("read", "doctor", case="refused login")
                    recorder.finished(refused_login=run_id)
                recorder.record_pages()
                evidence.answers |= _answers(recorder.pages)
            finally:
                recorder.close()
            evidence.exit_code = pipeline.stop(signal.SIGINT)
            evidence.outputs["services"] = pipeline.log.read_bytes()
    return evidence


def _without_a_device(recorder: _Recorder, meanwhile: Callable[[], None]) -> None:
    """Do what needs no device while a run tries to reach one."""
    unreachable = recorder.pages.launch_minute(LONG_S)
    began = datetime.now(UTC)
    watched = {"watching_since": (began - timedelta(hours=2)).isoformat(), "seen_at": began.isoformat()}
    sensor = REPOSITORY | {"sensorName": "tell_the_household"}
    alerts = recorder.pages.ask(_EVALUATE_ALERTS, sensor=sensor, cursor=json.dumps(watched))
    recorder.evidence.outputs["alerts"] = json.dumps(alerts).encode()
    recorder.commands("health", "gaps", "resend", "report", "remove --from 2026-01-01 --to 2026-01-02 --yes")
    recorder.commands("read", case="broken alerts", AISEG2_ALERT_URLS=ACCEPTING_SERVICE)
    recorder.commands("read", case="broken port", AISEG2_UI_PORT=DEVICE_PASSWORD)
    recorder.commands(
        "read",
        case="broken postgres",
        AISEG2_POSTGRES_URL=f"mysql://{quote(postgres_server.PASSWORD, safe='')}@127.0.0.1/db",
    )
    meanwhile()
    recorder.finished(unreachable=unreachable)


def _with_a_device(recorder: _Recorder) -> None:
    now = datetime.now(UTC)
    today, yesterday = day_key(now), day_key(now - timedelta(days=1))
    clock = {"assetKey": {"path": ["power_readings"]}, "name": "device_clock"}
    recorder.finished(minute=recorder.pages.launch_minute(LONG_S))
    by_hand = {
        name: recorder.pages.launch("__ASSET_JOB", partition, selection)
        for name, partition, selection in (
            ("check", "", {"assetSelection": [], "assetCheckSelection": [clock]}),
            ("materialized", hour_key(now), {"assetSelection": [{"path": ["influxdb_power"]}]}),
            ("report", today, {"assetSelection": [{"path": ["daily_report"]}]}),
        )
    }
    some_hours = f"--from {yesterday} --to {yesterday}T01:59"
    recorder.commands("read", "doctor --alert", f"history {yesterday}", f"fill {some_hours}", f"report {today}")
    recorder.commands(f"remove {some_hours}")
    recorder.finished(**by_hand)


def run_on_postgres(tmp_path: Path, port: int) -> Evidence:
    """Take a reading with Dagster's history in the PostgreSQL on this port, into a data directory that exists already."""
    evidence = Evidence(tmp_path)
    evidence.data.mkdir(parents=True)
    evidence.data.chmod(0o755)
    device_port = free_port()
    url = postgres_server.address(port)
    with (
        _influx(tmp_path) as influx,
        running(port=device_port, user=DEVICE_USER, password=DEVICE_PASSWORD),
        started(
            evidence.pipeline,
            settings := _settings(evidence.pipeline, influx, device_port, AISEG2_POSTGRES_URL=url),
        ) as pipeline,
    ):
        recorder = _Recorder(pipeline, settings, evidence)
        try:
            pipeline.wait(pipeline.pages.served)
            recorder.finished(minute=recorder.pages.launch_minute(LONG_S))
            recorder.commands("health")
            away = url.replace(str(port), "1")
            recorder.commands("health", case="broken postgres", AISEG2_POSTGRES_URL=away)
            # With a data directory of its own and without pages, so that neither is in use.
            elsewhere = {"AISEG2_UI": "0", "AISEG2_PAGE": "0", "AISEG2_DATA_DIR": "elsewhere"}
            recorder.commands("run", case="broken postgres", AISEG2_POSTGRES_URL=away, **elsewhere)
            recorder.record_pages()
        finally:
            recorder.close()
        evidence.exit_code = pipeline.stop(signal.SIGINT)
        evidence.outputs["services"] = pipeline.log.read_bytes()
    engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:", 1))
    with engine.connect() as connection:
        tables = sqlalchemy.inspect(engine).get_table_names()
        for table in tables:
            rows = connection.execute(sqlalchemy.table(table, sqlalchemy.literal_column("*")).select())
            values = (value for row in rows for value in row)
            evidence.outputs[f"table {table}"] = b"\n".join(
                bytes(value) if isinstance(value, memoryview) else str(value).encode() for value in values
            )
    engine.dispose()
    return evidence
