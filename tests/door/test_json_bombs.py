"""What clients of a JSON door may send that is JSON, and more than anybody should have to take: the door goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.failure import Outcome
from bossworker.pool.door.door_protocol import JSON, LONGEST_HELLO, MOST_DEPTH, decode
from bossworker.pool.door.json_form import results_message
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.segments import single
from tests.door.test_strangers import answers, greeting, raw

Make = Callable[..., BossWorker]


def echo(job: dict[str, Any]) -> dict[str, Any]:
    if "deep" in job:
        return {"deep": nested(job["deep"])}
    return {"same": job["this"]}


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def submit(job: str, number: str = "1") -> bytes:
    """With the job's JSON as it is given."""
    return b'{"op":"submit","jobs":[{"id":%s,"job":%s}]}' % (number.encode(), job.encode())


def with_this(value: str) -> str:
    return '{"this":' + value + "}"


def bracketed(depth: int) -> str:
    return "[" * depth + "]" * depth


DROPPED = {
    "endless lists": b"[" * 1_000_000,
    "endless objects": b'{"a":' * 200_000,
    "a deep op": b'{"op":%s}' % bracketed(900).encode(),
    "a deep request": b'{"op":"stats","request":%s}' % bracketed(950).encode(),
    "a deep job": submit(with_this(bracketed(MOST_DEPTH + 50))),
    "a job at the edge of what Python reads": submit(with_this(bracketed(975))),
    "a number of many digits": submit(with_this("1" * 5000)),
    "an id of many digits": submit("{}", "1" * 4000),
    "an id that is infinite": submit("{}", "1e999"),
    "an id that is none": submit("{}", "NaN"),
    "an id that is true": submit("{}", "true"),
    "a time that is none": b'{"op":"submit","jobs":[{"id":1,"job":{}}],"timeout":NaN}',
    "a priority of many digits": b'{"op":"submit","jobs":[{"id":1,"job":{}}],"priority":%s}' % (b"9" * 400),
    "ids that are too large": b'{"op":"cancel","ids":[1e999,99999999999999999999999]}',
    "the last of two keys counts": b'{"op":"stats","op":"submit","jobs":[]}',
    "half a character": b'{"op":"\xc3"}',
    "bytes of another encoding": '{"op":"?"}'.encode("utf-32"),
    "a surrogate for an op": b'{"op":"\\ud800"}',
}


def test_what_is_too_much_is_dropped_and_told(pool: Make) -> None:
    bw = pool(echo, worker_count=1)
    door = bw.listen(accept="json")
    with raw(door) as sock:
        sock.send(greeting(JSON))
        assert answers(sock)["op"] == "welcome"
        for message in DROPPED.values():
            sock.send(message)
            assert answers(sock)["op"] == "error"
        assert door.malformed == len(DROPPED)
        sock.send(submit('{"this":"is still served"}'))
        assert answers(sock)["results"][0]["result"] == {"same": "is still served"}


def test_a_stranger_that_is_not_known_hears_so(pool: Make) -> None:
    """As one whose connection was lost, and that ZeroMQ has connected again without a word."""
    door = pool(echo, worker_count=1).listen(accept="json")
    with raw(door) as sock:
        for message in (b'{"op":"submit"}', b"\0", b"[" * 1_000_000, greeting(JSON, program="x" * LONGEST_HELLO)):
            sock.send(message)
            assert answers(sock)["op"] == "goodbye"
        sock.send(greeting(JSON))
        assert answers(sock)["op"] == "welcome"


@pytest.mark.parametrize("this", ['"\\ud800"', '"\\u0000\\"\\\\"', bracketed(MOST_DEPTH - 2), "1" * 4000, "-0.0", "{}"])
def test_what_is_odd_comes_back_as_it_was(pool: Make, this: str) -> None:
    with raw(pool(echo, worker_count=1).listen(accept="json")) as sock:
        sock.send(greeting(JSON))
        assert answers(sock)["op"] == "welcome"
        sock.send(submit(with_this(this)))
        (result,) = answers(sock)["results"]
    assert result["result"] == {"same": json.loads(this)}


def test_a_handle_is_told_of_what_is_too_deep(pool: Make, clients: Make) -> None:
    one = clients(pool(echo, worker_count=1).listen(accept="json"))
    with pytest.raises(TypeError, match=f"{MOST_DEPTH} levels deep"):
        one.add_work({"this": nested(MOST_DEPTH)})
    assert one.pending() == 0
    one.add_work({"deep": MOST_DEPTH - 3}, {"deep": MOST_DEPTH}, {"deep": 5000}, {"this": 1})
    found = {result.job_id: result for result in one.results()}
    kinds = [found[job_id].error_kind for job_id in sorted(found)]
    assert kinds == [None, "bad_result", "bad_result", None]


@pytest.mark.parametrize(
    ("outcome", "payload"),
    [
        (Outcome.OK | Outcome.WHOLE, b"(lp0\n."),  # a list
        (Outcome.OK | Outcome.WHOLE, b"\x80\x04N."),  # None
        (Outcome.OK | Outcome.WHOLE, b"no pickle"),
        (Outcome.OK | Outcome.WHOLE, b"\x80\x04}(\x8c\x01nC\x01xu."),  # with bytes in it
        (Outcome.EXCEPTION | Outcome.WHOLE, b"\x80\x04(C\x01xC\x01xC\x01xC\x01xNNt."),  # texts that are bytes
        (Outcome.EXCEPTION | Outcome.WHOLE, b"\x80\x04)."),
        (Outcome.TIMEOUT | Outcome.WHOLE | Outcome.GIVEN, b"\x80\x04K\x01."),  # a number
    ],
)
def test_whatever_a_handler_has_written_in_the_place_of_a_result_is_told(outcome: int, payload: bytes) -> None:
    message = results_message([single(7, 1, 1, 0.0, 1.0, outcome, payload)])
    (result,) = decode(message)["results"]
    assert (result["id"], result["ok"]) == (7, False)
    assert "no JSON" in result["error"]


def test_messages_are_nested_so_deep_and_no_deeper() -> None:
    deep = MOST_DEPTH + 6
    assert decode(b'{"a":%s}' % bracketed(deep).encode())
    with pytest.raises(ProtocolError, match="nested more than"):
        decode(b'{"a":%s}' % bracketed(deep + 2).encode())
