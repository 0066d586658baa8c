"""``logs="relay"``, ``"inherit"``, ``"discard"``: where it goes what handlers print and log."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from bossworker import AsyncBossWorker, BossWorker, JobLog
from bossworker.pool.boss import output_pipes, output_relay
from bossworker.pool.boss.output_pipes import OutputPipes
from bossworker.pool.wire.output_frames import STDERR, STDOUT, unread_bytes
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
log = logging.getLogger("tests.job")


class Seen(logging.Handler):
    """The records of jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if hasattr(record, "worker_pid"):
            self.records.append(record)

    def lines(self, job_id: int | None = None) -> list[str]:
        return [
            f"{record.levelname}:{record.name}:{record.getMessage()}"
            for record in self.records
            if job_id is None or record.job_id == job_id
        ]


@pytest.fixture
def seen() -> Iterator[Seen]:
    root, handler = logging.getLogger(), Seen()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def say(job: dict[str, Any]) -> dict[str, Any]:
    n = job["n"]
    print("print", n)
    print("error", n, file=sys.stderr)
    log.info("info %d", n)
    log.debug("never told")
    os.write(1, b"write %d\n" % n)
    os.system(f"echo sub {n}; echo suberr {n} >&2")
    print("and", n)
    print("half", n, end="")
    if job.get("fail"):
        raise ValueError("rattle")
    return {"pid": os.getpid()}


def expected(n: int) -> list[str]:
    return [
        f"INFO:bossworker.job:print {n}",
        f"WARNING:bossworker.job:error {n}",
        f"INFO:tests.job:info {n}",
        f"INFO:bossworker.job:write {n}",
        f"INFO:bossworker.job:sub {n}",
        f"WARNING:bossworker.job:suberr {n}",
        f"INFO:bossworker.job:and {n}",
        f"INFO:bossworker.job:half {n}",
    ]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_everything_comes_with_its_job_in_its_order(pool: Pool, seen: Seen, start_method: str) -> None:
    bw = pool(say, worker_count=2, logs="relay", start_method=start_method)
    ids = bw.add_work(*({"n": n} for n in range(10)))
    results = {result.job_id: result for result in bw.results()}
    for n, job_id in enumerate(ids):
        assert seen.lines(job_id) == expected(n)
    for record in seen.records:
        assert record.worker_pid == results[record.job_id]["pid"]
        assert record.worker_index in {0, 1}
        assert results[record.job_id].started_at - 1 < record.created < time.time() + 1


def check_one(pool: Pool, seen: Seen) -> None:
    """The lines of one job come in their order."""
    bw = pool(say, worker_count=1, logs="relay", start_method="fork")
    (job_id,) = bw.add_work({"n": 0})
    assert bw.get_result().ok
    assert seen.lines(job_id) == expected(0)


@pytest.mark.parametrize("held_up", ["sub 0\n", "suberr 0\n"])
def test_a_boss_that_is_held_up_between_the_pipes_keeps_their_order(
    pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch, held_up: str
) -> None:
    read = output_pipes.read_some

    def read_and_wait(fd: int) -> bytes | None:
        data = read(fd)
        if held_up.encode() in (data or b""):
            time.sleep(0.1)  # Python writes on meanwhile
        return data

    monkeypatch.setattr(output_pipes, "read_some", read_and_wait)  # before the boss is forked
    check_one(pool, seen)


def test_a_boss_that_is_held_up_before_it_reads_errors_keeps_their_order(
    pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program writes after it looked what is in stdout, and before it reads stderr: both are new to it."""
    unread = OutputPipes._unread

    def look_and_wait(self: OutputPipes, stream: int) -> int:
        count = unread(self, stream)
        if stream == STDOUT and count and not self._bytes_read:
            wait_for(lambda: unread(self, STDERR))  # the program writes on meanwhile
        return count

    monkeypatch.setattr(OutputPipes, "_unread", look_and_wait)  # before the boss is forked
    check_one(pool, seen)


def test_what_is_written_while_the_boss_reads_is_of_the_job_that_wrote_it(
    pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has counted this read already, which the job before that one has seen."""
    read, waits = output_pipes.read_some, [0.05, 0.5]  # before it reads stderr, and stdout after that

    def wait_and_read(fd: int) -> bytes | None:
        time.sleep(waits.pop(0) if waits else 0.0)
        return read(fd)

    def write(job: dict[str, Any]) -> None:
        os.write(2, job.get("text", b""))
        time.sleep(job.get("seconds", 0.0))

    monkeypatch.setattr(output_pipes, "read_some", wait_and_read)  # before the boss is forked
    bw = pool(write, worker_count=1, logs="relay", start_method="fork")
    bw.add_work(*({} for _ in range(50)))  # as they are short, there will be two in a batch
    assert len(list(bw.results())) == 50
    jobs = [{"text": b"first\n"}, {"text": b"second\n", "seconds": 0.3}, {"text": b"third\n"}]
    ids = bw.add_work(*jobs)
    assert len(list(bw.results())) == 3
    assert [(record.job_id, record.getMessage()) for record in seen.records] == list(
        zip(ids, ["first", "second", "third"])
    )


def test_many_short_jobs_keep_their_lines_apart(pool: Pool, seen: Seen) -> None:
    def write(job: dict[str, Any]) -> None:
        os.write(job["n"] % 2 + 1, b"%d\n" % job["n"])
        if job["n"] % 3 == 0:
            print(job["n"])

    bw = pool(write, worker_count=2, logs="relay")
    ids = bw.add_work(*({"n": n} for n in range(2000)))
    list(bw.results())
    told: dict[int, list[str]] = {}
    for record in seen.records:
        told.setdefault(record.job_id, []).append(record.getMessage())
    assert told == {job_id: [str(n)] * (2 if n % 3 == 0 else 1) for n, job_id in enumerate(ids)}


def test_a_failed_result_has_its_log(pool: Pool, seen: Seen) -> None:
    bw = pool(say, worker_count=1, logs="relay")
    bw.add_work({"n": 1}, {"n": 2, "fail": 1})
    good, bad = bw.results()
    assert good.log == ""
    assert bad.log.splitlines() == [
        "print 2", "error 2", "INFO:tests.job:info 2", "write 2", "sub 2", "suberr 2", "and 2", "half 2",
    ]  # fmt: skip


def test_the_log_has_the_last_64_kib(pool: Pool, seen: Seen) -> None:
    def chatter(job: dict[str, Any]) -> None:
        for n in range(20_000):
            print("line", n)
        raise ValueError

    bw = pool(chatter, worker_count=1, logs="relay")
    bw.add_work({})
    (result,) = bw.results()
    assert result.log == "".join(f"line {n}\n" for n in range(20_000))[-(1 << 16) :]


@pytest.mark.parametrize(("first", "then"), [("A" * 60_000, "B" * 10_000), ("\u20ac" * 20_000, "b" * 10_000)])
def test_the_log_has_its_bytes_whatever_the_lines_are(pool: Pool, seen: Seen, first: str, then: str) -> None:
    def chatter(job: dict[str, Any]) -> None:
        print(first)
        print(then)
        raise ValueError

    bw = pool(chatter, worker_count=1, logs="relay")
    bw.add_work({})
    (result,) = bw.results()
    assert f"{first}\n{then}\n".endswith(result.log) is True
    assert (1 << 16) - 3 < len(result.log.encode()) <= 1 << 16


def test_last_words_of_a_crash(pool: Pool, seen: Seen) -> None:
    def crash(job: dict[str, Any]) -> None:
        faulthandler.enable()
        print("before")
        ctypes.string_at(0)

    bw = pool(crash, worker_count=1, logs="relay")
    bw.add_work({})
    (result,) = bw.results()
    assert result.error_kind == "crash"
    assert result.log.startswith("before\nFatal Python error: Segmentation fault\n")
    assert "in crash" in result.log


def test_an_exception_is_logged_with_its_traceback(pool: Pool, seen: Seen) -> None:
    def fail(job: dict[str, Any]) -> None:
        try:
            raise ValueError("rattle")
        except ValueError:
            log.exception("oops %s", object, extra={"own": 5})

    bw = pool(fail, worker_count=1, logs="relay")
    bw.add_work({})
    list(bw.results())
    (record,) = seen.records
    assert (record.levelname, record.own, record.funcName) == ("ERROR", 5, "fail")
    assert logging.Formatter().format(record).endswith("ValueError: rattle")


def test_levels_and_filters_hold(pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "filters", [lambda record: "secret" not in record.getMessage()])

    def tell(job: dict[str, Any]) -> None:
        logging.getLogger("tests.quiet").warning("too quiet")
        logging.getLogger("tests.loud").debug("loud")
        log.info("secret")
        log.info("public")
        log.info("x" * 1_000_000)

    for name, level in (("tests.quiet", logging.ERROR), ("tests.loud", logging.DEBUG)):
        monkeypatch.setattr(logging.getLogger(name), "level", level)
        logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
    bw = pool(tell, worker_count=1, logs="relay")
    bw.add_work({})
    list(bw.results())
    assert seen.lines()[:2] == ["DEBUG:tests.loud:loud", "INFO:tests.job:public"]
    assert len(seen.lines()) == 3
    assert seen.lines()[2].startswith("INFO:tests.job:xxxx")


def test_a_filter_is_asked_once(pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the record is made, if its logger has filters there."""

    def note(record: logging.LogRecord) -> bool:
        record.asked = [*getattr(record, "asked", []), os.getpid() == program]
        return True

    def tell(job: dict[str, Any]) -> None:
        log.filters[:] = [note] if job["here"] else []
        log.info("told")

    program = os.getpid()
    monkeypatch.setattr(log, "filters", [note])
    bw = pool(tell, worker_count=1, logs="relay")
    bw.add_work({"here": True}, {"here": False})
    assert all(result.ok for result in bw.results())
    assert [record.asked for record in seen.records] == [[False], [True]]


def test_a_handler_that_closes_every_descriptor_can_print(pool: Pool, seen: Seen, tmp_path: Path) -> None:
    def tell(job: dict[str, Any]) -> None:
        os.closerange(3, 1024)
        files = [os.open(tmp_path / str(n), os.O_RDWR | os.O_CREAT) for n in range(20)]
        print("printed")
        os.system("echo by a program >&2")
        print("complained", file=sys.stderr)
        assert not any(os.fstat(file).st_size for file in files)

    bw = pool(tell, worker_count=1, logs="relay")
    bw.add_work({}, {})
    assert all(result.raise_for_error().ok for result in bw.results())
    assert [record.getMessage() for record in seen.records] == ["printed", "by a program", "complained"] * 2


def test_a_hundred_thousand_lines_of_four_workers(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Quickly, a fifth of that."""
    lines = 2500 if request.config.getoption("--long") else 500
    seen, job_log = Seen(), logging.getLogger("bossworker.job")
    monkeypatch.setattr(job_log, "handlers", [seen])
    monkeypatch.setattr(job_log, "propagate", False)  # past pytest's own handlers, which take longer than all else
    monkeypatch.setattr(job_log, "level", logging.INFO)
    job_log.manager._clear_cache()  # type: ignore[attr-defined]

    def chatter(job: dict[str, Any]) -> None:
        for n in range(lines):
            print(job["n"], n, "x" * (n % 100))

    bw = pool(chatter, worker_count=4, logs="relay")
    bw.add_work(*({"n": n} for n in range(40)))
    list(bw.results())
    told: dict[int, list[str]] = {}
    for record in seen.records:
        told.setdefault(record.job_id, []).append(record.getMessage())
    assert told == {n + 1: [f"{n} {k} {'x' * (k % 100)}" for k in range(lines)] for n in range(40)}


def test_a_caller_that_takes_nothing_is_told_what_it_missed(
    pool: Pool, seen: Seen, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_relay, "PATIENCE_SECONDS", 0.5)  # before the boss is forked

    def chatter(job: dict[str, Any]) -> None:
        for n in range(60_000):
            print(n, "x" * 200)
        (tmp_path / "done").touch()

    bw = pool(chatter, worker_count=1, logs="relay", start_method="fork")
    bw.add_work({})
    wait_for((tmp_path / "done").exists, 60)  # though nobody reads
    with caplog.at_level(logging.INFO, "bossworker"):
        list(bw.results())
    (text,) = [r.getMessage() for r in caplog.records if r.name == "bossworker" and "output missed" in r.getMessage()]
    found = re.fullmatch(r"output missed: lines=(\d+) reason='.*'", text)
    assert found is not None
    assert int(found[1]) + len(seen.records) == 60_000
    numbers = [int(line.split(":")[2].split()[0]) for line in seen.lines()]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 59_999


def test_a_result_never_overtakes_its_lines(
    pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    send = output_relay.OutputRelay.send

    def send_and_wait(relay: output_relay.OutputRelay) -> None:
        send(relay)
        if relay.waiting:
            time.sleep(0.02)  # the caller, to whom we could send no more, makes room meanwhile

    monkeypatch.setattr(output_relay.OutputRelay, "send", send_and_wait)  # before the boss is forked

    def chatter(job: dict[str, Any]) -> None:
        for n in range(8_000):
            print(n, "x" * 200)
        (tmp_path / "done").touch()

    bw = pool(chatter, worker_count=1, logs="relay", start_method="fork")
    bw.add_work({})
    wait_for((tmp_path / "done").exists)  # more than the line to the caller takes is there
    assert bw.get_result().ok
    assert len(seen.records) == 8_000


def test_while_nobody_takes_what_is_relayed_no_print_waits_for_the_boss(
    pool: Pool, seen: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Though the pipe of stderr stays full: its place among what is printed is known all the same."""
    monkeypatch.setattr(output_relay, "MOST_BYTES", 1 << 16)
    monkeypatch.setattr(output_relay, "PATIENCE_SECONDS", 1000.0)  # both before the boss is forked

    def act(job: dict[str, Any]) -> None:
        if "flood" in job:
            for n in range(20_000):
                print(n, "x" * 100)
            return
        while not unread_bytes(2):  # until nobody reads any more
            os.write(2, b"early\n")
            time.sleep(0.2)
        for n in range(100):
            os.write(2, b"error %d\n" % n)
            print("print", n)
        (tmp_path / "printed").touch()

    bw = pool(act, worker_count=2, logs="relay", start_method="fork")
    _, writer = bw.add_work({"flood": 1}, {})
    wait_for((tmp_path / "printed").exists, 50)
    assert [result.ok for result in bw.results()] == [True, True]
    lines = [line for line in seen.lines(writer) if "early" not in line]
    expected = [[f"WARNING:bossworker.job:error {n}", f"INFO:bossworker.job:print {n}"] for n in range(100)]
    assert lines == [line for pair in expected for line in pair]


def test_without_handlers_lines_are_printed() -> None:
    program = """
import sys, bossworker
def say(job):
    print("out", job["n"]); print("err", job["n"], file=sys.stderr)
with bossworker.BossWorker(say, worker_count=1, logs="relay") as bw:
    class Cell:
        def __init__(self, under): self.under = under
        def write(self, text): self.under.write(text.upper())
        def flush(self): self.under.flush()
    sys.stdout = Cell(sys.stdout)  # as a notebook's
    bw.add_work({"n": 1}, {"n": 2})
    list(bw.results())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("OUT 1\nOUT 2\n", "err 1\nerr 2\n")


@pytest.mark.parametrize(("logs", "out", "err"), [("inherit", "out\nsub\n", "err\n"), ("discard", "", "")])
def test_inherit_and_discard(logs: str, out: str, err: str) -> None:
    program = f"""
import os, sys, bossworker
def say(job):
    print("out", flush=True); print("err", file=sys.stderr); os.system("echo sub")
with bossworker.BossWorker(say, worker_count=1, logs={logs!r}) as bw:
    bw.add_work({{}})
    assert bw.get_result().ok
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (out, err)


@pytest.mark.parametrize(("logs", "error"), [("relais", ValueError), (1, TypeError)])
def test_the_parameter_is_checked(logs: Literal["relay"], error: type[Exception]) -> None:
    with pytest.raises(error, match="logs must be"):
        BossWorker(say, logs=logs)


def test_init_and_exit_handlers_are_heard(pool: Pool, seen: Seen) -> None:
    bw = pool(
        say,
        init_handler=lambda: print("init"),
        exit_handler=lambda: print("exit"),
        worker_count=1,
        logs="relay",
    )
    bw.shut_down()
    assert seen.lines() == ["INFO:bossworker.job:init", "INFO:bossworker.job:exit"]
    assert {record.job_id for record in seen.records} == {None}


def test_lines_are_events_too(pool: Pool, seen: Seen) -> None:
    bw = pool(say, worker_count=1, logs="relay")
    events = bw.events()
    bw.add_work({"n": 1})
    list(bw.results())
    bw.shut_down()
    logs = [event for event in events if isinstance(event, JobLog)]
    assert [(event.stream, event.text) for event in logs] == [
        ("stdout", "print 1"), ("stderr", "error 1"), ("logging", "info 1"), ("stdout", "write 1"),
        ("stdout", "sub 1"), ("stderr", "suberr 1"), ("stdout", "and 1"), ("stdout", "half 1"),
    ]  # fmt: skip
    assert {(event.job_id, event.worker_index) for event in logs} == {(1, 0)}


def test_from_an_event_loop(seen: Seen) -> None:
    async def main() -> None:
        async with AsyncBossWorker(say, worker_count=1, logs="relay") as pool:
            await pool.run({"n": 1})

    asyncio.run(main())
    assert seen.lines(1) == expected(1)


def test_a_program_s_handler_that_raises_costs_no_result(pool: Pool, seen: Seen) -> None:
    class Bad(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("bad handler")

    handler = Bad()
    logging.getLogger("bossworker.job").addHandler(handler)
    try:
        bw = pool(say, worker_count=1, logs="relay")
        bw.add_work({"n": 1})
        assert [result.ok for result in bw.results()] == [True]
    finally:
        logging.getLogger("bossworker.job").removeHandler(handler)
