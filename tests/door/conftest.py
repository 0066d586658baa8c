"""Pools, their doors and clients, which end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker import BossWorker, Door

FACES = ("zmq", "socketpair", "ipc", "tcp", "json")
Face = Callable[..., BossWorker]


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Doors of this test are not those of the user."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def clients() -> Iterator[Callable[..., BossWorker]]:
    """Connects clients."""
    made: list[BossWorker] = []

    def make(door: Door | str, **options: Any) -> BossWorker:
        made.append(bossworker.connect(door if isinstance(door, str) else door.address, **options))
        return made[-1]

    yield make
    for one in reversed(made):
        one.shut_down(force=True)


@pytest.fixture(params=FACES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which way to a pool."""
    return str(request.param)


@pytest.fixture
def face(pool: Callable[..., BossWorker], clients: Callable[..., BossWorker]) -> Callable[..., BossWorker]:
    """Makes a pool and gives one of its faces: its own, or that of a client."""

    def make(kind: str, handler: Callable[..., Any], **settings: Any) -> BossWorker:
        if kind in ("zmq", "socketpair"):
            return pool(handler, transport=kind, **settings)
        owner = pool(handler, **settings)
        if kind == "tcp":
            keys = bossworker.keys()
            return clients(owner.listen("tcp://127.0.0.1:0", keys=keys), keys=keys)
        return clients(owner.listen(accept="json" if kind == "json" else "pickle"))

    return make
