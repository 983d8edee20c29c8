"""An https server with a certificate of its own, which accepts every write."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.responses import Response


def new_certificate(directory: Path) -> tuple[Path, Path]:
    """Create a certificate of 127.0.0.1; return its file and its key's."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    certificate, key = directory / "cert.pem", directory / "key.pem"
    subprocess.run(  # noqa: S603 - our own arguments
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@contextmanager
def https_server(directory: Path) -> Iterator[tuple[str, Path]]:
    """Serve status 204 over https; yield the URL and the certificate's file."""
    cert, key = new_certificate(directory)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            Response(status_code=204), log_config=None, ssl_certfile=str(cert), ssl_keyfile=str(key)
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", cert
        server.should_exit = True
        thread.join()
