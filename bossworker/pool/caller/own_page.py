"""The page of a program's own pool, ``pool.web()``: in a process beside it, which comes in through a door."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

from bossworker.pool.door import addresses
from bossworker.pool.door.listening import Door
from bossworker.pool.door.side_process import SideProcess
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.system import processes, signals
from bossworker.system.checks import check_bool, check_count, check_path

PROCESS = "bossworker.web.page_process"
NEEDED = ("starlette", "uvicorn")
START_SECONDS = 30.0

Listen = Callable[[str | None], Door]


class OwnPage:
    """One that is served. It ends with the pool, or by `close`."""

    def __init__(self, settings: dict[str, object]) -> None:
        """OSError: it cannot be served."""
        self.settings = settings
        self._owner = os.getpid()
        self._process: SideProcess | None = None
        try:
            with signals.held():
                self._process = SideProcess(PROCESS, settings)
            self.url = self._await_start()
        except BaseException:
            self.close()
            raise

    def _await_start(self) -> str:
        assert self._process is not None
        link, deadline = self._process.link, time.monotonic() + START_SECONDS
        while processes.await_fd(link.fileno(), select.POLLIN, max(0.0, deadline - time.monotonic())):
            with suppress(LinkClosed):
                frames = link.receive()
                if not frames:
                    continue
                text = bytes(frames[0].body).decode()
                if frames[0].kind is Kind.READY:
                    return text
                raise OSError(f"the page cannot be served: {text}")
            break
        raise OSError("the page cannot be served: its process has ended, or does not answer; stderr may say why")

    @property
    def is_served(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and processes.is_alive(self._process.pid)

    def close(self) -> None:
        """May be called again."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.end()

    def disown(self) -> None:
        """In a forked child: it is the parent's."""
        if self._process is not None:
            self._process.link.drop()
            self._process = None


def open_page(
    pages: list[OwnPage],
    doors: list[Door],
    listen: Listen,
    name: str,
    port: object,
    unix_socket: str | os.PathLike[str] | None,
    read_only: object,
) -> str:
    """See ``BossWorker.web``. The page is added to the `pages` of the pool, whose `doors` may get one for it."""
    check_count("port", port, most=65535)
    check_bool("read_only", read_only)
    path = None if unix_socket is None else os.path.abspath(check_path("unix_socket", unix_socket))
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        raise ImportError(f"pool.web() needs {' and '.join(missing)}: pip install 'bossworker[web]'", name=missing[0])
    settings = {"name": name, "port": port, "unix_socket": path, "read_only": read_only}
    settings["door"] = _door_of(doors, listen, name).address
    for page in pages:
        if page.settings == settings and page.is_served:
            return page.url
    page = OwnPage(settings)
    pages.append(page)
    return page.url


def _door_of(doors: list[Door], listen: Listen, name: str) -> Door:
    """One with a path, that is open."""
    for door in doors:
        if door.pid and door.address.startswith("ipc://"):
            return door
    try:
        return listen(None)
    except OSError:  # another program's pool has this name
        return listen(addresses.named(f"{name[:30]}-{os.getpid()}").text)
