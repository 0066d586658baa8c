"""`NamedTuple` of `system/records.py` beside that of `typing`."""

from __future__ import annotations

import pickle
import typing

import pytest

from bossworker.cli.halting import HaltRule
from bossworker.commands.hosting.hosting_wire import EndRecord, HostSettings


class Rule(typing.NamedTuple):
    """`HaltRule`, made by `typing`."""

    when: str = "never"
    what: str = "fail"
    number: int = 0
    percent: bool = False


def test_it_makes_what_typing_makes() -> None:
    assert HaltRule.__bases__ == Rule.__bases__ == (tuple,)
    assert HaltRule._fields == Rule._fields
    assert HaltRule._field_defaults == Rule._field_defaults
    assert [*HaltRule.__annotations__] == [*Rule.__annotations__]
    assert repr(HaltRule("now", number=3)) == repr(Rule("now", number=3)).replace("Rule", "HaltRule")
    assert HaltRule("now")._replace(number=1) == ("now", "fail", 1, False) == Rule("now")._replace(number=1)


def test_methods_and_texts_are_the_class_s() -> None:
    assert str(HaltRule("now", number=1)) == "now,fail=1"
    assert (HaltRule.__doc__ or "").startswith("``now,fail=1``")
    assert HaltRule.__module__ == "bossworker.cli.halting"
    assert not hasattr(HaltRule(), "__dict__")


def test_it_can_be_pickled() -> None:
    rule = HaltRule("soon", "done", 3)
    copy = pickle.loads(pickle.dumps(rule))
    assert (type(copy), copy) == (HaltRule, rule)


def test_what_has_no_default_must_be_given() -> None:
    assert [*HostSettings._field_defaults] == ["timeout", "memory", "nice"]
    with pytest.raises(TypeError, match="missing"):
        EndRecord(1)  # type: ignore[call-arg]
