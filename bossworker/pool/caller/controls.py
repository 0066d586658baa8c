"""What can be asked of a pool as a whole, while it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from bossworker.errors import PoolClosed, WorkerStartError
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.options import Handlers, check_workers, handler_name
from bossworker.pool.reloading import LoadedModules, pack_renewed
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind
from bossworker.system.checks import check_callable, check_count

if TYPE_CHECKING:
    from bossworker.pool.caller.operating import Operator

Handler = Callable[[], object] | None


class PoolControls:
    """The part of a `BossWorker` that does so."""

    name: Any  # what the pool is called
    _state: HandleState
    _connection: Connection
    _outbox: Outbox
    _current_handlers: Handlers
    _loaded: LoadedModules | None  # what workers have from a fork

    def _ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def operator(self) -> Operator:
        """What watches and steers all of the pool, whoever has added its jobs: for pages, and tools like them."""
        from bossworker.pool.caller.operating import Operator  # whose classes take long to make

        return Operator(self.name, self._ask_operator)

    def _ask_operator(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._state.check_owner()
        if self._state.ended:
            raise PoolClosed("the pool has been shut down")
        return self._ask(Kind.OPERATE, b"", [json.dumps(request).encode()])

    def resize(self, n: int) -> None:
        """Change the number of workers. Surplus workers leave when they have finished their job."""
        check_workers("n", n)
        self._state.check_open()
        self._ask(Kind.RESIZE, messages.COUNT.pack(n))

    def pause(self) -> None:
        """Start no new job from now on; those that run go on. ``stats().paused`` tells.

        Jobs may be added and cancelled meanwhile. ``resume`` ends it, and so does ``shut_down``, which sees to what is
        queued.
        """
        self._pause(True)

    def resume(self) -> None:
        """Start jobs again. Does nothing to a pool that is not paused."""
        self._pause(False)

    def _pause(self, on: bool) -> None:
        self._state.check_open()
        self._ask(Kind.PAUSE, messages.SWITCH.pack(on))

    def stack(self, job_id: int | None = None) -> str:
        """What a job is doing: the Python stack of its worker, also while C code keeps the interpreter's lock.

        Below that are the processes that the worker has started, a command's above all, with states and arguments. The
        worker is not stopped for it, and neither a debugger nor its rights are needed (Linux).

        Args:
            job_id: None: of all workers, also of those in an ``init_handler``.

        Returns:
            Text, the innermost call first. Empty for a job that does not run now.
        """
        request = stack_request(job_id)
        self._state.check_owner()
        text: str = self._ask(Kind.STACK, request)["text"]
        return text

    def reload(
        self,
        work_handler: Callable[[Any], Mapping[Any, Any] | None] | None = None,
        *,
        init_handler: Handler | EllipsisType = ...,
        exit_handler: Handler | EllipsisType = ...,
    ) -> None:
        """Replace the workers by such with these handlers, one by one; return when the first of them is up.

        No job is lost, none is interrupted, and none that is added from then on runs with the old handlers: a worker
        is replaced when it is through with the job that it is in. One is replaced first. Only if it comes up, the
        others follow; so this waits for a worker that is idle, and for the new ``init_handler``.

        In a notebook: run the cell with the function again, then ``pool.reload(function)``. The handlers travel to the
        workers by cloudpickle, with what they use of ``__main__``, also with ``start_method="fork"``. Modules that this
        program has reloaded (``importlib.reload``) since it made the pool are reloaded in the new workers.

        Args:
            work_handler: None: the same as before, taken anew.
            init_handler, exit_handler: If left out, the same as before; None: none.

        Raises:
            TypeError: A handler is no callable, or cannot be pickled.
            WorkerStartError: The first new worker did not come up; the text holds the reason, with the worker's
                traceback. The pool goes on with the handlers that it had.
            PoolClosed, BossDied: The pool has ended.
        """
        handlers = self._other_handlers(work_handler, init_handler, exit_handler)
        self._state.check_open()
        name = handler_name(handlers.work).encode()
        answer = self._ask(Kind.RELOAD, name, [pack_renewed(handlers, self._loaded)])
        self._take_over(handlers, answer)

    def _other_handlers(
        self, work: Callable[[Any], Any] | None, init: Handler | EllipsisType, exit: Handler | EllipsisType
    ) -> Handlers:
        old = self._current_handlers
        check_callable("work_handler", work)
        for name, handler in (("init_handler", init), ("exit_handler", exit)):
            if handler is not ...:
                check_callable(name, handler)
        return Handlers(work or old.work, old.init if init is ... else init, old.exit if exit is ... else exit)

    def _take_over(self, handlers: Handlers, answer: Mapping[str, Any]) -> None:
        """After a reload: what the boss says of it."""
        if answer["error"]:
            raise WorkerStartError(f"the pool goes on with its old handlers, since with the new ones {answer['error']}")
        self._current_handlers = handlers
        self._outbox.prepare = prepare_of(handlers)


def stack_request(job_id: int | None) -> bytes:
    """What goes with a request for stacks; None: for all."""
    if job_id is not None:
        check_count("job_id", job_id, most=(1 << 63) - 1)
    return messages.JOB.pack(messages.EVERY_JOB if job_id is None else job_id)


def prepare_of(handlers: Handlers) -> Callable[[Any], Any] | None:
    """What a handler wants done to each job where it is added."""
    prepare: Callable[[Any], Any] | None = getattr(handlers.work, "prepare_job", None)
    return prepare
