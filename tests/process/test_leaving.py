"""Ways out: of a worker, of a `with` block, of the program. What was begun is ended in order, or somebody is told."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, CommandHandler, JobTimeout, PoolClosed, jobs
from bossworker.system import processes
from tests.conftest import alive, wait_for
from tests.process.programs import environment, run_program, write_program

Pool = Callable[..., BossWorker]


class Resident:
    """An object that can be finalized."""


RESIDENT = Resident()

# -- workers that leave in order -------------------------------------------------------------------------------------

HOARD: list[bytes] = []
WAYS: dict[str, dict[str, Any]] = {
    "shut_down": {},
    "jobs": {"max_jobs_per_worker": 1},
    "memory": {},  # see below
    "resize": {},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_what_a_worker_has_begun_is_ended_before_it_leaves(
    pool: Pool, tmp_path: Path, way: str, start_method: str
) -> None:
    def note(name: str) -> None:
        (tmp_path / name).write_text(str(os.getpid()))

    def begin(job: dict[str, Any]) -> None:
        late = threading.Event()
        threading.Timer(0.3, late.set).start()
        threading.Thread(target=lambda: note("thread" * late.wait())).start()
        ThreadPoolExecutor(1).submit(lambda: note("executor" * late.wait()))
        atexit.register(note, "atexit")
        multiprocessing.util.Finalize(None, note, ("finalize",), exitpriority=0)
        weakref.finalize(RESIDENT, note, "weakref")
        if way == "memory":
            HOARD.append(b"x" * settings["max_worker_memory"])

    settings = {"worker_count": 2, "start_method": start_method, **WAYS[way]}
    if way == "memory":  # room for what a new worker has, and not for what the job keeps
        settings["max_worker_memory"] = processes.resident_bytes(os.getpid()) + (64 << 20)
    bw = pool(begin, exit_handler=lambda: note("exit_handler"), **settings)
    bw.add_work({})
    result = bw.get_result()
    assert result.ok, result.traceback
    if way == "resize":
        bw.resize(1)
        bw.add_work({})
    if way in ("resize", "shut_down"):
        bw.shut_down()
    names = {"exit_handler", "thread", "executor", "atexit", "finalize", "weakref"}
    wait_for(lambda: {path.name for path in tmp_path.iterdir() if path.read_text()} == names, what=str(names))


def test_what_the_program_has_registered_is_not_run_by_workers(pool: Pool, tmp_path: Path) -> None:
    mark = tmp_path / "run"
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder, ThreadPoolExecutor(1) as executor:
        executor.submit(int).result()
        finalizer = weakref.finalize(RESIDENT, mark.touch)
        atexit.register(mark.touch)
        try:
            bw = pool(lambda job: {"sum": executor.__class__ is ThreadPoolExecutor}, worker_count=2)
            bw.add_work({}, {})
            assert all(result.ok for result in bw.results())
            bw.shut_down()
        finally:
            atexit.unregister(mark.touch)
            finalizer.detach()
        assert os.path.isdir(folder)
        assert executor.submit(int).result() == 0
    assert not mark.exists()


@pytest.mark.parametrize("recycled", [0, 3])
def test_what_is_put_into_a_queue_arrives_also_from_workers_that_leave(recycled: int) -> None:
    """Each has a thread that writes to the queue's pipe; cut off in the middle, it would block the queue for ever."""
    queue = multiprocessing.get_context("fork").Queue()
    large = b"x" * 1_000_000

    def put(job: dict[str, int]) -> None:
        for part in range(5):
            queue.put((job["n"], part, large))

    got: list[tuple[int, int]] = []
    reader = threading.Thread(target=lambda: got.extend(queue.get(timeout=30)[:2] for _ in range(200)))
    with BossWorker(put, worker_count=2, max_jobs_per_worker=recycled) as bw:
        reader.start()
        bw.add_work(*({"n": n} for n in range(40)))
    reader.join()
    assert sorted(got) == [(n, part) for n in range(40) for part in range(5)]
    queue.close()
    queue.join_thread()


@pytest.mark.parametrize("recycled", [0, 1])
def test_an_exit_handler_that_raises_is_told_to_whoever_shuts_down(
    pool: Pool, capfd: pytest.CaptureFixture[str], recycled: int
) -> None:
    def fail() -> None:
        raise ConnectionError("the database is away")

    bw = pool(lambda job: {}, exit_handler=fail, worker_count=1, max_jobs_per_worker=recycled)
    bw.add_work({}, {}, {})
    with pytest.warns(RuntimeWarning, match=r"exit_handler raised in .*: ConnectionError: the database is") as told:
        bw.shut_down()
    assert len(list(bw.results())) == 3
    failed = capfd.readouterr().err.count("Traceback")
    assert failed in ((3, 4) if recycled else (1,))
    assert f"in {failed} workers, first: " in str(told[0].message) or failed == 1
    assert told[0].filename == __file__


# -- out of a with block ------------------------------------------------------------------------------------------


class Enough(Exception):
    pass


def hold(job: dict[str, Any]) -> dict[str, Any]:
    """Work for ever, and tidy up when told to stop."""
    try:
        Path(job["path"] + ".begun").touch()
        time.sleep(300)
    except JobTimeout as stopped:
        Path(job["path"] + ".grace").write_text(str(stopped.grace))
        raise
    finally:
        time.sleep(0.1)
        Path(job["path"] + ".tidy").touch()
    return {}


def ignore(job: dict[str, Any]) -> None:
    """Work for ever, whatever anybody says."""
    while True:
        try:
            Path(job["path"] + ".begun").touch()
            time.sleep(300)
        except JobTimeout:
            Path(job["path"] + ".told").touch()


def leave_with_an_exception(bw: BossWorker, path: Path) -> None:
    """As soon as a job runs, and with many that wait."""

    def fail() -> None:
        with bw:
            bw.add_work(*[{"path": str(path)}] * 1000)
            wait_for(Path(f"{path}.begun").exists)
            raise Enough

    with pytest.raises(Enough):
        fail()


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_an_exception_through_with_lets_running_handlers_tidy_up(tmp_path: Path, start_method: Any) -> None:
    path = tmp_path / "job"
    left = tmp_path / "left"
    bw = BossWorker(hold, exit_handler=left.touch, worker_count=2, start_method=start_method, kill_grace=20)
    pids = (bw.boss_pid, *bw.worker_pids)
    leave_with_an_exception(bw, path)
    assert Path(f"{path}.tidy").exists()
    assert Path(f"{path}.grace").read_text() == "20.0"
    assert left.exists()
    assert bw.pending() == 0
    assert not any(map(alive, pids))
    with pytest.raises(PoolClosed):
        bw.add_work({})


def test_a_handler_that_does_not_stop_is_ended_after_its_grace(tmp_path: Path) -> None:
    path = tmp_path / "job"
    bw = BossWorker(ignore, worker_count=1, kill_grace=0.3)
    pids = (bw.boss_pid, *bw.worker_pids)
    leave_with_an_exception(bw, path)
    assert Path(f"{path}.told").exists()
    assert not any(map(alive, pids))


def test_a_forced_end_does_not_wait_for_handlers(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "job"
    bw = pool(ignore, worker_count=1, kill_grace=300)
    bw.add_work({"path": str(path)})
    wait_for(Path(f"{path}.begun").exists)
    bw.shut_down(force=True)
    assert not Path(f"{path}.told").exists()


def test_a_command_that_is_stopped_so_is_recorded_as_stopped(tmp_path: Path) -> None:
    mark = tmp_path / "begun"
    bw = BossWorker(CommandHandler(tmp_path / "jobs"), worker_count=1)
    bw.add_work({"cmd": ["sh", "-c", f"touch {mark}; exec sleep 300"]})
    wait_for(mark.exists)
    bw.__exit__(Enough, Enough(), None)
    (jobid,) = jobs.listing(tmp_path / "jobs")
    assert jobs.status(jobid, root=tmp_path / "jobs") == "terminated by request"


INTERRUPTED = """
    import os, signal, sys, time
    from pathlib import Path
    from bossworker import BossWorker, JobTimeout
    from tests.process.test_leaving import hold, ignore

    handler, where, path = sys.argv[1:]
    try:
        with BossWorker({"hold": hold, "ignore": ignore}[handler], worker_count=1, kill_grace=300) as pool:
            print(pool.boss_pid, *pool.worker_pids, flush=True)
            pool.add_work({"path": path})
            while where == "inside":
                time.sleep(0.01)  # Ctrl-C that comes just before a long sleep would wait for its end
            Path(path + ".leaving").touch()
    except KeyboardInterrupt as interrupted:
        kept = interrupted  # a traceback, and in it the handle
        try:
            print(os.waitpid(-1, os.WNOHANG), flush=True)
        except ChildProcessError:
            print("nothing left", flush=True)
        time.sleep(0.5)
"""


def interrupted(tmp_path: Path, handler: str, where: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A program with a job that runs, and which waits in its block or in leaving it; the pids of its pool."""
    path = tmp_path / "job"
    command = [sys.executable, str(write_program(tmp_path, INTERRUPTED)), handler, where, str(path)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(), start_new_session=True)
    assert program.stdout is not None
    pids = [int(pid) for pid in program.stdout.readline().split()]
    wait_for(Path(f"{path}.begun").exists)
    if where == "leaving":
        wait_for(Path(f"{path}.leaving").exists)
    return program, pids


@pytest.mark.parametrize("where", ["inside", "leaving"])
def test_ctrl_c_in_a_with_block_and_in_leaving_it_lets_handlers_tidy_up(tmp_path: Path, where: str) -> None:
    program, pids = interrupted(tmp_path, "hold", where)
    os.killpg(program.pid, signal.SIGINT)
    assert program.stdout is not None
    assert program.stdout.readline() == "nothing left\n"
    assert not any(map(alive, pids)), "they are gone as the program goes on"
    assert (tmp_path / "job.tidy").exists()
    assert program.communicate(timeout=30)[0] == ""


@pytest.mark.parametrize("where", ["inside", "leaving"])
def test_the_second_ctrl_c_ends_at_once(tmp_path: Path, where: str) -> None:
    program, pids = interrupted(tmp_path, "ignore", where)
    os.killpg(program.pid, signal.SIGINT)
    wait_for((tmp_path / "job.told").exists)
    for _ in range(3):  # the forced end is not cut short by the next ones, either
        os.killpg(program.pid, signal.SIGINT)
    assert program.stdout is not None
    out = program.communicate(timeout=30)[0]
    assert out in ("nothing left\n", "")  # "" when the last came after the handle's end
    wait_for(lambda: not any(map(alive, pids)))


# -- a handle that nobody shuts down ------------------------------------------------------------------------------


def test_a_handle_that_is_dropped_tells_how_many_jobs_are_unfinished(caplog: pytest.LogCaptureFixture) -> None:
    bw = BossWorker(lambda job: time.sleep(job["seconds"]), worker_count=1)
    bw.add_work({"seconds": 0}, {"seconds": 300}, {"seconds": 300})
    bw.get_result()
    text = f"pool dropped: boss={bw.boss_pid} unfinished=2 pool={bw.name!r}"
    with pytest.warns(ResourceWarning, match="was not shut down, and 2 of its jobs are unfinished"):
        del bw
    assert caplog.record_tuples == [("bossworker", logging.WARNING, text)]


def test_a_handle_that_is_dropped_with_nothing_to_do_is_warned_of_only(caplog: pytest.LogCaptureFixture) -> None:
    bw: BossWorker = BossWorker(lambda job: {}, worker_count=1)
    with pytest.warns(ResourceWarning, match="was not shut down$"):
        del bw
    assert not caplog.records


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)"])
def test_a_program_that_ends_tells_how_many_jobs_are_unfinished(tmp_path: Path, end: str) -> None:
    program = f"""
        import logging, time
        from bossworker import BossWorker

        logging.basicConfig(format="%(message)s")
        pool = BossWorker(lambda job: time.sleep(300), worker_count=2)
        pool.add_work(*[{{}}] * 5)
        print(pool.boss_pid, *pool.worker_pids)
        {end}
        """
    path = write_program(tmp_path, program)
    done = subprocess.run(
        [sys.executable, "-W", "always", str(path)], capture_output=True, text=True, check=True, env=environment()
    )
    boss, *workers = map(int, done.stdout.split())
    assert done.stderr.splitlines()[0] == f"pool dropped: boss={boss} unfinished=5 pool='<lambda>'"
    assert "ResourceWarning: <BossWorker" in done.stderr
    assert "5 of its jobs are unfinished" in done.stderr
    assert done.stderr.count("unfinished") == 2, "once each"
    wait_for(lambda: not any(map(alive, (boss, *workers))))


def test_exit_functions_of_the_program_may_shut_its_pools_down(tmp_path: Path) -> None:
    program = """
        import atexit
        from bossworker import BossWorker

        def finish():
            first.shut_down()
            second.shut_down()
            print(len(list(first.results())), len(list(second.results())))

        atexit.register(finish)
        first, second = (BossWorker(lambda job: {}, worker_count=1) for _ in "12")
        first.add_work(*[{}] * 3)
        second.add_work(*[{}] * 4)
        """
    assert run_program(tmp_path, program, options=("-W", "always")) == "3 4\n"


def test_a_program_that_shuts_down_is_told_nothing(tmp_path: Path) -> None:
    program = """
        from bossworker import BossWorker

        with BossWorker(lambda job: {}, worker_count=2) as pool:
            pool.add_work({}, {})
        """
    assert run_program(tmp_path, program, options=("-W", "always")) == ""
