"""Many clients, and bad ones: none of them costs the others anything."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from bossworker.tasks import Task, TaskPool, TaskRefused
from bossworker.tasks.supervisor.clients import MOST_CLIENTS, SPARE_DESCRIPTORS, most_clients
from bossworker.tasks.wire.protocol import HEADER, MARK, MAX_BODY, MAX_HEAD, Decoder, encode
from tests.conftest import wait_for
from tests.tasks.programs import CAT, SLEEP, python, state, wait_for_info
from tests.tasks.test_streams import MB, uss


@contextmanager
def connected(pool: TaskPool, pid: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(pool.socket_path(pid))
        client.settimeout(20)
        yield client


def hangs_up(client: socket.socket) -> bool:
    with suppress(ConnectionError):
        while client.recv(1 << 16):
            pass
    return True


def test_garbage_ends_its_connection_and_nothing_else(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    dice = random.Random(5)
    for _ in range(100):
        with connected(pool, task.pid) as client, suppress(ConnectionError):
            client.sendall(dice.randbytes(dice.randrange(1, 5000)))
            client.shutdown(socket.SHUT_WR)
            assert hangs_up(client)
    for sizes in ((MAX_HEAD + 1, 0), (2, MAX_BODY + 1), (2**32 - 1, 2**32 - 1)):
        with connected(pool, task.pid) as client:
            client.sendall(HEADER.pack(MARK, *sizes))
            assert hangs_up(client)
    for text in (b"[]", b"{", b"[" * 100_000, b"\xff\xfe"):
        with connected(pool, task.pid) as client, suppress(ConnectionError):
            client.sendall(HEADER.pack(MARK, len(text), 0) + text)
            assert hangs_up(client)
    assert task.info(fresh=True)["status"]["running"]
    assert not os.path.getsize(pool.output_path(task.pid))  # nor did the supervisor stumble


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({}, "op must be one of info"),
        ({"op": ["info"]}, "op must be one of info"),
        ({"op": "__init__"}, "op must be one of info"),
        ({"op": "meta"}, "meta must be an object"),
        ({"op": "meta", "meta": [1]}, "meta must be an object"),
        ({"op": "signal"}, "signal must be a whole number"),
        ({"op": "signal", "signal": 999}, "signal must be the number of a signal"),
        ({"op": "signal", "signal": 9.0}, "signal must be a whole number"),
        ({"op": "read", "stream": 0, "ofs": 0, "count": 1}, "stream must be one of 1, 2, 3"),
        ({"op": "read", "stream": 1, "ofs": -1, "count": 1}, "ofs must be a whole number"),
        ({"op": "write", "stream": 1, "wait": None}, "stream must be one of 0, 3"),
        ({"op": "write", "stream": 0, "wait": "long"}, "wait must be null or a number"),
        ({"op": "write", "stream": 0, "wait": None}, "must have from 1 to"),
        ({"op": "consumed", "stream": True, "upto": 1}, "stream must be one of"),
        ({"op": "discard", "stream": 1, "upto": "all"}, "upto must be a whole number"),
        ({"op": "close", "stream": 4}, "stream must be one of"),
    ],
)
def test_requests_that_are_none(pool: TaskPool, request_: dict[str, object], error: str) -> None:
    task = pool.spawn(SLEEP)
    with pytest.raises(TaskRefused, match=error):
        task._contact.connect().ask(request_)
    assert task.kill(0)


def test_numbers_that_json_has_no_name_for(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    text = b'{"op": "meta", "meta": {"x": NaN}}'
    with connected(pool, task.pid) as client:
        client.sendall(HEADER.pack(MARK, len(text), 0) + text)
        assert b'"ok": false' in client.recv(1000)
    assert task.info(fresh=True)["meta"] == {}


def test_half_messages_cost_the_others_nothing(pool: TaskPool) -> None:
    """They hold a little memory each, up to a bound for all of them together, and no attention."""
    task = pool.spawn(CAT)
    task.info()
    before = uss(task.pid)
    head = HEADER.pack(MARK, MAX_HEAD, 0)
    with ExitStack() as stack:
        for _ in range(60):
            client = stack.enter_context(connected(pool, task.pid))
            with suppress(ConnectionError):
                client.sendall(head + bytes(MAX_HEAD - 10))  # 60 MiB in all, and never the end
        task.stream(0).write(b"fine")
        task.stream(0).close()
        assert task.wait(20)
        assert uss(task.pid) - before < 40 * MB
    assert task.stream(1).read() == b"fine"


def test_pipelined_requests_are_answered_in_order(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    with connected(pool, task.pid) as client:
        client.sendall(b"".join(encode({"op": "meta", "meta": {"n": n}}) for n in range(500)) + encode({"op": "info"}))
        decoder = Decoder()
        answers: list[Any] = []
        while len(answers) < 501:
            decoder.feed(client.recv(1 << 16))
            while (frame := decoder.next()) is not None:
                answers.append(frame[0])
    assert all(answer["ok"] for answer in answers)
    assert answers[-1]["info"]["meta"] == {"n": 499}


def test_who_does_not_listen_costs_the_others_nothing(pool: TaskPool) -> None:
    """One asks and never reads the answers; one watches and never reads the events."""
    task = pool.spawn(python("import os\nos.read(0, 1)\nfor n in range(2000): os.write(1, b'x' * 1000)"))
    task.info()
    before = uss(task.pid)
    with connected(pool, task.pid) as deaf, connected(pool, task.pid) as slow:
        slow.sendall(encode({"op": "watch"}))
        deaf.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                deaf.send(encode({"op": "info"}) * 1000)
        task.stream(0).write(b"x")
        for n in range(1500):
            task.apply_meta(n=n, text="y" * 500)
        assert task.wait(20)
        assert task.stream(1).limit == 2_000_000
        assert uss(task.pid) - before < 10 * MB


def test_many_connections_leave_room_for_who_has_something_to_ask(
    pool: TaskPool, request: pytest.FixtureRequest
) -> None:
    """Far more than the supervisor keeps: the silent ones go first."""
    count = 10_000 if request.config.getoption("--long") else 1500
    task = pool.spawn(CAT)
    watched = task.events()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 200), hard))
    try:
        with ExitStack() as stack:
            for n in range(count):
                stack.enter_context(connected(pool, task.pid))
                if n % 500 == 0:
                    task.apply_meta(n=n)
            wait_for_info(task, lambda info: info["clients"] <= MOST_CLIENTS)
            task.stream(0).write(b"fine")
            task.stream(0).close()
            assert task.wait(20)
            assert uss(task.pid) < 20 * MB
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [event["meta"]["n"] for event in watched if event["event"] == "metadata-changed"] == list(
        range(0, count, 500)
    )
    assert task.stream(1).read() == b"fine"


def test_how_many_clients_there_may_be() -> None:
    assert [most_clients(descriptors) for descriptors in (-1, 1 << 20, 1024, 256, 20)] == [896, 896, 896, 128, 8]


def test_those_who_watch_keep_nobody_out(pool: TaskPool) -> None:
    """Nor do they lose anything but time when there are too many of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SPARE_DESCRIPTORS + 32, hard))  # the supervisor's, too
    try:
        task = pool.spawn(CAT)
        watchers = [task.events() for _ in range(40)]
        other = Task(pool, task.pid)
        other.apply_meta(a=1)
        assert other.info(fresh=True)["clients"] <= 32
        other.stream(0).write(b"fine")
        other.stream(0).close()
        assert other.wait(20)
        for watcher in watchers:
            told = list(watcher)
            assert {"event": "metadata-changed", "meta": {"a": 1}} in told
            assert told[-1]["final"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_supervisor_without_descriptors_goes_on(pool: TaskPool) -> None:
    task = pool.spawn(CAT)
    watching = task.events()
    now = len(os.listdir(f"/proc/{task.pid}/fd"))
    resource.prlimit(task.pid, resource.RLIMIT_NOFILE, (now + 3, 4096))
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(connected(pool, task.pid))
        assert task.info(fresh=True)["status"]["running"]
        started = time.process_time(), cpu_seconds(task.pid)
        time.sleep(0.5)
        assert cpu_seconds(task.pid) - started[1] < 0.25  # it does not spin
    task.apply_meta(a=1)
    assert next(watching) == {"event": "metadata-changed", "meta": {"a": 1}}
    watching.close()


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_several_write_and_each_piece_stays_whole(pool: TaskPool) -> None:
    task = pool.spawn(CAT)

    def write(n: int) -> None:
        for _ in range(20):
            one = pool.task_by_pid(task.pid)
            assert one is not None
            one.stream(0).write(b"%d" % n * 9 + b"\n")

    writers = [threading.Thread(target=write, args=(n,)) for n in range(5)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    task.stream(0).close()
    task.wait(20)
    lines = task.stream(1).read().splitlines()
    assert sorted(lines) == sorted([b"%d" % n * 9 for n in range(5)] * 20)


def test_who_hangs_up_in_the_middle_is_forgotten(pool: TaskPool) -> None:
    task = pool.spawn(CAT)
    task.pause()
    wait_for(lambda: state(task.info()["pid"]) == "T")  # until then it may still read
    task.stream(0).write(bytes(MB), timeout=0)
    with connected(pool, task.pid) as client:
        client.sendall(encode({"op": "write", "stream": 0, "wait": None}, b"never"))
        wait_for_info(task, lambda info: info["clients"] == 3)  # for stdin, the task has a connection of its own
        time.sleep(0.05)
    wait_for_info(task, lambda info: info["clients"] == 2)
    task.resume()
    task.stream(0).close()
    task.wait(20)
    assert b"never" not in task.stream(1).read()
