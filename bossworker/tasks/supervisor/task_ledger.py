"""What becomes of a task, decided without I/O: is its command started again, and does the supervisor leave.

The supervisor tells the ledger what has happened (``on_...``), and does what it answers. Times are arguments: Unix
seconds of starts, monotonic ones of signals. So every order of events is tested without a process.
"""

from __future__ import annotations

from bossworker.commands import jobdir
from bossworker.commands.job_status import ENDING_SIGNALS
from bossworker.system.cpython import signal
from bossworker.tasks.supervisor.restarts import NEVER, Restarts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

END_SECONDS = 5.0  # in which a command that was told to end may fail, and be counted as having done so
_MEANS_END = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL))  # whoever may handle it


class TaskLedger:
    """See the module."""

    __slots__ = ("_asked", "_for_good", "_restarts", "_starts", "leaving", "left", "next_start", "postponed")

    def __init__(self, restarts: Restarts) -> None:
        self._restarts = restarts
        self._starts = 0
        self.next_start: float | None = None  # None: no restart is due
        self.postponed = ""  # why a restart that is due cannot be
        self.leaving = False  # all is being ended, and then the supervisor
        self.left = False
        self._for_good = False  # it leaves for somebody who cannot be refused, once the command has ended
        self._asked: dict[int, float] = {}  # signals that clients had sent to the command, and when

    def facts(self) -> dict[str, Any]:
        """What goes on record of it."""
        return {"restarts": max(0, self._starts - 1), "next_start": self.next_start, "left": self.left}

    # -- the command ------------------------------------------------------------------------------------

    def on_start(self, due: bool) -> bool:
        """It is about to start, by a restart that was `due` or for a client; whether restarts may follow."""
        if due:
            self._restarts.started()
        self._asked, self.next_start, self.postponed = {}, None, ""
        return self._restarts.policy != NEVER

    def on_started(self) -> int:
        """It runs; how often it has been started by now."""
        self._starts += 1
        return self._starts

    def on_signal(self, number: int, now: float) -> None:
        """A client sends it a signal."""
        if number in ENDING_SIGNALS:
            self._asked[number] = now

    def requested(self, ended_by: int, ended: float) -> int:
        """The signal of a client that it has ended by; 0: none. `ended_by`: the signal that killed it, or 0.

        At once, or by its own doing and soon. What it survived does not count.
        """
        if ended_by in self._asked:
            return ended_by
        return next((one for one, at in self._asked.items() if one in _MEANS_END and ended - at < END_SECONDS), 0)

    def on_end(self, state: str, elapsed: float, now: float) -> float | None:
        """It has ended, or could not be started. Seconds after which it is started again; None: it is over."""
        if self.leaving or self._for_good:
            return None
        failed, requested = state != jobdir.COMPLETED, state == jobdir.BY_REQUEST
        delay = self._restarts.delay(failed=failed, requested=requested, ran_seconds=elapsed)
        self.next_start = None if delay is None else now + delay
        return delay

    def on_postponed(self, why: str, next_start: float) -> None:
        """There is no room for a restart, which stays due."""
        self.postponed, self.next_start = why, next_start

    def on_restart_unwanted(self) -> bool:
        """No restart is to follow by itself; whether it is over now, since one was due."""
        was_due = self.next_start is not None
        self.next_start, self.postponed = None, ""
        return was_due

    # -- the supervisor ---------------------------------------------------------------------------------

    def on_leave(self, refusable: bool) -> bool:
        """It is to end all, and leave; whether it is over now. `refusable`: whoever asks can be told that it cannot."""
        self.leaving = True
        self._for_good = self._for_good or not refusable
        return self.on_restart_unwanted()

    def on_told_to_end(self) -> None:
        """The command is being told to end. After that it is time to leave."""
        self._for_good = True

    @property
    def must_leave(self) -> bool:
        """Whether nothing but the command's end has kept it from leaving."""
        return self._for_good and not self.leaving

    def on_cannot_leave(self) -> None:
        """Somebody cannot be ended. It stays, if nobody has asked but those who can be told so."""
        self.leaving = self._for_good

    def on_all_gone(self) -> bool:
        """All that was to be ended is gone; whether it leaves now."""
        self.left = self.left or self.leaving
        return self.left
