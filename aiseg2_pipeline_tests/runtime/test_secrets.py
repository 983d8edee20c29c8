"""Secrets are where they were put, and nowhere else: every byte that a pipeline says, shows and leaves is searched."""

import base64
import gzip
import json
import sqlite3
import zlib
from collections.abc import Callable
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
    Lived,
)
from aiseg2_pipeline_tests.support.postgres import address
from aiseg2_pipeline_tests.support.secret_search import found_in, found_in_folder
from aiseg2_pipeline_tests.test_settings import ALIASES

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

# What could as well be right there.
TAKE_ANYTHING = {"AISEG2_DATA_DIR", "AISEG2_PASSWORD", "INFLUXDB_BUCKET", "INFLUXDB_ORG", "INFLUXDB_TOKEN"}
TAKE_ANYTHING |= {"AISEG2_UI_NAMES"}


@pytest.fixture(params=["lived", "lived_on_postgres"])
def either(request: pytest.FixtureRequest) -> Lived:
    """A pipeline's life, with Dagster's history in SQLite and in PostgreSQL."""
    lived: Lived = request.getfixturevalue(request.param)
    return lived


def test_it_lived_through_all_that_can_go_wrong(lived: Lived, lived_on_postgres: Lived) -> None:
    assert lived.statuses == dict.fromkeys(
        ("minute", "check", "materialized", "report"), "SUCCESS"
    ) | dict.fromkeys(("unreachable", "refused_token", "refused_login"), "FAILURE")
    assert lived_on_postgres.statuses == {"minute": "SUCCESS"}
    assert (lived.exit_code, lived_on_postgres.exit_code) == (0, 0)
    for name, words in (
        ("alerts", "1 messages were sent, 1 have to wait"),
        ("services", "Service 2 of AISEG2_ALERT_URLS did not take a message"),
        ("read broken alerts", "AISEG2_ALERT_URLS must be "),
        ("read broken port", "AISEG2_UI_PORT must be "),
        ("read broken postgres", "AISEG2_POSTGRES_URL must be "),
        ("read refused login", "refused the login"),
        ("doctor refused login", "FAIL login"),
        ("doctor refused token", "does not know the token"),
        ("doctor --alert", "alerts 2: JSON did not take the test message"),
        ("health", "exit code 0"),
    ):
        assert words in lived.said(name), name
    for name in ("run broken postgres", "health broken postgres"):
        assert "refused" in lived_on_postgres.said(name), name
    assert "Traceback" not in "".join(
        text for name in lived.told if not name.startswith("debug") for text in lived.said(name)
    )


def test_nothing_that_is_said_or_shown_holds_a_secret(either: Lived) -> None:
    assert {name: found for name, data in either.told.items() if (found := found_in(data, SECRETS))} == {}


def test_nothing_that_is_left_holds_a_secret(either: Lived) -> None:
    assert (either.data / "readings.sqlite").is_file()
    assert found_in_folder(either.pipeline, SECRETS) == {}
    assert list((either.pipeline / "tmp").iterdir()) == []


def test_no_command_line_holds_a_secret(either: Lived) -> None:
    assert any(b"runtime.code_server" in line for line in either.cmdlines)
    assert found_in(b"\n".join(set(either.cmdlines)), SECRETS) == set()


def test_the_search_sees_what_is_no_secret(lived: Lived, lived_on_postgres: Lived) -> None:
    assert found_in(lived.told["services"], [BUCKET]) == {BUCKET}
    holding = {Path(path).name for path in found_in_folder(lived.pipeline, [BUCKET])}
    # The second holds it in compressed snapshots alone.
    assert holding >= {"readings.sqlite", "runs.db"}
    assert BUCKET.encode() not in (lived.data / "dagster" / "history" / "runs.db").read_bytes()
    assert found_in(lived_on_postgres.told["table snapshots"], [BUCKET]) == {BUCKET}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "written",
    [
        lambda secret: secret,
        lambda secret: json.dumps({"message": secret}),
        lambda secret: json.dumps(json.dumps([secret], ensure_ascii=False)),
        lambda secret: f"http://user:{quote(secret, safe='')}@host/",
        lambda secret: repr([secret]),
        lambda secret: base64.b64encode(f"user:{secret}".encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(f"1{secret}1".encode()).decode(),
        lambda secret: secret.encode().hex(),
    ],
)
def test_a_planted_secret_is_found_however_it_is_written(
    tmp_path: Path, secret: str, written: Callable[[str], str]
) -> None:
    data = f"before {written(secret)} after".encode()
    packed = zlib.compress(b"some more " + data)
    for hidden in (
        data,
        b"\0" + packed,
        gzip.compress(packed),
        json.dumps(base64.b64encode(packed).decode()).encode(),
    ):
        assert found_in(b"bytes " + hidden, SECRETS) == {secret}
    assert found_in(zlib.compress(b"nothing"), SECRETS) == set()
    path = tmp_path / "kept.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE kept (value)")
        # So long that it does not lie in the file in one piece.
        connection.execute("INSERT INTO kept VALUES (?)", (bytes(4050) + data,))
        connection.execute("INSERT INTO kept VALUES (?)", (packed,))
        connection.commit()
    assert found_in_folder(tmp_path, SECRETS) == {str(path): {secret}}


def test_no_object_shows_the_secret_that_it_holds(tmp_path: Path) -> None:
    settings = Settings.from_environment(EVERY_SECRET | {"AISEG2_DATA_DIR": str(tmp_path)})
    influx = settings.influx
    assert influx
    definitions = resources(settings)
    with build_resources(definitions) as made:
        held = [getattr(made, name) for name in definitions]
        # They hold them: otherwise they would have nothing to hide.
        assert (made.device.password, made.influxdb.token) == (DEVICE_PASSWORD, INFLUXDB_TOKEN)
    objects: list[Any] = [settings, influx, *held, *definitions.values(), build_definitions(settings)]
    with connect.device(settings, lambda: datetime.now(UTC)) as client, connect.writer(influx) as writer:
        objects += [client, writer]
        transport = Transport(settings.device_url, "aiseg", DEVICE_PASSWORD, state_dir=tmp_path)
        objects += [transport, *(vars(one) for one in (client, settings))]
        for one in objects:
            assert found_in(f"{one!r} {one!s}".encode(), SECRETS) == set(), type(one)


@pytest.mark.parametrize("name", sorted(ALIASES - TAKE_ANYTHING))
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_the_wrong_line_is_not_repeated(name: str, secret: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(EVERY_SECRET | {name: f"{secret}\n{secret}"})
    told = raised.value
    assert name in str(told)
    assert found_in(f"{told!r} {told.__cause__!r}".encode(), SECRETS) == set()
