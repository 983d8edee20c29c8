"""The middleware before Dagster's pages: which requests pass, and the status and sentence of the others."""

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Message

from aiseg2_pipeline.runtime.middleware import SameSiteMiddleware

SERVER = "127.0.0.1:3000"
OTHER_SITE = "http://other.example"
PROXY = "power.example.org"
Answer = tuple[int, str, dict[bytes, bytes]]


async def page(_: Request) -> PlainTextResponse:
    return PlainTextResponse("page")


# As Dagster's server, at once without a prefix and with one.
PAGES = [
    Route("/graphql", page, methods=["GET", "POST"]),
    Route("/{path:path}", page, methods=["GET", "POST", "PUT", "DELETE"]),
]
APP = Starlette(routes=[Mount("/energy", routes=PAGES), *PAGES])


def answer(
    method: str = "GET", path: str = "/runs", *, host: str = SERVER, names: tuple[str, ...] = (), **headers: str
) -> Answer:
    """Return status, body and headers of a request to a server on 127.0.0.1 that a proxy serves under `names`."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    fields = [(name.encode(), value.encode()) for name, value in {"host": host, **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": fields}
    asyncio.run(SameSiteMiddleware(APP, host="127.0.0.1", names=names)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode(), dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "host",
    [SERVER, "localhost:3000", "LOCALHOST", "192.168.0.9:3000", "[::1]:3000", "[fd00::9]", "NAS.local:3000"],
)
def test_an_address_localhost_and_configured_names_are_served(host: str) -> None:
    assert answer(host=host, names=("nas.Local",))[:2] == (200, "page")


@pytest.mark.parametrize("host", ["other.example", "127.0.0.1.other.example:3000", "nas.local", "[::1", ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_name_is_refused_with_the_setting(method: str, host: str) -> None:
    status, sentence, _ = answer(method, host=host)
    assert status == 421
    assert "add the name to AISEG2_UI_NAMES" in sentence


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "origin", [OTHER_SITE, "null", "http://127.0.0.1:8420", "https://[", f"{OTHER_SITE}/{SERVER}", ""]
)
def test_another_site_cannot_change_anything(method: str, origin: str) -> None:
    status, sentence, _ = answer(method, "/graphql", origin=origin)
    assert status == 403
    assert "AISEG2_UI_NAMES" in sentence


def test_our_own_pages_programs_and_a_configured_proxy_can_change_things() -> None:
    assert answer("POST", "/graphql", origin=f"http://{SERVER}")[0] == 200
    assert answer("POST", "/graphql")[0] == 200
    # A proxy may pass on our name or its own.
    for host in (SERVER, PROXY):
        assert answer("POST", origin=f"https://{PROXY}", host=host, names=(PROXY,))[0] == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("prefix", ["", "/energy"])
def test_a_get_request_runs_no_query_under_any_path_prefix(method: str, prefix: str) -> None:
    status, sentence, _ = answer(method, f"{prefix}/graphql", accept="image/*,*/*")
    assert (status, sentence) == (405, "/graphql takes POST only: send the query in its body.\n")
    assert answer("GET", f"{prefix}/graphql", accept="text/html,*/*")[0] == 200
    # A page, whatever its name.
    assert answer("GET", f"{prefix}/assets/graphql")[0] == 200


def test_a_link_of_another_site_opens_a_page_but_not_in_a_frame() -> None:
    status, _, headers = answer(origin=OTHER_SITE)
    assert status == 200
    assert headers[b"x-frame-options"] == b"SAMEORIGIN"
