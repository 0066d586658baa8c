"""The mailboxes of those workers that owe the boss a report; and whether they must wake it for that."""

from __future__ import annotations

from collections.abc import Callable

from bossworker.pool.wire.mailbox import Mailbox
from bossworker.pool.wire.recorder import BOSS_ASLEEP, Memory
from bossworker.pool.wire.shared_counter import fence


class Reports:
    """See the module."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words = memory.words
        self._fence = fence()
        self.before_sleep: Callable[[], None] | None = None  # called whenever the boss is about to sleep
        self._owed: dict[int, Mailbox] = {}

    def expect(self, slot: int, mailbox: Mailbox) -> None:
        """A worker came up, or was given an order."""
        self._owed[slot] = mailbox

    def forget(self, slot: int) -> None:
        """It has reported, or never will."""
        self._owed.pop(slot, None)

    @property
    def owed(self) -> bool:
        """Whether any worker owes one."""
        return bool(self._owed)

    def waiting(self) -> bool:
        """Whether there is a report to be read."""
        for mailbox in self._owed.values():  # noqa: SIM110 - any() and a generator take twice the time, and the boss spins here
            if mailbox.has_report():
                return True
        return False

    def slots(self) -> list[int]:
        """Those of the workers that have reported."""
        return [slot for slot, mailbox in self._owed.items() if mailbox.has_report()]

    def fall_asleep(self) -> bool:
        """Have the workers wake us; whether one of them has reported already."""
        if self.before_sleep is not None:
            # Whatever ZeroMQ holds without its descriptor saying so must be off before we sleep: no later event would
            # tell of it.
            self.before_sleep()
        self._words[BOSS_ASLEEP] = 1
        self._fence.release()  # see mailbox.py: they look whether we sleep after they have reported
        self._fence.acquire(False)
        # Once more, after our word and the fence: a worker that has reported before it could see that word sends no
        # message.
        return self.waiting()

    def wake_up(self) -> None:
        """They need not wake us."""
        self._words[BOSS_ASLEEP] = 0
