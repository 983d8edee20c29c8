"""Dagster's pages behind a real nginx, under a path of their own."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.running_pipeline import Pages, free_ports, started

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
PROXY = "power.example.org"
DOCS = Path(__file__).parents[2] / "docs" / "security.md"
LAUNCH = 'mutation { shutdownRepositoryLocation(repositoryLocationName: "aiseg2-pipeline") { __typename } }'


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The address of the proxy, configured as docs/security.md says, and the port of the pages."""
    port, ui_port = free_port(), free_port()
    (location,) = re.findall(r"^```nginx\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    location = location.replace("127.0.0.1:3000", f"127.0.0.1:{ui_port}")
    (tmp_path / "nginx.conf").write_text(f"""
daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;
events {{}}
http {{
    access_log off; client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/proxy;
    fastcgi_temp_path {tmp_path}/fastcgi; uwsgi_temp_path {tmp_path}/uwsgi; scgi_temp_path {tmp_path}/scgi;
    server {{ listen 127.0.0.1:{port}; {location} }}
}}""")
    with subprocess.Popen([str(NGINX), "-c", str(tmp_path / "nginx.conf")]) as nginx:  # noqa: S603 - ours
        yield f"127.0.0.1:{port}", ui_port
        nginx.terminate()


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_behind_nginx_pages_assets_queries_and_websockets_work_under_the_path_and_stay_protected(
    tmp_path: Path, proxy: tuple[str, int]
) -> None:
    server, ui_port = proxy
    settings = free_ports() | {
        "AISEG2_UI_PORT": str(ui_port),
        "AISEG2_UI_PATH": "/energy",
        "AISEG2_UI_NAMES": PROXY,
    }
    named = {"Host": PROXY, "Origin": f"https://{PROXY}"}
    url = f"http://{server}/energy"
    with started(tmp_path, settings) as pipeline:
        pipeline.wait(Pages(url).served)
        assert f"http://127.0.0.1:{ui_port}/energy " in pipeline.output
        page = requests.get(f"{url}/runs", headers=named, timeout=30).text
        scripts = re.findall(r'src="(/energy/[^"]+\.js)"', page)
        assert scripts
        script = requests.get(f"http://{server}{scripts[0]}", headers=named, timeout=30)
        assert (script.status_code, "javascript" in script.headers["Content-Type"]) == (200, True)

        version = {"query": "{ version }"}
        answer = requests.post(f"{url}/graphql", json=version, headers=named, timeout=30)
        assert "version" in answer.json()["data"]
        other = named | {"Origin": "http://other.example"}
        answer = requests.post(f"{url}/graphql", json=version, headers=other, timeout=30)
        assert answer.status_code == 403
        for origin in (url, f"http://127.0.0.1:{ui_port}/energy"):
            image = requests.get(f"{origin}/graphql", {"query": LAUNCH}, headers={"Accept": "image/*"}, timeout=30)
            assert image.status_code == 405
        assert (upgraded(server, named["Origin"]), upgraded(server, other["Origin"])) == (101, 403)


def upgraded(server: str, origin: str) -> int:
    """Return the status of the request for a WebSocket from a page of `origin`."""
    host, _, port = server.partition(":")
    lines = [
        "GET /energy/graphql HTTP/1.1",
        f"Host: {PROXY}",
        f"Origin: {origin}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: graphql-ws",
    ]
    with socket.create_connection((host, int(port)), timeout=30) as client:
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        return int(client.recv(4096).split()[1])
