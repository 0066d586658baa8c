"""Jobs, results and errors as bytes: what travels, what is refused, and what cannot do harm."""

from __future__ import annotations

import pickle
import threading
import time
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
import pytest

from bossworker.errors import CANCELLED, TIMED_OUT, JobTimeout, RemoteError
from bossworker.failure import (
    CHAIN_LENGTH,
    EXCEPTION_BYTES,
    ErrorData,
    Outcome,
    capture,
    describe,
    encode_error,
    rebuild,
)
from bossworker.pool.wire.codec import (
    BLOCK_BYTES,
    BLOCK_JOBS,
    BadResult,
    Blocks,
    encode_jobs,
    encode_result,
    load_block,
    load_error,
    load_result,
    load_results,
)
from tests.unit.payloads import in_one


def decode(blocks: Blocks) -> list[Any]:
    """The jobs, as a worker loads them."""
    jobs: list[Any] = []
    view = memoryview(in_one(blocks.payload()))
    for count, size in zip(blocks.counts, blocks.sizes, strict=True):
        block, view = view[:size], view[size:]
        jobs += [pickle.loads(block)] if count == 1 else load_block(count, block)
    assert not view
    return jobs


class Unpicklable:
    def __reduce__(self) -> NoReturn:
        raise ValueError("keep your hands off")


class Frozen(Mapping[Any, Any]):
    """A mapping that is no dict."""

    def __init__(self, **entries: Any) -> None:
        self._entries = entries

    def __getitem__(self, key: Any) -> Any:
        return self._entries[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


class Labelled(dict[Any, Any]):
    label = ""


# -- jobs ------------------------------------------------------------------------------------------------------


def test_jobs_of_plain_data_travel_together() -> None:
    jobs = [
        {"n": n, "text": "é" * (n % 3), "nested": [(n, None), {n: {1.5, True}}, b"x"]} for n in range(2 * BLOCK_JOBS)
    ]
    blocks = encode_jobs(jobs)
    assert list(blocks.counts) == [BLOCK_JOBS, BLOCK_JOBS]
    assert decode(blocks) == jobs


@pytest.mark.parametrize("count", [1, 2, BLOCK_JOBS - 1, BLOCK_JOBS, BLOCK_JOBS + 1, 5 * BLOCK_JOBS + 3])
def test_any_number_of_jobs_travels(count: int) -> None:
    jobs = [{"n": n} for n in range(count)]
    blocks = encode_jobs(tuple(jobs))
    assert sum(blocks.counts) == count
    assert max(blocks.counts) <= BLOCK_JOBS
    assert decode(blocks) == jobs


def test_a_job_that_is_not_plain_data_makes_its_neighbours_travel_one_by_one() -> None:
    jobs = [{"n": n} for n in range(3 * BLOCK_JOBS)]
    jobs[BLOCK_JOBS + 5]["n"] = np.int64(7)  # type: ignore[assignment]
    blocks = encode_jobs(jobs)
    assert list(blocks.counts) == [BLOCK_JOBS, *[1] * BLOCK_JOBS, BLOCK_JOBS]
    assert decode(blocks) == jobs


def test_every_mixture_travels() -> None:
    jobs = [
        {"plain": 1},
        {"array": np.arange(5)},
        {"function": len, "class": dict},
        {"lambda": lambda x: x + 1},
        {"exception": ValueError("x")},
        {},
    ]
    again = decode(encode_jobs(jobs))
    assert again[0] == {"plain": 1}
    assert again[1]["array"].tolist() == [0, 1, 2, 3, 4]
    assert again[2] == {"function": len, "class": dict}
    assert again[3]["lambda"](1) == 2
    assert str(again[4]["exception"]) == "x"
    assert again[5] == {}


def test_closures_travel() -> None:
    base = 40

    def add(n: int) -> int:
        return base + n

    (job,) = decode(encode_jobs([{"add": add}]))
    assert job["add"](2) == 42


def test_dict_subclasses_stay_what_they_are() -> None:
    labelled = Labelled(a=1)
    labelled.label = "mine"
    ordered, again = decode(encode_jobs([OrderedDict(b=1, a=2), labelled]))
    assert type(ordered) is OrderedDict
    assert list(ordered) == ["b", "a"]
    assert (type(again), again, again.label) == (Labelled, {"a": 1}, "mine")


@pytest.mark.parametrize("job", [Frozen(a=1, b=[2]), UserDict(a=1, b=[2])])
def test_a_mapping_that_is_no_dict_arrives_as_one(job: Mapping[str, Any]) -> None:
    for jobs in ([job], [job, {"c": 3}]):
        first = decode(encode_jobs(jobs))[0]
        assert type(first) is dict
        assert first == {"a": 1, "b": [2]}


@pytest.mark.parametrize("bad", [None, 7, "text", [("a", 1)], ("a",), {1, 2}])
def test_what_is_no_mapping_is_named_by_its_index(bad: Any) -> None:
    jobs = [{"n": n} for n in range(BLOCK_JOBS + 7)]
    with pytest.raises(TypeError, match=f"^job {BLOCK_JOBS + 5} must be a mapping.*{type(bad).__name__}"):
        encode_jobs([*jobs[:-2], bad, jobs[-1]])
    with pytest.raises(TypeError, match=r"^job 0 must be a mapping"):
        encode_jobs([bad])


def test_one_unpicklable_job_among_many_is_named_with_its_key() -> None:
    jobs: list[dict[str, Any]] = [{"n": n} for n in range(3 * BLOCK_JOBS)]
    jobs[BLOCK_JOBS + 5]["culprit"] = [Unpicklable()]
    with pytest.raises(
        TypeError, match=f"^job {BLOCK_JOBS + 5} cannot be pickled: key 'culprit' holds list.*ValueError: keep"
    ):
        encode_jobs(jobs)


def test_an_unpicklable_key_is_named() -> None:
    with pytest.raises(TypeError, match=r"^job 0 cannot be pickled: key .*Unpicklable"):
        encode_jobs([{"good": 1, Unpicklable(): 2}])


@pytest.mark.parametrize("value", [threading.Lock(), (n for n in range(3))])
def test_a_lock_or_a_generator_is_refused_by_its_key(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^job 0 cannot be pickled: key 'k' holds"):
        encode_jobs([{"k": value}])


@pytest.mark.parametrize("count", [1, 2, 10])
def test_a_job_that_holds_itself_travels(count: int) -> None:
    jobs: list[dict[str, Any]] = [{"n": n} for n in range(count)]
    jobs[-1]["me"] = jobs[-1]
    again = decode(encode_jobs(jobs))
    assert again[-1]["me"] is again[-1]
    assert again[:-1] == jobs[:-1]


def test_a_job_too_deep_for_the_stack_is_refused_not_fatal() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for jobs in ([{"deep": deep}], [{"deep": deep}, {}]):
        with pytest.raises(TypeError, match=r"^job 0 cannot be pickled: key 'deep'"):
            encode_jobs(jobs)
    while deep:  # or its own end would be as deep
        deep = deep.pop()


def test_structure_shared_so_often_that_it_would_explode_travels_at_once() -> None:
    shared: list[Any] = []
    for _ in range(60):
        shared = [shared, shared]
    before = time.monotonic()
    first, second, third = decode(encode_jobs([{"n": 0}, {"shared": shared}, {"n": 2}]))
    assert time.monotonic() - before < 10
    assert second["shared"][0] is second["shared"][1]
    assert (first, third) == ({"n": 0}, {"n": 2})


def test_encoding_goes_on_as_before_after_every_kind_of_failure() -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    odd: list[Any] = [{"n": cyclic}, {"n": deep}, {"n": [len]}, {"n": "x" * (2 * BLOCK_BYTES)}, Labelled(n=1)]
    jobs: list[Any] = []
    for one in odd * 3:
        jobs += [one, *[{"n": n, "l": [[n]]} for n in range(2 * BLOCK_JOBS - 1)]]
    blocks = encode_jobs(jobs)
    together, apart = [BLOCK_JOBS], [1] * BLOCK_JOBS
    assert list(blocks.counts) == [*apart, *together, *together, *together, *[*apart, *together] * 3] * 3
    again = decode(blocks)
    assert len(again) == len(jobs)
    for there, here in zip(again, jobs, strict=True):
        if here["n"] is not cyclic:
            assert there == here
    assert again[0]["n"][0] is again[0]["n"]


def test_large_jobs_travel_alone() -> None:
    jobs = [{"n": n, "data": bytes([n]) * BLOCK_BYTES} for n in range(5)]
    blocks = encode_jobs(jobs)
    assert list(blocks.counts) == [1] * 5
    assert decode(blocks) == jobs


def test_jobs_that_share_a_list_get_a_list_each() -> None:
    shared = [1]
    first, second = decode(encode_jobs([{"l": shared}, {"l": shared}]))
    first["l"].append(2)
    assert second["l"] == [1]


def test_the_bytes_do_not_follow_the_job_when_it_changes() -> None:
    job = {"l": [1]}
    blocks = encode_jobs([job, job])
    job["l"].append(2)
    assert decode(blocks) == [{"l": [1]}, {"l": [1]}]


def test_a_block_of_another_length_than_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="2 jobs is not the 3 announced"):
        load_block(3, memoryview(pickle.dumps([{}, {}])))


# -- results ---------------------------------------------------------------------------------------------------


class Rebuilt:
    """Pickles by a call of its own."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rebuilt) and other.n == self.n

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Rebuilt, (self.n,)


def results() -> list[dict[Any, Any]]:
    text, shared, cyclic = "a string that comes up twice", [1, [2]], {"n": 1}
    cyclic["me"] = cyclic  # type: ignore[assignment]
    return [
        {},
        {"a": text, "b": text},
        {"a": shared, "b": shared, "c": {"d": shared}},
        {},
        {"bytes": b"x" * 300, "array": bytearray(b"abc"), "long": 1 << 5000, "float": 1.5, "none": None},
        {"set": {1, 2}, "frozen": frozenset("ab"), "tuple": ((), (1,), (1, 2, 3, 4)), "text": "\ud800é"},
        {"object": Rebuilt(1), "again": [Rebuilt(1), Rebuilt(2)], "class": Rebuilt, "function": len},
        {"numpy": np.float64(1.5)},
        *[{"n": n, "s": text, "l": [n, [n]]} for n in range(300)],
    ]


def strung(values: list[dict[Any, Any]]) -> list[bytes]:
    """As a worker strings them together: each over the full stop of the one before."""
    encoded = [encode_result(value) for value in values]
    assert {outcome for outcome, _ in encoded} == {Outcome.OK}
    return [in_one(payload)[:-1] for _, payload in encoded]


def test_results_strung_together_load_at_one_go() -> None:
    values = results()
    assert load_results(memoryview(b"".join(strung(values)))) == values


def test_results_strung_together_load_one_by_one_too() -> None:
    values = results()
    assert [load_result(Outcome.OK, memoryview(payload)) for payload in strung(values)] == values


def test_what_is_shared_in_a_result_stays_shared_and_nothing_is_between_results() -> None:
    shared = [1]
    first, second, third = load_results(memoryview(b"".join(strung([{}, {"a": shared, "b": shared}, {"a": shared}]))))
    assert first == {}
    assert second["a"] is second["b"]
    assert third["a"] == [1]
    assert third["a"] is not second["a"]


def test_a_result_that_holds_itself_travels() -> None:
    cyclic: dict[str, Any] = {}
    cyclic["me"] = cyclic
    _, again, _ = load_results(memoryview(b"".join(strung([{}, cyclic, {}]))))
    assert again["me"] is again


def test_results_that_need_cloudpickle_are_whole() -> None:
    outcome, payload = encode_result({"f": lambda x: x + 1})
    assert outcome == Outcome.OK | Outcome.WHOLE
    assert load_result(outcome, memoryview(in_one(payload)))["f"](1) == 2


def test_nothing_is_an_empty_result() -> None:
    outcome, payload = encode_result(None)
    assert load_result(outcome, memoryview(in_one(payload))) == {}


@pytest.mark.parametrize("value", [OrderedDict(a=1), Frozen(a=1), UserDict(a=1), Labelled(a=1)])
def test_a_result_of_any_mapping_is_a_dict(value: Mapping[str, int]) -> None:
    outcome, payload = encode_result(value)
    again = load_result(outcome, memoryview(in_one(payload)))
    assert type(again) is dict
    assert again == {"a": 1}


@pytest.mark.parametrize("value", [{"ERROR": "mine", "n": 1}, {"ERROR": lambda: 1}])
def test_an_error_that_the_handler_reports_is_marked(value: dict[str, Any]) -> None:
    outcome, _ = encode_result(value)
    assert outcome & ~Outcome.WHOLE == Outcome.REPORTED


@pytest.mark.parametrize(
    ("value", "name"), [(7, "an int"), ("x", "a str"), ([1], "a list"), (ValueError(), "a ValueError")]
)
def test_what_is_no_mapping_is_no_result(value: Any, name: str) -> None:
    with pytest.raises(BadResult, match=f"the handler returned {name}, not a mapping"):
        encode_result(value)


def test_a_result_that_cannot_be_pickled_is_named_by_its_key() -> None:
    with pytest.raises(
        BadResult, match=r"cannot be pickled: key 'b' holds Unpicklable .ValueError: keep your hands off"
    ):
        encode_result({"a": 1, "b": Unpicklable()})


# -- errors ----------------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("not a word")


class Stubborn(Exception):
    """Pickles, but does not load."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__("stubborn")


class Closed(Exception):
    def __reduce__(self) -> NoReturn:
        raise ValueError("no")


class Text(str):
    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise ValueError("no")


class Wordy(Exception):
    def __str__(self) -> str:
        return Text("wordy")


class Evasive(Exception):
    @property
    def __cause__(self) -> NoReturn:  # type: ignore[override]
        raise ZeroDivisionError


class Impostor(Exception):
    """Loads as something else."""

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, ()


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def sent(error: BaseException, **how: Any) -> ErrorData:
    """As it arrives."""
    return load_error(Outcome.EXCEPTION, memoryview(encode_error(capture(error, **how))))


def test_an_exception_travels_with_its_traceback() -> None:
    data = sent(raised(ValueError("rattle")))
    assert (data.text, data.type_name, data.message) == ("ValueError: rattle", "ValueError", "rattle")
    assert data.traceback.startswith("Traceback (most recent call last)")
    assert "in raised" in data.traceback
    assert data.traceback.rstrip().endswith("ValueError: rattle")
    again = rebuild(data)
    assert type(again) is ValueError
    assert again.args == ("rattle",)


def test_an_exception_without_a_message_is_its_name() -> None:
    assert describe(KeyError()) == "KeyError"
    assert sent(KeyError()).text == "KeyError"


def test_a_text_can_be_given() -> None:
    data = sent(raised(JobTimeout("x")), text=TIMED_OUT)
    assert (data.text, data.type_name) == (TIMED_OUT, "JobTimeout")
    assert type(rebuild(data)) is JobTimeout


def test_the_outermost_frames_can_be_left_out() -> None:
    def inner() -> NoReturn:
        raise ValueError

    def outer() -> BaseException:
        try:
            inner()
        except ValueError as error:
            return error

    error = outer()
    assert "in outer" in sent(error).traceback
    assert "in outer" not in sent(error, skip_frames=1).traceback
    assert "in inner" in sent(error, skip_frames=1).traceback
    assert sent(error, skip_frames=99).text == "ValueError"


def test_an_exception_that_cannot_speak_is_told_all_the_same() -> None:
    data = sent(raised(Mute("x")))
    assert data.text == "Mute: <its __str__ raised RuntimeError>"
    assert data.type_name == "Mute"
    assert "Mute" in data.traceback
    assert type(rebuild(data)) is Mute


@pytest.mark.parametrize("error", [Stubborn(1, 2), Closed("closed"), Impostor("impostor")])
def test_an_exception_that_does_not_rebuild_becomes_a_remote_error_with_the_same_text(error: Exception) -> None:
    data = sent(raised(error))
    again = rebuild(data)
    assert isinstance(again, RemoteError)
    assert (again.type_name, str(again), again.traceback) == (type(error).__name__, data.text, data.traceback)


def test_an_exception_whose_text_cannot_be_pickled_travels() -> None:
    data = sent(raised(Wordy()))
    assert data.text == "Wordy: wordy"
    assert type(data.message) is str


def test_an_exception_that_will_not_tell_its_cause_travels() -> None:
    assert sent(raised(Evasive("x"))).text == "Evasive: x"


def test_a_huge_exception_leaves_its_bulk_behind() -> None:
    data = sent(raised(ValueError("x", bytes(2 * EXCEPTION_BYTES))))
    assert data.pickled is None
    assert isinstance(rebuild(data), RemoteError)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), JobTimeout("x")])
def test_exceptions_that_end_programs_are_data_like_any_other(error: BaseException) -> None:
    data = sent(raised(error))
    assert data.type_name == type(error).__name__
    again = rebuild(data)
    assert type(again) is type(error)
    assert again.args == error.args


def test_groups_travel() -> None:
    group = ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])])
    data = sent(raised(group))
    assert data.text == "ExceptionGroup: several (2 sub-exceptions)"
    assert "ValueError: one" in data.traceback
    again = rebuild(data)
    assert isinstance(again, ExceptionGroup)
    assert [type(error) for error in again.exceptions] == [ValueError, ExceptionGroup]


def chain(length: int, explicit: bool) -> BaseException:
    error: BaseException = ValueError("0")
    for n in range(1, length):
        try:
            try:
                raise error
            except BaseException as caught:
                if explicit:
                    raise KeyError(n) from caught
                raise KeyError(n)  # noqa: B904 - a context, not a cause
        except KeyError as last:
            error = last
    return error


def causes(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__
    return found


@pytest.mark.parametrize("explicit", [True, False])
def test_the_chain_of_causes_travels(explicit: bool) -> None:
    data = sent(chain(4, explicit))
    assert [error.args for error in causes(rebuild(data))] == [(3,), (2,), (1,), ("0",)]
    assert data.traceback.count("Traceback (most recent call last)") == 4
    assert all(error.__context__ is error.__cause__ for error in causes(rebuild(data)))


def test_a_context_that_was_suppressed_stays_behind() -> None:
    error = chain(2, explicit=False)
    error.__suppress_context__ = True
    assert len(causes(rebuild(sent(error)))) == 1


def test_a_long_chain_is_cut() -> None:
    assert len(causes(rebuild(sent(chain(50, explicit=True))))) == CHAIN_LENGTH + 1


def test_a_chain_that_runs_in_a_circle_ends() -> None:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    assert len(causes(rebuild(sent(raised(one))))) == CHAIN_LENGTH + 1
    one.__cause__ = other.__cause__ = None


def test_a_cause_that_does_not_rebuild_is_stood_in_for() -> None:
    try:
        try:
            raise Closed("closed")
        except Closed as caught:
            raise ValueError("outer") from caught
    except ValueError as error:
        outer, inner = causes(rebuild(sent(error)))
    assert type(outer) is ValueError
    assert isinstance(inner, RemoteError)
    assert str(inner) == "Closed: closed"


def test_what_the_boss_decides_is_text() -> None:
    data = load_error(Outcome.CANCELLED | Outcome.TEXT, memoryview(CANCELLED.encode()))
    assert (data.text, data.traceback, data.pickled, data.cause) == (CANCELLED, "", None, None)
    assert load_error(Outcome.TIMEOUT | Outcome.TEXT, memoryview(TIMED_OUT.encode())).type_name == "JobTimeout"
    assert load_error(Outcome.CRASH | Outcome.TEXT, memoryview(b"\xff")).text == "\ufffd"
