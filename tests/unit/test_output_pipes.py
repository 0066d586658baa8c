"""The two output pipes of a worker, read by the boss whenever it comes to that: their lines keep their order."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from bossworker.pool.boss.output_pipes import OutputPipes
from bossworker.pool.wire.output_frames import MARK, NO_JOB, STDERR, STDOUT, FrameWriter, OutputLine, new_secret
from bossworker.pool.wire.recorder import BYTES_READ, READS

JOB = 7


class Worker:
    """Writes as a worker does, and keeps what was written in its order."""

    def __init__(self) -> None:
        secret = new_secret()
        self._writer = FrameWriter(secret)
        self.words = memoryview(bytearray(8 * 128)).cast("Q")
        self.pipes = OutputPipes(os.getpid(), 0, secret, self.words)
        ends = {stream: os.pipe() for stream in (STDOUT, STDERR)}
        for stream, (theirs, _) in ends.items():
            self.pipes.add(stream, theirs)
        self.out, self.error = (ends[stream][1] for stream in (STDOUT, STDERR))
        self._errors = 0
        self.written: list[str] = []
        self.told: list[OutputLine] = []

    def print(self, text: str) -> None:
        data = f"{text}\n".encode()
        os.write(self.out, b"".join(self._writer.frames(STDOUT, JOB, data, self._errors)))
        self.written.append(text)

    def write_error(self, text: str) -> None:
        self._errors += os.write(self.error, f"{text}\n".encode())
        self.written.append(text)

    def write(self, text: str) -> None:
        os.write(self.out, f"{text}\n".encode())
        self.written.append(text)

    def mark(self) -> None:
        for pipe in (self.out, self.error):
            self._errors += os.write(pipe, self._writer.frame(MARK, JOB)) * (pipe == self.error)

    def read(self, running: int = JOB) -> bool:
        lines, more = self.pipes.read(lambda: running)
        self.told += lines
        return more

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.told]


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    for fd in (worker.out, worker.error):
        os.close(fd)
    worker.pipes.close()


def test_what_python_prints_has_its_place_among_errors_however_late_it_is_read(worker: Worker) -> None:
    for n in range(3):
        worker.print(f"print {n}")
        worker.write_error(f"error {n}")
    worker.print("last")
    assert not worker.read()
    assert worker.texts == worker.written
    assert {line.job_id for line in worker.told} == {JOB}


@pytest.mark.parametrize("seed", range(30))
def test_it_does_not_matter_when_it_is_read(worker: Worker, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, left = random.Random(seed), list(range(60))

    def write_some() -> None:
        while left and rng.random() < 0.7:
            rng.choice((worker.print, worker.write_error))(str(left.pop()))

    read = worker.pipes._read

    def read_and_let_write(stream: int) -> bytes:
        data = read(stream)
        write_some()
        return data

    monkeypatch.setattr(worker.pipes, "_read", read_and_let_write)
    while left:
        write_some()
        worker.read()
    worker.read()
    assert worker.texts == worker.written


def test_of_raw_output_what_was_there_first_is_told_first(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.write("first")
    worker.write_error("second")
    read = worker.pipes._read

    def read_and_let_write(stream: int) -> bytes:
        data = read(stream)
        if stream == STDERR:
            worker.write("third")
            worker.print("fourth")
            worker.write_error("fifth")
            monkeypatch.undo()
        return data

    monkeypatch.setattr(worker.pipes, "_read", read_and_let_write)
    worker.read()
    worker.read()
    assert worker.texts == worker.written == ["first", "second", "third", "fourth", "fifth"]


def test_the_worker_can_tell_how_much_was_read(worker: Worker) -> None:
    worker.write_error("12345")
    worker.read()
    worker.write_error("6")
    worker.read()
    assert worker.words[BYTES_READ] == 8
    assert worker.words[READS[1]] == 4  # two were begun, and have ended


def test_words_and_frames_that_a_handler_makes_up_do_no_harm(worker: Worker) -> None:
    for at in range(64, 80):
        worker.words[at] = (1 << 64) - 1
    os.write(worker.out, worker._writer.frame(STDOUT, JOB, b"far\n", (1 << 64) - 1))
    worker.write_error("error")
    worker.read()
    worker.print("print")
    worker.read()
    assert worker.texts == ["error", "far", "print"]


def test_the_end(worker: Worker) -> None:
    worker.print("print")
    os.write(worker.error, b"half an error")
    worker.read(NO_JOB)
    worker.told += worker.pipes.end(JOB)
    assert [(line.job_id, line.text) for line in worker.told] == [(JOB, "print"), (JOB, "half an error")]


def test_an_error_belongs_to_the_job_whose_mark_comes_behind_it_or_to_the_one_that_runs(worker: Worker) -> None:
    worker.write("of 7")
    worker.mark()
    worker.write_error("of 9")
    worker.read(9)
    assert [(line.job_id, line.text) for line in worker.told] == [(JOB, "of 7"), (9, "of 9")]


@pytest.mark.parametrize("write", [Worker.write, Worker.write_error])
def test_what_is_read_as_one_job_ends_has_its_mark_by_then(
    worker: Worker, write: Callable[[Worker, str], None]
) -> None:
    write(worker, "of 7")
    ids = iter((JOB, 8, 8))

    def running() -> int:
        job_id = next(ids)
        if job_id == 8 and not worker.told:
            worker.mark()
        return job_id

    worker.told, _ = worker.pipes.read(running)
    assert [(line.job_id, line.text) for line in worker.told] == [(JOB, "of 7")]
