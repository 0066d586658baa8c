"""Where job directories are kept, and how an id is written."""

from __future__ import annotations

import errno
import os
import re
import sys

from bossworker.system import folders

ROOT_VARIABLE = "BOSSWORKER_ROOT"

Root = str | os.PathLike[str] | None

_DATE = r"(?!0000)\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"
_TIME = r"([01]\d|2[0-3])[0-5]\d([0-5]\d|60)"
_ID = re.compile(rf"{_DATE}-{_TIME}-\d{{6}}-[0-9a-f]{{20}}", re.ASCII)


def find_root(root: Root = None) -> str:
    """The folder that holds the job directories."""
    if root is not None:
        return os.path.abspath(os.fsdecode(root))
    if told := os.environ.get(ROOT_VARIABLE):
        return os.path.abspath(told)
    return os.path.join(state_home(), "bossworker")


def state_home() -> str:
    """The folder for what a user's programs keep.

    RuntimeError when there is none, since the user has no home.
    """
    told = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(told):  # a relative one is to be ignored, says the specification
        return told
    inside = ("Library", "Application Support") if sys.platform == "darwin" else (".local", "state")
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        raise RuntimeError(
            f"no folder for job directories: HOME is {os.environ.get('HOME')!r}, which is no absolute path; "
            f"set HOME, XDG_STATE_HOME or {ROOT_VARIABLE}, or pass root"
        )
    return os.path.join(home, *inside)


def check_root(root: object) -> None:
    """TypeError or ValueError unless it can be the path of a folder, or None.

    Whoever starts a job asks this; whoever looks for one finds none under a root that makes no sense.
    """
    if root is None:
        return
    if not isinstance(root, (str, os.PathLike)):
        raise TypeError(f"root must be a path or None, not {root!r:.200}")
    path = os.fsdecode(root)
    if not path or "\0" in path:
        raise ValueError(f"root must be the path of a folder, not {path!r:.200}")


def open_root(root: Root = None) -> int:
    """A descriptor of the folder that holds the job directories.

    Raises:
        PermissionError: It is another user's, who may have put anything there.
        OSError: There is none.
    """
    path = find_root(root)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Asked of the open folder: between a look at the path and its opening, somebody could put another one there.
        owner = os.fstat(fd).st_uid
        if owner != os.geteuid():
            told = f"root must be a folder of yours; it is another user's (uid {owner})"
            raise PermissionError(errno.EPERM, told, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def make_root(root: Root = None) -> int:
    """The same, checked, and made if it is not there: for the user alone. OSError names it when it cannot be."""
    check_root(root)
    path = find_root(root)
    try:
        _make_folders(path)
    except OSError as error:
        raise OSError(error.errno, f"root cannot be made: {error.strerror}", path) from error
    return open_root(path)


def _make_folders(path: str) -> None:
    missing = []
    above = path
    while not os.path.isdir(above):
        missing.append(above)
        above = os.path.dirname(above)
    for folder in reversed(missing):
        _make_folder(folder, private=folder == path)


def _make_folder(path: str, private: bool) -> None:
    """As the umask has it, but never so that we could not get in."""
    try:
        # Two programs may make it at the same time: the second one finds it there, which is as good.
        os.mkdir(path, 0o700 if private else 0o777)
    except FileExistsError:
        if os.path.isdir(path):  # somebody else has just made it
            return
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    mode = os.lstat(path).st_mode & 0o7777
    if mode & 0o700 != 0o700:
        folders.open_up(path, mode=mode | 0o700)


def is_id(jobid: object) -> bool:
    """Whether it is written as an id: whatever else it is, it names no path."""
    return isinstance(jobid, str) and _ID.fullmatch(jobid) is not None
