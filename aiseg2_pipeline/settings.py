"""The settings: environment and `.env` to one validated object.

Every setting is named here once, with its default; `.env.example` says the same to people. Nothing is opened or
created here. The first nine are those of the forwarder that this program replaces, with the same meaning.
"""

import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Self

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_UI_HOST = re.compile(r"[A-Za-z0-9.:_-]+")
_UI_NAME = re.compile(r"[A-Za-z0-9._-]+")
_POSTGRES_URL = re.compile(r"postgres(?:ql)?(?:\+psycopg2)?://([^\s/]+/\S+)")
_MAX_PORT = 65535
# The simulated device's login. `simulator` imports nothing of ours, so it has these too; a test compares the two.
DEMO_USER, DEMO_PASSWORD = "aiseg", "simulator"
# Before the first AiSEG was sold.
EARLIEST = date(2010, 1, 1)
_ALERT_URLS = re.compile(r"[a-z0-9]+://\S", re.IGNORECASE)
# Taken as they stand: a space in quotes belongs to the password.
_SECRETS = ("AISEG2_PASSWORD", "INFLUXDB_TOKEN", "AISEG2_POSTGRES_URL", "AISEG2_ALERT_URLS")
# Pydantic's own words for what can be wrong with a value, as a person would say them.
_WORDS = {
    "bool_parsing": "must be 0 or 1",
    "int_parsing": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "date_from_datetime_parsing": "must be a date like 2024-01-01",
    "date_from_datetime_inexact": "must be a date like 2024-01-01",
}


class SettingsError(Exception):
    """A setting that is missing or wrong, in one sentence that names it."""


def _host(value: str) -> str:
    parts = _HOST.fullmatch(value)
    if not parts or not 0 < int(parts[1] or 80) <= _MAX_PORT:
        raise ValueError(
            "must be a host name or an address, with :port where needed, without http:// and without a path"
        )
    return value


def _ui_host(value: str) -> str:
    if not _UI_HOST.fullmatch(value):
        raise ValueError("must be a name or an address of this machine, without http:// and without a port")
    return value


def _ui_names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value
    if not all(_UI_NAME.fullmatch(name) for name in names):
        raise ValueError("must be names of this server, separated by spaces, without https:// and without a port")
    return names


def _expanded(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("starts with ~ and the name of a user that this machine does not know") from None


def _header_text(value: str) -> str:
    if not value.isascii() or not value.isprintable() or '"' in value:
        raise ValueError("must be plain ASCII without quotes")
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    address = value.get_secret_value().strip()
    parts = _POSTGRES_URL.fullmatch(address)
    # Who connects would take all after the first @ for the host, and say so with half of the password.
    login, _, server = parts[1].rpartition("@") if parts else ("", "", "")
    if not parts or "@" in login or not _HOST.fullmatch(server.partition("/")[0]):
        raise ValueError(
            "must be an address like postgresql://user:password@host:5432/database, with @ and % of the password as %40 and %25"
        )
    # Dagster's own driver; another SQLAlchemy would choose another one.
    return SecretStr(f"postgresql+psycopg2://{parts[1]}")


def _alert_urls(value: SecretStr) -> SecretStr:
    if not _ALERT_URLS.match(value.get_secret_value().strip()):
        raise ValueError("must be addresses as Apprise takes them, like discord://…, separated by spaces")
    return value


Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
AlertUrls = Annotated[SecretStr, AfterValidator(_alert_urls)]
LocalPath = Annotated[Path, AfterValidator(_expanded)]


class InfluxSettings(BaseModel):
    """Where rows are written: an InfluxDB 2."""

    model_config = ConfigDict(frozen=True)

    host: str
    url: str
    token: SecretStr
    org: str
    bucket: str
    verify: bool | str


class Settings(BaseModel):
    """Everything that can be set, each field under its environment name.

    `data_dir` is absolute; in the demo it is a folder of its own, so that simulated rows never meet real ones.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=False)

    aiseg2_host: Annotated[Host | None, Field(alias="AISEG2_HOST")] = None
    aiseg2_user: Annotated[str, AfterValidator(_header_text), Field(alias="AISEG2_USER")] = "aiseg"
    aiseg2_password: Annotated[SecretStr | None, Field(alias="AISEG2_PASSWORD")] = None
    aiseg2_use_https: Annotated[bool, Field(alias="AISEG2_USE_HTTPS")] = False
    aiseg2_ca_file: Annotated[LocalPath | None, Field(alias="AISEG2_CA_FILE")] = None
    aiseg2_tls_verify: Annotated[bool, Field(alias="AISEG2_TLS_VERIFY")] = True
    influxdb_host: Annotated[Host | None, Field(alias="INFLUXDB_HOST")] = None
    influxdb_token: Annotated[SecretStr | None, Field(alias="INFLUXDB_TOKEN")] = None
    influxdb_org: Annotated[str | None, Field(alias="INFLUXDB_ORG")] = None
    influxdb_bucket: Annotated[str | None, Field(alias="INFLUXDB_BUCKET")] = None
    influxdb_use_https: Annotated[bool, Field(alias="INFLUXDB_USE_HTTPS")] = False
    influxdb_ca_file: Annotated[LocalPath | None, Field(alias="INFLUXDB_CA_FILE")] = None
    influxdb_tls_verify: Annotated[bool, Field(alias="INFLUXDB_TLS_VERIFY")] = True
    base_data_dir: Annotated[LocalPath, Field(alias="AISEG2_DATA_DIR")] = Path("data")
    start_date: Annotated[date | None, Field(alias="AISEG2_START_DATE", ge=EARLIEST)] = None
    samples_per_minute: Annotated[int, Field(alias="AISEG2_SAMPLES_PER_MINUTE", ge=1, le=12)] = 1
    warm_runs: Annotated[bool, Field(alias="AISEG2_WARM_RUNS")] = True
    keep_runs_days: Annotated[int, Field(alias="AISEG2_KEEP_RUNS_DAYS", ge=1, le=3650)] = 3
    postgres_url: Annotated[PostgresUrl | None, Field(alias="AISEG2_POSTGRES_URL")] = None
    alert_urls: Annotated[AlertUrls | None, Field(alias="AISEG2_ALERT_URLS")] = None
    alert_after_minutes: Annotated[int, Field(alias="AISEG2_ALERT_AFTER_MINUTES", ge=2, le=1440)] = 10
    ui: Annotated[bool, Field(alias="AISEG2_UI")] = True
    ui_host: Annotated[str, AfterValidator(_ui_host), Field(alias="AISEG2_UI_HOST")] = "127.0.0.1"
    ui_port: Annotated[Port, Field(alias="AISEG2_UI_PORT")] = 3000
    ui_names: Annotated[tuple[str, ...], BeforeValidator(_ui_names), Field(alias="AISEG2_UI_NAMES")] = ()
    simulator_port: Annotated[Port, Field(alias="AISEG2_SIMULATOR_PORT")] = 8420

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return the settings of an environment; an empty value is as good as none. Raise SettingsError."""
        known = {field.alias for field in cls.model_fields.values()}
        given = {
            name: value if name in _SECRETS else value.strip()
            for name, value in environment.items()
            if name in known and value.strip()
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            # The value itself is left out: it may be a password in the wrong line.
            first = error.errors(include_input=False, include_url=False)[0]
            what = (
                _WORDS.get(first["type"], first["msg"])
                .format(**first.get("ctx", {}))
                .removeprefix("Value error, ")
            )
            if not first["loc"]:
                raise SettingsError(f"{what}.") from None
            raise SettingsError(f"{first['loc'][0]} {what}: correct it in .env or in the environment.") from None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.influxdb_host and not self.aiseg2_host:
            raise ValueError(
                "INFLUXDB_HOST is set but AISEG2_HOST is not: set AISEG2_HOST to the device's address (or remove "
                "INFLUXDB_HOST for the demo, whose simulated readings never go to an InfluxDB)"
            )
        if self.aiseg2_host and not self.aiseg2_password:
            raise ValueError("AISEG2_PASSWORD is not set: set it to the password of the AiSEG2's web pages")
        if self.influxdb_host:
            for name, value in (
                ("INFLUXDB_TOKEN", self.influxdb_token),
                ("INFLUXDB_ORG", self.influxdb_org),
                ("INFLUXDB_BUCKET", self.influxdb_bucket),
            ):
                if not value:
                    raise ValueError(
                        f"{name} is not set: set it, or leave INFLUXDB_HOST empty to keep readings on this machine"
                    )
        for name, path in (("AISEG2_CA_FILE", self.aiseg2_ca_file), ("INFLUXDB_CA_FILE", self.influxdb_ca_file)):
            if path is not None and not path.is_file():
                raise ValueError(f"{name} is not a file: set it to the certificate's path")
        if self.demo and self.ui_port == self.simulator_port:
            raise ValueError(
                "AISEG2_SIMULATOR_PORT and AISEG2_UI_PORT are the same: set one of them to another port"
            )
        return self

    @property
    def demo(self) -> bool:
        """Whether the device is the simulator."""
        return self.aiseg2_host is None

    @property
    def data_dir(self) -> Path:
        """The folder of everything kept; the demo's lies apart."""
        base = self.base_data_dir.absolute()
        return base / "demo" if self.demo else base

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
        """What the client keeps between readings, and its locks."""
        return self.data_dir / "device"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder: run history and schedules."""
        return self.data_dir / "dagster"

    @property
    def run_history(self) -> SecretStr | None:
        """The PostgreSQL of Dagster's run history; None: SQLite, as always in the demo, which never meets what is real."""
        return None if self.demo else self.postgres_url

    @property
    def code_server_socket(self) -> Path:
        """Where the code server listens: in this folder, so that only its owner reaches it."""
        return self.data_dir / "code.sock"

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
        """How the device's certificate is checked: a CA file, or yes, or no."""
        return _verify(self.aiseg2_tls_verify, self.aiseg2_ca_file)

    @property
    def influx(self) -> InfluxSettings | None:
        """Where rows are written; None where no InfluxDB is configured."""
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


def _verify(verify: bool, ca_file: Path | None) -> bool | str:  # noqa: FBT001 - a setting, not a switch of behaviour
    return str(ca_file.absolute()) if verify and ca_file else verify


def environment(folder: Path | None = None) -> dict[str, str]:
    """Return the process's environment over `.env` of the folder (the current one by default).

    Raise SettingsError where `.env` cannot be read.
    """
    path = (folder or Path.cwd()) / ".env"
    try:
        # Not interpolated: a password may hold a `$`.
        written = dotenv_values(path, interpolate=False)
    except UnicodeError:
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}): let this user read it.") from None
    return {name: value for name, value in written.items() if value is not None} | dict(os.environ)


def load_settings() -> Settings:
    """Return the settings in force here. Raise SettingsError."""
    return Settings.from_environment(environment())


def unknown_settings(given: Mapping[str, Any]) -> list[str]:
    """Return the names that look like settings of ours and are none, for a hint at a misspelling."""
    known = {field.alias for field in Settings.model_fields.values()}
    return sorted(name for name in given if name.startswith(("AISEG2_", "INFLUXDB_")) and name not in known)
