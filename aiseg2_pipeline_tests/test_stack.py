"""The container image and the stack, as Compose reads docker-compose.yml and as hadolint reads the Dockerfile.

No engine is needed, and nothing is pulled or started. The services' own shell scripts are run directly. The behaviour of
running services is tested in `endurance/test_compose.py`.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline_tests.support.compose import COMPOSE_FILE, PROJECT, STACK_CHECKS, compose_program
from aiseg2_pipeline_tests.support.missing import missing

DOCKERFILE = PROJECT / "Dockerfile"
PROFILES = ("influxdb", "grafana", "postgres", "demo")
DEMO = ("demo", "simulator", "demo-influxdb", "demo-grafana")
IMAGE = re.compile(r"[a-z/]+:[0-9][a-z0-9.-]+@sha256:[0-9a-f]{64}")
NINE_LINES = {
    "AISEG2_HOST": "192.168.0.216",
    "AISEG2_USER": "aiseg",
    "AISEG2_PASSWORD": "'a $password #1'",
    "AISEG2_USE_HTTPS": "0",
    "INFLUXDB_HOST": "influxdb:8086",
    "INFLUXDB_TOKEN": "token-of-env==",
    "INFLUXDB_ORG": "org-of-env",
    "INFLUXDB_BUCKET": "bucket-of-env",
    "INFLUXDB_USE_HTTPS": "0",
}
FULL = NINE_LINES | {
    "POSTGRES_PASSWORD": "postgres-of-env",
    "GRAFANA_ADMIN_PASSWORD": "grafana-of-env",
    "AISEG2_DATA_DIR": "data-of-env",
    "AISEG2_UI_HOST": "192.168.0.9",
    "AISEG2_UI_PORT": "3005",
    "AISEG2_START_DATE": "2026-01-01",
}
INFLUXDB_SETTINGS = ("INFLUXDB_HOST", "INFLUXDB_TOKEN", "INFLUXDB_ORG", "INFLUXDB_BUCKET")
Service = dict[str, Any]


def run(command: list[str], environment: Mapping[str, str], folder: Path = PROJECT) -> tuple[int, str, str]:
    """Return a command's exit code, output and errors, with no other setting in its environment."""
    ended = subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    return ended.returncode, ended.stdout, ended.stderr


def run_script(service: Service) -> tuple[int, str, str]:
    """Run a service's script with `env` in place of its server."""
    interpreter, script = service["entrypoint"]
    return run([interpreter, str(PROJECT / script.removeprefix("/")), "env"], service["environment"])


def hadolint() -> str:
    path = STACK_CHECKS / "hadolint"
    program = str(path) if path.is_file() else shutil.which("hadolint")
    return program or missing("hadolint is not installed: run .ci/install-stack-checks")


def compose(folder: Path, env: Mapping[str, str] | None, profiles: Iterable[str], *arguments: str) -> str:
    """Return the output of `docker-compose config` with this .env (None: no such file) and no other setting."""
    shutil.copy(COMPOSE_FILE, folder)
    (folder / ".env").unlink(missing_ok=True)
    if env is not None:
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()), encoding="utf-8")
    try:
        program = compose_program()
    except FileNotFoundError as error:
        missing(str(error))
    chosen = [f"--profile={name}" for name in profiles]
    code, out, reported = run([program, *chosen, "config", *arguments], {"HOME": str(folder)}, folder)
    assert (code, reported) == (0, "")
    return out


def services(
    folder: Path, env: Mapping[str, str] | None = None, profiles: Iterable[str] = PROFILES
) -> dict[str, Service]:
    """Return the services as Compose resolves them, with each `$` as the container gets it."""
    config = json.loads(compose(folder, env, profiles, "--format", "json").replace("$$", "$"))
    resolved: dict[str, Service] = config["services"]
    return resolved


def test_the_file_is_valid_with_any_profiles(tmp_path: Path) -> None:
    for number in range(len(PROFILES) + 1):
        for profiles in itertools.combinations(PROFILES, number):
            assert compose(tmp_path, dict.fromkeys(FULL, ""), profiles, "--quiet") == ""


@pytest.mark.parametrize(
    ("profiles", "names"),
    [
        ((), {"pipeline"}),
        (("influxdb", "grafana"), {"pipeline", "influxdb", "grafana"}),
        (("postgres",), {"pipeline", "postgres"}),
        (("demo",), {"pipeline", *DEMO}),
    ],
)
def test_a_profile_adds_its_services_to_the_pipeline(tmp_path: Path, profiles: list[str], names: set[str]) -> None:
    assert set(services(tmp_path, {}, profiles)) == names


def test_every_service_has_no_privileges_restarts_and_rotates_its_log(tmp_path: Path) -> None:
    for name, service in services(tmp_path, FULL).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(service), name
        assert service["restart"] == "unless-stopped", name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        # Our own image sets its user itself.
        assert "build" in service or int(service["user"].partition(":")[0]) > 0, name
    assert re.findall(r"^USER (.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE) == ["10001:10001"]


def test_mounts_of_this_folder_exist_and_are_read_only(tmp_path: Path) -> None:
    mounts = [mount for service in services(tmp_path, FULL).values() for mount in service.get("volumes", ())]
    of_this_folder = [mount for mount in mounts if mount["type"] == "bind"]
    assert of_this_folder
    for mount in of_this_folder:
        assert mount["read_only"] is True
        assert (PROJECT / Path(mount["source"]).relative_to(tmp_path)).is_dir()


def test_ports_are_published_once_and_only_on_this_machine(tmp_path: Path) -> None:
    ports = [port for service in services(tmp_path, FULL).values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert sorted(port["published"] for port in ports) == ["3001", "3002", "3003", "3005", "3080", "3081", "8086"]


def test_every_image_is_pinned_by_version_and_digest(tmp_path: Path) -> None:
    images = [service["image"] for service in services(tmp_path).values() if "build" not in service]
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(images)) == 3
    assert len(set(bases)) == 1
    for image in images + bases:
        assert IMAGE.fullmatch(image), image


def test_no_secret_has_a_default(tmp_path: Path) -> None:
    for name, service in services(tmp_path, {}).items():
        if name not in DEMO:
            for setting, value in service["environment"].items():
                assert not (value and re.search("TOKEN|PASSWORD|POSTGRES_URL", setting)), (name, setting)


def test_the_demo_is_isolated_and_needs_no_login(tmp_path: Path) -> None:
    without, full = services(tmp_path, None), services(tmp_path, FULL)
    assert {name: full[name] for name in DEMO} == {name: without[name] for name in DEMO}
    networks = {name: set(service["networks"]) for name, service in full.items()}
    assert networks["simulator"] == networks["demo-influxdb"] == {"demo"}
    volumes: dict[bool, set[str]] = {True: set(), False: set()}
    for name, service in full.items():
        assert name in DEMO or networks[name] == {"default"}, name
        mounts = service.get("volumes", ())
        volumes[name in DEMO] |= {mount["source"] for mount in mounts if mount["type"] == "volume"}
    assert volumes[True].isdisjoint(volumes[False])
    grafana = full["demo-grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert "GF_AUTH_ANONYMOUS_ORG_ROLE" not in grafana
    assert grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_settings_reach_the_pipeline_unchanged_but_for_its_folder_and_the_address_of_its_pages(
    tmp_path: Path,
) -> None:
    pipeline = services(tmp_path, FULL)["pipeline"]
    settings = Settings.from_environment(pipeline["environment"])
    assert settings.aiseg2_host == "192.168.0.216"
    assert settings.device_password.get_secret_value() == "a $password #1"
    assert settings.influx
    assert settings.influx.token.get_secret_value() == "token-of-env=="
    assert (str(settings.data_dir), settings.ui_host, settings.ui_port) == ("/data", "0.0.0.0", 3000)  # noqa: S104 - inside
    assert [(port["published"], port["target"]) for port in pipeline["ports"]] == [
        ("3005", 3000),
        ("3080", 3080),
    ]


@pytest.mark.parametrize(("env", "limit_mb"), [({}, 640), ({"PIPELINE_MEMORY_LIMIT": "1g"}, 1024)])
def test_the_pipeline_has_a_memory_limit_without_swap_that_env_can_change(
    tmp_path: Path, env: dict[str, str], limit_mb: int
) -> None:
    found = services(tmp_path, NINE_LINES | env)
    for name, expected_mb in (("pipeline", limit_mb), ("demo", 640)):
        limits = int(found[name]["mem_limit"]), int(found[name]["memswap_limit"])
        assert limits == (expected_mb << 20, expected_mb << 20), name


@pytest.mark.parametrize(
    ("env", "address"),
    [
        ({}, ""),
        ({"POSTGRES_PASSWORD": "secret"}, "postgresql://aiseg2:secret@postgres:5432/aiseg2"),
        (
            {"POSTGRES_PASSWORD": "secret", "AISEG2_POSTGRES_URL": "postgresql://a:b@nas/db"},
            "postgresql://a:b@nas/db",
        ),
    ],
)
def test_the_run_history_is_in_the_stacks_postgres_unless_another_one_is_set(
    tmp_path: Path, env: dict[str, str], address: str
) -> None:
    pipeline = services(tmp_path, NINE_LINES | env)["pipeline"]
    assert pipeline["environment"]["AISEG2_POSTGRES_URL"] == address
    assert pipeline["depends_on"]["postgres"]["required"] is False


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        *(("influxdb", setting, "") for setting in INFLUXDB_SETTINGS),
        *(("grafana", setting, "") for setting in (*INFLUXDB_SETTINGS, "GRAFANA_ADMIN_PASSWORD")),
        # The pipeline would write to another InfluxDB.
        ("influxdb", "INFLUXDB_HOST", "192.168.0.10:8086"),
    ],
)
def test_a_service_with_a_missing_or_unsuitable_setting_does_not_start_and_names_it(
    tmp_path: Path, name: str, setting: str, value: str
) -> None:
    code, out, error = run_script(services(tmp_path, FULL | {setting: value})[name])
    assert (code, out) == (1, "")
    assert error.startswith(f"{setting} is not ")
    assert error.count("\n") == 1
    assert "-of-env" not in error


def passed_on(service: Service) -> dict[str, str]:
    """Return the environment that a service's script passes to its server."""
    code, out, error = run_script(service)
    assert (code, error) == (0, "")
    return dict(line.split("=", 1) for line in out.splitlines())


def test_the_first_start_of_influxdb_creates_a_bucket_without_expiry_and_a_random_password(tmp_path: Path) -> None:
    service = services(tmp_path, FULL)["influxdb"]
    first, second = passed_on(service), passed_on(service)
    assert "DOCKER_INFLUXDB_INIT_RETENTION" not in first
    # InfluxDB needs 8 characters.
    assert len(first["DOCKER_INFLUXDB_INIT_PASSWORD"]) >= 32
    assert first["DOCKER_INFLUXDB_INIT_PASSWORD"] != second["DOCKER_INFLUXDB_INIT_PASSWORD"]


@pytest.mark.parametrize(
    ("use_https", "scheme"), [("", "http"), ("false", "http"), ("1", "https"), ("true", "https")]
)
def test_grafana_gets_every_variable_of_its_provisioning(tmp_path: Path, use_https: str, scheme: str) -> None:
    resolved = services(tmp_path, FULL | {"INFLUXDB_USE_HTTPS": use_https})
    environment = passed_on(resolved["grafana"])
    assert environment["INFLUXDB_URL"] == f"{scheme}://influxdb:8086"
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == "grafana-of-env"
    (source,) = (PROJECT / "grafana" / "provisioning" / "datasources").glob("*.yaml")
    for name in re.findall(r"\$(\w+)", source.read_text(encoding="utf-8")):
        assert environment[name]
        assert resolved["demo-grafana"]["environment"][name]


def test_hadolint_reports_nothing() -> None:
    assert run([hadolint(), str(DOCKERFILE)], {}) == (0, "", "")


def test_the_build_context_has_only_the_files_that_the_dockerfile_copies() -> None:
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    first, *rest = (PROJECT / ".dockerignore").read_text(encoding="utf-8").split()
    assert first == "*"
    assert {name.removeprefix("!") for name in rest if name.startswith("!")} == copied
    for name in copied:
        assert (PROJECT / name).exists(), name


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock; several where Python versions differ. Pip requires their hashes."""
    pinned: dict[str, set[str]] = {}
    text = (PROJECT / name).read_text(encoding="utf-8")
    for package, version in re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE):
        pinned.setdefault(package, set()).add(version)
    return pinned


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ("alerts", "postgres", "report")), ("requirements-core.lock", ())]
)
def test_a_lock_satisfies_pyproject_else_run_ci_lock(lock: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"]
    requirements = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    requirements += [line for name in extras for line in optional[name]]
    pinned = locked(lock)
    for line in requirements:
        requirement = Requirement(line)
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, line
        assert all(map(requirement.specifier.contains, versions)), line


def test_a_clone_with_all_extras_and_the_image_have_the_same_versions() -> None:
    image, clone = locked("requirements.lock"), locked("requirements-core.lock")
    optional = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    of_extras: dict[str, set[str]] = {}
    for extra in optional.keys() - {"dev"}:
        added = locked(f"requirements-{extra}.lock")
        assert {canonicalize_name(Requirement(line).name) for line in optional[extra]} <= added.keys()
        of_extras |= added
    assert not clone.keys() & of_extras.keys()
    assert clone | of_extras == image
