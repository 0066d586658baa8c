"""Jobs are deleted: one that is ended first, or all that have ended and that some condition applies to."""

from __future__ import annotations

import os
import signal as signals
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bossworker.commands import jobdir, record, safe_files
from bossworker.commands.record import Status
from bossworker.commands.removal import discard
from bossworker.commands.roots import Root, is_id, open_root
from bossworker.jobs.control import signal
from bossworker.jobs.waiting import JobWatch
from bossworker.system import folders
from bossworker.system.checks import check_seconds

END_SECONDS = 10.0  # for a job to be gone that was sent KILL
DEBRIS_SECONDS = 3600.0  # after which what nobody finished making, or deleting, is cleared away


def clean(
    jobid: str | None = None,
    *,
    older_than: float | None = None,
    status: str | Sequence[str] | None = None,
    elsewhere: bool = False,
    root: Root = None,
) -> int:
    """Delete a job and all its files. One that runs is ended first, by KILL.

    Without an id: all jobs that have ended, and to which `older_than` and `status` apply. What runs is left alone then,
    and so is what cannot be read and might run, unless `status` names ``Status.UNKNOWN``. What may run where this
    process cannot see it (on another host, in a container) is left alone in both forms, unless `elsewhere` is set.

    Returns, in both forms, how many *files* were deleted, not how many jobs: each job has a few of its own, besides
    what its command made. 0: there was nothing to delete.

    Args:
        older_than: Seconds since a job was started, at the least.
        status: One or several, such as ``Status.COMPLETED``.
        elsewhere: Whether to delete what has no end on record and cannot be seen from here. It is not ended: to be used
            when the host or the container is gone for good.

    Raises:
        TypeError, ValueError: There is no condition, or one and an id, or one that makes no sense.
        OSError: Something may not be deleted (another user's files, for instance), or does not end. It says what. The
            job stays listed then; all others that were to go are gone.
    """
    if jobid is not None:
        if older_than is not None or status is not None:
            raise ValueError("clean takes a job id, or older_than and status, not both")
        with _opened(root) as folder:
            return 0 if folder is None else _clean_one(folder, jobid, root, elsewhere)
    if older_than is None and status is None:
        raise ValueError("clean needs a job id, or older_than or status; older_than=0 means all that have ended")
    age = 0.0 if older_than is None else check_seconds("older_than", older_than)
    wanted = _check_statuses(status)
    with _opened(root) as folder:
        if folder is None:
            return 0
        doomed = (one for one in record.listing(root) if _may_go(one, root, age, wanted, elsewhere))
        return _clear(folder) + _clean_all(folder, doomed, root, elsewhere)


def clear_debris(root: Root = None) -> int:
    """Delete what a crash left half made or half deleted, a while ago; how many files were deleted."""
    with _opened(root) as folder:
        return 0 if folder is None else _clear(folder)


def _check_statuses(status: str | Sequence[str] | None) -> set[Status] | None:
    if status is None:
        return None
    try:
        return set(map(Status, [status] if isinstance(status, str) else status))
    except ValueError:
        allowed = ", ".join(repr(one.value) for one in Status)
        raise ValueError(f"status must be one or several of {allowed}, not {status!r}") from None


@contextmanager
def _opened(root: Root) -> Iterator[int | None]:
    """The root's descriptor; None if there is none, or none of ours."""
    try:
        folder = open_root(root)
    except (OSError, ValueError) as error:  # a NUL in the root
        record.reraise_if_out_of_fds(error)
        yield None
        return
    try:
        yield folder
    finally:
        os.close(folder)


def _may_go(jobid: str, root: Root, age: float, wanted: set[Status] | None, elsewhere: bool) -> bool:
    now = record.read(jobid, root)
    if now.elsewhere:
        fits = elsewhere and (wanted is None or Status.UNKNOWN in wanted)
    else:
        fits = now.finished if wanted is None else now.state in wanted - {jobdir.CREATED, jobdir.RUNNING}
    return fits and (age <= 0 or time.time() - jobdir.time_of(jobid) >= age)


def _clean_all(folder: int, doomed: Iterator[str], root: Root, elsewhere: bool) -> int:
    """All of them, though one fails. Then the first error is raised."""
    count = 0
    failure: OSError | None = None
    for jobid in doomed:
        try:
            count += _clean_one(folder, jobid, root, elsewhere)
        except OSError as error:
            record.reraise_if_out_of_fds(error)
            failure = failure or error
    if failure is not None:
        raise failure
    return count


def _clean_one(folder: int, jobid: str, root: Root, elsewhere: bool) -> int:
    """OSError when it stays, or something in it does."""
    if not (is_id(jobid) and _is_ours(folder, jobid) and _end(jobid, root, elsewhere)):
        return 0
    try:
        # It has ended, so nobody writes there any more, or starts it; another one that deletes it may be quicker.
        return discard(folder, jobid)
    except FileNotFoundError:  # somebody else has just deleted it
        return 0


def _is_ours(folder: int, name: str) -> bool:
    try:
        job = safe_files.open_folder(name, folder)
    except PermissionError:  # its command has taken our rights away
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return found.st_uid == os.geteuid()
    except OSError as error:
        record.reraise_if_out_of_fds(error)
        return False
    try:
        return jobdir.is_own(job)
    finally:
        os.close(job)


def _end(jobid: str, root: Root, elsewhere: bool) -> bool:
    """See to it that nothing writes into the directory any more; False where that cannot be known.

    TimeoutError when it does not end.
    """
    with JobWatch(jobid, root) as watch:
        return _end_watched(jobid, root, watch, elsewhere)


def _end_watched(jobid: str, root: Root, watch: JobWatch, elsewhere: bool) -> bool:
    deadline = time.monotonic() + END_SECONDS
    while watch.look().may_change:
        if watch.record.elsewhere:
            return elsewhere
        if time.monotonic() > deadline:
            reason = watch.record.reason or f"its state is {watch.record.state!r}"
            raise TimeoutError(f"job {jobid} was sent SIGKILL and has not ended: {reason}")
        signal(jobid, signals.SIGKILL, root=root)
        watch.sleep(min(deadline, time.monotonic() + 0.1))
    return True


def _clear(folder: int) -> int:
    """Delete what a crash left half made or half deleted."""
    count = 0
    for name in os.listdir(folder):
        jobid = name.removeprefix(jobdir.HIDDEN)
        if jobid == name or not is_id(jobid) or time.time() - jobdir.time_of(jobid) <= DEBRIS_SECONDS:
            continue
        if _is_ours(folder, name):
            count += folders.remove_at(folder, name).count
    return count
