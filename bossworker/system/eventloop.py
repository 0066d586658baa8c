"""One poll over descriptors, deadlines and the ends of children."""

from __future__ import annotations

import os
import select
import time

from bossworker.system.cpython import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ, WRITE = select.POLLIN, select.POLLOUT
LONGEST_SLEEP = 3600.0  # seconds; poll takes milliseconds in 31 bits, and timers may be years away


class Loop:
    """Calls what is due, one call at a time; `run` returns after `stop`.

    Must be made on the main thread: SIGCHLD wakes it through a pipe of its own, so that no end of a child is missed
    between a look and the sleep.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watched: dict[int, Callable[[int], object]] = {}
        self._timers: dict[int, tuple[float, Callable[[], object]]] = {}
        self._next_timer = 0
        self._soon: list[Callable[[], object]] = []
        self._stopped = False
        self._child_ended: Callable[[], object] | None = None
        self._wake, self._waker = os.pipe()
        for fd in (self._wake, self._waker):
            os.set_blocking(fd, False)
        self.watch(self._wake, READ, self._drain)

    def watch(self, fd: int, events: int, call: Callable[[int], object]) -> None:
        """Call with the events that came whenever any of `events`, an error or a hang-up comes; or change what to."""
        self._poll.register(fd, events)
        self._watched[fd] = call

    def forget(self, fd: int) -> None:
        """Watch it no more. To be called before it is closed."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def after(self, seconds: float, call: Callable[[], object]) -> int:
        """Call once, this many seconds from now; the number to `cancel` it by."""
        self._next_timer += 1
        self._timers[self._next_timer] = (time.monotonic() + seconds, call)
        return self._next_timer

    def soon(self, call: Callable[[], object]) -> None:
        """Call once, in the next turn. Signal handlers may call this, and nothing else of ours."""
        # They run between any two steps of the loop: amid a look at all timers, for instance, which a new one would
        # break; or as `after` is about to set one, which would then take the number of theirs. This is one step.
        self._soon.append(call)

    def cancel(self, timer: int) -> None:
        """Forget a timer, if it is not past."""
        self._timers.pop(timer, None)

    def on_child(self, call: Callable[[], object]) -> None:
        """Call whenever children may have ended: once for any number of them."""
        self._child_ended = call
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def run(self) -> None:
        """Turn until stopped, which may have been before."""
        while not self._stopped:
            self.turn()

    def stop(self) -> None:
        """Return from `run` when the present call is done."""
        self._stopped = True

    def turn(self) -> None:
        """Sleep until something happens, and make the calls for it."""
        # A signal that comes between the question how long to sleep and the sleep has written to our pipe: so what its
        # handler wants done soon does not wait for anything else.
        for fd, events in self._poll.poll(self._milliseconds()):
            # An earlier call of this turn may have let go of it.
            call = self._watched.get(fd)
            if call is not None:
                call(events)
        while self._soon:
            self._soon.pop(0)()
        self._call_due()

    def close(self) -> None:
        """Give up the pipe and the signal."""
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        os.close(self._waker)

    def _milliseconds(self) -> float | None:
        if self._soon:
            return 0.0
        if not self._timers:
            return None
        first = min(at for at, _ in self._timers.values())
        left = min(first - time.monotonic(), LONGEST_SLEEP)
        return max(0.0, left * 1000)  # poll rounds up: a timer is never early

    def _call_due(self) -> None:
        now = time.monotonic()
        for at, number in sorted((at, number) for number, (at, _) in self._timers.items()):
            if at > now:
                break
            # An earlier call may have cancelled it.
            timer = self._timers.pop(number, None)
            if timer is not None:
                timer[1]()

    def _drain(self, events: int) -> None:
        # Emptied before we look for children: one that ends behind that look writes into it again.
        try:
            while os.read(self._wake, 4096):
                pass
        except BlockingIOError:
            pass
        if self._child_ended is not None:
            self._child_ended()
