"""A stable key for a job's content."""

from __future__ import annotations

import datetime
import enum
import hashlib
import numbers
import uuid
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import PurePath, PurePosixPath
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
    try:
        return hashlib.sha256(_encode(job, "job")).hexdigest()
    except RecursionError:
        key = next((key for key, value in job.items() if _is_endless(value)), None)
        raise TypeError(f"job[{key!r}] is nested too deep, or in itself") from None


def _is_endless(value: Any) -> bool:
    try:
        _encode(value, "")
    except RecursionError:
        return True
    return False


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
        if "O" in view.format:
            raise TypeError("addresses are not content")
        if view.ndim == 0:
            return _encode(view.tolist(), where)  # a NumPy scalar is what it is equal to
        shape = f"{view.format} {view.shape}".encode()
        return _tagged(b"buffer", _tagged(shape, view.tobytes()))
    except (TypeError, NotImplementedError):
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
    if hasattr(value, "item"):  # NumPy's numbers are no Fractions
        value = value.item()
    try:
        exact = Fraction(value)
    except (OverflowError, ValueError):  # infinite, or not a number
        try:
            return str(float(value)).replace("-nan", "nan").encode()
        except ValueError:  # a signalling NaN refuses everything
            raise TypeError(f"{where} holds {value!r}, which is equal to nothing and cannot be compared") from None
    return f"{exact.numerator:x}/{exact.denominator:x}".encode()


def _mapping(value: Any, where: str) -> bytes:
    return _items(value.items(), where)


def _items(items: Any, where: str) -> bytes:
    return b"".join(
        sorted(_encode(key, f"{where}'s key {key!r}") + _encode(item, f"{where}[{key!r}]") for key, item in items)
    )


def _sequence(value: Any, where: str) -> bytes:
    return b"".join([_encode(item, f"{where}[{n}]") for n, item in enumerate(value)])


def _range(value: range, where: str) -> bytes:
    """Two ranges are equal when they hold the same numbers."""
    return f"{len(value)} {value.start if value else 0} {value.step if len(value) > 1 else 0}".encode()


def _set(value: Any, where: str) -> bytes:
    return b"".join(sorted(_encode(item, f"{where}'s member {item!r}") for item in value))


def _moment(value: datetime.datetime, where: str) -> bytes:
    if value.utcoffset() is None:
        return value.replace(fold=0).isoformat().encode()
    return b"utc " + value.astimezone(datetime.UTC).isoformat().encode()


def _enum(value: enum.Enum, where: str) -> bytes:
    return _name_of(value) + b"." + str(value.name if value.name is not None else value.value).encode()


def _time(value: datetime.time, where: str) -> bytes:
    offset = value.utcoffset()
    if offset is None:
        return value.replace(fold=0).isoformat().encode()
    since = datetime.timedelta(0, value.hour * 3600 + value.minute * 60 + value.second, value.microsecond)
    return b"utc " + repr(since - offset).encode()


def _path(value: PurePath, where: str) -> bytes:
    return (b"posix " if isinstance(value, PurePosixPath) else b"windows ") + _text(value, where)


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
    (datetime.time, b"time", _time),
    (datetime.timedelta, b"timedelta", lambda value, where: repr(value).encode()),
    (PurePath, b"path", _path),
    (uuid.UUID, b"uuid", _text),
    (range, b"range", _range),
)
