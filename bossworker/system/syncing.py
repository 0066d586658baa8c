"""What is to be there after a power cut."""

from __future__ import annotations

import os
from contextlib import suppress


def sync(path: str) -> None:
    """Have a file, or a folder with the names in it, on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_open(fd)
    finally:
        os.close(fd)


def sync_folder_of(path: str) -> None:
    """A new file is there only if its folder has been synced, too."""
    sync(os.path.dirname(path) or ".")


def sync_open(fd: int) -> None:
    """The same by a descriptor. As SQLite's ``fullfsync``: on macOS, fsync leaves data in the disk's own memory."""
    import fcntl

    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with suppress(OSError):
            fcntl.fcntl(fd, full)
            return
    os.fsync(fd)
