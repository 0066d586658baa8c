"""A task's streams, written, given up, and read by their files in any order: beside the bytes as one plain string."""

from __future__ import annotations

import os
import tempfile

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bossworker.tasks.supervisor.store import ByteStore, MessageStore
from bossworker.tasks.wire.stream_files import DATA, MARKS, STDOUT, Marks, bases
from bossworker.tasks.wire.stream_reader import ByteReader, MessageReader
from tests.tasks.test_store import pattern

pytestmark = pytest.mark.timeout(600)  # to show a failure in few steps takes a while
caps = st.none() | st.sampled_from([0, 1, 1000, 70_000, 300_000])
sizes = st.sampled_from([0, 1, 7, 1000, 65_535, 65_536, 65_537, 200_000])
units = st.integers(-5, 500_000)


class Files(RuleBasedStateMachine):
    """A folder with the marks, as a supervisor has it open."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = os.open(self.folder.name, os.O_RDONLY)
        self.marks = os.open(f"{self.folder.name}/{MARKS}", os.O_RDWR | os.O_CREAT, 0o600)

    def teardown(self) -> None:
        os.close(self.marks)
        os.close(self.directory)
        self.folder.cleanup()


class ByteMachine(Files):
    @initialize(cap=caps, retain=caps)
    def begin(self, cap: int | None, retain: int | None) -> None:
        self.cap, self.retain = cap, retain
        self.store = ByteStore(self.directory, "stdout", Marks(self.marks, STDOUT), cap, retain)
        self.reader = ByteReader(self.folder.name, "stdout")
        self.limit = self.floor = 0
        self.ended = False

    @rule(size=sizes)
    def append(self, size: int) -> None:
        self.store.append(pattern(self.limit, self.limit + size))
        self.limit += size

    @rule(upto=units)
    def consumed(self, upto: int) -> None:
        self.store.consumed(upto)
        if self.retain is not None:
            self.floor = max(self.floor, min(upto, self.limit) - self.retain)

    @rule(upto=units)
    def discard(self, upto: int) -> None:
        self.store.discard(upto)
        self.floor = max(self.floor, min(upto, self.limit))

    @rule(ended=st.booleans())
    def end(self, ended: bool) -> None:
        self.store.end(ended)
        self.ended = ended

    @rule(ofs=st.none() | st.integers(0, 600_000), count=st.none() | st.integers(0, 300_000))
    def read(self, ofs: int | None, count: int | None) -> None:
        begin = min(max(self.start if ofs is None else ofs, self.start), self.limit)
        end = self.limit if count is None else min((self.start if ofs is None else ofs) + count, self.limit)
        assert self.reader.read(ofs, count) == (begin, pattern(begin, max(begin, end)))

    @property
    def start(self) -> int:
        return max(self.floor, 0 if self.cap is None else self.limit - self.cap)

    @invariant()
    def the_extent_is_right(self) -> None:
        assert self.store.start == self.start
        assert self.reader.extent() == (self.start, self.limit, self.ended)

    @invariant()
    def files_that_nobody_can_read_are_gone(self) -> None:
        begins = bases(self.directory, "stdout")
        assert len(begins) == 1 or begins[1] > self.start

    def teardown(self) -> None:
        self.store.close()
        super().teardown()


class MessageMachine(Files):
    @initialize(cap=caps)
    def begin(self, cap: int | None) -> None:
        self.cap = cap
        self.store = MessageStore(self.directory, "data", Marks(self.marks, DATA), cap, None)
        self.reader = MessageReader(self.folder.name, "data")
        self.messages: list[bytes] = []
        self.floor = 0

    @rule(size=st.sampled_from([0, 1, 1000, 30_000, 66_000]), count=st.integers(1, 3))
    def append(self, size: int, count: int) -> None:
        for _ in range(count):
            self.messages.append(len(self.messages).to_bytes(8, "big") * (size // 8) + bytes(size % 8))
            self.store.append(self.messages[-1])

    @rule(upto=st.integers(-1, 30))
    def discard(self, upto: int) -> None:
        self.store.discard(upto)
        self.floor = max(self.floor, min(upto, len(self.messages)))

    @rule(ofs=st.none() | st.integers(0, 40), count=st.none() | st.integers(0, 10))
    def read(self, ofs: int | None, count: int | None) -> None:
        start, limit = self.store.start, len(self.messages)
        begin = min(max(start if ofs is None else ofs, start), limit)
        end = limit if count is None else min((start if ofs is None else ofs) + count, limit)
        assert self.reader.read(ofs, count) == (begin, self.messages[begin : max(begin, end)])

    @invariant()
    def the_newest_are_kept(self) -> None:
        """By whole files: what was given up for the cap alone was beyond it."""
        start, limit = self.store.start, len(self.messages)
        assert self.reader.extent() == (start, limit, False)
        if self.cap is None:
            assert start == self.floor
        elif start > self.floor:
            assert sum(4 + len(message) for message in self.messages[start:]) >= self.cap

    def teardown(self) -> None:
        self.store.close()
        super().teardown()


TestBytes = ByteMachine.TestCase
TestMessages = MessageMachine.TestCase
