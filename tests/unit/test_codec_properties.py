"""What a job or a result holds comes out as it went in, alone or among others; a job's key is that of its content."""

from __future__ import annotations

import pickle
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bossworker import job_key
from bossworker.pool.wire.codec import encode_jobs, encode_result, load_block, load_job, load_result, load_results
from tests.unit.payloads import in_one

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=200)
other = (
    st.decimals(allow_nan=False)
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.uuids()
    | st.complex_numbers(allow_nan=False)
)
hashable = plain | st.tuples(plain, plain) | st.frozensets(plain, max_size=3)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(hashable, inner, max_size=4),
        max_leaves=12,
    )


jobs = st.dictionaries(hashable, nested(plain), max_size=4)
small_jobs = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=2)
any_jobs = st.dictionaries(hashable, nested(plain | other | st.sets(plain, max_size=3)), max_size=4)


def same(one: object, other: object) -> bool:
    """Equal, and of the same types throughout: 1, 1.0 and True are three."""
    return one == other and pickle.dumps(shape(one)) == pickle.dumps(shape(other))


def shape(value: object) -> object:
    if isinstance(value, dict):
        return [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(repr(item) for item in value)
    return type(value).__name__


@given(st.lists(jobs | any_jobs, min_size=1, max_size=12) | st.lists(small_jobs, min_size=60, max_size=70))
def test_jobs_come_out_as_they_went_in(given_jobs: list[dict[Any, Any]]) -> None:
    blocks = encode_jobs(given_jobs)
    view = memoryview(in_one(blocks.payload()))
    out: list[Any] = []
    at = 0
    for count, size in zip(blocks.counts, blocks.sizes, strict=True):
        block = view[at : at + size]
        out += load_block(count, block) if count > 1 else [load_job(block, None)]
        at += size
    assert at == len(view)
    assert same(out, given_jobs)


@given(st.lists(any_jobs, min_size=1, max_size=20))
def test_results_come_out_as_they_went_in_alone_and_strung_together(results: list[dict[Any, Any]]) -> None:
    encoded = [encode_result(result) for result in results]
    assert same([load_result(outcome, memoryview(in_one(payload)[:-1])) for outcome, payload in encoded], results)
    together = memoryview(b"".join(in_one(payload)[:-1] for _, payload in encoded))
    assert same(load_results(together), results)


# -- job_key ------------------------------------------------------------------------------------------------


# Values of a small world, so that two of them are often equal though they are made in another way.
numbers = [0, 1, 2, 0.0, -0.0, 1.0, True, False, Decimal(1), Decimal("1.0"), complex(2, 0), 0.1, Decimal("0.1")]
texts: list[Any] = ["", "1", "a", b"", b"1", None]
others = [bytearray(b"1"), date(2026, 1, 1), datetime(2026, 1, 1), timedelta(1), timedelta(0, 86400)]
keys = st.sampled_from([*numbers, *texts])
values = st.recursive(
    st.sampled_from([*numbers, *texts, *others]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.sets(keys, max_size=2)
        | st.frozensets(keys, max_size=2)
        | st.dictionaries(keys, inner, max_size=2)
    ),
    max_leaves=5,
)


@given(values, values)
def test_two_jobs_have_one_key_if_and_only_if_they_are_equal(one: Any, other: Any) -> None:
    assert (job_key({"value": one}) == job_key({"value": other})) is bool(one == other)


@given(any_jobs, st.randoms(use_true_random=False))
def test_neither_the_order_of_entries_nor_a_journey_changes_a_key(job: dict[Any, Any], luck: Any) -> None:
    entries = list(job.items())
    luck.shuffle(entries)
    assert job_key(dict(entries)) == job_key(pickle.loads(pickle.dumps(job))) == job_key(job)
