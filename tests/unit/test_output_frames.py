"""What is read from a worker's output pipes: lines, each with its job, however the bytes come."""

from __future__ import annotations

import random

import pytest

from bossworker.pool.wire.output_frames import (
    MARK,
    MOST_LINE,
    NO_JOB,
    RECORD,
    SECRET_BYTES,
    STDERR,
    STDOUT,
    FrameWriter,
    LineReader,
    OutputLine,
)

SECRET = b"not by chance"[:SECRET_BYTES]  # a random one may have an end of line in it
WRITER = FrameWriter(SECRET)
RUNNING = 99


def printed(job_id: int, data: bytes, kind: int = STDOUT) -> bytes:
    return b"".join(WRITER.frames(kind, job_id, data))


def mark(job_id: int) -> bytes:
    return WRITER.frame(MARK, job_id)


def read(data: bytes, running: int = RUNNING) -> list[OutputLine]:
    return LineReader(SECRET, STDOUT).feed(data, running)


def told(data: bytes) -> list[tuple[int, int, str]]:
    return [(line.job_id, line.stream, line.text) for line in read(data)]


def test_lines_know_their_jobs_and_keep_their_order() -> None:
    data = b"".join(
        [
            printed(1, b"print 1\n"),
            b"raw 1\n",
            printed(1, b"error 1\n", STDERR),
            printed(1, b'{"a": 1}', RECORD),
            mark(1),
            b"raw 2\n",
            mark(2),
            b"raw 3\n",
        ]
    )
    assert told(data) == [
        (1, STDOUT, "print 1"),
        (1, STDOUT, "raw 1"),
        (1, STDERR, "error 1"),
        (1, RECORD, '{"a": 1}'),
        (2, STDOUT, "raw 2"),
        (RUNNING, STDOUT, "raw 3"),
    ]


def test_a_job_s_end_ends_its_lines() -> None:
    assert told(printed(1, b"half") + b"raw" + mark(1) + printed(2, b"other\n")) == [
        (1, STDOUT, "raw"),
        (1, STDOUT, "half"),
        (2, STDOUT, "other"),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_it_does_not_matter_how_the_bytes_are_cut(seed: int) -> None:
    rng = random.Random(seed)
    parts = []
    for job_id in range(1, 40):
        for _ in range(rng.randrange(5)):
            text = b"line of job %d" % job_id + b"\x1e" * rng.randrange(3) + b"x" * rng.choice((0, 1, 9000)) + b"\n"
            parts.append(rng.choice((text, printed(job_id, text), printed(job_id, text, STDERR))))
        parts.append(mark(job_id))
    data = b"".join(parts)
    reader, lines = LineReader(SECRET, STDOUT), []
    at = 0
    while at < len(data):
        size = rng.choice((1, 7, 30, 5000))
        lines += reader.feed(data[at : at + size], NO_JOB)
        at += size
    lines += reader.end()
    whole = read(data, NO_JOB)
    assert [line[1:] for line in lines] == [line[1:] for line in whole]
    assert all(line.text.startswith(f"line of job {line.job_id}") for line in whole)


def test_the_rest_is_told_at_the_end() -> None:
    reader = LineReader(SECRET, STDERR)
    assert reader.feed(b"\x1e" + SECRET[:3], 1) == []
    (line,) = reader.end(7)
    assert (line.job_id, line.stream) == (7, STDERR)


def test_long_lines_are_told_in_pieces_and_nothing_piles_up() -> None:
    reader, told = LineReader(SECRET, STDOUT), 0
    for _ in range(100):
        told += sum(len(line.text) for line in reader.feed(b"x" * 10_000, 1))
        assert len(reader._partial_raw) <= MOST_LINE
    told += sum(len(line.text) for line in reader.end())
    assert told == 1_000_000
    (first, second) = read(b"y" * (MOST_LINE + 10) + b"\n")
    assert (len(first.text), len(second.text)) == (MOST_LINE, 10)


def test_another_secret_is_just_output() -> None:
    forged = FrameWriter(b"x" * SECRET_BYTES).frame(MARK, 1)
    (line,) = read(b"a" + forged + b"b\n")
    assert line.text[0] == "a"
    assert line.text[-1] == "b"


@pytest.mark.parametrize("seed", range(50))
def test_garbage_does_no_harm(seed: int) -> None:
    rng = random.Random(seed)
    reader = LineReader(SECRET, STDOUT)
    for _ in range(200):
        start = rng.choice((b"", b"\x1e", b"\x1e" + SECRET, b"\x1e" + SECRET[:5]))
        reader.feed(start + rng.randbytes(rng.randrange(60)), 1)
    reader.end()
