"""A Docker engine of the tests' own, with an image under each name of docker-compose.yml.

No image is pulled. Debian's debootstrap makes the base; ours is built on it by the project's Dockerfile, with its `FROM`
lines replaced. `images/` has the stand-ins for InfluxDB (the server that .ci/install-servers built) and PostgreSQL
(Debian's package), which set themselves up from the same variables as the official images. Grafana's image cannot be
made, so that its services are not run.

The engine keeps images and build steps in the user's cache folder: a second start takes seconds. It leaves the
machine's network alone (no packet filter, no forwarding), so that a container reaches those of its network only. What
the services are expected to do belongs in `endurance/test_compose.py`.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from aiseg2_pipeline_tests.support.compose import COMPOSE_FILE, PROJECT, compose_program
from aiseg2_pipeline_tests.support.influxdb import influxd_path

SUITE = "trixie"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates", "curl")
BASE = "aiseg2-test-base"
PIPELINE = "aiseg2-test-pipeline"
# Generous, because only a failing test waits that long.
START_S = 180
STOP_S = 180
BUILD_S = 900
_IMAGES = Path(__file__).parent / "images"
_CA_FILE = Path("/etc/ssl/certs/ca-certificates.crt")
# One engine on a machine; a short path, because it holds sockets.
_RUN = Path("/run/aiseg2-pipeline-tests-docker")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_INSTALL = "run .ci/install-servers"


class EngineMissingError(Exception):
    """No engine can run here; the message says why, and what to do."""


class DockerEngine:
    """dockerd on a socket of its own; a context manager that starts it, empties it, and stops it."""

    def __init__(self) -> None:
        """Raise EngineMissingError where this machine lacks something that it needs."""
        if os.geteuid() != 0:
            raise EngineMissingError(f"A Docker engine needs root: {_INSTALL}, and run the tests as root.")
        for name in ("dockerd", "docker", "debootstrap", "setpriv"):
            if shutil.which(name, path=_PATH) is None:
                raise EngineMissingError(f"{name} is not installed: {_INSTALL}")
        try:
            influxd_path()
            self._compose = compose_program()
        except FileNotFoundError as error:
            raise EngineMissingError(str(error)) from None
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.folder = caches / "aiseg2-pipeline" / "docker"
        self._exit = ExitStack()
        self._environment = {
            "PATH": _PATH,
            "DOCKER_HOST": f"unix://{_RUN}/docker.sock",
            # The builder that comes with every engine and client.
            "DOCKER_BUILDKIT": "0",
        }

    def __enter__(self) -> Self:
        """Start the engine and remove the containers of a run that was killed."""
        with ExitStack() as stack:
            stack.enter_context(FileLock(f"{_RUN}.lock", timeout=BUILD_S))
            _RUN.mkdir(mode=0o700, exist_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            # Of its own, because a person's settings may name another builder or a registry.
            self._environment["HOME"] = stack.enter_context(tempfile.TemporaryDirectory())
            self._start(stack)
            self._remove_containers()
            stack.callback(self._remove_containers)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove containers, networks and volumes, and stop the engine; the images stay."""
        self._exit.close()

    def _start(self, stack: ExitStack) -> None:
        log = self.folder / "dockerd.log"
        with log.open("wb") as output:
            options = [f"--host={self._environment['DOCKER_HOST']}", f"--data-root={self.folder / 'root'}"]
            options += [f"--exec-root={_RUN / 'exec'}", f"--pidfile={_RUN / 'pid'}"]
            options += ["--iptables=false", "--ip6tables=false", "--ip-forward=false"]
            process = subprocess.Popen(  # noqa: S603 - our own arguments
                # It ends with the tests, even after `kill -9`.
                ["setpriv", "--pdeathsig", "TERM", "dockerd", *options],  # noqa: S607 - found on _PATH
                env=os.environ | {"PATH": _PATH},
                stdout=output,
                stderr=output,
            )
        stack.callback(_stop, process)
        end = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < end:
            if self._run("docker", "info", check=False).returncode == 0:
                return
            time.sleep(0.2)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise EngineMissingError(
            f"dockerd does not run here ({lines[-1] if lines else 'it says nothing'}): {_INSTALL}"
        )

    def _remove_containers(self) -> None:
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", "--volumes", *containers)
        for kind in ("volume", "network"):
            names = self.docker(kind, "ls", "--quiet", "--filter", "label=com.docker.compose.project").split()
            if names:
                self.docker(kind, "rm", *names)

    def _run(
        self, *command: str | Path, check: bool = True, timeout: float = 600, folder: Path = PROJECT
    ) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(  # noqa: S603 - our own commands
            command,
            cwd=folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and ended.returncode:
            said = (ended.stdout + ended.stderr)[-4000:]
            raise RuntimeError(f"{' '.join(map(str, command))} ended with {ended.returncode}: {said}")
        return ended

    def docker(self, *arguments: str, timeout: float = 600) -> str:
        """Return what a command of the client prints."""
        return self._run("docker", *arguments, timeout=timeout).stdout

    def compose(self, folder: Path, *arguments: str, timeout: float = 600) -> str:
        """Return what a command of Compose prints in a folder."""
        return self._run(self._compose, *arguments, timeout=timeout, folder=folder).stdout

    def make_images(self) -> None:
        """Make all images; what was made from the same files before is kept."""
        debian = self._debian()
        self._build(BASE, _IMAGES / "base", _CA_FILE, f"DEBIAN={debian}")
        influxdb, postgres = stand_ins()
        self._build(influxdb, _IMAGES / "influxdb", influxd_path(), f"BASE={BASE}")
        self._build(postgres, _IMAGES / "postgres", None, f"BASE={BASE}")
        with tempfile.TemporaryDirectory() as folder:
            dockerfile = Path(folder) / "Dockerfile"
            text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
            dockerfile.write_text(re.sub(r"(?m)^FROM \S+", f"FROM {BASE}", text), encoding="utf-8")
            # A name keeps the steps of the first stage when what an older source left is removed.
            self._docker_build(f"{PIPELINE}-build", PROJECT, "--target", "build", "--file", str(dockerfile))
            self._docker_build(PIPELINE, PROJECT, "--file", str(dockerfile))
        self.docker("image", "prune", "--force")

    def _debian(self) -> str:
        recipe = json.dumps([SUITE, PACKAGES])
        name = f"aiseg2-test-debian:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
        if not self.docker("image", "ls", "--quiet", name):
            # On the engine's own disk: /tmp may forbid device files.
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                root = Path(folder) / "root"
                include = f"--include={','.join(PACKAGES)}"
                self._run(*("debootstrap", "--variant=minbase", include, SUITE, root), timeout=BUILD_S)
                archive = Path(folder) / "root.tar"
                self._run("tar", "-C", root, "-cf", archive, ".", timeout=BUILD_S)
                self.docker("import", str(archive), name, timeout=BUILD_S)
        return name

    def _build(self, name: str, recipe: Path, more: Path | None, argument: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(recipe, folder, dirs_exist_ok=True)
            if more is not None:
                shutil.copy(more, folder)
            self._docker_build(name, Path(folder), "--build-arg", argument)

    def _docker_build(self, name: str, context: Path, *more: str) -> None:
        proxies = [option for proxy in _proxies() for option in ("--build-arg", f"{proxy}={os.environ[proxy]}")]
        options = ("--network", "host", "--tag", name, *proxies, *more)
        self.docker("build", *options, str(context), timeout=BUILD_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=STOP_S)


def stand_ins() -> tuple[str, str]:
    """Return the names of InfluxDB's and PostgreSQL's images, without their digests."""
    text = COMPOSE_FILE.read_text(encoding="utf-8")
    influxdb, postgres = (re.findall(rf"image: ({name}:[^@\s]+)", text)[0] for name in ("influxdb", "postgres"))
    return influxdb, postgres


def _proxies() -> list[str]:
    names = ("http_proxy", "https_proxy", "no_proxy")
    return [name for lower in names for name in (lower, lower.upper()) if name in os.environ]


class Stack:
    """One Compose project on the engine: a copy of docker-compose.yml, an override of ours, and a .env.

    The folder's name is the project's; `options` are given to every command of Compose.
    """

    def __init__(
        self,
        engine: DockerEngine,
        folder: Path,
        override: str,
        *,
        env: Mapping[str, str],
        options: Sequence[str] = (),
    ) -> None:
        """Prepare the files; nothing is started."""
        self.engine = engine
        self.folder = folder
        self._options = options
        folder.mkdir()
        for name in ("stack", "grafana"):
            shutil.copytree(PROJECT / name, folder / name)
        shutil.copy(COMPOSE_FILE, folder)
        (folder / "docker-compose.override.yml").write_text(override, encoding="utf-8")
        if env:
            lines = "".join(f"{name}={value}\n" for name, value in env.items())
            (folder / ".env").write_text(lines, encoding="utf-8")

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose."""
        return self.engine.compose(self.folder, "--project-name", self.folder.name, *self._options, *arguments)

    def up(self) -> None:
        """Do what `docker compose up -d` does; every image is there."""
        self.compose("up", "--detach", "--no-build", "--pull", "never")

    def services(self) -> list[str]:
        """Return the names of the services that have a container."""
        return self.compose("ps", "--all", "--format", "{{.Service}}").split()

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.folder.name}-{service}-1"

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine says of a service's container."""
        found: dict[str, Any] = json.loads(self.engine.docker("inspect", self.container(service)))[0]
        return found

    def logs(self, service: str) -> str:
        """Return what a service's container has printed to its standard output."""
        return self.engine.docker("logs", self.container(service))

    def execute(self, service: str, *command: str) -> str:
        """Return what a command prints in a service's container."""
        return self.engine.docker("exec", self.container(service), *command)

    def address(self, service: str) -> str:
        """Return a service's address in one of its networks; this machine reaches it there."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def kill(self, service: str) -> None:
        """End a service's first process as `kill -9` does: the engine sees it die, and restarts it as it should."""
        os.kill(self.inspect(service)["State"]["Pid"], signal.SIGKILL)
