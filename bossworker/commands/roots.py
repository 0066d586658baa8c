"""Where job directories are kept, and how an id is written."""

from __future__ import annotations

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


def make_root(root: Root = None) -> str:
    """The same, made if it is not there: for the user alone."""
    path = find_root(root)
    if not os.path.isdir(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return path
        os.chmod(path, 0o700)
    return path


def is_id(jobid: object) -> bool:
    """Whether it is written as an id: whatever else it is, it names no path."""
    return isinstance(jobid, str) and _ID.fullmatch(jobid) is not None
