"""The directory of a pool: which one it is by default, how one is made, and what is in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from bossworker.commands import jobdir, roots, safe_files
from bossworker.system.checks import check_count

PATH_VARIABLE = "BOSSWORKER_TASKS"
_HIGHEST_ID = (1 << 32) - 2  # of users and groups; one more would mean: none

Mkdir = bool | int | Sequence[int | None] | None
Making = tuple[int | None, int | None, int | None]
"""Mode, uid and gid of a directory that is to be made."""


def default_path() -> str:
    """The default pool's directory: ``$BOSSWORKER_TASKS``, else one in the user's state directory.

    Not in the runtime directory, where a daemon and its output would lose their files when the user logs out, and which
    programs that were not started by a login do not know.
    """
    return os.environ.get(PATH_VARIABLE) or f"{roots.state_home()}/bossworker-tasks"


def ensure(path: str, making: Making | None) -> None:
    """Make it if it is missing and to be made. FileNotFoundError or NotADirectoryError when there is none then."""
    if making is not None and not os.path.lexists(path):
        _make(path, *making)
    if not os.path.isdir(path):
        if os.path.lexists(path):
            raise NotADirectoryError(errno.ENOTDIR, "a pool must be a directory", path)
        raise FileNotFoundError(errno.ENOENT, "no such pool (see mkdir_if_missing)", path)


def _make(path: str, mode: int | None, uid: int | None, gid: int | None) -> None:
    """Make the directory and its parents, which are private to the user, and give it the mode and owners wanted."""
    os.makedirs(os.path.dirname(path), mode=jobdir.PRIVATE, exist_ok=True)
    try:
        # Private from its first moment; it is opened up once it is known to be ours.
        os.mkdir(path, jobdir.PRIVATE)
    except FileExistsError:  # somebody else makes it just now
        return
    # Whoever may write to the folder above could have put a link or another directory in its place by now.
    fd = safe_files.open_folder(path)
    try:
        if os.fstat(fd).st_uid != os.geteuid() or os.listdir(fd):
            raise PermissionError(errno.EPERM, "somebody has exchanged the new directory", path)
        os.fchown(fd, -1 if uid is None else uid, -1 if gid is None else gid)
        if mode is not None:
            os.fchmod(fd, mode)  # whatever the umask is
    finally:
        os.close(fd)


def task_ids(path: str) -> list[str]:
    """The ids of the tasks in a pool, which are the names of their directories; the oldest first."""
    return sorted(name for name in os.listdir(path) if roots.is_id(name))


def check_making(wanted: object) -> Making | None:
    """Mode, uid and gid of a directory that is to be made; None if it is not."""
    if wanted is None or wanted is False:
        return None
    if wanted is True:
        wanted = ()
    elif isinstance(wanted, int):
        wanted = (wanted,)
    if not isinstance(wanted, (list, tuple)) or len(wanted) > 3:
        allowed = "True, a mode, or (mode, uid, gid), each of them an int or None"
        raise TypeError(f"mkdir_if_missing must be {allowed}; not {wanted!r:.200}")
    mode, uid, gid = (*wanted, None, None, None)[:3]
    for value, most in ((mode, 0o7777), (uid, _HIGHEST_ID), (gid, _HIGHEST_ID)):
        if value is not None:
            check_count("mkdir_if_missing", value, most=most)
    return mode, uid, gid
