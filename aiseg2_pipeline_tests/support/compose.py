"""Find a Docker Compose that is new enough for docker-compose.yml."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
COMPOSE_FILE = PROJECT / "docker-compose.yml"
# The folder of .ci/install-stack-checks.
STACK_CHECKS = PROJECT / ".venv" / "stack-checks" / "bin"
# The first version with an optional `env_file`.
OLDEST = (2, 24)


@cache
def compose_program() -> str:
    """Return a Compose that is new enough, the installed one or that on PATH. Raise FileNotFoundError."""
    installed = STACK_CHECKS / "docker-compose"
    program = str(installed) if installed.is_file() else shutil.which("docker-compose")
    version = "not installed" if program is None else _version(program)
    if program is None or tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        raise FileNotFoundError(
            f"Docker Compose {'.'.join(map(str, OLDEST))} or newer is needed (docker-compose is {version}): "
            "run .ci/install-stack-checks"
        )
    return program


def _version(program: str) -> str:
    ended = subprocess.run(  # noqa: S603 - Compose
        [program, "version", "--short"], capture_output=True, text=True, check=False, timeout=60
    )
    return ended.stdout.strip()
