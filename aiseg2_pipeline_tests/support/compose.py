"""The real Docker Compose, in a version that understands docker-compose.yml. What its services do belongs in tests."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
COMPOSE_FILE = PROJECT / "docker-compose.yml"
# Where .ci/install-stack-checks installs it.
STACK_CHECKS = PROJECT / ".venv" / "stack-checks" / "bin"
# An `env_file` that need not exist.
OLDEST = (2, 24)


@cache
def compose_program(installed: Path = STACK_CHECKS / "docker-compose") -> str:
    """Return a Compose that is new enough, the installed one or that on PATH. Raise FileNotFoundError."""
    found = str(installed) if installed.is_file() else shutil.which("docker-compose")
    version = "not installed" if found is None else _version(found)
    if found is None or tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        raise FileNotFoundError(
            f"Docker Compose {'.'.join(map(str, OLDEST))} or newer is needed (docker-compose is {version}): "
            "run .ci/install-stack-checks"
        )
    return found


def _version(program: str) -> str:
    ended = subprocess.run(  # noqa: S603 - Compose
        [program, "version", "--short"], capture_output=True, text=True, check=False, timeout=60
    )
    return ended.stdout.strip()
