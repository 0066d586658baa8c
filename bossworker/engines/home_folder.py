"""The folder that a program's home line has its socket in; and those of programs that were killed, which go.

Each folder (0700) has a link, ``owner``, that leads nowhere: its text names the process that made it. A link is there
with its whole text or not at all, however that process ends. One whose owner is provably gone is removed by the next
that makes one there, and by the nodes that lose their line to it. Of an owner on another host, or in another pid
namespace, nothing is known here: its folder stays.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bossworker.system import identity

LONGEST_PATH = 100  # bytes, of a Unix socket's
PREFIX = "bossworker-engine-"
SOCKET, OWNER = "home", "owner"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_home() -> str:
    """A path for a socket, in a new folder of our own. OSError."""
    place = _short_place()
    sweep(place)
    while True:
        folder = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        # Until it has an owner, others take it for what was left by one that was killed just then, and remove it.
        with suppress(FileNotFoundError):
            os.symlink(json.dumps(identity.own()), os.path.join(folder, OWNER))
            return os.path.join(folder, SOCKET)


def _short_place() -> str:
    """Where paths are short enough for a socket."""
    usual = tempfile.gettempdir()
    short = (one for one in (usual, "/tmp", "/var/tmp") if len(os.fsencode(one)) < LONGEST_PATH - 40)
    return next((one for one in short if os.path.isdir(one)), usual)


def sweep(place: str) -> None:
    """Remove this user's folders there whose owners are gone."""
    with suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(PREFIX):
                remove_if_left(os.path.join(place, name))


def remove_if_left(folder: str) -> None:
    """Remove a folder of this user's if its owner is gone."""
    with suppress(OSError, ValueError), _opened(folder) as fd:  # ValueError: what is there is not ours
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            return
        owner = _owner_of(fd)
        if owner is None:
            os.rmdir(folder)  # which fails unless it is empty: it may get its owner just now
        elif identity.look(owner) == identity.GONE:
            _remove(folder, fd)


def remove_home(path: str) -> None:
    """Remove a socket of ours, and its folder. This takes no descriptor: there may be none."""
    folder = os.path.dirname(path)
    with suppress(OSError):
        _remove(folder, None)


def _owner_of(fd: int) -> object:
    """None: it has none."""
    try:
        return json.loads(os.readlink(OWNER, dir_fd=fd))
    except FileNotFoundError:
        return None


def _remove(folder: str, fd: int | None) -> None:
    """The owner goes last: as long as anything else is there, it is known whose that is."""
    for name in (SOCKET, OWNER):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name) if fd is None else name, dir_fd=fd)
    os.rmdir(folder)


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """A descriptor of the folder, which cannot be made to mean another one."""
    fd = os.open(folder, _FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)
