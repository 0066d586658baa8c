"""Descriptors that a child inherits and must not keep."""

from __future__ import annotations

import os

MOST_TRIED = 1 << 20  # where they cannot be listed; a limit may allow a billion, and to try each takes minutes


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
