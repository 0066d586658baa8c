"""What a job has written: its streams and its files. Nothing outside its directory is ever read."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, overload

from bossworker.commands import output, record, safe_files
from bossworker.commands.ended_job import open_stream
from bossworker.commands.jobdir import FILES, STDERR, STDOUT
from bossworker.commands.request import check_encoding
from bossworker.commands.roots import Root, find_root
from bossworker.jobs.waiting import JobWatch
from bossworker.system import folders
from bossworker.system.checks import check_count

FOLLOW_TICK = 0.05  # seconds between looks for new text
FOLLOW_BYTES = 1 << 16
MAX_OFFSET = (1 << 63) - 1

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@overload
def stdout(
    jobid: str,
    *,
    text: Literal[True] = True,
    encoding: str = ...,
    offset: int = ...,
    limit: int | None = ...,
    root: Root = ...,
) -> str: ...
@overload
def stdout(
    jobid: str,
    *,
    text: Literal[False],
    encoding: str = ...,
    offset: int = ...,
    limit: int | None = ...,
    root: Root = ...,
) -> bytes: ...
def stdout(
    jobid: str,
    *,
    text: bool = True,
    encoding: str = "utf-8",
    offset: int = 0,
    limit: int | None = None,
    root: Root = None,
) -> str | bytes:
    """What it has written to stdout so far; empty when there is nothing, or no such job.

    No more is read than is asked for: ``offset=-65536`` is the last 64 KiB, however much there is.

    Args:
        text: False gives the bytes; as text, what is not of its encoding is replaced.
        encoding: Of the text.
        offset: From which byte on; a negative one counts from the end. What was not kept (see ``max_output``) is passed
            over.
        limit: At most this many bytes; None: all.

    Raises:
        TypeError, ValueError: An offset or a limit is no number, or there is no such encoding.
    """
    return _stream(jobid, STDOUT, text, encoding, offset, limit, root)


@overload
def stderr(
    jobid: str,
    *,
    text: Literal[True] = True,
    encoding: str = ...,
    offset: int = ...,
    limit: int | None = ...,
    root: Root = ...,
) -> str: ...
@overload
def stderr(
    jobid: str,
    *,
    text: Literal[False],
    encoding: str = ...,
    offset: int = ...,
    limit: int | None = ...,
    root: Root = ...,
) -> bytes: ...
def stderr(
    jobid: str,
    *,
    text: bool = True,
    encoding: str = "utf-8",
    offset: int = 0,
    limit: int | None = None,
    root: Root = None,
) -> str | bytes:
    """The same for stderr. For a program that could not be run, it holds the reason."""
    return _stream(jobid, STDERR, text, encoding, offset, limit, root)


def _stream(
    jobid: object, name: str, text: bool, encoding: str, offset: int, limit: int | None, root: Root
) -> str | bytes:
    check_encoding(encoding)
    check_count("offset", offset, least=-MAX_OFFSET, most=MAX_OFFSET)
    if limit is not None:
        check_count("limit", limit)
    data = b""
    with _opened(jobid, root) as folder, _nothing_there():
        if folder is not None:
            fd = open_stream(folder, name)
            try:
                data = output.read_at(fd, offset, limit)
            finally:
                os.close(fd)
    return data.decode(encoding, "replace") if text else data


def working_dir(jobid: str, *, root: Root = None) -> str | None:
    """The folder that holds what it makes, and where it runs unless it was told another; None if there is none."""
    with _opened(jobid, root) as folder:
        if folder is not None:
            with _nothing_there():
                os.close(os.open(FILES, _FOLDER, dir_fd=folder))
                return f"{find_root(root)}/{jobid}/{FILES}"
    return None


def result_list(jobid: str, *, root: Root = None) -> list[str]:
    """The names of the files it has made in its working directory, in folders below, too: sorted, relative to it.

    Only regular files: no folders, links, pipes or devices.
    """
    found: list[str] = []
    with _opened(jobid, root) as folder:
        if folder is not None:
            with _nothing_there():
                files = os.open(FILES, _FOLDER, dir_fd=folder)
                try:
                    found += folders.regular_files(files)
                finally:
                    os.close(files)
    return sorted(found)


@overload
def result(jobid: str, file: str, *, text: Literal[True] = True, root: Root = None) -> str | None: ...
@overload
def result(jobid: str, file: str, *, text: Literal[False], root: Root = None) -> bytes | None: ...
def result(jobid: str, file: str, *, text: bool = True, root: Root = None) -> str | bytes | None:
    """What one of the files of `result_list` holds; None for any other name. As text or bytes, like `stdout`."""
    fd = open_result(jobid, file, root=root)
    if fd is None:
        return None
    try:
        data = _read(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return _decoded(data) if text else data


def open_result(jobid: str, file: str, *, root: Root = None) -> int | None:
    """A descriptor to read one of the files of `result_list` from; None for any other name.

    Each part of the name is looked up in the folder before it, and none may be a link: there is no way out.
    """
    parts = _parts(file)
    if parts is None:
        return None
    with _opened(jobid, root) as folder:
        if folder is None:
            return None
        with _nothing_there():
            return _descend(folder, [FILES, *parts])
    return None


def _parts(file: object) -> list[str] | None:
    """The parts of a name as `result_list` gives it; None of any other."""
    if not isinstance(file, str) or "\0" in file:
        return None
    parts = file.split("/")
    return None if {"", ".", ".."}.intersection(parts) else parts


def _descend(folder: int, parts: list[str]) -> int:
    *above, name = parts
    here = os.dup(folder)
    try:
        for one in above:
            below = os.open(one, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        return safe_files.open_file(here, name)
    finally:
        os.close(here)


@overload
def follow(
    jobid: str, *, stream: str = ..., text: Literal[True] = True, encoding: str = ..., root: Root = ...
) -> Iterator[str]: ...
@overload
def follow(
    jobid: str, *, stream: str = ..., text: Literal[False], encoding: str = ..., root: Root = ...
) -> Iterator[bytes]: ...
def follow(
    jobid: str, *, stream: str = "stdout", text: bool = True, encoding: str = "utf-8", root: Root = None
) -> Iterator[str | bytes]:
    """What it writes, from the beginning and as it comes, until it has ended.

    Args:
        stream: ``stdout`` or ``stderr``.
        text: Whether as str: characters of several bytes are never cut, what is not of its encoding is replaced.
        encoding: Of the text.

    Raises:
        ValueError: There is no such stream, or no such encoding.
    """
    if stream not in (STDOUT, STDERR):
        raise ValueError(f"stream must be 'stdout' or 'stderr', not {stream!r}")
    check_encoding(encoding)
    chunks = _chunks(jobid, stream, root)
    return _as_text(chunks, encoding) if text else chunks


def _chunks(jobid: str, stream: str, root: Root) -> Iterator[bytes]:
    with _opened(jobid, root) as folder:
        try:
            fd = -1 if folder is None else open_stream(folder, stream)
        except OSError:
            fd = -1
    if fd < 0:
        return
    try:
        with JobWatch(jobid, root) as watch:
            yield from _until_end(fd, watch)
    finally:
        os.close(fd)


def _until_end(fd: int, watch: JobWatch) -> Iterator[bytes]:
    ended = False
    while not ended:
        # Before we read, so that what is read then is all. The other way round, what it writes between our last read
        # and its end would never be told.
        ended = not watch.look().may_change
        yield from _new(fd)
        if not ended:
            watch.sleep(time.monotonic() + FOLLOW_TICK)


def _new(fd: int) -> Iterator[bytes]:
    """What has come since; not what was not kept."""
    # Where its output is limited, the file may be cut, or begin anew, while we are in it: its size tells.
    at = os.lseek(fd, 0, os.SEEK_CUR)
    if os.fstat(fd).st_size < at:  # it starts anew, with its end
        at = 0
    os.lseek(fd, output.begin_of(fd, at), os.SEEK_SET)
    while data := os.read(fd, FOLLOW_BYTES):
        yield data


def _as_text(chunks: Iterator[bytes], encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    for chunk in chunks:
        if part := decoder.decode(chunk):
            yield part
    if rest := decoder.decode(b"", final=True):
        yield rest


@contextmanager
def _nothing_there() -> Iterator[None]:
    """What cannot be opened or looked up is not there."""
    try:
        yield
    except (OSError, ValueError) as error:  # a name that cannot be encoded
        record.reraise_if_out_of_fds(error)


@contextmanager
def _opened(jobid: object, root: Root) -> Iterator[int | None]:
    fd = record.open_job(jobid, root)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _read(fd: int) -> bytes:
    """All that is there now: what is written meanwhile may come faster than it can be read."""
    return safe_files.read_all(fd, os.fstat(fd).st_size)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")
