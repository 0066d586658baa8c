"""A file that only one task at a time may hold: for commands of which there must not be two."""

from __future__ import annotations

import fcntl
import os


class Held(Exception):
    """Somebody else holds it; `pid` is the supervisor that does, as far as it has said so."""

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"{path} is locked by {f'process {pid}' if pid else 'another process'}")
        self.pid = pid


class LockFile:
    """A lock on a file, which goes with the process that took it. The file itself stays, and names the last holder."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock, unless we have it. Raises Held at once when somebody else has; OSError when there can be no
        such file.
        """
        if self._fd >= 0:  # a second descriptor of ours would be somebody else
            return
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Held(self.path, _holder(fd)) from None
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)

    def release(self) -> None:
        """Give it up, if we have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _holder(fd: int) -> int | None:
    try:
        return int(os.pread(fd, 32, 0))
    except ValueError:
        return None
