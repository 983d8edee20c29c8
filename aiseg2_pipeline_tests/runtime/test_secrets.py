"""Secrets stay in the settings: every byte that a pipeline prints, shows or leaves behind is searched for them."""

import base64
import gzip
import json
import sqlite3
import zlib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dagster import build_resources

from aiseg2_pipeline.aiseg2.transport import Transport
from aiseg2_pipeline.cli import connect
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.resources import resources
from aiseg2_pipeline.settings import Settings, SettingsError
from aiseg2_pipeline_tests.support.guarded_pipeline import (
    BUCKET,
    DEVICE_PASSWORD,
    INFLUXDB_TOKEN,
    SECRETS,
    SERVICE_PASSWORD,
    Evidence,
)
from aiseg2_pipeline_tests.support.postgres import address
from aiseg2_pipeline_tests.support.secret_search import found_in, found_in_folder

EVERY_SECRET = {
    "AISEG2_HOST": "192.168.0.216",
    "AISEG2_PASSWORD": DEVICE_PASSWORD,
    "INFLUXDB_HOST": "192.168.0.10:8086",
    "INFLUXDB_TOKEN": INFLUXDB_TOKEN,
    "INFLUXDB_ORG": "home",
    "INFLUXDB_BUCKET": "aiseg2",
    "AISEG2_POSTGRES_URL": address(5432),
    "AISEG2_ALERT_URLS": f"json://service:{quote(SERVICE_PASSWORD)}@127.0.0.1/{SECRETS[2]}",
}

# Settings that accept any text.
FREE_TEXT = {"AISEG2_DATA_DIR", "AISEG2_PASSWORD", "INFLUXDB_BUCKET", "INFLUXDB_ORG", "INFLUXDB_TOKEN"}
FREE_TEXT |= {"AISEG2_UI_NAMES"}


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
    assert any(b"runtime.code_server" in line for line in either.cmdlines)
    assert found_in(b"\n".join(set(either.cmdlines)), SECRETS) == set()


def test_the_search_finds_a_text_that_is_not_secret(evidence: Evidence, evidence_on_postgres: Evidence) -> None:
    assert found_in(evidence.outputs["services"], [BUCKET]) == {BUCKET}
    holding = {Path(path).name for path in found_in_folder(evidence.pipeline, [BUCKET])}
    # In runs.db it is only in compressed snapshots.
    assert holding >= {"readings.sqlite", "runs.db"}
    assert BUCKET.encode() not in (evidence.data / "dagster" / "history" / "runs.db").read_bytes()
    assert found_in(evidence_on_postgres.outputs["table snapshots"], [BUCKET]) == {BUCKET}


@pytest.mark.parametrize("secret", SECRETS)
def test_the_search_finds_a_secret_in_any_encoding_and_compression(tmp_path: Path, secret: str) -> None:
    encoded = (
        json.dumps(json.dumps([secret], ensure_ascii=False)),
        f"http://user:{quote(secret, safe='')}@host/",
        repr([secret]),
        base64.urlsafe_b64encode(f"1{secret}1".encode()).decode(),
        secret.encode().hex(),
    )
    for text in encoded:
        packed = zlib.compress(f"some more {text}".encode())
        for data in (text.encode(), gzip.compress(packed), json.dumps(base64.b64encode(packed).decode()).encode()):
            assert found_in(b"bytes " + data, SECRETS) == {secret}
    path = tmp_path / "kept.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE kept (value)")
        # So long that SQLite splits the value.
        connection.execute("INSERT INTO kept VALUES (?)", (bytes(4050) + secret.encode(),))
        connection.commit()
    assert found_in_folder(tmp_path, SECRETS) == {str(path): {secret}}


def test_no_object_shows_the_secret_that_it_holds(tmp_path: Path) -> None:
    settings = Settings.from_environment(EVERY_SECRET | {"AISEG2_DATA_DIR": str(tmp_path)})
    influx = settings.influx
    assert influx
    definitions = resources(settings)
    with build_resources(definitions) as made:
        held = [getattr(made, name) for name in definitions]
        assert made.device.settings.device_password.get_secret_value() == DEVICE_PASSWORD
        assert made.influxdb.settings.token.get_secret_value() == INFLUXDB_TOKEN
    objects: list[Any] = [settings, influx, *held, *definitions.values(), build_definitions(settings)]
    with connect.device(settings, lambda: datetime.now(UTC)) as client, connect.writer(influx) as writer:
        objects += [client, writer]
        transport = Transport(settings.device_url, "aiseg", DEVICE_PASSWORD, state_dir=tmp_path)
        objects += [transport, *(vars(one) for one in (client, settings))]
        for one in objects:
            assert found_in(f"{one!r} {one!s}".encode(), SECRETS) == set(), type(one)


@pytest.mark.parametrize(
    "name", sorted({str(field.alias) for field in Settings.model_fields.values()} - FREE_TEXT)
)
@pytest.mark.parametrize("secret", SECRETS)
def test_the_error_of_a_setting_does_not_repeat_its_value(name: str, secret: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(EVERY_SECRET | {name: f"{secret}\n{secret}"})
    error = raised.value
    assert name in str(error)
    assert found_in(f"{error!r} {error.__cause__!r}".encode(), SECRETS) == set()
