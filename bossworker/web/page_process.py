"""The process of ``pool.web()``: the page of one pool, beside its program, with which it ends."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from bossworker.pool.door import side_process
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.system.titles import set_title


def main(program: int) -> None:
    """The process's main."""
    link, settings = side_process.begin(program)
    try:
        from bossworker.web.serving import PageServer

        server = PageServer(
            [settings["door"]],
            port=settings["port"],
            unix_socket=settings["unix_socket"],
            read_only=settings["read_only"],
        )
    except (OSError, ImportError) as error:
        link.send(Kind.START_FAILED, b"", [str(error).encode()])
        return
    set_title("bossworker-page", f"bossworker {settings['name']}: page")
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    logging.getLogger("bossworker.web").setLevel(logging.INFO)  # a line for each order
    link.send(Kind.READY, b"", [server.url.encode()])
    with suppress(KeyboardInterrupt):
        server.run(partial(_watch, link))
    os._exit(0)  # threads that wait for a pool that does not answer are not waited for


def _watch(link: Link, stop: Callable[[], None]) -> None:
    """Stop when the program hangs up, or is gone."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            link.receive()
        except LinkClosed:
            loop.remove_reader(link.fileno())
            stop()

    loop.add_reader(link.fileno(), read)
