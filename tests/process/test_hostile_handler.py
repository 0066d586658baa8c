"""A handler writes wherever it can, into the pool's memory and sockets: its worker ends, and each job has a result."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import random
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker
from bossworker.pool.wire import messages, recorder
from bossworker.pool.wire.messages import PREFIX, VERSION, Kind
from bossworker.pool.wire.recorder import SLOT_SIZE, Recorder
from bossworker.system import processes
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
JOBS, CULPRIT = 40, 5
CRASH = "BossWorkerAsync: worker died (signal 9, SIGKILL), ended by the boss: "


def descriptors(wanted: Callable[[os.stat_result], bool]) -> Iterator[int]:
    """Those above the standard streams that are such a file."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and wanted(os.fstat(int(name))):
                yield int(name)


def is_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode)


def to_the_boss(data: bytes) -> None:
    for fd in descriptors(lambda status: stat.S_ISSOCK(status.st_mode)):
        with suppress(BrokenPipeError):  # it has hung up, because of what came by another one of them
            os.write(fd, data)


def own_recorder() -> Recorder:
    return next(one for one in gc.get_objects() if isinstance(one, Recorder) and one.slot == slot_of_worker())


def slot_of_worker() -> int:
    from bossworker.pool.worker.worker import Worker

    return next(one.recorder.slot for one in gc.get_objects() if isinstance(one, Worker))


def frame(kind: int, head: bytes = b"", body: int = 0) -> bytes:
    return PREFIX.pack(VERSION, kind, 0, len(head), body) + head


def misbehaving(deed: Callable[[], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A handler of which one job does this, and then stays a while."""

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        if job["n"] == CULPRIT:
            deed()
            time.sleep(0.1)
        return {"n": job["n"]}

    return handle


def run(pool: Pool, deed: Callable[[], object], one_by_one: bool = False) -> list[Any]:
    """The results of the jobs, by number; each has exactly one, and the pool works on with all its workers."""
    bw = pool(misbehaving(deed), worker_count=2)
    if one_by_one:
        for n in range(JOBS):
            bw.add_work({"n": n})
    else:
        bw.add_work(*({"n": n} for n in range(JOBS)))
    results = []
    while bw.pending():
        result = bw.get_result(timeout=60)
        assert result is not None, f"{bw.pending()} jobs have no result"
        results.append(result)
    assert sorted(result.job["n"] for result in results) == list(range(JOBS))
    bw.add_work(*({"n": 100 + n} for n in range(JOBS)))
    assert sorted(result["n"] for result in bw.results()) == list(range(100, 100 + JOBS))
    bw.shut_down(timeout=60)
    return sorted(results, key=lambda result: int(result.job["n"]))


def others_are_well(results: list[Any]) -> bool:
    return all(result.ok and result["n"] == result.job["n"] for result in results if result.job["n"] != CULPRIT)


# -- descriptors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_no_descriptor_of_the_pools_memory_is_left_in_a_worker(pool: Pool, start_method: str) -> None:
    def look(job: dict[str, Any]) -> dict[str, Any]:
        return {"files": [os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors(lambda status: True)]}

    bw = pool(look, worker_count=1, start_method=start_method)
    bw.add_work({})
    files = bw.get_result()["files"]
    assert files
    own = "bossworker-stack"  # where the interpreter writes its stacks: nothing but the worker's own is in it
    assert not [name for name in files if "bossworker" in name and own not in name]
    open_in_boss = os.listdir(f"/proc/{bw.boss_pid}/fd")
    names = [os.readlink(f"/proc/{bw.boss_pid}/fd/{fd}") for fd in open_in_boss]
    assert not [name for name in names if "bossworker" in name]


@pytest.mark.parametrize("fill", [b"\xff".__mul__, random.Random(1).randbytes, bytes], ids=["ones", "random", "zeros"])
@pytest.mark.parametrize("cut", [False, True])
def test_whoever_writes_to_all_files_or_cuts_them_harms_nobody(
    pool: Pool, fill: Callable[[int], bytes], cut: bool
) -> None:
    data = fill(1 << 20)
    # Not those that are open here before there is a pool: one is the log of whoever runs these tests.
    others = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in descriptors(is_file)}

    def write_to_all() -> None:
        for fd in descriptors(is_file):
            if os.path.realpath(f"/proc/self/fd/{fd}") in others:
                continue
            with suppress(OSError):
                os.ftruncate(fd, 0) if cut else os.pwrite(fd, data, 0)

    results = run(pool, write_to_all)
    assert all(result.ok for result in results)


# -- the socket --------------------------------------------------------------------------------------------------

A_SPILL = messages.SPILL.pack(1, 0x10, 0.0, 0.0)
FRAMES = {
    "zeros": bytes(1 << 16),
    "ones": b"\xff" * 1000,
    "DONE with a head": frame(Kind.DONE, b"\0"),
    "SPILL with three bytes": frame(Kind.SPILL, b"abc"),
    "SPILL of another job": frame(Kind.SPILL, A_SPILL),
    "UP twice": frame(Kind.UP) * 2,
    "UP thrice": frame(Kind.UP) * 3,
    "DONE twice": frame(Kind.DONE, b"\0") * 2,
    "DONE thrice": frame(Kind.DONE, b"\0") * 3,
    "a failed start": frame(Kind.INIT_FAILED),
    "a frame for workers": frame(Kind.LEAVE),
    "an endless body": frame(Kind.SPILL, A_SPILL, body=1 << 50),
    "a long body": frame(Kind.SPILL, A_SPILL, body=1 << 30),
    "half a prefix": frame(Kind.DONE, b"\0")[:7],
}


@pytest.mark.parametrize("data", FRAMES.values(), ids=FRAMES.keys())
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_frame_that_does_not_fit_ends_its_worker(pool: Pool, data: bytes, one_by_one: bool) -> None:
    results = run(pool, lambda: to_the_boss(data), one_by_one)
    assert others_are_well(results)
    culprit = results[CULPRIT]
    if not culprit.ok:
        assert culprit.error_kind == "crash"
        assert culprit["ERROR"].startswith(CRASH)


def test_what_the_worker_did_is_in_the_error_and_in_the_log(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    def stay() -> None:
        to_the_boss(frame(Kind.INIT_FAILED))
        time.sleep(60)

    with caplog.at_level(logging.WARNING, "bossworker"):
        results = run(pool, stay)
    reason = "a frame of kind <Kind.INIT_FAILED: 49> out of turn"
    assert results[CULPRIT]["ERROR"] == CRASH + reason
    (record,) = [record for record in caplog.records if record.name == "bossworker"]
    pid = results[CULPRIT].worker_pid
    assert record.getMessage() == f"worker ended: pid={pid} reason={reason!r} pool='misbehaving.<locals>.handle'"


def test_results_that_were_sent_before_the_garbage_are_kept(pool: Pool) -> None:
    """A large result and garbage that arrive together: the result counts."""

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        if job["n"] == 1:
            to_the_boss(b"garbage" * 1000)
            time.sleep(60)
        return {"data": bytes(200_000)}

    for _ in range(5):
        bw = pool(handle, worker_count=1)
        bw.add_work({"n": 0}, {"n": 1})
        first, second = bw.results()
        assert (first.job["n"], first.ok, len(first["data"])) == (0, True, 200_000)
        assert (second.job["n"], second.error_kind) == (1, "crash")


# -- memory --------------------------------------------------------------------------------------------------------


def overwrite(data: bytes, start: int = 0) -> None:
    own_recorder()._view[start : start + len(data)] = data


MEMORY = {
    "ones": lambda: overwrite(b"\xff" * SLOT_SIZE),
    "zeros": lambda: overwrite(bytes(SLOT_SIZE)),
    "random": lambda: overwrite(random.Random(2).randbytes(SLOT_SIZE)),
    "the counts": lambda: overwrite(b"\xff" * 512, recorder._UNCLAIMED_AT),
    "many jobs left": lambda: overwrite((1 << 30).to_bytes(8, "little"), recorder._UNCLAIMED_AT),
    "many results": lambda: overwrite((1 << 30).to_bytes(8, "little"), recorder._PUBLISHED_AT),
    "a result on its way": lambda: overwrite(b"\x40" * 2048, recorder._OUTCOMES_AT),
    "ends": lambda: overwrite(b"\xff" * 16000, recorder._ENDS_AT),
    "times": lambda: overwrite(b"\xff" * 16000, recorder._MARKS_AT),
}


@pytest.mark.parametrize("deed", MEMORY.values(), ids=MEMORY.keys())
def test_a_recorder_that_is_written_over_ends_its_worker_and_no_other(pool: Pool, deed: Callable[[], None]) -> None:
    results = run(pool, deed, one_by_one=True)
    wrong = [result for result in results if not result.ok]
    assert {result.error_kind for result in wrong} <= {"crash", "bad_result"}


def test_memory_that_is_not_its_own_is_out_of_a_workers_reach(pool: Pool) -> None:
    def reach() -> None:
        faulthandler.disable()
        own = own_recorder()
        own.notes[recorder.LIMIT] = 0

    results = run(pool, reach)
    assert others_are_well(results)
    assert results[CULPRIT]["ERROR"] == "BossWorkerAsync: worker died (signal 11, SIGSEGV)"


def test_after_the_bosss_death_a_recorder_that_is_written_over_holds_nobody_up(pool: Pool) -> None:
    """The caller takes back what it can, and no more than there can be."""

    def spoil_and_wait(job: dict[str, Any]) -> None:
        os.kill(os.getppid(), signal.SIGSTOP)  # the fork server: so the worker is not ended at once
        overwrite(b"\xff" * SLOT_SIZE)
        time.sleep(60)

    bw = pool(spoil_and_wait, worker_count=1)
    (fork_server,) = processes.children(bw.boss_pid)
    bw.add_work({}, {}, {})
    wait_for(lambda: "T" in Path(f"/proc/{fork_server}/stat").read_text().rpartition(")")[2])
    os.kill(bw.boss_pid, signal.SIGKILL)
    try:
        with pytest.raises(BossDied) as death:
            bw.get_result(timeout=60)
    finally:
        os.kill(fork_server, signal.SIGCONT)
    assert [one.job_id for one in death.value.unfinished] == [1, 2, 3]
    assert death.value.unfinished[0].may_have_run


def test_a_boss_that_aborts_is_heard_of_at_once(pool: Pool) -> None:
    bw = pool(lambda job: time.sleep(60), worker_count=1)
    bw.add_work({}, {})
    os.kill(bw.boss_pid, signal.SIGABRT)
    started = time.monotonic()
    with pytest.raises(BossDied):
        bw.get_result()
    assert time.monotonic() - started < 10
