"""The door before Dagster's pages: who is let through, and what the others are told."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from aiseg2_pipeline.runtime.webserver import Door

HERE = "127.0.0.1:3000"
SOMEBODY = "http://somebody.example"
Answer = tuple[int, str, dict[bytes, bytes]]


async def within(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("within")(scope, receive, send)


def answer(
    method: str = "GET", path: str = "/runs", *, at: str = HERE, names: tuple[str, ...] = (), **headers: str
) -> Answer:
    """Ask a door for `at`, which listens on 127.0.0.1 and is shown under `names`; return status, body and headers."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    given = [(b"host", at.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(Door(within, host="127.0.0.1", names=names)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"].decode(), dict(sent[0]["headers"])


@pytest.mark.parametrize(
    "at", [HERE, "localhost:3000", "LOCALHOST", "192.168.0.9:3000", "[::1]:3000", "[fd00::9]", "10.0.0.1"]
)
def test_an_address_and_localhost_need_no_name(at: str) -> None:
    assert answer(at=at)[:2] == (200, "within")


@pytest.mark.parametrize(
    "at",
    ["somebody.example", "127.0.0.1.somebody.example:3000", "localhost.somebody.example", "nas.local", "[::1", ""],
)
def test_another_name_is_refused_with_the_setting(at: str) -> None:
    for method in ("GET", "POST"):
        status, sentence, _ = answer(method, at=at)
        assert status == 421
        assert "add the name to AISEG2_UI_NAMES" in sentence


def test_a_name_of_the_settings_is_known_whatever_its_case_and_port() -> None:
    assert answer(at="NAS.local:3000", names=("nas.Local",))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "origin", [SOMEBODY, "null", "http://127.0.0.1:8420", "https://[", f"{SOMEBODY}/{HERE}", ""]
)
def test_nothing_of_another_site_changes_anything(method: str, origin: str) -> None:
    status, sentence, _ = answer(method, "/graphql", origin=origin)
    assert status == 403
    assert "AISEG2_UI_NAMES" in sentence


def test_our_own_pages_and_programs_may_change_things() -> None:
    assert answer("POST", "/graphql", origin=f"http://{HERE}")[0] == 200
    assert answer("POST", "/graphql")[0] == 200


def test_a_proxy_may_keep_our_name_or_its_own() -> None:
    origin = "https://power.example.org"
    assert answer("POST", origin=origin, at="power.example.org", names=("power.example.org",))[0] == 200
    assert answer("POST", origin=origin, names=("power.example.org",))[0] == 200
    assert answer("POST", origin=origin)[0] == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_opening_an_address_runs_no_query(method: str) -> None:
    status, sentence, _ = answer(method, "/graphql", accept="image/*,*/*")
    assert (status, sentence) == (405, "/graphql takes POST only: send the query in its body.\n")
    assert answer("GET", "/graphql", accept="text/html,*/*")[0] == 200


def test_a_link_from_elsewhere_opens_a_page_and_no_frame_holds_it() -> None:
    status, _, headers = answer("GET", "/runs", origin=SOMEBODY)
    assert status == 200
    assert headers[b"x-frame-options"] == b"SAMEORIGIN"
