"""What a process does to be the host of a run that has just forked it, before it is told of what."""

from __future__ import annotations

import gc
import os

from bossworker.system import cpython, descendants, program, signals
from bossworker.system.descriptors import close_all_but
from bossworker.system.starter import prepare_starts


def prepare(link: int) -> None:
    """Keep nothing of the run but the link to it, and find out how commands are started here."""
    os.setsid()
    signals.disregard_endings()
    cpython.signal.signal(cpython.signal.SIGPIPE, cpython.signal.SIG_IGN)
    close_all_but(link)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    program.let_go_of_ignored()
    descendants.adopt_orphans()
    prepare_starts()
    gc.freeze()
    gc.disable()  # what goes in circles here are commands that were made to end
