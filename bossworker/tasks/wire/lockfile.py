"""A file that only one task at a time may hold: for commands of which there must not be two."""

from __future__ import annotations

import errno
import fcntl
import os

from bossworker.system import identity


class LockHeld(Exception):
    """Somebody else holds it; `pid` is the process that does, None where that cannot be found out."""

    def __init__(self, path: str, pid: int | None) -> None:
        super().__init__(f"{path} is locked by {f'process {pid}' if pid else 'another process'}")
        self.pid = pid


class LockFile:
    """A lock on a file, which goes with the process that took it. The file is made when it is missing, and stays; what
    is in it is not ours to read or to change.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock, unless we have it. LockHeld: somebody else has it. OSError: there can be no such file."""
        if self._fd >= 0:  # a second descriptor of ours would be somebody else
            return
        fd = _open(self.path)
        try:
            # Nobody removes the file. Otherwise one process could lock the old file, which it had opened before, and
            # another a new one of the same name.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._fd, fd = fd, -1
        except BlockingIOError:
            raise LockHeld(self.path, _holder(fd)) from None
        finally:
            if fd >= 0:
                os.close(fd)

    def release(self) -> None:
        """Give it up, if we have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: str) -> int:
    """Made when it is missing, but not where a link leads, which somebody else may have put there."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None


def _holder(fd: int) -> int | None:
    """The pid of the process that has locked the file, by the kernel's list (Linux; elsewhere None)."""
    found = os.fstat(fd)
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as file:
            locks = [line.split() for line in file]  # 1: FLOCK ADVISORY WRITE pid major:minor:inode start end
    except OSError:
        return None
    # The lock outlives whoever took it, in the descriptors that others have of it.
    pids = [int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5] == wanted]
    # It may have let go of it by now, and others hold it: the pid is for people, nothing hangs on it.
    return next((pid for pid in pids if pid > 0 and identity.exists(pid)), None)
