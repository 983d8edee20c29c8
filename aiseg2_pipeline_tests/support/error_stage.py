"""The stage on which errors are brought about: a device and something in InfluxDB's place over HTTP, a folder, the command.

The servers are started once for all sentences; what they serve is each sentence's own.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from aiseg2_pipeline import settings
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error
from aiseg2_pipeline.cli import doctor
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.influxdb.client import InfluxError, InfluxWriter
from aiseg2_pipeline.report import ReportError
from aiseg2_pipeline.runtime import dagster_home, services
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store, StoreError
from aiseg2_pipeline_tests.orchestration.test_power import Pipeline
from aiseg2_pipeline_tests.support.device import PASSWORD, USER, Device, Page, household, serving

TOLD = (
    Aiseg2Error,
    InfluxError,
    ReportError,
    StoreError,
    dagster_home.DagsterHomeError,
    services.ServicesError,
    settings.SettingsError,
)
TOKEN = "t0ken"
ROWS = [("ＬＤ", " 224W"), ("ＩＨ", " 80W")]
# What the device's pages show, as test_orchestration has it.
NOW = datetime(2026, 7, 13, 23, 15, 20, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def told_by(action: Callable[[], object]) -> str:
    """Return the sentence of the error that an action raises."""
    with pytest.raises(TOLD) as raised:
        action()
    return str(raised.value)


@dataclass
class InfluxPlace:
    """What answers in InfluxDB's place: the same to every request; without a status it hangs up.

    `found` is what a query finds.
    """

    port: int = 0
    status: int = 204
    body: bytes = b""
    found: bytes = b""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@dataclass
class Stage:
    """Where one sentence is brought about."""

    folder: Path
    patch: pytest.MonkeyPatch
    device: Device
    influx: InfluxPlace
    given: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device.pages = dict(household(ROWS))
        self.device.forget_logins()
        self.influx.status, self.influx.body, self.influx.found = 204, b"", b""
        self.given = {
            "AISEG2_HOST": self.device.address.removeprefix("http://"),
            "AISEG2_USER": USER,
            "AISEG2_PASSWORD": PASSWORD,
            "AISEG2_DATA_DIR": str(self.folder),
        }
        for name in {str(known.alias) for known in Settings.model_fields.values()}:
            self.patch.delenv(name, raising=False)
        self.patch.chdir(self.folder)

    @property
    def to_influx(self) -> dict[str, str]:
        """The settings that lead to what stands in InfluxDB's place."""
        told = {"HOST": self.influx.address, "TOKEN": TOKEN, "ORG": "home", "BUCKET": "power"}
        return {f"INFLUXDB_{name}": value for name, value in told.items()}

    def shows(self, pages: Mapping[str, Page]) -> None:
        """Let the device show these pages in place of its own."""
        self.device.pages.update(pages)

    @contextmanager
    def client(self, url: str | None = None, now: datetime = NOW) -> Iterator[Aiseg2Client]:
        """Give a client of the device, or of what is at another address."""
        at = url or self.device.address
        with Aiseg2Client(at, USER, PASSWORD, state_dir=self.folder / "device", clock=lambda: now) as client:
            yield client

    @contextmanager
    def store(self) -> Iterator[Store]:
        with Store.open(self.folder / "readings.sqlite") as store:
            yield store

    def settings(self, **given: str) -> Settings:
        return Settings.from_environment(self.given | given)

    def command(self, *arguments: str, **given: str) -> str:
        """Return what the command says on stderr, without what it says of its usage."""
        ended = CliRunner().invoke(main, arguments, env=self.given | given)
        assert isinstance(ended.exception, SystemExit | None), ended.exception
        return re.sub(r"(?s).*Error: (?:Invalid value for [^:]*: )?", "", ended.stderr).removesuffix("\n")

    def examined(
        self, what: str, words: str = "", given: Mapping[str, str] | None = None, *, alert: bool = False
    ) -> str:
        """Return the doctor's line about something, the first that has these words."""
        lines: list[str] = []
        doctor.examine(self.settings(**(given or {})), lambda: NOW + 2 * MINUTE, lines.append, alert=alert)
        told = [line[len(doctor.OK) :].strip() for line in lines]
        return next(line for line in told if line.startswith(f"{what}: ") and words in line)

    def write(self, url: str | None = None, token: str = TOKEN, ca_file: str | None = None) -> None:
        """Write a point to what stands in InfluxDB's place, or elsewhere."""
        at = url or f"http://{self.influx.address}"
        with InfluxWriter(at, token, "home", "power", verify=ca_file or True, timeout_s=1) as writer:
            writer.write(["power,summary=a value=1 1"])

    def answered(self, status: int, message: str = "") -> str:
        """Return the sentence of a write to which InfluxDB answers so."""
        self.influx.status, self.influx.body = status, f'{{"message":"{message}"}}'.encode() if message else b""
        return told_by(self.write)

    @contextmanager
    def pipeline(self, **given: str) -> Iterator[Pipeline]:
        """Give the definitions, to be run in this process."""
        pipeline = Pipeline(self.given | given)
        with pipeline.instance:
            yield pipeline


def said_in(pipeline: Pipeline, run_id: str) -> list[str]:
    """Return the warnings and errors that a run tells."""
    return [
        entry.user_message
        for entry in pipeline.instance.all_logs(run_id)
        if entry.level in (logging.WARNING, logging.ERROR)
    ]


@contextmanager
def influx_place() -> Iterator[InfluxPlace]:
    place = InfluxPlace()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if place.status:
                status, body = (200, place.found) if "/query" in self.path else (place.status, place.body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        place.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield place
        server.shutdown()
        thread.join()


@contextmanager
def stages(folder: Path) -> Iterator[Callable[[], AbstractContextManager[Stage]]]:
    """Start the servers; give what sets a stage anew for a sentence."""
    with serving({}) as device, influx_place() as influx:

        @contextmanager
        def stage() -> Iterator[Stage]:
            own = folder / str(len(list(folder.iterdir())))
            own.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                yield Stage(own, patch, device, influx)

        yield stage
