"""The page's own server: uvicorn, at a port of the loopback address or at a Unix socket."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from bossworker.pool.door.addresses import bind_private, is_deserted, short_way
from bossworker.web.application import COOKIE, Page
from bossworker.web.guard import LOOPBACK
from bossworker.web.watch_room import WatchRoom

BACKLOG = 128
GRACE_SECONDS = 1  # for answers that are under way when it ends


_SETTINGS: dict[str, Any] = {
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "ws": "none",
    "lifespan": "off",
    "timeout_graceful_shutdown": GRACE_SECONDS,
    "timeout_keep_alive": 30,
}


class PageServer:
    """See the module. `url` is what a person opens.

    Args:
        addresses: Of pools' doors; None: all of this user's.
        unix_socket: A path, in place of a port.
        known_as: Names by which a browser may call it, besides localhost and `host`.
        journals: Paths of journals that are shown, too.

    OSError: The port, or the path, cannot be had.
    """

    def __init__(
        self,
        addresses: Sequence[str] | None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix_socket: str | None = None,
        read_only: bool = False,
        known_as: Sequence[str] = (),
        journals: Sequence[str] = (),
    ) -> None:
        token = secrets.token_urlsafe(24)
        self._path = unix_socket
        self._listener = _bind_path(unix_socket) if unix_socket else _bind(host, port)
        if unix_socket:
            self.url = f"http://localhost/?token={token} at {unix_socket}"
            mark = "unix"
        else:
            port = self._listener.getsockname()[1]
            shown = f"[{host}]" if ":" in host else host
            self.url = f"http://{shown}:{port}/?token={token}"
            mark = str(port)
        hosts = {*LOOPBACK, host, f"[{host}]", *known_as}
        self.page = Page(WatchRoom((), addresses, journals, always=True), token, hosts, read_only, f"{COOKIE}_{mark}")

    def run(self, watch: Callable[[Callable[[], None]], None] = lambda stop: None) -> None:
        """Serve until Ctrl-C or TERM; `watch` is given what ends it, as the loop begins."""
        import uvicorn

        from bossworker.web.connections import PunctualProtocol

        server = uvicorn.Server(uvicorn.Config(self.page, http=PunctualProtocol, **_SETTINGS))
        self.page.streams.is_over = lambda: server.should_exit

        def stop() -> None:
            server.should_exit = True

        async def serve() -> None:
            watch(stop)
            await server.serve(sockets=[self._listener])

        try:
            asyncio.run(serve())
        finally:
            self.close()

    def close(self) -> None:
        """Give everything back. May be called again."""
        self.page.close()
        self._listener.close()
        if self._path:
            with suppress(OSError):
                os.unlink(self._path)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)  # whoever comes before the server runs has to wait, and is not refused
    except BaseException:
        listener.close()
        raise
    return listener


def _bind_path(path: str) -> socket.socket:
    """For this user alone (0600). One that nobody listens at any more is replaced."""
    if is_deserted(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_way(path) as way:
            bind_private(listener, way)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(f"{error}: {path!r}") from error
    except BaseException:
        listener.close()
        raise
    return listener
