"""The wire, without a socket: whatever the pieces, the same frames; whatever the garbage, an error in bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bossworker.tasks.wire import protocol
from bossworker.tasks.wire.protocol import HEADER, MARK, MAX_BODY, MAX_HEAD, BadFrame, Decoder, encode

FRAMES: list[tuple[dict[str, Any], bytes]] = [
    ({}, b""),
    ({"op": "info"}, b""),
    ({"op": "write", "stream": 0, "wait": None}, bytes(range(256)) * 300),
    ({"ok": True, "info": {"meta": {"näme": "∂ \U0001f600", "n": [1, 2.5, None, {"deep": []}]}}}, b"x"),
    ({"op": "meta", "meta": {"large": "y" * 100_000}}, b""),
]


def drain(decoder: Decoder) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    while (frame := decoder.next()) is not None:
        found.append(frame)
    return found


def test_pieces_of_any_size_make_the_same_frames() -> None:
    dice = random.Random(1)
    for _ in range(20):
        sent = [dice.choice(FRAMES) for _ in range(10)]
        stream = b"".join(encode(*frame) for frame in sent)
        decoder, got = Decoder(), []
        while stream:
            size = dice.choice((1, 2, 11, 12, 13, 1000, 70_000))
            decoder.feed(stream[:size])
            stream = stream[size:]
            got += drain(decoder)
        assert got == sent
        assert len(decoder) == 0


def test_half_a_frame_is_no_frame_and_no_error() -> None:
    whole = encode({"op": "info"}, b"body")
    for size in range(len(whole)):
        decoder = Decoder()
        decoder.feed(whole[:size])
        assert decoder.next() is None


def test_garbage_is_refused_as_soon_as_it_can_be_told() -> None:
    dice = random.Random(2)
    for first in set(range(256)) - {MARK[0]}:
        decoder = Decoder()
        decoder.feed(bytes([first]) + dice.randbytes(dice.randrange(100)))
        with pytest.raises(BadFrame):
            decoder.next()


def test_a_damaged_frame_is_refused_or_waited_for_but_nothing_else() -> None:
    dice = random.Random(3)
    refused = 0
    for _ in range(3000):
        damaged = bytearray(encode(*dice.choice(FRAMES[:3])))
        for _ in range(dice.randrange(1, 4)):
            damaged[dice.randrange(min(len(damaged), 40))] = dice.randrange(256)
        decoder = Decoder()
        decoder.feed(bytes(damaged))
        try:
            frames = drain(decoder)
        except BadFrame:
            refused += 1
        else:
            assert all(isinstance(head, dict) and isinstance(body, bytes) for head, body in frames)
    assert refused > 1000


@pytest.mark.parametrize(
    "header",
    [HEADER.pack(MARK, MAX_HEAD + 1, 0), HEADER.pack(MARK, 2, MAX_BODY + 1), HEADER.pack(MARK, 2**32 - 1, 2**32 - 1)],
)
def test_a_size_is_refused_before_anything_of_that_size_is_kept(header: bytes) -> None:
    decoder = Decoder()
    decoder.feed(header)
    with pytest.raises(BadFrame, match="are allowed"):
        decoder.next()


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"1", b'"x"', b"{", b'{"a": 1} {}', b"\xff", b"[" * 200_000, b'{"a":' * 100_000, b"nul"]
)
def test_a_head_that_is_no_object_is_refused(text: bytes) -> None:
    decoder = Decoder()
    decoder.feed(HEADER.pack(MARK, len(text), 0) + text)
    with pytest.raises(BadFrame, match="head"):
        decoder.next()


def test_another_version_is_refused() -> None:
    decoder = Decoder()
    decoder.feed(encode({}).replace(MARK, b"bwt2"))
    with pytest.raises(BadFrame, match="version"):
        decoder.next()


def test_what_the_other_side_would_refuse_is_not_sent() -> None:
    with pytest.raises(BadFrame, match="are allowed"):
        encode({"meta": "x" * protocol.MAX_HEAD})
    with pytest.raises(BadFrame, match="are allowed"):
        encode({}, bytes(MAX_BODY + 1))
    assert len(encode({}, bytes(MAX_BODY))) <= protocol.MAX_FRAME
