"""The pages that a browser opens: `routes` gives their addresses. All data comes from the API."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route


def routes() -> list[BaseRoute]:
    """Return the addresses of the pages and of their files."""
    return [Route("/", _page)]


def login_page(request: Request, sentence: str = "", status: int = 200) -> Response:
    """Return the page that asks for the password; `sentence` says why it was not accepted."""
    del request
    form = '<form method="post"><input type="password" name="password"><button>OK</button></form>'
    return HTMLResponse(f"<!doctype html><title>AiSEG2</title>{form}<p>{sentence}</p>", status)


def _page(_: Request) -> Response:
    return HTMLResponse("<!doctype html><title>AiSEG2</title>")
