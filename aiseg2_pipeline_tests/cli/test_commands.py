"""The command as a person uses it: its output, the files it leaves, and its exit code."""

import json
import os
import re
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

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.frames.readings import KEY, Row, frame
from aiseg2_pipeline.influxdb.delivery import deliver, delivery_lock
from aiseg2_pipeline.influxdb.line_protocol import lines
from aiseg2_pipeline.store import Store
from aiseg2_pipeline_tests.support.device import (
    BATTERY_FLOW,
    FLOW,
    PASSWORD,
    Answer,
    Device,
    Page,
    circuits_path,
    flow_json,
    household,
    serving,
)
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.influxdb import Influx

COMMAND = [sys.executable, "-m", "aiseg2_pipeline.cli"]
HOUR = timedelta(hours=1)
# 08:00 in Japan.
EIGHT = datetime(2026, 7, 13, 23, tzinfo=UTC)
FEW = [("ＬＤ<br />", " 224W"), ("洋室１<br />エアコン", " 80W"), ("ＩＨ<br />", "")]
WHOLE_DAY = ("--from", "2026-07-14", "--to", "2026-07-14")
AWKWARD = ["[red]x[/red]", "[/]", "[bold", ":smile:", "a,b=c d", 'quo"te', "back\\slash", "絵文字🔌", "-", "R&D"]


def settings_of(device: Device, password: str = PASSWORD) -> dict[str, str]:
    return {"AISEG2_HOST": device.address.removeprefix("http://"), "AISEG2_PASSWORD": password}


def settings_of_influx(influx: Influx) -> dict[str, str]:
    return {"AISEG2_HOST": "127.0.0.1:9", "AISEG2_PASSWORD": PASSWORD} | influx.settings


def invoke(settings: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env=settings)


def succeed(settings: dict[str, str], *arguments: str) -> str:
    result = invoke(settings, *arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def fail(settings: dict[str, str], *arguments: str) -> str:
    """Return the error message, which must be all of the output."""
    result = invoke(settings, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    # Any other exception would be a traceback.
    assert isinstance(result.exception, SystemExit)
    error, message = result.stderr.removesuffix("\n").split(": ", 1)
    assert error == "Error"
    assert "\n" not in message
    assert message.endswith(".")
    for secret in ("correct horse", "battery staple", "test-token"):
        assert secret not in message
    return message


# read


def test_read_prints_the_rows_with_any_name_in_every_format() -> None:
    pages = household([(name, f" {20 - n}W") for n, name in enumerate(AWKWARD)])
    with serving(pages | {FLOW: flow_json(connSb=1, percent="80", charge=0)}) as device:
        table = succeed(settings_of(device), "read")
        before = datetime.now(UTC).replace(microsecond=0)
        rows = json.loads(succeed(settings_of(device), "read", "--format", "json"))
        after = datetime.now(UTC)
        printed = succeed(settings_of(device), "read", "--format", "lp").splitlines()
    shown = [
        ("total", "総発電電力", 2.1, "kW"),
        ("total", "総消費電力", 1.2, "kW"),
        ("total", "売買電力", 0.9, "kW"),
        ("generation", "太陽光発電", 2130, "W"),
        *(("usage", name, 20 - n, "W") for n, name in enumerate(AWKWARD)),
        ("battery", "充電率", 80, "%"),
        ("battery", "状態", 1, ""),
    ]
    cells = [tuple(cell.strip() for cell in line.split("│")[1:-1]) for line in table.splitlines() if "│" in line]
    assert cells == [(kind, name, f"{value:g}", unit) for kind, name, value, unit in shown]
    (time,) = {row.pop("time") for row in rows}
    assert time.endswith("+09:00")
    assert before <= datetime.fromisoformat(time) <= after
    columns = ("kind", "name", "value", "unit", "interval_s")
    assert rows == [dict(zip(columns, (*row, 0), strict=True)) for row in shown]
    (time_ns,) = {int(line.rsplit(" ", 1)[1]) for line in printed}
    read_at = datetime.fromtimestamp(time_ns // 10**9, UTC)
    expected = lines(frame(Row(read_at, *row, 0) for row in shown))
    assert printed == [line for points in expected for line in points]


@pytest.mark.parametrize(
    "command",
    [
        "read",
        "doctor",
        "gaps",
        "fill --dry-run",
        "fill",
        "history yesterday",
        "report",
        "remove --from today --to today",
    ],
)
@pytest.mark.parametrize("empty", [True, False], ids=["an empty data directory", "none"])
def test_a_command_that_only_looks_creates_nothing(command: str, empty: bool, folder: Path) -> None:  # noqa: FBT001 - pytest's
    if empty:
        (folder / "data").mkdir()
    before = list(folder.rglob("*"))
    with serving(household(FEW)) as device:
        result = invoke(settings_of(device), *command.split())
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert list(folder.rglob("*")) == before


def test_read_keeps_only_the_clients_state_beside_a_record_and_uses_it(store: Store, folder: Path) -> None:
    present = set(folder.rglob("*"))
    with serving(household(FEW)) as device:
        succeed(settings_of(device), "read")
        device.log.clear()
        assert "(2 requests" in succeed(settings_of(device), "read")
        assert device.requests == 2
    kept = [path for path in folder.rglob("*") if path.is_file() and path not in present]
    assert kept
    assert all(path.parent == store.path.parent / "device" for path in kept)
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)


def test_read_prints_the_totals_when_the_circuits_and_the_battery_flow_cannot_be_read() -> None:
    parts: dict[str, Page] = {
        circuits_path(1): Answer(b"", 404),
        FLOW: flow_json(connSb=1, charge="-"),
        BATTERY_FLOW: b"{}",
    }
    with serving(household(FEW) | parts) as device:
        result = invoke(settings_of(device), "read", "--format", "json")
    assert result.exit_code == 0
    assert {row["kind"] for row in json.loads(result.stdout)} == {"total", "generation"}
    of_battery = r"The power of sun, grid and battery is missing\. .*112.*\n"
    assert re.fullmatch(rf"The circuits are missing\. .*1113.*\n{of_battery}", result.stderr)


def test_a_retry_is_reported_on_stderr() -> None:
    answers = [Answer(b"busy", 503), Answer(b"busy", 503)]
    with serving(household(FEW) | {FLOW: lambda: answers.pop() if answers else flow_json()}) as device:
        result = invoke(settings_of(device), "read")
    assert result.exit_code == 0
    assert "洋室１エアコン" in result.stdout
    (notice,) = result.stderr.splitlines()
    assert "503" in notice
    assert "20 s" in notice


# Failures


@pytest.mark.parametrize(
    ("pages", "named"),
    [
        ({}, "electricflow/111"),
        (household([]) | {FLOW: flow_json(g_capacity="-", u_capacity="-", g_d_1_title="")}, "shows no number"),
    ],
    ids=["no page", "no number"],
)
def test_a_device_that_gives_no_reading_is_one_message(pages: dict[str, Page], named: str) -> None:
    with serving(pages) as device:
        assert named in fail(settings_of(device), "read", "--format", "lp")


def test_a_device_that_is_off_is_one_message_with_a_hint_in_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    # Instead of the 20 s for which it is retried.
    monkeypatch.setattr(Aiseg2Client.live, "__defaults__", (0.4,))
    port = str(free_port())
    message = fail({"AISEG2_HOST": f"127.0.0.1:{port}", "AISEG2_PASSWORD": PASSWORD}, "read")
    assert "check AISEG2_HOST" in message
    assert "demo" not in message
    assert "this is the demo" in fail({"AISEG2_SIMULATOR_PORT": port}, "read")


@pytest.mark.parametrize("command", ["read", "resend", "run", "simulate"])
def test_a_wrong_setting_is_one_message_in_every_command(command: str, folder: Path) -> None:
    assert fail({"AISEG2_HOST": "192.168.0.216"}, command).startswith("AISEG2_PASSWORD is not set")
    assert fail({"INFLUXDB_HOST": "192.168.0.10:8086"}, command).startswith("INFLUXDB_HOST is set but")
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_message(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "foreign").mkdir()
    (folder / "foreign" / "readings.sqlite").write_bytes(b"no database" * 100)
    with serving(household(FEW)) as device:
        real = settings_of(device) | {"INFLUXDB_HOST": "127.0.0.1:9"}
        real |= {"INFLUXDB_TOKEN": "test-token", "INFLUXDB_ORG": "home", "INFLUXDB_BUCKET": "aiseg2"}
        for command in (["resend"], ["remove", *WHOLE_DAY, "--yes"]):
            assert "AISEG2_DATA_DIR" in fail(real | {"AISEG2_DATA_DIR": "file/data"}, *command)
        assert "readings.sqlite is not a store" in fail(real | {"AISEG2_DATA_DIR": "foreign"}, "resend")


def test_the_real_process_fails_with_one_line_and_exit_code_1(folder: Path) -> None:
    with serving(household(FEW)) as device:
        ended = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, "read"],
            cwd=folder,
            env=dict(os.environ) | settings_of(device, "battery staple"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"Error: .+\n", ended.stderr)


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["read", "--format", "xml"],
        ["read", "now"],
        ["resend", "--from", "tomorrow"],
        ["resend", "--from", "2026-02-30"],
        ["resend", "--from", "0001-01-01"],
        ["resend", "--to", "9999-12-31T23:59Z"],
        ["resend", "--from", "2026-07-14", "--to", "2026-07-13"],
        ["gaps", "--from", "2026-07-14", "--to", "2026-07-13"],
        ["gaps", "--from", "2126-07-14"],
        ["fill", "--from", "2126-07-14"],
        ["fill", "--from", "2026-07-14", "--to", "2026-07-13"],
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
def test_wrong_usage_ends_with_2_and_creates_no_file(arguments: list[str], folder: Path) -> None:
    result = invoke({}, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("command", [[], *([name] for name in main.commands)], ids=" ".join)
def test_every_command_has_a_help_that_needs_no_settings(command: list[str]) -> None:
    text = succeed({"AISEG2_UI_PORT": "wrong"}, *command, "--help")
    assert text == succeed({}, *command, "-h")
    described = (main.commands[command[0]] if command else main).help
    assert described is not None
    assert " ".join(described.split("\n")[0].split()) in " ".join(text.split())


@pytest.mark.parametrize("command", ["gaps", "gaps --to yesterday", "fill --dry-run"])
def test_without_a_record_gaps_and_a_dry_run_say_that_there_is_no_reading_yet(command: str) -> None:
    assert succeed({}, *command.split()) == "There is no reading yet: run the pipeline for a minute first.\n"


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
def store(folder: Path) -> Iterator[Store]:
    """The store of a real device: three hours from 08:00 in Japan."""
    with Store.open(folder / "data" / "readings.sqlite") as opened:
        opened.upsert(stored(EIGHT, 3))
        yield opened


def write_out(store: Store, influx: Influx) -> int:
    with influx.writer() as writer:
        return deliver(store, writer, influx.destination, now=EIGHT).rows


def everything(store: Store) -> pd.DataFrame:
    table = store.read(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
    return table.sort_values(KEY, ignore_index=True)


def test_resend_restores_a_bucket_that_was_emptied(influx: Influx, store: Store) -> None:
    assert write_out(store, influx) == 12
    influx.empty()
    assert write_out(store, influx) == 0
    printed = succeed(settings_of_influx(influx), "resend")
    assert printed.startswith("3 hours are pending again")
    assert influx.bucket in printed
    assert write_out(store, influx) == 12
    assert influx.readings().equals(everything(store))
    assert "INFLUXDB_HOST" in fail({"AISEG2_HOST": "192.168.0.216", "AISEG2_PASSWORD": "x"}, "resend")


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
    write_out(store, influx)
    assert succeed(settings_of_influx(influx), "resend", *options).startswith(
        f"{len(hours)} hours are pending again"
    )
    assert store.pending_hours(influx.destination) == [EIGHT + n * HOUR for n in hours]


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
def test_remove_deletes_the_range_from_the_store_and_from_the_bucket(
    influx: Influx, store: Store, first: str, last: str, removed: int
) -> None:
    settings = settings_of_influx(influx)
    write_out(store, influx)
    before = everything(store)
    rows = f"{removed} rows of the store and of the bucket {influx.bucket}"
    printed = succeed(settings, "remove", "--from", first, "--to", last)
    assert printed.startswith(f"{rows} would be removed.")
    assert "--yes" in printed
    assert everything(store).equals(before)
    assert influx.readings().equals(before)
    assert succeed(settings, "remove", "--from", first, "--to", last, "--yes") == f"{rows} were removed.\n"
    assert len(everything(store)) == 12 - removed
    assert influx.readings().equals(everything(store))
    assert write_out(store, influx) == 0


def test_remove_without_an_influxdb_deletes_from_the_store_only_and_in_the_demo_from_its_own(store: Store) -> None:
    assert succeed({}, "remove", *WHOLE_DAY, "--yes") == "0 rows of the store were removed.\n"
    real = {"AISEG2_HOST": "192.168.0.216", "AISEG2_PASSWORD": "x"}
    printed = succeed(real, "remove", "--from", "2026-07-14T08:00", "--to", "2026-07-14T08:59", "--yes")
    assert printed == "4 rows of the store were removed.\n"
    assert everything(store)["time"].min() == EIGHT + HOUR


def test_remove_keeps_the_rows_while_influxdb_is_down_or_a_delivery_runs(
    influx: Influx, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of_influx(influx)
    write_out(store, influx)
    monkeypatch.setattr("aiseg2_pipeline.cli.record.REMOVE_WAITS_S", 0.1)
    with delivery_lock(store, influx.destination, 0):
        assert "nothing was removed" in fail(settings, "remove", *WHOLE_DAY, "--yes")
    influx.server.stop()
    assert "InfluxDB" in fail(settings, "remove", *WHOLE_DAY, "--yes")
    assert len(everything(store)) == 12


def test_rows_removed_during_a_delivery_are_not_written_again(influx: Influx, store: Store) -> None:
    removal = ("remove", *WHOLE_DAY, "--yes")
    removing = threading.Thread(target=succeed, args=(settings_of_influx(influx), *removal))

    def lines_meanwhile(table: pd.DataFrame) -> list[tuple[str, ...]]:
        if removing.ident is None:
            removing.start()
            removing.join(1)
        return lines(table)

    with influx.writer() as writer:
        delivery = deliver(store, writer, influx.destination, now=EIGHT, lines=lines_meanwhile)
    removing.join()
    assert delivery.rows > 0
    assert everything(store).empty
    assert influx.readings().empty


# simulate


def test_simulate_is_read_like_a_device_and_ends_without_output(folder: Path) -> None:
    port = str(free_port())
    with subprocess.Popen(  # noqa: S603 - our own command
        [*COMMAND, "simulate", "--seed", "7", "--start", "2026-07-14T12:00"],
        cwd=folder,
        env=dict(os.environ) | {"AISEG2_SIMULATOR_PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        # Until it listens, the transport retries and reports that.
        result = invoke({"AISEG2_SIMULATOR_PORT": port}, "read", "--format", "json")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=180)
    assert (process.returncode, out, err) == (0, "", "")
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows if row["kind"] == "total"] == ["総発電電力", "総消費電力", "売買電力"]
    assert list(folder.iterdir()) == []


def test_simulate_names_the_settings_when_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for settings, arguments in (({}, ["--port", port]), ({"AISEG2_SIMULATOR_PORT": port}, [])):
            result = invoke(settings, "simulate", *arguments)
            assert result.exit_code == 1
            message = rf"Error: The simulator cannot listen on 127\.0\.0\.1:{port} .*AISEG2_SIMULATOR_PORT.*\n"
            assert re.fullmatch(message, result.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_output_is_a_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "aiseg2_pipeline.cli", "gaps"],
            env={**os.environ, "AISEG2_DATA_DIR": str(tmp_path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    expected = "Error: The output cannot be written: free space where it goes.\n"
    assert (ended.returncode, ended.stderr) == (1, expected)
