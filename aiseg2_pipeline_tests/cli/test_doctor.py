"""`doctor` reports each fault on the line of its check, and continues with the other checks."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest
from click.testing import CliRunner

from aiseg2_pipeline.cli import doctor
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.influxdb.delivery import deliver, deliver_coverage
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store import Store, database
from aiseg2_pipeline_tests.support.device import (
    BATTERY_FLOW,
    FLOW,
    FLOW_HTML,
    LIST,
    PASSWORD,
    SERVER_TIME,
    Device,
    Page,
    battery_flow,
    circuit_list,
    circuit_page,
    circuits_path,
    flow_json,
    serving,
)
from aiseg2_pipeline_tests.support.device_pages import rooms_page_43
from aiseg2_pipeline_tests.support.influxdb import Influx

EXPORT = "GET /set/exectop2.cgi"
WRONG_PASSWORD, WRONG_TOKEN = "battery staple", "stolen-token"
ALL_FINE = [
    "settings", "device", "login", "circuit list", "power flow", "circuits", "clock", "rooms", "SD card", "store", "pipeline", "InfluxDB",
    "token and bucket", "other writers", "series", "pending",
]  # fmt: skip
# Marks and findings by subject.
Lines = dict[str, list[tuple[str, str]]]


def utc_now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def shown_clock(time: datetime) -> str:
    """Return the device's time as a page shows it."""
    at = time.astimezone(ZoneInfo("Asia/Tokyo"))
    values = {"year": at.year % 100, "month": at.month, "day": at.day, "hour": at.hour, "min": at.minute}
    fields = ",".join(f'"{name}":"{value}"' for name, value in (values | {"sec": at.second}).items())
    return f"{{{fields}}}"


def listed(names: list[str], clock: Callable[[], datetime] = utc_now) -> Page:
    return lambda: circuit_list(names).replace(SERVER_TIME.encode(), shown_clock(clock()).encode())


def home(clock: Callable[[], datetime] = utc_now) -> dict[str, Page]:
    """The pages of a device with two circuits, whose clock is `clock`."""
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
            deliver(store, writer, self.influx.destination, now=now)


@pytest.fixture
def setup(influx: Influx, folder: Path) -> Setup:
    """Everything that the pipeline needs, without a fault."""
    return Setup(Device(home()), influx, folder)


def run_doctor(settings: dict[str, str]) -> tuple[int, Lines]:
    """Return the exit code and the printed lines."""
    result = CliRunner().invoke(main, ["doctor"], env=settings)
    assert result.stderr == ""
    assert result.exception is None or isinstance(result.exception, SystemExit)
    for secret in (PASSWORD, WRONG_PASSWORD, "test-token", WRONG_TOKEN):
        assert secret not in result.output
    lines: Lines = {}
    *found, summary = result.stdout.splitlines()
    assert re.match(r"All \d+ checks passed|\d+ of \d+ checks failed: ", summary)
    for line in found:
        parts = re.fullmatch(r"(ok  |--  |FAIL) ([^:]+): (.+)", line)
        assert parts, line
        lines.setdefault(parts[2], []).append((parts[1].strip(), parts[3]))
    return result.exit_code, lines


def examine(setup: Setup) -> tuple[int, Lines]:
    """Run `doctor` while the device serves its pages."""
    with serving(setup.device.pages) as device:
        setup.device = device
        return run_doctor(setup.settings)


def failures(lines: Lines) -> dict[str, str]:
    return {subject: finding for subject, found in lines.items() for mark, finding in found if mark == "FAIL"}


def hints(lines: Lines, subject: str) -> list[str]:
    return [finding for mark, finding in lines[subject] if mark == "--"]


def test_a_setup_without_faults_passes_every_check(setup: Setup) -> None:
    code, lines = examine(setup)
    assert code == 0
    assert list(lines) == ALL_FINE
    assert lines.pop("pipeline") == [
        ("--", "it does not run on this data directory: `aiseg2-pipeline run` starts it")
    ]
    assert {mark for found in lines.values() for mark, _ in found} == {"ok"}
    assert lines["circuit list"] == [("ok", "2 circuits are registered")]
    assert lines["power flow"] == [("ok", "generation 2.1 kW, consumption 1.2 kW")]
    assert lines["circuits"] == [("ok", "2 circuits, 224 W in all")]
    assert "none yet" in lines["store"][0][1]
    assert lines["SD card"] == [("ok", "there is none, or it is not ready: energy is kept by the hour")]
    # An empty bucket.
    assert lines["series"] == [
        ("ok", "the bucket has no point of `power` of the last 7 days; 6 series will be written")
    ]
    assert setup.influx.points() == []


def test_the_demo_passes_and_is_named() -> None:
    with running() as device:
        code, lines = run_doctor({"AISEG2_SIMULATOR_PORT": device.address.split(":")[1]})
    assert code == 0
    assert failures(lines) == {}
    assert any("demo" in finding for finding in hints(lines, "settings"))
    assert [lines[subject][0][0] for subject in ("InfluxDB", "SD card")] == ["--", "ok"]


def test_a_card_is_named_with_its_newest_day() -> None:
    with running(sd_card=True) as device:
        _, lines = run_doctor({"AISEG2_SIMULATOR_PORT": device.address.split(":")[1]})
    today = datetime.now(ZoneInfo("Asia/Tokyo")).date()
    card = f"there is one, the newest day on it is {today}: energy is kept by the half hour"
    assert lines["SD card"] == [("ok", card)]


def test_all_wrong_settings_are_listed_at_once() -> None:
    wrong_values = {"AISEG2_HOST": "http://x", "AISEG2_UI_PORT": "x", "INFLUXDB_HOST": "influxdb"}
    code, lines = run_doctor(wrong_values | {"AISEG2_PASWORD": "x"})
    assert code == 1
    assert "AISEG2_PASWORD is not a setting of this program" in hints(lines, "settings")[0]
    wrong = "AISEG2_HOST", "AISEG2_UI_PORT", "AISEG2_PASSWORD", "INFLUXDB_TOKEN", "INFLUXDB_ORG", "INFLUXDB_BUCKET"
    assert tuple(finding.split()[0] for mark, finding in lines["settings"] if mark == "FAIL") == wrong


def test_the_last_line_sums_up_and_the_marks_are_coloured_on_a_terminal_only() -> None:
    settings = {"AISEG2_HOST": NOBODY_LISTENS, "AISEG2_UI": "x", "AISEG2_USER": "利用者", "NO_COLOR": ""}
    plain = CliRunner().invoke(main, ["doctor"], env=settings).stdout
    assert plain.splitlines()[-1] == "3 of 3 checks failed: settings. Hints (--): 1."
    coloured = CliRunner().invoke(main, ["doctor"], env=settings, color=True).stdout
    assert "\x1b[31mFAIL\x1b[0m settings: " in coloured
    assert click.unstyle(coloured) == plain
    assert CliRunner().invoke(main, ["doctor"], env=settings | {"NO_COLOR": "1"}, color=True).stdout == plain


def test_a_data_directory_that_cannot_be_made_fails(setup: Setup) -> None:
    (setup.folder / "file").touch()
    setup.changed["AISEG2_DATA_DIR"] = "file/data"
    code, lines = examine(setup)
    assert code == 1
    assert failures(lines).keys() == {"store"}
    assert "AISEG2_DATA_DIR" in failures(lines)["store"]


def test_the_last_reading_is_shown_in_japan_time(setup: Setup) -> None:
    with setup.store as store:
        store.upsert(frame(consumption(datetime(2026, 7, 13, 23, 15, tzinfo=UTC))))
    _, lines = examine(setup)
    assert lines["store"][0][1].endswith("last reading 2026-07-14 08:15:00")
    assert lines["pending"] == [("ok", "1 hour has rows that InfluxDB has not acknowledged yet")]


# Faults


def changed(name: str, value: str) -> Callable[[Setup], None]:
    return lambda setup: setup.changed.update({name: value})


def shown(*pages: tuple[str, Page]) -> Callable[[Setup], None]:
    return lambda setup: setup.device.pages.update(pages)


def store_foreign(setup: Setup) -> None:
    (setup.folder / "data").mkdir()
    (setup.folder / "data" / "readings.sqlite").write_bytes(b"no database" * 100)


def ca_file_wrong(setup: Setup) -> None:
    (setup.folder / "ca.pem").write_text("no certificate")
    setup.changed |= {"INFLUXDB_CA_FILE": "ca.pem", "INFLUXDB_USE_HTTPS": "1"}


def late() -> datetime:
    return utc_now() - timedelta(minutes=5)


NOBODY_LISTENS = "127.0.0.1:1"
OF_DEVICE = {"circuit list", "power flow", "circuits", "clock", "rooms", "SD card"}
OF_BUCKET = {"other writers", "series", "pending"}


@pytest.mark.parametrize(
    ("fault", "failing", "named", "missing"),
    [
        (changed("AISEG2_PASSWORD", WRONG_PASSWORD), {"login"}, "AISEG2_PASSWORD", OF_DEVICE),
        (shown((LIST, b"<html>half a page")), {"circuit list"}, "installation/734", {"login"}),
        (shown((FLOW, b"{}"), (FLOW_HTML, b"<html></html>")), {"power flow"}, "electricflow/111", {"circuits"}),
        (shown((circuits_path(1), b"<html></html>")), {"circuits"}, "electricflow/1113", set()),
        (shown(*home(late).items()), {"clock"}, "30[01] s behind", set()),
        (store_foreign, {"store", "bucket"}, "AISEG2_DATA_DIR", OF_BUCKET),
        (changed("INFLUXDB_HOST", NOBODY_LISTENS), {"InfluxDB"}, "INFLUXDB_HOST", {"token and bucket", *OF_BUCKET}),
        (changed("INFLUXDB_TOKEN", WRONG_TOKEN), {"token and bucket"}, "INFLUXDB_TOKEN", {"InfluxDB", *OF_BUCKET}),
        (ca_file_wrong, {"InfluxDB"}, "INFLUXDB_CA_FILE", {"token and bucket", *OF_BUCKET}),
    ],
)  # fmt: skip
def test_a_fault_fails_its_own_check_and_the_others_are_made(
    setup: Setup, fault: Callable[[Setup], None], failing: set[str], named: str, missing: set[str]
) -> None:
    fault(setup)
    code, lines = examine(setup)
    assert code == 1
    failed = failures(lines)
    assert failed.keys() == failing
    assert all(re.search(named, finding) for finding in failed.values())
    assert set(ALL_FINE) - lines.keys() == missing


def test_a_device_that_is_off_fails_one_check_and_the_others_are_made(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Instead of the 20 s for which it is retried.
    monkeypatch.setattr(doctor, "READING_TIMEOUT_S", 0.4)
    setup.changed["AISEG2_HOST"] = NOBODY_LISTENS
    code, lines = run_doctor(setup.settings)
    assert code == 1
    assert failures(lines).keys() == {"device"}
    assert "AISEG2_HOST" in failures(lines)["device"]
    assert lines["pending"][0][0] == "ok"
    _, lines = run_doctor({"AISEG2_SIMULATOR_PORT": setup.changed["AISEG2_HOST"].split(":")[1]})
    assert "make run" in failures(lines)["device"]


def test_a_store_that_is_held_by_another_process_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.2)
    with setup.store as store, contextlib.closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, lines = examine(setup)
    assert code == 1
    assert failures(lines).keys() == {"store"}
    assert "held by another process" in failures(lines)["store"]


def test_missing_optional_parts_of_the_device_are_no_failure(setup: Setup) -> None:
    setup.device.pages[FLOW] = flow_json(g_capacity="-", g_d_1_title="", g_d_1_capacity="-", connSb=1)
    setup.device.pages[BATTERY_FLOW] = b"{}"
    del setup.device.pages[EXPORT]
    code, lines = examine(setup)
    assert code == 0
    assert lines["SD card"][0][0] == lines["battery"][0][0] == "--"
    assert lines["power flow"] == [("ok", "no generating device, consumption 1.2 kW")]


def test_the_rooms_are_read_and_a_page_of_them_that_cannot_be_read_is_no_failure(setup: Setup) -> None:
    page = "GET /page/airenvironment/43?page=1"
    setup.device.pages[page] = rooms_page_43(("居間", "23.5", "48"), ("屋外", "-2.6", "4_"))
    code, lines = examine(setup)
    assert code == 0
    (read, problem) = lines["rooms"]
    assert read == ("ok", "居間 23.5 ℃ 48 %, 屋外 -2.6 ℃")
    assert problem[0] == "--"
    assert ".num_shitudo" in problem[1]
    setup.device.pages[page] = b"<html>half a page"
    code, lines = examine(setup)
    assert (code, lines["rooms"][0][0]) == (0, "--")


def test_a_misspelt_setting_and_readable_files_are_hints(setup: Setup) -> None:
    env, data = setup.folder / ".env", setup.folder / "data"
    env.write_text("AISEG2_PASWD=x\n")
    env.chmod(0o600)
    setup.store.close()
    data.chmod(0o755)
    misspelt = "AISEG2_PASWD is not a setting of this program: see .env.example for the names"
    assert hints(examine(setup)[1], "settings") == [misspelt]
    env.chmod(0o640)
    (data / "readings.sqlite").chmod(0o644)
    code, lines = examine(setup)
    assert code == 0
    of_env = "others on this machine can read .env, which holds passwords: run chmod 600 .env"
    of_data = f"others on this machine can read the data directory: run chmod -R go= {data}"
    assert hints(lines, "settings") == [misspelt, of_env, of_data]
    data.chmod(0o700)
    assert hints(examine(setup)[1], "settings") == [misspelt, of_env]


# The bucket


def consumption(time: datetime) -> list[Row]:
    return [Row(time, "total", "総消費電力", 1.2, "kW", 0), Row(time, "usage", "ＬＤ", 224, "W", 0)]


def test_another_program_that_writes_to_the_bucket_fails(setup: Setup) -> None:
    now = utc_now()
    with setup.store as store:
        store.upsert(frame([*consumption(now - timedelta(minutes=2)), *consumption(now - timedelta(minutes=1))]))
        setup.write_out(store)
    code, lines = examine(setup)
    assert (code, lines["other writers"]) == (0, [("ok", "none in the last ten minutes")])
    with Store.open(setup.folder / "of another program.sqlite") as other:
        other.upsert(frame(consumption(now - timedelta(seconds=30))))
        other.upsert(frame(consumption(now - timedelta(minutes=20))))
        setup.write_out(other)
    code, lines = examine(setup)
    assert code == 1
    assert failures(lines).keys() == {"other writers"}
    assert f"wrote 1 readings to {setup.influx.bucket}" in failures(lines)["other writers"]


def test_a_token_that_may_only_write_is_no_failure(setup: Setup) -> None:
    setup.changed["INFLUXDB_TOKEN"] = setup.influx.server.create_token(setup.influx.bucket, read=False)
    code, lines = examine(setup)
    assert code == 0
    assert hints(lines, "other writers") == [
        "unknown, as are the series: the token may write to the bucket, but not read it"
    ]
    assert "series" not in lines
    assert lines["pending"][0][0] == "ok"


def write_as_the_earlier_program(setup: Setup, *tags: str, ago: timedelta = timedelta(hours=1)) -> None:
    time_ns = int((utc_now() - ago).timestamp()) * 10**9
    with setup.influx.writer() as writer:
        writer.write([f"power,{each} value=1.5 {time_ns}" for each in tags])


TOTALS = ["summary=総発電電力(kW)", "summary=総消費電力(kW)", "summary=売買電力(kW)"]
DEVICES = ["detail-type=generation,detail-section=太陽光発電(W)", *(f"detail-type=usage,detail-section={n}(W)" for n in ["ＬＤ", "ＩＨ"])]  # fmt: skip


@pytest.mark.parametrize("second_value", ["", "-"], ids=["0 W", "no number now"])
def test_the_series_of_the_earlier_program_are_those_that_are_written(setup: Setup, second_value: str) -> None:
    rows = [("ＬＤ<br />", " 224W"), ("ＩＨ<br />", second_value)]
    setup.device.pages[circuits_path(1)] = lambda: circuit_page(rows, clock=shown_clock(utc_now()))
    # These are in measurements of their own.
    setup.device.pages |= {FLOW: flow_json(connSb=1, percent="80"), BATTERY_FLOW: battery_flow()}
    write_as_the_earlier_program(setup, *TOTALS, *DEVICES)
    write_as_the_earlier_program(setup, "summary=of\\ long\\ ago", ago=timedelta(days=8))
    _, lines = examine(setup)
    assert lines["series"] == [("ok", "the 6 series of `power` in the bucket are those that are written")]


def test_new_missing_and_summed_series_are_named(setup: Setup) -> None:
    names = ["ＬＤ", "エアコン", "エアコン"]
    rows = [(f"{name}<br />", " 100W") for name in names]
    setup.device.pages[LIST] = listed(names)
    setup.device.pages[circuits_path(1)] = lambda: circuit_page(rows, clock=shown_clock(utc_now()))
    summed = "detail-type=usage,detail-section=エアコン(W)"
    gone = [f"detail-type=usage,detail-section=部屋{n}(W)" for n in range(8)]
    write_as_the_earlier_program(setup, *TOTALS, DEVICES[0], summed, "host=x,summary=\x1b[31m", *gone)
    code, lines = examine(setup)
    assert code == 0
    shown_rooms = ", ".join(f"部屋{n}(W) (usage)" for n in range(5))
    assert hints(lines, "series") == [
        "1 new, which the bucket does not have yet: ＬＤ(W) (usage)",
        f"9 in the bucket that this program does not write (any more): host=x summary= [31m, {shown_rooms} and 3 more",
        "1 of several circuits with one name, which are written as their sum: エアコン(W) (usage)",
    ]


def test_without_a_reading_of_the_device_the_last_stored_one_is_compared(setup: Setup) -> None:
    setup.device.pages[FLOW] = setup.device.pages[FLOW_HTML] = b"<html></html>"
    write_as_the_earlier_program(setup, "summary=総消費電力(kW)", DEVICES[1])
    _, lines = examine(setup)
    assert [mark for mark, _ in lines["series"]] == ["--"]
    with setup.store as store:
        store.upsert(frame(consumption(utc_now())))
    _, lines = examine(setup)
    assert lines["series"] == [("ok", "the 2 series of `power` in the bucket are those that are written")]


def test_rows_older_than_the_bucket_keeps_are_one_line_and_no_failure(setup: Setup) -> None:
    setup.influx.server.set_retention(setup.influx.bucket, timedelta(days=30))
    with setup.store as store:
        for days in (40, 0):
            store.upsert(frame(consumption(utc_now() - timedelta(days=days))))
        setup.write_out(store)
    # A token that may not read the bucket does not see its retention.
    write_only = setup.influx.server.create_token(setup.influx.bucket, read=False)
    for setup.changed in ({}, {"INFLUXDB_TOKEN": write_only}):
        code, lines = examine(setup)
        assert code == 0
        assert lines["retention"] == [
            ("ok", "the bucket keeps readings for 30 days; older ones stay in the store and are not written")
        ]
        assert lines["pending"] == [("ok", "0 hours have rows that InfluxDB has not acknowledged yet")]
        assert "refused rows" not in lines


def test_rows_that_influxdb_refused_are_listed_with_the_reason(setup: Setup) -> None:
    time = datetime(2026, 7, 13, 23, 15, tzinfo=UTC)
    with setup.influx.writer() as writer:
        writer.write([f"power,summary=x value=1i {int(time.timestamp())}000000000"])
    with setup.store as store:
        store.upsert(frame([Row(time, "usage", f"回路{n}", 1, "W", 0) for n in range(7)]))
        setup.write_out(store)
    code, lines = examine(setup)
    assert code == 1
    assert failures(lines).keys() == {"refused rows"}
    assert failures(lines)["refused rows"].startswith("InfluxDB refused 7 rows permanently")
    assert failures(lines)["refused rows"].endswith("set INFLUXDB_BUCKET to another one")
    reason = r"2026-07-14 08:15:00 回路\d: .*field type conflict: .* already exists as type integer.*"
    listed_rows = hints(lines, "refused rows")
    assert len(listed_rows) == 5
    assert all(re.fullmatch(reason, row) for row in listed_rows)


def test_coverage_that_influxdb_refused_is_listed_with_the_reason_until_it_is_sent_again(setup: Setup) -> None:
    hour = datetime(2026, 7, 13, 23, tzinfo=UTC)
    with setup.influx.writer() as writer, setup.store as store:
        writer.write([f"coverage read=1.5 {int(hour.timestamp())}000000000"])
        deliver_coverage(store, writer, setup.influx.destination, now=hour + timedelta(hours=1), since=hour)
        code, lines = examine(setup)
        assert code == 1
        assert failures(lines).keys() == {"refused coverage"}
        assert failures(lines)["refused coverage"].startswith("InfluxDB refused the `coverage` of 1 hour(s)")
        (reason,) = hints(lines, "refused coverage")
        assert re.match("2026-07-14 08:00:00: .*already exists as type float", reason)
        store.resend()
    assert examine(setup)[0] == 0
