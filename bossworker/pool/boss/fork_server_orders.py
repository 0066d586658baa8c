"""What the fork server is told to do: start workers, signal them; and which handlers those to come have."""

from __future__ import annotations

from collections.abc import Sequence

from bossworker.pool.boss.actions import Spawn
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.poller import Poller
from bossworker.pool.boss.worker_lines import has_room
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Buffer
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.recorder import Memory
from bossworker.system import processes

OWN_DESCRIPTORS = 100  # kept free for links, files and the like, besides those counted


class ForkServerOrders:
    """See the module."""

    def __init__(
        self, link: Link, poller: Poller, ledger: Ledger, intake: Intake, memory: Memory, options: Options
    ) -> None:
        self.link = link
        self.by_zmq = True  # whether workers may connect by ZeroMQ, if there is room
        self._poller = poller
        self._ledger = ledger
        self._intake = intake
        self._memory = memory
        self._relayed = options.relayed
        self._unasked = set(range(options.worker_count))  # slots whose first worker the fork server starts by itself
        self._most_descriptors = processes.most_descriptors()

    def tell(self, kind: Kind, head: bytes, body: Sequence[Buffer] = ()) -> None:
        if not self.link.send(kind, head, body):
            self._poller.refresh(self.link)

    def spawn(self, action: Spawn) -> None:
        """Have a worker started in this slot."""
        slot, workers = action.slot, len(self._ledger.workers)
        self._intake.open(slot)
        self._memory.most_held = max(0, self._most_descriptors - OWN_DESCRIPTORS - 2 * workers)
        # The fork server has started these by itself, perhaps before we were even here: to ask for one would make it
        # two.
        if slot in self._unasked:
            self._unasked.remove(slot)
        else:
            by_zmq = self.by_zmq and has_room(workers, self._most_descriptors, self._relayed)
            worker = self._ledger.workers[slot]
            self.tell(Kind.SPAWN, messages.SPAWN.pack(slot, worker.index, by_zmq, worker.generation))

    def signal(self, slot: int, number: int) -> None:
        """Have a worker signalled; 0: end it with all that is below it."""
        self.tell(Kind.KILL, messages.KILL.pack(slot, self._ledger.workers[slot].pid, number))
