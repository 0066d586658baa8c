"""The mailbox: small orders for a worker, and its reports, in the memory that it shares with the boss.

A message only wakes one that sleeps. In a worker's slot of the flight recorder lie

    ORDERS      how many orders it was given
    ORDER_SIZE  bytes of the last one, which lies in the order area; 0: it comes over the wire
    ASLEEP      1 while the worker sleeps, or is about to
    REPORTS     how many times it has reported, and about what: that it is up, then after each batch that it is through

and in the boss's page BOSS_ASLEEP. There is one order at a time: the next one is given after the report on the last.

**Falling asleep.** Whoever is about to sleep says so and then looks once more; whoever leaves something writes it and
then looks whether the other sleeps, and if so sends a message. Both write one word and then read another, and a
processor may let the read overtake the write (x86 too: the write waits in its store buffer). Then each could see what
was before, and the message would be missing: the worker sleeps beside its order. So a fence lies between the two. With
it, the second of the two to pass its fence sees what the first one wrote.

**Order.** An order is written, then counted, and the count is read before the order; a fence on each side keeps it so.
So it is with a report and the results it is about.

The fence is a semaphore of this process alone, posted and taken (`shared_counter.fence`): to take what one has posted
oneself, with acquire, cannot come before the post, with release. Where the platform has none, messages are always sent,
and nobody stays awake for what comes without one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bossworker.pool.wire.frames import Buffer, Frame, frame_of, prefix_of
from bossworker.pool.wire.messages import PREFIX, Kind, ProtocolError
from bossworker.pool.wire.shared_counter import exclusive, fence

ORDERS, ORDER_SIZE = 16, 17  # words of the slot: those that the boss writes,
ASLEEP, REPORTS = 32, 33  # and those that the worker writes, in another line of the cache
ORDER_ROOM = 3 << 15  # bytes, for as many tiny jobs as make a batch; a longer order comes over the wire
_SPILLED, _LEAVES, _COUNT_SHIFT = 1, 2, 2


class WorkerReport(NamedTuple):
    """What a worker says of its last order."""

    first: bool  # it had none yet: the worker is up
    spilled: bool  # results came by themselves, over the wire
    leaves: bool  # it wants to be replaced, and leaves


class Mailbox:
    """One worker's. `words` and `area` are of its slot; the boss and the worker each have an object of their own."""

    def __init__(self, words: memoryview, area: memoryview) -> None:
        self._words = words
        self._area = area
        self._post, self._take = fence().release, fence().acquire  # one after the other, they are the fence
        self.always = not exclusive()  # whether nothing comes without a message
        self._orders = 0  # given, or taken
        self._reports = 0  # made, or seen

    # -- the boss's side --------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new worker has the slot, which was wiped before it was forked."""
        self._orders = self._reports = 0

    def give(self, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), by_wire: bool = False) -> bool:
        """Leave an order, or word that it comes over the wire; whether the worker must be woken for it."""
        words = self._words
        words[ORDER_SIZE] = 0 if by_wire else self._write(prefix_of(kind, head, body), head, *body)
        self._post()
        self._take(False)
        self._orders += 1
        # Counted once it is written, with a fence before: a worker that sees the count sees the order.
        words[ORDERS] = self._orders
        self._post()
        self._take(False)
        # The worker says that it sleeps, then looks for an order; we leave the order, then look whether it sleeps; each
        # with a fence in between. So it sees the order, or we see that it sleeps.
        return self.always or words[ASLEEP] != 0

    def _write(self, *parts: Buffer) -> int:
        at = 0
        for part in parts:
            end = at + len(part)
            self._area[at:end] = part
            at = end
        return at

    def has_report(self) -> bool:
        """Whether there is something to be read."""
        return self._words[REPORTS] >> _COUNT_SHIFT != self._reports

    def read_report(self) -> WorkerReport:
        """The report that is there. ProtocolError when it cannot be the worker's."""
        # The fence behind this read has its counterpart in `report`: what the report is about is there once the report
        # is.
        found = self._words[REPORTS]
        self._post()
        self._take(False)
        if found >> _COUNT_SHIFT != self._reports + 1:
            raise ProtocolError("its mailbox was written over")
        self._reports += 1
        return WorkerReport(self._reports == 1, bool(found & _SPILLED), bool(found & _LEAVES))

    # -- the worker's side ------------------------------------------------------------------------------

    def has_order(self) -> bool:
        """Whether an order has been given that was not taken."""
        return self._words[ORDERS] != self._orders

    def take_order(self) -> Frame | None:
        """The order that is there, in the shared memory itself; None if it comes over the wire."""
        self._post()
        self._take(False)
        self._orders += 1
        size = self._words[ORDER_SIZE]
        return frame_of(self._area[:size]) if size else None

    def fall_asleep(self) -> bool:
        """Have the boss wake us; whether there is an order already."""
        self._words[ASLEEP] = 1
        self._post()
        self._take(False)
        # After the word that we sleep, and the fence: an order that came before that word is seen here, and for one
        # that comes after it we are woken.
        return self.has_order()

    def wake_up(self) -> None:
        """Orders may come without a message again."""
        self._words[ASLEEP] = 0

    def report(self, spilled: bool = False, leaves: bool = False) -> bool:
        """Report that the batch is done; whether a message must be sent whatever the boss does."""
        self._reports += 1
        self._post()
        self._take(False)
        # Between two fences: behind the results that it is about, and before the caller's look whether the boss sleeps.
        self._words[REPORTS] = self._reports << _COUNT_SHIFT | _SPILLED * spilled | _LEAVES * leaves
        self._post()
        self._take(False)
        return self.always


def fits(head: bytes, body: Sequence[Buffer]) -> bool:
    """Whether such an order finds room in a mailbox."""
    return PREFIX.size + len(head) + sum(map(len, body)) <= ORDER_ROOM
