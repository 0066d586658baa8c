"""Pages that are served, and end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from bossworker import BossWorker
from bossworker.commands.supervision import launching


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Doors, jobs and tasks of this test are not those of the user."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    monkeypatch.setenv("BOSSWORKER_TASKS", str(tmp_path / "tasks"))
    yield folder
    launching.close_launcher()


@pytest.fixture
def page(pool: Callable[..., BossWorker]) -> Iterator[Callable[..., httpx.Client]]:
    """Serves the page of a pool; a client that has the token."""
    clients: list[httpx.Client] = []

    def serve(bw: BossWorker, **settings: Any) -> httpx.Client:
        clients.append(client_of(bw.web(**settings)))
        return clients[-1]

    yield serve
    for client in clients:
        client.close()


class InProcess:
    """A client of an ASGI app in this process: no server, no sockets."""

    def __init__(self, app: Any, **headers: str) -> None:
        self.app = app
        self.headers = headers
        self.cookies: dict[str, str] = {}

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, content: Any = None
    ) -> httpx.Response:
        """One request; cookies that are set are kept."""

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
                given = {**self.headers, **(headers or {})}
                if self.cookies:
                    given["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
                return await client.request(method, path, headers=given, content=content)

        answer = anyio.run(ask)
        self.cookies.update(answer.cookies)
        return answer

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


def client_of(url: str) -> httpx.Client:
    """One that has the token of an address."""
    base, _, token = url.partition("/?token=")
    return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False)
