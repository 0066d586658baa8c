"""Results on their way from the boss to the scribe, kept in the flight recorders' file until they may be on the disk.

A ring: a result that was taken from a worker's recorder, and that neither boss nor scribe came to pass on, is found
here. What does not fit is not kept, nor what travels in a memory file; of its job it is then known that it has run.

The boss alone writes here. It says first how far it is about to write, so that what it is in the middle of when it is
killed is never taken for a result.
"""

from __future__ import annotations

from collections.abc import Iterator

from bossworker.pool.wire.segments import Segment

RING_BYTES = 1 << 22
_ENTRIES = 1 << 14
_WORDS = 7  # of an entry: where it begins, bytes, first id, jobs, base, pid, attempt
_HEAD = 8  # words: how many entries there have been, and how far has been, or is about to be, written
_COUNT, _REACH = range(2)
SIZE = 8 * (_HEAD + _WORDS * _ENTRIES) + RING_BYTES


class KeptResults:
    """See the module. Places are counted without end: the ring holds the last of them."""

    def __init__(self, view: memoryview) -> None:
        entries_end = 8 * (_HEAD + _WORDS * _ENTRIES)
        self._words = view[:entries_end].cast("Q")
        self._ring = view[entries_end:]

    def add(self, segment: Segment) -> None:
        """Keep these results."""
        parts = [memoryview(part).cast("B") for part in segment.body()]
        size = sum(map(len, parts))
        if size > RING_BYTES or segment.beside is not None:
            return
        words = self._words
        count, place = words[_COUNT], words[_REACH]
        left = RING_BYTES - place % RING_BYTES
        if size > left:  # no result is in two pieces
            place += left
        # Before the bytes are overwritten: a scribe that looks behind a boss that was killed in the middle must not
        # take what stood here before for a result.
        words[_REACH] = place + size
        at = place % RING_BYTES
        for part in parts:
            self._ring[at : at + len(part)] = part
            at += len(part)
        entry = _HEAD + _WORDS * (count % _ENTRIES)
        for offset, word in enumerate((place, size, *segment[:5])):
            words[entry + offset] = word
        # Last: before it, the entry is nobody's.
        words[_COUNT] = count + 1

    def __iter__(self) -> Iterator[Segment]:
        """What is here, also what is on the disk by now."""
        words, count = self._words, self._words[_COUNT]
        oldest = words[_REACH] - RING_BYTES
        # The entry that comes next takes the place of the oldest one, which may be half of either: it does not count.
        for number in range(max(0, count - _ENTRIES + 1), count):
            entry = _HEAD + _WORDS * (number % _ENTRIES)
            place, size, first_id, jobs, base, pid, attempt = words[entry : entry + _WORDS]
            if place >= oldest:
                at = place % RING_BYTES
                yield _cut(bytes(self._ring[at : at + size]), first_id, jobs, base, pid, attempt)

    def close(self) -> None:
        self._words.release()
        self._ring.release()


def _cut(data: bytes, first_id: int, jobs: int, base: int, pid: int, attempt: int) -> Segment:
    marks, ends, outcomes = 8 * (jobs + 1), 8 * (2 * jobs + 1), 8 * (2 * jobs + 1) + jobs
    parts = data[:marks], data[marks:ends], data[ends:outcomes], data[outcomes:]
    return Segment(first_id, jobs, base, pid, attempt, *parts)
