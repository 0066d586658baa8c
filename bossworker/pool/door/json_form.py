"""Jobs and results as JSON, for doors with ``accept="json"``: no pickle that was made elsewhere is ever loaded.

Both ends turn JSON into the frames that the pool's processes speak among themselves, and back: the door for its
clients, and a client's porter for its handle. The pickles in these frames are made here, or by the pool's own workers;
what is read of them is plain data (`load_plain`), whatever they hold.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bossworker.errors import CANCELLED
from bossworker.failure import (
    KIND_BITS,
    ErrorData,
    Outcome,
    decode_text,
    describe,
    encode_error,
    encode_text,
)
from bossworker.pool.door.door_protocol import LONGEST_JSON, MOST_DEPTH, encode, is_too_deep
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.codec import encode_jobs, encode_large_result, load_plain
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.parcel import Parcel
from bossworker.pool.wire.segments import Segment, single, split

MOST_OWN_ID = (1 << 40) - 1
_KINDS = {kind.name.lower(): kind for kind in Outcome if kind and kind <= KIND_BITS and kind.name}


# -- jobs ---------------------------------------------------------------------------------------------------------


def jobs_to_json(batch: Batch) -> dict[str, Any]:
    """A batch that was made here, as a message."""
    options = batch.job_options
    jobs = [{"id": job_id, "job": job} for job_id, job in zip(batch.ids, load_jobs(batch))]
    told = {"timeout": options.timeout, "priority": options.priority, "retries": options.retries}
    return {"op": "submit", "jobs": jobs, **told}


def load_jobs(batch: Batch) -> list[Any]:
    """The jobs of a batch, plain data all of them."""
    jobs: list[Any] = []
    at = 0
    for count, size in zip(batch.counts, batch.sizes):
        value = load_plain(memoryview(batch.payload)[at : at + size])
        jobs += value if count > 1 else [value]
        at += size
    return jobs[batch.skip : batch.skip + batch.count]


def jobs_from_json(message: Mapping[str, Any], default: JobOptions) -> Iterator[Batch]:
    """Batches of the jobs in a message, as many as there are stretches of ids. ProtocolError says what is wrong."""
    options = _options_from_json(message, default)
    jobs = message.get("jobs")
    if not isinstance(jobs, list) or not jobs:
        raise ProtocolError("jobs must be a list of objects with id and job")
    ids = [_own_id(one.get("id") if isinstance(one, dict) else None) for one in jobs]
    contents = [_content(one.get("job")) for one in jobs]
    for start, stop in _stretches(ids):
        yield _batch(ids[start], contents[start:stop], options)


def _batch(first_id: int, jobs: list[dict[str, Any]], options: JobOptions) -> Batch:
    blocks = encode_jobs(jobs)
    parts = [part.inline() if isinstance(part, Parcel) else part for part in blocks.parts]
    return Batch(first_id, len(jobs), 0, options, blocks.counts, array("Q", map(len, parts)), b"".join(parts))


def _stretches(ids: list[int]) -> Iterator[tuple[int, int]]:
    """Positions between which ids are consecutive."""
    start = 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or ids[at] != ids[at - 1] + 1:
            yield start, at
            start = at


def _own_id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_OWN_ID:
        raise ProtocolError(f"the id of a job must be an int from 1 to {MOST_OWN_ID}")
    return value


def _content(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ProtocolError("a job must be an object")
    return value


def _options_from_json(message: Mapping[str, Any], default: JobOptions) -> JobOptions:
    timeout, priority, retries = (message.get(name) for name in ("timeout", "priority", "retries"))
    timeout = default.timeout if timeout is None else timeout
    priority = 0 if priority is None else priority
    retries = default.retries if retries is None else retries
    for name, value, kinds in (
        ("timeout", timeout, int | float),
        ("priority", priority, int),
        ("retries", retries, int),
    ):
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise ProtocolError(f"{name} must be a number")
    if not (0 <= timeout <= 1e9 and -(1 << 63) <= priority < 1 << 63 and 0 <= retries < 1 << 32):
        raise ProtocolError("timeout, priority or retries out of range")
    return JobOptions(int(priority), float(timeout), int(retries), 1)


# -- results ------------------------------------------------------------------------------------------------------


def results_message(segments: Iterable[Segment]) -> bytes:
    """Results from the pool's workers, as a message; whatever workers have written is no harm to us."""
    results = [_result_message(one) for segment in segments for one in split(segment)]
    return b'{"op":"results","results":[%s]}' % b",".join(results)


def _result_message(segment: Segment) -> bytes:
    outcome = segment.outcomes[0]
    error, value = _error_and_value(outcome, segment.payload)
    try:
        return _as_message(segment, outcome, error, value)
    except (TypeError, ValueError, RecursionError) as problem:
        return _as_message(segment, outcome, _no_json(describe(problem)), None)


def _as_message(segment: Segment, outcome: int, error: ErrorData | None, value: dict[str, Any] | None) -> bytes:
    started, finished = memoryview(segment.marks).cast("B").cast("d")
    if value is None and outcome & KIND_BITS in (Outcome.OK, Outcome.REPORTED):
        outcome = Outcome.BAD_RESULT
    kind = Outcome(outcome & KIND_BITS)
    told = {
        "id": segment.first_id,
        "ok": kind is Outcome.OK,
        "result": value if value is not None else {"ERROR": error.text if error else ""},
        "error_kind": None if kind is Outcome.OK else kind.name.lower(),
        **(_NO_ERROR if error is None else _facts_of(error)),
        "worker_pid": segment.pid,
        "attempts": segment.attempt,
        "started": started,
        "finished": finished,
    }
    message = encode(told)
    if is_too_deep(value, message, MOST_DEPTH):
        raise ValueError(f"it is nested more than {MOST_DEPTH} levels deep")
    return message


_NO_ERROR = dict.fromkeys(("error", "error_type", "message", "traceback", "exit_code"))


def _facts_of(error: ErrorData) -> dict[str, Any]:
    facts = (error.text, error.type_name, error.message, error.traceback or None, error.code)
    return dict(zip(_NO_ERROR, facts, strict=True))


def _error_and_value(outcome: int, payload: Any) -> tuple[ErrorData | None, dict[str, Any] | None]:
    kind = outcome & KIND_BITS
    try:
        if outcome & Outcome.TEXT:
            return decode_text(payload), None
        if kind not in (Outcome.OK, Outcome.REPORTED) and not outcome & Outcome.GIVEN:
            return ErrorData(*load_plain(payload)), None
        value = load_plain(payload if outcome & Outcome.WHOLE else b"".join((payload, b".")))
    except Exception as problem:
        return _no_json(describe(problem)), None
    if not isinstance(value, dict):
        return _no_json(f"it is of type {type(value).__name__}"), None
    if kind == Outcome.CANCELLED:
        value["ERROR"] = CANCELLED
    text = str(value.get("ERROR", ""))
    return (None if kind == Outcome.OK else ErrorData(text, "", text, "", None, None)), value


def _no_json(why: str) -> ErrorData:
    text = f"BossWorkerAsync: the result is no JSON, which is all that goes through this door: {why}"
    return ErrorData(text, "", text, "", None, None)


def results_from_json(message: Mapping[str, Any]) -> Iterator[Segment]:
    """The same read again, as a client's handle takes them. Raises anything when they are no results."""
    for told in message["results"]:
        outcome, payload = _outcome_and_payload(told)
        yield single(
            told["id"], told["worker_pid"], told["attempts"], told["started"], told["finished"], outcome, payload
        )


def _outcome_and_payload(told: Mapping[str, Any]) -> tuple[int, bytes]:
    kind = Outcome.OK if told["ok"] else _KINDS[told["error_kind"]]
    value = told["result"]
    given = kind in (Outcome.OK, Outcome.REPORTED) or value != {"ERROR": told["error"]}
    if given:
        flags = Outcome.WHOLE if kind in (Outcome.OK, Outcome.REPORTED) else Outcome.WHOLE | Outcome.GIVEN
        _, payload = encode_large_result(value)
        return kind | flags, payload.inline() if isinstance(payload, Parcel) else payload
    if kind in (Outcome.CRASH, Outcome.TIMEOUT, Outcome.CANCELLED) and not told["traceback"]:
        return kind | Outcome.TEXT, encode_text(told["error"], told["exit_code"])
    data = ErrorData(
        told["error"], told["error_type"] or "", told["message"] or "", told["traceback"] or "", None, None
    )
    return kind | Outcome.WHOLE, encode_error(data)


def plain_job(job: Any) -> Any:
    """What JSON makes of a job, for a door that takes that. TypeError names the key that is none."""
    if not isinstance(job, Mapping):
        return job  # which is told of there
    try:
        text = json.dumps(dict(job))
    except (TypeError, ValueError, RecursionError):
        for key, value in job.items():
            _check_entry(key, value)
        raise TypeError("a job is no JSON, which is all that this door takes") from None
    if len(text) > LONGEST_JSON // 2:
        raise TypeError(
            f"a job of {len(text)} characters of JSON is too long for this door: {LONGEST_JSON // 2} at most"
        )
    if is_too_deep(job, text.encode(), MOST_DEPTH):
        raise TypeError(f"a job may be nested {MOST_DEPTH} levels deep, as far as this door goes, and one is deeper")
    return json.loads(text)


def _check_entry(key: object, value: object) -> None:
    try:
        json.dumps({key: value})
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"a job is no JSON, which is all that this door takes: key {key!r}: {error}") from None
