"""Runs a worker's handlers: on the jobs of a batch, each of which leaves its trace in the flight recorder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any

from bossworker.errors import TIMED_OUT, JobTimeout
from bossworker.failure import Outcome
from bossworker.function_calls import FunctionCall, run_call
from bossworker.pickling import MainDefinitions, inherited_main_definitions
from bossworker.pool.options import Options
from bossworker.pool.wire import codec, messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.codec import encode_large_result, encode_result
from bossworker.pool.wire.frames import Buffer
from bossworker.pool.wire.messages import FIRST_CLIENT_ID, Kind
from bossworker.pool.wire.output_frames import NO_JOB
from bossworker.pool.wire.parcel import LEAST_BYTES, MemoryFiles, Parcel, give_back
from bossworker.pool.wire.progress import Progress, write_progress
from bossworker.pool.wire.recorder import (
    BELOW_BEFORE,
    EXCESS,
    EXPIRED,
    LIMIT,
    MEASURED_JOB,
    OWN_BEFORE,
    PAYLOAD_SIZE,
    SENDING,
    Memory,
    Recorder,
)
from bossworker.pool.wire.worker_wire import WorkerWire
from bossworker.pool.worker.current_job import CurrentJob, answer_by
from bossworker.pool.worker.job_steps import blocks_of, failure_of
from bossworker.pool.worker.leaving import leave_as_child
from bossworker.pool.worker.offspring import Offspring
from bossworker.pool.worker.plain_jobs import plain_jobs
from bossworker.pool.worker.relayed_output import RelayedOutput
from bossworker.system import descendants, memory, signals

# As plain numbers: an enum's attributes are slow to look up, and a job may take less than a microsecond.
_EXCEPTION, _BAD_RESULT, _BAD_JOB = int(Outcome.EXCEPTION), int(Outcome.BAD_RESULT), int(Outcome.BAD_JOB)
_WHOLE, _ELSEWHERE = int(Outcome.WHOLE), int(Outcome.ELSEWHERE)


class JobRunner:
    """See the module. One a worker; `index` is the worker's."""

    def __init__(
        self,
        recorder: Recorder,
        wire: WorkerWire,
        memory: Memory,
        work: Callable[[Any], object],
        options: Options,
        index: int,
        output: RelayedOutput | None = None,
    ) -> None:
        self.recorder = recorder
        self.wire = wire
        self.work = work
        self.index = index
        self.output = output  # None: it goes where that of the program goes
        self.kill_grace = options.kill_grace
        self.max_job_memory = options.max_job_memory
        # What of __main__ must travel to the caller by value: all of it, or what has been defined since the fork.
        self.callers_by_value: bool | MainDefinitions = options.start_method == "spawn" or inherited_main_definitions()
        # The same for the batch that is being run: other programs know none of it.
        self.by_value: bool | MainDefinitions = self.callers_by_value
        self.offspring = Offspring()
        self.batch: Batch | None = None  # that is being worked on
        self.calling = False  # whether an init_handler or exit_handler runs
        self.spilled = False  # whether results of the last batch went over the wire
        self.memory_files = MemoryFiles(memory)
        self.encode = encode_result
        self.file: int | None = None  # with the data of the batch's job, if it is a large one
        self.armed = 0  # 1 + id of the job that JobTimeout may be raised in
        self.copy = False  # whether this is a child that a handler forked
        self.plain_jobs = plain_jobs(self)
        if output is not None:
            output.running = self._running_id
        signals.first_in_children.append(self._forked)
        answer_by(self._current_job)

    # -- jobs -------------------------------------------------------------------------------------------

    def run(self, batch: Batch, file: int | None) -> None:
        """Run a batch: claim, run, record, until no job is left or the boss took back the rest."""
        self.offspring.note()
        self.batch, self.file, self.spilled = batch, file, False
        ours = batch.first_id < FIRST_CLIENT_ID
        self.by_value = self.callers_by_value if ours else True
        if self.plain_jobs is not None and ours and not self.max_job_memory:
            self.plain_jobs.run(batch)
        else:
            self._run(batch)
        if self.output is not None:  # what its short jobs have written is told as the last one's
            self.output.mark(batch.first_id + self.recorder.published._get_value() - 1)
        self.batch = None

    def _run(self, batch: Batch) -> None:
        """What is not for `plain_jobs`; no system call a job here either, and nothing looked up twice."""
        recorder = self.recorder
        marks, ends, area = recorder.marks, recorder.ends, recorder.payload
        claim, publish = recorder.unclaimed.acquire, recorder.published.release
        clock = time.monotonic
        run_job = self._way_to_run()
        number = batch.first_id + 1
        end = 0
        marks[0] = clock()
        for index, job in enumerate(chain.from_iterable(blocks_of(batch))):
            if not claim(False):
                break
            outcome, payload = run_job(job, number + index)
            now = clock()
            reach = end + len(payload)
            if outcome or reach > PAYLOAD_SIZE:
                end = self.record(batch.first_id, index, outcome, payload, now, end)
                continue
            area[end:reach] = payload  # type: ignore[assignment]  # no Parcel is so small
            end = reach - 1  # the next one writes over the pickle's full stop
            ends[index] = end
            marks[index + 1] = now
            publish()

    def record(self, first_id: int, index: int, outcome: int, payload: bytes | Parcel, now: float, end: int) -> int:
        """Write the result of a job of the batch behind those before it, which `end` there; where it ends itself."""
        recorder = self.recorder
        reach = end + len(payload)
        if reach > PAYLOAD_SIZE:
            self._spill(first_id + index, outcome, recorder.marks[index], now, payload)
            recorder.outcomes[index] = _ELSEWHERE
        else:
            recorder.payload[end:reach] = payload  # type: ignore[assignment]  # no Parcel is so small
            recorder.outcomes[index] = outcome
            end = reach if outcome & _WHOLE else reach - 1
            if outcome:
                self.encode = encode_result
        # All of a result is written before it counts: the boss reads at any moment, as far as the count says.
        recorder.ends[index] = end
        recorder.marks[index + 1] = now
        recorder.published.release()
        return end

    def _run_measured(self, job: object, number: int) -> tuple[int, bytes | Parcel]:
        """The same, with word of what we and all below us hold at its start."""
        words = self.recorder.words
        pid = os.getpid()
        words[OWN_BEFORE] = own = memory.resident(pid)
        words[BELOW_BEFORE] = memory.below(pid, own) if descendants.has_children() else 0
        words[MEASURED_JOB] = number
        return self.run_one(job, number)

    def run_one(self, job: object, number: int) -> tuple[int, bytes | Parcel]:
        """Outcome and payload of one job, whatever it does. `number` is 1 + its id."""
        # From here to where it is put back, JobTimeout may be raised, in this job alone: a signal that was sent for the
        # job before finds another number here, and one that comes before this line is repeated by the boss.
        self.armed = number
        work = self.work
        stage = _BAD_JOB
        try:
            try:
                if type(job) is memoryview:
                    job = codec.load_job(job, self.file)
                    if self.file is not None:
                        give_back(self.file)
                    if type(job) is FunctionCall:
                        work = run_call
                stage = _EXCEPTION
                value = work(job)
                if self.copy:
                    self.stop_copies()
                stage = _BAD_RESULT
                return self.encode(value, self.by_value)
            finally:
                self.armed = 0
        except BaseException as error:
            self.stop_copies(error)
            if isinstance(error, JobTimeout):
                self.end_offspring()
            return failure_of(error, stage, self.by_value)

    def end_offspring(self) -> None:
        """End what the job that runs has started."""
        self.offspring.end_since(self.recorder.marks[self.recorder.published._get_value()])

    def _way_to_run(self) -> Callable[[object, int], tuple[int, bytes | Parcel]]:
        """`run_one`, with what the pool's settings ask for around it."""
        run = self._run_measured if self.max_job_memory else self.run_one
        return run if self.output is None else partial(self._run_relayed, self.output, run)

    def _run_relayed(
        self, output: RelayedOutput, run: Callable[[object, int], tuple[int, bytes | Parcel]], job: object, number: int
    ) -> tuple[int, bytes | Parcel]:
        """What the job prints is told as its own."""
        began = time.monotonic()
        try:
            return run(job, number)
        finally:
            output.job_ended(number - 1, began)

    def _spill(self, job_id: int, outcome: int, started: float, now: float, payload: bytes | Parcel) -> None:
        """Send a result that the recorder has no room for. It is noted as finished only once it is safe."""
        # The job has ended, but its result is not counted before it is safe: the boss sees by this that its time is
        # over, and does not interrupt it.
        self.recorder.words[SENDING] = 1
        if len(payload) >= LEAST_BYTES:
            self.encode = encode_large_result  # the next one is likely to be as large
            payload = payload if isinstance(payload, Parcel) else Parcel((payload,))
        body: Sequence[Buffer]
        fds: list[int] = []
        if isinstance(payload, Parcel):
            outcome |= _WHOLE
            lent = self.memory_files.lend(payload, fds)
            body = (payload.table(), *(() if lent else payload.parts))
        else:
            body = (payload if outcome & _WHOLE else memoryview(payload)[:-1],)
        head = messages.SPILL.pack(job_id, outcome, started, now)
        # Returns once all bytes are in the socket, which outlives us: if we are killed behind this line, the boss finds
        # the result there; if before, the job counts as lost.
        self.wire.send(Kind.SPILL, head, body, fds)
        self.spilled = True
        self.recorder.words[SENDING] = 0

    # -- handlers that are given nothing --------------------------------------------------------------------

    def call(self, handler: Callable[[], object]) -> BaseException | None:
        """Call a handler that is given nothing; what it raised."""
        self.calling = True
        try:
            handler()
        except BaseException as error:
            self.stop_copies(error)
            return error
        finally:
            self.calling = False
        self.stop_copies()
        return None

    def stop_copies(self, error: BaseException | None = None) -> None:
        """A child that a handler forked, and that came back from it, must not go on as a second worker."""
        if self.copy:
            leave_as_child(error)

    # -- the end of a job's time --------------------------------------------------------------------------

    def on_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise JobTimeout, once, in the very job that is marked; a late signal never hits the next one."""
        if self.recorder.words[EXPIRED] and self._expired():
            raise self._time_is_up()

    def _expired(self) -> bool:
        """Whether it is the job that runs; then this is the only time."""
        loop = self.plain_jobs
        armed = self.armed or (loop.armed if loop is not None else 0)
        # The boss marks the job that it means, then sends the signal. By the time that it comes, that job may have
        # ended, and the next one run: only the mark tells which one is meant.
        if not armed or self.recorder.words[EXPIRED] != armed:
            return False
        self._disarm()
        return True

    def _time_is_up(self) -> JobTimeout:
        excess = self.recorder.notes[EXCESS]
        if excess:
            time_is_up = JobTimeout(f"BossWorkerAsync: {memory.describe_excess(excess, self.max_job_memory)}")
            time_is_up.memory = True
        else:
            time_is_up = JobTimeout(TIMED_OUT)
        time_is_up.grace = self.kill_grace
        return time_is_up

    def _disarm(self) -> None:
        """No JobTimeout is raised from now on."""
        self.armed = 0
        if self.plain_jobs is not None:
            self.plain_jobs.disarm()

    # -- what runs ---------------------------------------------------------------------------------------

    def _current_job(self) -> CurrentJob | None:
        """What ``current_job()`` gives, in whatever thread. Jobs pay nothing for it until they ask."""
        batch, recorder = self.batch, self.recorder
        if self.copy or (batch is None and not self.calling):
            return None
        if batch is None:
            return CurrentJob(0, 0, self.index, None, self._tell_progress)
        # Those before it have ended. A thread that asks just as its job ends may be told of the next one, which begins
        # now: there is no lock between the two.
        position = recorder.published._get_value()
        timeout = batch.job_options.timeout
        deadline = recorder.marks[position] + timeout if timeout else None
        job_id = batch.first_id + position
        return CurrentJob(job_id, batch.job_options.attempt, self.index, deadline, self._tell_progress)

    def _running_id(self) -> int:
        """The job whose handler runs now; NO_JOB between two of them."""
        batch, recorder = self.batch, self.recorder
        if batch is None:
            return NO_JOB
        position = recorder.published._get_value()
        claimed = recorder.notes[LIMIT] - recorder.unclaimed._get_value()
        return batch.first_id + position if claimed > position else NO_JOB

    def _tell_progress(self, job_id: int, progress: Progress) -> None:
        """Keep it where the boss looks, if that is the job that runs."""
        batch = self.batch
        # A thread may outlive its job: what it says then must not be taken for the next one's.
        if batch is not None and job_id == batch.first_id + self.recorder.published._get_value():
            write_progress(self.recorder.progress, job_id, progress)

    def _forked(self) -> None:
        self.copy = True
        if self.output is not None:  # what it prints is its job's, however long it lives
            self.output.running = partial(int, self._running_id())
        self._disarm()
        if self.plain_jobs is not None:
            self.plain_jobs.note_copy()
