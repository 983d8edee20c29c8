"""The settings: an existing `.env` keeps its meaning, and each wrong value gets one message that names it."""

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from aiseg2_pipeline.settings import Settings, SettingsError, load_settings, unknown_settings
from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER
from aiseg2_pipeline.tariff.load import load_tariff

SECRET = "s3cret/with spaces"
ALIASES = {str(field.alias) for field in Settings.model_fields.values()}
EXAMPLE = Path(__file__).parents[1] / ".env.example"
# The settings of the program that this one replaces.
NINE = {
    "AISEG2_HOST": "192.168.0.216",
    "AISEG2_USER": "aiseg",
    "AISEG2_PASSWORD": "correct horse",
    "AISEG2_USE_HTTPS": "0",
    "INFLUXDB_HOST": "192.168.0.10:8086",
    "INFLUXDB_TOKEN": "t0ken==",
    "INFLUXDB_ORG": "home",
    "INFLUXDB_BUCKET": "aiseg2",
    "INFLUXDB_USE_HTTPS": "0",
}
WITHOUT_HOSTS = NINE | {
    "AISEG2_HOST": "",
    "INFLUXDB_HOST": "",
    "AISEG2_USER": "other",
    "AISEG2_POSTGRES_URL": "postgresql://me@db/runs",
    "AISEG2_USE_HTTPS": "1",
}
POSTGRES = f"dagster:{SECRET}@127.0.0.1"
WRONG = {
    # A real device is not a simulated one.
    "AISEG2_DEMO": (SECRET, "1"),
    "AISEG2_HOST": ("http://192.168.0.216", "192.168.0.216/page", "192.168.0.216:99999", "192.168.0.216:0"),
    "AISEG2_USER": ('ai"seg', "利用者"),
    "AISEG2_PASSWORD": ("", "  "),
    "AISEG2_USE_HTTPS": (SECRET,),
    "AISEG2_CA_FILE": (SECRET, "."),
    "AISEG2_TLS_VERIFY": (SECRET,),
    "INFLUXDB_HOST": ("https://192.168.0.10:8086", "192.168.0.10:8086/"),
    "INFLUXDB_TOKEN": ("",),
    "INFLUXDB_ORG": ("",),
    "INFLUXDB_BUCKET": (" ",),
    "INFLUXDB_USE_HTTPS": ("https",),
    "INFLUXDB_CA_FILE": (SECRET,),
    "INFLUXDB_TLS_VERIFY": (SECRET,),
    "AISEG2_DATA_DIR": (f"~{SECRET}",),
    "AISEG2_TARIFF": (f"~{SECRET}",),
    "AISEG2_START_DATE": ("2024-13-01", SECRET, "0001-01-01", "2004-01-01", "20240101"),
    "AISEG2_SAMPLES_PER_MINUTE": ("0", "13", "1.5", SECRET),
    "AISEG2_WARM_RUNS": (SECRET,),
    "AISEG2_KEEP_RUNS_DAYS": ("0", SECRET),
    "AISEG2_ALERT_URLS": (SECRET, f"discord:/{SECRET}", f"{SECRET} json://a"),
    "AISEG2_ALERT_AFTER_MINUTES": ("1", "1441", "ten"),
    "AISEG2_POSTGRES_URL": (
        f"mysql://{POSTGRES}/dagster",
        f"postgresql://{POSTGRES}",
        f"postgresql://dagster:p@{SECRET}@127.0.0.1/dagster",
        f"postgresql://{POSTGRES}:54x/dagster",
    ),
    "AISEG2_UI": (SECRET,),
    "AISEG2_UI_HOST": ("http://127.0.0.1", SECRET),
    "AISEG2_UI_NAMES": ("https://power.example.org", "nas.local power.example.org:443", SECRET),
    "AISEG2_UI_PATH": ("energy", "/energy/", "/a b", "/../x", "https://nas/energy"),
    "AISEG2_UI_PORT": ("0", SECRET),
    "AISEG2_PAGE": (SECRET,),
    "AISEG2_PAGE_HOST": ("http://127.0.0.1", SECRET),
    "AISEG2_PAGE_PORT": ("0", SECRET),
    "AISEG2_PAGE_NAMES": ("https://nas.local", SECRET),
    "AISEG2_PAGE_PASSWORD": ("short",),
    "AISEG2_PAGE_LIVE": (SECRET,),
    "AISEG2_SIMULATOR_PORT": ("65536", SECRET),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, without any setting in the environment."""
    for name in ALIASES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def env_file(text: str) -> Settings:
    Path(".env").write_text(text, encoding="utf-8")
    return load_settings()


def password(settings: Settings) -> str:
    return settings.device_password.get_secret_value()


def test_the_nine_settings_of_the_earlier_program_keep_their_meaning(folder: Path) -> None:
    settings = env_file("\n".join(f"{name}={value}" for name, value in NINE.items()))
    assert not settings.demo
    assert settings.device_url == "http://192.168.0.216"
    assert (settings.device_user, password(settings)) == ("aiseg", "correct horse")
    influx = settings.influx
    assert influx is not None
    assert (influx.url, influx.org, influx.bucket) == ("http://192.168.0.10:8086", "home", "aiseg2")
    assert influx.token.get_secret_value() == "t0ken=="
    assert influx.verify is settings.device_verify is True
    assert settings.data_dir == folder / "data"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("AISEG2_PASSWORD='single $HOME #1'", "single $HOME #1"),
        ("AISEG2_PASSWORD=pa$word${HOME}", "pa$word${HOME}"),
        ("AISEG2_PASSWORD = spaces around  ", "spaces around"),
        ("AISEG2_PASSWORD='  in quotes '", "  in quotes "),
        ("export AISEG2_PASSWORD=暗証番号\r", "暗証番号"),
    ],
)
def test_a_password_is_read_as_it_was_written(line: str, expected: str) -> None:
    # A byte order mark before the first name is ignored.
    settings = env_file(f"\ufeffAISEG2_HOST=192.168.0.216\n{line}\n")
    assert settings.device_url == "http://192.168.0.216"
    assert password(settings) == expected


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: path.write_bytes("AISEG2_HOST=a".encode("utf-16")), "is not UTF-8 text: save it as UTF-8"),
        (
            lambda path: path.write_bytes("AISEG2_HOST=a".encode("utf-16-le")),
            "is not UTF-8 text: save it as UTF-8",
        ),
        (lambda path: path.mkdir(), "is a folder: remove it, "),
        (lambda path: path.symlink_to("moved"), "is a link to a missing file: restore that file, "),
    ],
    ids=["UTF-16", "UTF-16 without a mark", "a folder", "a dangling link"],
)
def test_an_env_file_that_cannot_be_read_is_one_message_and_not_the_demo(
    folder: Path, make: Callable[[Path], object], sentence: str
) -> None:
    make(folder / ".env")
    with pytest.raises(SettingsError, match=rf"^[^\n]+\.env {sentence}[^\n]*\.$"):
        load_settings()


def test_an_env_file_of_another_user_is_one_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").touch()
    # Not by permissions, which root ignores.
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=PermissionError(13, "Permission denied")))
    with pytest.raises(
        SettingsError, match=r"\.env cannot be read \(Permission denied\): let this user read it\.$"
    ):
        load_settings()


def test_the_environment_overrides_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISEG2_HOST", " 10.0.0.1 ")
    monkeypatch.setenv("AISEG2_UI_PORT", "4000")
    settings = env_file("AISEG2_HOST=10.0.0.2\nAISEG2_PASSWORD=of the file\nAISEG2_UI_PORT=5000\n")
    assert settings.device_url == "http://10.0.0.1"
    assert settings.ui_port == 4000
    assert password(settings) == "of the file"


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.from_environment(dict.fromkeys(ALIASES, " ")) == Settings.from_environment({})
    monkeypatch.setenv("AISEG2_HOST", "")
    monkeypatch.setenv("INFLUXDB_HOST", "")
    assert env_file("\n".join(f"{name}={value}" for name, value in NINE.items())).demo


@pytest.mark.parametrize("given", [{}, WITHOUT_HOSTS], ids=["nothing set", "no host set"])
def test_without_hosts_it_is_the_demo_with_its_own_data(given: dict[str, str], folder: Path) -> None:
    settings, real = Settings.from_environment(given), Settings.from_environment(NINE)
    assert settings.demo
    assert settings.influx is None
    assert settings.run_history is None
    assert settings.device_url == "http://127.0.0.1:8420"
    assert (settings.device_user, password(settings)) == (DEFAULT_USER, DEFAULT_PASSWORD)
    assert settings.data_dir == folder / "data" / "demo"
    for path in (
        "store_path",
        "energy_path",
        "climate_path",
        "device_state_dir",
        "dagster_home",
        "code_server_socket",
    ):
        assert getattr(settings, path).is_relative_to(settings.data_dir)
        assert not getattr(real, path).is_relative_to(settings.data_dir)


def test_a_simulated_home_has_a_tariff_unless_a_person_sets_one() -> None:
    in_docker = NINE | {"AISEG2_DEMO": "1", "AISEG2_PASSWORD": DEFAULT_PASSWORD}
    for given in ({}, {"AISEG2_DEMO": "1"}, in_docker):
        settings = Settings.from_environment(given)
        assert settings.simulated
        assert settings.tariff
        assert load_tariff(settings.tariff).plan
        assert Settings.from_environment(given | {"AISEG2_TARIFF": "mine.toml"}).tariff == Path("mine.toml")
    real = Settings.from_environment(NINE)
    assert (real.simulated, real.tariff) == (False, None)


def test_a_device_needs_no_influxdb() -> None:
    settings = Settings.from_environment({"AISEG2_HOST": "aiseg2.local", "AISEG2_PASSWORD": "x"})
    assert not settings.demo
    assert settings.influx is None


def test_https_with_a_ca_file_or_without_verification(folder: Path) -> None:
    (folder / "ca.pem").touch()
    https = NINE | {"AISEG2_USE_HTTPS": "1", "INFLUXDB_USE_HTTPS": "1"}
    with_file = Settings.from_environment(https | {"AISEG2_CA_FILE": "ca.pem", "INFLUXDB_CA_FILE": "ca.pem"})
    assert with_file.device_url == "https://192.168.0.216"
    assert with_file.device_verify == str(folder / "ca.pem")
    assert with_file.influx is not None
    assert (with_file.influx.url, with_file.influx.verify) == ("https://192.168.0.10:8086", str(folder / "ca.pem"))
    without = Settings.from_environment(https | {"AISEG2_TLS_VERIFY": "0", "INFLUXDB_TLS_VERIFY": "0"})
    assert without.influx is not None
    assert without.device_verify is without.influx.verify is False


@pytest.mark.parametrize("host", ["192.168.0.216:8080", "aiseg2.local", "[fe80::1]:80", "[::1]", "my_box"])
def test_names_and_addresses_with_and_without_a_port_are_hosts(host: str) -> None:
    assert Settings.from_environment(NINE | {"AISEG2_HOST": host}).device_url == f"http://{host}"


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("AISEG2_UI_NAMES", "nas.local power.example.org", "ui_names", ("nas.local", "power.example.org")),
        ("AISEG2_UI_NAMES", "nas.local, power.example.org", "ui_names", ("nas.local", "power.example.org")),
        ("AISEG2_UI_PATH", "/home/energy", "ui_path", "/home/energy"),
        ("AISEG2_SAMPLES_PER_MINUTE", "1", "samples_per_minute", 1),
        ("AISEG2_SAMPLES_PER_MINUTE", "12", "samples_per_minute", 12),
        ("AISEG2_DATA_DIR", "~/power", "data_dir", Path("/home/me/power")),
        (
            "AISEG2_POSTGRES_URL",
            "postgres://me:x%40@db/runs",
            "run_history",
            SecretStr("postgresql+psycopg2://me:x%40@db/runs"),
        ),
        # Only the demo has a simulator whose port could be the same.
        ("AISEG2_UI_PORT", "8420", "ui_port", 8420),
    ],
)
def test_a_value_is_converted(
    name: str, value: str, field: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert getattr(Settings.from_environment(NINE | {name: value}), field) == expected


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_message_with_the_setting_and_without_the_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(NINE | {"AISEG2_PASSWORD": SECRET, "INFLUXDB_TOKEN": SECRET} | {name: value})
    message = str(raised.value)
    assert re.fullmatch(rf"{name}\b[^\n]+[^.]\.", message)
    assert SECRET not in message
    # A traceback does not show pydantic's own error, which holds the value.
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None


def test_every_setting_that_can_be_wrong_has_a_wrong_value() -> None:
    assert WRONG.keys() == ALIASES


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (
            {"AISEG2_HOST": "http://x", "INFLUXDB_HOST": "i:8086", "AISEG2_UI_PORT": "x", "AISEG2_UI": "yes?"},
            [
                "AISEG2_HOST",
                "AISEG2_UI",
                "AISEG2_UI_PORT",
                "AISEG2_PASSWORD",
                "INFLUXDB_TOKEN",
                "INFLUXDB_ORG",
                "INFLUXDB_BUCKET",
            ],
        ),
        ({"AISEG2_UI_PORT": "8420", "AISEG2_START_DATE": "x"}, ["AISEG2_START_DATE", "AISEG2_SIMULATOR_PORT"]),
        (NINE | {"AISEG2_HOST": "", "AISEG2_USER": "利用者"}, ["AISEG2_USER", "INFLUXDB_HOST"]),
    ],
    ids=["values and missing ones", "the demo's ports are the same", "an InfluxDB needs a device"],
)
def test_settings_that_are_wrong_together_are_all_named(given: dict[str, str], wrong: list[str]) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(given)
    problems = raised.value.problems
    assert [problem.split()[0] for problem in problems] == wrong
    assert str(raised.value) == f"{problems[0]} `aiseg2-pipeline doctor` lists {len(wrong) - 1} more."


def test_a_misspelt_setting_is_found() -> None:
    given = NINE | {"AISEG2_PASWD": "x", "INFLUXDB_DATABASE": "y", "HOME": "/", "OTHER_AISEG2_HOST": "z"}
    assert unknown_settings(given) == ["AISEG2_PASWD", "INFLUXDB_DATABASE"]


# .env.example


def test_the_example_names_every_setting_and_no_other() -> None:
    names = re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    of_the_stack = {"COMPOSE_PROFILES", "GRAFANA_ADMIN_PASSWORD", "PIPELINE_MEMORY_LIMIT", "POSTGRES_PASSWORD"}
    assert sorted(names) == sorted(ALIASES | of_the_stack)


def test_the_example_loads_once_its_blanks_are_filled() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match="AISEG2_PASSWORD is not set"):
        env_file(text)
    settings = env_file(re.sub(r"^(AISEG2_PASSWORD|INFLUXDB_[A-Z]+)=$", r"\1=filled", text, flags=re.MULTILINE))
    assert settings.influx is not None
    assert settings.influx.bucket == "filled"


def test_the_example_states_the_defaults(folder: Path) -> None:
    uncommented = re.sub(r"^#(?=[A-Z_0-9]+=)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (folder / "all").write_text(uncommented, encoding="utf-8")
    set_in_example = dotenv_values(EXAMPLE).keys()
    values = dotenv_values(folder / "all").items()
    defaults = {name: value or "" for name, value in values if name not in set_in_example}
    assert defaults
    assert Settings.from_environment(defaults) == load_settings()
