"""Who may see the page: host names, other sites, the login; and that nothing can be changed."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
import requests

from aiseg2_pipeline_tests.support.page import HOME, Page, served, store_reading, utc_now

PASSWORD = "correct horse: 電池"
NAME = "power.example.org"
OTHER_SITE = {"Origin": "http://other.example"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("open") / "data"
    store_reading(folder, utc_now(), 台所=700.0)
    with served(folder, HOME | {"AISEG2_PAGE_NAMES": NAME}) as page:
        yield page


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("locked") / "data"
    with served(folder, HOME | {"AISEG2_PAGE_PASSWORD": PASSWORD}) as page:
        yield page


def log_in(page: Page, password: str, target: str = "", **headers: str) -> requests.Response:
    return requests.post(
        f"{page.url}/login{target}",
        data={"password": password},
        headers=headers,
        allow_redirects=False,
        timeout=30,
    )


def test_it_answers_to_addresses_and_configured_names_only(page: Page) -> None:
    for host in (NAME, "192.168.0.9:3080", "[fd00::9]", "LOCALHOST:1"):
        assert page.get("/api/v1/now", headers={"Host": host}).status_code == 200
    for host in ("other.example", "raspberrypi.local", ""):
        answer = page.get("/api/v1/now", headers={"Host": host})
        assert answer.status_code == 421
        assert "AISEG2_PAGE_NAMES" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/", "/api/v1/now", "/api/v1/energy", "/login", "/static/x"])
def test_nothing_can_be_changed(page: Page, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        if (method, path) != ("POST", "/login"):
            answer = requests.request(method, f"{page.url}{path}", timeout=30)
            assert answer.status_code == 405, method


def test_another_site_reads_nothing_shows_nothing_and_logs_nobody_in(page: Page, locked: Page) -> None:
    assert page.get("/api/v1/now", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert log_in(locked, PASSWORD, **OTHER_SITE).status_code == 403
    for path in ("/", "/api/v1/now", "/nothing"):
        headers = page.get(path, headers=OTHER_SITE).headers
        assert "Access-Control-Allow-Origin" not in headers
        assert "'unsafe" not in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Set-Cookie" not in headers


def test_with_a_password_a_person_logs_in_once_and_a_script_with_every_request(locked: Page) -> None:
    redirect = locked.get("/day/2026-11-25?x=1")
    assert (redirect.status_code, redirect.headers["Location"]) == (303, "/login?next=%2Fday%2F2026-11-25%3Fx%3D1")
    refused = locked.get("/api/v1/now")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    # A browser would ask for the password itself.
    assert "WWW-Authenticate" not in locked.get("/api/v1/now", headers={"Sec-Fetch-Mode": "cors"}).headers
    assert locked.get("/api/v1/now", auth=("anybody", PASSWORD.encode())).status_code == 200

    answer = log_in(locked, PASSWORD, "?next=%2Fday%2F2026-11-25")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/day/2026-11-25")
    attributes = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= attributes
    cookie = answer.cookies["aiseg2_page"]
    assert locked.get("/api/v1/now", cookies={"aiseg2_page": cookie}).status_code == 200
    until, _, signature = cookie.partition(".")
    for forged in (f"{int(until) + 1}.{signature}", f"{until}.{'0' * 64}", f"{until}.", "1" * 5000, "é.é"):
        assert locked.get("/api/v1/now", headers={"Cookie": f"aiseg2_page={forged}".encode()}).status_code == 401


@pytest.mark.parametrize("target", ["//other.example", "https://other.example", "/\\other.example", "/a\r\nX: y"])
def test_the_login_leads_to_no_other_site(locked: Page, target: str) -> None:
    answer = log_in(locked, PASSWORD, "?" + urlencode({"next": target}))
    assert urlsplit(answer.headers["Location"]).netloc == ""
    assert answer.headers["Location"] == "/"


def test_guessing_the_password_takes_longer_and_longer(tmp_path: Path) -> None:
    with served(tmp_path / "data", HOME | {"AISEG2_PAGE_PASSWORD": PASSWORD}) as page:
        began = time.monotonic()
        codes = [page.get("/api/v1/now", auth=("", f"guess {n}")).status_code for n in range(8)]
        assert codes[:5] == [401] * 5
        assert codes[-1] == 429
        # The right one has to wait as well, or the answer would tell which it is.
        assert page.get("/api/v1/now", auth=("", PASSWORD.encode())).status_code == 429
        assert time.monotonic() - began > 2
        assert "Too many wrong passwords" in log_in(page, PASSWORD).text


def test_a_login_does_not_outlive_its_password_but_a_new_start(tmp_path: Path) -> None:
    def status(password: str, cookie: str) -> int:
        with served(tmp_path / "data", HOME | {"AISEG2_PAGE_PASSWORD": password}) as page:
            return page.get("/api/v1/now", cookies={"aiseg2_page": cookie}).status_code

    with served(tmp_path / "data", HOME | {"AISEG2_PAGE_PASSWORD": PASSWORD}) as page:
        cookie = log_in(page, PASSWORD).cookies["aiseg2_page"]
    assert status(PASSWORD, cookie) == 200
    assert status(f"{PASSWORD} new", cookie) == 401


def test_what_is_no_http_ends_nothing_and_prints_nothing(page: Page) -> None:
    host, port = urlsplit(page.url).hostname, urlsplit(page.url).port
    for data in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\nHost: [::1\r\n\r\n"):
        with socket.create_connection((host, port), timeout=10) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass
    assert page.get("/api/v1/now").status_code == 200
    assert page.log.read_text() == ""
