"""The settings: today's `.env` unchanged, and one sentence about whatever is wrong in one."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from dotenv import dotenv_values

from aiseg2_pipeline.settings import Settings, SettingsError, load_settings, unknown_settings
from aiseg2_pipeline.simulator import DEFAULT_PASSWORD, DEFAULT_USER

SECRET = "s3cret/with spaces"
ALIASES = {str(field.alias) for field in Settings.model_fields.values()}
EXAMPLE = Path(__file__).parents[1] / ".env.example"
TODAY = {
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

WRONG = [
    ("AISEG2_HOST", "http://192.168.0.216"),
    ("AISEG2_HOST", "192.168.0.216/page"),
    ("AISEG2_HOST", "192.168.0.216:99999"),
    ("AISEG2_HOST", "192.168.0.216:0"),
    ("AISEG2_USER", 'ai"seg'),
    ("AISEG2_USER", "利用者"),
    ("AISEG2_PASSWORD", ""),
    ("AISEG2_PASSWORD", "  "),
    ("AISEG2_USE_HTTPS", SECRET),
    ("AISEG2_CA_FILE", SECRET),
    ("AISEG2_CA_FILE", "."),
    ("AISEG2_TLS_VERIFY", SECRET),
    ("INFLUXDB_HOST", "https://192.168.0.10:8086"),
    ("INFLUXDB_HOST", "192.168.0.10:8086/"),
    ("INFLUXDB_TOKEN", ""),
    ("INFLUXDB_ORG", ""),
    ("INFLUXDB_BUCKET", " "),
    ("INFLUXDB_USE_HTTPS", "https"),
    ("INFLUXDB_CA_FILE", SECRET),
    ("INFLUXDB_TLS_VERIFY", SECRET),
    ("AISEG2_DATA_DIR", f"~{SECRET}"),
    ("AISEG2_START_DATE", "2024-13-01"),
    ("AISEG2_START_DATE", SECRET),
    *(("AISEG2_START_DATE", wrong) for wrong in ("0001-01-01", "2004-01-01", "20240101")),
    ("AISEG2_SAMPLES_PER_MINUTE", "0"),
    ("AISEG2_SAMPLES_PER_MINUTE", "13"),
    ("AISEG2_SAMPLES_PER_MINUTE", "1.5"),
    ("AISEG2_SAMPLES_PER_MINUTE", SECRET),
    ("AISEG2_WARM_RUNS", SECRET),
    ("AISEG2_KEEP_RUNS_DAYS", "0"),
    ("AISEG2_ALERT_URLS", SECRET),
    *(("AISEG2_ALERT_AFTER_MINUTES", minutes) for minutes in ("1", "1441", "ten")),
    ("AISEG2_KEEP_RUNS_DAYS", SECRET),
    ("AISEG2_POSTGRES_URL", f"mysql://dagster:{SECRET}@127.0.0.1/dagster"),
    ("AISEG2_POSTGRES_URL", f"postgresql://dagster:{SECRET}@127.0.0.1"),
    ("AISEG2_POSTGRES_URL", f"postgresql://dagster:p@{SECRET}@127.0.0.1/dagster"),
    ("AISEG2_POSTGRES_URL", f"postgresql://dagster:{SECRET}@127.0.0.1:54x/dagster"),
    ("AISEG2_UI", SECRET),
    ("AISEG2_UI_HOST", "http://127.0.0.1"),
    ("AISEG2_UI_HOST", SECRET),
    ("AISEG2_UI_NAMES", "https://power.example.org"),
    ("AISEG2_UI_NAMES", "nas.local power.example.org:443"),
    ("AISEG2_UI_NAMES", SECRET),
    ("AISEG2_UI_PORT", "0"),
    ("AISEG2_UI_PORT", SECRET),
    ("AISEG2_SIMULATOR_PORT", "65536"),
    ("AISEG2_SIMULATOR_PORT", SECRET),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and nothing set."""
    for name in ALIASES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def env_file(text: str) -> Settings:
    Path(".env").write_text(text, encoding="utf-8")
    return load_settings()


def password(settings: Settings) -> str:
    return settings.device_password.get_secret_value()


def test_todays_nine_lines_work_unchanged(here: Path) -> None:
    settings = env_file("\n".join(f"{name}={value}" for name, value in TODAY.items()))
    assert not settings.demo
    assert settings.device_url == "http://192.168.0.216"
    assert (settings.device_user, password(settings)) == ("aiseg", "correct horse")
    influx = settings.influx
    assert influx is not None
    assert (influx.url, influx.org, influx.bucket) == ("http://192.168.0.10:8086", "home", "aiseg2")
    assert influx.token.get_secret_value() == "t0ken=="
    assert influx.verify is settings.device_verify is True
    assert settings.data_dir == here / "data"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("AISEG2_PASSWORD=plain", "plain"),
        ("AISEG2_PASSWORD='single $HOME #1'", "single $HOME #1"),
        ('AISEG2_PASSWORD="double $HOME #1"', "double $HOME #1"),
        ("AISEG2_PASSWORD=a#b", "a#b"),
        ("AISEG2_PASSWORD=pa$word${HOME}", "pa$word${HOME}"),
        ("AISEG2_PASSWORD=a=b", "a=b"),
        ("AISEG2_PASSWORD = spaces around  ", "spaces around"),
        ("AISEG2_PASSWORD=word # a remark", "word"),
        ("AISEG2_PASSWORD='  of quotes '", "  of quotes "),
        ("export AISEG2_PASSWORD=shell\r", "shell"),
        ("AISEG2_PASSWORD=暗証番号", "暗証番号"),
    ],
)
def test_a_password_is_read_as_it_was_meant(line: str, meant: str) -> None:
    assert password(env_file(f"AISEG2_HOST=192.168.0.216\n{line}\n")) == meant


def test_spaces_around_a_value_of_the_environment_are_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISEG2_HOST", " 10.0.0.1 ")
    monkeypatch.setenv("AISEG2_PASSWORD", "x")
    assert load_settings().device_url == "http://10.0.0.1"


def test_a_mark_that_an_editor_put_before_the_first_name_is_nothing() -> None:
    assert env_file("\ufeffAISEG2_HOST=192.168.0.216\nAISEG2_PASSWORD=x").device_url == "http://192.168.0.216"


def test_a_file_that_is_no_text_is_one_sentence(here: Path) -> None:
    (here / ".env").write_bytes("AISEG2_PASSWORD=geheim".encode("utf-16"))
    with pytest.raises(SettingsError, match=r"\.env is not UTF-8 text: save it as UTF-8\.$") as raised:
        load_settings()
    assert "geheim" not in str(raised.value)


def test_the_environment_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISEG2_HOST", "10.0.0.1")
    monkeypatch.setenv("AISEG2_UI_PORT", "4000")
    settings = env_file("AISEG2_HOST=10.0.0.2\nAISEG2_PASSWORD=of the file\nAISEG2_UI_PORT=5000\n")
    assert settings.device_url == "http://10.0.0.1"
    assert settings.ui_port == 4000
    assert password(settings) == "of the file"


def test_an_empty_value_of_the_environment_unsets_what_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISEG2_HOST", "")
    monkeypatch.setenv("INFLUXDB_HOST", "")
    assert env_file("\n".join(f"{name}={value}" for name, value in TODAY.items())).demo


def test_empty_values_are_as_good_as_none() -> None:
    assert Settings.from_environment(dict.fromkeys(ALIASES, " ")) == Settings.from_environment({})


def test_without_hosts_it_is_the_demo_with_data_of_its_own(here: Path) -> None:
    settings = load_settings()
    real = Settings.from_environment(TODAY)
    assert settings.demo
    assert settings.influx is None
    assert settings.device_url == "http://127.0.0.1:8420"
    assert (settings.device_user, password(settings)) == (DEFAULT_USER, DEFAULT_PASSWORD)
    assert settings.data_dir == here / "data" / "demo"
    for demos, reals in (
        (settings.store_path, real.store_path),
        (settings.device_state_dir, real.device_state_dir),
        (settings.dagster_home, real.dagster_home),
    ):
        assert demos.is_relative_to(settings.data_dir)
        assert not reals.is_relative_to(settings.data_dir)


def test_what_is_set_beside_the_hosts_does_not_reach_the_demo() -> None:
    settings = Settings.from_environment(
        TODAY
        | {
            "AISEG2_HOST": "",
            "INFLUXDB_HOST": "",
            "AISEG2_USER": "other",
            "AISEG2_USE_HTTPS": "1",
            "INFLUXDB_USE_HTTPS": "1",
        }
    )
    assert settings.influx is None
    assert settings.device_url == "http://127.0.0.1:8420"
    assert (settings.device_user, password(settings)) == (DEFAULT_USER, DEFAULT_PASSWORD)


def test_a_device_alone_writes_nowhere() -> None:
    settings = Settings.from_environment({"AISEG2_HOST": "aiseg2.local", "AISEG2_PASSWORD": "x"})
    assert not settings.demo
    assert settings.influx is None


def test_an_influxdb_without_a_device_is_refused_and_named() -> None:
    with pytest.raises(SettingsError, match="INFLUXDB_HOST is set but AISEG2_HOST is not"):
        Settings.from_environment(TODAY | {"AISEG2_HOST": ""})


def test_https_with_a_certificate_of_ones_own(here: Path) -> None:
    (here / "ca.pem").touch()
    https = TODAY | {"AISEG2_USE_HTTPS": "1", "INFLUXDB_USE_HTTPS": "1"}
    with_file = Settings.from_environment(https | {"AISEG2_CA_FILE": "ca.pem", "INFLUXDB_CA_FILE": "ca.pem"})
    assert with_file.device_url == "https://192.168.0.216"
    assert with_file.device_verify == str(here / "ca.pem")
    assert with_file.influx is not None
    assert (with_file.influx.url, with_file.influx.verify) == ("https://192.168.0.10:8086", str(here / "ca.pem"))
    without = Settings.from_environment(https | {"AISEG2_TLS_VERIFY": "0", "INFLUXDB_TLS_VERIFY": "0"})
    assert without.influx is not None
    assert without.device_verify is without.influx.verify is False


@pytest.mark.parametrize("host", ["192.168.0.216:8080", "aiseg2.local", "[fe80::1]:80", "[::1]", "my_box"])
def test_names_and_addresses_with_and_without_a_port_are_hosts(host: str) -> None:
    assert Settings.from_environment(TODAY | {"AISEG2_HOST": host}).device_url == f"http://{host}"


@pytest.mark.parametrize("given", ["nas.local power.example.org", "nas.local, power.example.org"])
def test_the_pages_can_have_several_names(given: str) -> None:
    assert Settings.from_environment({"AISEG2_UI_NAMES": given}).ui_names == ("nas.local", "power.example.org")


@pytest.mark.parametrize("samples", [1, 12])
def test_one_to_twelve_readings_a_minute_can_be_had(samples: int) -> None:
    settings = Settings.from_environment({"AISEG2_SAMPLES_PER_MINUTE": str(samples)})
    assert settings.samples_per_minute == samples


def test_a_home_folder_can_be_abbreviated(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setenv("HOME", str(here / "me"))
    settings = Settings.from_environment(TODAY | {"AISEG2_DATA_DIR": "~/power"})
    assert settings.data_dir == here / "me" / "power"


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_one_sentence_that_names_the_setting_and_tells_no_value(name: str, value: str) -> None:
    given = TODAY | {"AISEG2_PASSWORD": SECRET, "INFLUXDB_TOKEN": SECRET} | {name: value}
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(given)
    sentence = str(raised.value)
    assert re.fullmatch(rf"{name}\b[^\n]+[^.]\.", sentence)
    assert SECRET not in sentence
    # Pydantic's own error, which holds the value, is not told beneath it.
    assert raised.value.__suppress_context__
    assert raised.value.__cause__ is None


def test_every_setting_that_can_be_wrong_is_among_the_wrong_ones() -> None:
    assert {name for name, _ in WRONG} == ALIASES


def test_several_wrong_values_are_told_one_at_a_time() -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(TODAY | {"AISEG2_UI_PORT": "x", "AISEG2_HOST": "http://x"})
    assert str(raised.value).startswith("AISEG2_HOST must ")
    assert "AISEG2_UI_PORT" not in str(raised.value)


def test_one_port_for_the_pages_and_the_simulator_is_refused() -> None:
    same = {"AISEG2_UI_PORT": "8420"}
    with pytest.raises(SettingsError, match="AISEG2_SIMULATOR_PORT and AISEG2_UI_PORT are the same"):
        Settings.from_environment(same)
    assert Settings.from_environment(TODAY | same).ui_port == 8420


def test_no_text_of_the_settings_holds_a_secret() -> None:
    in_an_address = quote(SECRET)
    postgres_url = f"postgresql://dagster:{in_an_address}@127.0.0.1/dagster"
    secrets = {"AISEG2_PASSWORD": SECRET, "INFLUXDB_TOKEN": SECRET, "AISEG2_POSTGRES_URL": postgres_url}
    settings = Settings.from_environment(TODAY | secrets)
    assert in_an_address not in f"{settings!r} {settings.model_dump_json()}"
    for one in (settings, settings.influx, settings.device_password):
        assert SECRET not in f"{one!r} {one!s}"
    assert SECRET not in settings.model_dump_json()
    assert password(settings) == SECRET


def test_a_misspelt_setting_is_found() -> None:
    given = TODAY | {"AISEG2_PASWD": "x", "INFLUXDB_DATABASE": "y", "HOME": "/", "OTHER_AISEG2_HOST": "z"}
    assert unknown_settings(given) == ["AISEG2_PASWD", "INFLUXDB_DATABASE"]


def test_the_example_names_every_setting_and_no_other() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    named = [found[1] for line in lines if (found := re.match(r"#? ?([A-Z][A-Z0-9_]+)=", line))]
    of_the_stack = {"COMPOSE_PROFILES", "GRAFANA_ADMIN_PASSWORD", "POSTGRES_PASSWORD"}
    assert sorted(named) == sorted(ALIASES | of_the_stack)


def test_the_example_loads_once_its_blanks_are_filled() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match="AISEG2_PASSWORD is not set"):
        env_file(text)
    for name in ("AISEG2_PASSWORD", "INFLUXDB_TOKEN", "INFLUXDB_ORG", "INFLUXDB_BUCKET"):
        text = re.sub(rf"^{name}=$", f"{name}=filled", text, flags=re.MULTILINE)
    settings = env_file(text)
    assert settings.influx is not None
    assert settings.influx.bucket == "filled"


def test_what_the_example_says_of_defaults_is_so(here: Path) -> None:
    uncommented = re.sub(r"^#(?=[A-Z_0-9]+=)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (here / "all").write_text(uncommented, encoding="utf-8")
    commented = dotenv_values(here / "all").keys() - dotenv_values(EXAMPLE).keys()
    assert commented
    defaults = {name: value for name, value in dotenv_values(here / "all").items() if name in commented}
    assert Settings.from_environment({name: value or "" for name, value in defaults.items()}) == load_settings()
