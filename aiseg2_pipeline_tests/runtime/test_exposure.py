"""A recorded pipeline shows no secret, is reachable from this machine only, refuses other sites, and hides its files."""

import stat
from pathlib import Path

import pytest

from aiseg2_pipeline_tests.support.guarded_pipeline import (
    BUCKET,
    CROSS_SITE,
    SECRETS,
    Evidence,
    run_all,
    run_on_postgres,
)
from aiseg2_pipeline_tests.support.influxdb import InfluxServer
from aiseg2_pipeline_tests.support.running_pipeline import needs_proc
from aiseg2_pipeline_tests.support.secret_search import found_in, found_in_folder


def modes(paths: list[Path]) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in paths}


@pytest.fixture(scope="module")
def recordings(
    tmp_path_factory: pytest.TempPathFactory,
    influx_server: InfluxServer,  # noqa: ARG001 - skips where no InfluxDB is installed
    postgres_port: int,
) -> tuple[Evidence, Evidence]:
    """What two pipelines printed and left behind; the second has its history in PostgreSQL."""
    others: list[Evidence] = []
    evidence = run_all(
        tmp_path_factory.mktemp("evidence"),
        lambda: others.append(run_on_postgres(tmp_path_factory.mktemp("postgres"), postgres_port)),
    )
    return evidence, others[0]


@pytest.fixture
def evidence(recordings: tuple[Evidence, Evidence]) -> Evidence:
    return recordings[0]


@pytest.fixture
def evidence_on_postgres(recordings: tuple[Evidence, Evidence]) -> Evidence:
    return recordings[1]


@pytest.fixture(params=["evidence", "evidence_on_postgres"])
def either(request: pytest.FixtureRequest) -> Evidence:
    """The evidence with Dagster's history in SQLite, and in PostgreSQL."""
    evidence: Evidence = request.getfixturevalue(request.param)
    return evidence


def test_the_evidence_has_every_kind_of_failure(evidence: Evidence, evidence_on_postgres: Evidence) -> None:
    assert evidence.statuses == dict.fromkeys(
        ("minute", "check", "materialized", "report"), "SUCCESS"
    ) | dict.fromkeys(("unreachable", "refused_token", "refused_login"), "FAILURE")
    assert evidence_on_postgres.statuses == {"minute": "SUCCESS"}
    assert (evidence.exit_code, evidence_on_postgres.exit_code) == (0, 0)
    for name, words in (
        ("alerts", "1 messages were sent, 1 are pending"),
        ("services", "Service 2 of AISEG2_ALERT_URLS did not take a message"),
        ("read broken alerts", "AISEG2_ALERT_URLS must be "),
        ("read broken port", "AISEG2_UI_PORT must be "),
        ("read broken postgres", "AISEG2_POSTGRES_URL must be "),
        ("read refused login", "refused the login"),
        ("doctor refused login", "FAIL login"),
        ("doctor refused token", "does not accept the token"),
        ("doctor --alert", "alerts 2: JSON did not take the test message"),
        ("health", "exit code 0"),
    ):
        assert words in evidence.output(name), name
    for name in ("run broken postgres", "health broken postgres"):
        assert "refused" in evidence_on_postgres.output(name), name
    assert "Traceback" not in "".join(
        text for name in evidence.outputs if not name.startswith("debug") for text in evidence.output(name)
    )


def test_no_output_holds_a_secret(either: Evidence) -> None:
    holding = {name: found for name, data in either.outputs.items() if (found := found_in(data, SECRETS))}
    assert holding == {}


def test_no_file_holds_a_secret(either: Evidence) -> None:
    assert (either.data / "readings.sqlite").is_file()
    assert found_in_folder(either.pipeline, SECRETS) == {}
    assert list((either.pipeline / "tmp").iterdir()) == []


def test_no_command_line_holds_a_secret(either: Evidence) -> None:
    assert any(b"aiseg2_pipeline.cli" in line for line in either.cmdlines)
    assert found_in(b"\n".join(set(either.cmdlines)), SECRETS) == set()


def test_the_search_finds_a_text_that_is_not_secret(evidence: Evidence, evidence_on_postgres: Evidence) -> None:
    assert found_in(evidence.outputs["services"], [BUCKET]) == {BUCKET}
    holding = {Path(path).name for path in found_in_folder(evidence.pipeline, [BUCKET])}
    # In runs.db it is only in compressed snapshots.
    assert holding >= {"readings.sqlite", "runs.db"}
    assert BUCKET.encode() not in (evidence.data / "dagster" / "history" / "runs.db").read_bytes()
    assert found_in(evidence_on_postgres.outputs["table snapshots"], [BUCKET]) == {BUCKET}


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
    assert evidence.listening - sockets == {f"127.0.0.1:{port}" for port in evidence.ports}
    assert str(evidence.data / "code.sock") in sockets
    assert evidence.open_sockets == set()


def test_requests_of_another_site_are_refused_and_our_own_are_answered(evidence: Evidence) -> None:
    own = {name: status for name, status in evidence.answers.items() if name not in CROSS_SITE}
    assert own == {"our own script": 200, "our own WebSocket": 101, "localhost": 200}
    answered = {
        name: evidence.answers[name] for name in CROSS_SITE if evidence.answers[name] not in (403, 405, 421)
    }
    assert answered == {}
