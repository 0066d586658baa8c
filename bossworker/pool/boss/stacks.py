"""What workers are doing, for people: their Python stacks, and the processes below them.

A worker that is asked for its stack by a signal writes it to a file (``worker/stack_file.py``), which takes it some
hundred microseconds. The boss does not wait for that: it looks now and again whether the signal handler is through.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.replying import Reply
from bossworker.pool.boss.workers import State, WorkerRecord
from bossworker.pool.wire.messages import EVERY_JOB, ProtocolError
from bossworker.pool.wire.recorder import STACK_FD, STACK_FILE, Recorder
from bossworker.system import proc, process_tree
from bossworker.system.signals import SHOW_STACK

LOOK_SECONDS = 0.001  # between looks whether a stack is there
DUMP_SECONDS = 1.0  # after that, whatever is there is told: the worker may be stopped
MOST_BYTES = 1 << 18  # of a stack; faulthandler writes a hundred frames of a hundred threads at most
_OUR_FILES = "job_runner", "plain_jobs", "python_loop", "worker"  # whose frames lie below a handler's
OWN_FRAMES = tuple(f'/bossworker/pool/worker/{name}.py"' for name in _OUR_FILES)


def jobs_meant(job_id: int | None) -> range | None:
    """The jobs whose stacks are asked for by an id; None: of all workers."""
    return None if job_id is None or job_id == EVERY_JOB else range(job_id, job_id + 1)


class _Dump:
    """One worker's stack, which it has been asked for."""

    def __init__(self, worker: WorkerRecord, recorder: Recorder, title: str) -> None:
        self.pid = worker.pid
        self.title = title
        self.trouble = ""
        self.until = time.monotonic() + DUMP_SECONDS
        self._file: int | None = None
        self._ask_for = worker.state is not State.IDLE and self._open(recorder)

    def _open(self, recorder: Recorder) -> bool:
        """Whether the worker can be asked. What a handler may have closed, or reset, is looked at before."""
        path = f"{proc.ROOT}/{self.pid}/fd/{recorder.words[STACK_FD]}"
        try:
            # A handler may still close the file, or reset the signal, between this look and the signal itself. The file
            # is open here by then; the signal would end the worker, and its job with it: to look is all that can be
            # done.
            if not os.readlink(path).startswith(f"/memfd:{STACK_FILE}") or not self._is_caught():
                raise FileNotFoundError
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            os.ftruncate(self._file, 0)
        except OSError as error:
            self.trouble = f"its stack cannot be had: {error.strerror or 'a handler has closed what it is written to'}"
            return False
        return True

    def _is_caught(self) -> bool:
        """Or the signal would end the worker."""
        return _has_signal(f"{self.pid}/status", b"SigCgt:")

    @property
    def asks(self) -> bool:
        """Whether the worker is to be sent the signal."""
        return self._ask_for

    def is_through(self) -> bool:
        """Whether all is written: something is, and the handler has ended, which has its signal blocked meanwhile."""
        if self._file is None:
            return True
        if not os.fstat(self._file).st_size:
            # Nothing is there yet: the signal may not have been delivered. The handler's own end is only asked for once
            # it has begun to write.
            return proc.state_and_start(self.pid)[0] in "XZ"  # it has ended meanwhile
        threads = proc.names(f"{self.pid}/task")
        return not any(_has_signal(f"{self.pid}/task/{thread}/status", b"SigBlk:") for thread in threads)

    def text(self) -> str:
        """All that is known; to be asked for once."""
        lines = [self.title]
        if self._file is not None:
            written = os.pread(self._file, MOST_BYTES, 0)
            os.close(self._file)
            lines += _without_own(written.decode("utf-8", "replace"))
            if not written:
                state, _ = proc.state_and_start(self.pid)
                self.trouble = f"it does not answer ({process_tree.STATES.get(state, 'gone')})"
        if self.trouble:
            lines.append(self.trouble)
        below = process_tree.describe_below(self.pid)
        return "\n".join([*lines, *(("processes below it:", *(f"  {line}" for line in below)) if below else ())])


def _has_signal(path: str, mask: bytes) -> bool:
    """Whether a mask in a status file of /proc has SHOW_STACK in it."""
    _, _, rest = proc.read(path).partition(mask)
    try:
        return bool(int(rest.split(maxsplit=1)[0], 16) >> (SHOW_STACK or 1) - 1 & 1)
    except (IndexError, ValueError):
        return False


def _without_own(text: str) -> list[str]:
    """Lines of a dump, less the frames of ours that lie below those of a handler."""
    lines: list[str] = []
    ours = False
    for line in text.splitlines():
        ours = line.startswith("  ") and (ours or any(one in line for one in OWN_FRAMES))
        if not ours:
            lines.append(line)
    return lines


class StackRequests:
    """Requests for stacks that are not answered yet. `signal` sends a worker's process a signal."""

    def __init__(
        self,
        ledger: Ledger,
        recorders: Mapping[int, Recorder],
        signal: Callable[[int, int], None],
        reply: Reply,
        chores: list[Chore],
    ) -> None:
        self._ledger = ledger
        self._recorders = recorders
        self._signal = signal
        self._reply = reply
        self._chores = chores  # we are among them while something is asked for
        self._requests: list[tuple[int, Reply, list[_Dump]]] = []

    def ask(self, number: int, jobs: range | None, reply: Reply | None = None) -> None:
        """Request `number`: stacks of workers that run one of these jobs, or of all. `reply`: if not to the caller."""
        dumps: list[_Dump] = []
        for worker in sorted(self._ledger.workers.values(), key=lambda worker: worker.index):
            running, seconds = self._running(worker)
            if worker.pid and (jobs is None or (running is not None and running in jobs)):
                dumps.append(self._begin(worker, _title(worker, running, seconds)))
        if not self._requests:
            self._chores.append(self)
        self._requests.append((number, reply or self._reply, dumps))
        self.attend(time.monotonic())

    def _running(self, worker: WorkerRecord) -> tuple[int | None, float]:
        """The job that it runs, and for how long."""
        with suppress(ProtocolError):  # then the worker is about to be ended
            snapshot = self._recorders[worker.slot].snapshot() if worker.batch is not None else None
            if worker.batch is not None and snapshot is not None and snapshot.running:
                return worker.batch.first_id + snapshot.claimed - 1, time.monotonic() - snapshot.started
        return None, 0.0

    def _begin(self, worker: WorkerRecord, title: str) -> _Dump:
        dump = _Dump(worker, self._recorders[worker.slot], title)
        if dump.asks and SHOW_STACK is not None:
            self._signal(worker.slot, SHOW_STACK)
        return dump

    def seconds_until_due(self, now: float) -> float | None:
        return LOOK_SECONDS

    def attend(self, now: float) -> None:
        """Answer what can be answered."""
        for request in list(self._requests):
            number, reply, dumps = request
            if all(dump.is_through() or now >= dump.until for dump in dumps):
                self._requests.remove(request)
                reply(number, {"text": "\n\n".join(dump.text() for dump in dumps)})
        if not self._requests:
            self._chores.remove(self)


def _title(worker: WorkerRecord, job_id: int | None, seconds: float) -> str:
    doing = worker.state.value if job_id is None else f"job {job_id} for {seconds:.3g} s"
    return f"worker {worker.index}, process {worker.pid}: {doing}"
