"""Where doors are: addresses, names of pools, and the folder of this user's doors."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from bossworker.pool.wire.doorway import BACKLOG, MOST_PATH_BYTES
from bossworker.system.stdio import socket_above_stdio

_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5}|\*)")
_UNFIT = re.compile(r"[^\w.+-]+")
MOST_NAME = 40  # characters of a pool's name in a path
LOCK_SECONDS = 1.0  # to wait for another door to come or go
Mark = tuple[int, int]  # device and inode


class Address(NamedTuple):
    """A checked address."""

    kind: str  # "ipc", "tcp"
    text: str  # as it was given, or what was made of a name
    path: str  # of the socket; empty with tcp


def runtime_folders() -> list[str]:
    """Where this user's doors may be: the first is for new ones. None of them need exist."""
    bases = [os.environ.get("XDG_RUNTIME_DIR"), f"/run/user/{os.getuid()}"]
    private = [f"{base}/bossworker" for base in bases if base and os.path.isabs(base) and os.access(base, os.W_OK)]
    shared = [base for base in (os.environ.get("TMPDIR"), "/tmp") if base and os.path.isabs(base)]
    return list(dict.fromkeys([*private, *(f"{base}/bossworker-{os.getuid()}" for base in shared)]))


def named(name: str) -> Address:
    """Where a new door gets this name."""
    return _in_folder(runtime_folders()[0], name)


def find(name: str) -> Address:
    """The door of this name: programs of one user may differ in where they look first."""
    found = [_in_folder(folder, name) for folder in runtime_folders()]
    return next((one for one in found if os.path.exists(one.path)), found[0])


def all_doors() -> list[Address]:
    """Those at which somebody may listen in this user's folders for doors, by name."""
    found: dict[str, Address] = {}
    for folder in runtime_folders():
        for path in _sockets_in(folder):
            found.setdefault(path, Address("ipc", f"ipc://{path}", path))
    return list(found.values())


def _sockets_in(folder: str) -> Iterator[str]:
    """None, where others may put some."""
    with suppress(OSError):
        check_runtime_folder(f"{folder}/")
        with os.scandir(folder) as entries:
            yield from sorted(one.path for one in entries if stat.S_ISSOCK(one.stat(follow_symlinks=False).st_mode))


def _in_folder(folder: str, name: str) -> Address:
    fit = _UNFIT.sub("-", name).strip("-.")[:MOST_NAME] or "pool"
    path = f"{folder}/{fit}"
    return Address("ipc", f"ipc://{path}", path)


def parse(address: object, allow_name: bool = False) -> Address:
    """``ipc://PATH``, ``tcp://HOST:PORT``, or (for `allow_name`) the name of a pool."""
    if not isinstance(address, str):
        raise TypeError(f"address must be a str, not {address!r}")
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://")
        if not os.path.isabs(path) or "\0" in path or path.endswith("/"):
            raise ValueError(f"address must be ipc:// and an absolute path, such as ipc:///run/x/pool, not {address!r}")
        return Address("ipc", address, path)
    if match := _TCP.fullmatch(address):
        if match["port"] == "0":
            address = address.removesuffix("0") + "*"
        elif match["port"] != "*" and int(match["port"]) > 65535:
            raise ValueError(f"address must have a port up to 65535, not {address!r}")
        return Address("tcp", address, "")
    if allow_name and address and "://" not in address:
        return find(address)
    names = ", or the name of a pool" if allow_name else ""
    raise ValueError(f"address must be ipc://PATH, or tcp://HOST:PORT{names}, not {address!r}")


def make_runtime_folder(path: str) -> None:
    """Make the folder that a path is in, if it is this user's folder for doors. OSError when others may enter it."""
    folder = os.path.dirname(path)
    if folder not in runtime_folders():
        return
    with suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    check_runtime_folder(path)


def check_runtime_folder(path: str) -> None:
    """PermissionError when a path is in what should be this user's folder for doors, and others may enter that.

    Some lie where anybody may make folders: whoever connects to a door there would load a stranger's pickles.
    """
    folder = os.path.dirname(path)
    if folder not in runtime_folders():
        return
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(errno.EPERM, "not a folder of this user alone: nothing in it can be trusted", folder)


def bind_path(path: str) -> socket.socket:
    """Listen at a path, to this user alone (mode 0600: chmod it to let others in).

    A socket there that nobody listens at any more is replaced. OSError (EADDRINUSE) when somebody does.
    """
    for _ in range(100):  # the folder goes with the last door in it, which may be just now
        try:
            make_runtime_folder(path)
            with _alone_in_folder(path):
                return _bind(path)
        except FileNotFoundError:
            if os.path.dirname(path) not in runtime_folders():
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _bind(path: str) -> socket.socket:
    listener = socket_above_stdio(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        with short_way(path) as way:
            try:
                bind_private(listener, way)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not is_deserted(path):
                    if not error.errno:  # the name is too long for a socket
                        raise OSError(f"no door can be opened: {error}: {path!r}") from error
                    raise OSError(error.errno, f"no door can be opened: {os.strerror(error.errno)}", path) from error
                os.unlink(path)
                bind_private(listener, way)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def bind_private(listener: socket.socket, way: str) -> None:
    """Give a socket a path, for this user alone (0600)."""
    os.fchmod(listener.fileno(), 0o600)  # Linux: what is bound has the mode of the socket, so it never has another
    listener.bind(way)
    os.chmod(way, 0o600)


@contextmanager
def short_way(path: str) -> Iterator[str]:
    """A path to a socket that is short enough for the system, whatever its folder is called."""
    if len(os.fsencode(path)) <= MOST_PATH_BYTES or not hasattr(os, "O_PATH"):
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def is_deserted(path: str) -> bool:
    """Whether there is a socket at which nobody listens."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        dial(path).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def dial(path: str, seconds: float | None = None) -> socket.socket:
    """Connect to a socket at a path."""
    sock = socket_above_stdio(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        sock.settimeout(seconds)
        with short_way(path) as way:
            sock.connect(way)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _alone_in_folder(path: str) -> Iterator[None]:
    """No other door comes or goes meanwhile: who finds a socket deserted must not remove the one that took its place.

    In this user's own folders alone, as elsewhere anybody could have us wait; and not for longer than a moment, as
    the lock of one that was killed may live on in what it has forked.
    """
    folder = os.path.dirname(path)
    if folder not in runtime_folders():
        yield
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(fd, time.monotonic() + LOCK_SECONDS)
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)  # also for a child that was forked meanwhile, and has a copy
        os.close(fd)


def _lock(fd: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.002)


def mark_of(path: str) -> Mark:
    """What is at a path, whatever is put there later."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def remove_path(path: str, mark: Sequence[int] = ()) -> None:
    """A door is closed: remove its socket, and this user's folder if it was the last in it. May be done twice.

    With a `mark`, only what has it: somebody may have removed the socket before, and another door be there by now.
    """
    with suppress(OSError), _alone_in_folder(path):
        if not mark or mark_of(path) == tuple(mark):
            os.unlink(path)
    if os.path.dirname(path) in runtime_folders():
        with suppress(OSError):
            os.rmdir(os.path.dirname(path))
