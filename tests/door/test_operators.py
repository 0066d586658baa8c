"""Operators: programs that look at a pool as a whole, and steer it, through its door."""

from __future__ import annotations

import json
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import bossworker
from bossworker import (
    BossWorker,
    BossWorkerError,
    Door,
    DoorRefused,
    JobEnded,
    PoolClosed,
    WorkerUp,
)
from bossworker.pool.door import operators
from bossworker.pool.door.client_link import cut_message
from bossworker.pool.door.door_protocol import OPERATOR
from bossworker.pool.wire.messages import FIRST_CLIENT_ID, ProtocolError
from bossworker.pool.wire.zmtp import header_of
from tests.conftest import wait_for
from tests.door.test_strangers import answers, greeting, raw

Make = Callable[..., BossWorker]
Accept = Literal["pickle", "json"]
forms = pytest.mark.parametrize("accept", ["pickle", "json"])


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("sleep"):
        time.sleep(job["sleep"])
    if job.get("fail"):
        raise ValueError("rattle")
    return {"n": job.get("n")}


@forms
def test_what_a_pool_is(pool: Make, clients: Make, accept: Accept) -> None:
    bw = pool(work, worker_count=2, name="mill")
    client = clients(bw.listen(accept=accept))
    client.add_work({"sleep": 60})
    with bossworker.operate("mill") as operator:
        assert (operator.name, operator.boss_pid, operator.owner_pid) == ("mill", bw.boss_pid, os.getpid())
        assert operator.options["worker_count"] == 2
        (worker,) = wait_for(lambda: [one for one in operator.now().stats.workers if one.job_id])
        assert worker.job_id > FIRST_CLIENT_ID
        assert {one.pid for one in operator.now().stats.workers} == set(bw.worker_pids)
        assert all(one.rss for one in operator.now().stats.workers)
        assert [(one.pid, one.unfinished) for one in operator.clients] == [(os.getpid(), 1)]


@forms
def test_events_and_traces(pool: Make, tmp_path: Path, accept: Accept) -> None:
    bw = pool(work, worker_count=1, name="mill")
    bw.listen(accept=accept)
    with bossworker.operate("mill") as operator:
        news = operator.events(0)
        assert isinstance(next(news), WorkerUp)
        bw.add_work({"n": 1}, {"fail": True})
        ends = [event for event in (next(news) for _ in range(6)) if isinstance(event, JobEnded)]
        assert [(event.job_id, event.error_kind) for event in ends] == [(1, None), (2, "exception")]
        operator.trace(tmp_path / "trace.json")
        assert "job 2" in (tmp_path / "trace.json").read_text()
        with pytest.raises(TypeError, match=r"path must be .*, not 1"):
            operator.trace(1)  # type: ignore[arg-type]


def test_a_reader_ends_with_the_pool_and_with_its_operator(pool: Make) -> None:
    bw = pool(work, worker_count=1)
    bw.listen()
    operator, other = bossworker.operate(bw.name), bossworker.operate(bw.name)
    ends: list[str] = []

    def read(events: Iterator[object], name: str) -> None:
        for _ in events:
            pass
        ends.append(name)

    readers = {"left": operator.events(), "gone": other.events()}
    threads = [threading.Thread(target=read, args=(events, name)) for name, events in readers.items()]
    for thread in threads:
        thread.start()
    bw.add_work({"n": 1})
    bw.get_result()
    operator.close()
    wait_for(lambda: ends == ["left"])
    for ask in (operator.now, operator.events):
        with pytest.raises(PoolClosed):
            ask()
    bw.shut_down()
    for thread in threads:
        thread.join(30)
    assert ends == ["left", "gone"]
    with pytest.raises(PoolClosed, match="is gone"):
        other.now()
    other.close()


def test_what_operators_order_is_in_the_log(pool: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bossworker")
    bw = pool(work, worker_count=1)
    bw.listen()
    with bossworker.operate(bw.name) as operator:
        operator.pause()
        operator.resize(2)
        operator.cancel([17], by="a test")
    wait_for(lambda: bw.stats() and "op=cancel jobs=0 of=1 by='a test'" in caplog.text)
    assert f"op=pause by={os.path.basename(sys.argv[0])!r}" in caplog.text
    assert "op=resize workers=2" in caplog.text


# -- who is let in ---------------------------------------------------------------------------------------------


def test_another_user_gets_nothing(pool: Make) -> None:
    """Even where the program lets other users in, for jobs."""
    if os.getuid():
        pytest.skip("only root can be another user")
    door = pool(work, worker_count=1).listen()
    path = Path(door.address.removeprefix("ipc://"))
    path.chmod(0o666)
    for folder in [*path.parents][:-2]:
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)
    child = os.fork()
    if not child:
        try:
            os.setuid(65534)
            operate_as_stranger(door.address)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert door.refused == 1


def operate_as_stranger(address: str) -> None:
    with pytest.raises(DoorRefused, match="by its own user alone"):
        bossworker.operate(address)


def test_no_operator_comes_over_the_network(pool: Make) -> None:
    keys = bossworker.keys()
    door = pool(work, worker_count=1).listen("tcp://127.0.0.1:0", keys=keys)
    with pytest.raises(ValueError, match="cannot be steered"):
        bossworker.operate(door.address)


def test_a_client_is_no_operator(pool: Make, clients: Make) -> None:
    client = clients(pool(work, worker_count=1).listen())
    with pytest.raises(BossWorkerError, match="only the program that made the pool"):
        client.pause()


def test_nonsense_from_an_operator(pool: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    dropped: list[Any] = [
        17, {}, {"op": "now"}, {"op": "now", "request": "x"}, {"op": "now", "request": -1}, {"request": 1},
        {"op": "events", "request": 1, "seen": -1, "wait": True}, {"op": "events", "request": 1, "seen": 0},
    ]  # fmt: skip
    refused: list[Any] = [
        {"op": "resize", "workers": 0}, {"op": "resize", "workers": "many"}, {"op": "cancel", "ids": [-1]},
        {"op": "cancel", "ids": "x"}, {"op": "now"}, {"op": "submit", "jobs": []}, {"op": "pause"}, {"op": None},
    ]  # fmt: skip
    with raw(door) as sock:
        sock.send(greeting(OPERATOR))
        assert answers(sock)["op"] == "welcome"
        for told in dropped:
            sock.send(json.dumps(told).encode())
            assert answers(sock)["op"] == "error", told
        for told in refused:
            sock.send(json.dumps({**told, "request": 2}).encode())
            assert "refused" in answers(sock), told
        sock.send(json.dumps({"op": "now", "seen": 0, "usage": True, "request": 3}).encode())
        assert answers(sock)["request"] == 3
    assert door.malformed == len(dropped)
    assert len(bw.worker_pids) == 1


def test_too_many_operators_and_those_that_are_gone(pool: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    door = pool(work, worker_count=1).listen()
    for _ in range(operators.MOST_OPERATORS + 5):  # each hangs up, and makes room
        bossworker.operate(door.address).close()
    here: list[bossworker.RemoteOperator] = []
    while len(here) < operators.MOST_OPERATORS:
        here.append(bossworker.operate(door.address))
    with pytest.raises(DoorRefused, match="no more are let in"):
        bossworker.operate(door.address)
    here.pop().close()
    here.append(wait_for(lambda: _let_in(door)))
    for one in here:
        assert one.now().stats.queued == 0
        one.close()


def _let_in(door: Door) -> bossworker.RemoteOperator | None:
    try:
        return bossworker.operate(door.address)
    except DoorRefused:
        return None


def test_an_old_version_is_told(pool: Make) -> None:
    with raw(pool(work, worker_count=1).listen()) as sock:
        sock.send(greeting(OPERATOR, version=99))
        assert "speaks version 1 of the protocol, not 99" in answers(sock)["reason"]


# -- where pools are -------------------------------------------------------------------------------------------


def test_the_pools_of_a_user(pool: Make, runtime_folder: Path) -> None:
    assert bossworker.pools() == []
    doors = [pool(work, worker_count=1, name=name).listen() for name in ("mill", "bakery")]
    (runtime_folder / "bossworker" / "no-socket").touch()
    assert bossworker.pools() == sorted(door.address for door in doors)
    (runtime_folder / "bossworker" / "no-socket").unlink()
    (runtime_folder / "bossworker").chmod(0o755)  # others may put theirs there
    assert bossworker.pools() == []
    (runtime_folder / "bossworker").chmod(0o700)


def test_no_such_pool(tmp_path: Path, runtime_folder: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match="there is no pool at"):
        bossworker.operate("nobody")
    with pytest.raises(ValueError, match="address must"):
        bossworker.operate("")
    with pytest.raises(TypeError, match="address must be a str"):
        bossworker.operate(17)  # type: ignore[arg-type]


def test_a_pool_that_is_stopped_does_not_hang_whoever_looks(pool: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    operator = bossworker.operate(door.address, timeout=0.5)
    os.kill(door.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            bossworker.operate(door.address, timeout=0.1)
        with pytest.raises(TimeoutError, match="has not answered for"):
            operator.now()
    finally:
        os.kill(door.pid, signal.SIGCONT)
    wait_for(lambda: _answers(operator))
    assert len(operator.now().stats.workers) == 1  # and not what was asked for before
    assert operator.stack() != ""
    operator.close()


def _answers(operator: bossworker.RemoteOperator) -> bool:
    try:
        return bool(operator.now())
    except TimeoutError:
        return False


def test_messages_are_cut_wherever_they_come_apart() -> None:
    sent = header_of(4) + b"four" + bytes((4, 2)) + b"xy" + header_of(300) + bytes(300)
    for at in range(len(sent) + 1):
        read, found = sent[:at], []
        for more in (b"", sent[at:]):
            read += more
            while (cut := cut_message(read, 1000)) is not None:
                found.append(cut[0])
                read = cut[1]
        assert (found, read) == ([b"four", bytes(300)], b"")
    with pytest.raises(ProtocolError, match="301 bytes"):
        cut_message(header_of(301), 300)
    with pytest.raises(ProtocolError, match="flags 1"):
        cut_message(b"\x01\x00", 300)


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_a_door_that_goes_while_somebody_reads_events_costs_the_pool_nothing(pool: Make, how: str) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    operator = bossworker.operate(door.address)
    events = operator.events(since=0)
    seen: list[object] = [next(events)]
    reader = threading.Thread(target=lambda: seen.extend(events))
    reader.start()
    bw.add_work({})
    assert bw.get_result().ok
    if how == "closed":
        door.close()
    else:
        os.kill(door.pid, signal.SIGKILL)
    wait_for(lambda: not reader.is_alive())  # it waited for the next event
    for _ in range(3):
        bw.add_work({})
        assert bw.get_result().ok
    reader.join()
    operator.close()
    assert any(isinstance(event, WorkerUp) for event in seen)
