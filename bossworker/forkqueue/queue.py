"""The queue, as programs use it."""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, Self, TypeVar, overload

from bossworker.forkqueue import calls, child
from bossworker.forkqueue.admission import Admission
from bossworker.forkqueue.calls import Call
from bossworker.forkqueue.child import Argument
from bossworker.forkqueue.children import Child, Children, Started
from bossworker.forkqueue.settings import Settings, check_positive
from bossworker.forkqueue.waits import Waits
from bossworker.system import forking, signals
from bossworker.system.checks import check_count, check_seconds
from bossworker.system.descriptors import nameless_file

T = TypeVar("T")

DEFAULT_SIZE = 4
NOT_FOUND = -1  # for a pid
NO_FD = -1

log = logging.getLogger("bossworker.forkqueue")

_queues: weakref.WeakSet[ForkQueue] = weakref.WeakSet()


class ForkQueue(Settings):
    """Limits how many child processes run at once: ``fork`` waits until there is room.

    >>> queue = ForkQueue(size=4)
    >>> for name in names:
    ...     if queue.fork() == 0:
    ...         work(name)
    ...         queue.exit()
    >>> statuses = [queue.wait() for name in names]

    Args:
        size: How much weight may run at once: with weights of 1, how many children.
        delay: Seconds from one start to the next, at least.
        weight: What a child counts that is started without a weight of its own.
        allow_excess: True: the next child starts as soon as less than `size` runs, however heavy it is itself. False:
            it waits until its own weight fits as well; one that is heavier than `size` runs alone.
        ignore_children: The statuses of children are dropped, as if SIGCHLD were set to SIG_IGN.
        debug: Log each child that starts, ends and is reaped, to ``bossworker.forkqueue``, level INFO; to stderr in a
            program that does not show that.
        trace: Log each call of fork, exit, wait, waitpid and their kin, there too.
        max_load: Start no child beside others unless the load average is below this; 0: no limit.
        min_free_memory: Start no child beside others unless this many bytes are available; 0: no limit.

    The settings are attributes, may be changed while it runs, and are heeded at once.

    Load and memory are asked for as GNU parallel does, at each start; but as with make, one child may always run, so
    that the queue cannot stop for ever over what others do.

    A queue counts the children that it started itself, from their start to their end; a child that somebody else reaps
    counts no longer than it lives. Threads may share a queue: they are served in the order in which they came.
    A forked child, however it was forked, finds the queue empty and its size 1; the other settings are kept.

    A status is handed out once: the queue leaves that to the kernel (see `children.py`) or, where it cannot, keeps the
    status until somebody asks. With SIGCHLD ignored the limits work all the same, but there are no statuses; a warning
    says so.

    ``with ForkQueue(4) as queue:`` waits at the end until all its children have ended. Their statuses can be asked for
    after that, too.

    Source of the behaviour: Proc::Queue. ``call``, the weight of a single child, timeouts, the limits by load and
    memory, and the safety with threads are additions.
    """

    def __init__(
        self,
        size: int = DEFAULT_SIZE,
        *,
        delay: float | None = 0,
        weight: int = 1,
        allow_excess: bool = True,
        ignore_children: bool = False,
        debug: bool = False,
        trace: bool = False,
        max_load: float | None = 0,
        min_free_memory: int | None = 0,
    ) -> None:
        self._children = Children(self._note)
        self._waits = Waits(self._children)
        self._line = Admission(self, self._children)
        self._is_child = False
        super().__init__(
            {
                "size": size,
                "delay": delay,
                "weight": weight,
                "allow_excess": allow_excess,
                "ignore_children": ignore_children,
                "debug": debug,
                "trace": trace,
                "max_load": max_load,
                "min_free_memory": min_free_memory,
            }
        )
        _queues.add(self)

    def __repr__(self) -> str:
        return f"<ForkQueue of size {self.size}, {len(self._children.running())} running>"

    # -- starting ---------------------------------------------------------------------------------------------

    def fork(self, *, weight: int | None = None) -> int:
        """``os.fork()``, when there is room: the child's pid, and 0 in the child. `weight` instead of the setting.

        The child is a copy of this process in all; what `multiprocessing` or NumPy's random numbers need in a process
        of their own, `run_back` and `call` see to.

        OSError as from ``os.fork``; nothing is counted then.
        """
        self._trace_call("fork()")
        return self._enter(weight, _fork)[0].pid

    def fork_now(self, *, weight: int | None = None) -> int:
        """Fork without waiting for room; the child counts all the same. Only `delay` is kept."""
        self._trace_call("fork_now()")
        return self._enter(weight, _fork, at_once=True)[0].pid

    def run_back(self, fn: Callable[[], object], *, weight: int | None = None) -> int:
        """Run a function in a child; the child's pid.

        The child leaves with exit code 0 when it returns; 1 after an exception, with a traceback on stderr; or what it
        gave to ``sys.exit``. It is like a ``multiprocessing.Process``: queues, locks and proxies of that module work in
        it, it has a name (``ForkQueue-3``) and random numbers of its own (``random``, NumPy's global ones); and before
        it leaves, it waits for its threads that are no daemons, and runs what ``atexit`` has registered in it, and
        nothing that the parent has.
        """
        return self._run(fn, weight, at_once=False)

    def run_back_now(self, fn: Callable[[], object], *, weight: int | None = None) -> int:
        """`run_back`, without waiting for room."""
        return self._run(fn, weight, at_once=True)

    def _run(self, fn: Callable[[], object], weight: int | None, at_once: bool) -> int:
        _check_callable(fn)
        self._trace_call("run_back%s(%r)", "_now" * at_once, fn)
        return self._enter(weight, partial(self._fork_to, fn), at_once)[0].pid

    def _fork_to(self, fn: Callable[[], object]) -> Started:
        def run() -> None:
            self._is_child = True
            fn()

        return child.fork_to(run), NO_FD

    def call(self, fn: Callable[..., T], *args: object, weight: int | None = None) -> Call[T]:
        """Call a function in a child, with these arguments, when there is room; a handle to its value.

        What it returns travels back by pickle, or cloudpickle where that is needed; what it raises, too.
        """
        _check_callable(fn)
        self._trace_call("call(%r)", fn)
        with signals.held():  # what raises in between would leave a file that nobody closes
            file = nameless_file("bossworker-call")
            made: Call[T] = Call(self._children, file)
        try:
            made.begin(self._enter(weight, partial(self._fork_to, partial(calls.run, file, fn, args)))[0])
        except BaseException:
            made._close()
            raise
        return made

    def system_back(self, *cmd: Argument, weight: int | None = None) -> int | None:
        """Start a program with arguments (no shell) when there is room; its pid, or None when it is not found.

        Any other failure to run it is an OSError. In neither case is a process left behind.
        """
        return self._system(cmd, weight, at_once=False)

    def system_back_now(self, *cmd: Argument, weight: int | None = None) -> int | None:
        """`system_back`, without waiting for room."""
        return self._system(cmd, weight, at_once=True)

    def _system(self, cmd: tuple[Argument, ...], weight: int | None, at_once: bool) -> int | None:
        self._trace_call("system_back%s%r", "_now" * at_once, cmd)

        def start() -> Started:
            return child.spawn(cmd) or NOT_FOUND, NO_FD

        started, _ = self._enter(weight, start, at_once)
        return None if started.pid == NOT_FOUND else started.pid

    def _enter(self, weight: int | None, start: Callable[[], Started], at_once: bool = False) -> tuple[Child, int]:
        """`start` a child when there is room, or `at_once`; the child, and the descriptor that `start` gave."""
        heavy = self.weight if weight is None else check_positive("weight", weight)
        started, fd = self._line.enter(heavy, start, at_once)
        self._is_child = self._is_child or started.pid == 0
        return started, fd

    # -- waiting ----------------------------------------------------------------------------------------------

    def wait(self) -> tuple[int, int]:
        """The pid and wait status of the next child of this queue that has ended; waits for one if need be.

        ChildProcessError when there is none left. Other children of the process, such as subprocess has them, are not
        touched: their statuses are for those who started them.
        """
        self._trace_call("wait()")
        return self._waits.wait_own()

    def waitpid(self, pid: int, options: int = 0) -> tuple[int, int]:
        """``os.waitpid()``; with -1 for a pid, any child of this queue, as with `wait`."""
        self._trace_call("waitpid(%s, %s)", pid, options)
        return self._waits.wait_own(options) if pid == -1 else self._waits.waitpid(pid, options)

    @overload
    def waitpids(self, *pids: int, timeout: float | None = None) -> list[tuple[int, int | None]]: ...
    @overload
    def waitpids(self, *pids: int | None, timeout: float | None = None) -> list[tuple[int | None, int | None]]: ...
    def waitpids(self, *pids: int | None, timeout: float | None = None) -> Any:
        """Wait until all these children have ended: a list of pid and wait status, in the order of the arguments.

        The status is None for what is not, or no longer, a child of this process. None, which `system_back` returns
        for a program that was not found, gives ``(None, None)``. After `timeout` seconds (None: no limit; 0: do not
        wait) TimeoutError is raised, and no status has been taken.
        """
        started = [check_count("pid", pid, 1) for pid in pids if pid is not None]
        self._trace_call("waitpids(%s)", ", ".join(map(str, pids)))
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        self._waits.until_ended(started, deadline)
        return [(pid, None if pid is None else self._waits.status_of(pid)) for pid in pids]

    def all_exit_ok(self, *pids: int | None, timeout: float | None = None) -> bool:
        """Wait as `waitpids` does; whether all of them left with exit code 0.

        None, which `system_back` returns for a program that was not found, did not.
        """
        return all(status == 0 for _, status in self.waitpids(*pids, timeout=timeout))

    def running_now(self) -> int:
        """How many children of this queue are running, whatever each of them weighs."""
        with self._children.lock:
            self._children.look()
            return len(self._children.running())

    def running_weight(self) -> int:
        """What the running children weigh together; `size` limits this."""
        with self._children.lock:
            self._children.look()
            return self._children.weight()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Wait until all children have ended. They are reaped, their statuses kept for whoever asks."""

        def ready() -> bool | None:
            self._children.look()
            return None if self._children.running() else True

        self._children.until(ready, lambda: None)
        with self._children.lock:
            self._children.reap_zombies()

    # -- leaving ----------------------------------------------------------------------------------------------

    def exit(self, code: int | str | None = 0) -> NoReturn:
        """Leave the process, with what ``sys.exit`` takes.

        In a child that this queue forked: at once, with output buffers emptied, by ``os._exit``; so that nothing the
        parent has on its stack (``finally``, ``with``) or registered to run at its end runs in the child. Elsewhere by
        ``sys.exit``.
        """
        self._trace_call("exit(%r)", code)
        if self._is_child:
            child.leave_as_told(code)
        sys.exit(code)

    # -- inside -------------------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Settings are heeded at once."""
        with self._children.lock:
            # Under the lock, and then all are woken: a thread that has looked by the old settings looks again.
            self._children.ignored = self.ignore_children
            if self.ignore_children:
                self._children.drop_all_kept()
            self._children.wake()

    def _forget_in_child(self) -> None:
        """In a forked child: it has no children, and may have one at a time."""
        self._children.forget_in_child()
        self._line.forget_in_child()
        self._values["size"] = 1
        self._is_child = False

    def _trace_call(self, message: str, *args: object) -> None:
        """Log a call, if that is asked for."""
        if self.trace:
            _tell(message, *args)

    def _note(self, message: str, *args: object) -> None:
        if self.debug:
            _tell(message, *args)


def _tell(message: str, *args: object) -> None:
    """Log it, or write it to stderr in a program that shows no such records: it has asked to see them."""
    if log.isEnabledFor(logging.INFO) and log.hasHandlers():
        log.info("[%d] " + message, os.getpid(), *args)
    elif sys.stderr is not None:
        with suppress(OSError, ValueError, RuntimeError):  # closed; or being written to, under a signal handler
            sys.stderr.write(f"[{os.getpid()}] {message % args}\n")


def _fork() -> Started:
    return child.forked(lambda: (forking.fork(), NO_FD))


def _check_callable(fn: object) -> None:
    if not callable(fn):
        raise TypeError(f"fn must be a callable, not {fn!r}")


def _forget_in_child() -> None:
    for queue in list(_queues):
        queue._forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)
