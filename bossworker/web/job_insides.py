"""A pool's job, looked at from inside: what it writes as it runs, and what it takes of memory and processor time.

With ``logs="relay"`` the boss tells the lines. A command (`run_command`) writes to the files of its job directory. Its
worker has that open: so it is found, wherever it is. What a job takes is read in /proc of its worker.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from bossworker.cli.job_entries import read_stream
from bossworker.commands import jobdir, record
from bossworker.commands.roots import find_root, is_id
from bossworker.pool.caller.operating import JobOutput
from bossworker.system import identity, proc
from bossworker.web.process_usage import UsageWatch

MOST_DIRECTORIES = 1000  # that are remembered: of jobs that were looked at while they ran
STREAM_BYTES = 1 << 16  # of a stream in one answer


class JobInsides:
    """Of the jobs of one pool. Not for several threads at once."""

    def __init__(self) -> None:
        self._usage = UsageWatch()
        self._directories: OrderedDict[int, str] = OrderedDict()  # of commands, by the id of the job

    def note_directory(self, job_id: int, told: JobOutput, asked_at: float) -> None:
        """Find the job directory of a command that ran as the boss answered, which was asked at this time."""
        if told.worker is None or job_id in self._directories or not identity.holds(told.worker):
            return
        names = [path for path in proc.open_paths(int(told.worker[0])) if is_id(os.path.basename(path))]
        # One that is younger than our question may be the next job's.
        found = [path for path in names if jobdir.time_of(os.path.basename(path)) <= asked_at]
        if found:
            self._directories[job_id] = max(found, key=os.path.basename)
            while len(self._directories) > MOST_DIRECTORIES:
                self._directories.popitem(last=False)

    def describe(self, job_id: int, told: JobOutput) -> dict[str, Any]:
        """What the page shows of it."""
        usage, unseen = None, ""
        if told.worker is not None:
            why = identity.unseen(told.worker)
            unseen = f"What it takes cannot be seen from here: its worker runs {why}." if why else ""
            usage = None if why else self._usage.look(int(told.worker[0]))
        directory = self._directories.get(job_id)
        command = None if directory is None else os.path.basename(directory)
        return {
            "usage": usage,
            "unseen": unseen,
            "logs": told.logs,
            "written": told.next,
            "directory": directory,
            "command": command if directory is not None and os.path.dirname(directory) == _own_root() else None,
        }

    def output(self, job_id: int, stream: str, since: int) -> dict[str, Any] | None:
        """What a command has written to one of its files; None: it is not known to be one."""
        directory = self._directories.get(job_id)
        if directory is None:
            return None
        root, jobid = os.path.split(directory)
        folder = record.open_job(jobid, root)
        gone = folder is None
        begin, data = read_stream(folder, stream, since, STREAM_BYTES)
        return {"since": begin, "next": begin + len(data), "text": data.decode("utf-8", "replace"), "gone": gone}


def _own_root() -> str:
    """Where `bossworker ps` looks for job directories."""
    try:
        return os.path.realpath(find_root())
    except RuntimeError:  # there is no home
        return ""
