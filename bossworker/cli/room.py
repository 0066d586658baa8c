"""A disk that is full, or may not be written to: what is told then."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from bossworker.cli.entries import EntryError
from bossworker.commands.output import is_full
from bossworker.commands.roots import find_root

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.ENOTDIR)


def is_no_room(error: BaseException | None) -> bool:
    """Whether the same may be done once there is room."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def full_disk() -> str:
    """In words, that there is no room for jobs; nothing if there is."""
    folder = find_root()
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    full = is_full(found) or (found.f_files and not found.f_favail)
    return f"waits for room in {folder}: the disk is full" if full else ""


@contextmanager
def room_for(what: str) -> Iterator[None]:
    """EntryError says where there is no room, and how to name another place.

    Args:
        what: What was to be kept: ``job``.
    """
    try:
        yield
    except OSError as error:
        if not is_no_room(error) and error.errno not in _NOT_OURS:
            raise
        where = error.filename if os.path.isabs(error.filename or "") else find_root()
        raise EntryError(
            f"no {what} can be kept in {where}: {error.strerror}; "
            "make room, or have BOSSWORKER_ROOT name another folder"
        ) from error
