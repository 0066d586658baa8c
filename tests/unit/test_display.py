"""What people see: short, whatever is in it, and harmless in a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, make_dataclass

import pytest

from bossworker import CurrentJob, UnfinishedJob
from bossworker.display import LONGEST_REPR, short_record, shorten, table
from bossworker.failure import ErrorData, Outcome, capture
from bossworker.forkqueue import ForkQueue
from bossworker.pool.boss.stats import Stats, WorkerStats
from bossworker.pool.options import check_choice, check_name
from bossworker.pool.wire.progress import Progress
from bossworker.result import Origin, Result, make_result
from bossworker.system import checks
from bossworker.watch.pool_events import JobLog, JobProgress, WorkerDown, check_since
from bossworker.watch.progress_bar import check_progress


class Shy:
    def __repr__(self) -> str:
        raise ValueError("no")


LARGE: dict[str, Callable[[], object]] = {  # made by the tests: each pool of all others would inherit them
    "bytes": lambda: bytes(1 << 20),
    "bytearray": lambda: bytearray(1 << 20),
    "text": lambda: "x" * (1 << 20),
    "list": lambda: list(range(100_000)),
    "dict": lambda: {n: str(n) * 100 for n in range(1000)},
    "nested": lambda: {"nested": [{"deep": ["x" * 10_000] * 50}] * 50},
    "set": lambda: {f"key {n}" * 100 for n in range(100)},
    "number": lambda: 10**100_000,
    "shy": Shy,
    "lines": lambda: "line\n" * 1000,
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_value_of_any_size_is_shown_in_one_short_line(kind: str) -> None:
    text = shorten(LARGE[kind]())
    assert 0 < len(text) <= LONGEST_REPR
    assert "\n" not in text


SMALL = [{}, {"n": 1, "a": 2}, [1, 2.5, None, True], "text", b"bytes", {"a": {"b": [(1, 2)]}}, {1, 2}]


@pytest.mark.parametrize("value", SMALL, ids=repr)
def test_a_short_value_is_shown_as_it_is(value: object) -> None:
    assert shorten(value) == repr(value)


def made(value: dict[object, object], error: ErrorData | None = None, outcome: Outcome = Outcome.OK) -> Result:
    return make_result(value, Origin(3, ({"n": 1},), 4711, 1, 0.0, 0.0, (0.0, 1.0), (outcome,), (error,)))


@pytest.mark.parametrize("kind", LARGE)
def test_a_result_has_a_short_repr(kind: str) -> None:
    value = LARGE[kind]()
    text = repr(made({"value": value}))
    assert text.startswith("<Result of job 3, ok: {'value': ")
    assert len(text) < 200
    assert len(repr(Result({"value": value}))) < 200


def test_a_result_in_a_notebook_is_escaped_and_has_its_traceback() -> None:
    error = capture(ValueError("<script>alert('x')</script>"))
    page = made({"ERROR": error.text, "<b>": "<i>"}, error, Outcome.EXCEPTION)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<i>" not in page
    assert "Result of job 3, exception" in page
    assert "<summary>details</summary><pre>ValueError: &lt;script&gt;" in page
    assert len(made({"value": bytes(1 << 20)})._repr_html_()) < 2000
    assert "Result" in Result({"n": 1})._repr_html_()


def counted(workers: int, **more: object) -> Stats:
    one = WorkerStats(123456, "busy", 10**9, 12345.678, 10**9, 10**12)
    numbers = {field.name: 10**9 for field in fields(Stats)} | {"start_error": None, "workers": (one,) * workers}
    return Stats(**{**numbers, "paused": False, **more})  # type: ignore[arg-type]


def test_a_pools_state_has_a_short_repr() -> None:
    assert len(repr(counted(1024, start_error="x" * 10_000))) < 200
    assert repr(counted(2, failed_starts=0)) == (
        "<Stats: 1000000000 queued, 1000000000 running, 1000000000 done, 1000000000 failed;"
        " 2 workers, 2 busy, 1000000000 restarts>"
    )


def test_a_pools_state_in_a_notebook_has_a_row_a_worker() -> None:
    page = counted(3, start_error="<oops>")._repr_html_()
    assert page.count("<tr>") == 4
    assert "123456" in page
    assert "&lt;oops&gt;" in page


LONG = "x" * 100_000
NOW = 1_732_657_935.1234567
RECORDS = [
    Progress(10**9, 10**9, LONG),
    WorkerStats(1 << 22, "starting", 10**9, 12345.678901234, 10**9, 10**12, 123.45, 1023, Progress(1, None, LONG)),
    JobProgress(10**9, NOW, 10**9, 1 << 22, 1023, 0.30000000000000004, 1e100, LONG),
    JobLog(10**9, NOW, 10**9, 1 << 22, 1023, "logging", LONG),
    WorkerDown(10**9, NOW, 1 << 22, 1023, LONG, False),
    UnfinishedJob(10**9, {LONG: LONG, "more": [LONG] * 100}, True),
    UnfinishedJob(10**1000, dict.fromkeys(range(1000), LONG), True),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_has_a_short_repr(record: object) -> None:
    assert len(repr(record)) < 200
    assert repr(record).startswith(f"{type(record).__name__}(")
    assert repr(record).endswith(")")


def test_a_record_that_is_short_is_shown_whole() -> None:
    assert repr(UnfinishedJob(3, {"n": 1}, True)) == "UnfinishedJob(job_id=3, job={'n': 1}, may_have_run=True)"
    assert repr(Progress(1, None, "half")) == "Progress(done=1, total=None, text='half')"
    event = JobLog(1, 2.5, None, 4711, 0, "stdout", "x" * 90)
    assert repr(event).endswith(f"stream='stdout', text='{'x' * 90}')")


def test_of_a_record_with_many_fields_only_the_beginning_is_shown() -> None:
    names = [f"field_{n}" for n in range(100)]
    many = make_dataclass("Many", names, namespace={"__repr__": short_record})(*names)
    assert len(repr(many)) < 200


def progress(job: CurrentJob, *args: object) -> None:
    job.progress(*args)  # type: ignore[arg-type]


JOB = CurrentJob(1, 1, 0, None, lambda job_id, progress: None)
REFUSED: list[Callable[[], object]] = [
    lambda: checks.check_seconds("timeout", LONG),
    lambda: checks.check_bool("close_fds", LONG),
    lambda: checks.check_signal(LONG),
    lambda: checks.check_signal([LONG]),
    lambda: checks.check_callable("init_handler", LONG),
    lambda: checks.check_count("retries", LONG),
    lambda: checks.check_count("retries", 10**5000),
    lambda: check_choice("logs", LONG, ("inherit", "relay")),
    lambda: check_choice("logs", [LONG], ("inherit", "relay")),
    lambda: check_name(LONG, None),
    lambda: check_name([LONG], None),
    lambda: check_since(LONG),
    lambda: check_progress(LONG),
    lambda: progress(JOB, LONG),
    lambda: progress(JOB, 1, 2, [LONG]),
    lambda: ForkQueue(debug=LONG),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("check", REFUSED)
def test_an_error_quotes_no_more_of_a_value_than_can_be_read(check: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        check()
    assert len(str(caught.value)) < 250
    assert ", not " in str(caught.value)


def test_a_table_escapes_whatever_is_in_it() -> None:
    page = table("<t>", [("<n>", "<v>", Shy())], "<d>")
    for mark in "tnvd":
        assert f"<{mark}>" not in page
        assert f"&lt;{mark}&gt;" in page
