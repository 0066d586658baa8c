"""Settings: what is allowed, and what is said otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from bossworker.forkqueue import ForkQueue, limits

DEFAULTS = {
    "size": 4,
    "delay": 0,
    "weight": 1,
    "allow_excess": True,
    "ignore_children": False,
    "debug": False,
    "trace": False,
    "max_load": 0,
    "min_free_memory": 0,
}
OTHERS = {
    "size": 9,
    "delay": 0.25,
    "weight": 2,
    "allow_excess": False,
    "ignore_children": True,
    "debug": True,
    "trace": True,
    "max_load": 1.5,
    "min_free_memory": 1 << 30,
}
BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("size", 0, ValueError, "size must be an int from 1 to"),
    ("size", -3, ValueError, "size must be an int from 1 to"),
    ("size", 2.0, TypeError, "size must be an int, not 2.0"),
    ("size", True, TypeError, "size must be an int, not True"),
    ("size", None, TypeError, "size must be an int, not None"),
    ("weight", 0, ValueError, "weight must be an int from 1 to"),
    ("weight", "heavy", TypeError, "weight must be an int, not 'heavy'"),
    ("delay", -1, ValueError, "delay must be between 0 and"),
    ("delay", float("nan"), ValueError, "delay must be between 0 and"),
    ("delay", "1", TypeError, "delay must be a number of seconds, not '1'"),
    ("allow_excess", "no", TypeError, "allow_excess must be True or False, not 'no'"),
    ("ignore_children", 2, TypeError, "ignore_children must be True or False, not 2"),
    ("debug", None, TypeError, "debug must be True or False, not None"),
    ("trace", 1.0, TypeError, "trace must be True or False, not 1.0"),
    ("max_load", -0.5, ValueError, "max_load must be 0 (no limit) or a load average above it, not -0.5"),
    ("max_load", float("inf"), ValueError, "max_load must be 0"),
    ("max_load", float("nan"), ValueError, "max_load must be 0"),
    ("max_load", "100%", TypeError, "max_load must be a load average, a number, not '100%'"),
    ("min_free_memory", -1, ValueError, "min_free_memory must be an int from 0 to"),
    ("min_free_memory", "1G", TypeError, "min_free_memory must be an int, not '1G'"),
]


def test_the_defaults() -> None:
    q = ForkQueue()
    assert {name: getattr(q, name) for name in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_setting_is_set_either_way(name: str) -> None:
    made = ForkQueue(**{name: OTHERS[name]})  # type: ignore[arg-type]
    changed = ForkQueue()
    setattr(changed, name, OTHERS[name])
    assert getattr(made, name) == getattr(changed, name) == OTHERS[name]


@pytest.mark.parametrize(("name", "value", "error", "words"), BAD)
def test_what_is_not_allowed_is_said_and_changes_nothing(
    name: str, value: Any, error: type[Exception], words: str
) -> None:
    q = ForkQueue()
    with pytest.raises(error) as caught:
        setattr(q, name, value)
    assert words in str(caught.value)
    assert getattr(q, name) == DEFAULTS[name]
    with pytest.raises(error) as caught:
        ForkQueue(**{name: value})
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["delay", "max_load", "min_free_memory"])
def test_none_is_no_limit_as_0_is(name: str) -> None:
    q = ForkQueue(**{name: None})  # type: ignore[arg-type]
    assert getattr(q, name) == 0
    setattr(q, name, OTHERS[name])
    setattr(q, name, None)
    assert getattr(q, name) == 0


def test_flags_may_be_0_and_1() -> None:
    q = ForkQueue(debug=1, trace=0)  # type: ignore[arg-type]
    assert (q.debug, q.trace) == (True, False)


@pytest.mark.parametrize("weight", [0, "2", 1.5])
def test_the_weight_of_a_single_child_is_checked(weight: Any) -> None:
    q = ForkQueue()
    for start in (q.fork, q.fork_now, lambda **w: q.run_back(int, **w), lambda **w: q.system_back("true", **w)):
        with pytest.raises((TypeError, ValueError), match="weight must be an int"):
            start(weight=weight)
    assert not q._line


@pytest.mark.parametrize(("name", "value"), [("max_load", 2.5), ("min_free_memory", 1000)])
def test_a_limit_that_the_platform_cannot_tell_is_refused(
    name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> float:
        raise OSError("no such thing")

    monkeypatch.setattr(limits, "load_average", fail)
    monkeypatch.setattr(limits, "available_memory", fail)
    with pytest.raises(ValueError, match=rf"{name} must be 0 here, not {value}: the platform does not tell"):
        ForkQueue(**{name: value})  # type: ignore[arg-type]


def test_a_command_is_checked() -> None:
    q = ForkQueue()
    with pytest.raises(ValueError, match="the command must have a program"):
        q.system_back()
    with pytest.raises(TypeError, match="argument 1 of the command must be str, bytes or a path, not 3"):
        q.system_back("sleep", 3)  # type: ignore[arg-type]


def test_what_users_complete_is_what_is_promised() -> None:
    """Methods that the package needs for itself do not show."""
    assert {name for name in dir(ForkQueue) if name[0] != "_"} == {
        *DEFAULTS, "all_exit_ok", "call", "exit", "fork", "fork_now", "run_back", "run_back_now", "running_now",
        "running_weight", "system_back", "system_back_now", "wait", "waitpid", "waitpids",
    }  # fmt: skip


def test_settings_explain_themselves() -> None:
    for name in DEFAULTS:
        assert getattr(ForkQueue, name).__doc__


def test_its_looks() -> None:
    assert repr(ForkQueue(3)) == "<ForkQueue of size 3, 0 running>"
