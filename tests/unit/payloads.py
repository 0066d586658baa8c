"""Payloads as tests of the wire take them."""

from __future__ import annotations

from bossworker.pool.wire.parcel import Parcel


def in_one(payload: bytes | Parcel) -> bytes:
    """A payload that is too small to be in parts."""
    assert not isinstance(payload, Parcel)
    return payload
