"""The error table of the contract, and handlers that do their worst: the pool goes on, and other jobs do not notice."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import sys
import threading
import time
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bossworker import CANCELLED, TIMED_OUT, BossWorker, JobFailed, JobTimeout, RemoteError, Result, WorkerStartError
from bossworker.system import processes
from tests.conftest import alive, wait_for

Pool = Callable[..., BossWorker]
DIED = "BossWorkerAsync: worker died"


def run(bw: BossWorker, job: dict[str, Any], **options: Any) -> Result:
    bw.add_work(job, **options)
    result = bw.get_result(timeout=30)
    assert result is not None
    return result


def call(job: dict[str, Any]) -> Any:
    """A handler that does whatever the job says."""
    return job["do"]()


@pytest.fixture
def bw(pool: Pool) -> Iterator[BossWorker]:
    """A pool of one worker, which must still work at the end of the test."""
    bw = pool(call, worker_count=1, kill_grace=0.3)
    yield bw
    assert run(bw, {"do": lambda: {"fine": True}}) == {"fine": True}


class Awkward(Exception):
    """Its class cannot be rebuilt from its args."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raise_it(error: BaseException) -> None:
    raise error


def test_an_exception_becomes_the_error(bw: BossWorker) -> None:
    result = run(bw, {"do": lambda: raise_it(ValueError("rattle"))})
    assert result == {"ERROR": "ValueError: rattle"}
    assert not result.ok
    assert (result.error, result.error_kind) == ("ValueError: rattle", "exception")
    assert isinstance(result.exception, ValueError)
    assert result.traceback is not None
    assert "raise_it" in result.traceback
    with pytest.raises(JobFailed, match="rattle") as caught:
        result.raise_for_error()
    assert caught.value.result is result
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_chain_of_causes_comes_along(bw: BossWorker) -> None:
    def chained() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    exception = run(bw, {"do": chained}).exception
    assert isinstance(exception, ValueError)
    assert isinstance(exception.__cause__, KeyError)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Awkward(1, 2), "Awkward: 1 and 2"),
        (Mute, "Mute: <its __str__ raised RuntimeError>"),
        (lambda: SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt, "KeyboardInterrupt"),
        (lambda: GeneratorExit("x"), "GeneratorExit: x"),
        (MemoryError, "MemoryError"),
        (lambda: ValueError("ü" * 100_000), "ValueError: " + "ü" * 100_000),
        (lambda: ValueError("\udc80"), "ValueError: \udc80"),
    ],
)
def test_no_exception_can_harm_the_pool(bw: BossWorker, make: Callable[[], BaseException], text: str) -> None:
    result = run(bw, {"do": lambda: raise_it(make())})
    assert result["ERROR"] == text
    assert result.error_kind == "exception"
    assert isinstance(result.exception, BaseException)


def test_an_exception_that_does_not_rebuild_becomes_a_remote_error(bw: BossWorker) -> None:
    exception = run(bw, {"do": lambda: raise_it(Awkward(1, 2))}).exception
    assert isinstance(exception, RemoteError)
    assert str(exception) == "Awkward: 1 and 2"
    assert "raise_it" in exception.traceback


def test_sys_exit_is_an_exception_like_any_other(bw: BossWorker) -> None:
    pids = bw.worker_pids
    assert run(bw, {"do": lambda: sys.exit("done")})["ERROR"] == "SystemExit: done"
    assert bw.worker_pids == pids


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        (lambda: os._exit(3), "(exit code 3)"),
        (lambda: os._exit(0), "(exit code 0)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "(signal 9, SIGKILL)"),
        (lambda: os.kill(os.getpid(), signal.SIGALRM), "(signal 14, SIGALRM)"),
        (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3), f"(signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_a_dead_worker_costs_its_job(bw: BossWorker, deed: Callable[[], Any], how: str) -> None:
    before = bw.worker_pids
    result = run(bw, {"do": deed})
    assert str(result["ERROR"]).startswith(f"{DIED} {how}")
    assert result.error_kind == "crash"
    assert (result.worker_pid,) == before
    assert isinstance(result.exception, RemoteError)
    assert wait_for(lambda: bw.worker_pids) != before
    assert bw.stats().restarts == 1


def test_a_kill_for_want_of_memory_is_told_as_such(monkeypatch: pytest.MonkeyPatch, pool: Pool, tmp_path: Path) -> None:
    """The kernel counts the processes that it kills for that; here, a file takes the counters' place."""
    counter = tmp_path / "counter"
    counter.write_text("7")
    monkeypatch.setattr(processes, "oom_kills", lambda: int(counter.read_text()))
    bw = pool(call, worker_count=1, start_method="fork")  # the boss has to see it, too
    killed = {"do": lambda: os.kill(os.getpid(), signal.SIGKILL)}
    assert run(bw, killed)["ERROR"] == f"{DIED} (signal 9, SIGKILL)"
    counter.write_text("8")
    assert run(bw, killed)["ERROR"] == f"{DIED} (signal 9, SIGKILL), likely out of memory"
    assert run(bw, killed)["ERROR"] == f"{DIED} (signal 9, SIGKILL)"


def test_the_kernels_counters_are_found() -> None:
    vmstat = Path("/proc/vmstat")
    if not vmstat.exists() or "oom_kill " not in vmstat.read_text():
        pytest.skip("this kernel does not count")
    assert processes.oom_kills() >= int(vmstat.read_text().partition("oom_kill ")[2].split()[0])


def test_a_segfault_costs_its_job(bw: BossWorker) -> None:
    def crash() -> None:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        ctypes.string_at(0)

    assert run(bw, {"do": crash})["ERROR"] == f"{DIED} (signal 11, SIGSEGV)"


def test_running_out_of_memory_is_an_error(bw: BossWorker) -> None:
    def gorge() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
        try:
            bytearray(1 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    assert run(bw, {"do": gorge}).error_kind == "exception"


@pytest.mark.parametrize(
    ("value", "text"),
    [(5, "an int"), ("text", "a str"), ([("a", 1)], "a list"), (..., "an ellipsis"), ({1}, "a set")],
)
def test_a_result_must_be_a_mapping(bw: BossWorker, value: Any, text: str) -> None:
    result = run(bw, {"do": lambda: value})
    assert f"returned {text}, not a mapping" in result["ERROR"]
    assert result.error_kind == "bad_result"


def test_generators_and_locks_are_bad_results(bw: BossWorker) -> None:
    assert "a generator" in run(bw, {"do": lambda: (n for n in range(0))})["ERROR"]
    result = run(bw, {"do": lambda: {"fine": 1, "guard": threading.Lock()}})
    assert result.error_kind == "bad_result"
    assert "'guard'" in result["ERROR"]
    assert "lock" in result["ERROR"]


class Broken(UserDict[str, int]):
    def __iter__(self) -> Iterator[str]:
        raise OSError("torn")


class Leaving:
    def __reduce__(self) -> NoReturn:
        sys.exit(3)


def test_a_mapping_that_cannot_be_read_or_pickled_is_a_bad_result_whatever_it_raises(bw: BossWorker) -> None:
    result = run(bw, {"do": lambda: Broken(a=1)})
    assert result.error_kind == "bad_result"
    assert result.error == "BossWorkerAsync: the handler returned a Broken that cannot be read: OSError: torn"
    result = run(bw, {"do": lambda: {"good": 1, "bad": Leaving()}})
    assert result.error_kind == "bad_result"
    told = "key 'bad' holds Leaving (SystemExit: 3)"
    assert result.error == f"BossWorkerAsync: the handler returned a dict that cannot be pickled: {told}"


class Poison:
    """Pickles well, and does harm when it is loaded in a worker."""

    def __init__(self, deed: str) -> None:
        self.deed = deed

    def __reduce__(self) -> tuple[Any, ...]:
        return spring, (self.deed, os.getpid())


def spring(deed: str, caller: int) -> str:
    if os.getpid() != caller:
        if deed == "exit":
            os._exit(5)
        if deed == "hang":
            time.sleep(60)
        raise OSError("poisoned")
    return deed


def test_a_job_that_cannot_be_rebuilt_is_a_bad_job(bw: BossWorker) -> None:
    result = run(bw, {"do": None, "poison": Poison("raise")})
    assert result.error_kind == "bad_job"
    assert "could not be rebuilt" in result["ERROR"]
    assert "OSError: poisoned" in result["ERROR"]


def test_a_job_that_kills_or_hangs_while_it_is_rebuilt(bw: BossWorker) -> None:
    assert run(bw, {"do": None, "poison": Poison("exit")})["ERROR"] == f"{DIED} (exit code 5)"
    assert run(bw, {"do": None, "poison": Poison("hang")}, timeout=0.2).error_kind == "timeout"


def test_poison_harms_no_neighbour(bw: BossWorker) -> None:
    fine = [{"do": dict, "n": n} for n in range(200)]
    bw.add_work(*fine[:100], {"do": None, "poison": Poison("exit")}, *fine[100:])
    kinds = [result.error_kind for result in bw.results()]
    assert sorted(map(str, kinds)) == ["None"] * 200 + ["crash"]


def test_an_error_of_the_handlers_own_is_reported(bw: BossWorker) -> None:
    result = run(bw, {"do": lambda: {"ERROR": "no luck", "more": 1}})
    assert result == {"ERROR": "no luck", "more": 1}
    assert not result.ok
    assert (result.error, result.error_kind) == ("no luck", "reported")
    assert bw.stats().failed == 1


# -- timeouts --------------------------------------------------------------------------------------------------


def test_a_job_that_outruns_its_time_is_stopped(pool: Pool) -> None:
    bw = pool(call, worker_count=1, global_timeout=0.2)
    before = bw.worker_pids
    result = run(bw, {"do": lambda: time.sleep(60)})
    assert result["ERROR"] == TIMED_OUT == "BossWorkerAsync: timed out"
    assert result.error_kind == "timeout"
    assert isinstance(result.exception, JobTimeout)
    assert 0.2 <= result.duration < 2
    assert bw.worker_pids == before


def swallow() -> None:
    while True:
        with suppress(BaseException):
            time.sleep(60)


def block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(60)


@pytest.mark.parametrize("stubborn", [swallow, block_signals])
def test_a_handler_that_does_not_stop_is_killed(bw: BossWorker, stubborn: Callable[[], Any]) -> None:
    before = bw.worker_pids
    result = run(bw, {"do": stubborn}, timeout=0.1)
    assert result["ERROR"] == TIMED_OUT
    assert result.duration >= 0.4
    assert wait_for(lambda: bw.worker_pids) != before


def test_a_handler_may_tidy_up_or_answer_after_its_time(bw: BossWorker) -> None:
    def answer() -> dict[str, Any]:
        try:
            time.sleep(60)
        except JobTimeout:
            return {"late": True}
        return {}

    result = run(bw, {"do": answer}, timeout=0.1)
    assert result == {"late": True}
    assert result.ok


def test_jobtimeout_is_no_exception_to_be_swallowed(bw: BossWorker) -> None:
    def careless() -> dict[str, Any]:
        with suppress(Exception):
            time.sleep(60)
        return {}

    assert run(bw, {"do": careless}, timeout=0.1).error_kind == "timeout"


def test_the_time_of_a_job_is_its_own(bw: BossWorker) -> None:
    """Waiting in the queue does not count, and a limit of the job's own beats the pool's, also to say: none."""
    bw.add_work(*[{"do": lambda: time.sleep(0.4)} for _ in range(4)], timeout=1.4)
    assert [r.error_kind for r in bw.results()] == [None] * 4


def test_a_job_may_lift_the_pools_limit(pool: Pool) -> None:
    bw = pool(call, worker_count=1, global_timeout=0.1)
    assert run(bw, {"do": lambda: time.sleep(0.3)}, timeout=0).ok
    assert run(bw, {"do": lambda: time.sleep(30)}).error_kind == "timeout"


def test_a_timeout_costs_no_other_job_its_result(pool: Pool) -> None:
    bw = pool(call, worker_count=2, global_timeout=1.0, kill_grace=0.1)
    jobs = [{"do": swallow if n % 200 == 50 else dict} for n in range(600)]
    bw.add_work(*jobs)
    kinds = [result.error_kind for result in bw.results()]
    assert kinds.count("timeout") == 3
    assert kinds.count(None) == 597


def test_time_is_up_for_children_of_the_handler_too(bw: BossWorker, tmp_path: Path) -> None:
    def family() -> None:
        import subprocess

        child = subprocess.Popen(["sleep", "100"])
        free = subprocess.Popen(["sleep", "100"], start_new_session=True)
        (tmp_path / "pids").write_text(f"{child.pid} {free.pid}")
        swallow()

    assert run(bw, {"do": family}, timeout=0.3).error_kind == "timeout"
    pids = map(int, (tmp_path / "pids").read_text().split())
    wait_for(lambda: not any(map(alive, pids)), what="the handler's children to be gone")


# -- handlers that meddle --------------------------------------------------------------------------------------


def close_everything() -> dict[str, Any]:
    os.closerange(3, 4096)
    return {"closed": True}


def test_a_handler_that_closes_every_descriptor_still_has_a_result(bw: BossWorker) -> None:
    assert run(bw, {"do": close_everything}) == {"closed": True}


def test_a_handler_that_forks_itself_is_answered_once(bw: BossWorker) -> None:
    def double() -> dict[str, Any]:
        return {"child": os.fork() == 0}

    for _ in range(20):
        assert run(bw, {"do": double}) == {"child": False}
    assert bw.pending() == 0


def test_a_child_of_a_handler_that_raises_answers_nothing(bw: BossWorker) -> None:
    def double() -> dict[str, Any]:
        if os.fork() == 0:
            raise ValueError("child")
        return {}

    assert run(bw, {"do": double}) == {}


def test_an_alarm_that_a_handler_forgot_does_not_hit_the_next_job(bw: BossWorker) -> None:
    before = bw.worker_pids
    run(bw, {"do": lambda: signal.alarm(1) and None})
    assert run(bw, {"do": lambda: time.sleep(1.2)}).ok
    assert bw.worker_pids == before


def test_signals_blocked_by_one_job_are_open_for_the_next(bw: BossWorker) -> None:
    before = bw.worker_pids
    run(bw, {"do": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()) and None})
    assert run(bw, {"do": lambda: time.sleep(60)}, timeout=0.1).error_kind == "timeout"
    assert bw.worker_pids == before


def test_a_handler_that_moves_away_harms_nothing(bw: BossWorker, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def move() -> None:
        os.chdir(gone)
        gone.rmdir()

    assert run(bw, {"do": move}).ok


def test_a_flood_on_stderr_is_no_matter(capfd: pytest.CaptureFixture[str], pool: Pool) -> None:
    bw = pool(call, worker_count=1)
    assert run(bw, {"do": lambda: os.write(2, b"x" * 60_000) and None}).ok
    for _ in range(20):
        run(bw, {"do": lambda: print("y" * 10_000, file=sys.stderr)})
    assert len(capfd.readouterr().err) >= 250_000


def test_what_a_handler_prints_appears_once(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")  # still in the caller's buffer when the pool forks
    with BossWorker(call, worker_count=2) as bw:
        assert run(bw, {"do": lambda: print("printed")}).ok
    out = capfd.readouterr().out
    assert out.count("printed") == out.count("before") == 1


def test_workers_read_nothing_from_stdin(bw: BossWorker) -> None:
    result = run(bw, {"do": lambda: {"read": sys.stdin.read(), "raw": os.read(0, 10)}})
    assert result == {"read": "", "raw": b""}


def test_two_hundred_megabytes_come_back_whole(bw: BossWorker) -> None:
    def large() -> dict[str, Any]:
        return {"data": bytes(range(256)) * (200 << 12)}

    data = run(bw, {"do": large}, timeout=30)["data"]
    assert len(data) == 200 << 20
    assert data[:512] == bytes(range(256)) * 2
    assert data[-256:] == bytes(range(256))


def test_garbage_in_the_workers_socket_ends_that_worker_only(bw: BossWorker) -> None:
    def scribble() -> None:
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), b"garbage" * 1000)
        time.sleep(60)

    assert run(bw, {"do": scribble}).error_kind == "crash"


def test_a_pool_inside_a_handler(bw: BossWorker) -> None:
    def nested() -> dict[str, Any]:
        with BossWorker(call, worker_count=2) as inner:
            inner.add_work(*[{"do": lambda n=n: {"n": n}} for n in range(50)])
            return {"sum": sum(result["n"] for result in inner.results())}

    assert run(bw, {"do": nested}) == {"sum": 1225}


def test_multiprocessing_inside_a_handler(bw: BossWorker) -> None:
    def nested() -> dict[str, Any]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as inner:
            return {"sum": sum(inner.map(abs, range(-10, 0)))}

    assert run(bw, {"do": nested}) == {"sum": 55}


# -- retries ---------------------------------------------------------------------------------------------------


def die_until(path: Path, times: int) -> dict[str, Any]:
    with open(path, "a") as file:
        file.write("x")
    count = len(path.read_text())
    if count <= times:
        os._exit(9)
    return {"count": count}


def test_a_job_whose_worker_died_is_tried_again(pool: Pool, tmp_path: Path) -> None:
    bw = pool(call, worker_count=2, retries=3)
    result = run(bw, {"do": lambda: die_until(tmp_path / "a", 3)})
    assert result == {"count": 4}
    assert result.attempts == 4
    result = run(bw, {"do": lambda: die_until(tmp_path / "b", 99)}, retries=1)
    assert result.error_kind == "crash"
    assert result.attempts == 2
    assert (tmp_path / "b").read_text() == "xx"


def test_without_retries_a_job_runs_once(bw: BossWorker, tmp_path: Path) -> None:
    result = run(bw, {"do": lambda: die_until(tmp_path / "a", 99)})
    assert (result.error_kind, result.attempts) == ("crash", 1)
    assert (tmp_path / "a").read_text() == "x"


def test_exceptions_and_timeouts_are_not_retried(pool: Pool) -> None:
    bw = pool(call, worker_count=1, retries=5)
    assert run(bw, {"do": lambda: raise_it(ValueError())}).attempts == 1
    assert run(bw, {"do": lambda: time.sleep(60)}, timeout=0.1).attempts == 1


# -- cancel ----------------------------------------------------------------------------------------------------


def test_cancelled_jobs_yield_one_result_each(pool: Pool, tmp_path: Path) -> None:
    bw = pool(call, worker_count=1, kill_grace=0.3)
    started = tmp_path / "started"

    def hang() -> None:
        started.touch()
        time.sleep(60)

    running = bw.add_work({"do": hang})
    queued = bw.add_work(*[{"do": dict} for _ in range(5)])
    wait_for(started.exists)
    assert bw.cancel(*running, *queued[1:3], 999_999) == 3
    assert bw.cancel(*running) == 0
    results = {result.job_id: result for result in bw.results()}
    assert len(results) == 6
    for job_id in (*running, *queued[1:3]):
        assert results[job_id]["ERROR"] == CANCELLED == "BossWorkerAsync: cancelled"
        assert results[job_id].error_kind == "cancelled"
    assert results[queued[1]].attempts == 0
    assert results[queued[0]].ok


def test_a_stubborn_job_is_cancelled_by_force(bw: BossWorker) -> None:
    ids = bw.add_work({"do": swallow})
    wait_for(lambda: bw.stats().running)
    assert bw.cancel(*ids) == 1
    result = bw.get_result(timeout=20)
    assert result is not None
    assert result.error_kind == "cancelled"


def test_a_cancelled_job_that_answers_all_the_same_is_cancelled(bw: BossWorker) -> None:
    def answer() -> dict[str, Any]:
        with suppress(JobTimeout):
            time.sleep(60)
        return {"late": True}

    ids = bw.add_work({"do": answer})
    wait_for(lambda: bw.stats().running)
    assert bw.cancel(*ids) == 1
    assert bw.get_result(timeout=20) == {"ERROR": CANCELLED}


def test_finished_jobs_cannot_be_cancelled(bw: BossWorker) -> None:
    ids = bw.add_work({"do": dict})
    wait_for(lambda: bw.stats().done)
    assert bw.cancel(*ids) == 0
    assert bw.get_result() == {}


@pytest.mark.parametrize("bad", ["1", 1.0, None, -1, True])
def test_cancel_takes_ids(bw: BossWorker, bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="job id"):
        bw.cancel(bad)


# -- init and exit handlers ------------------------------------------------------------------------------------


def test_init_and_exit_handlers_run_once_in_each_worker(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def note(what: str) -> None:
        with open(log, "a") as file:
            file.write(f"{what} {os.getpid()}\n")

    with BossWorker(call, worker_count=3, init_handler=lambda: note("init"), exit_handler=lambda: note("exit")) as bw:
        pids = sorted(bw.worker_pids)
        bw.add_work(*[{"do": dict}] * 20)
    lines = log.read_text().split("\n")[:-1]
    assert sorted(lines) == sorted(f"{what} {pid}" for what in ("init", "exit") for pid in pids)


def test_an_exit_handler_that_raises_is_told_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    bw = BossWorker(call, worker_count=1, exit_handler=lambda: raise_it(ValueError("at the end")))
    with pytest.warns(RuntimeWarning, match="exit_handler raised in one worker: ValueError: at the end"):
        bw.shut_down()
    assert "ValueError: at the end" in capfd.readouterr().err


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_an_init_handler_that_fails_is_told_at_once(start_method: Any) -> None:
    with pytest.raises(WorkerStartError, match=r"(?s)ValueError: no database.*Traceback.*raise_it"):
        BossWorker(call, init_handler=lambda: raise_it(ValueError("no database")), start_method=start_method)


def test_an_init_handler_that_kills_its_worker_is_told_at_once() -> None:
    with pytest.raises(WorkerStartError, match=r"died before it was up.*exit code 4"):
        BossWorker(call, init_handler=lambda: os._exit(4))


def test_an_init_handler_that_fails_once_in_a_replacement(pool: Pool, tmp_path: Path) -> None:
    flag = tmp_path / "fail"

    def init() -> None:
        if flag.exists():
            flag.unlink()
            raise ValueError("once")

    bw = pool(call, worker_count=1, init_handler=init)
    flag.touch()
    assert run(bw, {"do": lambda: os._exit(1)}).error_kind == "crash"
    assert run(bw, {"do": lambda: {"fine": 1}}) == {"fine": 1}
    assert not flag.exists()
