"""Whether objects of some types have been made since one last looked; much cheaper than to look at all there are.

To look at an object is to write its reference count. In a program that has forked since, that copies a page of memory
for nearly each class or module. The garbage collector knows better: what is new is among the young, unless it has
gone through these meanwhile, which it counts.
"""

from __future__ import annotations

import gc
import sys
from typing import NamedTuple
from weakref import ref

MOST_YOUNG = 20_000  # objects; to look at more takes longer than what it saves
_HAS_GENERATIONS = sys.version_info < (3, 14) and "t" not in getattr(sys, "abiflags", "")


class Known(NamedTuple):
    """All that there was at a time: what the collector had counted, and which were young (weakly, by their ids)."""

    counted: tuple[int, int]
    young: dict[int, ref[object]]
    witness: list[object]
    """Was the youngest of all, and must still be among the young: ``gc.freeze()`` would have taken it with the others.
    (To ask the collector how many are frozen has it walk through them all.)"""


class Newcomers:
    """Keeps an eye on a type whose instances the garbage collector must know, as it does classes."""

    def __init__(self, kind: type) -> None:
        self._kind = kind
        self._known: Known | None = None

    def look(self) -> Known | None:
        """None: each was there when all were known. Otherwise look at all, and say `all_known` with this."""
        witness: list[object] = []  # before these are listed, so that it is frozen if any of them is
        # Objects only grow older: whichever moves on between these lines is seen twice, or is counted.
        young = [] if _young() > MOST_YOUNG else gc.get_objects(generation=0) + gc.get_objects(generation=1)
        types = list(map(type, young))
        # By their ids: a metaclass has its own idea of being a key.
        kinds = {number for number, one in dict(zip(map(id, types), types)).items() if issubclass(one, self._kind)}
        ours = [one for one in young if id(type(one)) in kinds] if kinds else []
        now = Known(_counted(), {id(one): ref(one) for one in ours}, witness)
        if not _HAS_GENERATIONS or _young() > MOST_YOUNG:
            return now
        before = self._known
        # A collection that runs while we look moves objects on, and is counted: then all are looked at.
        if before is None or before.counted != now.counted or not any(one is before.witness for one in young):
            return now
        return None if all(_is_among(before.young, one) for one in ours) else now

    def all_known(self, at: Known) -> None:
        """All that there were at that look have been looked at."""
        self._known = at


def _is_among(young: dict[int, ref[object]], one: object) -> bool:
    """Whether it was among them; another may have its id since."""
    found = young.get(id(one))
    return found is not None and found() is one


def _counted() -> tuple[int, int]:
    """What changes when young objects become old ones."""
    middle, old = gc.get_stats()[1:]
    return middle["collections"], old["collections"]


def _young() -> int:
    """About how many they are."""
    youngest, collections, _ = gc.get_count()
    return youngest + collections * gc.get_threshold()[0]
