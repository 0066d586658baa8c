"""The file beside a database that holds the flight recorders of the pool that owns it: see ``filed_memory.py``."""

from __future__ import annotations

import os
from contextlib import suppress

from bossworker.errors import JournalError
from bossworker.pool.wire.filed_memory import FiledMemory, commit_noted, slots_end

SPARE_SLOTS = 2  # for workers that come while those whose place they take are leaving


class FlightFile:
    """See the module."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}-flight"

    def of_session(self, session: str | None) -> FiledMemory | None:
        """The recorders of an earlier session, if they can still be believed."""
        if not session:
            return None
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        if os.fstat(fd).st_size != FiledMemory.size:
            os.close(fd)
            return None
        memory = FiledMemory(fd)
        memory.close_file()
        if memory.is_of(session):
            return memory
        memory.close()
        return None

    def commit_noted(self, session: str | None) -> int:
        """The number of the last commit in a session's file; 0: it is not there, or tells of none."""
        if not session:
            return 0
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            return commit_noted(fd, session)
        finally:
            os.close(fd)

    def make(self, session: str, workers: int) -> FiledMemory:
        """Those of a new one, in a new file. JournalError: there is no room."""
        self.remove()
        fd = -1
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.ftruncate(fd, FiledMemory.size)
            self.reserve(fd, workers)
            memory = FiledMemory(fd)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            raise JournalError(f"the journal's file {self.path} cannot be made: {error.strerror}") from error
        memory.name(session)
        return memory

    def reserve(self, fd: int, workers: int) -> None:
        """Have room on the disk for what is going to be written: memory of a file that finds none kills its process."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, slots_end(2 * workers + SPARE_SLOTS))
            log = FiledMemory.log_at
            os.posix_fallocate(fd, log, FiledMemory.size - log)

    def remove(self) -> None:
        with suppress(OSError):
            os.unlink(self.path)
