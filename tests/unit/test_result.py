"""What comes back: a dict with attributes, which travels, and raises what the worker raised."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any, NoReturn

import pytest

from bossworker import JobFailed, JobTimeout, RemoteError, Result
from bossworker.errors import TIMED_OUT, BossDied, ResultHandlerError, UnfinishedJob
from bossworker.failure import ErrorData, Outcome, capture, rebuild
from bossworker.result import Origin, make_result

JOB = {"n": 1}
CLOCK = 1_700_000_000.0


def facts(outcome: Outcome = Outcome.OK, error: ErrorData | None = None) -> Origin:
    return Origin(7, (JOB,), 4321, 2, CLOCK, 10.0, (11.0, 13.5), (outcome,), (error,))


def failed(error: BaseException, outcome: Outcome = Outcome.EXCEPTION) -> Result:
    data = capture(error)
    return make_result({"ERROR": data.text}, facts(outcome, data))


def told(outcome: Outcome, text: str) -> Result:
    """A result that the boss decided on."""
    return make_result({"ERROR": text}, facts(outcome, ErrorData(text, "", text, "", None, None)))


class Unbuildable(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__("unbuildable")


def test_a_result_is_the_dict_the_handler_returned() -> None:
    result = make_result({"a": 1}, facts())
    assert result == {"a": 1}
    assert isinstance(result, dict)
    assert result["a"] == 1


def test_the_attributes_of_a_good_result() -> None:
    result = make_result({"a": 1}, facts())
    assert (result.job_id, result.worker_pid, result.attempts) == (7, 4321, 2)
    assert result.job is JOB
    assert (result.queued_at, result.started_at, result.finished_at) == (CLOCK + 10, CLOCK + 11, CLOCK + 13.5)
    assert result.duration == 2.5
    assert result.ok
    assert (result.error, result.error_kind, result.exception, result.traceback) == (None, None, None, None)
    assert result.raise_for_error() is result


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.EXCEPTION, "exception"),
        (Outcome.TIMEOUT, "timeout"),
        (Outcome.CRASH, "crash"),
        (Outcome.CANCELLED, "cancelled"),
        (Outcome.BAD_RESULT, "bad_result"),
        (Outcome.BAD_JOB, "bad_job"),
        (Outcome.REPORTED, "reported"),
    ],
)
def test_every_kind_of_error_has_its_name(outcome: Outcome, kind: str) -> None:
    result = told(outcome, "why")
    assert not result.ok
    assert (result.error_kind, result.error, result["ERROR"]) == (kind, "why", "why")


def test_the_error_stays_what_it_was_when_the_dict_is_changed() -> None:
    result = told(Outcome.CRASH, "why")
    del result["ERROR"]
    assert result.error == "why"
    assert not result.ok


def test_the_repr_tells_what_matters() -> None:
    assert repr(make_result({"a": 1}, facts())) == "<Result of job 7, ok: {'a': 1}>"
    assert repr(told(Outcome.CRASH, "why")) == "<Result of job 7, crash: {'ERROR': 'why'}>"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_result_travels_with_its_attributes(protocol: int) -> None:
    for result in (make_result({"a": [1]}, facts()), failed(ValueError("rattle"))):
        again = pickle.loads(pickle.dumps(result, protocol))
        assert type(again) is Result
        assert again == result
        assert again._origin.__reduce__() == result._origin.__reduce__()
        assert (again.job, again.ok, again.error) == (JOB, result.ok, result.error)


def test_a_result_can_be_copied() -> None:
    result = make_result({"a": [1]}, facts())
    shallow, deep = copy.copy(result), copy.deepcopy(result)
    assert (shallow.job_id, deep.job_id) == (7, 7)
    assert shallow["a"] is result["a"]
    assert deep["a"] is not result["a"]


def test_a_result_made_by_hand_travels_as_one() -> None:
    for again in (pickle.loads(pickle.dumps(Result({"a": 1}))), copy.copy(Result({"a": 1}))):
        assert (type(again), dict(again), repr(again)) == (Result, {"a": 1}, "<Result: {'a': 1}>")


def test_a_result_made_by_hand_is_ok_and_of_no_job() -> None:
    result = Result({"a": 1}, b=2)
    assert (result, result.ok, result.raise_for_error() is result) == ({"a": 1, "b": 2}, True, True)
    assert (result.error, result.error_kind, result.exception, result.traceback, result.log) == (None,) * 4 + ("",)
    job: object = result.job
    assert (job, result.job_id, result.worker_pid, result.attempts) == (None, 0, 0, 0)
    assert (result.queued_at, result.started_at, result.finished_at, result.duration) == (0, 0, 0, 0)
    assert (result.exit_code, result.signal) == (None, None)
    assert Result().ok


def test_a_result_made_by_hand_with_an_error_has_failed() -> None:
    for result in (Result({"ERROR": "boom"}), copy.copy(Result(ERROR="boom"))):
        assert (result.ok, result.error, result.error_kind) == (False, "boom", "reported")
        assert type(result.exception) is RemoteError
        with pytest.raises(JobFailed, match=r"^a job: boom$"):
            result.raise_for_error()
        with pytest.raises(KeyError, match="'a': a job failed: boom"):
            result["a"]
        assert repr(result) == "<Result: {'ERROR': 'boom'}>"
        assert "boom" in result._repr_html_()


def test_raising_names_the_job_and_has_the_workers_exception_as_its_cause() -> None:
    result = failed(ValueError("rattle"))
    with pytest.raises(JobFailed, match=r"^job 7: ValueError: rattle$") as caught:
        result.raise_for_error()
    assert caught.value.result is result
    assert type(caught.value.__cause__) is ValueError
    assert caught.value.__cause__.args == ("rattle",)


def test_a_timeout_by_the_boss_is_a_job_timeout() -> None:
    assert type(told(Outcome.TIMEOUT, TIMED_OUT).exception) is JobTimeout


def test_a_timeout_in_the_handler_is_the_one_that_was_raised() -> None:
    result = failed(JobTimeout("mine"), Outcome.TIMEOUT)
    assert isinstance(result.exception, JobTimeout)
    assert result.exception.args == ("mine",)


def test_an_error_without_an_exception_is_a_remote_error_with_its_text() -> None:
    error = told(Outcome.CRASH, "BossWorkerAsync: worker died (exit code 3)").exception
    assert isinstance(error, RemoteError)
    assert error.message == "BossWorkerAsync: worker died (exit code 3)"


def test_an_exception_that_does_not_rebuild_is_stood_in_for() -> None:
    error = failed(Unbuildable(1, 2)).exception
    assert isinstance(error, RemoteError)
    assert (error.type_name, error.message) == ("Unbuildable", "unbuildable")
    assert str(error) == "Unbuildable: unbuildable"


def test_bytes_that_are_no_exception_do_no_harm() -> None:
    for pickled in (b"", b"garbage", pickle.dumps(7), pickle.dumps(KeyError())):
        error = rebuild(ErrorData("ValueError: x", "ValueError", "x", "trace", pickled, None))
        assert isinstance(error, RemoteError)
        assert (str(error), error.traceback) == ("ValueError: x", "trace")


def explode() -> NoReturn:
    raise SystemExit("from inside a pickle")


class Mine:
    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


def test_an_exception_that_explodes_when_it_is_rebuilt_does_no_harm() -> None:
    assert isinstance(rebuild(ErrorData("E", "E", "", "", pickle.dumps(Mine()), None)), RemoteError)


def test_the_exception_is_rebuilt_only_when_it_is_asked_for() -> None:
    result = make_result({"ERROR": "E"}, facts(Outcome.EXCEPTION, ErrorData("E", "E", "", "t", b"garbage", None)))
    assert (result.error, result.error_kind, result.traceback) == ("E", "exception", "t")


@pytest.mark.parametrize(
    "error",
    [
        RemoteError("ValueError", "rattle", "trace"),
        RemoteError("KeyError", ""),
        BossDied("dead", [UnfinishedJob(1, {"a": 1}, True)]),
        JobFailed("job 7: x", make_result({"a": 1}, facts())),
        ResultHandlerError("job 7: x", make_result({"a": 1}, facts())),
    ],
)
def test_our_own_errors_travel(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_times_are_unix_seconds() -> None:
    now, mono = time.time(), time.monotonic()
    result = make_result({}, Origin(1, (JOB,), 1, 1, now - mono, mono, (mono, mono)))
    assert abs(result.finished_at - now) < 0.01
