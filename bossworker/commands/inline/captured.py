"""Commands by the thousand: no directory and no file for one that succeeds, a small job directory for one that fails.

A worker has one file for stdout and one for stderr, without a name, which its commands use one after the other.
"""

from __future__ import annotations

import fcntl
import os
import shlex
from collections.abc import Mapping
from typing import Any

from bossworker.commands import ended_job, job_status, jobdir, output
from bossworker.commands.inline.handler import CommandHandler
from bossworker.commands.inline.interruption import Interruption
from bossworker.commands.inline.run import CommandRun
from bossworker.commands.quota import Quota
from bossworker.commands.request import Request
from bossworker.commands.roots import Root, make_root
from bossworker.system import descendants, identity

IN_RESULT = 1 << 18  # bytes of a stream that are in the result; what is longer is handed over as a file
GROUP, LINES, DIRECT = "group", "lines", "direct"
TAG = "tag"  # in a job's meta: what its lines begin with, where they are passed on


class CapturingHandler(CommandHandler):
    """A work handler for commands whose output goes to whoever runs the pool, and is kept only if they fail.

    A job is as for `CommandHandler`, with a ``cwd``. So is the result, but that ``stdout`` and ``stderr`` are bytes, or
    the path of a file for whoever takes the result to delete; and ``jobid`` is empty unless a job directory was made.
    """

    def __init__(self, folder: str, how: str = GROUP, root: Root = None, begun: str = "") -> None:
        """
        Args:
            folder: For files that are handed over; made when the first one is.
            how: ``group``: output is in the result. ``lines``: whole lines go to our own stdout and stderr as they
                come. ``direct``: the commands have these themselves.
            root: For job directories.
            begun: The path of a file to which each command is added as it starts; empty: none.
        """
        super().__init__(root)
        self.folder = folder
        self.how = how
        self._capture: Capture | None = None
        self._turn = LineTurn() if how == LINES else None
        self._begun = BegunLog(begun) if begun else None

    def _new_run(self, request: Request, interruption: Interruption) -> CommandRun:
        if self.how == DIRECT:
            streams = os.dup(1), os.dup(2)
        else:
            self._capture = self._capture or Capture()
            streams = self._capture.streams()
        if self._begun is not None:
            self._begun.add(request)
        directory = LateDirectory(self.root, request, () if self.how == DIRECT else streams)
        run = CommandRun((directory, streams), request, interruption)
        if self._turn is not None:
            run.quota = RelayingQuota(run.quota, streams, os.fsencode(str(request.meta.get(TAG, ""))), self._turn)
        return run

    def _result(self, run: CommandRun, status: dict[str, Any]) -> dict[str, Any]:
        result = {
            "jobid": "",
            **job_status.measured(status),
            "stdout": b"",
            "stderr": b"",
        }
        if self.how == GROUP:
            result["stdout"], result["stderr"] = (self._hand_over(run.directory.id, fd) for fd in run.streams)
        return result

    def _conclude(self, run: CommandRun) -> Mapping[str, Any]:
        result = super()._conclude(run)
        assert isinstance(result, dict)
        assert isinstance(run.directory, LateDirectory)
        result["jobid"] = run.directory.id if run.directory.kept else ""
        if self._capture is not None and descendants.has_children():
            self._capture = None  # what it has left running may write on: to its own file
        return result

    def _hand_over(self, jobid: str, fd: int) -> bytes | str:
        if os.fstat(fd).st_size <= IN_RESULT:
            return output.read_at(fd)
        os.makedirs(self.folder, 0o700, exist_ok=True)
        path = f"{self.folder}/{jobid}.{fd}"
        ended_job.copy(fd, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return path


class Capture:
    """The two files of a worker."""

    def __init__(self) -> None:
        self._files = [_nameless(), _nameless()]

    def streams(self) -> tuple[int, int]:
        """Descriptors of both, empty, for a command; to be closed."""
        for file in self._files:
            if os.fstat(file).st_size:
                os.ftruncate(file, 0)
        return os.dup(self._files[0]), os.dup(self._files[1])

    def __del__(self) -> None:
        for file in self._files:
            os.close(file)


def _nameless() -> int:
    """A file without a name, that is appended to, whoever writes."""
    if hasattr(os, "O_TMPFILE"):
        try:
            folder = os.environ.get("TMPDIR") or "/tmp"
            return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:  # not every file system has such files
            pass
    import tempfile  # which takes milliseconds to load

    with tempfile.TemporaryFile(buffering=0) as file:
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
        return os.dup(file.fileno())


class BegunLog:
    """A file of the commands that have begun, a line each: what of it has not ended, was interrupted."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def add(self, request: Request) -> None:
        """One is about to be started. A full disk does not keep it from that."""
        text = request.argv[-1] if request.shell else shlex.join(request.argv)
        try:
            os.write(self._fd, os.fsencode(text.replace("\n", "\0")) + b"\n")
        except OSError:
            pass

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


class LateDirectory(jobdir.JobDirectory):
    """A job directory that is made only when a command has ended, if it is to be kept."""

    __slots__ = ("_request", "_root", "_streams", "kept")

    def __init__(self, root: Root, request: Request, streams: tuple[int, ...]) -> None:
        super().__init__(jobdir.new_id(), streams[0] if streams else 1)
        self._root = root
        self._request = request
        self._streams = dict(zip((jobdir.STDOUT, jobdir.STDERR), streams, strict=False))
        self.kept = False

    def take_room(self) -> None:
        """There is none to be taken in advance."""

    def write_status(self, status: dict[str, Any]) -> None:
        """Nobody can ask for it yet."""

    def requested_signals(self) -> set[int]:
        """Nobody can have asked for any."""
        return set()

    def discard(self) -> None:
        """There is nothing."""

    def write_last_status(self, status: dict[str, Any]) -> None:
        """Make it, with all that there is to say. OSError when there is no room."""
        root = make_root(self._root)
        try:
            job = {**self._request.record(), "supervisor": identity.own()}
            ended_job.keep(root, self.id, job, status, self._streams)
            self.kept = True
        finally:
            os.close(root)

    def close(self) -> None:
        """Its descriptors are the streams', and closed with these."""


class LineTurn:
    """Lets one worker at a time write to our stdout and stderr, so that no line is torn."""

    def __init__(self) -> None:
        """To be made before the workers are forked: they lock one file, and each lock belongs to a process."""
        self._fd = _nameless()

    def __del__(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)


class RelayingQuota(Quota):
    """Passes whole lines on at each look that a quota takes at the command's output."""

    def __init__(self, quota: Quota, streams: tuple[int, int], tag: bytes, turn: LineTurn) -> None:
        super().__init__(quota.memory, 0, streams, quota._members)
        self._tag = tag
        self._turn = turn
        self._passed = [0, 0]

    def __bool__(self) -> bool:
        return True

    def trim(self, at_last: bool = False) -> None:
        """Pass on what has come; `at_last` with what is no whole line."""
        for index, fd in enumerate(self._streams):
            if os.fstat(fd).st_size > self._passed[index]:
                self._pass_on(index, fd, at_last)

    def _pass_on(self, index: int, fd: int, at_last: bool) -> None:
        while data := os.pread(fd, 1 << 20, self._passed[index]):
            whole = data if at_last else data[: data.rfind(b"\n") + 1]
            if not whole:
                return
            self._passed[index] += len(whole)
            with self._turn:
                jobdir.write_all(index + 1, tagged(whole, self._tag))


def tagged(data: bytes, tag: bytes) -> bytes:
    """Lines, with the tag before each."""
    if not (tag and data):
        return data
    return b"".join(tag + line for line in data.splitlines(keepends=True))
