"""What a child inherits must not keep it from ending, nor bring it back into the program."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bossworker.forkqueue import ForkQueue
from tests.forkqueue.conftest import leaving

PROJECT = str(Path(__file__).parents[2])


def program(text: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. What hangs is killed with all that it has started."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text), *map(str, args)]
    environment = {**os.environ, "PYTHONPATH": PROJECT}
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=environment, start_new_session=True) as started:
        try:
            out, err = started.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)
            raise
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def test_a_stream_that_another_thread_had_locked_holds_no_child_up() -> None:
    """Neither its prints nor the flush at its end; and what the parent had buffered is written by the parent alone."""
    ended = program("""
        import os, sys, threading
        from bossworker.forkqueue import ForkQueue
        out = sys.stdout
        sys.stdout = log = open(os.devnull, "w")
        def noise():
            while True:
                print("x" * 200)
        for _ in range(2):
            threading.Thread(target=noise, daemon=True).start()
        queue = ForkQueue(4)
        pids = [queue.run_back(lambda: print("child") if n % 2 else None) for n in range(100)]
        try:
            told = queue.waitpids(*pids, timeout=30)
        except TimeoutError as error:
            os.write(2, str(error).encode())
            os.killpg(0, 9)
        print({status for _, status in told}, [queue.call(pow, 2, n).result(30) for n in range(10)][-1], file=out)
        os._exit(out.flush() or 0)
    """)
    assert (ended.stdout, ended.stderr) == ("{0} 512\n", "")


@pytest.mark.parametrize("error", ["RuntimeError", "KeyboardInterrupt", "SystemExit"])
def test_a_stream_that_raises_brings_no_child_back_into_the_program(error: str) -> None:
    ended = program(
        """
        import os, sys
        from bossworker.forkqueue import ForkQueue
        main, out = os.getpid(), sys.stdout
        class Tee:
            def write(self, text):
                return len(text)
            def flush(self):
                if os.getpid() != main:
                    raise getattr(__builtins__, sys.argv[1])("the connection belongs to another process")
        sys.stdout = Tee()
        queue = ForkQueue(2)
        try:
            pid = queue.run_back(lambda: sys.exit(3))
            print(queue.waitpids(pid)[0][1] >> 8, queue.call(lambda: "value").result(), file=out)
        finally:
            out.flush()
            os.write(1, b"finally\\n")
        """,
        error,
    )
    assert (ended.stdout, ended.stderr) == ("3 value\nfinally\n", "")


def test_a_signal_right_after_the_fork_brings_no_child_back_into_the_program() -> None:
    """The child's timer fires as soon as it exists; the handler raises."""
    ended = program("""
        import functools, os, signal
        from bossworker.forkqueue import ForkQueue
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        os.register_at_fork(after_in_child=functools.partial(signal.setitimer, signal.ITIMER_REAL, 1e-6))
        main, queue = os.getpid(), ForkQueue(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the children's tracebacks
        for _ in range(50):
            try:
                queue.run_back(lambda: signal.pause())
            finally:
                if os.getpid() != main:
                    os.write(1, b"a child is back\\n")
                    os._exit(9)
        print({queue.wait()[1] >> 8 for _ in range(50)}, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    assert ended.stdout == "{1} set()\n"


def test_a_blocked_signal_stays_blocked_in_the_child() -> None:
    ended = program("""
        import signal, sys
        from bossworker.forkqueue import ForkQueue
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        for fn in (lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), int):
            print(ForkQueue().call(fn).result(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    """)
    assert ended.stdout.count("SIGUSR1") == 3, ended.stderr


def test_what_multiprocessing_keeps_is_renewed_in_a_child() -> None:
    """A proxy and a queue that the parent has used; a large message that is still on its way; its children."""
    ended = program("""
        import multiprocessing, os
        from bossworker.forkqueue import ForkQueue
        context = multiprocessing.get_context("fork")
        with context.Manager() as manager:
            numbers, messages = manager.dict(), context.Queue()
            numbers["parent"] = 0
            messages.put("parent")
            messages.get()
            def work(n):
                for i in range(100):
                    numbers[n, i] = i
                messages.put(bytes([n]) * 3_000_000)
                current, parent = multiprocessing.current_process(), multiprocessing.parent_process()
                return current.name, parent.pid, len(multiprocessing.active_children()), numbers["parent"]
            queue = ForkQueue(4)
            calls = [queue.call(work, n) for n in range(4)]
            for i in range(100):
                numbers["parent", i] = i
            print(sorted(messages.get(timeout=30)[:1] for _ in range(4)))
            names, parents, children, values = zip(*(call.result(30) for call in calls))
            print(names, set(parents) == {os.getpid()}, children, values, len(numbers))
            print(len(multiprocessing.active_children()))
    """)
    names = ("ForkQueue-1", "ForkQueue-2", "ForkQueue-3", "ForkQueue-4")
    assert ended.stdout.splitlines() == [
        f"{[bytes([n]) for n in range(4)]}",
        f"{names} True (0, 0, 0, 0) (0, 0, 0, 0) 501",
        "1",
    ], ended.stderr


def test_a_child_waits_for_its_threads_and_runs_what_it_has_registered() -> None:
    ended = program("""
        import atexit, os, threading, time, weakref
        from concurrent.futures import ThreadPoolExecutor
        from bossworker.forkqueue import ForkQueue
        class Thing: pass
        thing, main = Thing(), os.getpid()
        executor = ThreadPoolExecutor(1)
        executor.submit(int).result()
        atexit.register(lambda: os.write(1, b"atexit of the parent\\n"))
        weakref.finalize(thing, lambda: os.write(1, b"finalizer of the parent\\n"))
        def late(text):
            time.sleep(0.2)
            os.write(1, text)
        def work():
            atexit.register(os.write, 1, b"atexit\\n")
            threading.Thread(target=late, args=(b"thread\\n",)).start()
            ThreadPoolExecutor(1).submit(late, b"executor\\n")
            raise SystemExit(5)
        queue = ForkQueue(2)
        os.write(1, b"%d\\n" % (queue.waitpids(queue.run_back(work))[0][1] >> 8))
        executor.shutdown()
    """)
    lines = ended.stdout.splitlines()
    assert sorted(lines[:2]) == ["executor", "thread"], ended.stderr
    assert lines[2:] == ["atexit", "5", "atexit of the parent", "finalizer of the parent"] or (
        lines[2:] == ["atexit", "5", "finalizer of the parent", "atexit of the parent"]
    )


def test_each_child_has_random_numbers_of_its_own() -> None:
    ended = program("""
        import random
        import numpy as np
        from bossworker.forkqueue import ForkQueue
        np.random.rand()  # loads it, and so seeds it
        queue = ForkQueue(2)
        calls = [queue.call(lambda: (np.random.rand(), random.random())) for _ in range(4)]
        print(*(len(set(numbers)) for numbers in zip(*(call.result(30) for call in calls))))
    """)
    assert ended.stdout == "4 4\n", ended.stderr


@pytest.mark.parametrize("fork", ["queue.fork()", "os.forkpty()[0]"])
def test_a_stream_that_another_thread_had_locked_does_not_keep_a_plain_child_from_leaving(fork: str) -> None:
    """The lock is taken for sure: a thread is in a write to a pipe that nobody reads."""
    ended = program(
        """
        import os, sys, threading, time
        from bossworker.forkqueue import default_queue as queue, install
        install(size=8)
        out, (reader, writer) = sys.stdout, os.pipe()
        def stuck(name):
            setattr(sys, name, open(writer, "w", closefd=False))
            threading.Thread(target=getattr(sys, name).write, args=("x" * 1_000_000,), daemon=True).start()
        stuck("stdout"), stuck("stderr")
        time.sleep(0.2)
        pids = []
        for code in (3, "no number", None):
            pid = eval(sys.argv[1])
            if pid == 0:
                os.dup2(os.open(os.devnull, os.O_WRONLY), writer)  # for what the child itself says
                queue.exit(code)
            pids.append(pid)
        try:
            statuses = queue.waitpids(*pids, timeout=30)
        except TimeoutError as error:
            os.write(2, str(error).encode())
            os.killpg(0, 9)
        print([status >> 8 for _, status in statuses], file=out)
        os._exit(out.flush() or 0)
        """,
        fork,
    )
    assert (ended.stdout, ended.stderr) == ("[3, 1, 0]\n", "")


def test_a_plain_child_writes_what_it_has_printed_though_there_were_threads() -> None:
    ended = program("""
        import threading
        from bossworker.forkqueue import ForkQueue
        done = threading.Event()
        threading.Thread(target=done.wait).start()
        queue = ForkQueue()
        pid = queue.fork()
        if pid == 0:
            print("from the child")
            queue.exit("and what it leaves with")
        print(queue.waitpids(pid)[0][1] >> 8)
        done.set()
    """)
    assert (ended.stdout, ended.stderr) == ("from the child\n1\n", "and what it leaves with\n")


def test_sigpipe_at_its_default_kills_nobody() -> None:
    ended = program("""
        import signal
        from bossworker.forkqueue import ForkQueue
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        queue = ForkQueue(2, debug=True)
        print(queue.all_exit_ok(*(queue.run_back(int) for _ in range(20))), queue.call(int).result())
    """)
    assert ended.stdout == "True 0\n"


@pytest.fixture
def another_thread() -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


def _fork(queue: ForkQueue) -> int:
    pid = queue.fork()
    if pid == 0:
        os._exit(0)
    return pid


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python warns of it from 3.12 on")
@pytest.mark.parametrize("start", [_fork, lambda q: q.run_back(leaving(0)), lambda q: q.call(int).pid])
def test_the_warning_of_a_fork_among_threads_names_the_callers_line(
    start: Callable[[ForkQueue], int], another_thread: None
) -> None:
    queue = ForkQueue()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        pids = [start(queue) for _ in range(2)]
    assert queue.all_exit_ok(*pids)
    assert {(one.category, one.filename, one.lineno) for one in told} == {
        (DeprecationWarning, __file__, start.__code__.co_firstlineno + (start is _fork))
    }
