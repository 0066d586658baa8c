"""What a search finds: the seed's own example, and what could go wrong in a predicate."""

from __future__ import annotations

from typing import Any

import pytest

from bossworker.tasks.client.patterns import Pattern, matcher

FIRST: dict[str, Any] = {"a": 1, "meta": {"name": "CoolProgram"}, "c": [1, 2, 3]}
SECOND: dict[str, Any] = {"a": 5, "b": 5, "c": 5}


@pytest.mark.parametrize(
    ("pattern", "first", "second"),
    [
        (None, True, True),
        ({}, True, True),
        ({"meta": {"name": "CoolProgram"}}, True, False),
        ({"meta": {}}, True, False),
        ({"a": 5, "b": 5}, False, True),
        ({"c": [1, 2, 3]}, True, False),
        ({"c": {"deeper": 1}}, False, False),
        ({"nothing": None}, False, False),
        (lambda info: info["meta"]["name"] == "CoolProgram", True, False),
        (lambda info: info["c"][0] == 1, True, False),
        (lambda info: 1 / 0, False, False),
        (lambda info: info["c"], True, True),
    ],
)
def test_mappings_and_predicates(pattern: Pattern, first: bool, second: bool) -> None:
    matches = matcher(pattern)
    assert (matches(FIRST), matches(SECOND)) == (first, second)


def test_true_and_one_are_equal_as_everywhere_in_python() -> None:
    assert matcher({"status": {"running": 1}})({"status": {"running": True}})


def test_an_interrupt_passes_through_a_predicate() -> None:
    def interrupted(info: dict[str, Any]) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        matcher(interrupted)({})


def test_what_is_no_pattern() -> None:
    with pytest.raises(TypeError, match="pattern must be a mapping, a callable or None, not 'name'"):
        matcher("name")  # type: ignore[arg-type]
