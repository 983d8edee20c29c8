"""A household gets a message when a problem starts and when it ends, by Apprise over HTTP; no address is ever shown."""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apprise
import pytest
from click.testing import CliRunner
from dagster import DagsterInstance, build_sensor_context

from aiseg2_pipeline.aiseg2.errors import Refused, Unreachable
from aiseg2_pipeline.alerts import rules, send
from aiseg2_pipeline.alerts.rules import Condition, Message, Verdict, due, given_up, judge
from aiseg2_pipeline.cli.main import main
from aiseg2_pipeline.gaps.find import Hour
from aiseg2_pipeline.influxdb.client import Misconfigured
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.keys import INFLUXDB_POWER
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import incidents
from aiseg2_pipeline.store.damage import DamagedFile
from aiseg2_pipeline.store.incidents import Trouble
from aiseg2_pipeline_tests.support.alerts import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECRET,
    Telephone,
    Watch,
    facts,
    phone,
    second,
    settings,
    trouble,
    watch,
)
from aiseg2_pipeline_tests.support.device import FLOW, PASSWORD, Answer, Device
from aiseg2_pipeline_tests.support.influxdb import Influx
from aiseg2_pipeline_tests.support.pipeline import Pipeline, device, environment, pipeline

# Fixtures of other modules.
__all__ = ["device", "environment", "phone", "pipeline", "second", "settings", "watch"]

STOPPED, READS_AGAIN = "AiSEG2 の計測が止まっています", "AiSEG2 の計測が再開しました"
NO_LOGIN, LOGIN_AGAIN = "AiSEG2 にログインできません", "AiSEG2 にログインできました"
NOT_WRITTEN, WRITTEN_AGAIN = "InfluxDB に書き込めません", "InfluxDB への書き込みが再開しました"
COMPLETE_AGAIN = "記録の抜けがなくなりました"
TO_INFLUXDB = {f"INFLUXDB_{name}": "x" for name in ("HOST", "TOKEN", "ORG", "BUCKET")}


# --- The sensor


def test_without_addresses_there_is_no_sensor(settings: dict[str, str]) -> None:
    definitions = build_definitions(Settings.from_environment(settings), lambda: NOW)
    assert "tell_the_household" not in {sensor.name for sensor in definitions.sensors or ()}


def test_a_stop_and_a_return_of_readings_are_each_reported_once_across_restarts(
    watch: Watch, phone: Telephone
) -> None:
    watch.read(NOW)
    then = watch.look_for(10, NOW)
    watch.fail(Unreachable("The AiSEG2 at http://a did not answer: see that it is on."), then)
    then = watch.look_for(3, then)
    assert phone.titles == [STOPPED]
    assert phone.got[0][1].endswith("\nThe AiSEG2 at http://a did not answer: see that it is on.")
    watch.restart()
    then = watch.look_for(3, then)
    then = watch.look_for(3, then + 2 * HOUR)
    watch.read(then)
    watch.restart()
    then = watch.look_for(2, then)
    watch.read(then)
    watch.look_for(2, then)
    assert phone.titles == [STOPPED, READS_AGAIN]


LAST = "最後の計測は 7月14日 08:15 です。"


@pytest.mark.parametrize(
    ("given", "read", "from_then", "minutes", "words"),
    [
        ({"AISEG2_ALERT_AFTER_MINUTES": "30"}, [NOW], NOW, 30, LAST),
        ({}, [NOW], NOW + 8 * HOUR, 10, LAST),
        ({}, [], NOW, 10, "まだ一度も計測できていません"),
        ({}, [NOW, NOW + 30 * DAY], NOW, 10, LAST),
    ],
    ids=["as set", "anew after a restart", "never read", "rows in the future do not count"],
)
def test_missing_readings_are_reported_after_the_minutes_of_the_setting(
    settings: dict[str, str],
    phone: Telephone,
    given: dict[str, str],
    read: list[datetime],
    from_then: datetime,
    minutes: int,
    words: str,
) -> None:
    watch = Watch(settings | given, phone.address)
    watch.read(*read)
    watch.look(NOW)
    then = watch.look_for(minutes, from_then)
    assert phone.got == []
    watch.look(then)
    assert phone.titles == [STOPPED]
    assert phone.got[0][1].startswith(words)


def test_an_unusable_store_is_reported_with_its_error(watch: Watch, phone: Telephone) -> None:
    watch.read(NOW)
    watch.look(NOW)
    for path in watch.settings.data_dir.glob("readings.sqlite*"):
        path.write_bytes(b"no database" * 100)
    watch.look(watch.look_for(9, NOW + MINUTE))
    assert phone.titles == [STOPPED]
    assert "AISEG2_DATA_DIR" in phone.got[0][1]


def test_a_refused_login_is_reported_until_a_reading_succeeds(
    environment: dict[str, str], device: Device, phone: Telephone
) -> None:
    running, watch = Pipeline(environment), Watch(environment, phone.address)
    with running.instance:
        assert running.minute(NOW).success
        watch.look(NOW)
        good, device.pages[FLOW] = device.pages[FLOW], Answer(b"", 403)
        for n in range(1, 5):
            assert not running.minute(NOW + n * MINUTE).success
            watch.look(NOW + n * MINUTE)
        # Not a second message because there is no reading either.
        watch.look_for(12, NOW + 5 * MINUTE)
        assert phone.titles == [NO_LOGIN]
        assert "AISEG2_PASSWORD" in phone.got[0][1]
        assert "refused the login (403)" in phone.got[0][1]
        device.pages[FLOW] = good
        assert running.minute(NOW + 17 * MINUTE).success
        watch.look_for(2, NOW + 17 * MINUTE)
    assert phone.titles == [NO_LOGIN, LOGIN_AGAIN]


def token_switched_off(influx: Influx) -> Callable[[], None]:
    influx.server.allow(influx.token, active=False)
    return lambda: influx.server.allow(influx.token, active=True)


def integers_of_the_same_name(influx: Influx) -> Callable[[], None]:
    with influx.writer() as writer:
        writer.write([f"power,summary=x value=1i {int(NOW.timestamp())}000000000"])
    return influx.empty


@pytest.mark.parametrize(
    ("fault", "success", "words"),
    [
        # InfluxDB answers 403 for a token that was switched off.
        (token_switched_off, False, "may not write to the bucket"),
        # Ours, floats, are refused, which is no failure of a run.
        (integers_of_the_same_name, True, "field type conflict"),
    ],
)
def test_an_influxdb_that_accepts_no_row_for_an_hour_is_reported_until_it_does(
    pipeline: Pipeline,
    influx: Influx,
    phone: Telephone,
    fault: Callable[[Influx], Callable[[], None]],
    success: bool,  # noqa: FBT001 - a case
    words: str,
) -> None:
    repair = fault(influx)
    watch = Watch(pipeline.environment, phone.address)
    for n in range(0, 60, 4):
        if n in (0, 28, 56):
            assert pipeline.minute(NOW + n * MINUTE).success is success
            # A run with nothing to send reports no problem and no end of one.
            assert pipeline.pending(NOW + n * MINUTE).success is success
        watch.read(NOW + n * MINUTE)
        watch.look(NOW + n * MINUTE)
    assert phone.titles == []
    watch.restart()
    watch.look_for(4, NOW + 60 * MINUTE)
    assert phone.titles == [NOT_WRITTEN]
    assert phone.got[0][1].startswith("7月14日 08:15 から書き込めていません。")
    assert words in phone.got[0][1]
    repair()
    assert pipeline.minute(NOW + 64 * MINUTE).success
    watch.look_for(2, NOW + 64 * MINUTE)
    assert phone.titles == [NOT_WRITTEN, WRITTEN_AGAIN]


def test_rows_beyond_the_retention_are_no_incident(pipeline: Pipeline, influx: Influx) -> None:
    influx.server.drop_bucket(influx.bucket)
    influx.server.create_bucket(influx.bucket, retention=HOUR)
    assert pipeline.minute(NOW).success
    assert incidents.read(pipeline.settings.data_dir, incidents.INFLUXDB) is None


def test_accepted_rows_end_the_incident_while_others_are_pending(
    pipeline: Pipeline, influx: Influx, monkeypatch: pytest.MonkeyPatch
) -> None:
    influx.proxy.token = "another"
    for hours in (3, 2, 1):
        assert not pipeline.minute(NOW - hours * HOUR).success
    influx.proxy.token = None
    monkeypatch.setattr("aiseg2_pipeline.orchestration.assets.influxdb.OLDER_END_S", 0)
    monkeypatch.setattr("aiseg2_pipeline.orchestration.assets.influxdb.OLDER_LEAST_S", 0)
    assert pipeline.minute(NOW).success
    assert pipeline.metadata(INFLUXDB_POWER)["hours_pending"] == 3
    assert incidents.read(pipeline.settings.data_dir, incidents.INFLUXDB) is None


def test_an_influxdb_removed_from_the_settings_is_not_reported_as_working_again(
    settings: dict[str, str], phone: Telephone
) -> None:
    watch, without = Watch(settings | TO_INFLUXDB, phone.address), Watch(settings, phone.address)
    watch.fail(Misconfigured("away"), NOW, incidents.INFLUXDB)
    watch.live(NOW, 64, 4)
    without.cursor = watch.cursor
    without.look_for(2, NOW + 64 * MINUTE)
    # One that is configured later begins anew.
    watch.cursor = without.cursor
    watch.look_for(2, NOW + 66 * MINUTE)
    assert phone.titles == [NOT_WRITTEN]


def test_hours_that_stay_incomplete_are_reported_once_in_the_morning(watch: Watch, phone: Telephone) -> None:
    midnight = datetime(2026, 7, 13, 15, 0, tzinfo=UTC)
    every = [midnight - 3 * DAY + n * MINUTE for n in range(3 * 24 * 60)]
    lost = {midnight - 2 * DAY + n * MINUTE for n in range(90)}
    watch.read(*(time for time in every if time not in lost))

    watch.live(midnight, 5)
    assert phone.got == []
    nine = midnight + 9 * HOUR
    watch.read(*(midnight + n * MINUTE for n in range(9 * 60)))
    watch.live(nine, 5)
    watch.restart()
    watch.live(nine + 5 * MINUTE, 3)
    assert phone.titles == ["記録に抜けがある時間帯が 2 あります"]
    assert "7月12日 01:00、7月12日 00:00" in phone.got[0][1]
    watch.read(*(nine + n * MINUTE for n in range(24 * 60)))
    watch.live(nine + DAY, 3)
    assert len(phone.got) == 1
    watch.read(*lost, *(nine + n * MINUTE for n in range(48 * 60)))
    watch.live(nine + 2 * DAY, 3)
    assert phone.titles[1:] == [COMPLETE_AGAIN]


def test_a_disk_that_fills_up_is_reported_until_there_is_space(
    watch: Watch, phone: Telephone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_with_free(little: int, enough: int) -> int:
        monkeypatch.setattr(rules, "LITTLE_FREE_BYTES", little)
        monkeypatch.setattr(rules, "ENOUGH_FREE_BYTES", enough)
        watch.look_for(2, NOW)
        return len(phone.got)

    watch.read(NOW)
    assert look_with_free(1 << 62, 1 << 62) == 1
    assert "ディスクの空きが残り" in phone.titles[0]
    assert str(watch.settings.data_dir) in phone.got[0][1]
    assert look_with_free(0, 1 << 62) == 1
    assert look_with_free(0, 0) == 2
    assert phone.titles[1] == "ディスクの空きが増えました"


def test_a_message_that_could_not_be_sent_is_sent_later_and_others_are_not_repeated(
    settings: dict[str, str], phone: Telephone, second: Telephone
) -> None:
    watch = Watch(settings, phone.address, second.address)
    phone.status = 503
    watch.read(NOW)
    then = watch.look_for(15, NOW)
    assert (phone.got, second.titles) == ([], [STOPPED])
    # Not every minute: a service that is down is not hammered.
    assert phone.tries == 1
    watch.restart()
    phone.status = 200
    then = watch.look_for(1, then)
    assert (phone.titles, second.titles) == ([STOPPED], [STOPPED])
    watch.read(then)
    second.status = 503
    then = watch.look_for(2, then)
    assert (phone.titles, second.titles) == ([STOPPED, READS_AGAIN], [STOPPED])
    second.status = 200
    watch.read(then + 5 * MINUTE)
    watch.look_for(2, then + 5 * MINUTE)
    assert phone.titles == second.titles == [STOPPED, READS_AGAIN]


def test_a_service_that_is_added_later_gets_the_open_problems(
    settings: dict[str, str], phone: Telephone, second: Telephone
) -> None:
    watch, more = Watch(settings, phone.address), Watch(settings, phone.address, second.address)
    watch.read(NOW)
    then = watch.look_for(12, NOW)
    more.cursor = watch.cursor
    more.look_for(2, then)
    assert phone.titles == second.titles == [STOPPED]


def test_an_unreadable_cursor_is_replaced_without_importing_apprise(
    watch: Watch, phone: Telephone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "apprise")
    watch.cursor = "{"
    watch.read(NOW)
    assert watch.look(NOW) == "No message is due."
    assert phone.got == []
    assert "apprise" not in sys.modules


def test_the_demo_says_that_it_is_one(tmp_path: Path, phone: Telephone) -> None:
    watch = Watch({"AISEG2_DATA_DIR": str(tmp_path / "data")}, phone.address)
    watch.look(watch.look_for(10, NOW))
    assert phone.titles == [f"【デモ】{STOPPED}"]


# --- Addresses are secrets, names are not to be trusted


def test_no_address_is_shown_anywhere(
    settings: dict[str, str],
    phone: Telephone,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("apprise").setLevel(logging.NOTSET)
    phone.status = 403
    others = (f"json://{SECRET}@127.0.0.1:1/{SECRET}", f"bogus://{SECRET}", f"slack://{SECRET}")
    watch = Watch(settings, phone.address, *others, f"json://{SECRET}@[::bad/")
    watch.read(NOW)
    skipped = watch.look(watch.look_for(12, NOW))
    assert skipped == "0 messages were sent, 5 are pending."
    out, error = capfd.readouterr()
    assert "Service 5 of AISEG2_ALERT_URLS did not take a message" in out
    shown = f"{watch.settings!r} {watch.settings} {watch.cursor} {caplog.text} {out} {error}"
    assert SECRET not in shown


@pytest.mark.parametrize(
    "text",
    [
        "json://a",
        " json://a  jsons://b/?x=1,xml://c ",
        "json://a/b,c,json://d",
        "mailto://u:p%20w@example.com?to=a@example.com,b@example.com, json://h",
        "json://a,,,\tjson://b",
    ],
)
def test_addresses_are_split_as_apprise_does(text: str) -> None:
    ours = [services_of(address) for address in send.split(text)]
    assert all(len(one) == 1 for one in ours)
    assert [url for one in ours for url in one] == services_of(text)


def services_of(text: str) -> list[str]:
    services = apprise.Apprise()
    assert services.add(text)
    return [str(one.url()) for one in services]  # type: ignore[no-untyped-call] # library


def test_a_device_name_is_sent_as_text_on_one_line(
    watch: Watch, phone: Telephone, settings: dict[str, str]
) -> None:
    evil = "The circuit '<b>x</b>\r\n\x1b[31m[y](http://z)\u202e' is not listed."
    html = Watch(settings, f"{phone.address}?format=html")
    for one in (watch, html):
        one.read(NOW)
        one.fail(Unreachable(evil), NOW + MINUTE)
        one.look(one.look_for(10, NOW))
    (_, text), (_, markup) = phone.got
    assert text.endswith("\nThe circuit '<b>x</b> [31m[y](http://z) ' is not listed.")
    assert "<b>" not in markup
    assert "&lt;b&gt;x" in markup


# --- The rules

# What differs from a home without problems, the problems, and the conditions that cannot be judged.
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "all is well": ({}, "", ""),
    "a reading is late": ({"last_reading": NOW - 9 * MINUTE}, "", "no_reading login"),
    "no reading": ({"last_reading": NOW - 10 * MINUTE}, "no_reading", "login hours"),
    "a damaged history of Dagster's": (
        {"history": [DamagedFile(Path("event_log-damaged-20260713T230000Z.db"), "x", "")]},
        "history",
        "",
    ),
    "a login refused for less than three minutes": (
        {"last_reading": NOW - 9 * MINUTE, "device": trouble(Refused("x"), 2 * MINUTE)},
        "",
        "no_reading login",
    ),
    "a refused login explains why there is no reading": (
        {"last_reading": NOW - HOUR, "device": trouble(Refused("x"), HOUR)},
        "login",
        "no_reading hours",
    ),
    "a device that is away may still refuse": (
        {"last_reading": NOW - HOUR, "device": trouble(Unreachable("x"), HOUR)},
        "no_reading",
        "login hours",
    ),
    "an hour in which the sensor did not run": (
        {"influxdb": trouble(Misconfigured("x"), DAY), "watching_since": NOW - MINUTE},
        "",
        "influxdb",
    ),
    "hours that may still be filled": ({"hours": [Hour(NOW - 2 * HOUR, 0, 0, 0, 60)]}, "", "hours"),
    "hours that were not checked": ({"hours": None}, "", "hours"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_state_has_its_problems_and_its_unknown_conditions(case: tuple[dict[str, Any], str, str]) -> None:
    changed, wrong, unknown = case
    verdicts = judge(facts(**changed), 10 * MINUTE)
    assert {condition for condition, verdict in verdicts.items() if verdict} == set(wrong.split())
    assert set(Condition) - verdicts.keys() == set(unknown.split())


@pytest.mark.parametrize(
    ("mark", "told", "expected"),
    [
        ("2026-07-12", {}, "2026-07-12"),
        ("2026-07-12", {Condition.HOURS: "2026-07-12"}, ""),
        ("2026-07-13", {Condition.HOURS: "2026-07-12"}, "2026-07-13"),
        ("2026-07-11", {Condition.HOURS: "2026-07-12"}, ""),
        (None, {Condition.HOURS: "2026-07-12"}, None),
        (None, {}, ""),
    ],
)
def test_a_condition_is_due_when_it_differs_from_the_last_one_sent(
    mark: str | None, told: dict[Condition, str], expected: str | None
) -> None:
    verdict = None if mark is None else Verdict(Message("a", "b"), mark)
    messages = [(one.condition, one.mark) for one in due({Condition.HOURS: verdict}, told)]
    assert messages == ([] if expected == "" else [(Condition.HOURS, expected)])
    assert list(due({}, told)) == []


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        ([60, 30, 60, *[60] * 26], [1]),
        ([60, 30, *[60] * 23], []),  # within a day of its return it may still be filled
        ([60, 0, 0, *[0] * 26], []),  # the readings have not resumed
        ([60] * 30, []),
        ([], []),
    ],
)
def test_an_hour_is_given_up_after_a_day_of_live_readings(live: list[int], expected: list[int]) -> None:
    start = NOW - len(live) * HOUR
    hours = [Hour(start + n * HOUR, minutes, 0, 0, 60 - minutes) for n, minutes in enumerate(live)]
    assert given_up(hours, NOW) == [start + n * HOUR for n in expected]


def test_an_incident_keeps_its_first_time_and_its_newest_error(tmp_path: Path) -> None:
    incidents.note(tmp_path, incidents.DEVICE, Unreachable("away"), NOW)
    incidents.note(tmp_path, incidents.DEVICE, Refused("refused"), NOW + HOUR)
    assert incidents.read(tmp_path, incidents.DEVICE) == Trouble(NOW, "refused", refused=True, at=NOW + HOUR)
    assert incidents.read(tmp_path, incidents.INFLUXDB) is None
    incidents.clear(tmp_path, incidents.DEVICE)
    assert list(tmp_path.iterdir()) == []


def test_an_incident_noted_while_the_clock_was_ahead_is_reported_once_it_is_right(
    settings: dict[str, str], phone: Telephone
) -> None:
    watch = Watch(settings | TO_INFLUXDB, phone.address)
    watch.read(NOW)
    watch.look(NOW)
    for what, error in ((incidents.DEVICE, Refused("refused")), (incidents.INFLUXDB, Misconfigured("away"))):
        watch.fail(error, NOW + 3650 * DAY, what)
        watch.fail(error, NOW + MINUTE, what)
    watch.look_for(62, NOW + MINUTE)
    assert phone.titles == [NO_LOGIN, NOT_WRITTEN]


def test_an_incident_that_cannot_be_noted_raises_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "absent"
    incidents.note(folder, incidents.DEVICE, Refused("refused"), NOW)
    incidents.clear(folder, incidents.DEVICE)
    assert incidents.read(folder, incidents.DEVICE) is None


# --- The test message


@pytest.fixture
def home(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of a home in which all but the clock is fine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("aiseg2_pipeline.cli.doctor.CLOCKS_AGREE_S", float("inf"))
    return {"AISEG2_HOST": device.address.removeprefix("http://"), "AISEG2_PASSWORD": PASSWORD}


def doctor(home: dict[str, str], addresses: str, *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code, and what the doctor says of alerts."""
    result = CliRunner().invoke(main, ["doctor", *arguments], env=home | {"AISEG2_ALERT_URLS": addresses})
    assert SECRET not in result.output
    return result.exit_code, [line for line in result.output.splitlines()[:-1] if " alerts" in line]


def test_the_test_message_goes_to_every_service_and_only_with_the_option(
    home: dict[str, str], phone: Telephone, second: Telephone
) -> None:
    assert doctor(home, "") == (0, [])
    listed = "ok   alerts 1: JSON; `aiseg2-pipeline doctor --alert` sends a test"
    assert doctor(home, phone.address) == (0, [listed])
    assert phone.tries == 0
    taken = [f"ok   alerts {number}: JSON took the test message" for number in (1, 2)]
    assert doctor(home, f"{phone.address}, {second.address}", "--alert") == (0, taken)
    assert phone.titles == second.titles == ["AiSEG2 の通知テスト"]


def test_doctor_fails_for_a_service_that_does_not_accept_the_test_message(
    home: dict[str, str], phone: Telephone
) -> None:
    phone.status = 403
    # Apprise itself fails on the last two.
    wrong = f"bogus://{SECRET} gnome://[{SECRET} dbus://[{SECRET}"
    code, (first, *others) = doctor(home, f"{phone.address} {wrong}", "--alert")
    assert code == 1
    assert first.startswith("FAIL alerts 1: JSON did not take the test message")
    assert len(others) == 3
    assert all("no address that Apprise understands" in line for line in others)


def test_without_addresses_or_the_extra_doctor_and_the_sensor_name_what_is_missing(
    home: dict[str, str], watch: Watch, phone: Telephone, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, lines = doctor(home, "", "--alert")
    assert (code, "AISEG2_ALERT_URLS is not set" in lines[0]) == (1, True)
    monkeypatch.setitem(sys.modules, "apprise", None)
    code, lines = doctor(home, phone.address, "--alert")
    assert (code, "make run EXTRAS=alerts" in lines[0]) == (1, True)
    with DagsterInstance.ephemeral() as instance:
        data = watch.sensor.evaluate_tick(build_sensor_context(instance))
    assert "make run EXTRAS=alerts" in (data.skip_message or "")
