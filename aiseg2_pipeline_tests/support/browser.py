"""Open the household's page in Debian's Chromium. Every other host is blocked, and every error is recorded."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import requests
import uvicorn
from playwright.sync_api import Browser, Dialog, Page, sync_playwright

from aiseg2_pipeline.frames.names import TOTAL_CONSUMPTION, TOTAL_EXCHANGE
from aiseg2_pipeline.frames.readings import Row, frame
from aiseg2_pipeline.gaps.past import note_first_hour
from aiseg2_pipeline.settings import Settings
from aiseg2_pipeline.store import Store
from aiseg2_pipeline.web.app import create_app
from aiseg2_pipeline_tests.support.free_port import free_port
from aiseg2_pipeline_tests.support.missing import missing

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[2] / ".venv/browser-checks/node_modules/axe-core/axe.min.js"
HOST = "127.0.0.1"
# Generous, because only a failing test waits that long.
WITHIN_S = 30
MINUTE = timedelta(minutes=1)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield the browser; skip where it is not installed."""
    if not CHROMIUM.exists():
        missing("Chromium is not installed: run .ci/install-browser-checks")
    # The names of other hosts lead nowhere, whatever asks for them.
    arguments = ["--no-sandbox", f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def axe_source() -> str:
    """Return axe-core's script; skip where it is not installed."""
    if not AXE.exists():
        missing("axe-core is not installed: run .ci/install-browser-checks")
    return AXE.read_text(encoding="utf-8")


@dataclass
class Visit:
    """A page in a browser; `errors` are those of its console and scripts, `hosts` what it has asked."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def open(self, path: str) -> Page:
        """Open an address of the page and wait until nothing is loading."""
        self.page.goto(self.url + path)
        self.page.wait_for_load_state("networkidle")
        return self.page

    def text(self, selector: str = "body") -> str:
        """Return what a person reads there, with plain spaces."""
        return self.page.inner_text(selector).replace("\xa0", " ")


@contextmanager
def visit(browser: Browser, url: str, language: str = "ja-JP", *, phone: bool = False) -> Iterator[Visit]:
    """Open a context of its own in the browser, 390 px wide on a phone."""
    size = {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900}
    context = browser.new_context(viewport=size, locale=language, has_touch=phone)  # type: ignore[arg-type]
    context.set_default_timeout(WITHIN_S * 1000)
    page = context.new_page()
    visited = Visit(page, url)
    errors = visited.errors

    def refuse(dialog: Dialog) -> None:
        errors.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", refuse)
    page.on("request", lambda request: visited.hosts.add(urlsplit(request.url).hostname or request.url[:40]))
    try:
        yield visited
    finally:
        context.close()


@contextmanager
def served(settings: Settings, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[str]:
    """Serve the page in a thread, at this time; yield its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(settings, clock), host=HOST, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until_served(url := f"http://{HOST}:{port}")
        yield url
    finally:
        server.should_exit = True
        thread.join(WITHIN_S)


def wait_until_served(url: str) -> None:
    for _ in range(WITHIN_S * 10):
        try:
            requests.get(f"{url}/login", timeout=WITHIN_S)
        except requests.RequestException:
            threading.Event().wait(0.1)
        else:
            return
    raise AssertionError(f"nothing is served at {url}")


def store_minutes(
    settings: Settings,
    start: datetime,
    count: int,
    *,
    kw: float = 2.0,
    interval_s: int = 0,
    circuits: Mapping[str, float] | None = None,
) -> None:
    """Store `count` minutes of a home without generation."""
    rows = []
    for time in (start + n * MINUTE for n in range(count)):
        rows += [
            Row(time, "total", TOTAL_CONSUMPTION, kw, "kW", interval_s),
            Row(time, "total", TOTAL_EXCHANGE, -kw, "kW", interval_s),
        ]
        rows += [Row(time, "usage", name, watts, "W", interval_s) for name, watts in (circuits or {}).items()]
    note_first_hour(settings.first_partition_path, start)
    with Store.open(settings.store_path) as store:
        store.upsert(frame(rows))
