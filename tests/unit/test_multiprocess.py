"""What we rely on in the private parts of `multiprocessing`: where to look first under a new version of Python."""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.reduction
import multiprocessing.util
import os
import pickle
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bossworker.system import multiprocess
from bossworker.system.multiprocess import Heritage, WorkerIdentity, passing_on


def in_child(check: Callable[[], object]) -> None:
    """Run a check in a forked child; what it raises is printed there, and fails the test here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_process_takes_an_identity() -> None:
    program, key = os.getpid(), multiprocessing.current_process().authkey

    def check() -> None:
        identity = WorkerIdentity("Worker", 6, program)
        identity.take()
        identity.take()
        ours, parent = multiprocessing.current_process(), multiprocessing.parent_process()
        assert (ours.name, ours._identity, ours.pid, ours.authkey) == ("Worker-7", (7,), os.getpid(), key)
        assert parent is not None
        assert (parent.name, parent.pid, parent.is_alive()) == ("MainProcess", program, True)
        assert multiprocessing.active_children() == []
        child = multiprocessing.get_context("fork").Process()
        assert (child.name, child._identity) == ("ForkProcess-7:1", (7, 1))

    in_child(check)
    assert multiprocessing.current_process().name == "MainProcess"


def test_after_a_fork_and_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    class Inherited:
        """What is registered must be collectable."""

    inherited = Inherited()
    multiprocessing.util.register_after_fork(inherited, lambda one: print("forked", flush=True))
    program_s = multiprocessing.util.Finalize(None, print, ("the program's",), exitpriority=1)

    def check() -> None:
        multiprocess.run_after_fork()
        assert not multiprocessing.util._finalizer_registry  # type: ignore[attr-defined]
        multiprocessing.util.Finalize(None, lambda: print("finalized", flush=True), exitpriority=1)
        multiprocess.run_at_exit()
        multiprocess.run_at_exit()

    in_child(check)
    program_s.cancel()
    assert capfd.readouterr().out == "forked\nfinalized\n"


def test_what_the_program_has_is_taken_over() -> None:
    heritage = pickle.loads(pickle.dumps(Heritage("spawn", "Program", (2,), b"key", None)))

    def check() -> None:
        heritage.take_over()
        ours = multiprocessing.current_process()
        assert (ours.name, ours._identity, bytes(ours.authkey)) == ("Program", (2,), b"key")
        assert multiprocessing.get_start_method() == "spawn"
        assert Heritage.of_this_process() == heritage

    in_child(check)


def test_a_start_method_that_is_not_known_here_is_left_out() -> None:
    """As that of loky's processes, in which a pool may be started."""

    def check() -> None:
        before = multiprocessing.get_start_method()
        Heritage("unheard of", "Process-1", (1,), b"key", None).take_over()
        assert multiprocessing.get_start_method() == before

    in_child(check)


def test_what_synchronises_is_pickled_for_a_start_alone() -> None:
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    ours, theirs = socket.socketpair()
    with passing_on() as descriptors:
        file = io.BytesIO()
        pickler = pickle.Pickler(file)
        pickler.dispatch_table = multiprocess.with_reducers({})
        pickler.dump((os.dup(writer.fileno()), writer, ours))
    assert descriptors == [writer.fileno(), ours.fileno()]
    kept, there, sock = pickle.loads(file.getvalue())
    there.send("here")
    assert reader.recv() == "here"
    sock.sendall(b"too")
    assert theirs.recv(10) == b"too"
    os.close(kept)
    for one in (there, sock):
        one.detach() if hasattr(one, "detach") else setattr(one, "_handle", None)
    for end in (reader, writer, ours, theirs):
        end.close()
    with pytest.raises(RuntimeError, match="through inheritance"):
        pickle.dumps(multiprocessing.get_context("fork").Lock())


def test_the_processes_that_it_keeps_for_itself_are_known() -> None:
    def check() -> None:
        from multiprocessing import forkserver, resource_tracker  # here alone: once loaded, it is kept running

        tracker: Any = resource_tracker._resource_tracker
        tracker._pid = tracker._fd = None
        before = multiprocess.server_pids()
        resource_tracker.ensure_running()
        forkserver.ensure_running()
        found = multiprocess.server_pids() - before
        assert len(found) == 2
        for pid in found:
            os.kill(pid, 9)

    in_child(check)
