"""A running pipeline is reachable from this machine only, refuses pages of other sites, and hides its files from other users."""

import stat
from pathlib import Path

import pytest
from dagster import DagsterInvalidConfigError, validate_run_config

from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline_tests.support.guarded_pipeline import CROSS_SITE, Evidence
from aiseg2_pipeline_tests.support.running_pipeline import needs_proc, started, two_free_ports


def modes(paths: list[Path]) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in paths}


def test_all_files_are_for_their_owner_only_and_an_existing_data_directory_keeps_its_mode(
    evidence: Evidence, evidence_on_postgres: Evidence
) -> None:
    # The first was started with umask 0.
    assert modes([evidence.data]) == {0o700}
    assert modes([evidence_on_postgres.data]) == {0o755}
    for data in (evidence.data, evidence_on_postgres.data):
        paths = list(data.rglob("*"))
        assert modes([path for path in paths if path.is_dir()]) == {0o700}
        assert modes([path for path in paths if not path.is_dir()]) == {0o600}


@needs_proc
def test_services_listen_only_on_the_loopback_address_and_in_folders_of_their_owner(evidence: Evidence) -> None:
    sockets = {where for where in evidence.listening if where.startswith("/")}
    assert evidence.listening - sockets == {f"127.0.0.1:{evidence.ui_port}"}
    assert str(evidence.data / "code.sock") in sockets
    assert evidence.open_sockets == set()


def test_requests_of_another_site_are_refused_and_our_own_are_answered(evidence: Evidence) -> None:
    own = {name: status for name, status in evidence.answers.items() if name not in CROSS_SITE}
    assert own == {"our own script": 200, "our own WebSocket": 101, "localhost": 200}
    answered = {
        name: evidence.answers[name] for name in CROSS_SITE if evidence.answers[name] not in (403, 405, 421)
    }
    assert answered == {}


def test_no_run_can_send_a_secret_or_write_a_file_elsewhere(tmp_path: Path) -> None:
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
    jobs = build_definitions(settings).resolve_all_job_defs()
    tried = 0
    for job in jobs:
        for name in job.resource_defs.keys() - {"io_manager"}:
            for option in ("url", "base_url", "path", "state_dir"):
                tried += 1
                with pytest.raises(DagsterInvalidConfigError, match="unexpected config entry"):
                    validate_run_config(job, {"resources": {name: {"config": {option: "elsewhere"}}}})
    assert tried > 100
    # Dagster's default IO manager would write pickles into DAGSTER_HOME.
    (definition,) = {job.resource_defs["io_manager"] for job in jobs}
    assert definition.resource_fn.__module__ == "dagster._core.storage.mem_io_manager"


@pytest.mark.parametrize(
    ("host", "printed", "warned"),
    [("0.0.0.0", "0.0.0.0", True), ("::1", "[::1]", False)],  # noqa: S104 - stopped at once
)
def test_the_address_is_printed_as_a_url_with_a_warning_where_others_can_reach_it(
    tmp_path: Path, host: str, printed: str, *, warned: bool
) -> None:
    ports = two_free_ports()
    with started(tmp_path, ports | {"AISEG2_UI_HOST": host}) as pipeline:
        pipeline.wait(lambda: "Ctrl-C stops everything." in pipeline.output)
        assert f"http://{printed}:{ports['AISEG2_UI_PORT']} " in pipeline.output
        assert ("can end and delete runs" in pipeline.output) == warned
