"""Where a worker writes its Python stack when it is asked for it by a signal, whatever it is doing.

`faulthandler` does that in C, in the signal handler itself: also while C code runs that keeps the interpreter's lock,
as a regular expression may for hours. It writes to an unnamed memory file, which the boss opens through /proc.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
from contextlib import suppress

from bossworker.pool.wire.recorder import STACK_FD, STACK_FILE, Recorder
from bossworker.pool.wire.worker_wire import out_of_the_way
from bossworker.system.signals import SHOW_STACK


def offer_stack(recorder: Recorder) -> None:
    """Be ready to write it, and say where; not on a platform, or amid a shortage, that has nowhere for it."""
    if SHOW_STACK is None or not hasattr(os, "memfd_create"):
        return
    with suppress(OSError, RuntimeError, ValueError):
        fd = out_of_the_way(os.memfd_create(STACK_FILE))
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR | os.O_APPEND)  # the boss empties it
        # The handler before the word where it writes: the boss asks only those whose word is there, and by default the
        # signal would end us.
        faulthandler.register(SHOW_STACK, file=fd, all_threads=True)
        recorder.words[STACK_FD] = fd
