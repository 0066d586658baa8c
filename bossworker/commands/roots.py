"""Where job directories are kept, and how an id is written."""

from __future__ import annotations

import errno
import os
import re
import sys

ROOT_VARIABLE = "BOSSWORKER_ROOT"

Root = str | os.PathLike[str] | None

_ID = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{20}", re.ASCII)


def find_root(root: Root = None) -> str:
    """The folder that holds the job directories."""
    if root is not None:
        return os.path.abspath(os.fsdecode(root))
    if told := os.environ.get(ROOT_VARIABLE):
        return os.path.abspath(told)
    return os.path.join(state_home(), "bossworker")


def state_home() -> str:
    """The folder for what a user's programs keep."""
    told = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(told):  # a relative one is to be ignored, says the specification
        return told
    inside = ("Library", "Application Support") if sys.platform == "darwin" else (".local", "state")
    return os.path.join(os.path.expanduser("~"), *inside)


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


def make_root(root: Root = None) -> str:
    """The same, checked, and made if it is not there: for the user alone. OSError names it when it cannot be."""
    check_root(root)
    path = find_root(root)
    try:
        _make_private(path)
    except OSError as error:
        raise OSError(error.errno, f"root cannot be made: {error.strerror}", path) from error
    return path


def _make_private(path: str) -> None:
    if os.path.isdir(path):
        return
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):  # nor has somebody else just made it
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    else:
        os.chmod(path, 0o700)


def is_id(jobid: object) -> bool:
    """Whether it is written as an id: whatever else it is, it names no path."""
    return isinstance(jobid, str) and _ID.fullmatch(jobid) is not None
