"""How jobs and results become bytes, and errors become data.

Jobs: many small jobs of plain data are pickled together as one block, a third of the cost of one pickle each.
Everything else is a block of its own. Results: each is pickled by itself the moment it is there, so that a crash
cannot take it along, but in a form of which many can be loaded at one go.
"""

from __future__ import annotations

import io
import pickle
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby, repeat
from typing import Any, NamedTuple, NoReturn

from bossworker.culprits import culprit_of
from bossworker.display import shorten
from bossworker.errors import JobTimeout
from bossworker.failure import ErrorData, Failure, Outcome, decode_text, describe
from bossworker.pickling import MAIN, PROTOCOL, MainDefinitions, dumps
from bossworker.pool.wire.messages import BLOCK_COUNT, BLOCK_SIZE
from bossworker.pool.wire.parcel import LEAST_BYTES, Arrived, Buffer, Parcel, is_parcel, split_parcel
from bossworker.system.compiled import core

RESULT_PROTOCOL = 3  # the last whose memo is numbered in the pickle itself, so that pickles can be strung together
BLOCK_JOBS = 64  # jobs to a block: past this, pickling gains nothing
BLOCK_BYTES = 1 << 15  # above this the gain is lost in the payload itself

_INTERRUPTS = (JobTimeout, KeyboardInterrupt)  # what ends the pickling of a result, instead of failing in it
_STOP = b"."
_pickle = pickle.dumps
_OK, _REPORTED = int(Outcome.OK), int(Outcome.REPORTED)


# -- jobs -----------------------------------------------------------------------------------------------------


class _NotPlain(Exception):
    """The block holds more than plain data, or too much of it."""


class _BlockPickler(pickle.Pickler):
    """Pickles plain data only: loading it runs no code, so it cannot fail, hang or crash in the worker.

    ``fast`` leaves out the memo: two jobs that share a list each get a list of their own, as if pickled
    one by one. (The price is that sharing *within* a job of plain data is not kept either.) Something nested in
    itself, or shared so often that it explodes, ends as _NotPlain and is pickled the usual way.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        super().__init__(self, PROTOCOL)
        self.fast = True

    def write(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > BLOCK_BYTES:
            raise _NotPlain
        self._parts.append(data)

    def reducer_override(self, obj: object) -> Any:
        raise _NotPlain

    def block(self, jobs: Sequence[object]) -> bytes:
        self._parts.clear()
        self._size = 0
        self.dump(list(jobs))  # as the core packs it, and as its loop in a worker takes it: add_work has a tuple
        return b"".join(self._parts)


class Blocks(NamedTuple):
    """Encoded jobs: a payload of blocks, how many jobs each holds, how many bytes it has."""

    counts: array[int]
    sizes: array[int]
    parts: list[bytes | Parcel]

    def stretches(self) -> Iterator[Blocks]:
        """The same in order, each Parcel by itself."""
        if Parcel not in set(map(type, self.parts)):
            yield self
            return
        start = 0
        for large, group in groupby(self.parts, lambda part: type(part) is Parcel):
            count = len(list(group))
            for stop in range(start + 1, start + count + 1) if large else (start + count,):
                yield Blocks(self.counts[start:stop], self.sizes[start:stop], self.parts[start:stop])
                start = stop

    def payload(self) -> bytes | Parcel:
        """All parts in one."""
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)  # type: ignore[arg-type]


def encode_jobs(jobs: Sequence[object], by_value: bool | MainDefinitions = False, first: int = 0) -> Blocks:
    """Pickle jobs; TypeError names the job, and the key, that is no mapping or cannot be pickled.

    `by_value`: definitions in ``__main__`` travel along, for workers that do not have them. `first`: what
    the first job is counted as in an error.
    """
    counts, sizes = array(BLOCK_COUNT), array(BLOCK_SIZE)
    parts: list[bytes | Parcel] = []
    for start, together in zip(range(0, len(jobs), BLOCK_JOBS), _encoded_together(jobs)):
        chunk = jobs[start : start + BLOCK_JOBS]
        blocks: list[bytes | Parcel]
        if together is None:
            blocks = [encode_one(job, n, by_value) for n, job in enumerate(chunk, first + start)]
            counts.extend([1] * len(blocks))
        else:
            blocks = [together]
            counts.append(len(chunk))
        sizes.extend(map(len, blocks))
        parts += blocks
    return Blocks(counts, sizes, parts)


def _encoded_together(jobs: Sequence[object]) -> Iterable[bytes | None]:
    """A block for each `BLOCK_JOBS` of them, if those are dicts of plain data."""
    if len(jobs) < 2:
        return repeat(None)
    if core is not None:
        packed: list[bytes | None] = core.encode_blocks(tuple(jobs), BLOCK_JOBS, BLOCK_BYTES)
        if None not in packed:
            return packed
    else:
        packed = [None] * -(-len(jobs) // BLOCK_JOBS)
    pickler = _BlockPickler()
    return (
        block or _encode_together(pickler, jobs[n * BLOCK_JOBS : (n + 1) * BLOCK_JOBS])
        for n, block in enumerate(packed)
    )


def _encode_together(pickler: _BlockPickler, chunk: Sequence[object]) -> bytes | None:
    """A block of many jobs, if they are dicts of plain data; None if not."""
    if len(chunk) < 2 or set(map(type, chunk)) != {dict}:
        return None
    try:
        return pickler.block(chunk)
    except (_NotPlain, ValueError, RecursionError, pickle.PicklingError):
        return None


def encode_one(job: object, index: int, by_value: bool | MainDefinitions) -> bytes | Parcel:
    """Pickle one job; TypeError as from `encode_jobs`."""
    if not isinstance(job, dict):
        if not isinstance(job, Mapping):
            raise TypeError(f"job {index} must be a mapping (a dict), not {_what(job)}")
        job = dict(job)
    try:
        return _encode(job, by_value)
    except Exception as error:
        culprit = culprit_of("job", job, by_value, _INTERRUPTS)
        raise TypeError(f"job {index} cannot be pickled: {culprit or describe(error)}") from error


def _what(job: object) -> str:
    """What somebody takes for a job, and what to do with it instead if it may hold jobs."""
    told = f"{type(job).__name__}: {shorten(job)}"
    many = isinstance(job, Iterable) and not isinstance(job, str | bytes | bytearray)
    return f"{told}; to add the jobs in it, pass *jobs, or use map" if many else told


def _encode(value: object, by_value: bool | MainDefinitions) -> bytes | Parcel:
    """Pickle; a Parcel if it is large."""
    buffers: list[pickle.PickleBuffer] = []
    data = dumps(value, by_value, buffers)
    if not buffers and len(data) < LEAST_BYTES:
        return data
    parcel = Parcel([data, *[buffer.raw() for buffer in buffers]])
    return parcel if len(parcel) >= LEAST_BYTES else dumps(value, by_value)


def load_job(block: memoryview, fd: int | None) -> Any:
    """A job that is a block of its own; `fd`: the file with its data, if it was lent one."""
    return _loaded(Arrived(block, fd) if is_parcel(block) else block)


def _loaded(payload: memoryview | Arrived) -> Any:
    if isinstance(payload, memoryview) and is_parcel(payload):
        payload = Arrived(payload, None)
    return payload.load() if isinstance(payload, Arrived) else pickle.loads(payload)


def load_block(count: int, block: memoryview) -> list[Any]:
    """The jobs of a block that holds more than one."""
    jobs: list[Any] = load_group(block)
    if len(jobs) != count:
        raise ValueError(f"a block of {len(jobs)} jobs is not the {count} announced")
    return jobs


def load_group(block: bytes | memoryview) -> list[Any]:
    """The same, however many there are."""
    jobs: list[Any] | None = core.load_block(block) if core is not None else None
    return pickle.loads(block) if jobs is None else jobs


class _PlainUnpickler(pickle.Unpickler):
    """Loads plain data: numbers, text, lists, dicts. Nothing else is looked up, so no code runs."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("no plain data")


def load_plain(payload: Buffer) -> Any:
    """What a pickle, or a parcel, of anybody's holds. Raises anything when that is more than plain data."""
    if is_parcel(memoryview(payload)):
        data, *buffers = split_parcel(memoryview(payload))
        return _PlainUnpickler(io.BytesIO(data), buffers=buffers).load()
    return _PlainUnpickler(io.BytesIO(payload)).load()


def load_strange_block(count: int, block: memoryview) -> Iterable[Any]:
    """As `load_block`, of a program that we do not know: no code runs. What is wrong with it is told job by job."""
    with suppress(Exception):
        jobs = load_plain(block)
        if isinstance(jobs, list | tuple) and len(jobs) == count:
            return jobs
    return repeat(memoryview(b""), count)  # which does not load either, but once the job is claimed


# -- results ----------------------------------------------------------------------------------------------------


class BadResult(Exception):
    """What the handler returned is no result."""


def encode_result(value: object, by_value: bool | MainDefinitions = False) -> tuple[int, bytes | Parcel]:
    """Outcome and payload of what a handler returned. BadResult says what is wrong with it.

    Of a payload that is not WHOLE, the last byte is the pickle's full stop; what follows may be written over it.
    """
    if type(value) is not dict:
        if type(value) is Failure:
            return encode_large_result(value, by_value)
        value = _as_dict(value)
    outcome = _REPORTED if "ERROR" in value else _OK
    try:
        data = _pickle(value, RESULT_PROTOCOL)
        if by_value is not True or MAIN not in data:
            return outcome, data
    except _INTERRUPTS:
        raise
    except BaseException:
        pass
    return encode_large_result(value, by_value)


def encode_large_result(value: object, by_value: bool | MainDefinitions = False) -> tuple[int, bytes | Parcel]:
    """The same, at less cost for large results and more for small ones."""
    kind = value.kind | Outcome.GIVEN if type(value) is Failure else _REPORTED
    value = _as_dict(value)
    outcome = kind if "ERROR" in value else _OK
    try:
        return outcome | Outcome.WHOLE, _encode(value, by_value)
    except _INTERRUPTS:
        raise
    except BaseException as error:  # a __reduce__ may raise anything, SystemExit for instance
        culprit = culprit_of("result", value, by_value, _INTERRUPTS) or describe(error)
        raise BadResult(f"the handler returned a dict that cannot be pickled: {culprit}") from error


def _as_dict(value: object) -> dict[Any, Any]:
    if value is None:
        return {}
    if type(value) is dict:
        return value
    if isinstance(value, Mapping):
        try:
            return dict(value)
        except _INTERRUPTS:
            raise
        except BaseException as error:
            raise BadResult(
                f"the handler returned {type_phrase(value)} that cannot be read: {describe(error)}"
            ) from error
    raise BadResult(f"the handler returned {type_phrase(value)}, not a mapping or None")


def type_phrase(value: object) -> str:
    """Its type, as in ``an int``."""
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def load_results(payload: Buffer) -> list[dict[Any, Any]]:
    """All the results of a stretch of payload, none of which is WHOLE."""
    results: list[dict[Any, Any]] = pickle.loads(b"".join((b"(", payload, b"l.")))
    return results


def load_result(outcome: int, payload: memoryview | Arrived) -> dict[Any, Any]:
    """One result."""
    if not outcome & Outcome.WHOLE:
        payload = memoryview(b"".join((payload, _STOP)))  # type: ignore[arg-type]
    value: dict[Any, Any] = _loaded(payload)
    return value


def load_error(outcome: int, payload: memoryview | Arrived) -> ErrorData:
    """The error of a job that has no result: the worker's, or a text from the boss."""
    if outcome & Outcome.TEXT:
        return decode_text(payload)  # type: ignore[arg-type]  # no Arrived comes with it: see FROM_WORKERS
    return ErrorData(*_loaded(payload))
