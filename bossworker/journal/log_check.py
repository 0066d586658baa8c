"""A look at the write-ahead log of a database: whether commits stand in it behind a place that is damaged.

SQLite takes a log for what it says up to the first frame that is wrong, and drops what is behind, without a word: as a
rule, that is what a power cut has left of a commit that was under way. But that is one commit, since each is synced
before the next one begins, and since an owner empties the log of the one before. So where there are two, one of them
had been on the disk.

What the files look like: https://sqlite.org/walformat.html
"""

from __future__ import annotations

import os
import struct

_HEADER, _PAGE_SIZE_AT, _SALTS_AT = 32, 8, 16  # bytes of the log, before its frames
_FRAME = struct.Struct(">II8s8x")  # before each page: its number, the database's pages if it ends a commit, salts, sums
_INDEX, _LAST_FRAME_AT = 48, 16  # bytes of the index in shared memory; in it, how many frames count


def torn_commits(path: str) -> int:
    """How many commits SQLite has dropped from the log of a database, which a connection has just read."""
    try:
        with open(f"{path}-shm", "rb") as index, open(f"{path}-wal", "rb") as log:
            words, header = index.read(_INDEX), log.read(_HEADER)
            if len(words) < _INDEX or len(header) < _HEADER:
                return 0
            (counted,) = struct.unpack_from("=I", words, _LAST_FRAME_AT)
            return _count_commits(log.fileno(), header, counted)
    except FileNotFoundError:
        return 0


def _count_commits(fd: int, header: bytes, first: int) -> int:
    """In the frames from this one on. (What was left by the log before this one has other salts.)"""
    (page_size,) = struct.unpack_from(">I", header, _PAGE_SIZE_AT)
    own = header[_SALTS_AT : _SALTS_AT + 8]
    size, at, commits = _FRAME.size + page_size, _HEADER + first * (_FRAME.size + page_size), 0
    while len(frame := os.pread(fd, _FRAME.size, at)) == _FRAME.size:
        _, ends_commit, salts = _FRAME.unpack(frame)
        commits += bool(ends_commit) and salts == own
        at += size
    return commits
