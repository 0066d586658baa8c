"""The ring of results that were on their way."""

from __future__ import annotations

from bossworker.pool.wire.kept_results import RING_BYTES, SIZE, KeptResults
from bossworker.pool.wire.segments import Segment, single


def result(job_id: int, size: int) -> Segment:
    return single(job_id, 7, 2, 1.0, 2.0, 0, bytes((job_id % 256,)) * size)


def test_what_was_kept_is_there_in_full() -> None:
    kept = KeptResults(memoryview(bytearray(SIZE)))
    segments = [result(1, 10), result(2, 0), Segment(5, 2, 3, 8, 1, b"m" * 24, b"e" * 16, b"oo", b"payload")]
    for segment in segments:
        kept.add(segment)
    assert list(kept) == segments


def test_what_was_written_over_is_not_told() -> None:
    kept = KeptResults(memoryview(bytearray(SIZE)))
    size = RING_BYTES // 10
    for job_id in range(1, 40):
        kept.add(result(job_id, size))
        found = {segment.first_id: segment for segment in kept}
        assert job_id in found
        assert len(found) >= min(job_id, 8)
        for one, segment in found.items():
            assert segment.payload == bytes((one,)) * size


def test_what_is_too_large_is_not_kept() -> None:
    kept = KeptResults(memoryview(bytearray(SIZE)))
    kept.add(result(1, RING_BYTES + 1))
    assert list(kept) == []


def test_a_write_that_was_cut_off_leaves_nothing_wrong() -> None:
    """As if the boss were killed while it writes: what lies where it was about to write does not count any more."""
    area = memoryview(bytearray(SIZE))
    kept = KeptResults(area)
    size = RING_BYTES // 4
    for job_id in range(1, 5):
        kept.add(result(job_id, size - 100))
    area.cast("Q")[1] += size  # how far it is about to write
    assert 1 not in {segment.first_id for segment in kept}
    assert 4 in {segment.first_id for segment in kept}
