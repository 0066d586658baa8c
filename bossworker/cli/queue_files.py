"""The folder of a group of queued commands, ``<root>/.queue/<group>/``::

    waiting/<jobid>.json    what has been added and has not ended, as it was asked for
    settings.json           how many run at once, and whether they are paused
    jobs.db                 the journal of the group's pool: what of it is queued, runs, or has ended
    socket, lock, log       of the process that sees to it (spooler.py)

No group is deleted while ``<root>/.queue/.lock`` is held, which whoever puts something into one does.
A command is on the disk once `add` has returned, whether or not that process runs. What becomes of it is for the
journal to say; that it has started, for its job directory.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from typing import Any, NamedTuple

from bossworker.cli.entries import EntryError, GoneError
from bossworker.cli.room import room_for
from bossworker.commands import record
from bossworker.commands.request import check
from bossworker.commands.roots import ROOT_VARIABLE, find_root, is_id, make_root
from bossworker.pool.door.addresses import dial
from bossworker.system.syncing import sync_folder_of

START_SECONDS = 20.0  # for the process to be there
MOST_STARTS = 2  # whoever asks it gives up sooner, once it has ended with an error as often as that
ANSWER_SECONDS = 30.0  # for it to answer
LOOK_SECONDS = 0.02  # between looks whether it is there
DEFAULT = "default"  # the group
MOST_SLOTS = 1024  # as many workers as a pool may have
_GROUP = re.compile(r"[A-Za-z0-9_][\w.-]{0,39}", re.ASCII)
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from bossworker.cli.spooler import main; sys.exit(main(sys.argv[2], int(sys.argv[3])))"
)


_COMMAND: dict[str, Any] = {"cmd": [], "shell": False, "cwd": None, "timeout": 0.0, "meta": {}}
_UNKNOWN: dict[str, Any] = {
    "command": _COMMAND,
    "environment": {},
    "created": None,
    "after": [],
    "not_before": 0.0,
    "priority": 0,
}
"""Of one whose file is damaged."""


class GroupSettings(NamedTuple):
    """What `group` sets."""

    slots: int = 1
    paused: bool = False


def check_group(text: str) -> str:
    """The name of a group. ValueError."""
    if not _GROUP.fullmatch(text):
        raise ValueError("a group is called by up to 40 letters, digits, _, - and .")
    return text


def no_such_group(name: str) -> GoneError:
    """For a name that no group has."""
    return GoneError(f"there is no group {name}; bossworker group lists them")


class QueueFolder:
    """See the module. Nothing is made until something is put in."""

    def __init__(self, group: str) -> None:
        self.group = check_group(group)
        self.path = f"{_home()}/{group}"
        self.journal = f"{self.path}/jobs.db"
        self.socket = f"{self.path}/socket"
        self.lock = f"{self.path}/lock"
        self.trouble = ""
        """Why nobody sees to it."""
        self.last_words = ""
        """What the process before had to say, if it ended with work left, and we have started another one."""

    def make(self) -> None:
        """OSError when it cannot be made."""
        for folder in (self.path, f"{self.path}/waiting"):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)

    def delete(self) -> None:
        """Forget it, and its settings: commands that have ended stay jobs.

        EntryError: some have not ended, or its process does not leave. GoneError: there is no such group.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._delete_if_left():
            self._ask_once({"leave": True})
            if time.monotonic() > deadline:
                raise EntryError(f"the process of group {self.group} does not leave")
            time.sleep(LOOK_SECONDS)

    def _delete_if_left(self) -> bool:
        """Whether it is deleted now: it is not while there is a process that sees to it."""
        with _home_locked(fcntl.LOCK_EX):
            if not os.path.isdir(self.path):
                raise no_such_group(self.group)
            if left := self._count_unfinished():
                raise EntryError(
                    f"group {self.group}: commands that have not ended: {left}; wait for them, or end them first "
                    f"(bossworker ps -g {self.group})"
                )
            if (lock := self._take_lock()) is None:
                return False
            os.close(lock)
            _delete_leftovers()
            # First of all: of a group that is half deleted, a journal could stay that knows of less than has run.
            os.rename(self.path, _leftovers())
            _delete_leftovers()
            return True

    def _count_unfinished(self) -> int:
        """Not all that is in the folder: one that has just ended is struck off a moment later than others see so."""
        return sum(not record.read(one).finished for one in self.waiting_ids())

    # -- what is waiting ------------------------------------------------------------------------------------

    def put(self, request: Mapping[str, Any]) -> None:
        """Add a command. It is on the disk when this returns. EntryError: there is no room."""
        with room_for("command"):
            self._write(f"waiting/{request['id']}.json", request)

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        """Whole, or not at all."""
        path = f"{self.path}/{name}"
        new = f"{path}.{os.getpid()}.new"
        with _home_locked(fcntl.LOCK_SH):
            self.make()
            try:
                with open(new, "w", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
                    json.dump(value, file)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(new, path)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(new)
                raise OSError(error.errno, error.strerror, self.path) from error
            sync_folder_of(path)

    def waiting_ids(self) -> list[str]:
        """Of what has been added and has not ended, the oldest first."""
        with suppress(FileNotFoundError, NotADirectoryError):
            names = sorted(os.listdir(f"{self.path}/waiting"))
            return [name.removesuffix(".json") for name in names if is_id(name.removesuffix(".json"))]
        return []

    def request(self, jobid: str) -> dict[str, Any] | None:
        """One of them, as it was added; None when it is gone. ``damaged`` says that nothing is known but its id."""
        try:
            with open(f"{self.path}/waiting/{jobid}.json") as file:
                found: dict[str, Any] = json.load(file)
            _check_request(found, jobid)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return {**_UNKNOWN, "id": jobid, "damaged": "what was kept of it is damaged"}
        return found

    def remove(self, jobid: str) -> None:
        """It has ended."""
        with suppress(FileNotFoundError):
            os.unlink(f"{self.path}/waiting/{jobid}.json")

    # -- settings -------------------------------------------------------------------------------------------

    @property
    def settings(self) -> GroupSettings:
        """Those that were set; of what is damaged, as if nobody had."""
        with suppress(OSError, ValueError, TypeError, RecursionError), open(f"{self.path}/settings.json") as file:
            found = GroupSettings(**json.load(file))
            if type(found.slots) is int and 1 <= found.slots <= MOST_SLOTS and isinstance(found.paused, bool):
                return found
        return GroupSettings()

    @settings.setter
    def settings(self, settings: GroupSettings) -> None:
        with room_for("setting"):
            self._write("settings.json", settings._asdict())

    # -- the process that sees to it ------------------------------------------------------------------------

    def ask(self, **question: Any) -> dict[str, Any]:
        """Have the process look at what is here, and do what is asked. It is started if there is none.

        EntryError: it does not start, or cannot do it.
        """
        deadline, starts = time.monotonic() + START_SECONDS, 0
        while (answer := self._ask_once(question)) is None:
            starts += self._start_if_free()
            if starts > MOST_STARTS and self.last_words:
                deadline = 0.0
            self._check(deadline)
        if "error" in answer:
            raise EntryError(f"group {self.group}: {answer['error']}")
        return answer

    def nudge(self) -> None:
        """Have the process look at what is here, if there is one."""
        self._ask_once({})

    def poke(self) -> None:
        """Have the process look at what is here; or start it, which looks at once, and do not wait for that."""
        deadline = time.monotonic() + START_SECONDS
        while self._ask_once({}) is None and not self._start_if_free():
            self._check(deadline)  # it is starting, or about to leave: then it may not have seen what we have put here

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            why = self.last_words or self._last_words() or "it says nothing"
            raise EntryError(f"the process of group {self.group} does not start: {why}")
        time.sleep(LOOK_SECONDS)

    def _ask_once(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """None: nobody is there, or is just leaving."""
        try:
            with dial(self.socket, ANSWER_SECONDS) as sock:
                sock.sendall(json.dumps(question).encode() + b"\n")
                told = b"".join(iter(lambda: sock.recv(1 << 16), b""))
        except (FileNotFoundError, ConnectionError):
            return None
        answer: dict[str, Any] | None = json.loads(told) if told else None
        return answer

    def take_up(self) -> None:
        """See to it that somebody attends to what is here: after a restart of the machine, nobody does.

        Where nobody can, `trouble` says why: whoever looks is to see what there is all the same.
        """
        self.trouble = ""
        try:
            if self.waiting_ids() and not self.settings.paused:
                self.poke()
        except (EntryError, OSError) as error:
            self.trouble = str(error)

    def _start_if_free(self) -> bool:
        """Start the process, unless there is one already. It inherits the lock, so two who start one start one.

        False: there is one; or what was to start it was killed, so that it has to be tried again.
        """
        with room_for("queue"), _home_locked(fcntl.LOCK_SH):
            self.make()
            if (lock := self._take_lock()) is None:
                return False
            try:
                return self._start(lock)
            finally:
                os.close(lock)

    def _take_lock(self) -> int | None:
        """A descriptor that holds it; None: its process does."""
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                return None
            raise
        return lock

    def _start(self, lock: int) -> bool:
        """It is nobody's child, has no terminal, and goes on when we end."""
        path = json.dumps(list(map(os.path.abspath, sys.path)))
        command = [sys.executable, "-c", _PROGRAM, path, self.group, str(lock)]
        self.last_words = self._last_words()
        with open(f"{self.path}/log", "wb") as log:
            ended = subprocess.run(
                ["/bin/sh", "-c", 'exec "$@" &', "sh", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={**os.environ, ROOT_VARIABLE: find_root()},  # which may be relative to our folder
                pass_fds=(lock,),
                start_new_session=True,
                check=False,
            )
        return not ended.returncode

    def _last_words(self) -> str:
        with suppress(OSError), open(f"{self.path}/log", errors="replace") as log:
            return (log.read().splitlines() or [""])[-1]
        return ""


def _check_request(found: Any, jobid: str) -> None:
    """TypeError, ValueError, LookupError or AttributeError: it is not what was added under this id."""
    command = found["command"]
    check(command)
    texts = [one for pair in found["environment"].items() for one in pair]
    numbers = [found[name] for name in ("created", "not_before", "priority")]
    if not (
        found["id"] == jobid
        and _COMMAND.keys() <= command.keys()
        and isinstance(command["meta"], dict)
        and all(map(is_id, found["after"]))
        and all(isinstance(text, str) for text in texts)
        and all(type(one) in (int, float) and isfinite(one) for one in numbers)
    ):
        raise ValueError


def _home() -> str:
    return f"{find_root()}/.queue"


def _leftovers() -> str:
    """A group that is being deleted, or was by somebody who has been killed."""
    return f"{_home()}/.deleted"


def _delete_leftovers() -> None:
    if os.path.isdir(_leftovers()):
        shutil.rmtree(_leftovers())


@contextmanager
def _home_locked(how: int) -> Iterator[None]:
    """See the module. Made if need be: OSError when it cannot be.

    Args:
        how: LOCK_SH, to put something in; LOCK_EX, to delete a group.
    """
    os.close(make_root())
    with suppress(FileExistsError):
        os.mkdir(_home(), 0o700)
    lock = os.open(f"{_home()}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, how)
        yield
    finally:
        os.close(lock)


def all_groups() -> Iterator[QueueFolder]:
    """By name."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(os.listdir(_home())):
            if _GROUP.fullmatch(name) and os.path.isdir(f"{_home()}/{name}"):
                yield QueueFolder(name)
