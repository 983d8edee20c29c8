"""Secrets stay in the settings: no object, error or run shows one; and the search for them in all that a pipeline prints works."""

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
from dagster import DagsterInvalidConfigError, build_resources, validate_run_config

from aiseg2_pipeline.aiseg2.transport import Transport
from aiseg2_pipeline.cli import connect
from aiseg2_pipeline.orchestration.definitions import build_definitions
from aiseg2_pipeline.orchestration.resources import resources
from aiseg2_pipeline.settings import Settings, SettingsError
from aiseg2_pipeline_tests.support.guarded_pipeline import (
    DEVICE_PASSWORD,
    INFLUXDB_TOKEN,
    SECRETS,
    SERVICE_PASSWORD,
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
    "AISEG2_PAGE_PASSWORD": DEVICE_PASSWORD,
    "AISEG2_POSTGRES_URL": address(5432),
    "AISEG2_ALERT_URLS": f"json://service:{quote(SERVICE_PASSWORD)}@127.0.0.1/{SECRETS[2]}",
}

# Settings that accept any text.
FREE_TEXT = {
    "AISEG2_DATA_DIR",
    "AISEG2_PASSWORD",
    "AISEG2_TARIFF",
    "INFLUXDB_BUCKET",
    "INFLUXDB_ORG",
    "INFLUXDB_TOKEN",
}
FREE_TEXT |= {"AISEG2_UI_NAMES", "AISEG2_PAGE_NAMES", "AISEG2_PAGE_PASSWORD"}


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
        transport = Transport(
            settings.device_url, "aiseg", DEVICE_PASSWORD, state_dir=tmp_path, clock=lambda: datetime.now(UTC)
        )
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


def test_no_run_can_send_a_secret_or_write_a_file_elsewhere(tmp_path: Path) -> None:
    settings = Settings.from_environment(EVERY_SECRET | {"AISEG2_DATA_DIR": str(tmp_path)})
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
