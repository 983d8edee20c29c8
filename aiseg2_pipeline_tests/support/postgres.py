"""Run a real PostgreSQL on a free port of 127.0.0.1, in a folder of its own."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from aiseg2_pipeline_tests.support.free_port import free_port

PASSWORD = "a password:of its@own"
USER = "dagster"


def address(port: int, password: str = PASSWORD) -> str:
    """Return a value of AISEG2_POSTGRES_URL."""
    return f"postgresql://{USER}:{quote(password, safe='')}@127.0.0.1:{port}/postgres"


def postgres_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, which Debian does not put on PATH; None without them."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = programs[-1] if programs else shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """Run a server with its data in `folder`, which any user can enter; yield its port."""
    programs = postgres_programs()
    assert programs is not None
    folder.chmod(0o777)
    password = folder / "password"
    password.write_text(PASSWORD, encoding="utf-8")
    password.chmod(0o644)
    # The server refuses to run as root.
    user = pwd.getpwnam("postgres").pw_name if os.geteuid() == 0 else None
    port = free_port()

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command

    data = str(folder / "data")
    run(
        *(str(programs / "initdb"), "--no-sync", "-D", data, "-U", USER),
        *("-A", "scram-sha-256", f"--pwfile={password}"),
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = str(programs / "pg_ctl"), "-D", data, "-w", "-t", "180"
    run(*control, "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield port
    finally:
        run(*control, "-m", "immediate", "stop")
