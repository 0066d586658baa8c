"""The one module that knows what a job directory looks like::

    <root>/<jobid>/
        job.json        what was asked (written once)
        status.json     how it stands (replaced as a whole)
        stdout, stderr  straight from the command
        files/          the command's working directory
        request.9       somebody has asked for signal 9 to be sent (an empty file, so any number may ask at once)

A command that had no directory while it ran may be kept afterwards as a small one: see ``ended_job.py``.

At every instant, and after a crash or on a full disk, what stands there is consistent:

- The directory is made under a hidden name and gets its own when all is in it. One without a readable ``job.json`` is
  no job.
- A status is written beside the old one and takes its place by a rename.
- Room for the last status is taken before the command starts, so that a full disk cannot keep it from being told.

Nothing is flushed to the platter: after a power failure a status may be an older one, but that names processes of
before the restart, and no reader takes it for running.

All access is by the directory's descriptor and follows no link, so nothing in it leads a reader anywhere else.
"""

from __future__ import annotations

import errno
import os
import time

from bossworker.commands.safe_files import Damaged, open_folder, read_json, write_all
from bossworker.system import proc
from bossworker.system.cpython import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
REWRITE_SECONDS = 0.001  # for a status that is written in place to be whole
WITHDRAW_SECONDS = 0.01  # for the word of a signal that came too late to be withdrawn
JOB, STATUS, STDOUT, STDERR, FILES = "job.json", "status.json", "stdout", "stderr", "files"
ENDED = "status"  # in job.json: how it ended, of a job that is kept only once it has
LOG = "supervisor.log"  # what was out of the ordinary in its supervision; missing where that is nothing
INFO, WARNING = "INFO", "WARNING"  # how grave it is: as it was asked for; or somebody should know

UNKNOWN, CREATED, RUNNING = "unknown", "created", "running"
COMPLETED, BY_REQUEST, BY_ERROR = "completed", "terminated by request", "terminated by error"

HIDDEN = "."  # what begins with it is not there yet, or not any more
RANDOM_BYTES = 10
PRIVATE = 0o700  # nobody but the user
ROOM = 1024  # bytes taken in advance for a status; a longer one needs no second block of the disk either

_NEW, NEXT = ".status.new", ".status.next"
_REQUEST = "request."  # and a number: somebody has asked for this signal to be sent
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def new_id() -> str:
    """UTC time to the microsecond, so that ids sort by it, and 80 bits that nobody can guess."""
    global _second
    now = time.time()
    if _second[0] != int(now):
        _second = int(now), time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{_second[1]}-{int(now % 1 * 1e6):06d}-{os.urandom(RANDOM_BYTES).hex()}"


_second = 0, ""  # Unix seconds, and how they are written: thousands of jobs may begin in one


def time_of(jobid: str) -> float:
    """When the id was made, in Unix seconds, to the microsecond that stands in it."""
    import calendar

    year, month, day = int(jobid[:4]), int(jobid[4:6]), int(jobid[6:8])
    hour, minute, second = int(jobid[9:11]), int(jobid[11:13]), int(jobid[13:15])
    return calendar.timegm((year, month, day, hour, minute, second)) + int(jobid[16:22]) / 1e6


class JobDirectory:
    """A job directory that is open for writing. Whoever runs the command owns it."""

    __slots__ = ("_mode", "_mode_is_odd", "_spare", "_status_fd", "fd", "id", "path")

    def __init__(self, path: str, fd: int, mode: int = PRIVATE, mode_is_odd: bool = False) -> None:
        """
        Args:
            path: The directory, as readers will find it; its last part is the job's id.
            fd: Its descriptor; `close` closes it.
            mode: Of the directory; its files have the same without the right to execute.
            mode_is_odd: Whether the umask takes away what the owner needs.
        """
        self.path = path
        self.id = path.rpartition("/")[2]
        self.fd = fd
        self._mode = mode
        self._mode_is_odd = mode_is_odd
        self._spare = -1  # the room for the last status
        self._status_fd = -1  # the status that has taken this room

    # -- files ------------------------------------------------------------------------------------------

    def create_file(self, name: str, flags: int = 0) -> int:
        """A new file, as private as the directory; its descriptor, open for writing unless the flags say otherwise."""
        fd = os.open(name, _CREATE | (flags or os.O_WRONLY), self._mode & 0o666, dir_fd=self.fd)
        if self._mode_is_odd:
            os.fchmod(fd, self._mode & 0o666)
        return fd

    def create_streams(self) -> tuple[int, int]:
        """stdout and stderr, to be appended to, whoever does; and to be read, by us."""
        out = self.create_file(STDOUT, os.O_APPEND | os.O_RDWR)
        try:
            return out, self.create_file(STDERR, os.O_APPEND | os.O_RDWR)
        except BaseException:
            os.close(out)
            raise

    def note(self, level: str, what: str, **facts: object) -> None:
        """Add a line to the log, if that can be done: how grave it is, what happened, and ``key=value``."""
        told = "".join(f" {name}={value!r}" for name, value in facts.items() if value != "")
        line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {level} {what}:{told}\n"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(LOG, flags, self._mode & 0o666, dir_fd=self.fd)
        except OSError:
            return
        try:
            os.write(fd, line.encode("utf-8", "backslashreplace"))
        except OSError:
            pass
        finally:
            os.close(fd)

    def files(self) -> bytes:
        """The way to the command's working directory, unless it was told another: from here, where that can be."""
        if proc.is_ours():
            return b"/proc/self/fd/%d/%b" % (self.fd, FILES.encode())
        return os.fsencode(f"{self.path}/{FILES}")

    def _create_files(self) -> None:
        os.mkdir(FILES, self._mode, dir_fd=self.fd)
        if self._mode_is_odd:
            os.chmod(FILES, self._mode, dir_fd=self.fd)

    # -- status -----------------------------------------------------------------------------------------

    def take_room(self) -> None:
        """Make sure that the last status will find room. OSError when it would not."""
        if self._spare >= 0:
            return
        # Two supervisors may have been sent for one job, by launchers of which one counted as dead. The file can be
        # made by one of them alone: the other gets FileExistsError.
        self._spare = self.create_file(NEXT)
        try:
            write_all(self._spare, b" " * ROOM)
        except BaseException:
            self._give_back_room()
            raise

    def claim(self) -> None:
        """The same, as the one who runs the command.

        FileExistsError when somebody else does, or has; FileNotFoundError when the directory is being deleted.
        """
        self.take_room()
        try:
            # Only now: the room is free again once it has become the last status, so one that comes after the whole
            # life of the other takes the room, and finds the status. Looked at before, it might see neither.
            if self.has_status():
                raise FileExistsError(errno.EEXIST, f"{STATUS} is there already", self.path)
            # Whoever deletes the job renames the directory first. If that comes before this look, nothing is started;
            # if after, the command runs, and whoever deletes it finds its status.
            here = os.stat(f"../{self.id}", dir_fd=self.fd, follow_symlinks=False)
            if not os.path.samestat(here, os.fstat(self.fd)):
                raise FileNotFoundError(errno.ENOENT, "it is another directory", self.path)
        except BaseException:
            self._give_back_room()
            raise

    def _give_back_room(self) -> None:
        os.unlink(NEXT, dir_fd=self.fd)
        os.close(self._spare)
        self._spare = -1

    def has_status(self) -> bool:
        """Whether somebody is, or was, in charge of the command."""
        return STATUS in os.listdir(self.fd)

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace the status. OSError when it could not be: then the old one stands.

        One that says what runs finds room even on a full disk: without it, nobody could end what fills the disk.
        """
        try:
            self.write_json(STATUS, status)
        except OSError:
            if self._spare < 0 or status["state"] != RUNNING:
                raise
            self._write_in_room(status)

    def _write_in_room(self, status: dict[str, Any]) -> None:
        """In the room that is kept for the last status, which then gets the room of the status that this one replaces.

        Where somebody else is faster to take that, the last status is written over this one.
        """
        write_all(self._spare, _fill_room(status), at=0)
        # Readers see the old status or the new one. What is written over it in place later, on a disk that is full,
        # they may meet half written, and look again (`read_status`).
        os.rename(NEXT, STATUS, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        if self._status_fd >= 0:
            os.close(self._status_fd)
        self._status_fd, self._spare = self._spare, -1
        try:
            self.take_room()
        except OSError:  # somebody else was faster
            pass

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replace a file as a whole. OSError when it could not be: then the old one stands."""
        fd = self.create_file(_NEW)
        try:
            write_all(fd, dumps(value).encode())
        except BaseException:
            os.unlink(_NEW, dir_fd=self.fd)
            raise
        finally:
            os.close(fd)
        # Whole before it has its name: readers, and whoever looks after a crash, find the old file or this one.
        os.rename(_NEW, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def write_last_status(self, status: dict[str, Any]) -> None:
        """Replace the status for the last time, in the room that was taken."""
        try:
            self.take_room()
        except OSError:
            if self._status_fd < 0:
                raise
            write_all(self._status_fd, _fill_room(status), at=0)  # a reader who meets it half written looks again
            return
        write_all(self._spare, _fill_room(status), at=0)
        os.close(self._spare)
        self._spare = -1
        try:
            os.rename(NEXT, STATUS, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:  # the command has thrown it away, or taken our rights
            self.take_rights()
            self.write_status(status)

    def requested_signals(self, exited: bool) -> set[int]:
        """The signals that somebody has asked to be sent to the command."""
        return requested_signals(self.fd, exited)

    def take_rights(self) -> None:
        """Those to the directory, if the command has taken them from us."""
        os.fchmod(self.fd, self._mode)

    def close(self) -> None:
        """Give up the descriptors."""
        for fd in (self._spare, self._status_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self._spare = self._status_fd = self.fd = -1


def _fill_room(status: dict[str, Any]) -> bytes:
    return dumps(status).encode().ljust(ROOM)


# -- making and removing ----------------------------------------------------------------------------------------


def create(
    root: str, job: dict[str, Any], mode: int = PRIVATE, jobid: str | None = None
) -> tuple[JobDirectory, tuple[int, int]]:
    """A new job directory under a root that exists, complete but for a status; and its streams.

    Args:
        mode: The directory's; who may look into that may read the files.
        jobid: Its name, from `new_id`, where it has to be known before.
    OSError when it could not be made; then nothing of it is left.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # a link, too
    try:
        return create_at(folder, root, job, mode, jobid, own=False)
    finally:
        os.close(folder)


def create_at(
    folder: int, root: str, job: dict[str, Any], mode: int = PRIVATE, jobid: str | None = None, own: bool = True
) -> tuple[JobDirectory, tuple[int, int]]:
    """The same, under a root that is open: its path is not followed again.

    PermissionError with `own`: where others may write to the root, one has put a directory of theirs in its place.
    """
    text = dumps({"format": FORMAT, **job}).encode()
    name = jobid or new_id()
    hidden = f"{HIDDEN}{name}"
    os.mkdir(hidden, mode, dir_fd=folder)
    directory = None
    try:
        directory = _open_new(f"{root}/{name}", folder, hidden, mode)
        if own and not is_own(directory.fd):
            raise PermissionError(errno.EPERM, "somebody else has taken its place", directory.path)
        fd = directory.create_file(JOB)
        try:
            write_all(fd, text)
        finally:
            os.close(fd)
        directory._create_files()
        streams = directory.create_streams()
        # All is in it by now: who lists the root at any moment sees a whole job or none.
        os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        if directory is not None:
            directory.close()
        _remove_at(folder, hidden)
        raise
    return directory, streams


def _open_new(path: str, folder: int, hidden: str, mode: int) -> JobDirectory:
    try:
        fd = open_folder(hidden, folder)
    except PermissionError:  # a umask that leaves the owner nothing
        _open_up(folder, hidden, mode)
        return JobDirectory(path, open_folder(hidden, folder), mode, mode_is_odd=True)
    odd = os.fstat(fd).st_mode & 0o777 != mode  # a group's bit above these comes from the root
    if odd:
        os.fchmod(fd, mode)
    return JobDirectory(path, fd, mode, odd)


def is_own(fd: int) -> bool:
    """Whether a file or folder is this user's. What is another's may hold anything, and is not to be trusted."""
    return os.fstat(fd).st_uid == os.geteuid()


# `folders` is imported where something is removed, since supervisors can do without it.


def _open_up(folder: int, name: str, mode: int) -> None:
    from bossworker.system import folders

    folders.open_up(name, folder, mode)


def _remove_at(folder: int, name: str) -> None:
    from bossworker.system import folders

    folders.remove_at(folder, name)


# -- reading ----------------------------------------------------------------------------------------------------


def read_status(folder: int) -> dict[str, Any]:
    """``status.json``, as `read_json`; looks again where it is just being written, in place, on a disk that is full."""
    try:
        return read_json(folder, STATUS)
    except Damaged:
        # It may be written in place just now. One that is damaged for good is so at the second look.
        time.sleep(REWRITE_SECONDS)
        return read_json(folder, STATUS)


def request_signal(folder: int, number: int) -> bool:
    """Leave word of a signal that is about to be sent. False: there is such a word already, somebody else's."""
    try:
        os.close(os.open(f"{_REQUEST}{number}", _CREATE | os.O_WRONLY, 0o600, dir_fd=folder))
    except FileExistsError:
        return False
    return True


def withdraw_signal(folder: int, number: int) -> None:
    """Nobody has sent it."""
    os.unlink(f"{_REQUEST}{number}", dir_fd=folder)


def requested_signals(folder: int, exited: bool = False) -> set[int]:
    """The signals that somebody has asked to be sent. `exited`: the command has ended by itself, by none of them."""
    found = _requested_signals(folder)
    if found and exited:  # one may have come too late, and its word be withdrawn just now
        time.sleep(WITHDRAW_SECONDS)
        found = _requested_signals(folder)
    return found


def _requested_signals(folder: int) -> set[int]:
    try:
        numbers = [name.removeprefix(_REQUEST) for name in os.listdir(folder) if name.startswith(_REQUEST)]
    except OSError:
        return set()
    return {int(number) for number in numbers if len(number) < 3 and number.isascii() and number.isdigit()}
