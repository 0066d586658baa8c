"""Files in folders that others may write to, as job directories are: no link is followed, nothing is waited for."""

from __future__ import annotations

import os
import stat

from bossworker.system.cpython import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 100  # of JSON: whoever reads it may be deep in calls already

_JSON_LIMIT = 64 << 20  # bytes: no request is as large, and memory is finite
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # of a pipe, open would wait for a writer
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Damaged(Exception):
    """A file holds something else than what we write; the text says what."""


def open_folder(path: str, parent: int | None = None) -> int:
    """The descriptor of a folder that is no link."""
    return os.open(path, _FOLDER, dir_fd=parent)


def open_file(folder: int, name: str) -> int:
    """The descriptor of a regular file, which is no link; OSError when it is none. Never waits."""
    fd = os.open(name, _OPEN, dir_fd=folder)
    try:
        # Asked of what is open, not of the name: another file may have that by now.
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


def write_all(fd: int, data: bytes, at: int | None = None) -> None:
    """Write all of it: a disk that fills up takes a part first, and complains then."""
    while data:
        if at is None:
            written = os.write(fd, data)
        else:
            written = os.pwrite(fd, data, at)
            at += written
        data = data[written:]


def is_too_deep(value: object) -> bool:
    """Whether a value is nested more than MAX_DEPTH deep, or in itself."""
    layer: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        members = [one for outer in layer for one in (outer.values() if isinstance(outer, dict) else outer)]
        layer = list({id(one): one for one in members if isinstance(one, (dict, list, tuple))}.values())
        if not layer:
            return False
    return True
