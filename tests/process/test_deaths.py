"""Whoever dies, nobody waits for ever and nothing is left: boss, fork server, caller, and children of all kinds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker, PoolClosed
from bossworker.system import processes, signals
from tests.conftest import alive, wait_for

Pool = Callable[..., BossWorker]


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n")}


def family(job: dict[str, Any]) -> None:
    """Start children of each kind, note their pids, and hang."""
    children = [
        subprocess.Popen(["sleep", "300"]),
        subprocess.Popen(["sleep", "300"], start_new_session=True),
        subprocess.Popen("sleep 300 & sleep 300 & wait", shell=True),
    ]
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(job["pids"] + ".daemon").write_text(str(os.getpid()))
            time.sleep(300)
        os._exit(0)
    wait_for(Path(job["pids"] + ".daemon").exists)
    Path(job["pids"]).write_text(" ".join(str(child.pid) for child in children))
    time.sleep(300)


def family_pids(path: Path) -> list[int]:
    wait_for(lambda: path.exists() and path.read_text())
    return [int(p) for p in f"{path.read_text()} {Path(f'{path}.daemon').read_text()}".split()]


def gone(pids: list[int]) -> Callable[[], bool]:
    def check() -> bool:
        processes.reap_all()
        return not any(map(alive, pids))

    return check


@pytest.mark.parametrize("victim", ["boss", "fork server"])
def test_the_boss_or_nursery_dies(pool: Pool, tmp_path: Path, victim: str) -> None:
    bw = pool(family, worker_count=1)
    ids = list(bw.add_work({"pids": str(tmp_path / "pids")}, {"n": 1}, {"n": 2}))
    pids = [*family_pids(tmp_path / "pids"), *bw.worker_pids]
    fork_server = processes.children(bw.boss_pid)[0]
    start = time.monotonic()
    os.kill(bw.boss_pid if victim == "boss" else fork_server, signal.SIGKILL)
    with pytest.raises(BossDied) as death:
        bw.get_result()
    assert time.monotonic() - start < 1 + 9  # a second, with the margin that tests keep
    assert [(u.job_id, u.may_have_run) for u in death.value.unfinished] == [
        (ids[0], True),
        (ids[1], False),
        (ids[2], False),
    ]
    assert death.value.unfinished[1].job == {"n": 1}
    wait_for(gone([*pids, fork_server]), what="everything to be gone")
    for call in (lambda: bw.add_work({}), bw.get_result_nb, bw.stats, lambda: bw.resize(2), bw.shut_down):
        with pytest.raises(BossDied):
            call()
    assert bw.pending() == 3
    bw.shut_down(force=True)
    assert bw.pending() == 0


def test_results_that_arrived_before_the_boss_died_are_delivered(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work(*[{"n": n} for n in range(100)])
    wait_for(lambda: bw.stats().done == 100)
    os.kill(bw.boss_pid, signal.SIGKILL)
    assert sorted(r["n"] for r in bw.results()) == list(range(100))
    bw.shut_down()


@pytest.mark.parametrize("leave", [BossWorker.shut_down, lambda bw: bw.__exit__(None, None, None)])
def test_a_death_during_an_orderly_shut_down(pool: Pool, leave: Callable[[BossWorker], None]) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"seconds": 300}, {"n": 2})
    wait_for(lambda: bw.stats().running)
    timer = threading.Timer(0.2, os.kill, (bw.boss_pid, signal.SIGKILL))
    timer.start()
    with pytest.raises(BossDied) as death:
        leave(bw)
    timer.join()
    assert [(u.job_id, u.may_have_run) for u in death.value.unfinished] == [(1, True), (2, False)]
    with pytest.raises(BossDied):
        list(bw.results())


def test_a_death_between_calls_is_noticed_by_the_next(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"seconds": 300})
    wait_for(lambda: bw.stats().running)
    os.kill(bw.boss_pid, signal.SIGKILL)
    with pytest.raises(BossDied):
        wait_for(lambda: bw.get_result_nb() or (bw.add_work({"n": 2}) and False))


def test_threads_that_wait_hear_of_the_death(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work(*[{"seconds": 300}] * 5)
    heard: list[BaseException] = []

    def wait() -> None:
        try:
            bw.get_result()
        except BossDied as error:
            heard.append(error)

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_for(lambda: bw.stats().running)
    os.kill(bw.boss_pid, signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    assert len(heard) == 5


PROGRAM = """
import sys, time
from bossworker import BossWorker
from tests.process.test_deaths import family, nap
from pathlib import Path

if __name__ == "__main__":
    bw = BossWorker(family, worker_count=2, start_method=sys.argv[2])
    bw.add_work({"pids": sys.argv[1]})
    print(bw.boss_pid, *bw.worker_pids, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_the_caller_dies(tmp_path: Path, start_method: str) -> None:
    pids_path = tmp_path / "pids"
    caller = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(pids_path), start_method], stdout=subprocess.PIPE, text=True
    )
    assert caller.stdout is not None
    pids = [int(word) for word in caller.stdout.readline().split()]
    fork_server = processes.children(pids[0])[0]
    pids += [fork_server, *family_pids(pids_path)]
    caller.kill()
    caller.wait()
    caller.stdout.close()
    wait_for(gone(pids), what="everything to be gone")


def test_the_caller_ends_without_shutting_down(tmp_path: Path) -> None:
    program = PROGRAM.replace("time.sleep(300)\n", "").replace(
        "    print", "    while not Path(sys.argv[1]).exists(): time.sleep(.01)\n    print"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "pids"), "fork"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    wait_for(gone([*map(int, done.stdout.split()), *family_pids(tmp_path / "pids")]))


def test_a_forced_shut_down_ends_what_handlers_started(pool: Pool, tmp_path: Path) -> None:
    bw = pool(family, worker_count=1)
    bw.add_work({"pids": str(tmp_path / "pids")})
    pids = family_pids(tmp_path / "pids")
    bw.shut_down(force=True)
    assert not any(map(alive, pids))


def test_an_orderly_shut_down_ends_what_handlers_left(pool: Pool, tmp_path: Path) -> None:
    def leave(job: dict[str, Any]) -> None:
        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        Path(job["pids"]).write_text(str(child.pid))
        child.returncode = 0

    bw = pool(leave, worker_count=1)
    bw.add_work({"pids": str(tmp_path / "pids")})
    bw.shut_down()
    assert not alive(int((tmp_path / "pids").read_text()))


def detach(job: dict[str, Any]) -> dict[str, Any]:
    """Start a daemon, which leaves the session and loses its parent; its pid."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writer, str(os.getpid()).encode())
            os.execvp("sleep", ["sleep", "300"])
        os._exit(0)
    with open(reader) as told:
        os.close(writer)
        return {"worker": os.getpid(), "daemon": int(told.readline())}


def note_detached(job: dict[str, Any]) -> None:
    """Start a daemon, note both pids, and stay deaf to everything if the job says so."""
    Path(job["path"] + ".new").write_text("{worker} {daemon}".format(**detach(job)))
    os.rename(job["path"] + ".new", job["path"])
    if job["stay"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(300)


def noted(path: Path) -> list[int]:
    wait_for(path.exists)
    return list(map(int, path.read_text().split()))


@pytest.mark.parametrize("timeout", [0, 1.0])
def test_what_a_handler_detached_goes_with_its_worker_and_with_no_other(
    pool: Pool, tmp_path: Path, timeout: float
) -> None:
    bw = pool(note_detached, worker_count=2, kill_grace=0.1)
    bw.add_work({"path": str(tmp_path / "bystander"), "stay": False})
    bystander, others = noted(tmp_path / "bystander")
    bw.add_work({"path": str(tmp_path / "other"), "stay": False})
    bw.add_work({"path": str(tmp_path / "victim"), "stay": True}, timeout=timeout)
    worker, daemon = noted(tmp_path / "victim")
    if not timeout:
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not alive(worker) and not alive(daemon), what="both to end")
    if worker != bystander:
        assert alive(others)


def test_what_a_handler_detached_goes_when_its_worker_leaves(pool: Pool, tmp_path: Path) -> None:
    bw = pool(note_detached, worker_count=1, max_jobs_per_worker=1)
    bw.add_work({"path": str(tmp_path / "pids"), "stay": False})
    _, daemon = noted(tmp_path / "pids")
    wait_for(lambda: not alive(daemon), what="the daemon to end")


def test_a_worker_with_too_many_dead_children_is_replaced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossworker.pool.worker.worker.MOST_DEAD", 3)
    monkeypatch.setattr("bossworker.pool.worker.worker.COUNT_SECONDS", 0.0)
    bw = pool(lambda job: subprocess.call("true & true & wait", shell=True) and None, worker_count=1)
    bw.add_work({})
    bw.get_result()
    assert bw.stats().restarts == 0, "those who were waited for do not count"
    bw = pool(lambda job: {"status": subprocess.call("(true &) ; (true &)", shell=True)}, worker_count=1)

    def run_until_replaced() -> int:
        bw.add_work({})
        assert bw.get_result() == {"status": 0}
        return bw.stats().restarts

    wait_for(run_until_replaced)


def test_a_stopped_worker_is_timed_out_and_replaced(pool: Pool) -> None:
    """SIGSTOP at an unlucky moment, maybe with the recorder's lock held, must stop nobody else."""
    bw = pool(nap, worker_count=2, global_timeout=1.0, kill_grace=0.1)
    for _ in range(3):
        bw.add_work(*[{"n": n} for n in range(3000)])
        pid = bw.worker_pids[0]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        results = list(bw.results())
        failed = [(result.error, result.worker_pid, result.duration) for result in results if not result.ok]
        assert len(results) == 3000
        assert len(failed) <= 1, failed
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# -- forks and threads in the caller ---------------------------------------------------------------------------


def in_child(check: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os._exit(0 if check() else 1)
        os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def refuses(call: Callable[[], Any]) -> bool:
    try:
        call()
    except PoolClosed as error:
        return "forked child" in str(error)
    return False


def test_a_handle_in_a_forked_child_refuses_and_harms_nothing(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work(*[{"n": n} for n in range(10)])
    calls: list[Callable[[], Any]] = [
        lambda: bw.add_work({}),
        bw.get_result,
        bw.get_result_nb,
        bw.pending,
        lambda: list(bw.results()),
        lambda: list(bw.map([{}])),
        lambda: bw.cancel(1),
        lambda: bw.resize(2),
        bw.stats,
        bw.fileno,
        lambda: bw.worker_pids,
        bw.shut_down,
        lambda: bw.shut_down(force=True),
    ]
    assert in_child(lambda: all(map(refuses, calls)))
    assert sorted(r["n"] for r in bw.results()) == list(range(10))


def test_a_with_block_left_in_a_forked_child_leaves_the_pool_alone() -> None:
    with BossWorker(nap, worker_count=1) as bw:
        pid = os.fork()
        if pid == 0:
            try:
                bw.__exit__(None, None, None)
                bw.__del__()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        bw.add_work({"n": 5})
        assert bw.get_result() == {"n": 5}


def test_a_forked_child_may_have_a_pool_of_its_own(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)

    def own() -> bool:
        with BossWorker(nap, worker_count=1) as mine:
            mine.add_work({"n": 1})
            return mine.get_result() == {"n": 1}

    assert in_child(own)
    bw.add_work({"n": 2})
    assert bw.get_result() == {"n": 2}


def test_a_child_that_outlives_the_caller_does_not_keep_the_pool(tmp_path: Path) -> None:
    """A forked child holds copies of the caller's descriptors; the boss must see the caller's end all the same."""
    program = textwrap.dedent(
        """
        import os, sys, time
        from bossworker import BossWorker
        from tests.process.test_deaths import nap
        bw = BossWorker(nap, worker_count=1)
        bw.add_work({"seconds": 300})
        child = os.fork()
        if child == 0:
            time.sleep(300)
        print(child, bw.boss_pid, *bw.worker_pids, flush=True)
        os._exit(0)
        """
    )
    output = tmp_path / "out"
    with output.open("w") as file:
        subprocess.run([sys.executable, "-c", program], stdout=file, check=True, timeout=60)
    child, *pids = map(int, output.read_text().split())
    try:
        wait_for(gone(pids))
    finally:
        os.kill(child, signal.SIGKILL)


def test_two_pools_in_one_program(pool: Pool) -> None:
    one, two = pool(nap, worker_count=2), pool(nap, worker_count=2)
    one.add_work(*[{"n": n} for n in range(100)])
    two.add_work(*[{"n": -n} for n in range(100)])
    assert sorted(r["n"] for r in two.results()) == sorted(-n for n in range(100))
    two.shut_down()
    assert sorted(r["n"] for r in one.results()) == list(range(100))


def test_the_death_of_one_pool_is_no_matter_to_another(pool: Pool) -> None:
    one, two = pool(nap, worker_count=1), pool(nap, worker_count=1)
    os.kill(one.boss_pid, signal.SIGKILL)
    two.add_work({"n": 1})
    assert two.get_result() == {"n": 1}
    one.shut_down(force=True)


def test_a_spawned_pool_made_in_a_thread_of_a_threaded_program() -> None:
    stop = threading.Event()
    busy = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in busy:
        thread.start()
    got: list[Any] = []

    def work() -> None:
        with BossWorker(lambda job: {"n": job["n"] + 1}, worker_count=2, start_method="spawn") as bw:
            bw.add_work(*[{"n": n} for n in range(100)])
            got.extend(sorted(r["n"] for r in bw.results()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    stop.set()
    for other in busy:
        other.join()
    assert got == list(range(1, 101))


def test_a_pool_outlives_the_thread_that_made_it(pool: Pool) -> None:
    made: list[BossWorker] = []
    thread = threading.Thread(target=lambda: made.append(pool(nap, worker_count=1, start_method="spawn")))
    thread.start()
    thread.join()
    made[0].add_work({"n": 1})
    assert made[0].get_result() == {"n": 1}


@pytest.mark.parametrize("name", ["work_handler", "init_handler", "exit_handler"])
def test_a_handler_that_cannot_travel_is_named(name: str) -> None:
    lock = threading.Lock()

    def held(*job: Any) -> None:
        lock.locked()

    handlers = {"work_handler": nap, name: held}
    with pytest.raises(TypeError, match=f"{name} must be .*cloudpickle.*held.*cannot pickle '_thread.lock'"):
        BossWorker(**handlers, start_method="spawn")  # type: ignore[arg-type]


def test_spawn_carries_what_main_defines(tmp_path: Path) -> None:
    """Classes and functions of the caller's ``__main__`` are not in the fresh interpreter's: they travel by value."""
    program = textwrap.dedent(
        """
        from bossworker import BossWorker
        class Point:
            def __init__(self, x): self.x = x
        class Odd(Exception): pass
        def handler(job):
            if job["p"].x < 0: raise Odd("negative")
            return {"p": Point(job["p"].x * 2)}
        if __name__ == "__main__":
            with BossWorker(handler, worker_count=1, start_method="spawn") as bw:
                bw.add_work({"p": Point(21)}, {"p": Point(-1)})
                good, bad = sorted(bw.results(), key=lambda r: r.job_id)
                assert type(good["p"]) is Point and good["p"].x == 42, good
                assert bad["ERROR"] == "Odd: negative", bad
                assert isinstance(bad.exception, Odd), bad.exception
            print("fine")
        """
    )
    path = tmp_path / "program.py"
    path.write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


# -- Ctrl-C ----------------------------------------------------------------------------------------------------

PHASES = {
    "start": "bw = BossWorker(nap, worker_count=2, init_handler=lambda: (mark(), time.sleep(300)))",
    "add": "bw = BossWorker(nap, worker_count=2, max_pending=2); mark(); bw.add_work(*[{'seconds': 300}] * 5)",
    "get": "bw = BossWorker(nap, worker_count=2); bw.add_work({'seconds': 300}); mark(); bw.get_result()",
    "map": "bw = BossWorker(nap, worker_count=2); mark(); list(bw.map({'seconds': .001} for _ in iter(int, 1)))",
    "shut_down": "bw = BossWorker(nap, worker_count=2); bw.add_work({'seconds': 300}); mark(); bw.shut_down()",
    "with": """
with BossWorker(nap, worker_count=2) as bw:
    bw.add_work({'seconds': 300})
    mark()
    bw.get_result()""",
}

INTERRUPTED = """
import os, sys, time
from bossworker import BossWorker
from tests.process.test_deaths import nap
def mark():
    os.write(1, b"here\\n")
try:
    exec(sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_reaches_the_caller_alone(phase: str) -> None:
    """SIGINT to the whole process group, as a terminal sends it: the caller hears it, workers print nothing."""
    caller = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, PHASES[phase]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == "here\n"
    time.sleep(0.05)
    os.killpg(caller.pid, signal.SIGINT)
    out, err = caller.communicate(timeout=30)
    assert out.replace("here\n", "") == "interrupted\n"
    assert "Traceback" not in err


INTERRUPTED_WHILE_MADE = """
import os, signal, sys, threading
from bossworker import BossWorker
from bossworker.pool import launch
start_method, where = sys.argv[1:]

def interrupt(*args):
    global interrupted
    if not interrupted:
        interrupted = True
        os.kill(os.getpid(), signal.SIGINT)
    return link(*args)

interrupted, link = where == "fork", launch.Link
if where == "fork":
    os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
launch.Link = interrupt
idle = threading.Event()
threading.Thread(target=idle.wait).start()  # which gets the signal when the main thread does not want it
before = os.listdir("/proc/self/fd")
try:
    BossWorker(lambda job: {}, worker_count=2, start_method=start_method)
except KeyboardInterrupt:
    print("interrupted")
print(os.listdir("/proc/self/fd") == before, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
idle.set()
try:
    print("left:", os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("nothing left")
"""


@pytest.mark.parametrize(("start_method", "where"), [("fork", "fork"), ("fork", "link"), ("spawn", "link")])
def test_ctrl_c_while_a_pool_is_made_leaves_nothing(start_method: str, where: str) -> None:
    fork_warning = "ignore:This process:DeprecationWarning"  # as of 3.12: it has a thread
    command = [sys.executable, "-W", fork_warning, "-c", INTERRUPTED_WHILE_MADE, start_method, where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["interrupted", "True True", "nothing left"]


def test_signals_held_back_are_heard_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with signals.held():
            signal.raise_signal(signal.SIGUSR1)
            assert heard == []
        assert heard == [signal.SIGUSR1]
        with pytest.raises(KeyboardInterrupt), signals.held():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1] * 2


def test_the_pool_works_on_after_ctrl_c(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"n": 1, "seconds": 0.3})
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        bw.get_result()
    timer.join()
    assert bw.get_result() == {"n": 1}
