"""What ``ps`` and ``top`` show of a process: its name (15 characters), and in the place of its arguments a title.

The place of the arguments is too small for most titles, and what lies behind it is the environment, by which others
know whose process this is. So the kernel is told of another place (``PR_SET_MM_MAP``, which asks for no rights). Where
it does not take that, as much of the title is written over the arguments as there is room. On other systems the module
setproctitle does what it can, if it is installed.

Each process of a pool gets a title as it starts. So what takes long, or is the same in all that are forked from one
another, is done once: the C library is loaded at import, and the first of them reads where its memory lies.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from contextlib import suppress

from bossworker.system import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SET_NAME, _SET_MM, _SET_MM_MAP = 15, 35, 14
_NAME_BYTES = 15
# Of /proc/self/stat, counted from the third field: addresses in the order in which the kernel wants them.
_CODE, _STACK, _DATA, _BRK, _ARGS, _ENVIRONMENT = (23, 24), 25, (42, 43), 44, (45, 46), (47, 48)
_MEMORY_MAP = struct.Struct("@11QPII")  # ``struct prctl_mm_map``: addresses; no auxv, whose size is 0
_NO_FILE = (1 << 32) - 1  # for exe_fd

_kept: list[bytes] = []  # titles: the kernel reads them where they are, whenever it is asked
_places: list[int] | None = None  # of this process, or of the one that it was forked from


def _load_libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.prctl.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
    libc.sbrk.argtypes = (ctypes.c_ssize_t,)
    libc.sbrk.restype = ctypes.c_void_p
    return libc


_libc = _load_libc() if sys.platform == "linux" else None


def look_where_titles_are() -> None:
    """Before a fork: what a child and all below it need for their titles, found out once for this process."""
    if _libc is not None:
        with suppress(Exception):
            _places_in_memory()


def set_title(name: str, title: str) -> None:
    """Give this process a name and a title, as far as the system allows; never raises."""
    with suppress(Exception):
        if "setproctitle" in sys.modules or _libc is None:
            import setproctitle

            setproctitle.setproctitle(title)
        elif places := _places_in_memory():
            _libc.prctl(_SET_NAME, name.encode()[:_NAME_BYTES], None, 0, 0)
            _show(places, title.encode("utf-8", "replace").replace(b"\0", b" "))


def _places_in_memory() -> list[int]:
    """The fields of ``/proc/self/stat``, read once; none where /proc shows other processes than ours.

    A fork copies all of it but the end of the heap, which grows, and where its parent has put its own title.
    """
    global _places
    if _places is None:
        _places = []
        if proc.is_ours():
            _places = [int(field) if field.isdigit() else 0 for field in proc.stat_fields(os.getpid())]
    return _places


def _show(places: list[int], title: bytes) -> None:
    if not _move(places, title):
        start, end = (places[at] for at in _ARGS)
        room = end - start - 1
        ctypes.memmove(start, title[:room].ljust(room, b"\0"), room)


def _move(places: list[int], title: bytes) -> bool:
    """Have the kernel look for the arguments at another address; whether it does."""
    assert _libc is not None
    start: Any = ctypes.cast(ctypes.c_char_p(title), ctypes.c_void_p).value
    wanted = _MEMORY_MAP.pack(
        *(places[at] for at in (*_CODE, *_DATA)),
        places[_BRK],
        _libc.sbrk(0),
        places[_STACK],
        start,
        start + len(title) + 1,  # with the zero byte that stands behind it
        *(places[at] for at in _ENVIRONMENT),
        0,
        0,
        _NO_FILE,
    )
    done: int = _libc.prctl(_SET_MM, _SET_MM_MAP, wanted, len(wanted), 0)
    if done == 0:
        _kept.append(title)
    return done == 0
