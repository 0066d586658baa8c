"""What people see: short, whatever is in it, and harmless in a page."""

from __future__ import annotations

from dataclasses import fields

import pytest

from bossworker.display import LONGEST_REPR, shorten, table
from bossworker.failure import ErrorData, Outcome, capture
from bossworker.pool.boss.stats import Stats, WorkerStats
from bossworker.result import Origin, Result, make_result


class Shy:
    def __repr__(self) -> str:
        raise ValueError("no")


LARGE = [
    bytes(1 << 20),
    bytearray(1 << 20),
    "x" * (1 << 20),
    list(range(100_000)),
    {n: str(n) * 100 for n in range(1000)},
    {"nested": [{"deep": ["x" * 10_000] * 50}] * 50},
    {f"key {n}" * 100 for n in range(100)},
    10**100_000,
    Shy(),
    "line\n" * 1000,
]


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_a_value_of_any_size_is_shown_in_one_short_line(value: object) -> None:
    text = shorten(value)
    assert 0 < len(text) <= LONGEST_REPR
    assert "\n" not in text


SMALL = [{}, {"n": 1, "a": 2}, [1, 2.5, None, True], "text", b"bytes", {"a": {"b": [(1, 2)]}}, {1, 2}]


@pytest.mark.parametrize("value", SMALL, ids=repr)
def test_a_short_value_is_shown_as_it_is(value: object) -> None:
    assert shorten(value) == repr(value)


def made(value: dict[object, object], error: ErrorData | None = None, outcome: Outcome = Outcome.OK) -> Result:
    origin = Origin(4711, 1, 0.0, 0.0, (0.0, 1.0))
    return make_result(value, (3, {"n": 1}, origin, 0, outcome, error))


@pytest.mark.parametrize("value", LARGE, ids=lambda value: type(value).__name__)
def test_a_result_has_a_short_repr(value: object) -> None:
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


def test_a_table_escapes_whatever_is_in_it() -> None:
    page = table("<t>", [("<n>", "<v>", Shy())], "<d>")
    for mark in "tnvd":
        assert f"<{mark}>" not in page
        assert f"&lt;{mark}&gt;" in page
