"""An HTTP service that receives messages, the alert sensor over a data directory, and facts for the rules."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from dagster import DagsterInstance, build_sensor_context

from aiseg2_pipeline.aiseg2.errors import Refused
from aiseg2_pipeline.alerts.rules import Facts
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store, incidents
from aiseg2_pipeline.store.incidents import Trouble

NOW = datetime(2026, 7, 13, 23, 15, 20, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SECRET = "s3cr3t-t0k3n"


@dataclass
class Telephone:
    """A service and the messages it accepted, as title and text; with a status other than 200 it accepts none."""

    port: int = 0
    got: list[tuple[str, str]] = field(default_factory=list)
    tries: int = 0
    status: int = 200

    @property
    def titles(self) -> list[str]:
        return [title for title, _ in self.got]

    @property
    def address(self) -> str:
        return f"json://user:{SECRET}@127.0.0.1:{self.port}/{SECRET}"


@contextmanager
def telephone() -> Iterator[Telephone]:
    phone = Telephone()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            phone.tries += 1
            if phone.status == 200:
                phone.got.append((message["title"], message["message"]))
            self.send_response(phone.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        phone.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield phone
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def phone() -> Iterator[Telephone]:
    with telephone() as ringing:
        yield ringing


@pytest.fixture
def second() -> Iterator[Telephone]:
    with telephone() as ringing:
        yield ringing


class Watch:
    """The alert sensor over a data directory, evaluated at chosen times; it keeps the cursor as Dagster does."""

    def __init__(self, environment: dict[str, str], *addresses: str) -> None:
        self.settings = Settings.from_environment(environment | {"AISEG2_ALERT_URLS": " ".join(addresses)})
        self.cursor: str | None = None
        self.now = NOW
        self.restart()

    def restart(self) -> None:
        definitions = build_definitions(self.settings, lambda: self.now)
        self.sensor = definitions.resolve_sensor_def("tell_the_household")

    def look(self, now: datetime) -> str:
        """Evaluate the sensor; return its skip message."""
        self.now = now
        with DagsterInstance.ephemeral() as instance:
            data = self.sensor.evaluate_tick(build_sensor_context(instance, cursor=self.cursor))
        assert data.cursor is not None
        self.cursor = data.cursor
        assert SECRET not in self.cursor
        return data.skip_message or ""

    def look_for(self, minutes: int, start: datetime) -> datetime:
        """Evaluate the sensor every minute; return the minute after."""
        for n in range(minutes):
            self.look(start + n * MINUTE)
        return start + minutes * MINUTE

    def read(self, *times: datetime) -> None:
        """Store readings, as the minute runs do."""
        with Store.open(self.settings.store_path) as store:
            store.upsert(frame(Row(time, "total", "売買電力", -1.2, "kW", 0) for time in times))
        incidents.clear(self.settings.data_dir, incidents.DEVICE)

    def live(self, start: datetime, minutes: int, every: int = 1) -> None:
        """Store a reading and evaluate the sensor, every so many minutes."""
        for n in range(0, minutes, every):
            self.read(start + n * MINUTE)
            self.look(start + n * MINUTE)

    def fail(self, error: Exception, now: datetime, what: str = incidents.DEVICE) -> None:
        incidents.note(self.settings.data_dir, what, error, now)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    return {"AISEG2_HOST": "127.0.0.1:1", "AISEG2_PASSWORD": "x", "AISEG2_DATA_DIR": str(tmp_path / "data")}


@pytest.fixture
def watch(settings: dict[str, str], phone: Telephone) -> Watch:
    return Watch(settings, phone.address)


def facts(**changed: object) -> Facts:
    known: dict[str, object] = {
        "now": NOW, "watching_since": NOW - DAY, "last_reading": NOW - MINUTE, "device": None, "influxdb": None,
        "store_error": None, "free_bytes": 10**12, "folder": "/data", "hours": (),
    }  # fmt: skip
    return Facts(**(known | changed))  # type: ignore[arg-type]


def trouble(error: Exception, ago: timedelta) -> Trouble:
    return Trouble(NOW - ago, str(error), isinstance(error, Refused))
