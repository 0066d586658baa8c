"""The loop in Python over a worker's jobs leaves the trace that `JobRunner._run` leaves, which takes each by itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bossworker.errors import JobTimeout
from bossworker.failure import KIND_BITS, Failure, Outcome
from bossworker.pool.wire import codec
from bossworker.pool.wire.codec import load_results
from bossworker.pool.wire.recorder import Memory, Recorder
from bossworker.pool.wire.segments import Segment
from bossworker.pool.worker import job_runner, plain_jobs
from bossworker.pool.worker.job_runner import JobRunner
from bossworker.system import signals
from tests.unit.test_core import batch_of, make_runner, run_apart


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    yield memory
    memory.close()


class Raises:
    """Cannot be pickled."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error("while it is pickled")


class Text(dict[str, str]):
    """A dict that is more than one."""


GIVEN: dict[str, Any] = {
    "plain": {"product": 6},
    "none": None,
    "empty": {},
    "error": {"ERROR": "mine"},
    "number": 7,
    "ordered": OrderedDict(a=1),
    "text": Text(a="b"),
    "failure": Failure(Outcome.CRASH, {"ERROR": "none of mine"}),
    "function": {"f": lambda: 1},
    "known": {"f": batch_of},
    "large": {"text": "x" * 70_000},
    "unpicklable": {"a": Raises(ValueError)},
    "interrupt": {"a": Raises(KeyboardInterrupt)},
    "exit": {"a": Raises(SystemExit)},
    "raised": ValueError,
    "left": SystemExit,
    "out of time": JobTimeout,
}


def give(job: dict[str, str]) -> Any:
    value = GIVEN[job["what"]]
    if isinstance(value, type):
        raise value("rattle")
    return value


def segment_of(memory: Memory, how: str, skip: int, handler: Any = give) -> Segment:
    names = [name for name in GIVEN for _ in range(3)] + list(GIVEN) * 5
    return run_apart(memory, batch_of([{"what": name} for name in names], skip), how, handler)


@pytest.mark.parametrize("skip", [0, 1, 7])
def test_a_batch_leaves_the_same_trace_as_job_by_job(memory: Memory, skip: int) -> None:
    by_itself, in_the_loop = (segment_of(memory, how, skip) for how in ("by itself", "in Python"))
    assert in_the_loop.jobs == 8 * len(GIVEN) - skip
    assert in_the_loop == by_itself
    assert {outcome & KIND_BITS for outcome in in_the_loop.outcomes} >= {
        Outcome.OK,
        Outcome.EXCEPTION,
        Outcome.TIMEOUT,
        Outcome.CRASH,
        Outcome.BAD_RESULT,
        Outcome.REPORTED,
    }


def test_a_job_whose_time_is_up_while_its_result_is_pickled_has_timed_out(memory: Memory) -> None:
    segment = run_apart(memory, batch_of([{"n": n} for n in range(9)]), "in Python", late)
    assert [outcome & KIND_BITS for outcome in segment.outcomes] == [0, 0, 0, Outcome.TIMEOUT, 0, 0, 0, 0, 0]


def late(job: dict[str, int]) -> dict[str, object]:
    return {"a": Raises(JobTimeout)} if job["n"] == 3 else {"n": job["n"]}


@pytest.fixture
def runner(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> JobRunner:
    """One in this process, that has 50 jobs to run."""
    monkeypatch.setattr(plain_jobs, "core", None)
    monkeypatch.setattr(codec, "core", None)
    monkeypatch.setattr(job_runner, "answer_by", id)
    monkeypatch.setattr(signals, "first_in_children", [])
    memory.recorder(0, fresh=True).open_batch(7, 50, 1, time.monotonic())
    return make_runner(memory, dict)


def test_no_more_than_what_may_be_claimed_is_run(runner: JobRunner) -> None:
    recorder = runner.recorder
    runner.run(batch_of([{"n": n} for n in range(80)]), None)
    assert counts(recorder) == (50, 50)
    assert load_results(recorder.payload[: recorder.ends[49]]) == [{"n": n} for n in range(50)]


def counts(recorder: Recorder) -> tuple[int, int]:
    """How many jobs of 50 were claimed, and how many published."""
    return 50 - recorder.unclaimed._get_value(), recorder.published._get_value()


@pytest.mark.parametrize(("member", "left"), [("_claim", (3, 2)), ("_publish", (3, 3))])
def test_what_a_signal_handler_raises_between_two_jobs_becomes_the_result_of_neither(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch, member: str, left: tuple[int, int]
) -> None:
    """Of the program's own. It ends the worker, and the recorder tells what had run."""
    loop = runner.plain_jobs._loop  # type: ignore[union-attr]
    monkeypatch.setattr(loop, member, Interrupted(getattr(loop, member)))
    with pytest.raises(InterruptedError):
        runner.run(batch_of([{"n": n} for n in range(50)]), None)
    assert counts(runner.recorder) == left


class Interrupted:
    """A call at whose end a signal handler raises, the third time."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        self.times = 0

    def __call__(self, *args: Any) -> Any:
        answer = self.call(*args)
        self.times += 1
        if self.times == 3:
            raise InterruptedError
        return answer
