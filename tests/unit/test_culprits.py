"""What cannot be pickled is named, wherever it lies."""

from __future__ import annotations

import io
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bossworker.pool.wire.codec import BadResult, encode_large_result, encode_one

LOCK = threading.Lock()


@dataclass
class Config:
    name: str
    inner: Any


class Slotless:
    pass


def with_attribute(value: Any) -> Slotless:
    made = Slotless()
    made.there = value  # type: ignore[attr-defined]
    return made


def told(job: Any) -> str:
    with pytest.raises(TypeError) as caught:
        encode_one(job, 7, False)
    return str(caught.value)


CANNOT = "(TypeError: cannot pickle '_thread.lock' object)"


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"lock": LOCK}, f"key 'lock' holds lock {CANNOT}"),
        ({"a": {"b": [0, 1, 2, LOCK]}}, f"key 'a' holds dict, and job['a']['b'][3] is lock {CANNOT}"),
        ({"t": (1, {"x": LOCK})}, f"key 't' holds tuple, and job['t'][1]['x'] is lock {CANNOT}"),
        ({"c": Config("n", [LOCK])}, f"key 'c' holds Config, and job['c'].inner[0] is lock {CANNOT}"),
        ({"s": with_attribute(LOCK)}, f"key 's' holds Slotless, and job['s'].there is lock {CANNOT}"),
        ({LOCK: 1}, "holds int"),
        ({"f": lambda: LOCK}, f"key 'f' holds function, and job['f']'s global LOCK is lock {CANNOT}"),
    ],
)
def test_the_innermost_culprit_is_named_with_its_path(job: Any, expected: str) -> None:
    text = told(job)
    assert text.startswith("job 7 cannot be pickled: key ")
    assert expected in text


def test_a_variable_of_a_closure_is_named() -> None:
    lock = threading.Lock()
    assert "job['f']'s variable lock is lock" in told({"f": lambda: lock})


def test_what_is_nested_without_end_is_told_once() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    text = told({"deep": deep})
    assert "key 'deep' holds list" in text
    assert "recursion" in text
    assert len(text) < 500


def test_a_chain_of_many_steps_is_cut() -> None:
    value: Any = LOCK
    for _ in range(100):
        value = [value]
    assert len(told({"k": value})) < 500


def test_in_a_result_too() -> None:
    with pytest.raises(BadResult, match=r"key 'a' holds list, and result\['a'\]\[1\] is lock"):
        encode_large_result({"a": [0, LOCK]})


# -- files -----------------------------------------------------------------------------------------------------


def test_an_open_file_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("content")
    for mode in ("r", "rb", "w", "r+b"):
        with path.open(mode) as file:
            assert "an open file cannot travel: send its path, or what is in it" in told({"file": file})
            assert "job['in'][0]" in told({"in": [file]})


def test_files_in_memory_and_the_standard_streams_travel() -> None:
    import pickle

    text = io.StringIO("content")
    job = pickle.loads(encode_one({"text": text, "out": lambda: sys.stdout, "raw": io.BytesIO(b"x")}, 0, False))  # type: ignore[arg-type]
    assert job["text"].getvalue() == "content"
    assert job["raw"].getvalue() == b"x"
    assert job["out"]() is sys.stdout


# -- what is no job ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[{"n": 1}], ({"n": 1},), ({"n": n} for n in range(3)), {1, 2}])
def test_many_jobs_in_one_are_told_how_to_be_added(bad: object) -> None:
    assert told(bad).startswith(f"job 7 must be a mapping (a dict), not {type(bad).__name__}: ")
    assert told(bad).endswith("to add the jobs in it, pass *jobs, or use map")


@pytest.mark.parametrize("bad", [None, 7, "text", b"bytes", object()])
def test_what_holds_no_jobs_is_told_without_that(bad: object) -> None:
    assert told(bad).startswith(f"job 7 must be a mapping (a dict), not {type(bad).__name__}: ")
    assert "map" not in told(bad).removeprefix("job 7 must be a mapping")


def test_however_large_it_is() -> None:
    assert len(told([bytes(1 << 20)] * 100)) < 300
