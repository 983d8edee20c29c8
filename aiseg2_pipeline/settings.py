"""The settings: the environment and `.env` as one validated object.

Every setting is named here once, with its default; `.env.example` describes them for people. No file is created here.
Nine of them have the name and meaning that they had in the program that this one replaces.
"""

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from aiseg2_pipeline import env_file
from aiseg2_pipeline.setting_types import (
    AlertUrls,
    CaFile,
    HeaderText,
    Host,
    LocalPath,
    Port,
    PostgresUrl,
    ServerNames,
    UiHost,
    UiPath,
)

# Set in the environment of the services, so that all of them have the settings of their start.
ENV_FILE_IS_READ = "AISEG2_ENV_FILE_IS_READ"
# The simulated device's login. `simulator` may not import this module and has its own copy; a test compares them.
DEMO_USER, DEMO_PASSWORD = "aiseg", "simulator"
# An example of the documentation, which is also in the package.
_EXAMPLES = (folder / "docs" / "tariffs" / "steps.toml" for folder in Path(__file__).parents[:2])
DEMO_TARIFF = next(filter(Path.is_file, _EXAMPLES), None)
# Earlier than the first AiSEG.
EARLIEST = date(2010, 1, 1)
# Not stripped: a quoted space belongs to the password.
_SECRETS = (
    "AISEG2_PASSWORD",
    "AISEG2_PAGE_PASSWORD",
    "INFLUXDB_TOKEN",
    "AISEG2_POSTGRES_URL",
    "AISEG2_ALERT_URLS",
)
# Replacements for pydantic's messages, by its error type.
_WORDS = {
    "bool_parsing": "must be 0 or 1",
    "int_parsing": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} characters",
    "date_from_datetime_parsing": "must be a date like 2024-01-01",
    "date_from_datetime_inexact": "must be a date like 2024-01-01",
}


# The problem of a value that does not match its pattern.
_PATTERNS = {
    "AISEG2_USER": "must be plain ASCII without quotes",
    "AISEG2_UI_HOST": "must be a name or an address of this machine, without http:// and without a port",
    "AISEG2_PAGE_HOST": "must be a name or an address of this machine, without http:// and without a port",
    "AISEG2_UI_PATH": "must be a path like /energy, without a / at its end",
}


class SettingsError(Exception):
    """Settings are missing or wrong: a sentence for each in `problems`, of which the message is the first."""

    def __init__(self, *problems: str) -> None:
        """Use these sentences."""
        more = f" `aiseg2-pipeline doctor` lists {len(problems) - 1} more." if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = problems


class InfluxSettings(BaseModel):
    """The InfluxDB 2 that rows are written to."""

    model_config = ConfigDict(frozen=True)

    host: str
    url: str
    token: SecretStr
    org: str
    bucket: str
    verify: bool | str


class Settings(BaseModel):
    """All settings; each field's alias is its name in the environment.

    `data_dir` is absolute. The demo has its own, so that simulated and real rows are never mixed.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=False)

    aiseg2_host: Annotated[Host | None, Field(alias="AISEG2_HOST")] = None
    aiseg2_user: Annotated[HeaderText, Field(alias="AISEG2_USER")] = "aiseg"
    aiseg2_password: Annotated[SecretStr | None, Field(alias="AISEG2_PASSWORD")] = None
    aiseg2_is_simulated: Annotated[bool, Field(alias="AISEG2_DEMO")] = False
    aiseg2_use_https: Annotated[bool, Field(alias="AISEG2_USE_HTTPS")] = False
    aiseg2_ca_file: Annotated[CaFile | None, Field(alias="AISEG2_CA_FILE")] = None
    aiseg2_tls_verify: Annotated[bool, Field(alias="AISEG2_TLS_VERIFY")] = True
    influxdb_host: Annotated[Host | None, Field(alias="INFLUXDB_HOST")] = None
    influxdb_token: Annotated[SecretStr | None, Field(alias="INFLUXDB_TOKEN")] = None
    influxdb_org: Annotated[str | None, Field(alias="INFLUXDB_ORG")] = None
    influxdb_bucket: Annotated[str | None, Field(alias="INFLUXDB_BUCKET")] = None
    influxdb_use_https: Annotated[bool, Field(alias="INFLUXDB_USE_HTTPS")] = False
    influxdb_ca_file: Annotated[CaFile | None, Field(alias="INFLUXDB_CA_FILE")] = None
    influxdb_tls_verify: Annotated[bool, Field(alias="INFLUXDB_TLS_VERIFY")] = True
    base_data_dir: Annotated[LocalPath, Field(alias="AISEG2_DATA_DIR")] = Path("data")
    start_date: Annotated[date | None, Field(alias="AISEG2_START_DATE", ge=EARLIEST)] = None
    tariff: Annotated[LocalPath | None, Field(alias="AISEG2_TARIFF")] = None
    samples_per_minute: Annotated[int, Field(alias="AISEG2_SAMPLES_PER_MINUTE", ge=1, le=12)] = 1
    warm_runs: Annotated[bool, Field(alias="AISEG2_WARM_RUNS")] = True
    keep_runs_days: Annotated[int, Field(alias="AISEG2_KEEP_RUNS_DAYS", ge=1, le=3650)] = 3
    postgres_url: Annotated[PostgresUrl | None, Field(alias="AISEG2_POSTGRES_URL")] = None
    alert_urls: Annotated[AlertUrls | None, Field(alias="AISEG2_ALERT_URLS")] = None
    alert_after_minutes: Annotated[int, Field(alias="AISEG2_ALERT_AFTER_MINUTES", ge=2, le=1440)] = 10
    ui: Annotated[bool, Field(alias="AISEG2_UI")] = True
    ui_host: Annotated[UiHost, Field(alias="AISEG2_UI_HOST")] = "127.0.0.1"
    ui_port: Annotated[Port, Field(alias="AISEG2_UI_PORT")] = 3000
    ui_names: Annotated[ServerNames, Field(alias="AISEG2_UI_NAMES")] = ()
    ui_path: Annotated[UiPath, Field(alias="AISEG2_UI_PATH")] = ""
    page: Annotated[bool, Field(alias="AISEG2_PAGE")] = True
    page_host: Annotated[UiHost, Field(alias="AISEG2_PAGE_HOST")] = "127.0.0.1"
    page_port: Annotated[Port, Field(alias="AISEG2_PAGE_PORT", validate_default=True)] = 3080
    page_names: Annotated[ServerNames, Field(alias="AISEG2_PAGE_NAMES")] = ()
    page_password: Annotated[SecretStr | None, Field(alias="AISEG2_PAGE_PASSWORD", min_length=8)] = None
    page_live: Annotated[bool, Field(alias="AISEG2_PAGE_LIVE")] = True
    simulator_port: Annotated[Port, Field(alias="AISEG2_SIMULATOR_PORT", validate_default=True)] = 8420

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings of an environment; an empty value counts as unset. Raise SettingsError."""
        given = {
            name: value if name in _SECRETS else value.strip()
            for name, value in environment.items()
            if name in _NAMES and value.strip()
        }
        problems = _missing(given)
        try:
            settings = cls.model_validate(given)
        except ValidationError as error:
            # Without the values: a password may be on the wrong line.
            wrong = error.errors(include_input=False, include_url=False)
            problems = [
                _problem(one["type"], one["msg"], str(one["loc"][0]), one.get("ctx", {})) for one in wrong
            ] + problems
        if problems:
            raise SettingsError(*problems) from None
        if settings.simulated and settings.tariff is None:
            return settings.model_copy(update={"tariff": DEMO_TARIFF})
        return settings

    @field_validator("aiseg2_is_simulated")
    @classmethod
    def _simulated_password(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's call
        password = info.data.get("aiseg2_password")
        if value and info.data.get("aiseg2_host") and password != SecretStr(DEMO_PASSWORD):
            raise ValueError(
                "is for a simulated AiSEG2, whose password AISEG2_PASSWORD is not: remove AISEG2_DEMO to read a real one"
            )
        return value

    @field_validator("simulator_port")
    @classmethod
    def _other_port(cls, port: int, info: ValidationInfo) -> int:
        if "aiseg2_host" in info.data and info.data["aiseg2_host"] is None:
            for name in ("ui", "page"):
                if info.data.get(f"{name}_port") == port:
                    raise ValueError(
                        f"is also the port of AISEG2_{name.upper()}_PORT: set one of them to another port"
                    )
        return port

    @field_validator("page_port")
    @classmethod
    def _other_port_than_pages(cls, port: int, info: ValidationInfo) -> int:
        if info.data.get("ui") and info.data.get("page") and info.data.get("ui_port") == port:
            raise ValueError("is also the port of AISEG2_UI_PORT: set one of them to another port")
        return port

    @property
    def demo(self) -> bool:
        """Whether the device is simulated."""
        return self.aiseg2_host is None

    @property
    def simulated(self) -> bool:
        """Whether the home is a simulated one: in the demo, and where AISEG2_HOST is `aiseg2-pipeline simulate`."""
        return self.demo or self.aiseg2_is_simulated

    @property
    def data_dir(self) -> Path:
        """Return the data directory; the demo's is a folder in it."""
        base = self.base_data_dir.absolute()
        return base / "demo" if self.demo else base

    @property
    def first_partition_path(self) -> Path:
        """The file with the record's first hour."""
        return self.data_dir / "first_partition"

    @property
    def store_path(self) -> Path:
        """The store of readings."""
        return self.data_dir / "readings.sqlite"

    @property
    def energy_path(self) -> Path:
        """The store of the device's energy."""
        return self.data_dir / "energy.sqlite"

    @property
    def climate_path(self) -> Path:
        """The store of the rooms' climate."""
        return self.data_dir / "climate.sqlite"

    @property
    def device_state_dir(self) -> Path:
        """The folder of the client's state and locks."""
        return self.data_dir / "device"

    @property
    def dagster_home(self) -> Path:
        """Dagster's folder: run history and schedules."""
        return self.data_dir / "dagster"

    @property
    def run_history(self) -> SecretStr | None:
        """The PostgreSQL of Dagster's run history; None for SQLite, which the demo always uses."""
        return None if self.demo else self.postgres_url

    @property
    def code_server_socket(self) -> Path:
        """The code server's socket, in the data directory so that only its owner can connect."""
        return self.data_dir / "code.sock"

    @property
    def supervisor_lock_path(self) -> Path:
        """The lock of the running pipeline's supervisor, which was written when it started."""
        return self.data_dir / "alive.lock"

    @property
    def device_url(self) -> str:
        """The device's base address."""
        host = self.aiseg2_host or f"127.0.0.1:{self.simulator_port}"
        return f"{'https' if self.aiseg2_use_https and not self.demo else 'http'}://{host}"

    @property
    def device_user(self) -> str:
        """The login's user."""
        return DEMO_USER if self.demo else self.aiseg2_user

    @property
    def device_password(self) -> SecretStr:
        """The login's password."""
        return SecretStr(DEMO_PASSWORD) if self.demo or not self.aiseg2_password else self.aiseg2_password

    @property
    def device_verify(self) -> bool | str:
        """The verification of the device's certificate: a CA file, True, or False."""
        return _verify(self.aiseg2_tls_verify, self.aiseg2_ca_file)

    @property
    def influx(self) -> InfluxSettings | None:
        """The InfluxDB that rows are written to; None if none is configured."""
        if not (self.influxdb_host and self.influxdb_token and self.influxdb_org and self.influxdb_bucket):
            return None
        return InfluxSettings(
            host=self.influxdb_host,
            url=f"{'https' if self.influxdb_use_https else 'http'}://{self.influxdb_host}",
            token=self.influxdb_token,
            org=self.influxdb_org,
            bucket=self.influxdb_bucket,
            verify=_verify(self.influxdb_tls_verify, self.influxdb_ca_file),
        )


def _problem(kind: str, message: str, name: str, limits: Mapping[str, Any]) -> str:
    """Return the sentence for one of pydantic's errors, which names a default by its field."""
    name = str(Settings.model_fields[name].alias) if name in Settings.model_fields else name
    words = _PATTERNS[name] if kind == "string_pattern_mismatch" else _WORDS.get(kind, message).format(**limits)
    problem = words.removeprefix("Value error, ")
    what_to_do = "" if ": " in problem else ": correct it in .env or in the environment"
    return f"{name} {problem}{what_to_do}."


def _missing(given: Mapping[str, str]) -> list[str]:
    """Return a sentence for each setting that another one needs."""
    problems = []
    if "INFLUXDB_HOST" in given and "AISEG2_HOST" not in given:
        problems.append(
            "INFLUXDB_HOST is set but AISEG2_HOST is not: set AISEG2_HOST to the device's address (or remove "
            "INFLUXDB_HOST for the demo, whose readings are never written to an InfluxDB)."
        )
    if "AISEG2_HOST" in given and "AISEG2_PASSWORD" not in given:
        problems.append("AISEG2_PASSWORD is not set: set it to the password of the AiSEG2's web pages.")
    if "INFLUXDB_HOST" in given:
        problems += [
            f"{name} is not set: set it, or leave INFLUXDB_HOST empty to keep readings on this machine only."
            for name in ("INFLUXDB_TOKEN", "INFLUXDB_ORG", "INFLUXDB_BUCKET")
            if name not in given
        ]
    return problems


_NAMES = {field.alias for field in Settings.model_fields.values()}


def _verify(verify: bool, ca_file: Path | None) -> bool | str:  # noqa: FBT001 - a setting, not a switch of behaviour
    return str(ca_file.absolute()) if verify and ca_file else verify


def environment(folder: Path | None = None) -> dict[str, str]:
    """Return the process's environment merged over the `.env` of the folder, by default the current one.

    Raise SettingsError if `.env` cannot be read.
    """
    if ENV_FILE_IS_READ in os.environ:
        return dict(os.environ)
    try:
        return env_file.read((folder or Path.cwd()) / ".env") | dict(os.environ)
    except env_file.EnvFileError as error:
        raise SettingsError(str(error)) from None


def load_settings() -> Settings:
    """Return the settings of this process and the current folder. Raise SettingsError."""
    return Settings.from_environment(environment())


def unknown_settings(given: Mapping[str, Any]) -> list[str]:
    """Return the names with our prefixes that are not settings: probably misspelt ones."""
    return sorted(name for name in given if name.startswith(("AISEG2_", "INFLUXDB_")) and name not in _NAMES)
