"""What a job says of its progress, in memory that a handler may write anything to."""

from __future__ import annotations

import os

import pytest

from bossworker.pool.wire.progress import ROOM, TEXT_BYTES, Progress, read_progress, write_progress


@pytest.fixture
def area() -> memoryview:
    return memoryview(bytearray(ROOM))


@pytest.mark.parametrize(
    "progress",
    [Progress(3, 10, "three of ten"), Progress(0.5, None, ""), Progress(-1, 0, "Größe"), Progress(1e300, 2, "")],
)
def test_what_is_written_is_read(area: memoryview, progress: Progress) -> None:
    write_progress(area, 7, progress)
    assert read_progress(area, 7) == progress


def test_whole_numbers_are_shown_as_such(area: memoryview) -> None:
    write_progress(area, 7, Progress(3.0, 10.0, ""))
    assert repr(read_progress(area, 7)) == "Progress(done=3, total=10, text='')"


def test_of_another_job_nothing_is_told(area: memoryview) -> None:
    assert read_progress(area, 7) is None
    write_progress(area, 6, Progress(1, 2, "that of the job before"))
    assert read_progress(area, 7) is None


def test_a_long_text_is_cut_between_two_characters(area: memoryview) -> None:
    write_progress(area, 7, Progress(1, 2, "ä" * ROOM))
    read = read_progress(area, 7)
    assert read is not None
    assert set(read.text) == {"ä"}
    assert len(read.text.encode()) in (TEXT_BYTES - 1, TEXT_BYTES)


def test_a_surrogate_is_no_error(area: memoryview) -> None:
    write_progress(area, 7, Progress(1, 2, "\ud800"))
    assert read_progress(area, 7) == Progress(1, 2, "?")


def test_what_a_handler_has_written_over_is_not_believed(area: memoryview) -> None:
    write_progress(area, 7, Progress(1, 2, "three"))
    for at in range(ROOM):
        before = area[at]
        area[at] ^= 0xFF
        assert read_progress(area, 7) in (None, Progress(1, 2, "three"))  # the rest of the room is not read
        area[at] = before
    for _ in range(1000):
        area[:] = os.urandom(ROOM)
        assert read_progress(area, 7) is None
