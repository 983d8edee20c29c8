"""The client against real HTTP: what a reading costs, what it survives, what it refuses."""

import json
import multiprocessing
import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiseg2_pipeline.aiseg2.client import Aiseg2Client
from aiseg2_pipeline.aiseg2.errors import Aiseg2Error, Refused, Unreachable, Unreadable
from aiseg2_pipeline.aiseg2.models import LiveReading
from aiseg2_pipeline.aiseg2.transport import MAX_ANSWER_BYTES, Deadline
from aiseg2_pipeline.frames.readings import KEY, live_frame
from aiseg2_pipeline_tests.support.device import (
    CAPTURES,
    FLOW,
    FLOW_HTML,
    LIST,
    PASSWORD,
    USER,
    Answer,
    Device,
    Page,
    circuit_list,
    circuit_page,
    circuits_path,
    flow_html,
    flow_json,
    household,
    serving,
)

NOW = datetime(2026, 7, 13, 23, 15, 50, tzinfo=UTC)
needs_captures = pytest.mark.skipif(not CAPTURES.exists(), reason="the captures of a real unit are not here")

FEW = [("ＬＤ<br />", " 224W"), ("洋室１<br />エアコン", " 80W"), ("ＩＨ<br />", "")]
MANY = [(f"回路{n}<br />", f" {100 - n}W") for n in range(12)] + [(f"静か{n}<br />", "") for n in range(20)]
QUIET = [("ＬＤ<br />", " 224W")] + [(f"静か{n}<br />", "") for n in range(31)]


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
def test_the_captured_home_reads_as_it_was_shown(tmp_path: Path) -> None:
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
        device.asked.clear()
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
        device.asked.clear()
        warm = live(device, tmp_path)
        assert device.requests == warm.requests == 2
    assert watts(warm) == watts(cold)
    assert len(watts(warm)) == 32


def test_all_pages_are_read_where_ten_or_more_circuits_are_on(tmp_path: Path) -> None:
    with serving(household(MANY)) as device:
        live(device, tmp_path)
        device.asked.clear()
        warm = live(device, tmp_path)
        assert [path for path, _ in device.asked] == [FLOW, *(circuits_path(n) for n in (1, 2, 3, 4))]
    assert watts(warm)["回路11"] == 89


@pytest.mark.parametrize(("later_s", "requests"), [(3599, 2), (3601, 5), (86_401, 6), (-10, 5)])
def test_all_pages_are_read_once_an_hour_and_the_list_once_a_day(
    tmp_path: Path, later_s: int, requests: int
) -> None:
    with serving(household(QUIET)) as device:
        live(device, tmp_path)
        later = datetime.fromtimestamp(NOW.timestamp() + later_s, UTC)
        # Before the last list was taken, its age says nothing: it is asked for again too.
        expected = requests + (1 if later_s < 0 else 0)
        assert live(device, tmp_path, later).requests == expected


def test_a_dash_is_no_reading_and_keeps_all_pages_being_read(tmp_path: Path) -> None:
    rows = [*QUIET[:20], ("不明<br />", "-"), *QUIET[20:31]]
    with serving(household(rows)) as device:
        live(device, tmp_path)
        warm = live(device, tmp_path)
    assert warm.requests == 5
    assert watts(warm)["不明"] is None
    assert "不明" not in set(live_frame(warm)["name"])


def test_a_circuit_that_crosses_a_page_boundary_is_read_again(tmp_path: Path) -> None:
    pages = household(MANY)
    crossed = circuit_page([MANY[9], *MANY[11:20]], 2, 4)
    answers = [crossed]
    right = pages[circuits_path(2)]
    assert isinstance(right, bytes)
    pages[circuits_path(2)] = lambda: answers.pop() if answers else right
    with serving(pages) as device:
        reading = live(device, tmp_path)
    assert watts(reading)["回路10"] == 90
    assert not answers


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (circuit_page([MANY[9], *MANY[11:20]], 2, 4), "回路9"),
        (circuit_page([("名無し", " 90W"), *MANY[11:20]], 2, 4), "名無し"),
        (circuit_page([("回路10", " 5W"), ("回路11", " 89W"), *MANY[12:20]], 2, 4), "回路11"),
    ],
    ids=["doubled", "unknown", "out of order"],
)
def test_circuits_that_never_agree_are_refused_by_name_and_the_totals_are_kept(
    tmp_path: Path, broken: bytes, named: str
) -> None:
    with serving(household(MANY) | {circuits_path(2): broken}) as device:
        reading = live(device, tmp_path)
        assert [path for path, _ in device.asked].count(circuits_path(2)) == 3
    assert reading.circuits is None
    assert isinstance(reading.circuits_error, Unreadable)
    assert f"'{named}'" in str(reading.circuits_error)
    assert set(live_frame(reading)["kind"]) == {"total", "generation"}


def test_two_equal_circuits_beside_a_page_boundary_are_believed_when_read_twice(tmp_path: Path) -> None:
    rows = [*MANY[:9], ("ＩＨ<br />", " 50W"), ("ＩＨ<br />", " 50W"), *MANY[20:]]
    with serving(household(rows)) as device:
        reading = live(device, tmp_path)
        assert [path for path, _ in device.asked].count(circuits_path(1)) == 2
    assert live_frame(reading).set_index("name")["value"]["ＩＨ"] == 100


def test_a_renamed_circuit_renews_the_list(tmp_path: Path) -> None:
    with serving(household(QUIET)) as device:
        live(device, tmp_path)
        device.pages |= household([("居間<br />", " 224W"), *QUIET[1:]])
        reading = live(device, tmp_path)
    assert watts(reading)["居間"] == 224
    assert reading.circuit_list is not None
    assert reading.circuit_list[0].name == "居間"


def test_a_circuit_that_is_off_keeps_the_spelling_of_page_1113(tmp_path: Path) -> None:
    rows = [("ＬＤ<br />", " 5W"), *[(f"静か{n}", "") for n in range(11)], ("洋室１<br />エアコン", "")]
    pages = household(rows)
    pages[LIST] = circuit_list(["ＬＤ", "洋室１・エアコン", *(f"静か{n}" for n in range(11))])
    with serving(pages) as device:
        assert watts(live(device, tmp_path)) == watts(live(device, tmp_path))
        assert "洋室１エアコン" in watts(live(device, tmp_path))


def test_the_html_page_is_read_where_the_json_is_not_served(tmp_path: Path) -> None:
    pages = household(FEW) | {FLOW_HTML: flow_html()}
    del pages[FLOW]
    with serving(pages) as device:
        reading = live(device, tmp_path)
        device.asked.clear()
        assert live(device, tmp_path).requests == 2
    assert reading.flow.generation_kw == 2.1
    assert [(device.name, device.power_w) for device in reading.flow.generators] == [("太陽光発電", 2130)]


def test_one_json_that_cannot_be_read_sends_that_reading_alone_to_the_html_page(tmp_path: Path) -> None:
    answers = iter([flow_json()[:40]])
    charged = flow_json(connSb=1, percent="80")
    with serving(household(FEW) | {FLOW_HTML: flow_html(), FLOW: lambda: next(answers, charged)}) as device:
        assert live(device, tmp_path).flow.battery is None
        after = live(device, tmp_path).flow.battery
    assert after is not None
    assert after.charge_percent == 80


def test_an_unrelated_page_with_status_200_is_an_error(tmp_path: Path) -> None:
    with (
        serving({FLOW: b"<html><body>maintenance</body></html>", FLOW_HTML: b"<html></html>"}) as device,
        pytest.raises(Unreadable, match="electricflow/111"),
    ):
        live(device, tmp_path)


def test_the_time_is_when_the_flow_was_answered_and_the_clock_is_compared(tmp_path: Path) -> None:
    with serving(household(FEW)) as device:
        reading = live(device, tmp_path)
    assert reading.answered_at == NOW
    assert reading.clock_offset_s == 3


def test_the_login_is_asked_for_once_and_outlives_the_process(tmp_path: Path) -> None:
    with serving(household(FEW)) as device:
        for _ in range(3):
            live(device, tmp_path)
        assert [status for _, status in device.asked].count(401) == 1


def test_a_nonce_that_is_refused_twice_is_no_wrong_password(tmp_path: Path) -> None:
    stale = {"WWW-Authenticate": 'Digest realm="AiSEG2", nonce="n", qop="auth", stale=true'}
    answers = iter([Answer(b"", 401, stale), Answer(b"", 401, stale), Answer(flow_json())])
    with serving(household(FEW) | {FLOW: lambda: next(answers, flow_json())}) as device:
        assert live(device, tmp_path).flow.consumption_kw is not None


def test_a_nonce_that_the_device_drops_is_renewed_without_an_error(tmp_path: Path) -> None:
    pages = household(FEW)
    with serving(pages) as device:

        def forgetful() -> bytes:
            device.forget_logins()
            return flow_json()

        device.pages[FLOW] = forgetful
        for _ in range(2):
            assert watts(live(device, tmp_path))["ＬＤ"] == 224


def test_a_wrong_password_is_one_sentence_without_it(tmp_path: Path) -> None:
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


def test_passing_failures_are_tried_again(tmp_path: Path) -> None:
    answers = [Answer(b"busy", 503), Answer(b'{"g_cap', cut=True)]
    pages = household(FEW) | {FLOW: lambda: answers.pop() if answers else flow_json()}
    with serving(pages) as device:
        assert watts(live(device, tmp_path))["ＬＤ"] == 224
    assert not answers


@pytest.mark.parametrize(
    "answer", [Answer(b"", 404), Answer(b"", 302, {"Location": "http://127.0.0.1:1/"}), Answer(b"", 400)]
)
def test_other_answers_fail_at_once_and_name_the_setting(tmp_path: Path, answer: Answer) -> None:
    with (
        serving({FLOW: answer, FLOW_HTML: answer}) as device,
        pytest.raises(Unreachable, match="AISEG2_HOST"),
    ):
        live(device, tmp_path)
    assert device.requests == 3


def test_a_refused_5xx_ends_at_the_deadline(tmp_path: Path) -> None:
    with serving({FLOW: Answer(b"", 500)}) as device, pytest.raises(Unreachable, match="500"):
        live(device, tmp_path, timeout_s=3)
    assert 2 <= device.requests <= 6


def test_a_device_that_hangs_does_not_outlive_the_deadline(tmp_path: Path) -> None:
    with serving({FLOW: Answer(flow_json(), delay_s=5)}) as device:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="too long"):
            live(device, tmp_path, timeout_s=0.5)
        assert time.monotonic() - started < 4


def test_nothing_listening_is_one_sentence(tmp_path: Path) -> None:
    device = Device({}, address="http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"nothing listens there\): check AISEG2_HOST"):
        live(device, tmp_path, timeout_s=0.6)


def test_an_answer_over_eight_mebibytes_is_refused(tmp_path: Path) -> None:
    with (
        serving({FLOW: b" " * (MAX_ANSWER_BYTES + 1)}) as device,
        pytest.raises(Unreachable, match="8 MiB"),
    ):
        live(device, tmp_path)


def test_circuits_that_cannot_be_read_cost_no_totals(tmp_path: Path) -> None:
    with serving(household(FEW) | {circuits_path(1): Answer(b"", 404)}) as device:
        reading = live(device, tmp_path)
    assert reading.circuits is None
    assert "1113" in str(reading.circuits_error)
    assert len(live_frame(reading)) == 4


def test_a_spoiled_state_file_costs_requests_only(tmp_path: Path) -> None:
    with serving(household(FEW)) as device:
        live(device, tmp_path)
        for path in tmp_path.glob("*.json"):
            path.write_text('{"circuits": {"circuits": [1], "listed_at": "x"}, "challenge": 3, "device": {}}')
        assert watts(live(device, tmp_path))["ＬＤ"] == 224


def test_another_device_is_not_read_with_the_memory_of_the_first(tmp_path: Path) -> None:
    with serving(household(FEW)) as first:
        live(first, tmp_path)
    with serving(household([("別<br />", " 7W")])) as second:
        assert watts(live(second, tmp_path)) == {"別": 7}


def _hold(address: str, state_dir: Path, slot: str) -> None:
    with Aiseg2Client(
        address,
        USER,
        PASSWORD,
        state_dir=state_dir,
        clock=lambda: NOW,
        slot="background" if slot == "background" else "live",
    ) as client:
        deadline = Deadline(20)
        for _ in range(5):
            client.circuit_list(deadline)


def test_never_more_than_two_requests_are_in_flight_over_all_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with serving(household(FEW), latency_s=0.05) as device:
        workers = [
            context.Process(target=_hold, args=(device.address, tmp_path, slot))
            for slot in ("live", "live", "background", "background")
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 4
        assert device.most_in_flight == 2


def test_the_time_waited_for_a_turn_counts_to_the_deadline(tmp_path: Path) -> None:
    with serving({LIST: Answer(b"", 503)}) as device:
        other = Aiseg2Client(device.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW)
        took_s: list[float] = []

        def ask() -> None:
            began = time.monotonic()
            with (
                Aiseg2Client(device.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW) as client,
                pytest.raises(Unreachable, match="503"),
            ):
                client.circuit_list(Deadline(1.4))
            took_s.append(time.monotonic() - began)

        thread = threading.Thread(target=ask)
        with other.reserve(Deadline(1)):
            thread.start()
            time.sleep(1)
        thread.join()
    assert took_s[0] < 1.4


def test_a_reader_that_cannot_have_its_turn_says_so(tmp_path: Path) -> None:
    with serving(household(FEW)) as device:
        other = Aiseg2Client(device.address, USER, PASSWORD, state_dir=tmp_path, clock=lambda: NOW)
        failed: list[Aiseg2Error] = []

        def wait() -> None:
            try:
                live(device, tmp_path, timeout_s=0.2)
            except Aiseg2Error as error:
                failed.append(error)

        with other.reserve(Deadline(1)):
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join()
        assert "AISEG2_DATA_DIR" in str(failed[0])
    assert device.requests == 0


def test_readings_of_awkward_names_come_through(tmp_path: Path) -> None:
    names = ["a,b=c d", 'quo"te', "back\\slash", "絵文字🔌", "-", "R&D"]
    pages = household([(name, f" {9 - n}W") for n, name in enumerate(names)])
    with serving(pages) as device:
        assert list(watts(live(device, tmp_path))) == names
