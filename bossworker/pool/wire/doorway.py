"""Where workers find the boss's ZeroMQ socket: a listening socket without a name.

It is bound in a private folder, opened (O_PATH), and both names are removed again. Whoever has inherited that
descriptor connects to ``/proc/self/fd/N``, which leads to the socket itself; nobody else can find it, and nothing is
left behind, however the pool ends. Where there is no /proc, or no O_PATH, the name stays for as long as the pool lives,
in a folder (0700) that nobody else may enter.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

BACKLOG = 1024  # workers that may connect before the boss gets to them; the system may allow fewer
MOST_PATH_BYTES = 100  # of a socket's name


class Doorway:
    """The listening socket, and the way to it. Made by the boss before it forks the fork server."""

    def __init__(self) -> None:
        """OSError where no folder can be made for it."""
        self.folder = _private_folder()
        self.path = f"{self.folder}/s"
        self.way: int | None = None  # the descriptor that leads to it; None: its name does
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind()
            self.listener.listen(BACKLOG)
            if _descriptors_are_ways():
                self.way = os.open(self.path, os.O_PATH | os.O_CLOEXEC)
                self.remove_name()
        except BaseException:
            self.listener.close()
            self.close_way()
            self.remove_name()
            raise

    def _bind(self) -> None:
        """By a short name, whatever TMPDIR says."""
        if not _descriptors_are_ways():
            self.listener.bind(self.path)
            return
        folder = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.listener.bind(f"/proc/self/fd/{folder}/s")
        finally:
            os.close(folder)

    def connect(self) -> socket.socket:
        """In a worker: a connection to the boss. The way to it is not kept."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self.path if self.way is None else f"/proc/self/fd/{self.way}")
        except BaseException:
            sock.close()
            raise
        self.close_way()
        return sock

    def close_way(self) -> None:
        """Let go of the descriptor that leads there."""
        way, self.way = self.way, None
        if way is not None:
            os.close(way)

    def remove_name(self) -> None:
        """Nobody finds it by its name any more. May be called again."""
        with suppress(OSError):
            os.unlink(self.path)
        with suppress(OSError):
            os.rmdir(self.folder)


def _descriptors_are_ways() -> bool:
    return hasattr(os, "O_PATH") and os.path.exists("/proc/self/fd")


def _private_folder() -> str:
    """A new folder that only this user may enter, of a name that is short enough where names are used."""
    error: OSError | None = None
    for base in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):
        path = f"{base}/bossworker-{os.getpid()}-{os.urandom(6).hex()}"
        if not base or (not _descriptors_are_ways() and len(os.fsencode(path)) > MOST_PATH_BYTES):
            continue
        try:
            os.mkdir(path, 0o700)
        except OSError as problem:
            error = problem
        else:
            return path
    raise error or OSError("there is no folder for temporary files")
