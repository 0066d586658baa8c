"""All handles of this process: what becomes of them in a forked child, and when the program ends."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from bossworker.system.exits import run_at_exit


class Handle(Protocol):
    """A `BossWorker`."""

    def _disown(self) -> None: ...

    def _warn_of_neglect(self) -> None: ...


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def register(handle: Handle) -> None:
    """See the module."""
    _handles.add(handle)
    run_at_exit(_at_exit)


def _in_child() -> None:
    # A copy: a garbage collection may drop some meanwhile.
    for handle in list(_handles):
        handle._disown()


os.register_at_fork(after_in_child=_in_child)


def _at_exit() -> None:
    for handle in list(_handles):
        handle._warn_of_neglect()


# As early as this, since exit functions run last what was registered first: those of the program may shut pools down.
run_at_exit(_at_exit)
