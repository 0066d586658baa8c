"""Descriptors that a child inherits and must not keep; and one of a file that has no name."""

from __future__ import annotations

import errno
import os

MOST_TRIED = 1 << 20  # where they cannot be listed; a limit may allow a billion, and to try each takes minutes
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # an ordinary file would not help against these


def close_all_but(*keep: int) -> None:
    """Close every descriptor above 2 except these."""
    found = _open_descriptors()
    if found is None:
        _close_ranges(sorted(keep))
        return
    for fd in found:
        if fd > 2 and fd not in keep:
            try:
                os.close(fd)
            except OSError:  # that of the listing itself
                pass


def _open_descriptors() -> list[int] | None:
    """None where the system does not tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return [int(name) for name in os.listdir(folder)]
        except (OSError, ValueError):
            continue
    return None


def _close_ranges(keep: list[int]) -> None:
    low = 3
    for fd in (*keep, min(os.sysconf("SC_OPEN_MAX"), MOST_TRIED)):
        os.closerange(low, fd)
        low = fd + 1


def nameless_file(purpose: str) -> int:
    """A descriptor of a new file without a name: in memory, if the system has that and lets us."""
    if not hasattr(os, "memfd_create"):
        return _temporary_file()
    try:
        return os.memfd_create(purpose, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        return _temporary_file()  # an old kernel, or a filter of system calls that forbids it


def _temporary_file() -> int:
    import tempfile  # takes as long to import as half of this package, and is hardly ever needed

    with tempfile.TemporaryFile(prefix="bossworker-") as file:
        return os.dup(file.fileno())
