"""A stable key for a job's content."""

from __future__ import annotations

import datetime
import enum
import hashlib
import math
import numbers
import uuid
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import PurePath
from typing import Any


def job_key(job: Mapping[Any, Any]) -> str:
    """The job's content as a key: 64 hexadecimal digits (SHA-256), the same in every process and run.

    Equal dicts have equal keys, whatever the order of their entries: so 1, 1.0 and True count as one value, a list
    and a tuple as two. Known are None, numbers, str, bytes, lists, tuples, sets, mappings, dates and times, paths,
    UUIDs, enums, dataclasses, and whatever exports a buffer, such as an array.

    Raises:
        TypeError: `job` is no mapping, or holds a value that has no stable content; names its key.
    """
    if not isinstance(job, Mapping):
        raise TypeError(f"job must be a mapping (a dict), not {type(job).__name__}: {job!r:.200}")
    return hashlib.sha256(_encode(job, "job")).hexdigest()


def _encode(value: Any, where: str) -> bytes:
    """The value's canonical bytes: equal for equal values, different for different ones."""
    for types, tag, content in _ENCODERS:
        if isinstance(value, types):
            return _tagged(tag, content(value, where))
    if is_dataclass(value) and not isinstance(value, type):
        parts = [(f.name, getattr(value, f.name)) for f in fields(value) if f.compare]
        return _tagged(b"dataclass " + _name_of(value), _items(parts, where))
    try:
        view = memoryview(value)
        shape = f"{view.format} {view.shape}".encode()
        return _tagged(b"buffer", _tagged(shape, view.tobytes()))
    except TypeError:
        raise TypeError(f"{where} holds {type(value).__name__}, which has no stable content to make a key of") from None


def _tagged(tag: bytes, content: bytes) -> bytes:
    return b"%d:%s%d:%s" % (len(tag), tag, len(content), content)


def _name_of(value: object) -> bytes:
    return f"{type(value).__module__}.{type(value).__qualname__}".encode()


def _number(value: Any, where: str) -> bytes:
    """Numbers that are equal, of whatever type, have the same bytes."""
    if isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real):
        if value.imag:
            return _number(value.real, where) + b"+j" + _number(value.imag, where)
        value = value.real
    if math.isfinite(value):
        return str(Fraction(value)).encode()
    return str(float(value)).encode()


def _mapping(value: Any, where: str) -> bytes:
    return _items(value.items(), where)


def _items(items: Any, where: str) -> bytes:
    return b"".join(
        sorted(_encode(key, f"{where}'s key {key!r}") + _encode(item, f"{where}[{key!r}]") for key, item in items)
    )


def _sequence(value: Any, where: str) -> bytes:
    return b"".join([_encode(item, f"{where}[{n}]") for n, item in enumerate(value)])


def _set(value: Any, where: str) -> bytes:
    return b"".join(sorted(_encode(item, f"{where}'s member {item!r}") for item in value))


def _moment(value: datetime.datetime, where: str) -> bytes:
    if value.utcoffset() is None:
        return value.replace(fold=0).isoformat().encode()
    return b"utc " + value.astimezone(datetime.UTC).isoformat().encode()


def _enum(value: enum.Enum, where: str) -> bytes:
    return _name_of(value) + b"." + value.name.encode()


def _text(value: object, where: str) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _plain_text(value: str, where: str) -> bytes:
    return str.__str__(value).encode("utf-8", "surrogatepass")


_Encoder = tuple[type | tuple[type, ...], bytes, Callable[[Any, str], bytes]]

_ENCODERS: tuple[_Encoder, ...] = (
    (type(None), b"none", lambda value, where: b""),
    (str, b"str", _plain_text),
    (numbers.Number, b"number", _number),
    ((bytes, bytearray), b"bytes", lambda value, where: bytes(value)),
    (enum.Enum, b"enum", _enum),
    (list, b"list", _sequence),
    (tuple, b"tuple", _sequence),
    (AbstractSet, b"set", _set),
    (Mapping, b"dict", _mapping),
    (datetime.datetime, b"datetime", _moment),
    (datetime.date, b"date", _text),
    (datetime.time, b"time", _text),
    (datetime.timedelta, b"timedelta", lambda value, where: repr(value).encode()),
    (PurePath, b"path", lambda value, where: _name_of(value) + b" " + _text(value, where)),
    (uuid.UUID, b"uuid", _text),
    (range, b"range", _sequence),
)
