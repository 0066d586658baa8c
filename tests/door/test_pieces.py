"""What a door's messages are made of: frames in pieces, and what is kept for a client's return."""

from __future__ import annotations

import subprocess
import sys
from array import array

import pytest

from bossworker.pool.door.door_clients import Keepsake
from bossworker.pool.door.door_protocol import LONGEST_FRAME, PIECE_BYTES, Pieces, in_pieces, message_of
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.frames import Frame, frame_of
from bossworker.pool.wire.link import link_pair
from bossworker.pool.wire.messages import PIECE, Kind, ProtocolError
from bossworker.pool.wire.segments import single


def frames(message: bytes) -> list[Frame]:
    return [frame_of(memoryview(piece)) for piece in in_pieces(message)]


def test_a_short_frame_is_one_message() -> None:
    (frame,) = frames(message_of(Kind.CANCEL, b"head", b"body"))
    assert (frame.kind, bytes(frame.head), bytes(frame.body)) == (Kind.CANCEL, b"head", b"body")


def test_a_long_frame_comes_together_again() -> None:
    body = bytes(range(256)) * (5 * PIECE_BYTES // 256)
    pieces = frames(message_of(Kind.RESULTS, b"head", body))
    assert {frame.kind for frame in pieces} == {Kind.PIECE}
    whole, found = Pieces(), None
    for frame in pieces:
        whole.add(frame)
        found = whole.add(frame)  # whoever is interrupted does it twice
    assert found is not None
    assert (found.kind, bytes(found.head), bytes(found.body) == body) == (Kind.RESULTS, b"head", True)


@pytest.mark.parametrize(
    ("size", "start", "body"),
    [
        (10, 5, b"x"),
        (3, 0, b"xxxx"),
        (LONGEST_FRAME + 1, 0, b"x"),
        (1 << 63, 1 << 63, b"x"),
        (1, 0, b"x"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(size: int, start: int, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Pieces().add(frame_of(memoryview(message_of(Kind.PIECE, PIECE.pack(size, start), body))))


def test_pieces_in_pieces_are_refused() -> None:
    inner = message_of(Kind.PIECE, PIECE.pack(1, 0), b"x")
    with pytest.raises(ProtocolError, match="pieces in pieces"):
        Pieces().add(frame_of(memoryview(message_of(Kind.PIECE, PIECE.pack(len(inner), 0), inner))))


def test_what_is_kept_goes_once_all_of_it_has_been_taken() -> None:
    keepsake = Keepsake()
    for first in (1, 10):
        counts, sizes = array("I", [1, 1]), array("Q", [1, 1])
        keepsake.add(Batch(first, 2, 0, JobOptions(0, 0.0, 0, 1), counts, sizes, b"xy"))
        keepsake.results[first] = single(first, 1, 1, 0.0, 1.0, 0, b"result")
    keepsake.take([1])
    assert (sorted(keepsake.batches), keepsake.taken()) == ([1, 10], [1])
    keepsake.take([2, 10])
    assert (sorted(keepsake.batches), sorted(keepsake.results), keepsake.taken()) == ([10], [], [10])
    keepsake.take([11, 999])
    assert not keepsake.batches
    assert not keepsake.results


@pytest.mark.parametrize("module", ["porter", "door_server"])
def test_a_process_whose_program_is_gone_before_it_began_ends_without_a_word(module: str) -> None:
    ours, theirs = link_pair()
    arguments = "0, " * (module == "door_server")  # the boss, which it would hear of only then
    command = f"from bossworker.pool.door import {module}; {module}.main({theirs.fileno()}, {arguments})"
    with theirs:
        ours.close()
        ended = subprocess.run(
            [sys.executable, "-c", command], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, "")
