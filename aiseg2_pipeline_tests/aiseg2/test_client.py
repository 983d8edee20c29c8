"""The client over real HTTP: the requests of a reading, its retries and its errors."""

import contextlib
import json
import multiprocessing
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import tenacity

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable
from aiseg2_pipeline.aiseg2.models import BatteryFlow, LiveReading
from aiseg2_pipeline.aiseg2.transport import Deadline, Slot
from aiseg2_pipeline.frames.readings import KEY, live_frame
from aiseg2_pipeline_tests.support.device import (
    BATTERY_FLOW,
    CAPTURES,
    FLOW,
    FLOW_HTML,
    LIST,
    PASSWORD,
    USER,
    Answer,
    Device,
    Page,
    battery_flow,
    circuit_page,
    circuits_path,
    flow_html,
    flow_json,
    household,
    needs_captures,
    serving,
)

NOW = datetime(2026, 7, 13, 23, 15, 50, tzinfo=UTC)

FEW = [("ＬＤ<br />", " 224W"), ("洋室１<br />エアコン", " 80W"), ("ＩＨ<br />", "")]
QUIET = [("ＬＤ<br />", " 224W")] + [(f"停止{n}<br />", "") for n in range(31)]


def live(
    device: Device,
    state_dir: Path,
    now: datetime = NOW,
    timeout_s: float = 20,
    password: str = PASSWORD,
    user: str = USER,
) -> LiveReading:
    with Aiseg2Client(device.address, user, password, state_dir=state_dir, clock=lambda: now) as client:
        return client.live(timeout_s)


def watts(reading: LiveReading) -> dict[str, float | None]:
    assert reading.circuits is not None, reading.circuits_error
    return {row.name: row.power_w for row in reading.circuits}


@needs_captures
def test_the_captured_home_is_read_as_it_was_shown(tmp_path: Path) -> None:
    pages = {n: (CAPTURES / f"electricflow_1113_id{n}.html").read_bytes() for n in (1, 4)}
    listed = (CAPTURES / "installation_734.html").read_bytes()
    found = re.search(r'"arrayCircuitNameList":(\[.*?\])', listed.decode())
    assert found
    names = [entry["strCircuit"] for entry in json.loads(found[1]) if entry["strBtnType"] == "1"]
    for page in pages.values():
        for shown in re.findall(r'class="c_device">(.*?)</div>', page.decode()):
            names.remove(shown.replace("<br />", ""))
    assert len(names) == 20
    rest = [(name.replace("・", "<br />"), "") for name in names]
    home: dict[str, Page] = {
        FLOW: (CAPTURES / "electricflow_111.json").read_bytes(),
        LIST: listed,
        circuits_path(1): pages[1],
        circuits_path(2): circuit_page(rest[:10], 2, 4),
        circuits_path(3): circuit_page(rest[10:], 3, 4),
        circuits_path(4): pages[4],
    }
    with serving(home) as device:
        cold = live_frame(live(device, tmp_path))
        assert device.requests <= 7
        device.log.clear()
        warm = live_frame(live(device, tmp_path))
        assert device.requests == 2
    assert warm.sort_values(KEY, ignore_index=True).equals(cold.sort_values(KEY, ignore_index=True))
    value = cold.set_index(["kind", "name"])["value"]
    assert value["usage"].sum() == 513
    assert value["usage", "ＬＤ"] == 224
    assert len(value["usage"]) == 28
    assert value["total"].to_dict() == {"総発電電力": 2.1, "総消費電力": 1.2, "売買電力": 0.9}
    assert value["generation"].to_dict() == {"太陽光発電": 2130}


def test_a_warm_reading_with_fewer_than_ten_circuits_on_costs_two_requests(tmp_path: Path) -> None:
    with serving(household(QUIET)) as device:
        cold = live(device, tmp_path)
        assert device.requests == cold.requests == 7
        warm = live(device, tmp_path)
        assert device.requests - 7 == warm.requests == 2
        # The login of the first process serves the second.
        assert [status for _, status in device.log].count(401) == 1
    assert watts(warm) == watts(cold)
    assert len(watts(warm)) == 32
    assert (warm.answered_at, warm.clock_offset_s) == (NOW, 3)


def test_the_html_page_is_read_where_the_json_is_not_served_and_the_json_is_tried_again_after_a_day(
    tmp_path: Path,
) -> None:
    pages = household(FEW) | {FLOW_HTML: flow_html()}
    del pages[FLOW]
    with serving(pages) as device:
        reading = live(device, tmp_path)
        assert live(device, tmp_path).requests == 2
        pages[FLOW] = flow_json(u_capacity="9")
        device.pages = pages
        assert live(device, tmp_path, NOW + timedelta(hours=23)).flow.consumption_kw == 1.2
        assert live(device, tmp_path, NOW + timedelta(days=1)).flow.consumption_kw == 9
    assert reading.flow.generation_kw == 2.1
    assert [(device.name, device.power_w) for device in reading.flow.generators] == [("太陽光発電", 2130)]


def test_an_unreadable_json_is_replaced_by_the_html_page_once(tmp_path: Path) -> None:
    answers = iter([flow_json()[:40]])
    charged = flow_json(connSb=1, percent="80")
    with serving(household(FEW) | {FLOW_HTML: flow_html(), FLOW: lambda: next(answers, charged)}) as device:
        assert live(device, tmp_path).flow.battery is None
        after = live(device, tmp_path).flow.battery
    assert after is not None
    assert after.charge_percent == 80


def test_the_battery_flow_is_one_request_a_reading_of_a_home_with_a_battery(tmp_path: Path) -> None:
    pages = household(FEW) | {BATTERY_FLOW: battery_flow()}
    with serving(pages) as device:
        assert live(device, tmp_path).battery_flow is None
        pages[FLOW] = flow_json(connSb=1, lo_buy_sell=1)
        assert live(device, tmp_path).battery_flow == BatteryFlow(2.1, -1.3, 0.4)
        requests = device.requests
        assert live(device, tmp_path).requests == device.requests - requests == 3
        assert [line for line, _ in device.log].count(BATTERY_FLOW) == 2


@pytest.mark.parametrize("answer", [b"{}", Answer(b"", 500), Answer(battery_flow(), delay_s=2)])
def test_a_battery_flow_that_fails_costs_nothing_else_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Page
) -> None:
    monkeypatch.setattr("aiseg2_pipeline.aiseg2.client._BATTERY_FLOW_TIMEOUT_S", 0.8)
    with serving(household(FEW) | {FLOW: flow_json(connSb=1, percent="80"), BATTERY_FLOW: answer}) as device:
        reading = live(device, tmp_path)
    assert (reading.flow.consumption_kw, watts(reading)["ＬＤ"]) == (1.2, 224)
    assert reading.elapsed_s < 5
    assert reading.battery_flow is None
    assert "electricflow/112" in str(reading.battery_flow_error)


def test_a_battery_flow_that_is_not_served_is_requested_once_an_hour(tmp_path: Path) -> None:
    with serving(household(FEW) | {FLOW: flow_json(connSb=1)}) as device:
        readings = [live(device, tmp_path, NOW + timedelta(minutes=n)) for n in (0, 1, 59, 60)]
        assert [line for line, _ in device.log].count(BATTERY_FLOW) == 2
    assert {(reading.battery_flow, reading.battery_flow_error) for reading in readings} == {(None, None)}


def test_a_nonce_that_is_rejected_twice_is_retried(tmp_path: Path) -> None:
    stale = {"WWW-Authenticate": 'Digest realm="AiSEG2", nonce="n", qop="auth", stale=true'}
    answers = iter([Answer(b"", 401, stale), Answer(b"", 401, stale), Answer(flow_json())])
    with serving(household(FEW) | {FLOW: lambda: next(answers, flow_json())}) as device:
        assert live(device, tmp_path).flow.consumption_kw is not None


def test_a_nonce_that_the_device_forgets_is_renewed(tmp_path: Path) -> None:
    pages = household(FEW)
    with serving(pages) as device:

        def forgetful() -> bytes:
            device.login.forget_all()
            return flow_json()

        device.pages[FLOW] = forgetful
        for _ in range(2):
            assert watts(live(device, tmp_path))["ＬＤ"] == 224


def test_a_refused_login_is_not_retried_and_its_message_has_no_password(tmp_path: Path) -> None:
    with serving(household(FEW)) as device, pytest.raises(Refused, match="AISEG2_PASSWORD") as caught:
        live(device, tmp_path, password="battery staple")
    assert device.requests == 2
    assert "staple" not in str(caught.value)


def test_secrets_are_in_no_repr_and_in_no_file(tmp_path: Path) -> None:
    with serving(household(FEW)) as device:
        client = Aiseg2Client(device.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW)
        client.live()
        assert PASSWORD not in repr(client) + repr(client.transport)
        client.transport.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        assert PASSWORD not in path.read_text()
        assert path.stat().st_mode & 0o077 == 0


def test_transient_failures_are_retried(tmp_path: Path) -> None:
    answers = [Answer(b"busy", 503), Answer(b'{"g_cap', cut=True)]
    pages = household(FEW) | {FLOW: lambda: answers.pop() if answers else flow_json()}
    with serving(pages) as device:
        assert watts(live(device, tmp_path))["ＬＤ"] == 224
    assert not answers


@pytest.mark.parametrize("path", [FLOW, LIST, circuits_path(1), circuits_path(2)])
def test_one_redirect_of_any_page_costs_a_reading_nothing(tmp_path: Path, path: str) -> None:
    pages = household(QUIET)
    answers: list[Page] = [pages[path], Answer(b"", 302, {"Location": "/index.cgi"})]

    def redirected_once() -> bytes | Answer:
        answer = answers.pop() if len(answers) > 1 else answers[0]
        assert not callable(answer)
        return answer

    with serving(pages | {path: redirected_once}) as device:
        reading = live(device, tmp_path)
        assert len(watts(reading)) == 32
        assert reading.requests == 8
    assert FLOW_HTML not in [sent for sent, _ in device.log]


def test_a_device_that_was_silent_for_ten_minutes_gets_one_request_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two attempts instead of 20 s.
    monkeypatch.setattr("tenacity.stop_before_delay", lambda _: tenacity.stop_after_attempt(2))

    def requests(at: datetime, address: str) -> int:
        with Aiseg2Client(address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: at) as client:
            with contextlib.suppress(Unreachable):
                client.live()
            return client.transport.requests

    with serving(household(FEW)) as device:
        address = device.address
        assert requests(NOW, address) == 4
    for minute in range(1, 11):
        assert requests(NOW + timedelta(minutes=minute), address) == 2
    for minute in range(11, 14):
        assert requests(NOW + timedelta(minutes=minute), address) == 1
    port = int(address.rpartition(":")[2])
    with serving(household(FEW), port=port):
        assert requests(NOW + timedelta(minutes=14), address) > 1
    assert requests(NOW + timedelta(minutes=15), address) == 2


@pytest.mark.parametrize("answer", [Answer(b"", 404), Answer(b"", 400)])
def test_a_4xx_is_not_retried_and_names_the_setting(tmp_path: Path, answer: Answer) -> None:
    with (
        serving({FLOW: answer, FLOW_HTML: answer}) as device,
        pytest.raises(Unreachable, match="AISEG2_HOST"),
    ):
        live(device, tmp_path)
    assert device.requests == 3


def test_a_5xx_is_retried_until_the_deadline(tmp_path: Path) -> None:
    with serving({FLOW: Answer(b"", 500)}) as device, pytest.raises(Unreachable, match="500"):
        live(device, tmp_path, timeout_s=3)
    assert 2 <= device.requests <= 6


def test_a_host_without_a_server_is_reported_with_the_setting(tmp_path: Path) -> None:
    device = Device({}, address="http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"nothing listens there\): check AISEG2_HOST"):
        live(device, tmp_path, timeout_s=0.6)


def test_the_state_of_one_device_is_not_used_for_another(tmp_path: Path) -> None:
    with serving(household(FEW)) as first:
        live(first, tmp_path)
    with serving(household([("別<br />", " 7W")])) as second:
        assert watts(live(second, tmp_path)) == {"別": 7}


def _read_lists(address: str, state_dir: Path, slot: Slot, start: Barrier) -> None:
    start.wait(30)
    with Aiseg2Client(address, USER, PASSWORD, state_dir=state_dir, clock=lambda: NOW, slot=slot) as client:
        for _ in range(5):
            client.circuit_list(Deadline(20))


def test_never_more_than_two_requests_are_in_flight_over_all_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    slots: list[Slot] = ["live", "live", "background", "background"]
    start = context.Barrier(len(slots))
    with serving(household(FEW), latency_s=0.05) as device:
        workers = [
            context.Process(target=_read_lists, args=(device.address, tmp_path, slot, start)) for slot in slots
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert device.most_in_flight == 2


@pytest.mark.parametrize(("held_s", "message"), [(2.0, "503"), (4.0, "AISEG2_DATA_DIR")])
def test_the_time_waited_for_the_slot_counts_towards_the_deadline(
    tmp_path: Path, held_s: float, message: str
) -> None:
    with serving({LIST: Answer(b"", 503)}) as device:
        other = Aiseg2Client(device.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW)
        took_s: list[float] = []

        def read() -> None:
            began = time.monotonic()
            with (
                Aiseg2Client(device.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW) as client,
                pytest.raises(Unreachable, match=message),
            ):
                client.circuit_list(Deadline(3.0))
            took_s.append(time.monotonic() - began)

        thread = threading.Thread(target=read)
        with other.transport.slot(Deadline(1)):
            thread.start()
            time.sleep(held_s)
        thread.join()
    assert took_s[0] < 4.5
