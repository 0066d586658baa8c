"""What carries messages between boss and workers: both transports, the lack of one, and what handlers do to them."""

from __future__ import annotations

import _thread
import errno
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.pool.boss import router_start
from bossworker.pool.wire.doorway import Doorway
from bossworker.pool.wire.zmtp import EarlyLink
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]

transports = pytest.mark.parametrize("transport", ["zmq", "socketpair"])
starts = pytest.mark.parametrize("start_method", ["fork", "spawn"])


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def handle(job: dict[str, Any]) -> dict[str, Any]:
    match job.get("do"):
        case "close":
            os.closerange(3, 100)
        case "raise":
            signal.signal(signal.SIGALRM, interrupt)
            with suppress(ZeroDivisionError):
                signal.setitimer(signal.ITIMER_REAL, 1e-4)
                signal.pause()
        case "garble":
            for end in links():
                end.send(job["bytes"])
                end.close()
        case "fork":
            if os.fork() == 0:
                os._exit(0)
            os.wait()
    return {"n": job["n"], "pid": os.getpid(), "data": job.get("data")}


def interrupt(number: int, frame: object) -> None:
    raise ZeroDivisionError


def links() -> list[socket.socket]:
    """This worker's end of ZeroMQ."""
    dealers = [one for one in gc.get_objects() if type(one) is EarlyLink]
    return [socket.socket(fileno=os.dup(one.fileno())) for one in dealers]


@starts
@transports
def test_jobs_of_all_sizes_have_their_results(pool: Pool, transport: str, start_method: str) -> None:
    bw = pool(handle, worker_count=2, transport=transport, start_method=start_method)
    for n in range(50):
        bw.add_work({"n": n})
        assert bw.get_result()["n"] == n
    sizes = [0, 10_000, 32_000, 33_000, 100_000, 250_000, 300_000, 3_000_000]
    bw.add_work(*({"n": n, "data": bytes(sizes[n % len(sizes)])} for n in range(64)))
    found = {result["n"]: len(result["data"]) for result in bw.results()}
    assert found == {n: sizes[n % len(sizes)] for n in range(64)}
    bw.add_work(*({"n": n} for n in range(2000)))
    assert sorted(result["n"] for result in bw.results()) == list(range(2000))


@starts
def test_libzmq_runs_in_the_boss_alone(pool: Pool, start_method: str) -> None:
    bw = pool(handle, worker_count=2, start_method=start_method, transport="zmq")
    before = threads(os.getpid())
    bw.add_work({"n": 1, "do": "fork"})  # on 3.12 and later, a thread would make this a warning, and that an error
    assert bw.get_result().ok
    wait_for(lambda: threads(bw.boss_pid) == 3)  # it is there a little later than the boss
    assert [threads(pid) for pid in bw.worker_pids] == [1, 1]
    assert threads(os.getpid()) == before


def test_the_first_long_order_has_libzmq_started_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_start, "LATEST_SECONDS", 1000.0)
    bw = pool(handle, worker_count=2, transport="zmq")
    bw.add_work(*({"n": n} for n in range(100)))
    assert sorted(result["n"] for result in bw.results()) == list(range(100))
    assert threads(bw.boss_pid) == 1
    bw.add_work(*({"n": n, "data": bytes(100_000)} for n in range(20)))
    assert all(len(result["data"]) == 100_000 for result in bw.results())
    assert threads(bw.boss_pid) == 3


def test_more_workers_than_the_listener_keeps_waiting_come_up(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossworker.pool.wire.doorway.BACKLOG", 1)
    bw = pool(handle, worker_count=6)
    assert len(bw.worker_pids) == 6


def test_where_libzmq_cannot_have_its_threads_pairs_stand_in_and_the_log_says_so(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would abort the boss."""

    def cannot(function: object, arguments: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", cannot)
    with caplog.at_level(logging.WARNING, "bossworker"):
        bw = pool(handle, worker_count=2, transport="zmq")
        bw.add_work(*({"n": n, "data": bytes(100_000)} for n in range(20)))
        assert all(len(result["data"]) == 100_000 for result in bw.results())
        bw.reload(work_handler=handle)  # whoever comes next does not try to connect
        bw.add_work(*({"n": n, "data": bytes(100_000)} for n in range(20)))
        assert all(len(result["data"]) == 100_000 for result in bw.results())
    told = [record.message for record in caplog.records if "transport=socketpair" in record.message]
    assert len(told) == 1
    assert "can't start new thread" in told[0]
    assert threads(bw.boss_pid) == 1


def test_as_many_threads_as_libzmq_needs_are_tried_at_once(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = _thread.start_new_thread

    def one_more_at_most(function: Callable[..., object], arguments: tuple[object, ...]) -> int:
        if len(os.listdir("/proc/self/task")) > 1:
            raise RuntimeError("can't start new thread")
        return start(function, arguments)

    monkeypatch.setattr(_thread, "start_new_thread", one_more_at_most)
    with caplog.at_level(logging.WARNING, "bossworker"):
        bw = pool(handle, worker_count=2, transport="zmq")
        bw.add_work({"n": 1, "data": bytes(100_000)})
        assert bw.get_result()["n"] == 1
    assert [record.levelname for record in caplog.records if "can't start new thread" in record.message] == ["WARNING"]


def test_over_socket_pairs_there_is_no_thread_at_all(pool: Pool) -> None:
    bw = pool(handle, worker_count=1, transport="socketpair")
    assert [threads(pid) for pid in (bw.boss_pid, *bw.worker_pids)] == [1, 1]


def test_without_pyzmq_socket_pairs_stand_in_and_the_log_says_so(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "zmq", None)  # as if it were not installed
    with caplog.at_level(logging.WARNING, "bossworker"):
        bw = pool(handle, worker_count=1, transport="zmq")
    assert [record.levelname for record in caplog.records if "transport=socketpair" in record.message] == ["WARNING"]
    bw.add_work({"n": 1})
    assert bw.get_result()["n"] == 1
    assert threads(bw.boss_pid) == 1


def test_where_no_socket_can_be_made_pairs_stand_in_and_the_log_says_so(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Doorway) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Doorway, "__init__", refuse)
    with caplog.at_level(logging.WARNING, "bossworker"):
        bw = pool(handle, worker_count=1, transport="zmq")
        bw.add_work({"n": 1})
        assert bw.get_result()["n"] == 1
    told = [record.message for record in caplog.records if "transport=socketpair" in record.message]
    assert len(told) == 1
    assert "Read-only file system" in told[0]


@transports
@pytest.mark.parametrize("do", ["close", "raise"])
def test_what_a_handler_does_to_its_process_does_no_harm(pool: Pool, transport: str, do: str) -> None:
    bw = pool(handle, worker_count=1, transport=transport)
    for n in range(20):
        bw.add_work({"n": n, "do": do})
        assert bw.get_result()["n"] == n
    bw.add_work({"n": 20, "data": bytes(100_000)})
    assert len(bw.get_result()["data"]) == 100_000
    assert bw.stats().restarts == 0


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\0\3abc", b"\0\0"])
def test_a_handler_that_writes_into_the_socket_costs_its_own_worker_at_most(pool: Pool, garbage: bytes) -> None:
    bw = pool(handle, worker_count=2)
    bw.add_work(*({"n": n, "do": "garble" if n == 5 else None, "bytes": garbage} for n in range(40)))
    results = {result.job["n"]: result for result in bw.results()}
    assert sorted(results) == list(range(40))
    assert all(result.ok for n, result in results.items() if n != 5)
    bw.add_work(*({"n": n, "data": bytes(100_000)} for n in range(40)))
    assert sum(result.ok for result in bw.results()) == 40


@transports
@pytest.mark.parametrize("workers", [2, 5, 20])
def test_few_descriptors_are_enough(transport: str, workers: int) -> None:
    """Each worker takes two of the boss's with ZeroMQ; where that is too many, it does with one."""
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from bossworker import BossWorker
with BossWorker(lambda job: {{"n": job["n"]}}, worker_count={workers}, transport={transport!r}) as pool:
    pool.add_work(*({{"n": n, "data": bytes(50_000)}} for n in range(100)))
    assert sorted(result["n"] for result in pool.results()) == list(range(100))
    assert len(pool.worker_pids) == {workers}
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@transports
def test_a_pool_that_grows_beyond_its_descriptors_goes_on_over_pairs(transport: str) -> None:
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from bossworker import BossWorker
with BossWorker(lambda job: {{"n": job["n"]}}, worker_count=2, transport={transport!r}) as pool:
    pool.resize(12)
    pool.add_work(*({{"n": n, "data": bytes(50_000)}} for n in range(200)))
    assert sorted(result["n"] for result in pool.results()) == list(range(200))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_killed_boss_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for _ in range(3):
        bw = BossWorker(handle, worker_count=1)
        workers = bw.worker_pids
        os.kill(bw.boss_pid, signal.SIGKILL)
        wait_for(lambda: not any(map(alive, workers)))  # noqa: B023
        bw.shut_down(force=True)
    assert list(tmp_path.iterdir()) == []


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
