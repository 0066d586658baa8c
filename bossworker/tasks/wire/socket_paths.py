"""Sockets in a pool's directory, however long its path is: an address holds about a hundred bytes, a path thousands."""

from __future__ import annotations

import os

from bossworker.system.cpython import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 100  # bytes; Linux takes 107, macOS 103
_OWN_FDS = "/proc/self/fd"


def bind(sock: socket.socket, folder: str, name: str) -> None:
    """Give a socket a name in a folder. OSError when that cannot be."""
    _reach(sock.bind, folder, name)


def connect(sock: socket.socket, folder: str, name: str) -> None:
    """Connect to the socket of a name in a folder. OSError when that cannot be."""
    _reach(sock.connect, folder, name)


def _reach(act: Callable[[str], object], folder: str, name: str) -> None:
    path = f"{folder}/{name}"
    if len(os.fsencode(path)) <= LONGEST:
        act(path)
    elif os.path.isdir(_OWN_FDS):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            act(f"{_OWN_FDS}/{fd}/{name}")
        finally:
            os.close(fd)
    else:
        _by_link(act, folder, name)


def _by_link(act: Callable[[str], object], folder: str, name: str) -> None:
    """Where descriptors have no names: a link with a short one, for as long as it takes."""
    link = f"/tmp/bossworker-{os.urandom(8).hex()}"
    os.symlink(os.path.abspath(folder), link)
    try:
        act(f"{link}/{name}")
    finally:
        os.unlink(link)
