"""Commands: detached ones, those that pools have run and kept, and those that wait in a queue."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from bossworker.cli.command_list import CommandList
from bossworker.cli.entries import Entry, EntryError, has_failed, is_running
from bossworker.cli.job_entries import JobEntry
from bossworker.cli.looking import command_line, process_tree, state_of
from bossworker.cli.queue_files import all_groups
from bossworker.web.process_usage import UsageWatch

MOST_LOOKED_AT = 5000  # the newest, for a filter: each is a file or two to be read
ATTEND_SECONDS = 5.0  # between looks whether somebody sees to the queues
LISTING_SECONDS = 1.0  # for which a list of the directory is taken for true
STREAM_BYTES = 1 << 16  # of a stream in one answer


class CommandJobs:
    """Those under one root."""

    def __init__(self, attends: bool = True) -> None:
        """`attends`: have somebody see to queues where nobody does, as ``bossworker ps`` has."""
        self._attends = attends
        self._attendant: threading.Thread | None = None
        self._attend_at = 0.0
        self.trouble = ""  # with that
        self._usage = UsageWatch()
        self._lock = threading.Lock()
        self._list = CommandList(take_up=False)
        self._listed_at = 0.0
        self._ended: dict[str, dict[str, Any]] = {}  # of those that have ended, what was read of them

    def _listing(self) -> list[str]:
        """The newest first."""
        if time.monotonic() >= self._listed_at + LISTING_SECONDS:
            if self._attends:
                self._see_to_queues()
            self._list = CommandList(take_up=False)
            self._listed_at = time.monotonic()
            if len(self._ended) > 4 * MOST_LOOKED_AT:
                self._ended.clear()
        return self._list.ids

    def _see_to_queues(self) -> None:
        """In a thread: a process that does not start is waited for, and nobody should have to wait with it."""
        over = self._attendant is None or not self._attendant.is_alive()
        if over and time.monotonic() >= self._attend_at and any(all_groups()):
            self._attend_at = time.monotonic() + ATTEND_SECONDS
            self._attendant = threading.Thread(target=self._attend, name="bossworker queues", daemon=True)
            self._attendant.start()

    def _attend(self) -> None:
        folders = list(all_groups())
        for folder in folders:
            folder.take_up()
        self.trouble = "; ".join(folder.trouble for folder in folders if folder.trouble)

    def detail(self, jobid: str) -> dict[str, Any] | None:
        """The same as `describe`, with what it takes just now."""
        found = self.describe(jobid)
        if found is None:
            return None
        with self._lock:
            return {**found, "usage": None if found["pid"] is None else self._usage.look(found["pid"])}

    def describe(self, jobid: str) -> dict[str, Any] | None:
        """All that is known of one; None: there is no such job."""
        if (known := self._ended.get(jobid)) is not None:
            return known
        try:
            found = self.entry(jobid).describe()
        except EntryError:
            return None
        told = {**found, "line": command_line(found), "state": state_of(found), "status": status_of(found)}
        if not is_running(found) and found["status"] != "unknown":
            self._ended[jobid] = told
        return told

    def entry(self, jobid: str) -> Entry:
        """The one of this id, whether or not there is such a job."""
        return self._list.entry(jobid)

    def find(self, status: str, text: str, offset: int, limit: int) -> dict[str, Any]:
        """Some of those that are wanted, the newest first. With a filter, among the newest some thousand."""
        with self._lock:
            ids = self._listing()
            if not status and not text:
                total, wanted = len(ids), ids[offset : offset + limit]
            else:
                fitting = [one for one in islice(ids, MOST_LOOKED_AT) if self._fits(one, status, text.casefold())]
                total, wanted = len(fitting), fitting[offset : offset + limit]
            rows = [_row(found) for found in map(self.describe, wanted) if found is not None]
            searched = min(len(ids), MOST_LOOKED_AT) if status or text else None
            told = {"total": total, "offset": offset, "rows": rows, "searched": searched, "all": len(ids)}
            return {**told, "trouble": self.trouble}

    def ids(self, status: str, text: str, most: int) -> list[str]:
        """The ids of all that are wanted."""
        with self._lock:
            found = (one for one in islice(self._listing(), MOST_LOOKED_AT) if self._fits(one, status, text.casefold()))
            return list(islice(found, most))

    def _fits(self, jobid: str, status: str, text: str) -> bool:
        found = self.describe(jobid)
        if found is None or (status and found["status"] != status):
            return False
        told = (jobid, found["name"] or "", found["line"], found["state"])
        return not text or any(text in one.casefold() for one in told)

    def output(self, jobid: str, stream: str, since: int) -> dict[str, Any] | None:
        """What it has written from this byte on; a negative number counts from the end."""
        found = self.describe(jobid)
        if found is None:
            return None
        try:
            begin, data = JobEntry(jobid).read(stream, since, STREAM_BYTES)
        except EntryError:
            return None
        text = data.decode("utf-8", "replace")
        return {"since": begin, "next": begin + len(data), "text": text, "running": is_running(found)}

    def each(self, ids: list[str], action: Callable[[Any], Any]) -> tuple[int, list[str]]:
        """Do something to each; to how many it was done, and what went wrong."""
        done, wrong = 0, []
        for jobid in ids:
            try:
                done += action(self.entry(jobid)) is not False
            except (EntryError, OSError) as error:
                wrong.append(str(error))
            self._ended.pop(jobid, None)  # it may be deleted
        return done, wrong

    def processes(self, jobid: str) -> str:
        """What it has running, as a tree."""
        found = self.describe(jobid)
        if found is None or found["pid"] is None:
            return ""
        lines = (f"{one['pid']:>8} {one['state']} {'  ' * one['depth']}{one['command']}" for one in _tree(found["pid"]))
        return "\n".join(lines)


def _tree(pid: int) -> Iterator[dict[str, Any]]:
    return process_tree(pid)


def status_of(found: dict[str, Any]) -> str:
    """As of a pool's job."""
    if is_running(found):
        return "running" if found["status"] == "running" else "queued"
    if has_failed(found):
        return "failed"
    return "done" if found["status"] == "completed" else "unknown"


def _row(found: dict[str, Any]) -> dict[str, Any]:
    """As the list of jobs shows it."""
    return {
        "id": found["id"],
        "name": found["id"][-20:][:8],
        "title": found["name"],
        "status": found["status"],
        "kind": found["state"],
        "added": found["created"],
        "started": found["started"],
        "ended": found["ended"],
        "seconds": found["elapsed"],
        "text": found["line"],
        "error": found["reason"] if found["status"] == "failed" else None,
        "retry": found["status"] == "failed",
    }
