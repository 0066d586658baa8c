"""JSON by its C half alone says what the whole module says, and no number that JSON does not have."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from bossworker.system import cpython

VALUES: list[Any] = [
    None, True, 0, -1, 1 << 70, 1.5, 1e300, "", "é\ud800\0\"\\\n", [], {}, [[{}]], {"a": [1, {"b": None}], "ü": "x"},
]  # fmt: skip


class Json(NamedTuple):
    dumps: Callable[[Any], str]
    loads: Callable[[str], Any]


@pytest.fixture(params=["halves", "whole"])
def both(request: pytest.FixtureRequest) -> Json:
    """The usual way, and the one that stands in for it."""
    return Json(*(cpython._from_halves() if request.param == "halves" else cpython._whole()))


@pytest.mark.parametrize("value", VALUES)
def test_both_ways(both: Json, value: Any) -> None:
    text = both.dumps(value)
    assert text == json.dumps(value)
    assert text.isascii()
    assert both.loads(f" \n{json.dumps(value, indent=1)}\t ") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), {"deep": [float("nan")]}])
def test_what_json_has_no_number_for(both: Json, value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        both.dumps(value)


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, {(1, 2): 3}])
def test_what_json_does_not_know(both: Json, value: Any) -> None:
    with pytest.raises(TypeError, match=r"."):
        both.dumps(value)


@pytest.mark.parametrize("text", ["", " ", "{", "[1", '{"a"}', '{"a" 1}', '{"a":}', "nul", "1 2", "'a'", "[1,]", "\0"])
def test_what_is_no_json(both: Json, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        both.loads(text)
