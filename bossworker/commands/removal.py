"""Job directories are deleted: so that nobody sees one half deleted, and what may not be deleted is told."""

from __future__ import annotations

import os

from bossworker.commands import safe_files
from bossworker.commands.jobdir import FILES, HIDDEN, JOB, NEXT, STATUS, STDERR, STDOUT, JobDirectory
from bossworker.system import folders


def discard(root: int, jobid: str) -> int:
    """Delete a job directory; how many files were deleted.

    Args:
        root: The descriptor of the folder that it lies in.
    OSError: It stays, or something in it does, since it may not be deleted. Then it is a job as before, if only with
    what is left of it.
    """
    hidden = f"{HIDDEN}{jobid}"
    # First of all: of two that delete it one gets it, and the other FileNotFoundError; and no reader sees half of it. A
    # supervisor that is about to claim it finds it gone (`JobDirectory.claim`).
    os.rename(jobid, hidden, src_dir_fd=root, dst_dir_fd=root)
    # These two go last: should we be killed meanwhile, or have to give it back, it still says what it was.
    removed = folders.remove_at(root, hidden, spare=(JOB, STATUS))
    if removed.failure is not None:
        os.rename(hidden, jobid, src_dir_fd=root, dst_dir_fd=root)
        raise _told(removed.failure, jobid)
    last = folders.remove_at(root, hidden)
    if last.failure is not None:
        raise _told(last.failure, jobid)
    return removed.count + last.count


def _told(failure: OSError, jobid: str) -> OSError:
    name = str(failure.filename).partition("/")[2]
    return OSError(failure.errno, f"job {jobid} cannot be deleted: {failure.strerror}", name)


def discard_own(directory: JobDirectory) -> None:
    """Delete one that we have open. OSError: as `discard`."""
    try:
        root = safe_files.open_folder("..", directory.fd)
    except PermissionError:
        directory.take_rights()
        root = safe_files.open_folder("..", directory.fd)
    try:
        if not _discard_quickly(directory, root):
            discard(root, directory.id)
    finally:
        os.close(root)


def _discard_quickly(directory: JobDirectory, root: int) -> bool:
    """Whether it held nothing but what is always there, and is deleted."""
    hidden = f"{HIDDEN}{directory.id}"
    try:
        os.rmdir(FILES, dir_fd=directory.fd)
        os.rename(directory.id, hidden, src_dir_fd=root, dst_dir_fd=root)
    except OSError:
        return False
    try:
        for name in (STDOUT, STDERR, JOB, STATUS, NEXT):
            try:
                os.unlink(name, dir_fd=directory.fd)
            except FileNotFoundError:
                pass
        os.rmdir(hidden, dir_fd=root)
    except OSError:
        os.rename(hidden, directory.id, src_dir_fd=root, dst_dir_fd=root)
        return False
    return True
