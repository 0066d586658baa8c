"""Folders of any depth: gone through, and deleted, with a few descriptors and no recursion.

A command may make folders in folders without end, of names that make a path too long to be opened at once; and may move
or replace them while we look. No link is ever followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHMOD_LINKS = os.chmod in os.supports_follow_symlinks and os.chmod in os.supports_dir_fd


class Descent:
    """A descriptor that goes down into folders and up again, and cannot be led out of them."""

    def __init__(self, top: int) -> None:
        """`top` stays the caller's."""
        self.fd = os.dup(top)
        self.parts: list[str] = []
        self._top = top
        self._above: list[tuple[int, int]] = []

    def enter(self, name: str) -> None:
        """Go down. OSError when there is no such folder, or it may not be looked into; then nothing has changed."""
        self._become(os.open(name, _FOLDER, dir_fd=self.fd), _identity(self.fd))
        self.parts.append(name)

    def leave(self) -> str:
        """Go up again; the name of what was left. OSError when the way is gone; then nothing more can be done."""
        above = self._above.pop()
        name = self.parts.pop()
        fd = -1
        try:
            fd = os.open("..", _FOLDER, dir_fd=self.fd)
        except OSError:  # it may be looked into, but not gone through
            pass
        if fd < 0 or _identity(fd) != above:  # or it was moved
            os.close(fd) if fd >= 0 else None
            fd = self._again(above)
        self._become(fd)
        return name

    def close(self) -> None:
        """Give up the descriptor."""
        os.close(self.fd)

    def _become(self, fd: int, above: tuple[int, int] | None = None) -> None:
        os.close(self.fd)
        self.fd = fd
        if above is not None:
            self._above.append(above)

    def _again(self, wanted: tuple[int, int]) -> int:
        """The way down from the top to where we should be."""
        here = os.dup(self._top)
        try:
            for name in self.parts:
                below = os.open(name, _FOLDER, dir_fd=here)
                os.close(here)
                here = below
            if _identity(here) != wanted:
                raise FileNotFoundError("the folder was moved")
        except BaseException:
            os.close(here)
            raise
        return here


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def regular_files(top: int) -> Iterator[str]:
    """The names of all regular files below an open folder, as far as they can be seen."""
    descent = Descent(top)
    try:
        yield from _files_below(descent)
    except OSError:
        return
    finally:
        descent.close()


def _files_below(descent: Descent) -> Iterator[str]:
    folders, files = _look(descent.fd)
    yield from files
    waiting = [folders]
    while waiting:
        if not waiting[-1]:
            waiting.pop()
            if waiting:
                descent.leave()
            continue
        try:
            descent.enter(waiting[-1].pop())
        except OSError:
            continue
        folders, files = _look(descent.fd)
        waiting.append(folders)
        if files:
            prefix = "/".join(descent.parts)
            yield from (f"{prefix}/{name}" for name in files)


def _look(folder: int) -> tuple[list[str], list[str]]:
    """The folders and the regular files in one."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                _sort_in(entry, folders, files)
    except OSError:
        pass
    return folders, files


def _sort_in(entry: os.DirEntry[str], folders: list[str], files: list[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        folders.append(entry.name)
    elif entry.is_file(follow_symlinks=False):
        files.append(entry.name)


def remove(path: str) -> int:
    """Delete a folder and all that is in it, as far as that is allowed; how many files were deleted.

    What the folder itself lies in may be a link: that is whoever calls this who says so.
    """
    try:
        parent = os.open(os.path.dirname(path) or ".", _FOLDER & ~os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        return remove_at(parent, os.path.basename(path)).count
    finally:
        os.close(parent)


class Removed:
    """What came of a removal."""

    def __init__(self) -> None:
        self.count = 0
        """Files that were deleted."""
        self.failure: OSError | None = None
        """Why the first of those that stay could not be deleted, with its name from the top."""

    def note(self, error: OSError, parts: list[str], name: str) -> None:
        """That something stays."""
        if self.failure is None and not isinstance(error, FileNotFoundError):
            self.failure = OSError(error.errno, error.strerror, "/".join([*parts, name]))


def remove_at(parent: int, name: str, spare: Collection[str] = ()) -> Removed:
    """Delete a folder and all that is in it, as far as that is allowed.

    Args:
        parent: The descriptor of the folder that holds it.
        spare: Names of files in it that stay, and with them the folder itself.
    """
    removed = Removed()
    descent = Descent(parent)
    waiting = [[name]]
    try:
        while True:
            if waiting[-1]:
                below = _enter_to_empty(descent, waiting[-1].pop(), removed, spare)
                if below is not None:
                    waiting.append(below)
                    spare = ()  # which are of the top alone
                continue
            waiting.pop()
            if not waiting:
                return removed
            _rmdir(descent, removed)
    except OSError as error:
        removed.note(error, descent.parts, "")
        return removed
    finally:
        descent.close()


def _enter_to_empty(descent: Descent, name: str, removed: Removed, spare: Collection[str]) -> list[str] | None:
    """Go into a folder and delete its files; the folders in it, or None if we may not go there."""
    try:
        _enter(descent, name)
    except OSError as error:
        removed.note(error, descent.parts, name)
        return None
    folders: list[str] = []
    for entry in os.listdir(descent.fd):
        if entry in spare:
            continue
        try:
            if stat.S_ISDIR(os.stat(entry, dir_fd=descent.fd, follow_symlinks=False).st_mode):
                folders.append(entry)
            else:
                os.unlink(entry, dir_fd=descent.fd)
                removed.count += 1
        except OSError as error:
            removed.note(error, descent.parts, entry)
    return folders


def _enter(descent: Descent, name: str) -> None:
    """As `Descent.enter`, with the rights that it takes to delete what is there, if we may give them to ourselves."""
    try:
        descent.enter(name)
    except PermissionError:
        open_up(name, descent.fd)
        descent.enter(name)
    if os.fstat(descent.fd).st_mode & 0o300 != 0o300:
        with suppress(OSError):  # another user's: what cannot be deleted will be told one by one
            os.fchmod(descent.fd, 0o700)


def open_up(name: str, parent: int | None = None, mode: int = 0o700) -> None:
    """Give ourselves the rights to a folder; never to what a link points to."""
    if _CHMOD_LINKS:
        os.chmod(name, mode, dir_fd=parent, follow_symlinks=False)
    elif hasattr(os, "O_PATH"):  # Linux: a descriptor that takes no right to the folder itself
        fd = os.open(name, os.O_PATH | _FOLDER, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{fd}", mode)
        finally:
            os.close(fd)


def _rmdir(descent: Descent, removed: Removed) -> None:
    """Go up, and delete the folder that was left. That it is not empty was told already."""
    name = descent.leave()
    try:
        os.rmdir(name, dir_fd=descent.fd)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            removed.note(error, descent.parts, name)
