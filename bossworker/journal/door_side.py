"""The scribe's line to a door's process: jobs of clients that want to be kept what they have (``keep=True``).

To such a client, a journal means what it means to the program: its call returns once its jobs are on the disk, and its
results are there before it gets them, for the next client of its identity too, whoever is killed. All else that clients
and door say goes between the door and the boss.
"""

from __future__ import annotations

from bossworker.journal.adding_side import AddingSide
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind


class DoorSide(AddingSide):
    """See the module. Jobs have the ids that the journal knows them by (``client_table.py``)."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._hellos: list[tuple[int, str]] = []
        self._leaving: list[tuple[int, int]] = []

    def take_other(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.TAKEN:
                ids = sorted(frame.body.cast("Q").tolist())
                self.note_retrieved(Ranges(range(job_id, job_id + 1) for job_id in ids))
            case Kind.CLIENTS:
                self._hellos.append((messages.REQUEST.unpack(frame.head)[0], bytes(frame.body).decode()))
            case Kind.CLIENT_GONE:
                self._leaving.append(messages.CLIENT_GONE.unpack(frame.head))
            case Kind.LINE_END:
                self._leaving.append((0, messages.COUNT.unpack(frame.head)[0]))

    def take_hellos(self) -> list[tuple[int, str]]:
        """Clients that have come: the numbers of the requests, and the identities."""
        hellos, self._hellos = self._hellos, []
        return hellos

    def take_leaving(self) -> list[tuple[int, int]]:
        """Clients of which the door has nothing more: the numbers of requests to drop what they have, or 0; theirs."""
        leaving, self._leaving = self._leaving, []
        return leaving
