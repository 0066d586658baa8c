"""What requests are about: the pools and journals in a room, commands and tasks."""

from __future__ import annotations

from starlette.requests import Request

from bossworker.web.command_jobs import CommandJobs
from bossworker.web.task_list import TaskList
from bossworker.web.watch_room import WatchRoom
from bossworker.web.watched_journal import JournalAway, WatchedJournal
from bossworker.web.watched_pool import PoolAway, WatchedPool


class PageSources:
    """See the module. `read_only`: nothing is begun by those who look, either."""

    def __init__(self, room: WatchRoom, read_only: bool) -> None:
        self.room = room
        self.commands = CommandJobs(attends=not read_only)
        self.tasks = TaskList()

    def pool(self, request: Request) -> WatchedPool:
        """The one that a request names. PoolAway."""
        pool = self.room.pool(request.path_params["pool"])
        if pool is None:
            raise PoolAway(f"there is no pool {request.path_params['pool']}: it has ended, or its door was closed")
        return pool

    def journal(self, request: Request) -> WatchedJournal:
        """The same for a journal. JournalAway."""
        journal = self.room.journal(request.path_params["journal"])
        if journal is None:
            raise JournalAway(f"there is no journal {request.path_params['journal']} here")
        return journal
