"""Every setting is checked before any process is started, and the complaint says what would be right."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import pytest

from bossworker import BossWorker
from bossworker.pool.caller import starting
from bossworker.pool.options import MAX_WORKERS, check_options, check_priority, check_workers
from bossworker.system.checks import MAX_SECONDS, check_seconds
from bossworker.system.cpus import usable_cpus

GOOD: dict[str, Any] = {
    "global_timeout": 0,
    "worker_count": None,
    "kill_grace": 1.0,
    "retries": 0,
    "max_pending": 0,
    "max_jobs_per_worker": 0,
    "max_worker_memory": 0,
    "max_job_memory": 0,
    "start_method": "fork",
    "close_fds": False,
    "transport": "zmq",
}
SECONDS = ("global_timeout", "kill_grace")
COUNTS = ("retries", "max_pending", "max_jobs_per_worker", "max_worker_memory", "max_job_memory")
LIMITS = (
    "global_timeout",
    "max_pending",
    "max_jobs_per_worker",
    "max_worker_memory",
    "max_job_memory",
)  # 0 or None: there is none
CALLABLES = ("result_handler", "init_handler", "exit_handler")

WRONG_TYPE: list[tuple[str, Any]] = [
    *[(name, value) for name in SECONDS for value in ("5", b"5", True, 1j)],
    *[(name, value) for name in COUNTS for value in ("5", 1.0, True, b"5")],
    *[(name, None) for name in (*SECONDS, *COUNTS) if name not in LIMITS],
    *[("worker_count", value) for value in ("2", 2.0, True, False, b"2")],
    *[("start_method", value) for value in (None, 1, b"fork")],
    *[("transport", value) for value in (None, 1, b"zmq")],
    *[("close_fds", value) for value in (None, 1, "yes")],
    *[("name", value) for value in (1, b"name")],
    *[(name, value) for name in CALLABLES for value in ("name", 0, 1, b"")],
    *[("work_handler", value) for value in (None, "name", 0, b"")],
]
WRONG_VALUE: list[tuple[str, Any]] = [
    *[(name, value) for name in SECONDS for value in (-1, -0.001, float("nan"), float("inf"), 2 * MAX_SECONDS)],
    *[(name, value) for name in COUNTS for value in (-1, 1 << 64)],
    *[("worker_count", value) for value in (-1, MAX_WORKERS + 1)],
    *[("start_method", value) for value in ("", "FORK", "forkserver", "thread")],
    *[("transport", value) for value in ("", "ZMQ", "tcp")],
    *[("name", value) for value in ("", "a\nb", "\0", "x" * 101)],
]
ALLOWED = {
    **dict.fromkeys(SECONDS, "seconds"),
    **dict.fromkeys(COUNTS, "an int"),
    **dict.fromkeys(CALLABLES, "a callable or None"),
    "worker_count": "an int",
    "start_method": "str|'fork' or 'spawn'",
    "transport": "str|'zmq' or 'socketpair'",
    "close_fds": "True or False",
    "name": "str|1 to 100 printable characters",
    "work_handler": "a callable",
}


def handler(job: Any) -> Mapping[str, Any]:
    return {}


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail at the first step towards a process."""

    def launch(*args: object) -> NoReturn:
        pytest.fail("a process was about to be started")

    monkeypatch.setattr(starting, "launch", launch)
    monkeypatch.setattr(os, "fork", launch)


def make(name: str, value: Any) -> BossWorker:
    settings = {"work_handler": handler, name: value}
    return BossWorker(settings.pop("work_handler"), **settings)


@pytest.mark.parametrize(("name", "value"), WRONG_TYPE)
def test_a_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be .*({ALLOWED[name]}).*{re.escape(repr(value))}"):
        make(name, value)


@pytest.mark.parametrize(("name", "value"), WRONG_VALUE)
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*({ALLOWED[name]}).*{re.escape(repr(value))}"):
        make(name, value)


@pytest.mark.parametrize("name", ["worker_counts", "timeout", "workers"])
def test_an_unknown_setting_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=name):
        make(name, 1)


def test_settings_go_by_name_alone() -> None:
    with pytest.raises(TypeError):
        BossWorker(handler, None)  # type: ignore[call-arg]


def test_a_handle_that_was_never_made_goes_away_in_silence() -> None:
    with pytest.raises(ValueError, match="worker_count"):
        BossWorker(handler, worker_count=-1)
    BossWorker.__new__(BossWorker).__del__()


def a_partial(job: Any, more: int) -> Mapping[str, Any]:
    return {}


class Callable:
    def __call__(self, job: Any) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("one", "name"),
    [
        (handler, "handler"),
        (lambda job: {}, "<lambda>"),
        (functools.partial(a_partial, more=1), "a_partial"),
        (Callable(), "Callable"),
        (Callable().__call__, "Callable.__call__"),
    ],
)
def test_a_pool_is_named_after_its_handler(one: Any, name: str) -> None:
    assert check_options(**GOOD, handler=one).name == name
    assert check_options(**{**GOOD, "name": "Größe 3"}, handler=one).name == "Größe 3"


def test_the_defaults_are_good() -> None:
    options = check_options(**GOOD)
    assert options.worker_count == min(usable_cpus(), MAX_WORKERS)
    assert (options.global_timeout, options.kill_grace, options.start_method) == (0.0, 1.0, "fork")


@pytest.mark.parametrize("name", LIMITS)
def test_of_a_limit_none_is_0(name: str) -> None:
    assert getattr(check_options(**{**GOOD, name: None}), name) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("global_timeout", 0.5),
        ("global_timeout", MAX_SECONDS),
        ("kill_grace", 0),
        ("worker_count", 1),
        ("worker_count", MAX_WORKERS),
        ("retries", (1 << 32) - 1),
        ("max_pending", 1),
        ("max_jobs_per_worker", 1),
        ("max_worker_memory", 1 << 40),
        ("start_method", "spawn"),
    ],
)
def test_the_limits_themselves_are_allowed(name: str, value: Any) -> None:
    assert getattr(check_options(**{**GOOD, name: value}), name) == value


def test_whole_seconds_become_floats() -> None:
    assert type(check_seconds("timeout", 3)) is float


@pytest.mark.parametrize("value", [-(1 << 63), 0, (1 << 63) - 1])
def test_a_priority_is_any_number_of_64_bits(value: int) -> None:
    assert check_priority(value) == value


@pytest.mark.parametrize(
    ("value", "error"), [(1 << 63, ValueError), (-(1 << 63) - 1, ValueError), (1.0, TypeError), (True, TypeError)]
)
def test_a_wrong_priority_is_named(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^priority must be an int.*{value!r}"):
        check_priority(value)


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (MAX_WORKERS + 1, ValueError), ("3", TypeError)])
def test_a_wrong_number_of_workers_is_named(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^n must be an int.*{value!r}"):
        check_workers("n", value)
