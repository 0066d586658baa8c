"""The directory of a command that had none while it ran: as few files as can be, since thousands may fail.

``job.json`` holds what else would stand in ``status.json``, under ``status``, and what the command has written, under
``streams``, if that is short. A longer stream has a file of its own, as in any job directory. So most such jobs are one
directory and one file.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from bossworker.commands import safe_files
from bossworker.commands.jobdir import ENDED, FORMAT, HIDDEN, JOB, PRIVATE, JobDirectory
from bossworker.commands.safe_files import Damaged
from bossworker.system import folders
from bossworker.system.cpython import dumps

SHORT = 16384  # bytes of a stream that find a place in job.json
_STREAMS = "streams"


def keep(root: int, jobid: str, job: dict[str, Any], status: dict[str, Any], streams: dict[str, int]) -> None:
    """Make it. OSError when it could not be made; then nothing of it is left.

    Args:
        root: The descriptor of the folder that it comes into.
        streams: The descriptors of what the command wrote, by the stream's name.
    """
    hidden = f"{HIDDEN}{jobid}"
    os.mkdir(hidden, PRIVATE, dir_fd=root)
    try:
        folder = safe_files.open_folder(hidden, root)
        try:
            _fill(JobDirectory(hidden, folder), {"format": FORMAT, **job, ENDED: status}, streams)
        finally:
            os.close(folder)
        # As for every job directory: it has its name once all is in it.
        os.rename(hidden, jobid, src_dir_fd=root, dst_dir_fd=root)
    except BaseException:
        folders.remove_at(root, hidden)
        raise


def _fill(directory: JobDirectory, job: dict[str, Any], streams: dict[str, int]) -> None:
    texts = {}
    for name, fd in streams.items():
        if os.fstat(fd).st_size <= SHORT:
            texts[name] = os.pread(fd, SHORT, 0).decode("utf-8", "surrogateescape")
        else:
            copy(fd, directory.create_file(name))
    _write(dumps({**job, _STREAMS: texts}).encode(), directory.create_file(JOB))


def copy(source: int, to: int) -> None:
    """All that is in a file, to another, which is closed then."""
    try:
        _copy(source, to)
    finally:
        os.close(to)


def _copy(source: int, to: int) -> None:
    at = 0
    while part := os.pread(source, 1 << 20, at):
        safe_files.write_all(to, part)
        at += len(part)


def copy_file(path: str, to: str) -> None:
    """The same by their paths; what was at the second one is replaced."""
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy(source, os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666))
    finally:
        os.close(source)


def _write(data: bytes, to: int) -> None:
    try:
        safe_files.write_all(to, data)
    finally:
        os.close(to)


def open_stream(folder: int, name: str) -> int:
    """The descriptor of a job's stream, wherever it stands; OSError when there is none."""
    try:
        return safe_files.open_file(folder, name)
    except FileNotFoundError:
        return _open_short(folder, name)


def _open_short(folder: int, name: str) -> int:
    """The same for one that stands in job.json. FileNotFoundError when none does."""
    import tempfile

    try:
        data = safe_files.read_json(folder, JOB)[_STREAMS][name].encode("utf-8", "surrogateescape")
    except (Damaged, LookupError, TypeError, AttributeError, ValueError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name) from None
    with tempfile.TemporaryFile(buffering=0) as file:
        safe_files.write_all(file.fileno(), data)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return os.dup(file.fileno())
