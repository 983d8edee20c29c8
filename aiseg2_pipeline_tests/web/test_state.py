"""What `now` says of a record in any state: none yet, silent, stopped, upgraded, damaged, moved aside."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from aiseg2_pipeline.aiseg2.errors import Unreachable
from aiseg2_pipeline.aiseg2.models import Circuit
from aiseg2_pipeline.store import Store, incidents
from aiseg2_pipeline.store.queries import TABLES_VERSION
from aiseg2_pipeline.store.schema import VERSION
from aiseg2_pipeline_tests.support.damage import execute_in, scramble_all_but_first_page
from aiseg2_pipeline_tests.support.page import served, settings_of, store_reading, utc_now

MINUTE = timedelta(minutes=1)
AWAY = Unreachable("The AiSEG2 did not answer.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def starting(folder: Path) -> None:
    """What a pipeline that has just been started has written."""
    settings_of(folder).supervisor_lock_path.touch()


def silent(folder: Path) -> None:
    store_reading(folder, utc_now() - 10 * MINUTE, 台所=700.0)
    incidents.note(folder, incidents.DEVICE, AWAY, utc_now() - 9 * MINUTE)
    incidents.note(folder, incidents.DEVICE, AWAY, utc_now())


def stopped(folder: Path) -> None:
    # The device was silent when the pipeline stopped.
    silent(folder)
    incidents.clear(folder, incidents.DEVICE)
    incidents.note(folder, incidents.DEVICE, AWAY, utc_now() - 9 * MINUTE)


def started_again(folder: Path) -> None:
    stopped(folder)
    starting(folder)


def of_an_older_version(folder: Path) -> None:
    store_reading(folder, utc_now(), 台所=700.0)
    execute_in(folder / "readings.sqlite", "PRAGMA user_version = 2")


def being_upgraded(folder: Path) -> None:
    store_reading(folder, utc_now(), 台所=700.0)
    execute_in(folder / "readings.sqlite", "CREATE TABLE old_rows (time INTEGER)")


def damaged(folder: Path) -> None:
    for n in range(60):
        store_reading(folder, utc_now() - n * MINUTE, 台所=700.0)
    scramble_all_but_first_page(folder / "readings.sqlite")


def replaced(folder: Path) -> None:
    damaged(folder)
    with Store.open(folder / "readings.sqlite", lambda _: None):
        pass
    store_reading(folder, utc_now(), 台所=700.0)


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (starting, "waiting"),
        (silent, "silent"),
        (stopped, "stopped"),
        (started_again, "waiting"),
        (of_an_older_version, "upgrading"),
        (being_upgraded, "upgrading"),
        (damaged, "unreadable"),
        (replaced, "moved_aside"),
    ],
)
def test_each_state_of_the_record_has_its_word_and_no_answer_fails(
    folder: Path, prepare: Callable[[Path], None], code: str
) -> None:
    prepare(folder)
    with served(folder) as page:
        content = page.api("now")
        assert content["state"]["code"] == code, content
        if code in {"silent", "stopped"}:
            assert [(one["name"], one["w"]) for one in content["circuits"]] == [("台所", 700)]
            assert content["state"]["since"] is not None
        if code == "waiting":
            assert 0 < content["state"]["wait_s"] <= 75
        for answer in ("series?kind=total", "energy?circuits=1", "coverage", "record"):
            response = page.get(f"/api/v1/{answer}")
            assert response.status_code in {200, 404, 503}, response.text
            if response.status_code != 200:
                assert response.json()["error"].endswith(".")
        assert "Traceback" not in page.log.read_text()


def test_a_reading_is_shown_as_it_is_stored_and_a_number_that_is_not_known_is_null(folder: Path) -> None:
    at = utc_now() - timedelta(seconds=20)
    store_reading(folder, at, 台所=700.0, 寝室=0.0, 居間=1300.0)
    with Store.open(folder / "readings.sqlite") as store:
        store.record_circuits([Circuit("1", "台所"), Circuit("2", "寝室"), Circuit("3", "寝室")], at)
    with served(folder) as page:
        content: dict[str, Any] = page.api("now")
    assert (content["source"], content["state"]["code"]) == ("stored", "ok")
    assert 20 <= content["age_s"] < 40
    assert (content["consumption_w"], content["generation_w"], content["grid_w"]) == (2000, 0, 2000)
    assert content["battery_w"] is content["battery_percent"] is content["charge_state"] is None
    shown = [(one["name"], one["w"], one["is_sum"]) for one in content["circuits"]]
    assert shown == [("居間", 1300, False), ("台所", 700, False), ("寝室", 0, True)]
    assert content["home"] == {"generation": True, "battery": False, "circuits": True, "tariff": False}


def test_the_circuits_that_use_most_have_a_hue_and_it_is_the_same_in_every_answer(folder: Path) -> None:
    for n in (1, 2):
        watts = {f"回路{circuit}": 10.0 * circuit for circuit in range(1, 11)}
        store_reading(folder, utc_now() - n * timedelta(hours=1), **watts)
    with served(folder) as page:
        hues = {one["name"]: one["hue"] for one in page.api("now")["circuits"]}
        content = page.api("series", kind="usage", start=(utc_now() - timedelta(hours=3)).isoformat())
    assert hues == {f"回路{10 - rank}": rank if rank < 8 else None for rank in range(10)}
    assert {one["name"]: one["hue"] for one in content["series"]} == hues


def test_the_queries_are_for_the_tables_of_this_version() -> None:
    assert TABLES_VERSION == VERSION
