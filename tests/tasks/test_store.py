"""Streams on the disk: what was written is what is read, by offset, whatever is given up in between."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from bossworker.tasks.supervisor.store import SMALLEST_FILE, ByteStore, MessageStore
from bossworker.tasks.wire.stream_files import DATA, MARKS, STDOUT, Marks
from bossworker.tasks.wire.stream_reader import ByteReader, Gone, MessageReader


def pattern(start: int, end: int) -> bytes:
    """Bytes that tell where they stand: eight for each multiple of eight."""
    first = start // 8 * 8
    data = b"".join(n.to_bytes(8, "big") for n in range(first, end, 8))
    return data[start - first : end - first]


@contextmanager
def writing(folder: Path, *, cap: int | None = None, retain: int | None = None) -> Iterator[ByteStore]:
    with opened(folder) as (directory, marks):
        store = ByteStore(directory, "stdout", Marks(marks, STDOUT), cap, retain)
        yield store
        store.close()


@contextmanager
def writing_messages(folder: Path, *, cap: int | None = None) -> Iterator[MessageStore]:
    with opened(folder) as (directory, marks):
        store = MessageStore(directory, "data", Marks(marks, DATA), cap, None)
        yield store
        store.close()


@contextmanager
def opened(folder: Path) -> Iterator[tuple[int, int]]:
    directory = os.open(folder, os.O_RDONLY)
    marks = os.open(folder / MARKS, os.O_RDWR | os.O_CREAT, 0o600)
    yield directory, marks
    os.close(marks)
    os.close(directory)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("stdout*"))


def test_everything_stays_in_one_file_unless_told_otherwise(tmp_path: Path) -> None:
    reader = ByteReader(str(tmp_path), "stdout")
    with writing(tmp_path) as store:
        store.append(pattern(0, 300_000))
        assert reader.extent() == (0, 300_000, False)
        assert reader.read(None, None) == (0, pattern(0, 300_000))
        assert reader.read(12, 23) == (12, pattern(12, 35))
        assert reader.read(299_990, 1000) == (299_990, pattern(299_990, 300_000))
        assert reader.read(400_000, 1000) == (300_000, b"")
        store.end()
    assert reader.extent().ended
    assert {path.name for path in tmp_path.iterdir()} == {"stdout", MARKS}


@pytest.mark.parametrize("cap", [0, 1, 100, 70_000, 1_000_000])
def test_with_a_cap_exactly_the_newest_bytes_stay(tmp_path: Path, cap: int) -> None:
    reader = ByteReader(str(tmp_path), "stdout")
    dice = random.Random(cap)
    with writing(tmp_path, cap=cap) as store:
        while store.limit < 3_000_000:
            store.append(pattern(store.limit, store.limit + dice.randrange(1, 200_000)))
            start = max(0, store.limit - cap)
            assert reader.extent() == (start, store.limit, False)
            assert store.start == start
            assert reader.read(None, None) == (start, pattern(start, store.limit))
            assert on_disk(tmp_path) <= cap + max(SMALLEST_FILE, cap // 4) + 200_000
        assert reader.read(0, 10) == (start, b"")
        assert reader.read(start - 5, 10) == (start, pattern(start, start + 5)[: cap or 0])


def test_what_was_read_goes_but_for_what_is_to_be_retained(tmp_path: Path) -> None:
    reader = ByteReader(str(tmp_path), "stdout")
    with writing(tmp_path, retain=1000) as store:
        store.append(pattern(0, 500_000))
        assert store.start == 0
        store.consumed(200_000)
        assert store.start == reader.extent().start == 199_000
        assert on_disk(tmp_path) <= 301_000 + SMALLEST_FILE
        store.consumed(100_000)  # somebody else, who is behind
        store.consumed(10**9)  # nobody has read what was not written
        assert reader.read(None, None) == (499_000, pattern(499_000, 500_000))


def test_discarded_bytes_are_gone_and_give_their_room_back(tmp_path: Path) -> None:
    reader = ByteReader(str(tmp_path), "stdout")
    with writing(tmp_path) as store:
        store.append(pattern(0, 100_000))
        store.discard(60_000)
        assert reader.read(None, None) == (60_000, pattern(60_000, 100_000))
        store.discard(100_000)
        assert on_disk(tmp_path) == 0
        store.append(pattern(100_000, 100_010))
        assert reader.read(None, None) == (100_000, pattern(100_000, 100_010))
        store.discard(50_000)
        assert reader.extent() == (100_000, 100_010, False)


def test_a_pipe_is_taken_over_byte_by_byte(tmp_path: Path) -> None:
    source, sink = os.pipe()
    os.set_blocking(source, False)
    with writing(tmp_path, cap=100_000) as store:
        while store.limit < 1_000_000:
            os.write(sink, pattern(store.limit, store.limit + 50_000))
            taken = 0
            while taken < 50_000:
                taken += store.take_from(source)
        with pytest.raises(BlockingIOError):
            store.take_from(source)
        os.close(sink)
        assert store.take_from(source) == 0
        os.close(source)
    assert ByteReader(str(tmp_path), "stdout").read(None, None) == (900_000, pattern(900_000, 1_000_000))


def test_where_the_kernel_cannot_move_bytes_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByteStore, "_move", ByteStore._copy)
    test_a_pipe_is_taken_over_byte_by_byte(tmp_path)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_where_this_file_system_cannot_move_bytes_they_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    attempts = 0

    def refuse(*_: object, **__: object) -> NoReturn:
        nonlocal attempts
        attempts += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "splice", refuse)
    test_a_pipe_is_taken_over_byte_by_byte(tmp_path)
    assert attempts == 1


def test_messages_are_whole_and_counted(tmp_path: Path) -> None:
    reader = MessageReader(str(tmp_path), "data")
    sent = [b"", b"one", b"x" * 100_000, b"\0\n"]
    with writing_messages(tmp_path) as store:
        for message in sent:
            store.append(message)
        assert reader.extent() == (0, 4, False)
        assert reader.read(None, None) == (0, sent)
        assert reader.read(1, 2) == (1, sent[1:3])
        assert reader.read(4, None) == (4, [])
        store.discard(3)
        assert reader.read(0, None) == (3, sent[3:])
        store.discard(99)
        store.append(b"more")
        assert reader.read(None, None) == (4, [b"more"])


def test_half_a_message_is_none(tmp_path: Path) -> None:
    with writing_messages(tmp_path) as store:
        store.append(b"whole")
    with open(tmp_path / "data", "ab") as file:
        file.write((1000).to_bytes(4, "little") + b"torn")
    assert MessageReader(str(tmp_path), "data").read(None, None) == (0, [b"whole"])


def test_messages_with_a_cap_are_given_up_by_files(tmp_path: Path) -> None:
    reader = MessageReader(str(tmp_path), "data")
    with writing_messages(tmp_path, cap=300_000) as store:
        for number in range(1000):
            store.append(number.to_bytes(4, "big") * 1000)
        kept = sum(path.stat().st_size for path in tmp_path.glob("data*"))
        assert 300_000 <= kept <= 300_000 + 2 * 75_000 + 8000
        first, messages = reader.read(None, None)
        assert first == store.start > 900
        assert messages == [number.to_bytes(4, "big") * 1000 for number in range(first, 1000)]
        assert reader.read(998, 1) == (998, [(998).to_bytes(4, "big") * 1000])


def test_what_is_not_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Gone):
            ByteReader(str(folder), "stdout").read(None, None)
        with pytest.raises(Gone):
            MessageReader(str(folder), "data").extent()


def test_other_files_beside_it_are_no_part_of_it(tmp_path: Path) -> None:
    with writing(tmp_path) as store:
        store.append(b"abc")
        for name in (
            "stdout.txt",
            "stdout.1",
            "stdout.0000000000000000000x",
            "stdoutx",
            "stdout.000000000000000000002",
        ):
            (tmp_path / name).write_bytes(b"foreign")
        assert ByteReader(str(tmp_path), "stdout").read(None, None) == (0, b"abc")


def write_for_a_while(folder: str, seconds_worth: int) -> None:
    with writing(Path(folder), cap=150_000) as store:
        for _ in range(seconds_worth):
            store.append(pattern(store.limit, store.limit + 40_000))
        store.end()


def test_a_reader_that_races_the_writer_never_sees_a_wrong_byte(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The writer gives up files while they are read: each answer is right for where it says that it begins."""
    rounds = 20_000 if request.config.getoption("--long") else 1000
    (tmp_path / "stdout").touch()
    (tmp_path / MARKS).touch()
    reader = ByteReader(str(tmp_path), "stdout")
    writer = multiprocessing.get_context("fork").Process(target=write_for_a_while, args=(str(tmp_path), rounds))
    writer.start()
    dropped = answers = position = 0
    while not (extent := reader.extent()).ended or position < extent.limit:
        begin, data = reader.read(position, None)
        assert data == pattern(begin, begin + len(data))
        dropped += begin > position
        position = begin + len(data)
        answers += 1
    writer.join()
    assert position == 40_000 * rounds
    assert answers > 10
    assert dropped
