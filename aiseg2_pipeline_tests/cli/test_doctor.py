"""The doctor says what is wrong on the line of the thing that is wrong, and goes on with the rest."""

import contextlib
import re
import socket
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner

from aiseg2_pipeline.cli import doctor
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.influxdb.delivery import deliver
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store import Store, database
from aiseg2_pipeline_tests.support.device import (
    FLOW,
    FLOW_HTML,
    LIST,
    PASSWORD,
    SERVER_TIME,
    Device,
    Page,
    circuit_list,
    circuit_page,
    circuits_path,
    flow_json,
    serving,
)
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.influxdb_proxy import Fault

EXPORT = "GET /set/exectop2.cgi"
WRONG_PASSWORD, WRONG_TOKEN = "battery staple", "stolen-token"
ALL_FINE = [
    "settings", "device", "login", "circuit list", "power flow", "circuits", "clock", "SD card", "store", "InfluxDB",
    "token and bucket", "other writers", "series", "pending",
]  # fmt: skip
Told = dict[str, list[tuple[str, str]]]


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def shown_clock(time: datetime) -> str:
    """Return what a page says of the device's time."""
    at = time.astimezone(ZoneInfo("Asia/Tokyo"))
    values = {"year": at.year % 100, "month": at.month, "day": at.day, "hour": at.hour, "min": at.minute}
    fields = ",".join(f'"{name}":"{value}"' for name, value in (values | {"sec": at.second}).items())
    return f"{{{fields}}}"


def listed(names: list[str], clock: Callable[[], datetime] = utc_now) -> Page:
    return lambda: circuit_list(names).replace(SERVER_TIME.encode(), shown_clock(clock()).encode())


def home(clock: Callable[[], datetime] = utc_now) -> dict[str, Page]:
    """The pages of a unit with two circuits, whose clock is `clock`."""
    rows = [("ＬＤ<br />", " 224W"), ("ＩＨ<br />", "")]
    return {
        FLOW: flow_json(),
        LIST: listed(["ＬＤ", "ＩＨ"], clock),
        circuits_path(1): lambda: circuit_page(rows, clock=shown_clock(clock())),
        EXPORT: b'<html><form><INPUT TYPE="hidden" NAME="csrftoken" VALUE="12345"></form><body></body></html>',
    }


@dataclass
class Setup:
    """A device and an InfluxDB, and the settings that lead to them."""

    device: Device
    influx: Influx
    folder: Path
    changed: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        right = {
            "AISEG2_HOST": self.device.address.removeprefix("http://"),
            "AISEG2_PASSWORD": PASSWORD,
        }
        return right | self.influx.settings | self.changed

    @property
    def store(self) -> Store:
        return Store.open(self.folder / "data" / "readings.sqlite")

    def write_out(self, store: Store) -> None:
        with self.influx.writer() as writer:
            now = utc_now()
            hour = now.replace(minute=0, second=0)
            deliver(store, writer, self.influx.destination, now=now, running_hour=hour)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing set."""
    for setting in Settings.model_fields.values():
        monkeypatch.delenv(str(setting.alias), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def setup(influx: Influx, here: Path) -> Setup:
    """Everything that the pipeline needs, in order; the device serves while the test runs."""
    return Setup(Device(home()), influx, here)


def ask(settings: dict[str, str]) -> tuple[int, Told]:
    """Return the exit code, and marks and findings by what was looked at."""
    result = CliRunner().invoke(main, ["doctor"], env=settings)
    assert result.stderr == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for secret in (PASSWORD, WRONG_PASSWORD, "test-token", WRONG_TOKEN):
        assert secret not in result.output
    told: Told = {}
    for line in result.stdout.splitlines():
        parts = re.fullmatch(r"(ok  |--  |FAIL) ([^:]+): (.+)", line)
        assert parts, line
        told.setdefault(parts[2], []).append((parts[1].strip(), parts[3]))
    return result.exit_code, told


def examine(setup: Setup) -> tuple[int, Told]:
    with serving(setup.device.pages) as device:
        setup.device = device
        return ask(setup.settings)


def failures(told: Told) -> dict[str, str]:
    return {what: found for what, lines in told.items() for mark, found in lines if mark == "FAIL"}


def test_a_good_setup_passes_line_by_line(setup: Setup) -> None:
    code, told = examine(setup)
    assert code == 0
    assert list(told) == ALL_FINE
    assert {mark for lines in told.values() for mark, _ in lines} == {"ok"}
    assert told["circuit list"] == [("ok", "2 circuits are registered")]
    assert told["power flow"] == [("ok", "generation 2.1 kW, consumption 1.2 kW")]
    assert told["circuits"] == [("ok", "2 circuits, 224 W in all")]
    assert "none yet" in told["store"][0][1]
    assert setup.influx.points() == []


def test_the_demo_passes_and_says_that_it_is_one() -> None:
    with running() as unit:
        code, told = ask({"AISEG2_SIMULATOR_PORT": unit.address.split(":")[1]})
    assert code == 0
    assert failures(told) == {}
    assert any("demo" in found for _, found in told["settings"])
    assert told["InfluxDB"][0][0] == "--"
    assert told["SD card"][0][0] == "ok"


def test_the_last_reading_is_told_in_japan_time(setup: Setup) -> None:
    with setup.store as store:
        store.upsert(frame([Row(datetime(2026, 7, 13, 23, 15, tzinfo=UTC), "total", "総消費電力", 1, "kW", 0)]))
    _, told = examine(setup)
    assert told["store"][0][1].endswith("last reading 2026-07-14 08:15:00+09:00")
    assert told["pending"] == [("ok", "1 hours have rows that InfluxDB has not acknowledged yet")]


def wrong_password(setup: Setup) -> None:
    setup.changed["AISEG2_PASSWORD"] = WRONG_PASSWORD


def list_unreadable(setup: Setup) -> None:
    setup.device.pages[LIST] = b"<html>half a page"


def list_not_served(setup: Setup) -> None:
    del setup.device.pages[LIST]


def flow_unreadable(setup: Setup) -> None:
    setup.device.pages |= {FLOW: b"{}", FLOW_HTML: b"<html></html>"}


def circuits_unreadable(setup: Setup) -> None:
    setup.device.pages[circuits_path(1)] = b"<html></html>"


def circuit_unlisted(setup: Setup) -> None:
    setup.device.pages[LIST] = listed(["ＬＤ"])


def clock_wrong(setup: Setup) -> None:
    setup.device.pages |= home(lambda: utc_now() - timedelta(minutes=5))


def store_foreign(setup: Setup) -> None:
    (setup.folder / "data").mkdir()
    (setup.folder / "data" / "readings.sqlite").write_bytes(b"no database" * 100)


def influx_away(setup: Setup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        setup.changed["INFLUXDB_HOST"] = f"127.0.0.1:{probe.getsockname()[1]}"


def influx_down(setup: Setup) -> None:
    setup.influx.server.stop()


def influx_unrelated(setup: Setup) -> None:
    setup.influx.proxy.fault = lambda _: Fault(200, body=b"<html>a router</html>")


def token_wrong(setup: Setup) -> None:
    setup.changed["INFLUXDB_TOKEN"] = WRONG_TOKEN


def token_spoilt(setup: Setup) -> None:
    setup.changed["INFLUXDB_TOKEN"] = f"{WRONG_TOKEN}鍵"


def org_wrong(setup: Setup) -> None:
    setup.changed["INFLUXDB_ORG"] = "elsewhere"


def bucket_wrong(setup: Setup) -> None:
    setup.changed["INFLUXDB_BUCKET"] = "elsewhere"


def ca_file_wrong(setup: Setup) -> None:
    (setup.folder / "ca.pem").write_text("no certificate")
    setup.changed |= {"INFLUXDB_CA_FILE": "ca.pem", "INFLUXDB_USE_HTTPS": "1"}


def influx_in_clear(setup: Setup) -> None:
    setup.changed["INFLUXDB_USE_HTTPS"] = "1"


OF_DEVICE = {"circuit list", "power flow", "circuits", "clock", "SD card"}
OF_BUCKET = {"other writers", "series", "pending"}


@pytest.mark.parametrize(
    ("broken", "failing", "named", "left_out"),
    [
        (wrong_password, {"login"}, "AISEG2_PASSWORD", OF_DEVICE),
        (list_unreadable, {"circuit list", "circuits"}, "installation/734", {"login"}),
        (list_not_served, {"circuit list", "circuits"}, "installation/734", {"login"}),
        (flow_unreadable, {"power flow"}, "electricflow/111", {"circuits"}),
        (circuits_unreadable, {"circuits"}, "electricflow/1113", set()),
        (circuit_unlisted, {"circuits"}, "'ＩＨ'", set()),
        (clock_wrong, {"clock"}, "30[01] s behind", set()),
        (store_foreign, {"store", "bucket"}, "AISEG2_DATA_DIR", OF_BUCKET),
        (influx_away, {"InfluxDB"}, "INFLUXDB_HOST", {"token and bucket", *OF_BUCKET}),
        (influx_down, {"InfluxDB"}, "502", {"token and bucket", *OF_BUCKET}),
        (influx_unrelated, {"token and bucket"}, "INFLUXDB_HOST", {"InfluxDB", *OF_BUCKET}),
        (token_wrong, {"token and bucket"}, "INFLUXDB_TOKEN", {"InfluxDB", *OF_BUCKET}),
        (token_spoilt, {"token and bucket"}, "INFLUXDB_TOKEN", {"InfluxDB", *OF_BUCKET}),
        (org_wrong, {"token and bucket"}, "INFLUXDB_ORG", {"InfluxDB", *OF_BUCKET}),
        (bucket_wrong, {"token and bucket"}, "INFLUXDB_BUCKET", {"InfluxDB", *OF_BUCKET}),
        (ca_file_wrong, {"InfluxDB"}, "INFLUXDB_CA_FILE", {"token and bucket", *OF_BUCKET}),
        (influx_in_clear, {"token and bucket"}, "INFLUXDB_USE_HTTPS", {"InfluxDB", *OF_BUCKET}),
    ],
)
def test_each_thing_that_is_broken_fails_on_its_line_and_the_others_are_told(
    setup: Setup, broken: Callable[[Setup], None], failing: set[str], named: str, left_out: set[str]
) -> None:
    broken(setup)
    code, told = examine(setup)
    assert code == 1
    failed = failures(told)
    assert failed.keys() == failing
    assert all(re.search(named, found) for found in failed.values())
    assert set(ALL_FINE) - told.keys() == left_out


def test_a_device_that_is_off_is_told_once_and_the_rest_is_looked_at(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The device has 20 s to come back; this test has not, and tries once.
    monkeypatch.setattr(doctor, "READING_TIMEOUT_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        setup.changed["AISEG2_HOST"] = f"127.0.0.1:{probe.getsockname()[1]}"
    code, told = ask(setup.settings)
    assert code == 1
    assert failures(told).keys() == {"device"}
    assert "AISEG2_HOST" in failures(told)["device"]
    assert told["pending"][0][0] == "ok"
    code, told = ask({"AISEG2_SIMULATOR_PORT": setup.changed["AISEG2_HOST"].split(":")[1]})
    assert code == 1
    assert "make run" in failures(told)["device"]


def test_a_store_that_can_be_read_but_not_written_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.2)
    with setup.store as store, contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, told = examine(setup)
    assert code == 1
    assert failures(told).keys() == {"store"}
    assert "held by another process" in failures(told)["store"]


def test_an_sd_card_page_that_is_missing_is_no_failure(setup: Setup) -> None:
    del setup.device.pages[EXPORT]
    code, told = examine(setup)
    assert code == 0
    assert told["SD card"][0][0] == "--"


def test_a_home_without_a_generating_device_is_no_failure(setup: Setup) -> None:
    setup.device.pages[FLOW] = flow_json(g_capacity="-", g_d_1_title="", g_d_1_capacity="-")
    code, told = examine(setup)
    assert code == 0
    assert told["power flow"] == [("ok", "no generating device, consumption 1.2 kW")]


def test_a_misspelt_setting_is_a_hint(setup: Setup) -> None:
    (setup.folder / ".env").write_text("AISEG2_PASWD=x\n")
    (setup.folder / ".env").chmod(0o600)
    code, told = examine(setup)
    assert code == 0
    assert [found for mark, found in told["settings"] if mark == "--"] == [
        "AISEG2_PASWD is no setting of this program: see .env.example for its name"
    ]


def test_what_others_can_read_is_a_hint(setup: Setup) -> None:
    data = setup.folder / "data"
    (setup.folder / ".env").touch(0o600)
    setup.store.close()
    data.chmod(0o755)
    assert [mark for mark, _ in examine(setup)[1]["settings"]] == ["ok"]
    (setup.folder / ".env").chmod(0o640)
    (data / "readings.sqlite").chmod(0o644)
    code, told = examine(setup)
    assert code == 0
    env, kept = (found for mark, found in told["settings"] if mark == "--")
    assert env == "others on this machine can read .env, which holds passwords: run chmod 600 .env"
    assert kept == f"others on this machine can read what is kept: run chmod -R go= {data}"
    data.chmod(0o700)
    assert [found for mark, found in examine(setup)[1]["settings"] if mark == "--"] == [env]


def consumption(time: datetime) -> list[Row]:
    return [Row(time, "total", "総消費電力", 1.2, "kW", 0), Row(time, "usage", "ＬＤ", 224, "W", 0)]


def test_another_program_that_writes_to_the_bucket_is_told(setup: Setup) -> None:
    now = utc_now()
    with setup.store as store:
        store.upsert(frame([*consumption(now - timedelta(minutes=2)), *consumption(now - timedelta(minutes=1))]))
        setup.write_out(store)
    code, told = examine(setup)
    assert (code, told["other writers"]) == (0, [("ok", "none in the last ten minutes")])
    with Store.open(setup.folder / "of another program.sqlite") as other:
        other.upsert(frame(consumption(now - timedelta(seconds=30))))
        other.upsert(frame(consumption(now - timedelta(minutes=20))))
        setup.write_out(other)
    code, told = examine(setup)
    assert code == 1
    assert failures(told).keys() == {"other writers"}
    assert f"wrote 1 readings to {setup.influx.bucket}" in failures(told)["other writers"]


def test_a_token_that_may_only_write_is_no_failure(setup: Setup) -> None:
    setup.changed["INFLUXDB_TOKEN"] = setup.influx.server.create_token(setup.influx.bucket, read=False)
    code, told = examine(setup)
    assert code == 0
    assert told["other writers"] == [
        ("--", "not known, and neither are its series: the token may write, but not read the bucket")
    ]
    assert "series" not in told
    assert told["pending"][0][0] == "ok"


def write_as_the_old_program(setup: Setup, *tags: str, ago: timedelta = timedelta(hours=1)) -> None:
    time_ns = int((utc_now() - ago).timestamp()) * 10**9
    with setup.influx.writer() as writer:
        writer.write([f"power,{each} value=1.5 {time_ns}" for each in tags])


TOTALS = ["summary=総発電電力(kW)", "summary=総消費電力(kW)", "summary=売買電力(kW)"]
DEVICES = ["detail-type=generation,detail-section=太陽光発電(W)", *(f"detail-type=usage,detail-section={n}(W)" for n in ["ＬＤ", "ＩＨ"])]  # fmt: skip


def test_an_empty_bucket_is_told_how_many_series_will_be_in_it(setup: Setup) -> None:
    _, told = examine(setup)
    assert told["series"] == [
        ("ok", "the bucket has no point of `power` of the last 7 days; 6 series will be in it")
    ]


def test_the_series_of_the_old_program_are_those_that_are_written(setup: Setup) -> None:
    write_as_the_old_program(setup, *TOTALS, *DEVICES)
    write_as_the_old_program(setup, "summary=of\\ long\\ ago", ago=timedelta(days=8))
    code, told = examine(setup)
    assert code == 0
    assert told["series"] == [("ok", "the 6 series of `power` in the bucket are those that are written")]


def test_a_circuit_that_tells_no_number_just_now_is_not_missed(setup: Setup) -> None:
    setup.device.pages[circuits_path(1)] = circuit_page([("ＬＤ<br />", " 224W"), ("ＩＨ<br />", "-")])
    setup.device.pages |= {LIST: listed(["ＬＤ", "ＩＨ"])}
    write_as_the_old_program(setup, *TOTALS, *DEVICES)
    _, told = examine(setup)
    assert [mark for mark, _ in told["series"]] == ["ok"]


def test_series_that_come_go_and_change_are_named(setup: Setup) -> None:
    names = ["ＬＤ", "エアコン", "エアコン"]
    setup.device.pages[LIST] = listed(names)
    setup.device.pages[circuits_path(1)] = lambda: circuit_page(
        [(f"{name}<br />", " 100W") for name in names], clock=shown_clock(utc_now())
    )
    gone = [f"detail-type=usage,detail-section=部屋{n}(W)" for n in range(8)]
    write_as_the_old_program(
        setup,
        *TOTALS,
        DEVICES[0],
        "detail-type=usage,detail-section=エアコン(W)",
        "host=x,summary=\x1b[31m",
        *gone,
    )
    code, told = examine(setup)
    assert code == 0
    assert told["series"] == [
        ("--", "1 new, which the bucket does not have yet: ＬＤ(W) (usage)"),
        (
            "--",
            "9 in the bucket that are not written (any more, or by this program): host=x summary= [31m, "
            + ", ".join(f"部屋{n}(W) (usage)" for n in range(5))
            + " and 3 more",
        ),
        (
            "--",
            "1 of several circuits with one name, which rise from the last of them to their sum: エアコン(W) (usage)",
        ),
    ]


def test_without_the_device_the_last_reading_is_compared(setup: Setup) -> None:
    setup.device.pages[FLOW] = setup.device.pages[FLOW_HTML] = b"<html></html>"
    write_as_the_old_program(setup, "summary=総消費電力(kW)", DEVICES[1])
    _, told = examine(setup)
    assert [mark for mark, _ in told["series"]] == ["--"]
    with setup.store as store:
        store.upsert(frame(consumption(utc_now())))
    _, told = examine(setup)
    assert told["series"] == [("ok", "the 2 series of `power` in the bucket are those that are written")]


def test_rows_that_influxdb_refused_are_listed_with_the_reason(setup: Setup) -> None:
    time = datetime(2026, 7, 13, 23, 15, tzinfo=UTC)
    circuits = [f"回路{n}" for n in range(7)]
    with setup.influx.writer() as writer:
        writer.write([f"power,summary=x value=1i {int(time.timestamp())}000000000"])
    with setup.store as store:
        store.upsert(frame([Row(time, "usage", name, 1, "W", 0) for name in circuits]))
        setup.write_out(store)
    code, told = examine(setup)
    assert code == 1
    assert failures(told).keys() == {"refused rows"}
    assert failures(told)["refused rows"].startswith("7 rows were refused")
    shown = [found for mark, found in told["refused rows"] if mark == "--"]
    assert len(shown) == 5
    for found in shown:
        assert re.fullmatch(
            r"2026-07-14 08:15:00\+09:00 回路\d: .*field type conflict: .* already exists as type integer.*", found
        )
