"""Memory in large pages: a fork, of which a pool needs four, copies one entry for 2 MiB where it would copy 512.

It is these entries that make a pool in a process with much in its memory, as that of tests is, twice as dear as in a
small one.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

SIZE = 2 << 20
COLLAPSE = 25  # MADV_COLLAPSE, of Linux 6.1: an error before, and where a part of the page is not in use


def use_large_pages() -> None:
    """For what this process has on its heaps just now."""
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with suppress(OSError, ValueError):  # no /proc
        for line in Path("/proc/self/maps").read_text().splitlines():
            extent, access, *_, name = f"{line} ".split(" ", 5)
            if access == "rw-p" and name.strip() in ("", "[heap]"):
                start, end = (int(number, 16) for number in extent.split("-"))
                for page in range(-(-start // SIZE) * SIZE, end // SIZE * SIZE, SIZE):
                    advise(page, SIZE, COLLAPSE)
