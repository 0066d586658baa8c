"""The page as an ASGI app, to be mounted in a program's own server or served by ours."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import bossworker
from bossworker.display import shorten
from bossworker.pool.caller.client import BossWorker
from bossworker.system.checks import check_bool
from bossworker.web.answering import Json
from bossworker.web.guard import LOOPBACK, Guard
from bossworker.web.page_sources import PageSources
from bossworker.web.routes import Routes
from bossworker.web.snapshots import SnapshotStreams
from bossworker.web.watch_room import WatchRoom

ASSETS = Path(__file__).with_name("assets")
COOKIE = "bossworker_page"
NEW = "new"  # in place of a token
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html; charset=utf-8"}
_ASSETS = {str(path.relative_to(ASSETS)): path for path in ASSETS.rglob("*") if path.suffix in _TYPES}


class Page:
    """The page: an ASGI app. Made by :func:`app`.

    ``token`` is what opens it, as in ``http://127.0.0.1:8000/?token=...``; None: nothing is needed.
    """

    def __init__(
        self, room: WatchRoom, token: str | None, hosts: Iterable[str] | None, read_only: bool, cookie: str = COOKIE
    ) -> None:
        self.room = room
        self.token = token
        self.read_only = read_only
        self.streams = SnapshotStreams(room)
        inner = Starlette(
            routes=[
                Route("/", self._index),
                Route("/api/state", self.streams.state),
                Route("/api/about", self._about),
                Route("/events", self.streams.endpoint),
                Route("/assets/{name:path}", self._asset),
                *Routes(PageSources(room, read_only)).all(),
            ]
        )
        inner.router.redirect_slashes = False
        self._guarded = Guard(inner, token=token, cookie=cookie, hosts=hosts, read_only=read_only)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI app."""
        await self._guarded(scope, receive, send)

    async def _index(self, request: Request) -> Response:
        return FileResponse(ASSETS / "index.html", media_type="text/html; charset=utf-8")

    async def _asset(self, request: Request) -> Response:
        found = _ASSETS.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("no such file", 404)
        return FileResponse(found, media_type=_TYPES[found.suffix])

    async def _about(self, request: Request) -> Response:
        return Json({"version": bossworker.__version__, "read_only": self.read_only})

    def close(self) -> None:
        """Let go of the pools; threads that watch them end."""
        self.room.shut()


def app(
    *pools: BossWorker[Any, Any],
    doors: Sequence[str] = (),
    journals: Sequence[str | os.PathLike[str]] = (),
    token: str | None = NEW,
    hosts: Iterable[str] | None = LOOPBACK,
    read_only: bool = False,
) -> Page:
    """The page of these pools as an ASGI app: ``Mount("/pool", bossworker.web.app(pool))``.

    It shows job directories and tasks of this user, too. While somebody looks at it, a thread asks each pool four times
    a second; ten seconds after the last has left, the threads end.

    Args:
        pools: Pools of this program.
        doors: Names or addresses of pools of other programs of this user (``ipc://PATH``).
        journals: Paths of journals, whether or not a program has them open. Those of the pools are found by themselves.
        token: What opens it: ``?token=...`` in the address, which leaves a cookie, or ``Authorization: Bearer ...``. By
            default a new one, in the attribute ``token``. None: whoever reaches it may do all that it can do, for the
            program that it is mounted in asks who they are.
        hosts: The names, without ports, by which it may be called; None: any. By default this machine's own alone: a
            program with another name has to say so.
        read_only: Whether it only shows.
    """
    for pool in pools:
        if not isinstance(pool, BossWorker):
            raise TypeError(f"pools must be BossWorkers, not {type(pool).__name__}")
    wanted = _listed("doors", doors, "names or addresses"), _listed("journals", journals, "paths")
    names = None if hosts is None else _listed("hosts", hosts, "names")
    if wrong := [name for name in names or () if not isinstance(name, str)]:
        raise TypeError(f"hosts must be a list of str, or None, not one with {shorten(wrong[0])}")
    check_bool("read_only", read_only)
    if token is not None and (not isinstance(token, str) or not token):
        raise TypeError(f"token must be a str that is not empty, or None, not {token!r}")
    return Page(WatchRoom(pools, *wanted), secrets.token_urlsafe(24) if token == NEW else token, names, read_only)


def _listed(name: str, value: Iterable[Any], what: str) -> list[Any]:
    """A str is iterable, too: its letters."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of {what}, not {shorten(value)}")
    return list(value)
