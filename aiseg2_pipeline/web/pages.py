"""The page's HTML, static files and web manifest. HTML never holds data of the device: scripts fetch it from the API.

Static files have a digest of all of them in their address, so that a browser keeps them and never mixes two versions.
"""

import hashlib
import json
import re
from datetime import date
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from aiseg2_pipeline.web.context import page_context
from aiseg2_pipeline.web.texts import chosen, texts

HERE = Path(__file__).parent
STATIC = HERE / "static"
TABS = ("now", "day", "month", "year", "record")
KEPT = "public, max-age=31536000, immutable"
ICONS = (
    ("icon-192.png", "192x192", "any"),
    ("icon-512.png", "512x512", "any"),
    ("icon-mask.png", "512x512", "maskable"),
)
TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain",
}
MONTH = re.compile(r"\d{4}-\d{2}")
YEAR = re.compile(r"\d{4}")

ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def routes() -> list[BaseRoute]:
    """Return the routes of the pages, the static files and the manifest."""
    return [
        Route("/", now),
        *(Route(f"/{tab}", tab_page) for tab in TABS),
        Route("/day/{date}", tab_page),
        Route("/month/{date}", tab_page),
        Route("/year/{date}", tab_page),
        Route("/manifest.webmanifest", manifest),
        Route("/static/{digest}/{path:path}", static),
    ]


def render(request: Request, name: str, status: int = HTTPStatus.OK, **values: Any) -> Response:
    """Return the template `name` as a page in the browser's language."""
    language = chosen(request.headers.get("accept-language", ""))
    root = request.scope.get("root_path", "")
    html = ENVIRONMENT.get_template(f"{name}.html").render(
        context=page_context(request),
        language=language,
        t=texts(language),
        root=root,
        static=f"{root}/static/{digest()}",
        tabs=TABS,
        **{"tab": "", "date": "", **values},
    )
    return HTMLResponse(html, status, {"Cache-Control": "no-cache", "Vary": "Accept-Language"})


def login_page(request: Request, sentence: str = "", status: int = HTTPStatus.OK) -> Response:
    """Return the page that asks for the password; `sentence` is set where the last one was not accepted."""
    waits = status == HTTPStatus.TOO_MANY_REQUESTS
    wrong = ("login.wait" if waits else "login.wrong") if sentence else ""
    return render(request, "login", status, wrong=wrong)


def not_found(request: Request) -> Response:
    """Return the page for an address that does not exist."""
    return render(request, "not_found", HTTPStatus.NOT_FOUND)


def now(request: Request) -> Response:
    """Return the page of the power flow and of today."""
    return render(request, "now", tab="now")


def tab_page(request: Request) -> Response:
    """Return the page of a tab, for the date in the address or for today's."""
    tab = request.url.path.removeprefix(request.scope.get("root_path", "")).split("/")[1]
    chosen_date = request.path_params.get("date", "")
    if chosen_date and not _is_date(tab, chosen_date):
        return not_found(request)
    return render(request, "period" if tab in {"month", "year"} else tab, tab=tab, date=chosen_date)


def manifest(request: Request) -> Response:
    """Return what a phone needs to put the page on its home screen."""
    language = chosen(request.headers.get("accept-language", ""))
    root = request.scope.get("root_path", "")
    icons = f"{root}/static/{digest()}/icons"
    content = {
        "name": texts(language)["name"],
        "short_name": texts(language)["short_name"],
        "lang": language,
        "start_url": f"{root}/",
        "scope": f"{root}/",
        "display": "standalone",
        "background_color": "#FFFFFF",
        "theme_color": "#FFFFFF",
        "icons": [
            {"src": f"{icons}/{name}", "sizes": size, "type": "image/png", "purpose": purpose}
            for name, size, purpose in ICONS
        ],
    }
    headers = {"Cache-Control": "no-cache", "Vary": "Accept-Language"}
    return Response(
        json.dumps(content, ensure_ascii=False), headers=headers, media_type="application/manifest+json"
    )


def static(request: Request) -> Response:
    """Return a static file. One of another version is not there: a page that is reloaded has the right address."""
    path = STATIC / request.path_params["path"]
    if request.path_params["digest"] != digest() or path not in _files():
        return PlainTextResponse(
            "This file belongs to another version: open the page again.", HTTPStatus.NOT_FOUND
        )
    return FileResponse(path, headers={"Cache-Control": KEPT}, media_type=TYPES[path.suffix])


@cache
def digest() -> str:
    """Return a digest of all static files."""
    content = hashlib.sha256()
    for path in sorted(_files()):
        content.update(path.read_bytes())
    return content.hexdigest()[:12]


@cache
def _files() -> frozenset[Path]:
    return frozenset(path for path in STATIC.rglob("*") if path.suffix in TYPES)


def _is_date(tab: str, text: str) -> bool:
    try:
        if tab == "day":
            return date.fromisoformat(text).isoformat() == text
        date.fromisoformat(f"{text}-01" if tab == "month" else f"{text}-01-01")
    except ValueError:
        return False
    return bool((MONTH if tab == "month" else YEAR).fullmatch(text))
