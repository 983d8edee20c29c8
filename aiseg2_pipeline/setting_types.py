"""The types of the settings' values: each refuses a wrong one with the words that follow the setting's name."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_UI_NAME = re.compile(r"[A-Za-z0-9._-]+")
_POSTGRES_URL = re.compile(r"postgres(?:ql)?(?:\+psycopg2)?://([^\s/]+/\S+)")
_MAX_PORT = 65535
_ALERT_URLS = re.compile(r"[a-z0-9]+://\S", re.IGNORECASE)


def _host(value: str) -> str:
    parts = _HOST.fullmatch(value)
    if not parts or not 0 < int(parts[1] or 80) <= _MAX_PORT:
        raise ValueError(
            "must be a host name or an address, with :port where needed, without http:// and without a path"
        )
    return value


def _names_of_server(value: str | tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value
    if not all(_UI_NAME.fullmatch(name) for name in names):
        raise ValueError("must be names of this server, separated by spaces, without https:// and without a port")
    return names


def _expanded(value: Path) -> Path:
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("starts with ~ and the name of an unknown user") from None


def _file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError("is not a file: set it to the certificate's path")
    return value


def _postgres_url(value: SecretStr) -> SecretStr:
    address = value.get_secret_value().strip()
    parts = _POSTGRES_URL.fullmatch(address)
    # With a second @, libpq would take a part of the password for the host and print it.
    login, _, server = parts[1].rpartition("@") if parts else ("", "", "")
    if not parts or "@" in login or not _HOST.fullmatch(server.partition("/")[0]):
        raise ValueError(
            "must be like postgresql://user:password@host:5432/database, with @ and % in the password written as %40 and %25"
        )
    # The driver that dagster-postgres installs; SQLAlchemy's default depends on its version.
    return SecretStr(f"postgresql+psycopg2://{parts[1]}")


def _alert_urls(value: SecretStr) -> SecretStr:
    if not _ALERT_URLS.match(value.get_secret_value().strip()):
        raise ValueError("must be Apprise addresses, like discord://…, separated by spaces")
    return value


# Matched from the first to the last character; see `_PATTERNS`.
UiHost = Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]+$")]
UiPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")]
HeaderText = Annotated[str, Field(pattern="^[ !#-~]*$")]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=1, le=_MAX_PORT)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
AlertUrls = Annotated[SecretStr, AfterValidator(_alert_urls)]
LocalPath = Annotated[Path, AfterValidator(_expanded)]
CaFile = Annotated[LocalPath, AfterValidator(_file)]
ServerNames = Annotated[tuple[str, ...], BeforeValidator(_names_of_server)]
