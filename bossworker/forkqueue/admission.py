"""Which thread may start a child, and when."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from bossworker.forkqueue import limits
from bossworker.forkqueue.children import Child, Children, Started
from bossworker.forkqueue.settings import Settings
from bossworker.forkqueue.waits import sigchld_ignored

STALL_SECONDS = 30.0  # without room, after which a warning tells why: children that never end are easily overlooked

log = logging.getLogger("bossworker.forkqueue")


class Admission:
    """The threads that wait to start a child. One may when it is first, there is room, and the delay is over."""

    def __init__(self, settings: Settings, children: Children) -> None:
        self._settings = settings
        self._children = children
        # By thread: a signal handler that forks has its turn when the fork that it interrupted has. If not, both would
        # wait for ever.
        self._threads: deque[int] = deque()
        self._last_start = float("-inf")
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self._threads)

    def forget_in_child(self) -> None:
        """In a forked child, where nobody waits."""
        self._threads.clear()
        self._last_start = float("-inf")

    def enter(self, weight: int, start: Callable[[], Started], at_once: bool) -> tuple[Child, int]:
        """`start` a child when it may, or `at_once`, which is after the delay; what it is from now on.

        Room and start are one step under the lock, so that no other thread can come between: neither take the
        room nor reap a child that is not counted yet. And whatever ends the wait, an error or Ctrl-C, there is nothing
        to undo but the place in the line.
        """
        me = threading.get_ident()
        came = now = time.monotonic()

        def ready() -> tuple[Child, int] | None:
            nonlocal now
            now = time.monotonic()
            # This is called under the lock, and so is `_start`: between the look for room and the start, nobody starts
            # another child.
            if not at_once and not (self._threads[0] == me and self._has_room(weight)):
                self._warn_of_stall(now - came)
                return None
            return None if self._delay_left(now) > 0 else self._start(weight, start)

        def seconds() -> float | None:
            return self._seconds_to_look(now, came)

        if at_once:
            return self._children.until(ready, seconds)
        try:
            with self._children.lock:
                self._threads.append(me)
            return self._children.until(ready, seconds)
        finally:
            self._leave(me)

    def _leave(self, thread: int) -> None:
        with self._children.lock:
            if thread in self._threads:  # not in the child, whose line is empty
                self._threads.remove(thread)
            # Whoever is first now may have looked while we were, and have fallen asleep.
            self._children.wake()

    def _start(self, weight: int, start: Callable[[], Started]) -> tuple[Child, int]:
        child, fd = self._children.start(weight, start)
        if child.pid > 0:
            self._last_start = time.monotonic()
            self._warn_of_ignored_signal()
        return child, fd

    def _has_room(self, weight: int) -> bool:
        settings, children = self._settings, self._children
        children.look()
        if not children.running():
            return True
        running = children.weight()
        fits = running < settings.size if settings.allow_excess else running + weight <= settings.size
        return fits and limits.is_free(settings.max_load, settings.min_free_memory)

    def _delay_left(self, now: float) -> float:
        return self._last_start + self._settings.delay - now if self._settings.delay else 0

    def _seconds_to_look(self, now: float, came: float) -> float | None:
        """How long to sleep at most; None: until something happens. What is over by `now`, nobody waits for."""
        pauses = [self._delay_left(now)]
        if self._settings.max_load or self._settings.min_free_memory:
            pauses.append(limits.RECHECK_SECONDS)
        if "stall" not in self._warned:
            pauses.append(came + STALL_SECONDS - now)
        return min((pause for pause in pauses if pause > 0), default=None)

    def _warn_of_stall(self, waited: float) -> None:
        if waited >= STALL_SECONDS:
            self._warn(
                "stall",
                "no room for a child after %.0f s: %d of weight %d are running, size is %d. If they never end by "
                "themselves (the workers of a pool do not), raise size or use fork_now. (Said once.)",
                waited,
                len(self._children.running()),
                self._children.weight(),
                self._settings.size,
            )

    def _warn_of_ignored_signal(self) -> None:
        if sigchld_ignored() and not self._settings.ignore_children:
            self._warn(
                "SIGCHLD", "SIGCHLD is ignored: children are counted, but their exit statuses are lost. (Said once.)"
            )

    def _warn(self, subject: str, message: str, *args: object) -> None:
        if subject not in self._warned:
            self._warned.add(subject)
            log.warning(message, *args)
