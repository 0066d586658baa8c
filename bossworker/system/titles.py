"""What ``ps`` and ``top`` show of a process: its name (15 characters), and in the place of its arguments a title.

The place of the arguments is too small for most titles, and what lies behind it is the environment, by which others
know whose process this is. So the kernel is told of another place (``PR_SET_MM_MAP``, which asks for no rights). Where
it does not take that, as much of the title is written over the arguments as there is room. On other systems the module
setproctitle does what it can, if it is installed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import Any

from bossworker.system import proc

_SET_NAME, _SET_MM, _SET_MM_MAP = 15, 35, 14
_NAME_BYTES = 15
# Of /proc/self/stat, counted from the third field: addresses in the order in which the kernel wants them.
_CODE, _STACK, _DATA, _BRK, _ARGS, _ENVIRONMENT = (23, 24), 25, (42, 43), 44, (45, 46), (47, 48)

_kept: list[Any] = []  # titles: the kernel reads them where they are, whenever it is asked


class _MemoryMap(ctypes.Structure):
    """``struct prctl_mm_map``."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("start_code", "end_code", "start_data", "end_data", "start_brk", "brk")),
        *((name, ctypes.c_uint64) for name in ("start_stack", "arg_start", "arg_end", "env_start", "env_end")),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    ]


def set_title(name: str, title: str) -> None:
    """Give this process a name and a title, as far as the system allows; never raises."""
    with suppress(Exception):
        if "setproctitle" in sys.modules or sys.platform != "linux":
            import setproctitle

            setproctitle.setproctitle(title)
        elif proc.is_ours():
            libc = ctypes.CDLL(None, use_errno=True)
            short = ctypes.create_string_buffer(name.encode()[:_NAME_BYTES])
            libc.prctl(_SET_NAME, short, 0, 0, 0)
            _show(libc, title.encode("utf-8", "replace").replace(b"\0", b" "))


def _show(libc: Any, title: bytes) -> None:
    fields = proc.stat_fields(os.getpid())
    if not _move(libc, fields, ctypes.create_string_buffer(title)):
        start, end = (int(fields[at]) for at in _ARGS)
        room = end - start - 1
        ctypes.memmove(start, title[:room].ljust(room, b"\0"), room)


def _move(libc: Any, fields: list[bytes], title: Any) -> bool:
    """Have the kernel look for the arguments at another address; whether it does."""
    number = [int(field) if field.isdigit() else 0 for field in fields]
    libc.sbrk.restype = ctypes.c_void_p
    start = ctypes.addressof(title)
    places = [*(number[at] for at in (*_CODE, *_DATA)), number[_BRK], libc.sbrk(0), number[_STACK]]
    places += [start, start + len(title), *(number[at] for at in _ENVIRONMENT)]
    wanted = _MemoryMap(*places, None, 0, (1 << 32) - 1)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    done: int = libc.prctl(_SET_MM, _SET_MM_MAP, ctypes.addressof(wanted), ctypes.sizeof(wanted), 0)
    if done == 0:
        _kept.append(title)
    return done == 0
