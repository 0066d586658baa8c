"""The compiled core says the same to the byte as the Python that stands in for it, and survives what it is given."""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import os
import pickle
import random
import re
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bossworker.errors import JobTimeout
from bossworker.failure import Failure, Outcome
from bossworker.pool.options import check_options
from bossworker.pool.wire import codec
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.codec import BLOCK_BYTES, BLOCK_JOBS, RESULT_PROTOCOL, encode_jobs, load_results
from bossworker.pool.wire.recorder import Memory
from bossworker.pool.wire.segments import Segment
from bossworker.pool.worker import job_runner, plain_jobs
from bossworker.pool.worker.job_runner import JobRunner
from bossworker.result import Origin, Result
from bossworker.system import compiled, descendants
from tests.conftest import wait_for
from tests.unit.test_codec_properties import any_jobs, same

PROJECT = Path(__file__).parents[2]

core = compiled.core
pytestmark = pytest.mark.skipif(core is None, reason="there is no compiled core here, or it is not wanted")

edges = [0, 1, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**39, 2**47, 2**55, 2**62, 2**63 - 1, 2**63, 2**70]
ints = st.integers() | st.sampled_from(
    [sign * (edge + near) for edge in edges for sign in (1, -1) for near in (-1, 0, 1)]
)
texts = st.text(max_size=5) | st.text(min_size=250, max_size=260) | st.sampled_from(["a", "ERROR", "é", "€" * 90])
atoms = st.none() | st.booleans() | ints | st.floats(allow_nan=False) | texts | st.binary(max_size=300)
values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | ints, inner, max_size=4),
    max_leaves=10,
)
dicts = st.dictionaries(texts | atoms, values, max_size=6)


class Folder:
    """No text, but what gives one."""

    def __fspath__(self) -> str:
        return "/"


class Text(str):
    """No plain one."""


NOT_PLAIN: list[Any] = [
    {"a": 1 + 2j},
    {"a": (1, 2)},
    {"a": {1, 2}},
    {"a": "\ud800"},
    {"a": 2**64},
    {"a": bytearray(b"a")},
    {Text("a"): 1},
    {"a": Text("a")},
    {"a": Failure(Outcome.EXCEPTION, {})},
    {"a": list(range(2000))},
    [],
    7,
    Failure(Outcome.EXCEPTION, {}),
    {"n": "x" * (1 << 17)},
]


@given(dicts)
def test_a_result_is_packed_as_pickle_does(value: dict[Any, Any]) -> None:
    packed = core.pack_result(value)
    if packed is None:
        assert "ERROR" in value or any(type(one) is int and abs(one) >= 2**63 for one in atoms_in(value))
    else:
        assert packed + b"." == pickle.dumps(value, RESULT_PROTOCOL)


def atoms_in(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value, *itertools.chain(*map(atoms_in, value.values()))]
    return list(itertools.chain(*map(atoms_in, value))) if isinstance(value, list) else [value]


def test_what_stands_in_a_result_twice_is_packed_as_pickle_does() -> None:
    text, data, inner = "".join(["te", "xt"]), b"data" * 2, {"x": 1}
    value = {text: text, "b": [data, data, inner, inner], "c": inner, "x": data}
    assert core.pack_result(value) + b"." == pickle.dumps(value, RESULT_PROTOCOL)
    assert core.pack_result(None) + b"." == pickle.dumps({}, RESULT_PROTOCOL)
    looped: dict[str, Any] = {}
    looped["self"] = looped
    assert core.pack_result(looped) + b"." == pickle.dumps(looped, RESULT_PROTOCOL)


@pytest.mark.parametrize("value", NOT_PLAIN, ids=lambda value: type(value).__name__)
def test_what_is_not_plain_is_left_to_pickle(value: Any) -> None:
    assert core.pack_result(value) is None
    assert core.encode_blocks(({"n": 1}, value), BLOCK_JOBS, BLOCK_BYTES) == [None]


def test_what_is_nested_too_deep_is_left_to_pickle() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"in": deep}
    assert core.pack_result(deep) is None
    while deep:
        deep = deep.pop("in", None)


@given(st.lists(dicts, min_size=2, max_size=5))
def test_a_block_of_jobs_is_encoded_as_pickle_does(jobs: list[dict[Any, Any]]) -> None:
    (block,) = core.encode_blocks(tuple(jobs), BLOCK_JOBS, BLOCK_BYTES)
    if block is None:
        assert any(type(one) is int and abs(one) >= 2**63 for job in jobs for one in atoms_in(job))
    else:
        assert block == codec._BlockPickler().block(jobs)
        assert same(core.load_block(block), jobs)
        assert same(pickle.loads(block), jobs)


@given(st.lists(any_jobs, min_size=2, max_size=4))
def test_jobs_are_encoded_to_the_same_with_it_and_without(jobs: list[dict[Any, Any]]) -> None:
    assert encode_jobs(jobs) == without_core(encode_jobs, jobs)


def test_many_jobs_are_encoded_to_the_same_with_it_and_without() -> None:
    jobs: list[dict[str, Any]] = [{"n": n, "text": "x" * (n % 700)} for n in range(500)]
    jobs[70]["f"] = len
    jobs[200:264] = [{"n": "x" * 3000}] * 64
    assert encode_jobs(jobs) == without_core(encode_jobs, jobs)
    assert encode_jobs(jobs[:129]) == without_core(encode_jobs, jobs[:129])


@given(st.lists(any_jobs, min_size=2, max_size=4))
def test_jobs_are_encoded_to_the_same_whatever_they_come_in(jobs: list[dict[Any, Any]]) -> None:
    """`add_work` has a tuple of them; a worker's loop takes the jobs of a block from a list."""
    assert encode_jobs(tuple(jobs)) == without_core(encode_jobs, tuple(jobs)) == encode_jobs(jobs)


def without_core(function: Callable[..., Any], *args: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "core", None)
        return function(*args)


def bare(results: list[Result]) -> list[dict[Any, Any]]:
    return [dict(result) for result in results]


@given(st.lists(dicts, max_size=5))
def test_results_are_loaded_as_pickle_does(contents: list[dict[Any, Any]]) -> None:
    payload = b"".join(pickle.dumps(content, RESULT_PROTOCOL)[:-1] for content in contents)
    results = core.load_results(payload, Result)
    if results is None:
        assert any(type(one) is int and abs(one) >= 2**63 for content in contents for one in atoms_in(content))
    else:
        assert same(bare(results), contents)
        assert {type(result) for result in results} <= {Result}


@given(st.lists(dicts, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_bytes_that_were_written_over_do_no_harm(contents: list[dict[Any, Any]], rng: random.Random) -> None:
    payload = bytearray(b"".join(pickle.dumps(content, RESULT_PROTOCOL)[:-1] for content in contents))
    block = bytearray(codec._BlockPickler().block(contents))
    for one in (payload, block):
        for _ in range(rng.randint(1, 4)):
            one[rng.randrange(len(one))] = rng.choice([rng.randrange(256), *b"}](esuqhKX."])
    cut = bytes(payload[: rng.randrange(len(payload) + 1)])
    results = core.load_results(cut, Result)
    assert results is None or repr(bare(results)) == repr(pickle.loads(b"(" + cut + b"l."))
    jobs = core.load_block(block)
    assert jobs is None or repr(jobs) == repr(pickle.loads(block))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x03}q\0X\1\0\0\0ah\0s",
        b"\x80\x03}q\0h\x05",
        b"\x80\x03}q\0u",
        b"\x80\x03]q\0",
        b"\x80\x03}" + b"(" * 99,
        b"\x80\x03}q\0(]q\1K\1u",
        b"\x80\x03}q\0X\xff\xff\xff\xffab",
        b"\x80\x03}s",
        b"\x80\x03}" + b"N" * 5000,
        b"\x80",
    ],
)
def test_other_instructions_are_left_to_pickle(payload: bytes) -> None:
    assert core.load_results(payload, Result) is None


def test_the_garbage_collector_finds_a_result_that_its_program_has_tied_to_itself() -> None:
    freed: list[int] = []

    class Told:
        def __del__(self) -> None:
            freed.append(1)

    payload = pickle.dumps({"n": 1}, RESULT_PROTOCOL)[:-1]
    for of_the_job in (False, True):
        (result,) = core.load_results(payload, Result)
        result._origin, result._at = Origin(1, ({"told": Told()},), 1, 1, 0.0, 0.0, (0.0, 0.0)), 0
        (result.job if of_the_job else result)["me"] = result
        del result
        gc.collect()
    assert len(freed) == 2


# -- the worker's loop -------------------------------------------------------------------------------------------


def behave(job: dict[str, Any]) -> Any:
    match job["do"]:
        case "raise":
            raise ValueError("rattle")
        case "exit":
            sys.exit(3)
        case "deep":
            return behave(job)
        case "time is up":
            signal.raise_signal(signal.SIGALRM)
            return {"never": "here"}
    return job.get("give")


class Wire:
    """Nobody is at the other end."""

    def send(self, *args: object) -> None: ...


def run_apart(memory: Memory, batch: Batch, how: str, handler: Callable[[Any], Any] = behave) -> Segment:
    """The results of a batch, run in a process of its own: "compiled", "in Python", or each job "by itself"."""
    recorder = memory.recorder(0, fresh=True)
    recorder.open_batch(batch.first_id, batch.count, 1, time.monotonic())
    pid = os.fork()
    if not pid:
        try:
            signal.signal(signal.SIGALRM, raise_timeout)
            if how != "compiled":
                vars(plain_jobs)["core"] = vars(codec)["core"] = None
            if how == "by itself":
                vars(job_runner)["plain_jobs"] = lambda runner: None
            make_runner(memory, handler).run(batch, None)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    results = recorder.results(0, recorder.snapshot().published, batch.first_id, 1, 1)
    payload = re.sub(rb"repeated \d+ more", b"repeated", bytes(results.payload))  # so deep is what is below the loop
    return results._replace(marks=b"", payload=payload)


def raise_timeout(number: int, frame: object) -> None:
    raise JobTimeout("time is up")


def make_runner(memory: Memory, handler: Callable[[Any], Any]) -> JobRunner:
    options = check_options(
        global_timeout=30,
        worker_count=1,
        kill_grace=1,
        retries=0,
        max_pending=0,
        max_jobs_per_worker=0,
        max_worker_memory=0,
        max_job_memory=0,
        start_method="fork",
        close_fds=False,
        transport="zmq",
    )
    return JobRunner(memory.recorder(0), cast(Any, Wire()), memory, handler, options, 0)


def batch_of(jobs: list[dict[str, Any]], skip: int = 0) -> Batch:
    blocks = encode_jobs(jobs)
    payload = blocks.payload()
    assert isinstance(payload, bytes)
    return Batch(7, len(jobs) - skip, skip, JobOptions(0, 30.0, 0, 1), blocks.counts, blocks.sizes, payload)


GIVEN: list[dict[str, Any]] = [
    {"do": "give", "give": {"product": 6}},
    {"do": "give"},
    {"do": "raise"},
    {"do": "give", "give": {"text": "x" * 70_000}},
    {"do": "give", "give": {"ERROR": "mine", "n": 3}},
    {"do": "exit"},
    {"do": "give", "give": 7},
    {"do": "give", "give": {"ERROR": None}},
    {"do": "deep"},
    {"do": "time is up"},
    {"do": "give", "give": {"big": 2**80, "list": [1, "a", "a", {"b": 2.5}]}},
    {"do": "give", "give": {}},
]


@pytest.mark.parametrize("skip", [0, 2, 5])
def test_a_batch_leaves_the_same_trace_with_it_and_without(skip: int) -> None:
    memory = Memory()
    jobs = GIVEN * 12
    jobs[80] = {"do": "give", "give": {1, 2}}  # a block of jobs that are not plain
    batch = batch_of(jobs, skip)
    try:
        pure, ours = (run_apart(memory, batch, how) for how in ("in Python", "compiled"))
    finally:
        memory.close()
    assert pure.jobs == batch.count
    assert ours == pure


def test_a_handler_that_is_not_written_in_python_can_be_stopped() -> None:
    memory = Memory()
    jobs = [{"n": signal.SIGALRM if n == 3 else 0, "do": "give"} for n in range(8)]
    try:
        segment = run_apart(memory, batch_of(jobs), "compiled", _SignalIt())
    finally:
        memory.close()
    assert [outcome & 0xF for outcome in segment.outcomes] == [0, 0, 0, Outcome.TIMEOUT, 0, 0, 0, 0]


class _SignalIt:
    """Raises a signal, if the job says so, out of a call that ends before any handler runs."""

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        if job["n"]:
            signal.raise_signal(job["n"])
        return {"n": job["n"]}


def test_no_more_than_what_may_be_claimed_is_run() -> None:
    memory = Memory()
    try:
        batch = batch_of(GIVEN[:2] * 40)
        recorder = memory.recorder(0, fresh=True)
        recorder.open_batch(7, 50, 1, 0.0)
        loop = recorder.compiled_loop()
        loop.run(behave, GIVEN[:2] * 40, 0, 0, 8)
        assert (loop.over, recorder.snapshot().published, batch.count) == (True, 50, 80)
        assert load_results(recorder.payload[: loop.end]) == [{"product": 6}, {}] * 25
    finally:
        loop = None
        memory.close()


def start(**other: Any) -> Any:
    asked = {
        "argv": ["true"], "files": [b"/bin/true"], "environment": [b"A=1"], "more": ["B=2"], "folder": "/",
        "stdio": (3, 3, 3), "prepared": core.prepare_starts(), **other,
    }  # fmt: skip
    return core.start(*asked.values())


def refusal(**other: Any) -> Any:
    """Why it was not executed, once it has ended."""
    pid, begun = start(**other)
    os.waitpid(pid, 0)
    return core.look_at_start(begun)


@pytest.mark.parametrize(
    "wrong",
    [
        {"argv": ("true",)},
        {"argv": [1]},
        {"argv": ["true", "a\0b"]},
        {"files": [None]},
        {"environment": [b"A", Folder()]},
        {"more": ["\ud800"]},
        {"folder": "/\0"},
        {"stdio": (3, 3)},
        {"prepared": b""},
        {"prepared": b"x" * 1000},
    ],
)
def test_nothing_is_started_of_what_makes_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        start(**wrong)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_its_child_may_still_use_is_not_freed() -> None:
    """But once the child has executed, or ended."""
    null = os.open(os.devnull, os.O_RDWR)
    line = b"A=%d" % os.getpid()
    before = sys.getrefcount(line)
    started = [*start(argv=["sleep", "60"], files=[b"/bin/sleep"], environment=[line], stdio=(null, null, null))]
    os.close(null)
    wait_for(lambda: core.look_at_start(started[1]) is not None)
    assert sys.getrefcount(line) == before + 1
    started.pop()
    assert sys.getrefcount(line) == before
    os.kill(started[0], signal.SIGKILL)
    os.waitpid(started[0], 0)


def test_what_is_started_is_a_child_and_what_is_not_leaves_none() -> None:
    assert refusal(stdio=(99, 99, 99)) == (errno.EBADF, 0)
    assert refusal(folder="/nowhere") == (errno.ENOENT, 1)
    assert refusal(files=[b"/nowhere", b"/etc/passwd", b"/nowhere"]) == (errno.EACCES, 2)
    assert refusal(files=[]) == (errno.ENOENT, 2)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    null = os.open(os.devnull, os.O_RDWR)
    line, folder = b"A=%d" % os.getpid(), f"/proc/{os.getpid()}"
    before = sys.getrefcount(line), sys.getrefcount(folder), os.listdir("/proc/self/fd")
    for _ in range(10):
        assert refusal(environment=[line], folder=folder, stdio=(null, null, null)) == (0, 2)
    assert (sys.getrefcount(line), sys.getrefcount(folder), os.listdir("/proc/self/fd")) == before
    os.close(null)


FORBID, KILL = 0x50000 | errno.EPERM, 0x80000000  # of seccomp
CLOSE_RANGE, EXECVE = 436, {"x86_64": 59, "aarch64": 221}.get(os.uname().machine, -1)


def forbid(number: int, verdict: int) -> None:
    """A filter of this process's system calls."""
    libc = ctypes.CDLL(None)
    steps = (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, verdict), (0x06, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        os._exit(77)


@pytest.mark.skipif(sys.platform != "linux" or EXECVE < 0, reason="the numbers of its system calls are not known here")
@pytest.mark.parametrize(("number", "verdict"), [(CLOSE_RANGE, FORBID), (CLOSE_RANGE, KILL), (EXECVE, FORBID)])
def test_where_a_child_may_not_do_its_part_nothing_is_prepared(number: int, verdict: int) -> None:
    assert core.prepare_starts() is not None
    pid = os.fork()
    if pid == 0:
        forbid(number, verdict)
        os._exit(core.prepare_starts() is not None)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 77:
        pytest.skip("no filter can be set here")
    assert code == 0


def test_prctl_is_that_of_the_c_library() -> None:
    """Numbers, what the kernel reads, and what it fills."""
    name, adopts = bytearray(16), 37
    for prctl in (core.prctl, descendants._prctl_of_libc()):
        pid = os.fork()
        if pid == 0:
            told = [prctl(15, b"by another name")]
            told += [prctl(36, one) or prctl(adopts, answer := bytearray(4)) or answer[0] != one for one in (1, 0)]
            told += [prctl(16, name), not name.startswith(b"by another name\0"), prctl(-1, 0) != -1]
            os._exit(any(told))
        assert os.waitpid(pid, 0)[1] == 0
    for wrong in (-1, 2**64, None, "a"):
        with pytest.raises((OverflowError, TypeError)):
            core.prctl(15, wrong)


def test_what_is_compiled_can_be_done_without() -> None:
    code = "from bossworker.system.compiled import core, explain; print(core, explain())"
    environ = {**os.environ, "BOSSWORKER_PURE": "1"}
    with os.popen(f"BOSSWORKER_PURE=1 {sys.executable} -c '{code}'") as out:
        assert out.read().startswith("None not used (BOSSWORKER_PURE is set)"), environ
    assert "used for tiny jobs" in compiled.explain()


def _sources() -> str:
    return "".join(source.read_text() for source in (PROJECT / "native").glob("*.c"))


def test_the_core_means_the_same_whichever_headers_compiled_it() -> None:
    """Of a format with a #, Python 3.13's headers made what Python 3.11 refused at each command that was started."""
    calls = re.findall(r"(?:PyArg_Parse\w*|Py_BuildValue)\(([^;]*);", _sources())
    assert len(calls) > 3
    assert not [call for call in calls if re.search(r'"[^"]*#', call)]
