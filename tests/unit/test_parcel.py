"""Parcels and the files they are lent in, without a second process."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bossworker.pool.wire import parcel
from bossworker.pool.wire.codec import encode_jobs, encode_large_result, encode_one, load_job, load_result
from bossworker.pool.wire.parcel import LEAST_BYTES, Arrived, Held, MemoryFiles, Parcel, give_back
from bossworker.pool.wire.recorder import Memory


@pytest.fixture
def memory() -> Any:
    made = Memory()
    made.most_held = 10_000
    yield made
    made.close()


def large(seed: int = 0, size: int = LEAST_BYTES) -> Parcel:
    encoded = encode_one({"a": np.full(size, seed, np.uint8)}, 0, False)
    assert isinstance(encoded, Parcel)
    return encoded


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def lend(memory_files: MemoryFiles, parcel: Parcel, job_id: int = 0) -> int | None:
    fds: list[int] = []
    assert memory_files.lend(parcel, fds, job_id) is bool(fds)
    return fds[0] if fds else None


def arrived(packed: Parcel, fd: int) -> Any:
    try:
        return Arrived(memoryview(packed.table()), fd).load()
    finally:
        os.close(fd)


def test_what_is_small_is_a_plain_pickle_with_its_arrays_in_it() -> None:
    data = encode_one({"a": np.arange(100)}, 0, False)
    assert isinstance(data, bytes)
    assert (pickle.loads(data)["a"] == np.arange(100)).all()


@pytest.mark.parametrize("size", [LEAST_BYTES, LEAST_BYTES - 2000])
def test_the_border_between_small_and_large(size: int) -> None:
    encoded = encode_one({"b": b"x" * size}, 0, False)
    assert isinstance(encoded, Parcel) == (size >= LEAST_BYTES)
    block = memoryview(encoded.inline() if isinstance(encoded, Parcel) else encoded)
    assert load_job(block, None) == {"b": b"x" * size}


def test_a_call_is_cut_into_stretches_around_its_parcels() -> None:
    jobs = [{"n": n, "a": np.zeros(LEAST_BYTES)} if n in (0, 3, 4) else {"n": n} for n in range(7)]
    stretches = list(encode_jobs(jobs).stretches())
    assert [(sum(s.counts), type(s.payload())) for s in stretches] == [
        (1, Parcel),
        (2, bytes),
        (1, Parcel),
        (1, Parcel),
        (2, bytes),
    ]


def test_a_lambda_and_an_array_travel_together() -> None:
    encoded = encode_one({"f": lambda a: a.sum(), "a": np.ones(LEAST_BYTES)}, 0, False)
    assert isinstance(encoded, Parcel)
    assert len(encoded.parts) == 2, "the array once, beside the pickle"
    job = load_job(memoryview(encoded.inline()), None)
    assert job["f"](job["a"]) == LEAST_BYTES


def test_a_large_result_in_the_frame_itself() -> None:
    outcome, payload = encode_large_result({"a": np.arange(LEAST_BYTES)})
    assert isinstance(payload, Parcel)
    assert (load_result(outcome, memoryview(payload.inline()))["a"] == np.arange(LEAST_BYTES)).all()


def test_a_file_is_used_again_once_it_was_given_back(memory: Memory) -> None:
    memory_files = MemoryFiles(memory)
    first = lend(memory_files, large(1))
    assert first is not None
    other = lend(memory_files, large(2))
    assert other is not None
    assert inode(first) != inode(other), "the first is still lent"
    number = inode(first)
    assert (Arrived(memoryview(large(1).table()), first).load()["a"] == 1).all()
    give_back(first)
    os.close(first)
    again = lend(memory_files, large(3))
    assert again is not None
    assert inode(again) == number
    assert (arrived(large(3), again)["a"] == 3).all()
    assert (arrived(large(2), other)["a"] == 2).all()


def test_what_was_read_stays_as_it_was_when_the_file_is_used_again(memory: Memory) -> None:
    memory_files = MemoryFiles(memory)
    fd = lend(memory_files, large(1))
    assert fd is not None
    got = Arrived(memoryview(large(1).table()), fd).load()["a"]
    give_back(fd)
    os.close(fd)
    fd = lend(memory_files, large(2))
    assert fd is not None
    os.close(fd)
    assert (got == 1).all()


def test_a_file_lent_for_a_job_waits_for_the_jobs_end(memory: Memory) -> None:
    unfinished = {7}
    memory_files = MemoryFiles(memory, unfinished)
    first = lend(memory_files, large(), 7)
    assert first is not None
    number = inode(first)
    give_back(first)
    os.close(first)
    for finished, expected in ((False, False), (True, True)):
        if finished:
            unfinished.clear()
        fd = lend(memory_files, large())
        assert fd is not None
        assert (inode(fd) == number) is expected
        os.close(fd)


def test_the_file_that_fits_best_is_taken(memory: Memory) -> None:
    memory_files = MemoryFiles(memory)
    numbers = {}
    lent = []
    for size in (1, 4, 2):
        fd = lend(memory_files, large(size=size * LEAST_BYTES))
        assert fd is not None
        numbers[size] = inode(fd)
        lent.append(fd)
    for fd in lent:
        give_back(fd)
        os.close(fd)
    for size, expected in ((2, 2), (3, 4), (5, 1)):
        fd = lend(memory_files, large(size=size * LEAST_BYTES))
        assert fd is not None
        assert inode(fd) == numbers[expected]
        assert (arrived(large(size=size * LEAST_BYTES), fd)["a"] == 0).all()


def test_what_is_kept_is_bounded(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "KEEP_BYTES", 5 * LEAST_BYTES)
    before = len(os.listdir("/proc/self/fd"))
    memory_files = MemoryFiles(memory)
    for n in range(3 * parcel.KEEP_FILES):
        fd = lend(memory_files, large(n))  # never given back
        assert fd is not None
        os.close(fd)
        assert len(os.listdir("/proc/self/fd")) - before <= 5
    fd = lend(memory_files, large(size=6 * LEAST_BYTES))
    assert fd is not None
    os.close(fd)
    memory_files.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("call", ["memfd_create", "pwritev", "dup"])
def test_nothing_is_lent_when_the_system_has_no_more(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left")

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, call, fail)
    memory_files = MemoryFiles(memory)
    assert lend(memory_files, large()) is None
    memory_files.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_lent_when_the_boss_holds_enough(memory: Memory) -> None:
    memory.most_held = parcel.ON_THEIR_WAY + 1
    memory_files = MemoryFiles(memory)
    fd = lend(memory_files, large())
    assert fd is not None
    held = Held(fd, memory)
    assert memory.held == 1
    assert lend(memory_files, large()) is None
    del held
    assert memory.held == 0
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_writes_that_are_cut_short_go_on(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    write: Callable[..., int] = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, at: write(fd, [memoryview(parts[0])[:1000]], at))
    read: Callable[..., int] = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: read(fd, [parts[0][:777]], at))
    value = {"a": [np.full(LEAST_BYTES // 8, n, np.uint8) for n in range(9)]}
    packed = encode_one(value, 0, False)
    assert isinstance(packed, Parcel)
    fd = lend(MemoryFiles(memory), packed)
    assert fd is not None
    for got, sent in zip(arrived(packed, fd)["a"], value["a"], strict=True):
        assert (got == sent).all()


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_a_parcel_without_its_data_is_an_error_when_it_is_loaded(cut: int) -> None:
    packed = large()
    with pytest.raises(OSError, match="too many open files"):
        Arrived(memoryview(packed.inline())[: len(packed.table()) + cut], None).load()
    fd = os.memfd_create("bossworker-short")
    short = Arrived(memoryview(packed.table()), fd)
    os.close(fd)
    with pytest.raises(OSError, match="shorter"):
        short.load()
