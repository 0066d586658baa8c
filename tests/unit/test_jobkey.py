"""A job's key: equal for equal jobs, different for different ones, the same everywhere and always."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import os
import pathlib
import subprocess
import sys
import uuid
from array import array
from collections import OrderedDict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from bossworker import job_key

NOON = dt.datetime(2024, 7, 1, 12, tzinfo=dt.UTC)
PARIS = dt.timezone(dt.timedelta(hours=2))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Shape(enum.Enum):
    RED = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: int
    y: int
    note: str = field(default="", compare=False)


@dataclass
class Vector:
    x: int
    y: int


def keys(*values: Any) -> list[str]:
    return [job_key({"k": value}) for value in values]


def test_a_key_is_64_hexadecimal_digits() -> None:
    key = job_key({"a": 1})
    assert len(key) == 64
    assert int(key, 16) >= 0


def test_the_order_of_entries_does_not_matter() -> None:
    assert job_key({"a": 1, "b": {"c": 2, "d": 3}}) == job_key({"b": {"d": 3, "c": 2}, "a": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0, -0.0),
        (1, complex(1, 0)),
        (1, decimal.Decimal("1.00")),
        (0.5, fractions.Fraction(1, 2)),
        (0.5, decimal.Decimal("0.5")),
        (1 << 60, float(1 << 60)),
        (7, np.int64(7)),
        (0.25, np.float64(0.25)),
        (b"abc", bytearray(b"abc")),
        ({1, 2, 3}, frozenset([3, 2, 1])),
        ({"a": 1}, OrderedDict(a=1)),
        ({"a": 1}, MappingProxyType({"a": 1})),
        (NOON, NOON.astimezone(PARIS)),
        (Point(1, 2, "a"), Point(1, 2, "b")),
        (range(0, 3, 2), range(0, 4, 2)),
        ([[1, (2, {"a": {3}})]], [[True, (2.0, {"a": {3.0}})]]),
        (pathlib.Path("a") / "b", pathlib.Path("a/b")),
        (dt.timedelta(days=1), dt.timedelta(hours=24)),
        (uuid.UUID(int=5), uuid.UUID("00000000-0000-0000-0000-000000000005")),
    ],
)
def test_equal_values_have_equal_keys(one: Any, other: Any) -> None:
    assert one == other
    assert job_key({"k": one}) == job_key({"k": other})
    assert job_key({"k": [one]}) == job_key({"k": [other]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pathlib.PurePosixPath("a"), pathlib.PosixPath("a")),
        (dt.time(12, tzinfo=dt.UTC), dt.time(14, tzinfo=PARIS)),
        (True, np.True_),
        (0.5, np.float32(0.5)),
    ],
)
def test_equal_values_of_kindred_types_have_equal_keys(one: Any, other: Any) -> None:
    assert one == other
    assert job_key({"k": one}) == job_key({"k": other})


def test_different_values_have_different_keys() -> None:
    nan, inf = float("nan"), float("inf")
    values: list[Any] = [
        None, "", b"", [], (), {}, set(), 0, 1, -1, 2, 0.1, 1 / 3, decimal.Decimal("0.1"), nan, inf, -inf, 1j, 1 + 1j,
        "0", "1", b"0", b"1", "None", "nan", [1], (1,), {1}, {1: 1}, [[1]], [1, 2], [2, 1], (1, 2), {1, 2}, "12",
        ["1", "2"], ["12"], ["", "12"], [["1"], "2"], ["1", ["2"]], {"a": "b"}, {"ab": ""}, {"": "ab"},
        {"a": {"b": ""}}, [("a", "b")],
        {("a", "b")}, {("a", "b"): 1}, {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": None}, {None: "a"},
        {"a": "b", "c": ""},
        {"a": "", "bc": ""}, 1 << 60, (1 << 60) + 1, float(1 << 61), "1:1", "3:str1:1",
        Colour.RED, Colour.BLUE, Shape.RED, "Colour.RED", Access.READ, Access.READ | Access.WRITE,
        Point(1, 2), Point(2, 1), Vector(1, 2), {"x": 1, "y": 2},
        NOON, NOON.replace(tzinfo=None), NOON.date(), NOON.time(), dt.time(1, tzinfo=PARIS), dt.time(23, tzinfo=dt.UTC),
        NOON.isoformat(),
        NOON + dt.timedelta(microseconds=1),
        dt.timedelta(seconds=1), dt.timedelta(seconds=2), pathlib.Path("a"), "a", pathlib.Path("b"),
        pathlib.PureWindowsPath("a"), uuid.UUID(int=5), str(uuid.UUID(int=5)), range(3), range(0, 6, 2), [0, 1, 2],
        np.arange(6), np.arange(6).reshape(2, 3), np.arange(6).reshape(3, 2), np.arange(6.0), np.arange(6).astype("i2"),
        np.zeros(2), np.zeros(3), array("d", [1.0]), array("i", [1]),
    ]  # fmt: skip
    seen: dict[str, Any] = {}
    for value in values:
        key = job_key({"k": value})
        assert key not in seen, f"{value!r} and {seen[key]!r} have the same key"
        seen[key] = value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "b"}, {"ab": ""}),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": {"b": 1}, "c": 2}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1, 2], "b": []}, {"a": [1], "b": [2]}),
        ({"a": [{}]}, {"a": [{}, {}]}),
        ({"1": 0}, {1: 0}),
        ({(1, 2): 0}, {"(1, 2)": 0}),
        ({}, {"": ""}),
    ],
)
def test_shapes_are_told_apart(one: dict[Any, Any], other: dict[Any, Any]) -> None:
    assert job_key(one) != job_key(other)


def test_arrays_count_by_what_they_hold_not_by_how_they_lie() -> None:
    rows = np.arange(12).reshape(3, 4)
    columns = np.asfortranarray(rows)
    wide = np.arange(24).reshape(3, 8)[:, ::2] // 2
    assert len(set(keys(rows, columns, rows.copy(), wide))) == 1
    assert len(set(keys(np.array([0, 1], "f4"), np.array([0, 1], "f8"), np.array([1, 0], "f8")))) == 3


def test_nan_is_itself() -> None:
    assert len(set(keys(float("nan"), -float("nan"), np.float64("nan")))) == 1


@pytest.mark.parametrize("number", [10**400, -(10**5000), 2**20000], ids=["large", "negative", "huge"])
def test_whole_numbers_of_any_size_have_keys(number: int) -> None:
    assert job_key({"k": number}) != job_key({"k": number + 1})


def test_decimals_beyond_a_float_are_not_infinite() -> None:
    one, other, infinite = keys(decimal.Decimal("1e400"), decimal.Decimal("1e500"), float("inf"))
    assert len({one, other, infinite}) == 3


def test_an_empty_flag_has_a_key() -> None:
    assert len(set(keys(Access(0), Access.READ))) == 2


JOB_ELSEWHERE = """
import datetime, decimal, json, pathlib, sys, uuid
import numpy
from bossworker import job_key
job = {
    "set": {"a", "b", "c", 1, (2, "x")}, "frozen": {frozenset({"p", "q"}): 1}, "text": "hé\\udc80",
    3: [1.5, None, True],
    "array": numpy.arange(5), "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "nested": {str(n): {n: {str(-n)}} for n in range(20)}, "path": pathlib.Path("/a"), "id": uuid.UUID(int=1),
}
print(job_key(job))
"""


def test_the_key_is_the_same_in_every_process() -> None:
    found = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(
            [sys.executable, "-c", JOB_ELSEWHERE], env=environment, check=True, capture_output=True, text=True
        )
        found.add(done.stdout.strip())
    here: dict[str, Any] = {}
    exec(JOB_ELSEWHERE.replace("print(job_key(job))", "key = job_key(job)"), here)
    assert found == {here["key"]}


def test_the_key_never_changes_between_releases() -> None:
    """People store them."""
    job = {"name": "x", "sizes": [1, 2.5, None], "opts": {"a": True, "b": (b"\0", {3})}}
    assert job_key(job) == "e9709cafd25eeef499f4a1c7a033e5c560c3657ff8af3234c71d9471fc07b587"


@pytest.mark.parametrize("value", [object(), lambda: None, open, iter([]), Point, sys])
def test_a_value_without_stable_content_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(TypeError, match=r"job\['bad'\] holds"):
        job_key({"good": 1, "bad": value})


def test_the_refusal_tells_the_way_to_a_nested_value() -> None:
    with pytest.raises(TypeError, match=r"job\['a'\]\[1\]\['b'\] holds object"):
        job_key({"a": [0, {"b": object()}]})


@pytest.mark.parametrize(
    "value",
    [decimal.Decimal("sNaN"), np.array([object()], dtype=object)],
    ids=["signalling nan", "array of objects"],
)
def test_what_only_looks_stable_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(TypeError, match=r"job\['bad'\]"):
        job_key({"bad": value})


def test_a_job_that_holds_itself_is_refused() -> None:
    job: dict[str, Any] = {}
    job["me"] = job
    with pytest.raises(TypeError, match="me"):
        job_key(job)


@pytest.mark.parametrize("job", [None, [], "text", [("a", 1)], 3])
def test_what_is_no_mapping_is_no_job(job: Any) -> None:
    with pytest.raises(TypeError, match="must be a mapping"):
        job_key(job)
