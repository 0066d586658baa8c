"""How a job ends, and errors as data: an exception is captured in the worker and rebuilt only when somebody asks."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from functools import cache
from struct import Struct
from types import TracebackType
from typing import Any, Literal, NamedTuple, cast

from bossworker.errors import MEMORY_EXCEEDED, TIMED_OUT, JobTimeout, RemoteError
from bossworker.pickling import PROTOCOL, MainDefinitions, dumps

CHAIN_LENGTH = 10  # causes of an exception that are told
EXCEPTION_BYTES = 1 << 20  # a pickled exception above this stays behind; its text travels
_CODE, _NO_CODE = Struct("<i"), -(1 << 31)


class Outcome(IntEnum):
    """How a job ended: one of the first ten, with flags that say how its payload is to be read."""

    OK = 0
    EXCEPTION = 1
    TIMEOUT = 2
    CRASH = 3
    CANCELLED = 4
    BAD_RESULT = 5
    BAD_JOB = 6
    REPORTED = 7  # the handler returned an ERROR key of its own
    MEMORY = 8  # it outgrew the memory that it may have
    INTERRUPTED = 9  # the pool ended while it ran, or may have run (with a journal)

    WHOLE = 0x10  # a pickle of its own, not one to be loaded together with its neighbours
    TEXT = 0x20  # UTF-8, written by the boss
    GIVEN = 0x80  # the payload is what the handler returned, though its kind is none of OK and REPORTED
    ELSEWHERE = 0x40  # the result travels in a SPILL frame, not in the flight recorder


KIND_BITS = 0x0F
ErrorKind = Literal[
    "exception", "timeout", "crash", "cancelled", "bad_result", "bad_job", "memory", "reported", "interrupted"
]


@cache  # an enum's lookups are slow, and there are few outcomes
def kind_of(outcome: int) -> ErrorKind | None:
    """The outcome's kind of error, as people read it; None when all went well."""
    kind = Outcome(outcome & KIND_BITS)
    return None if kind is Outcome.OK else cast("ErrorKind", kind.name.lower())


FROM_WORKERS = bytes(
    kind | flags
    for kind in range(Outcome.MEMORY + 1)
    for flags in (0, Outcome.WHOLE, Outcome.GIVEN, Outcome.WHOLE | Outcome.GIVEN)
)
"""What a worker may say of how a job ended."""


class Failure(dict[str, Any]):
    """What a handler returns, with an ``ERROR``, when it knows better than ``reported`` what kind of error it is."""

    def __init__(self, kind: Outcome, value: Mapping[str, Any]) -> None:
        super().__init__(value)
        self.kind = kind


class ErrorData(NamedTuple):
    """An exception as data: nothing in it can do harm until somebody asks for the exception itself."""

    text: str  # "ValueError: rattle"
    type_name: str
    message: str
    traceback: str
    pickled: bytes | None
    cause: tuple[Any, ...] | None  # an ErrorData, as the plain tuple it travels as
    code: int | None = None  # how the worker ended, if that is the error: its exit code, or minus the signal
    log: str = ""  # the last lines of what the job printed, where they are known


def describe(error: BaseException) -> str:
    """``Type: message``, whatever the exception's own methods do."""
    name, message = type(error).__name__, _message(error)
    return f"{name}: {message}" if message else name


def _message(error: BaseException) -> str:
    try:
        return "".join((str(error),))  # of a str subclass, too, a plain str
    except BaseException as second:
        return f"<its __str__ raised {type(second).__name__}>"


def capture(
    error: BaseException,
    skip_frames: int = 0,
    text: str = "",
    depth: int = 0,
    by_value: bool | MainDefinitions = False,
) -> ErrorData:
    """An exception as data, with its traceback (less the outermost frames) and its chain of causes."""
    trace, cause = _trace_and_cause(error)
    if depth >= CHAIN_LENGTH:
        cause = None
    for _ in range(skip_frames):
        trace = trace.tb_next if trace is not None else None
    return ErrorData(
        text or describe(error),
        type(error).__name__,
        _message(error),
        _format(error, trace, depth),
        _pickled(error, by_value),
        tuple(capture(cause, depth=depth + 1, by_value=by_value)) if cause is not None else None,
    )


def _trace_and_cause(error: BaseException) -> tuple[TracebackType | None, BaseException | None]:
    """What Python has noted, whatever the exception's class makes of these attributes."""
    cause, context, hidden, trace = (slot.__get__(error) for slot in (_CAUSE, _CONTEXT, _HIDDEN, _TRACE))
    return trace, cause or (None if hidden else context)


def _format(error: BaseException, trace: Any, depth: int) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, trace, chain=depth == 0))
    except BaseException:
        with suppress(BaseException):
            return "".join(traceback.format_tb(trace)) + describe(error)
        return describe(error)


def _pickled(error: BaseException, by_value: bool | MainDefinitions) -> bytes | None:
    try:
        data = dumps(error, by_value)
    except BaseException:
        return None
    return data if len(data) <= EXCEPTION_BYTES else None


def reported(value: Mapping[Any, Any]) -> ErrorData:
    """The error that a dict tells of itself, under ``ERROR``."""
    text = str(value["ERROR"])
    return ErrorData(text, "", text, "", None, None)


def encode_error(data: ErrorData) -> bytes:
    return pickle.dumps(tuple(data), PROTOCOL)


def encode_text(text: str, code: int | None = None) -> bytes:
    """An error that is all in its text, as the boss writes it. `code`: see ErrorData."""
    return _CODE.pack(_NO_CODE if code is None else code) + text.encode()


def decode_text(payload: bytes | memoryview) -> ErrorData:
    """The same, read again."""
    (code,) = _CODE.unpack_from(payload)
    text = str(memoryview(payload)[_CODE.size :], "utf-8", "replace")
    name = JobTimeout.__name__ if text == TIMED_OUT or MEMORY_EXCEEDED in text else ""
    return ErrorData(text, name, text, "", None, None, None if code == _NO_CODE else code)


def rebuild(data: ErrorData) -> BaseException:
    """An exception from its data, with its causes; never raises."""
    error = _unpickled(data)
    if error is None:
        text = data.message or data.text
        error = RemoteError(data.type_name or "BossWorkerError", text, data.traceback)
    if data.cause is not None:
        set_cause(error, rebuild(ErrorData(*data.cause)))
    return error


def set_cause(error: BaseException, cause: BaseException) -> None:
    """As ``raise error from cause`` does, whatever the exception's class thinks of assignments (one may be frozen)."""
    for slot in (_CAUSE, _CONTEXT):
        slot.__set__(error, cause)


_CAUSE, _CONTEXT, _HIDDEN, _TRACE = (
    BaseException.__dict__[name] for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__")
)


def add_trace(error: BaseException, trace: str) -> None:
    """Have the traceback of another process shown with an exception, wherever that is printed; never raises."""
    note = f"\nIn the process where it was raised:\n\n{trace.rstrip()}"
    with suppress(Exception):
        try:
            error.add_note(note)
        except Exception:  # its class takes no new attributes
            BaseException.__getattribute__(error, "__dict__")["__notes__"] = [*getattr(error, "__notes__", ()), note]


def _unpickled(data: ErrorData) -> BaseException | None:
    """The exception itself, if it rebuilds as what it was."""
    if data.pickled is None:
        return None
    try:
        error = pickle.loads(data.pickled)
        same = isinstance(error, BaseException) and type(error).__name__ == data.type_name
    except BaseException:
        return None
    return error if same else None
