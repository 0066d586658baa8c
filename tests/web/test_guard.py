"""Who may see the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from bossworker.web.guard import LOOPBACK, Guard
from tests.web.conftest import InProcess

TOKEN, COOKIE = "t-" + "x" * 30, "page"


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"inside {len(body)}")(scope, receive, send)


def guarded(**changes: Any) -> InProcess:
    settings = {"token": TOKEN, "cookie": COOKIE, "hosts": LOOPBACK, "most_body": 100}
    return InProcess(Guard(inner, **{**settings, **changes}))


@pytest.fixture
def client() -> InProcess:
    return guarded()


@pytest.fixture
def known(client: InProcess) -> InProcess:
    client.headers["authorization"] = f"Bearer {TOKEN}"
    return client


@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", f"?token={TOKEN}x", "?token=%C3%A4"])
def test_a_token_is_needed(client: InProcess, query: str) -> None:
    answer = client.get(f"/{query}")
    assert answer.status_code == 403
    assert "a token is needed" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "set-cookie" not in answer.headers


def test_the_address_leaves_a_cookie(client: InProcess) -> None:
    answer = client.get(f"/?token={TOKEN}")
    assert answer.text == "inside 0"
    assert answer.headers["set-cookie"] == f"{COOKIE}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert client.get("/").text == "inside 0"
    assert client.get("/?token=wrong").status_code == 403  # a person who opens a wrong address is told so
    client.cookies[COOKIE] = "wrong"
    assert client.get("/").status_code == 403


def test_a_program_has_a_header(known: InProcess) -> None:
    assert known.get("/").text == "inside 0"
    assert known.post("/", content=b"x" * 100).text == "inside 100"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "[::2]:80", "localhost.:80"])
def test_other_names_are_refused(known: InProcess, host: str) -> None:
    assert known.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:80", "[::1]"])
def test_own_names_are_known(known: InProcess, host: str) -> None:
    assert known.get("/", headers={"host": host}).text == "inside 0"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_other_pages_are_refused(known: InProcess, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        assert known.request(method, "/", headers=headers).status_code == 403


def test_a_person_may_follow_a_link(known: InProcess) -> None:
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert known.get("/", headers=followed).text == "inside 0"
    assert known.post("/", headers=followed).status_code == 403
    own = {"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"}
    assert known.post("/", headers=own).text == "inside 0"


def test_bodies_are_bounded(known: InProcess) -> None:
    assert known.post("/", content=b"x" * 101).status_code == 413
    assert known.post("/", content=b"", headers={"content-length": "9" * 30}).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10

    with pytest.raises(HTTPException, match="413"):  # of which the page makes an answer
        known.post("/", content=pieces())


def test_read_only(known: InProcess) -> None:
    client = guarded(read_only=True)
    client.headers["authorization"] = f"Bearer {TOKEN}"
    assert client.get("/").text == "inside 0"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert client.request(method, "/").status_code == 403


def test_without_a_token_whoever_comes_may() -> None:
    client = guarded(token=None, hosts=None)
    assert client.get("/", headers={"host": "pools.example"}).text == "inside 0"
    assert client.post("/", headers={"origin": "http://evil.example"}).status_code == 403


def test_no_websockets(known: InProcess) -> None:
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    anyio.run(known.app, {"type": "websocket"}, None, send)
    assert told == [{"type": "websocket.close", "code": 1008}]


def test_headers_of_every_answer(known: InProcess) -> None:
    headers = known.get("/").headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
