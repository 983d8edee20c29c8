"""Whom a running pipeline lets in: nobody from elsewhere, no page of another site, no other user of this machine."""

import stat
from pathlib import Path

import pytest
from dagster import DagsterInvalidConfigError, validate_run_config

from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline_tests.support.guarded_pipeline import FOREIGN, Lived
from aiseg2_pipeline_tests.support.running_pipeline import PROC, STARTED_WITHIN_S, started, two_free_ports

needs_proc = pytest.mark.skipif(not PROC.exists(), reason="what listens is read from /proc")


def modes(paths: list[Path]) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in paths}


def test_all_that_is_kept_is_for_its_owner_alone_whatever_the_callers_mask(lived: Lived) -> None:
    kept = [lived.data, *lived.data.rglob("*")]
    assert modes([path for path in kept if path.is_dir()]) == {0o700}
    assert modes([path for path in kept if not path.is_dir()]) == {0o600}


def test_a_folder_that_was_there_stays_as_open_as_its_owner_made_it_and_all_within_is_closed(
    lived_on_postgres: Lived,
) -> None:
    data = lived_on_postgres.data
    assert modes([data]) == {0o755}
    kept = list(data.rglob("*"))
    assert modes([path for path in kept if path.is_dir()]) == {0o700}
    assert modes([path for path in kept if not path.is_dir()]) == {0o600}


@needs_proc
def test_nothing_listens_but_on_the_loopback_and_in_folders_of_its_owner(lived: Lived) -> None:
    sockets = {where for where in lived.listening if where.startswith("/")}
    assert lived.listening - sockets == {f"127.0.0.1:{lived.ui_port}"}
    assert str(lived.data / "code.sock") in sockets
    assert lived.open_sockets == set()


@pytest.mark.parametrize("what", FOREIGN)
def test_a_page_of_another_site_is_refused(lived: Lived, what: str) -> None:
    assert lived.answers[what] in (403, 405, 421)


def test_the_pages_themselves_are_not(lived: Lived) -> None:
    ours = {name: status for name, status in lived.answers.items() if name not in FOREIGN}
    assert ours == {"our own script": 200, "our own WebSocket": 101, "localhost": 200}


def test_no_other_site_can_show_the_pages_within_its_own(lived: Lived) -> None:
    assert b"'x-frame-options': 'SAMEORIGIN'" in lived.told["/"].lower().replace(b"sameorigin", b"SAMEORIGIN")


def test_no_run_can_send_a_secret_elsewhere_or_write_elsewhere(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "AISEG2_HOST": "192.168.0.216",
            "AISEG2_PASSWORD": "password",
            "INFLUXDB_HOST": "192.168.0.10:8086",
            "INFLUXDB_TOKEN": "token",
            "INFLUXDB_ORG": "home",
            "INFLUXDB_BUCKET": "aiseg2",
            "AISEG2_DATA_DIR": str(tmp_path),
        }
    )
    definitions = build_definitions(settings)
    tried = 0
    for job in definitions.resolve_all_job_defs():
        for name in job.resource_defs.keys() - {"io_manager"}:
            for elsewhere in ("url", "base_url", "path", "state_dir"):
                tried += 1
                with pytest.raises(DagsterInvalidConfigError, match="unexpected config entry"):
                    validate_run_config(job, {"resources": {name: {"config": {elsewhere: "elsewhere"}}}})
    assert tried > 100


def test_what_dagster_would_keep_elsewhere_is_kept_nowhere(tmp_path: Path) -> None:
    definitions = build_definitions(Settings.from_environment({"AISEG2_DATA_DIR": str(tmp_path)}))
    (definition,) = {job.resource_defs["io_manager"] for job in definitions.resolve_all_job_defs()}
    assert definition.resource_fn.__module__ == "dagster._core.storage.mem_io_manager"


def test_whoever_opens_the_pages_to_others_is_told_what_that_means(tmp_path: Path) -> None:
    sentence = (
        "Whoever reaches that address may end and delete runs, for these pages have no login (AISEG2_UI_HOST)."
    )
    with started(tmp_path, two_free_ports() | {"AISEG2_UI_HOST": "0.0.0.0"}) as pipeline:  # noqa: S104 - ended before anything listens
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output, STARTED_WITHIN_S)
        assert sentence in pipeline.output


def test_an_ipv6_address_is_printed_as_a_browser_takes_it(tmp_path: Path) -> None:
    ports = two_free_ports()
    with started(tmp_path, ports | {"AISEG2_UI_HOST": "::1"}) as pipeline:
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output, STARTED_WITHIN_S)
        assert f"http://[::1]:{ports['AISEG2_UI_PORT']} " in pipeline.output


def test_by_default_there_is_nothing_to_tell(lived: Lived) -> None:
    assert "Whoever reaches" not in lived.said("services")
