"""The one module that knows what a job directory looks like::

    <root>/<jobid>/
        job.json        what was asked (written once)
        status.json     how it stands (replaced as a whole)
        stdout, stderr  straight from the command
        files/          the command's working directory
        request.9       somebody has asked for signal 9 to be sent (an empty file, so any number may ask at once)

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
import stat
import time

from bossworker.system.cpython import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
JOB, STATUS, STDOUT, STDERR, FILES = "job.json", "status.json", "stdout", "stderr", "files"

UNKNOWN, CREATED, RUNNING = "unknown", "created", "running"
COMPLETED, BY_REQUEST, BY_ERROR = "completed", "terminated by request", "terminated by error"

HIDDEN = "."  # what begins with it is not there yet, or not any more
RANDOM_BYTES = 10
PRIVATE = 0o700  # nobody but the user
MAX_DEPTH = 100  # of JSON: whoever reads it may be deep in calls already
ROOM = 1024  # bytes taken in advance for a status; a longer one needs no second block of the disk either

_NEW, _NEXT = ".status.new", ".status.next"
_REQUEST = "request."  # and a number: somebody has asked for this signal to be sent
_JSON_LIMIT = 64 << 20  # bytes: no request is as large, and memory is finite
_CREATE = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # of a pipe, open would wait for a writer
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Damaged(Exception):
    """What stands in the directory is not what this module writes; the text says what."""


def new_id() -> str:
    """UTC time to the microsecond, so that ids sort by it, and 80 bits that nobody can guess."""
    now = time.time()
    text = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    return f"{text}-{int(now % 1 * 1e6):06d}-{os.urandom(RANDOM_BYTES).hex()}"


def time_of(jobid: str) -> float:
    """When the id was made, in Unix seconds, to the microsecond that stands in it."""
    import calendar

    year, month, day = int(jobid[:4]), int(jobid[4:6]), int(jobid[6:8])
    hour, minute, second = int(jobid[9:11]), int(jobid[11:13]), int(jobid[13:15])
    return calendar.timegm((year, month, day, hour, minute, second)) + int(jobid[16:22]) / 1e6


class JobDirectory:
    """A job directory that is open for writing. Whoever runs the command owns it."""

    __slots__ = ("_mode", "_mode_is_odd", "_spare", "fd", "id", "path")

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
        self._spare = -1

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

    @property
    def files(self) -> str:
        """The path of the command's working directory, unless it was told another."""
        return f"{self.path}/{FILES}"

    def _create_files(self) -> None:
        os.mkdir(FILES, self._mode, dir_fd=self.fd)
        if self._mode_is_odd:
            os.chmod(FILES, self._mode, dir_fd=self.fd)

    # -- status -----------------------------------------------------------------------------------------

    def take_room(self) -> None:
        """Make sure that the last status will find room. OSError when it would not."""
        if self._spare >= 0:
            return
        self._spare = self.create_file(_NEXT)
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
            if self.has_status():  # looked at in this order: the room taken becomes the last status
                raise FileExistsError(errno.EEXIST, f"{STATUS} is there already", self.path)
            if not os.path.samestat(os.stat(self.path), os.fstat(self.fd)):
                raise FileNotFoundError(errno.ENOENT, "it is another directory", self.path)
        except BaseException:
            self._give_back_room()
            raise

    def _give_back_room(self) -> None:
        os.unlink(_NEXT, dir_fd=self.fd)
        os.close(self._spare)
        self._spare = -1

    def has_status(self) -> bool:
        """Whether somebody is, or was, in charge of the command."""
        return STATUS in os.listdir(self.fd)

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace the status. OSError when it could not be: then the old one stands."""
        self.write_json(STATUS, status)

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
        os.rename(_NEW, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def write_last_status(self, status: dict[str, Any]) -> None:
        """Replace the status for the last time, in the room that was taken."""
        self.take_room()
        write_all(self._spare, dumps(status).encode().ljust(ROOM), at=0)
        os.close(self._spare)
        self._spare = -1
        try:
            os.rename(_NEXT, STATUS, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError:  # the command has thrown it away, or taken our rights
            os.fchmod(self.fd, self._mode)
            self.write_status(status)

    def close(self) -> None:
        """Give up the descriptors."""
        for fd in (self._spare, self.fd):
            if fd >= 0:
                os.close(fd)
        self._spare = self.fd = -1


# -- making and removing ----------------------------------------------------------------------------------------


def create(
    root: str, job: dict[str, Any], mode: int = PRIVATE, jobid: str | None = None
) -> tuple[JobDirectory, tuple[int, int]]:
    """A new job directory under a root that exists, complete but for a status; and its streams.

    Args:
        mode: The directory's; who may look into that may read the files.
        jobid: Its name, from `new_id`, for who needs to know it before.
    OSError when it could not be made; then nothing of it is left.
    """
    text = dumps({"format": FORMAT, **job}).encode()
    name = jobid or new_id()
    hidden = f"{root}/{HIDDEN}{name}"
    os.mkdir(hidden, mode)
    directory = None
    try:
        directory = _open_new(f"{root}/{name}", hidden, mode)
        fd = directory.create_file(JOB)
        try:
            write_all(fd, text)
        finally:
            os.close(fd)
        directory._create_files()
        streams = directory.create_streams()
        os.rename(hidden, directory.path)
    except BaseException:
        if directory is not None:
            directory.close()
        remove_tree(hidden)
        raise
    return directory, streams


def _open_new(path: str, hidden: str, mode: int) -> JobDirectory:
    try:
        fd = os.open(hidden, _FOLDER)
    except PermissionError:  # a umask that leaves the owner nothing
        os.chmod(hidden, mode)
        return JobDirectory(path, os.open(hidden, _FOLDER), mode, mode_is_odd=True)
    odd = os.fstat(fd).st_mode & 0o777 != mode  # a group's bit above these comes from the root
    if odd:
        os.fchmod(fd, mode)
    return JobDirectory(path, fd, mode, odd)


def discard(path: str) -> int:
    """Delete a job directory, so that nobody sees it half deleted; how many files were deleted. OSError: it stays."""
    root, name = os.path.split(path)
    hidden = f"{root}/{HIDDEN}{name}"
    os.rename(path, hidden)
    return remove_tree(hidden)


def remove_tree(path: str) -> int:
    """Delete a folder and all that is in it, as far as that is allowed; how many files were deleted."""
    from bossworker.system import folders  # which supervisors do without

    return folders.remove(path)


def is_too_deep(value: object) -> bool:
    """Whether a value is nested more than MAX_DEPTH deep, or in itself."""
    layer: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members = [one for outer in layer for one in (outer.values() if isinstance(outer, dict) else outer)]
        layer = list({id(one): one for one in members if isinstance(one, (dict, list, tuple))}.values())
        if not layer:
            return False
    return True


# -- reading ----------------------------------------------------------------------------------------------------


def open_folder(path: str) -> int:
    """The descriptor of a folder that is no link."""
    return os.open(path, _FOLDER)


def open_file(folder: int, name: str) -> int:
    """The descriptor of a regular file, which is no link; OSError when it is none. Never waits."""
    fd = os.open(name, _OPEN, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{name!r} is not a regular file")
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_json(folder: int, name: str) -> dict[str, Any]:
    """A JSON object. OSError when there is no such file; Damaged when it holds something else."""
    fd = open_file(folder, name)
    try:
        text = read_all(fd, _JSON_LIMIT)
    finally:
        os.close(fd)
    try:
        value = loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise Damaged(f"{name} is damaged: it holds no object")
    return value


def read_all(fd: int, limit: int = -1) -> bytes:
    """All that is in a file from where it is read, or its first `limit` bytes."""
    parts = []
    while limit and (part := os.read(fd, 65536 if limit < 0 else min(65536, limit))):
        parts.append(part)
        limit -= len(part) if limit > 0 else 0
    return b"".join(parts)


def request_signal(folder: int, number: int) -> None:
    """Leave word of a signal that is about to be sent."""
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    os.close(os.open(f"{_REQUEST}{number}", flags, 0o600, dir_fd=folder))


def requested_signals(folder: int) -> set[int]:
    """The signals that somebody has asked to be sent."""
    try:
        numbers = [name.removeprefix(_REQUEST) for name in os.listdir(folder) if name.startswith(_REQUEST)]
    except OSError:
        return set()
    return {int(number) for number in numbers if len(number) < 3 and number.isascii() and number.isdigit()}


def write_all(fd: int, data: bytes, at: int | None = None) -> None:
    """Write all of it: a disk that fills up takes a part first, and complains then."""
    while data:
        if at is None:
            written = os.write(fd, data)
        else:
            written = os.pwrite(fd, data, at)
            at += written
        data = data[written:]
