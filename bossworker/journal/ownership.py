"""One owner of a journal at a time: a lock on a file beside the database, with the owner's process id in it.

The lock (``flock``) is the scribe's, and goes with its last descriptor: nothing is left to be tidied up, whoever is
killed. The file itself stays.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from contextlib import suppress

from bossworker.errors import JournalError, JournalInUse
from bossworker.system import identity

WAIT_SECONDS = 10.0  # for the scribe of a program that has ended: it records the last results
TICK = 0.02
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # it is written to, so it must not be elsewhere


def lock_path(path: str) -> str:
    """Of the file that is locked."""
    return f"{path}-lock"


def socket_path(path: str) -> str:
    """Where the owner answers questions."""
    return f"{path}-socket"


class Ownership:
    """The lock, while it is held."""

    def __init__(self, path: str, owner: int, brief: bool = False) -> None:
        """Take it, for the process `owner`. JournalInUse: it is another's. `brief`: for one question."""
        self.path = path
        try:
            self._fd = os.open(lock_path(path), _OPEN, 0o600)
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be locked: {error.strerror}") from error
        try:
            self._lock()
            told = json.dumps({"owner": identity.of(owner), "pid": owner, "brief": brief}).encode()
            os.truncate(self._fd, 0)
            os.pwrite(self._fd, told, 0)
        except OSError as error:  # the disk is full
            os.close(self._fd)
            raise JournalError(f"the journal {path} cannot be locked: {error.strerror}") from error
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                # Not waited for in the kernel: who holds it may be a program that runs for days, which is found out
                # below.
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    text = f"the journal {self.path} cannot be locked: {error.strerror}"
                    raise JournalError(f"{text} (its file system must know flock)") from error
            pid, alive = _owner(self._fd)
            if alive or time.monotonic() > deadline:
                raise JournalInUse(
                    f"the journal {self.path} belongs to another program: process {pid or 'unknown'}", pid
                )
            time.sleep(TICK)

    def fileno(self) -> int:
        """The lock's descriptor: a process that inherits it holds the lock, too."""
        return self._fd

    def release(self) -> None:
        os.close(self._fd)


def _owner(fd: int) -> tuple[int, bool]:
    """Who holds it, as far as the file tells; whether it is going to hold it for long."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        # Its owner may have taken it and not have written this yet, so it may be of the one before, or half there: then
        # it counts as about to be given up, and is asked for again.
        told = json.loads(os.pread(fd, 4096, 0))
        return int(told["pid"]), not told["brief"] and identity.look(told["owner"]) != identity.GONE
    return 0, False
