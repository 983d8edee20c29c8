"""The container image and the stack: as the real Compose reads docker-compose.yml, and as hadolint reads the Dockerfile.

No engine is needed, and nothing is pulled or started. What the services say themselves (a missing setting) is tried
with their own shell scripts. What they do once they run is in `endurance/test_compose.py`.
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
Service = dict[str, Any]


def hadolint() -> str:
    path = STACK_CHECKS / "hadolint"
    found = str(path) if path.is_file() else shutil.which("hadolint")
    return found or missing("hadolint is not installed: run .ci/install-stack-checks")


def compose(folder: Path, env: Mapping[str, str] | None, profiles: Iterable[str], *arguments: str) -> str:
    """Return what Compose says of our file with this .env (None: there is none) and nothing else of ours set."""
    shutil.copy(COMPOSE_FILE, folder)
    (folder / ".env").unlink(missing_ok=True)
    if env is not None:
        (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in env.items()), encoding="utf-8")
    try:
        program = compose_program()
    except FileNotFoundError as error:
        missing(str(error))
    chosen = [f"--profile={name}" for name in profiles]
    ended = subprocess.run(  # noqa: S603 - the real Compose
        [program, *chosen, "config", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def services(
    folder: Path, env: Mapping[str, str] | None = None, profiles: Iterable[str] = PROFILES
) -> dict[str, Service]:
    """Return the services as Compose understands them; a `$` as it arrives in the container."""
    told = json.loads(compose(folder, env, profiles, "--format", "json").replace("$$", "$"))
    found: dict[str, Service] = told["services"]
    return found


def test_a_compose_that_is_too_old_is_named_with_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker-compose"
    program.write_text("#!/bin/sh\necho 1.29.2\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(FileNotFoundError, match=r"Compose 2\.24 or newer .* is 1\.29\.2\): run \.ci/"):
        compose_program(tmp_path / "not-installed")


@pytest.mark.parametrize("env", [dict.fromkeys(FULL, ""), FULL])
def test_compose_takes_the_file_with_any_profiles(tmp_path: Path, env: Mapping[str, str]) -> None:
    for number in range(len(PROFILES) + 1):
        for profiles in itertools.combinations(PROFILES, number):
            assert compose(tmp_path, env, profiles, "--quiet") == ""


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


def test_every_service_is_locked_in_and_looked_after(tmp_path: Path) -> None:
    for name, service in services(tmp_path, FULL).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & set(service), name
        assert service["restart"] == "unless-stopped", name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        assert service["healthcheck"]["test"][0] == "CMD", name
        # Our own image names its user itself.
        assert "build" in service or int(service["user"].partition(":")[0]) > 0, name
    assert re.findall(r"^USER (.*)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE) == ["10001:10001"]


def test_what_is_mounted_from_this_folder_cannot_be_written_and_is_there(tmp_path: Path) -> None:
    mounts = [
        mount
        for service in services(tmp_path, FULL).values()
        for mount in service.get("volumes", ())
        if mount["type"] == "bind"
    ]
    assert mounts
    for mount in mounts:
        assert mount["read_only"] is True
        assert (PROJECT / Path(mount["source"]).relative_to(tmp_path)).is_dir()


def test_nothing_is_published_but_on_this_machine_and_each_port_once(tmp_path: Path) -> None:
    found = [port for service in services(tmp_path, FULL).values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in found} == {"127.0.0.1"}
    assert sorted(port["published"] for port in found) == ["3001", "3002", "3003", "3005", "8086"]


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


def test_the_demo_takes_nothing_from_env(tmp_path: Path) -> None:
    without, full = services(tmp_path, None), services(tmp_path, FULL)
    for name in DEMO:
        assert full[name] == without[name]


def test_the_demo_keeps_to_itself(tmp_path: Path) -> None:
    found = services(tmp_path, FULL)
    networks = {name: set(service["networks"]) for name, service in found.items()}
    assert networks["simulator"] == networks["demo-influxdb"] == {"demo"}
    volumes: dict[bool, set[str]] = {True: set(), False: set()}
    for name, service in found.items():
        assert name in DEMO or networks[name] == {"default"}, name
        kept = {mount["source"] for mount in service.get("volumes", ()) if mount["type"] == "volume"}
        volumes[name in DEMO] |= kept
    assert volumes[True].isdisjoint(volumes[False])


def test_the_demos_grafana_lets_everyone_look_and_nobody_in(tmp_path: Path) -> None:
    environment = services(tmp_path)["demo-grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert "GF_AUTH_ANONYMOUS_ORG_ROLE" not in environment
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"


def test_the_nine_lines_reach_the_pipeline_as_they_are(tmp_path: Path) -> None:
    environment = services(tmp_path, NINE_LINES)["pipeline"]["environment"]
    settings = Settings.from_environment(environment)
    assert settings.aiseg2_host == "192.168.0.216"
    assert settings.device_password.get_secret_value() == "a $password #1"
    assert settings.influx
    assert settings.influx.token.get_secret_value() == "token-of-env=="
    assert settings.postgres_url is None


def test_folder_and_address_of_the_pages_are_the_containers_own(tmp_path: Path) -> None:
    pipeline = services(tmp_path, FULL)["pipeline"]
    settings = Settings.from_environment(pipeline["environment"])
    assert (str(settings.data_dir), settings.ui_host, settings.ui_port) == ("/data", "0.0.0.0", 3000)  # noqa: S104 - inside
    assert [(port["published"], port["target"]) for port in pipeline["ports"]] == [("3005", 3000)]


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (
            {"POSTGRES_PASSWORD": "secret", "AISEG2_POSTGRES_URL": "postgresql://me:pw@nas/db"},
            "postgresql://me:pw@nas/db",
        ),
        ({}, ""),
    ],
)
def test_the_run_history_goes_to_the_stacks_postgres_unless_another_one_is_named(
    tmp_path: Path, given: dict[str, str], address: str
) -> None:
    found = services(tmp_path, NINE_LINES | given)
    assert found["pipeline"]["environment"]["AISEG2_POSTGRES_URL"] == address
    assert found["pipeline"]["depends_on"]["postgres"]["required"] is False


def ran(command: list[str], environment: Mapping[str, str], path: str = "") -> tuple[int, str, str]:
    ended = subprocess.run(  # noqa: S603 - our own commands
        command,
        env={"PATH": path or os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stdout, ended.stderr


def started(service: Service, env: Mapping[str, str], what: list[str]) -> tuple[int, str, str]:
    """Run a service's own script of this project with another command than its server."""
    interpreter, script = service["entrypoint"]
    return ran([interpreter, str(PROJECT / script.removeprefix("/")), *what], env)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        *(
            ("influxdb", setting)
            for setting in ("INFLUXDB_HOST", "INFLUXDB_TOKEN", "INFLUXDB_ORG", "INFLUXDB_BUCKET")
        ),
        *(
            ("grafana", setting)
            for setting in (
                "INFLUXDB_HOST",
                "INFLUXDB_TOKEN",
                "INFLUXDB_ORG",
                "INFLUXDB_BUCKET",
                "GRAFANA_ADMIN_PASSWORD",
            )
        ),
    ],
)
def test_a_service_that_lacks_a_setting_does_not_start_and_names_it(
    tmp_path: Path, name: str, missing: str
) -> None:
    service = services(tmp_path, FULL | {missing: ""})[name]
    code, out, error = started(service, service["environment"], ["env"])
    assert (code, out) == (1, "")
    assert error.startswith(f"{missing} is not ")
    assert error.count("\n") == 1
    assert "-of-env" not in error


def test_the_stacks_influxdb_refuses_where_the_pipeline_would_write_elsewhere(tmp_path: Path) -> None:
    service = services(tmp_path, FULL | {"INFLUXDB_HOST": "192.168.0.10:8086"})["influxdb"]
    code, _, error = started(service, service["environment"], ["env"])
    assert code == 1
    assert error.startswith("INFLUXDB_HOST is not influxdb:8086, ")


def given_on(service: Service) -> dict[str, str]:
    code, out, error = started(service, service["environment"], ["env"])
    assert (code, error) == (0, "")
    return dict(line.split("=", 1) for line in out.splitlines())


def test_the_first_start_of_influxdb_makes_a_bucket_without_expiry_and_an_unknown_password(tmp_path: Path) -> None:
    service = services(tmp_path, FULL)["influxdb"]
    one, other = given_on(service), given_on(service)
    assert "DOCKER_INFLUXDB_INIT_RETENTION" not in one
    # Long enough for InfluxDB (8), and another one at every start.
    assert len(one["DOCKER_INFLUXDB_INIT_PASSWORD"]) >= 32
    assert one["DOCKER_INFLUXDB_INIT_PASSWORD"] != other["DOCKER_INFLUXDB_INIT_PASSWORD"]


@pytest.mark.parametrize(
    ("given", "scheme"), [("", "http"), ("0", "http"), ("false", "http"), ("1", "https"), ("true", "https")]
)
def test_grafana_is_given_what_its_provisioning_asks_for(tmp_path: Path, given: str, scheme: str) -> None:
    environment = given_on(services(tmp_path, FULL | {"INFLUXDB_USE_HTTPS": given})["grafana"])
    assert environment["INFLUXDB_URL"] == f"{scheme}://influxdb:8086"
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == "grafana-of-env"
    (source,) = (PROJECT / "grafana" / "provisioning" / "datasources").glob("*.yaml")
    asked = set(re.findall(r"\$(\w+)", source.read_text(encoding="utf-8")))
    demo = services(tmp_path)["demo-grafana"]["environment"]
    for name in asked:
        assert environment[name]
        assert demo[name]


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    assert ran([hadolint(), str(DOCKERFILE)], {}) == (0, "", "")


def test_what_the_dockerfile_copies_is_all_that_the_image_is_built_from() -> None:
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    first, *rest = (PROJECT / ".dockerignore").read_text(encoding="utf-8").split()
    assert first == "*"
    assert {name.removeprefix("!") for name in rest if name.startswith("!")} == copied
    for name in copied:
        assert (PROJECT / name).exists(), name


def locked(name: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock: several where Pythons differ, and each with a hash."""
    pinned: dict[str, set[str]] = {}
    text = (PROJECT / name).read_text(encoding="utf-8")
    for package, version, hashes in re.findall(
        r"^([a-z0-9-]+)==(\S+)(?: ;.*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    ):
        assert hashes
        pinned.setdefault(package, set()).add(version)
    assert sum(map(len, pinned.values())) == len(re.findall(r"^[^ #\n]", text, re.MULTILINE))
    return pinned


@pytest.mark.parametrize(
    ("lock", "extras"), [("requirements.lock", ("alerts", "postgres", "report")), ("requirements-core.lock", ())]
)
def test_a_lock_holds_all_that_the_pyproject_asks_for_else_run_ci_lock(lock: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"]
    asked = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    asked += [line for name in extras for line in optional[name]]
    pinned = locked(lock)
    for line in asked:
        requirement = Requirement(line)
        versions = pinned.get(canonicalize_name(requirement.name))
        assert versions, line
        assert all(map(requirement.specifier.contains, versions)), line


def test_a_clone_runs_what_the_image_runs() -> None:
    image, clone = locked("requirements.lock"), locked("requirements-core.lock")
    assert clone == {name: image[name] for name in clone}
    assert not {"apprise", "matplotlib", "psycopg2-binary"} & set(clone)
