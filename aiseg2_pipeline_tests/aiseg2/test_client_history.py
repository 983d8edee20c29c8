"""The client over real HTTP: the requests for a day's energy and the card's zip, and the files that are left."""

import io
import os
import struct
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2 import client as client_module
from aiseg2_pipeline.aiseg2.client import EXPORT_TIMEOUT_S, Aiseg2Client
from aiseg2_pipeline.aiseg2.endpoints import CircuitGraph, Endpoint, Graph, http_request
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, NoData, Refused, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.transport import MAX_ANSWER_BYTES, Deadline, NotServed
from aiseg2_pipeline_tests.support.device import PASSWORD, USER, Answer, Device, serving
from aiseg2_pipeline_tests.support.device_pages import CLOCK, graph_page
from aiseg2_pipeline_tests.support.fuzz import zipped

NOW = datetime(2026, 7, 13, 23, 15, 50, tzinfo=UTC)
DAY = date(2026, 7, 14)
EXPORT = "GET /set/exectop2.cgi"
ZIP = f"{EXPORT}?downType=1&csrftoken=99a1"
FORM = b"""<html><head></head><form name="set" method="post"><input type="hidden" NAME="csrftoken" VALUE="99a1" /></form>
<body></body></html>"""
BODY = zipped({"any.csv": b"x" * 10})
SEVERAL_DISKS = (
    b"PK\3\4" + b"\0" * 80 + struct.pack("<4sIQI", b"PK\6\7", 1, 0, 9) + struct.pack("<4s18x", b"PK\5\6")
)
LARGE = zipped({"any.csv": b"x" * (MAX_ANSWER_BYTES + 1)})


def client(device: Device, tmp_path: Path, password: str = PASSWORD) -> Aiseg2Client:
    return Aiseg2Client(
        device.address, USER, password, state_dir=tmp_path / "state", clock=lambda: NOW, slot="background"
    )


def download(device: Device, tmp_path: Path, password: str = PASSWORD) -> Path:
    target = tmp_path / "export.zip"
    with client(device, tmp_path, password) as reader:
        assert reader.download_export(target, Deadline(20)) == NOW
    return target


def test_graphs_are_read_with_the_devices_clock(tmp_path: Path) -> None:
    requests: list[Endpoint] = [Graph("sold", DAY), CircuitGraph("30", DAY), Graph("sold", None)]
    paths = [f"GET {http_request(request).target}" for request in requests]
    page = graph_page([0.1] * 24, clock=CLOCK)
    with serving(dict.fromkeys(paths, page)) as device, client(device, tmp_path) as reader:
        graph = reader.graph("sold", DAY, Deadline(10))
        assert graph.hours_wh == (*([100] * 8), *([None] * 16))
        assert reader.clock_offset_s == 3
        reader.clock_offset_s = None
        assert reader.circuit_graph("30", DAY, Deadline(10)).circuit_id == "30"
        assert reader.clock_offset_s == 3
        assert reader.graph("sold", None, Deadline(10)) == graph
        assert [path for path, status in device.log if status == 200] == paths


def test_one_redirect_costs_the_card_nothing(tmp_path: Path) -> None:
    answers = [Answer(BODY), Answer(b"", 302, {"Location": "/index.cgi"})]
    with serving({EXPORT: FORM, ZIP: answers.pop}) as device:
        assert download(device, tmp_path).read_bytes() == BODY


def test_the_cards_zip_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    with serving({EXPORT: FORM, ZIP: LARGE}) as device:
        target = download(device, tmp_path)
        assert [path for path, status in device.log if status == 200] == [EXPORT, ZIP]
    assert target.read_bytes() == LARGE
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.zip", "state"]


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (FORM, NoData, "no SD card"),
        (b"", NoData, "no SD card"),
        (Answer(b"no such page", 404), NoData, "no SD card"),
        (Answer(BODY, cut=True), Unreachable, "cut short"),
        (BODY[:-1], Unreadable, "in the middle"),
        (SEVERAL_DISKS, Unreadable, "in the middle"),
        (Answer(BODY, 500), Unreachable, "500"),
        (Answer(b"x" * (MAX_ANSWER_BYTES + 1), 500), Unreachable, "more than 8 MiB"),
        (Answer(BODY, 401), Refused, "AISEG2_PASSWORD"),
    ],
)
def test_a_failed_download_is_not_retried_and_leaves_the_previous_zip(
    tmp_path: Path, answer: bytes | Answer, error: type[Aiseg2Error], words: str
) -> None:
    target = tmp_path / "export.zip"
    target.write_bytes(b"the last one")
    with serving({EXPORT: FORM, ZIP: answer}) as device, pytest.raises(error, match=words):
        download(device, tmp_path)
    assert [path for path, status in device.log if status != 401].count(ZIP) <= 1
    assert target.read_bytes() == b"the last one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.zip", "state"]


def test_the_export_page_is_required_for_a_download(tmp_path: Path) -> None:
    with serving({ZIP: BODY}) as device, pytest.raises(NotServed):
        download(device, tmp_path)
    with serving({EXPORT: b"<html></html>", ZIP: BODY}) as device, pytest.raises(Unreadable, match="csrftoken"):
        download(device, tmp_path)


def test_a_zip_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_EXPORT_BYTES", 2**20)
    with (
        serving({EXPORT: FORM, ZIP: LARGE}) as device,
        pytest.raises(Unreachable, match="more than 1 MiB"),
    ):
        download(device, tmp_path)
    assert not list(tmp_path.glob("export*"))


def test_the_download_ends_with_its_deadline(tmp_path: Path) -> None:
    target = tmp_path / "export.zip"
    with (
        serving({EXPORT: FORM, ZIP: Answer(BODY, delay_s=1.5)}) as device,
        client(device, tmp_path) as reader,
        pytest.raises(Unreachable, match="took too long"),
    ):
        reader.download_export(target, Deadline(0.8))
    assert not list(tmp_path.glob("export*"))
    assert EXPORT_TIMEOUT_S == 60


def test_a_file_left_by_a_killed_run_is_replaced(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "export.zip.part").symlink_to(elsewhere)
    with serving({EXPORT: FORM, ZIP: BODY}) as device:
        assert download(device, tmp_path).read_bytes() == BODY
    assert not elsewhere.exists()


@pytest.mark.parametrize("folder", [".", "no such folder"])
def test_a_disk_that_cannot_be_written_is_reported_with_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    def full(descriptor: int, mode: str) -> io.BufferedRandom:
        os.close(descriptor)
        return open("/dev/full", mode)  # type: ignore[return-value]  # noqa: PTH123 - as os.fdopen

    monkeypatch.setattr("os.fdopen", full)
    with (
        serving({EXPORT: FORM, ZIP: LARGE}) as device,
        client(device, tmp_path) as reader,
        pytest.raises(Unreachable, match="AISEG2_DATA_DIR"),
    ):
        reader.download_export(tmp_path / folder / "export.zip", Deadline(10))
    assert not list(tmp_path.glob("export*"))
