"""The command as a person meets it: what it prints, what it keeps, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from aiseg2_pipeline import __version__
from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.readings import KEY, Row, frame
from aiseg2_pipeline.influxdb.delivery import deliver
from aiseg2_pipeline.influxdb.line_protocol import lines
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.simulator.server import running
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.device import (
    FLOW,
    FLOW_HTML,
    PASSWORD,
    Answer,
    Device,
    Page,
    circuits_path,
    flow_json,
    household,
    serving,
)
from aiseg2_pipeline_tests.support.influxdb import Influx

COMMAND = [sys.executable, "-m", "aiseg2_pipeline.cli"]
HOUR = timedelta(hours=1)
# 08:00 in Japan.
EIGHT = datetime(2026, 7, 13, 23, tzinfo=UTC)
FEW = [("ＬＤ<br />", " 224W"), ("洋室１<br />エアコン", " 80W"), ("ＩＨ<br />", "")]
AWKWARD = ["[red]x[/red]", "[/]", "[bold", ":smile:", "a,b=c d", 'quo"te', "back\\slash", "絵文字🔌", "-", "R&D"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing set."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.alias), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of(device: Device, password: str = PASSWORD) -> dict[str, str]:
    return {"AISEG2_HOST": device.address.removeprefix("http://"), "AISEG2_PASSWORD": password}


def of_influx(influx: Influx) -> dict[str, str]:
    return {"AISEG2_HOST": "127.0.0.1:9", "AISEG2_PASSWORD": PASSWORD} | influx.settings


def invoke(settings: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env=settings)


def succeed(settings: dict[str, str], *arguments: str) -> str:
    result = invoke(settings, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def fail(settings: dict[str, str], *arguments: str) -> str:
    """Return the sentence of a failure, which must be all that was printed."""
    result = invoke(settings, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    # Anything else got away as a traceback.
    assert isinstance(result.exception, SystemExit)
    error, sentence = result.stderr.removesuffix("\n").split(": ", 1)
    assert error == "Error"
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for secret in ("correct horse", "battery staple", "test-token"):
        assert secret not in sentence
    return sentence


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# read


def test_read_prints_a_table_in_japan_time_with_the_devices_names() -> None:
    with serving(household(FEW)) as device:
        table = succeed(of(device), "read")
    shown = {tuple(cell.strip() for cell in line.split("│")[1:-1]) for line in table.splitlines() if "│" in line}
    assert shown == {
        ("total", "総発電電力", "2.1", "kW"),
        ("total", "総消費電力", "1.2", "kW"),
        ("total", "売買電力", "0.9", "kW"),
        ("generation", "太陽光発電", "2130", "W"),
        ("usage", "ＬＤ", "224", "W"),
        ("usage", "洋室１エアコン", "80", "W"),
        ("usage", "ＩＨ", "0", "W"),
    }


def test_read_as_json_prints_the_rows_of_the_frame() -> None:
    with serving(household(FEW)) as device:
        before = datetime.now(UTC).replace(microsecond=0)
        rows = json.loads(succeed(of(device), "read", "--format", "json"))
        after = datetime.now(UTC)
    (shown,) = {row.pop("time") for row in rows}
    assert shown.endswith("+09:00")
    assert before <= datetime.fromisoformat(shown) <= after
    columns = ("kind", "name", "value", "unit", "interval_s")
    assert rows == [
        dict(zip(columns, row, strict=True))
        for row in [
            ("total", "総発電電力", 2.1, "kW", 0),
            ("total", "総消費電力", 1.2, "kW", 0),
            ("total", "売買電力", 0.9, "kW", 0),
            ("generation", "太陽光発電", 2130, "W", 0),
            ("usage", "ＬＤ", 224, "W", 0),
            ("usage", "洋室１エアコン", 80, "W", 0),
            ("usage", "ＩＨ", 0, "W", 0),
        ]
    ]


def test_read_as_line_protocol_prints_what_would_be_written() -> None:
    rows = [(name, f" {20 - n}W") for n, name in enumerate(AWKWARD)]
    pages = household(rows) | {FLOW: flow_json(connSb=1, percent="80", charge=0)}
    with serving(pages) as device:
        printed = succeed(of(device), "read", "--format", "lp").splitlines()
    (time_ns,) = {int(line.rsplit(" ", 1)[1]) for line in printed}
    time = datetime.fromtimestamp(time_ns // 10**9, UTC)
    expected = [
        Row(time, "total", "総発電電力", 2.1, "kW", 0),
        Row(time, "total", "総消費電力", 1.2, "kW", 0),
        Row(time, "total", "売買電力", 0.9, "kW", 0),
        Row(time, "generation", "太陽光発電", 2130, "W", 0),
        *(Row(time, "usage", name, 20 - n, "W", 0) for n, name in enumerate(AWKWARD)),
        Row(time, "battery", "充電率", 80, "%", 0),
        Row(time, "battery", "状態", 1, "", 0),
    ]
    assert printed == [line for points in lines(frame(expected)) for line in points]


def test_read_prints_awkward_names_as_they_were_sent() -> None:
    with serving(household([(name, f" {20 - n}W") for n, name in enumerate(AWKWARD)])) as device:
        table = succeed(of(device), "read")
        rows = json.loads(succeed(of(device), "read", "--format", "json"))
    assert [row["name"] for row in rows if row["kind"] == "usage"] == AWKWARD
    printed = [line.split("│")[2].strip() for line in table.splitlines() if "│ usage" in line]
    assert printed == AWKWARD


def test_read_stores_no_reading_and_the_second_one_is_warm(here: Path) -> None:
    with serving(household(FEW)) as device:
        succeed(of(device), "read")
        device.asked.clear()
        assert "(2 requests" in succeed(of(device), "read")
        assert device.requests == 2
    kept = [path for path in here.rglob("*") if path.is_file()]
    assert kept
    assert all(path.parent == here / "data" / "device" for path in kept)
    for path in kept:
        assert path.stat().st_mode & 0o077 == 0


def test_read_of_the_demo_keeps_to_the_demos_folder(here: Path) -> None:
    with running() as unit:
        rows = json.loads(
            succeed({"AISEG2_SIMULATOR_PORT": unit.address.split(":")[1]}, "read", "--format", "json")
        )
    assert {row["kind"] for row in rows} == {"total", "generation", "usage"}
    assert [path.name for path in (here / "data").iterdir()] == ["demo"]


def test_settings_are_taken_from_the_file_in_the_current_folder(here: Path) -> None:
    with serving(household(FEW)) as device:
        written = "".join(f"{name}={value}\n" for name, value in of(device).items())
        (here / ".env").write_text(written + "AISEG2_DATA_DIR=elsewhere\n", encoding="utf-8")
        assert "洋室１エアコン" in succeed({}, "read")
    assert (here / "elsewhere" / "device").is_dir()
    assert not (here / "data").exists()


@pytest.mark.parametrize("form", ["table", "json", "lp"])
def test_read_prints_the_totals_where_the_circuits_cannot_be_read(form: str) -> None:
    with serving(household(FEW) | {circuits_path(1): Answer(b"", 404)}) as device:
        result = invoke(of(device), "read", "--format", form)
    assert result.exit_code == 0
    assert "総消費電力" in result.stdout
    assert "ＬＤ" not in result.stdout
    assert result.stderr.startswith("The circuits are missing. ")
    assert "1113" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_wrong_password_is_one_sentence_without_it() -> None:
    with serving(household(FEW)) as device:
        sentence = fail(of(device, "battery staple"), "read")
    assert "AISEG2_PASSWORD" in sentence


@pytest.mark.parametrize("pages", [{FLOW: b"<html>maintenance</html>", FLOW_HTML: b"<html></html>"}, {}])
def test_an_unrelated_page_is_one_sentence_and_no_number(pages: dict[str, Page]) -> None:
    with serving(pages) as device:
        assert "electricflow/111" in fail(of(device), "read", "--format", "lp")


def test_nothing_listening_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    # The device has 20 s to come back; this test has not, and tries once.
    monkeypatch.setattr(Aiseg2Client.live, "__defaults__", (0.4,))
    port = str(free_port())
    sentence = fail({"AISEG2_HOST": f"127.0.0.1:{port}", "AISEG2_PASSWORD": PASSWORD}, "read")
    assert "nothing listens there): check AISEG2_HOST" in sentence
    assert "demo" not in sentence
    assert "this is the demo" in fail({"AISEG2_SIMULATOR_PORT": port}, "read")


def test_a_person_is_told_that_the_device_is_asked_again() -> None:
    answers = [Answer(b"busy", 503), Answer(b"busy", 503)]
    pages = household(FEW) | {FLOW: lambda: answers.pop() if answers else flow_json()}
    with serving(pages) as device:
        result = invoke(of(device), "read")
    assert result.exit_code == 0
    assert "洋室１エアコン" in result.stdout
    (notice,) = result.stderr.splitlines()
    assert "503" in notice
    assert "tried again for up to 20 s" in notice


@pytest.mark.parametrize("command", ["read", "resend", "doctor", "run", "simulate"])
def test_a_wrong_setting_is_one_sentence_in_every_command(command: str, here: Path) -> None:
    assert fail({"AISEG2_HOST": "192.168.0.216"}, command).startswith("AISEG2_PASSWORD is not set")
    assert fail({"INFLUXDB_HOST": "192.168.0.10:8086"}, command).startswith("INFLUXDB_HOST is set but")
    assert list(here.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(here: Path) -> None:
    (here / "file").touch()
    (here / "foreign").mkdir()
    (here / "foreign" / "readings.sqlite").write_bytes(b"no database" * 100)
    with serving(household(FEW)) as device:
        real = of(device) | {"INFLUXDB_HOST": "127.0.0.1:9"}
        real |= {"INFLUXDB_TOKEN": "test-token", "INFLUXDB_ORG": "home", "INFLUXDB_BUCKET": "aiseg2"}
        for command in (["read"], ["resend"], ["remove", "--from", "2026-07-14", "--to", "2026-07-14", "--yes"]):
            assert "AISEG2_DATA_DIR" in fail(real | {"AISEG2_DATA_DIR": "file/data"}, *command)
        assert "readings.sqlite is not a store" in fail(real | {"AISEG2_DATA_DIR": "foreign"}, "resend")


def test_a_failure_of_the_real_process_is_one_line_and_exit_code_1(here: Path) -> None:
    with serving(household(FEW)) as device:
        ended = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, "read"],
            cwd=here,
            env=dict(os.environ) | of(device, "battery staple"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert ended.stderr.count("\n") == 1


# Use


@pytest.mark.parametrize(
    "arguments",
    [
        ["read", "--format", "xml"],
        ["read", "now"],
        ["resend", "--from", "yesterday"],
        ["resend", "--from", "2026-02-30"],
        ["resend", "--from", "0001-01-01"],
        ["resend", "--to", "9999-12-31T23:59Z"],
        ["resend", "--from", "2026-07-14", "--to", "2026-07-13"],
        ["remove"],
        ["remove", "--from", "2026-07-14"],
        ["remove", "--to", "2026-07-14", "--yes"],
        ["remove", "--from", "2026-07-14T08:15", "--to", "2026-07-14T08:14", "--yes"],
        ["simulate", "--port", "0"],
        ["simulate", "--speed", "-1"],
        ["simulate", "--start", "soon"],
        ["nothing"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_touches_nothing(arguments: list[str], here: Path) -> None:
    result = invoke({}, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("command", [[], *([name] for name in main.commands)], ids=" ".join)
def test_every_command_tells_what_it_is_for(command: list[str]) -> None:
    told = succeed({"AISEG2_UI_PORT": "wrong"}, *command, "--help")
    assert told == succeed({}, *command, "-h")
    described = (main.commands[command[0]] if command else main).help
    assert described is not None
    assert " ".join(described.split("\n")[0].split()) in " ".join(told.split())


def test_the_version_is_told() -> None:
    assert __version__ in succeed({}, "--version")


# resend and remove


def stored(start: datetime, hours: int) -> pd.DataFrame:
    """Four rows an hour, two of them ten seconds after the full hour."""
    return frame(
        Row(time, kind, name, n + 0.5, unit, 0)
        for n in range(hours)
        for time in (start + n * HOUR, start + n * HOUR + timedelta(seconds=10))
        for kind, name, unit in (("total", "総消費電力", "kW"), ("usage", "a, b=\\", "W"))
    )


@pytest.fixture
def store(here: Path) -> Iterator[Store]:
    """The store of a real device: three hours from 08:00 in Japan."""
    with Store.open(here / "data" / "readings.sqlite") as opened:
        opened.upsert(stored(EIGHT, 3))
        yield opened


def write_out(store: Store, influx: Influx) -> int:
    with influx.writer() as writer:
        return deliver(store, writer, influx.destination, now=EIGHT, running_hour=EIGHT).rows


def everything(store: Store) -> pd.DataFrame:
    table = store.read(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    return table.sort_values(KEY, ignore_index=True)


def test_resend_brings_back_a_bucket_that_was_emptied(influx: Influx, store: Store) -> None:
    settings = of_influx(influx)
    assert write_out(store, influx) == 12
    influx.empty()
    assert write_out(store, influx) == 0
    told = succeed(settings, "resend")
    assert told.startswith("3 hours are pending again")
    assert influx.bucket in told
    assert write_out(store, influx) == 12
    assert influx.readings().equals(everything(store))


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        (["--from", "2026-07-14T09:00"], [1, 2]),
        (["--from", "2026-07-14T09:59:59"], [1, 2]),
        (["--to", "2026-07-14T08:59"], [0]),
        (["--to", "2026-07-14T09:00"], [0, 1]),
        (["--from", "2026-07-14", "--to", "2026-07-14"], [0, 1, 2]),
        (["--from", "2026-07-13T23:59+00:00", "--to", "2026-07-14T00:59:59Z"], [0, 1]),
        (["--from", "2026-07-15"], []),
        (["--to", "2026-07-13"], []),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_resend_marks_the_whole_hours_of_a_range(
    influx: Influx, store: Store, options: list[str], hours: list[int]
) -> None:
    settings = of_influx(influx)
    write_out(store, influx)
    assert succeed(settings, "resend", *options).startswith(f"{len(hours)} hours are pending again")
    assert store.pending_hours(influx.destination) == [EIGHT + n * HOUR for n in hours]


def test_resend_needs_an_influxdb() -> None:
    sentence = fail({"AISEG2_HOST": "192.168.0.216", "AISEG2_PASSWORD": "x"}, "resend")
    assert "INFLUXDB_HOST" in sentence


@pytest.mark.parametrize(
    ("first", "last", "removed"),
    [
        ("2026-07-14", "2026-07-14", 12),
        ("2026-07-14T08:00", "2026-07-14T08:00", 4),
        ("2026-07-14T08:00:00", "2026-07-14T08:00:00", 2),
        ("2026-07-14T08:00:10", "2026-07-14T09:00:00", 4),
        ("2026-07-14T08:00:11", "2026-07-14T08:59", 0),
        ("2026-07-13T23:00Z", "2026-07-14T00:00Z", 8),
    ],
)
def test_remove_takes_the_range_out_of_the_store_and_the_bucket_alike(
    influx: Influx, store: Store, first: str, last: str, removed: int
) -> None:
    settings = of_influx(influx)
    write_out(store, influx)
    before = everything(store)
    told = succeed(settings, "remove", "--from", first, "--to", last)
    assert told.startswith(f"{removed} rows of the store and of the bucket {influx.bucket} would be removed.")
    assert "--yes" in told
    assert everything(store).equals(before)
    assert influx.readings().equals(before)
    told = succeed(settings, "remove", "--from", first, "--to", last, "--yes")
    assert told == f"{removed} rows of the store and of the bucket {influx.bucket} were removed.\n"
    assert len(everything(store)) == 12 - removed
    assert influx.readings().equals(everything(store))
    assert write_out(store, influx) == 0


def test_remove_without_an_influxdb_is_about_the_store_alone(store: Store) -> None:
    real = {"AISEG2_HOST": "192.168.0.216", "AISEG2_PASSWORD": "x"}
    told = succeed(real, "remove", "--from", "2026-07-14T08:00", "--to", "2026-07-14T08:59", "--yes")
    assert told == "4 rows of the store were removed.\n"
    assert everything(store)["time"].min() == EIGHT + HOUR


def test_remove_keeps_the_rows_while_influxdb_is_away(influx: Influx, store: Store) -> None:
    settings = of_influx(influx)
    write_out(store, influx)
    influx.server.stop()
    assert "InfluxDB" in fail(settings, "remove", "--from", "2026-07-14", "--to", "2026-07-14", "--yes")
    assert len(everything(store)) == 12


def test_what_is_removed_during_a_delivery_stays_removed(influx: Influx, store: Store) -> None:
    removal = ["remove", "--from", "2026-07-14", "--to", "2026-07-14", "--yes"]
    removing = threading.Thread(target=succeed, args=(of_influx(influx), *removal))

    def lines_meanwhile(table: pd.DataFrame) -> list[tuple[str, ...]]:
        if removing.ident is None:
            removing.start()
            removing.join(1)
        return lines(table)

    with influx.writer() as writer:
        delivery = deliver(store, writer, influx.destination, now=EIGHT, running_hour=EIGHT, lines=lines_meanwhile)
    removing.join()
    assert delivery.rows > 0
    assert everything(store).empty
    assert influx.readings().empty


def test_remove_in_the_demo_leaves_the_real_store_alone(store: Store) -> None:
    told = succeed({}, "remove", "--from", "2026-07-14", "--to", "2026-07-14", "--yes")
    assert told == "0 rows of the store were removed.\n"
    assert len(everything(store)) == 12


# simulate


def test_simulate_is_read_like_a_device_and_ends_quietly(here: Path) -> None:
    port = free_port()
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "simulate", "--seed", "7", "--start", "2026-07-14T12:00"],
        cwd=here,
        env=dict(os.environ) | {"AISEG2_SIMULATOR_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        # The transport tries again until it listens, and says so.
        result = invoke({"AISEG2_SIMULATOR_PORT": str(port)}, "read", "--format", "json")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows if row["kind"] == "total"] == ["総発電電力", "総消費電力", "売買電力"]
    assert [path.name for path in here.iterdir()] == ["data"]


def test_simulate_says_when_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for settings, arguments in (({}, ["--port", port]), ({"AISEG2_SIMULATOR_PORT": port}, [])):
            result = invoke(settings, "simulate", *arguments)
            assert result.exit_code == 1
            assert result.stderr.startswith(f"Error: The simulator cannot listen on 127.0.0.1:{port} ")
            assert "AISEG2_SIMULATOR_PORT" in result.stderr
            assert result.stderr.count("\n") == 1
