"""``stack``: what a job is doing, as the worker itself writes it down."""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, PoolClosed, run_command
from bossworker.system import signals
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def start(bw: BossWorker, job: dict[str, Any], **options: Any) -> int:
    (job_id,) = bw.add_work(job, **options)
    wait_for(lambda: job_id in [worker.job_id for worker in bw.stats().workers])
    return job_id


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 60))
    return {}


def test_a_running_job_shows_its_stack(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    job_id = start(bw, {})
    text = bw.stack(job_id)
    (pid,) = [worker.pid for worker in bw.stats().workers if worker.job_id == job_id]
    assert re.match(rf"worker [01], process {pid}: job {job_id} for \S+ s\n", text)
    assert re.search(r'test_stack.py", line \d+ in nap$', text)  # and nothing of ours
    assert "test_stack" in bw.stack()
    assert ": idle" in bw.stack()
    assert bw.stats().restarts == 0


def test_nor_is_there_anything_of_ours_where_the_core_runs_the_job(pool: Pool) -> None:
    """It runs small jobs that were added together."""
    bw = pool(nap, worker_count=1)
    job_id, _ = bw.add_work({"seconds": 60}, {"seconds": 0})
    wait_for(lambda: [worker.job_id for worker in bw.stats().workers] == [job_id])
    assert re.search(r'test_stack.py", line \d+ in nap$', bw.stack(job_id))


def test_a_low_limit_on_descriptors_is_no_matter(pool: Pool) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
    try:
        bw = pool(nap, worker_count=1)
        assert "in nap" in bw.stack(start(bw, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def match_for_ever(job: dict[str, Any]) -> dict[str, Any]:
    re.match(r"(a+)+$", "a" * 60 + "b")
    return {}


def test_c_code_that_keeps_the_lock_is_shown_at_once(pool: Pool) -> None:
    bw = pool(match_for_ever, worker_count=1)
    job_id = start(bw, {})
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert "in match_for_ever" in bw.stack(job_id)
        took.append(time.monotonic() - began)
    assert min(took) < 0.05  # the machine may be busy with other things, but not always


def test_no_stack_of_a_job_that_does_not_run(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    start(bw, {})
    (queued,) = bw.add_work({})
    assert bw.stack(queued) == ""
    assert bw.stack(99) == ""
    assert bw.stack(0) == ""
    for bad, error in ((-1, ValueError), ("1", TypeError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="job_id must be an int"):
            bw.stack(bad)  # type: ignore[arg-type]


def test_a_closed_pool_has_none(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.shut_down(force=True)
    with pytest.raises(PoolClosed):
        bw.stack()


def in_threads(job: dict[str, Any]) -> dict[str, Any]:
    thread = threading.Thread(target=wait_in_thread, daemon=True)
    thread.start()
    time.sleep(60)
    return {}


def wait_in_thread() -> None:
    time.sleep(60)


def test_all_threads_are_shown(pool: Pool) -> None:
    bw = pool(in_threads, worker_count=1)
    job_id = start(bw, {})
    wait_for(lambda: "in wait_in_thread" in bw.stack(job_id))
    assert "in in_threads" in bw.stack(job_id)


def test_a_worker_that_is_starting_is_shown(pool: Pool, tmp_path: Path) -> None:
    bw = pool(nap, worker_count=1)

    def load_for_long() -> None:
        wait_for((tmp_path / "go").exists)

    reloading = threading.Thread(target=bw.reload, kwargs={"init_handler": load_for_long})
    reloading.start()
    wait_for(lambda: "in load_for_long" in bw.stack())
    assert "starting" in bw.stack()
    (tmp_path / "go").touch()
    reloading.join()


def test_a_command_shows_its_processes(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    bw = pool(run_command, worker_count=1)
    job_id = start(bw, {"cmd": "sleep 123 | sleep 124", "shell": True})
    text = wait_for(lambda: text if len(re.findall(r"\d sleeping: .*sleep", text := bw.stack(job_id))) == 3 else "")
    below = text.partition("processes below it:\n")[2].splitlines()
    assert re.fullmatch(r"  \d+ sleeping: /bin/sh -c 'sleep 123 \| sleep 124'", below[0])
    assert re.fullmatch(r"    \d+ sleeping: sleep 123", below[1])
    assert re.fullmatch(r"    \d+ sleeping: sleep 124", below[2])


def test_a_stopped_process_is_said_to_be_stopped(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    job_id = start(bw, {"seconds": 5})
    (pid,) = bw.worker_pids
    os.kill(pid, signal.SIGSTOP)
    assert bw.stack(job_id).endswith("it does not answer (stopped)")
    assert bw.stats().running == 1  # the boss has not waited for it
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: "in nap" in bw.stack(job_id))


def lose_its_file() -> None:
    for fd in os.listdir("/proc/self/fd"):
        try:
            if "bossworker-stack" in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(int(fd))
        except OSError:
            pass


def flood_its_file(job: dict[str, Any]) -> dict[str, Any]:
    paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    (path,) = [path for path in paths if os.path.islink(path) and "bossworker-stack" in os.readlink(path)]
    with open(path, "ab") as file:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            file.write(os.urandom(1 << 12))
            file.flush()
    return {}


def test_what_a_handler_writes_there_harms_nobody(pool: Pool) -> None:
    bw = pool(flood_its_file, worker_count=1)
    job_id = start(bw, {})
    for _ in range(5):
        assert len(bw.stack(job_id)) < 1 << 19
    assert bw.get_result().ok


def reset_signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("reset", [lose_its_file, reset_signals])
def test_a_handler_that_resets_everything_is_not_harmed(pool: Pool, reset: Callable[[], None], tmp_path: Path) -> None:
    def handle(job: dict[str, Any]) -> dict[str, Any]:
        reset()
        (tmp_path / "reset").touch()  # amid it, the signal might end the worker
        return nap(job)

    bw = pool(handle, worker_count=1)
    job_id = start(bw, {"seconds": 0.5})
    wait_for((tmp_path / "reset").exists)
    wait_for(lambda: "its stack cannot be had" in bw.stack(job_id) or not bw.stats().running)
    assert bw.get_result().ok
    bw.add_work({"seconds": 0})
    assert bw.get_result().ok


def use_faulthandler(job: dict[str, Any]) -> dict[str, Any]:
    faulthandler.register(signal.SIGUSR1)
    faulthandler.unregister(signal.SIGUSR1)
    faulthandler.enable()
    faulthandler.disable()
    return nap(job)


def test_a_handler_may_use_faulthandler_too(pool: Pool) -> None:
    bw = pool(use_faulthandler, worker_count=1)
    job_id = start(bw, {})
    wait_for(lambda: "in nap" in bw.stack(job_id))


def test_many_ask_at_once_while_jobs_run(pool: Pool) -> None:
    bw = pool(nap, worker_count=3)
    bw.add_work(*[{"seconds": 0.002} for _ in range(300)])
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.extend(bw.stack() for _ in range(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert all(result.ok for result in bw.results())
    for thread in threads:
        thread.join()
    assert len(texts) == 40
    assert all(text.count("process ") == 3 for text in texts)


@pytest.mark.skipif(signals.SHOW_STACK is None, reason="no such signals here")
def test_a_program_that_a_job_starts_has_nothing_of_it(pool: Pool) -> None:
    def look(job: dict[str, Any]) -> dict[str, Any]:
        script = "print([line for line in open('/proc/self/status') if line.startswith('SigCgt')][0].split()[1])"
        caught = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        assert signals.SHOW_STACK is not None
        return {"caught": int(caught, 16) >> (signals.SHOW_STACK - 1) & 1}

    bw = pool(look, worker_count=1)
    bw.add_work({})
    assert bw.get_result().raise_for_error()["caught"] == 0
