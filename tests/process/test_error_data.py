"""Errors as data: what is in a failed result, and what a program that looks at it is shown."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from bossworker import BossWorker, JobFailed, RemoteError, Result

Pool = Callable[..., BossWorker]


def call(job: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = job["do"]()
    return value


def run(pool: Pool, do: Callable[[], Any], **settings: Any) -> Result:
    bw = pool(call, worker_count=1, **settings)
    bw.add_work({"do": do})
    result = bw.get_result()
    assert isinstance(result, Result)
    return result


def deep_in_the_worker() -> NoReturn:
    raise ValueError("rattle")


def with_cause() -> NoReturn:
    try:
        deep_in_the_worker()
    except ValueError as error:
        raise KeyError("outer") from error


# -- exceptions that misbehave ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    pass


class NoAttributes(Exception):
    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise RuntimeError("hands off")

    def add_note(self, note: str) -> NoReturn:
        raise RuntimeError("no notes")


class TakesThree(Exception):
    def __init__(self, one: int, two: int, three: int) -> None:
        super().__init__(f"{one} {two} {three}")


class Liar(Exception):
    @property
    def __cause__(self) -> NoReturn:  # type: ignore[override]
        raise RuntimeError("no cause")

    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


@pytest.mark.parametrize("make", [Frozen, NoAttributes, lambda: TakesThree(1, 2, 3), Liar])
def test_no_exception_keeps_a_result_from_telling_it(pool: Pool, make: Callable[[], BaseException]) -> None:
    def misbehave() -> NoReturn:
        try:
            deep_in_the_worker()
        except ValueError as error:
            raise make() from error

    result = run(pool, misbehave)
    for _ in range(2):
        exception = result.exception
        assert type(exception) in (Frozen, NoAttributes, Liar, RemoteError)
    with pytest.raises(JobFailed):
        result.raise_for_error()
    assert "in misbehave" in (result.traceback or "")


def test_a_frozen_exception_comes_back_with_its_cause(pool: Pool) -> None:
    def freeze() -> NoReturn:
        try:
            deep_in_the_worker()
        except ValueError as error:
            raise Frozen from error

    exception = run(pool, freeze).exception
    assert isinstance(exception, Frozen)
    assert isinstance(exception.__cause__, ValueError)
    assert "deep_in_the_worker" in "".join(traceback.format_exception(exception))


# -- what is missing from a failed result ---------------------------------------------------------------------------


def test_a_key_that_a_failed_result_has_not_says_why(pool: Pool) -> None:
    result = run(pool, deep_in_the_worker)
    with pytest.raises(KeyError) as caught:
        result["square"]
    assert str(caught.value) == f"'square': job {result.job_id} failed: ValueError: rattle"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert result.get("square") is None
    assert result["ERROR"] == "ValueError: rattle"


def test_a_key_that_a_good_result_has_not_is_a_plain_key_error(pool: Pool) -> None:
    result = run(pool, lambda: {"n": 1})
    for one in (result, Result({"n": 1})):
        with pytest.raises(KeyError) as caught:
            one["square"]
        assert type(caught.value) is KeyError
        assert caught.value.args == ("square",)


# -- the worker's own frames ----------------------------------------------------------------------------------------


def test_the_cause_of_a_failed_job_shows_where_it_was_raised(pool: Pool) -> None:
    result = run(pool, with_cause)
    with pytest.raises(JobFailed, match=r"job 1: KeyError: 'outer'") as caught:
        result.raise_for_error()
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert isinstance(cause.__cause__, ValueError)
    for error in (caught.value, cause):
        text = "".join(traceback.format_exception(error))
        assert text.count("in deep_in_the_worker") == 1
        assert text.count("in with_cause") == 2  # where the first was raised, and the second
        assert 'raise ValueError("rattle")' in text
    plain = pickle.loads(pickle.dumps(caught.value))
    assert "in deep_in_the_worker" in "".join(traceback.format_exception(plain.result.exception))


def test_logging_shows_it_too(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    try:
        run(pool, deep_in_the_worker).raise_for_error()
    except JobFailed:
        logging.getLogger("program").exception("no luck")
    assert "in deep_in_the_worker" in caplog.text


def test_a_script_that_fails_shows_it() -> None:
    program = """
        from bossworker import BossWorker

        def handle(job):
            raise ValueError("rattle")  # in the handler

        with BossWorker(handle, worker_count=1) as pool:
            pool.add_work({})
            pool.get_result().raise_for_error()
        """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "in handle" in done.stderr
    assert done.stderr.rstrip().endswith("JobFailed: job 1: ValueError: rattle")


def test_an_exception_that_never_had_a_traceback_has_no_note(pool: Pool) -> None:
    exception = run(pool, lambda: os._exit(3)).exception
    assert exception is not None
    assert not hasattr(exception, "__notes__")


# -- how a worker died --------------------------------------------------------------------------------------------


def test_how_a_worker_died_is_data(pool: Pool) -> None:
    result = run(pool, lambda: os._exit(3))
    assert (result.error_kind, result.exit_code, result.signal) == ("crash", 3, None)
    result = run(pool, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert (result.error_kind, result.exit_code, result.signal) == ("crash", None, signal.SIGKILL)
    result = run(pool, functools.partial(os._exit, 0))
    assert (result.error_kind, result.exit_code, result.signal) == ("crash", 0, None)
    again = pickle.loads(pickle.dumps(result))
    assert (again.exit_code, again.signal) == (0, None)


def test_whoever_did_not_die_of_it_has_no_exit_code(pool: Pool) -> None:
    for do in (deep_in_the_worker, dict):
        result = run(pool, do)
        assert (result.exit_code, result.signal) == (None, None)


# -- what fails here ------------------------------------------------------------------------------------------------


class Bad:
    """It can be sent, and not be rebuilt."""

    def __reduce__(self) -> tuple[Any, ...]:
        return in_the_caller, ("rattle",)


def in_the_caller(text: str) -> int:
    return int(text)


def test_a_result_that_does_not_load_here_tells_the_error_itself(pool: Pool) -> None:
    result = run(pool, lambda: {"b": Bad()})
    assert result.error_kind == "bad_result"
    reason = "ValueError: invalid literal for int() with base 10: 'rattle'"
    assert result["ERROR"] == f"BossWorkerAsync: the result could not be rebuilt here: {reason}"
    exception = result.exception
    assert type(exception) is ValueError
    assert str(exception) == "invalid literal for int() with base 10: 'rattle'"
    assert "in in_the_caller" in (result.traceback or "")
    assert "During handling" not in (result.traceback or "")  # nothing that the pool met on its way belongs to it
    assert exception.__cause__ is None
    assert exception.__context__ is None
    with pytest.raises(JobFailed) as caught:
        result.raise_for_error()
    assert "in in_the_caller" in "".join(traceback.format_exception(caught.value))


# -- jobs that cannot be sent or rebuilt ------------------------------------------------------------------------------


def test_a_list_of_jobs_in_one_is_told_how_to_be_added(pool: Pool) -> None:
    bw = pool(call, worker_count=1)
    for many in ([{"do": dict}], ({"do": dict} for _ in range(2))):
        with pytest.raises(TypeError, match=r"job 0 must be a mapping .*pass \*jobs, or use map"):
            bw.add_work(many)
    assert bw.pending() == 0


def test_an_open_file_in_a_job_is_refused(pool: Pool, tmp_path: Any) -> None:
    bw = pool(call, worker_count=1)
    with open(tmp_path / "file", "w+") as file, pytest.raises(TypeError, match=r"job\['in'\]\[0\] is TextIOWrapper"):
        bw.add_work({"in": [file]})


def test_reprs_are_short_and_pages_escaped(pool: Pool) -> None:
    bw = pool(call, worker_count=2)
    bw.add_work({"do": lambda: {"<b>": bytes(1 << 20)}})
    result = bw.get_result()
    assert isinstance(result, Result)
    for shown in (result, bw, bw.stats()):
        assert len(repr(shown)) < 200
        assert "<b>&" not in shown._repr_html_()
    assert "&lt;b&gt;" in result._repr_html_()
    bw.shut_down(force=True)
    assert "closed" in bw._repr_html_()
