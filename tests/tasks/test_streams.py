"""Streams of living tasks: written, read, followed, given up, and messages both ways."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bossworker.tasks import StreamClosed, Task, TaskGone, TaskPool, current
from tests.conftest import alive, wait_for
from tests.tasks.programs import CAT, SLEEP, python, shell, wait_for_info, wait_for_output

MB = 1_000_000


def uss(pid: int) -> int:
    """Bytes of memory that a process has for itself alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def test_bytes_go_in_and_come_out(pool: TaskPool) -> None:
    task = pool.spawn(CAT)
    stdin, stdout = task.stream("stdin"), task.stream("stdout")
    data = os.urandom(200_000)
    assert stdin.write(data) == 200_000
    stdin.write("ü\n")
    stdin.close()
    task.wait(20)
    assert stdout.read() == data + "ü\n".encode()
    assert stdout.read() == b""
    assert stdout.position == stdout.limit == 200_003
    assert (stdout.read(12, 23), stdout.read(200_000, 99)) == (data[12:35], b"\xc3\xbc\n")
    assert (stdout.start, stdout.ended, stdin.limit) == (0, True, 200_003)
    with pytest.raises(StreamClosed, match=f"stdin of task {task.pid} is closed"):
        stdin.write(b"more")


def test_a_stream_has_a_position(pool: TaskPool) -> None:
    task = pool.spawn(shell("printf 'one\\ntwo\\nthree'"))
    task.wait(20)
    assert task.stream(1) is task.stream("stdout")
    first, second = task.stream(1), Task(pool, task.pid).stream("stdout")
    assert (first.read(count=4), first.read(count=4), first.peek(), first.read()) == (
        b"one\n",
        b"two\n",
        b"three",
        b"three",
    )
    assert list(second) == [b"one\n", b"two\n", b"three"]
    assert list(second) == []


def test_a_stream_of_a_task_is_one_object_and_a_second_read_gives_what_is_new(pool: TaskPool) -> None:
    task = pool.spawn(cmd="echo one; read x; echo two; read x")
    wait_for_output(task, b"one\n")
    assert task.stream("stdout").read() == b"one\n"
    assert task.stream("stdout").read() == b""
    task.stream("stdin").write(b"\n")
    wait_for_output(task, b"two\n")
    assert task.stream(1).read() == b"two\n"
    assert task.stream(1).read(0) == b"one\ntwo\n"
    assert Task(pool, task.pid).stream(1).read() == b"one\ntwo\n"
    assert {id(task.stream(name)) for name in (1, "stdout")} == {id(task.stream(1))}


def test_what_is_gone_is_left_out_of_what_is_asked_for(pool: TaskPool) -> None:
    task = pool.spawn(shell("printf 0123456789"))
    assert task.wait(20)
    stdout = task.stream("stdout")
    assert stdout.discard(4) == 4
    assert (stdout.peek(0, 3), stdout.peek(0, 6), stdout.peek()) == (b"", b"45", b"456789")
    assert stdout.discard(3) == 7  # three more, not up to the third


@pytest.mark.parametrize("settings", [{}, {"max_read_buf_size": 0, "restart_limit": 0}])
def test_0_and_none_are_no_limit(pool: TaskPool, settings: dict[str, Any]) -> None:
    task = pool.spawn(shell("head -c 300000 /dev/zero"), restart="always", restart_backoff=0, **settings)
    wait_for(lambda: task.stream(1).limit >= 900_000)
    task.terminate_supervisor()
    assert task.stream(1).start == 0
    assert len(task.stream(1).read()) >= 900_000


def test_what_has_been_read_need_not_be_kept(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo one"), retain_output=0)
    assert task.wait(20)
    assert task.stream(1).read() == b"one\n"
    assert (task.stream(1).start, task.stream(1).read(0)) == (4, b"")


@pytest.mark.parametrize("seconds", [30 * 86_400, 1e9])
def test_a_wait_of_any_length(pool: TaskPool, seconds: float) -> None:
    """Longer than what a poll can count, which is 24.8 days."""
    task = pool.spawn(CAT, linger=seconds, grace=seconds, restart="on-failure", restart_backoff=seconds)
    follower = task.stream(1).follow(timeout=seconds)
    assert task.stream(0).write(b"x" * MB, timeout=seconds) == MB
    assert len(next(follower))
    task.stream(0).close()
    assert sum(map(len, follower)) < MB
    status = task.wait(seconds)
    assert status is not None
    assert status["exit_code"] == 0


def test_a_timeout_of_0_does_not_wait(pool: TaskPool) -> None:
    task = pool.spawn(CAT)
    assert task.wait(0) is None
    assert list(task.stream(1).follow(timeout=0)) == []
    task.stream(0).write(b"x")
    wait_for_output(task, b"x")
    assert list(task.stream(1).follow(timeout=0)) == [b"x"]
    task.kill("STOP")
    assert 0 < task.stream(0).write(bytes(MB), timeout=0) < MB
    assert task.stream(0).write(b"x", timeout=0) == 0


@pytest.mark.parametrize("bad", [4, -1, "out", None, True, 1.0])
def test_what_is_no_stream(pool: TaskPool, bad: Any) -> None:
    with pytest.raises(ValueError, match="stream must be one of 0 or 'stdin'"):
        Task(pool, 1).stream(bad)


def test_what_a_stream_cannot_do(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    for call, text in (
        (lambda: task.stream(0).read(), "stdin is written to, not read"),
        (lambda: task.stream(0).discard(), "stdin is not kept"),
        (lambda: task.stream(1).write(b"x"), "stdout is read, not written to"),
        (lambda: task.stream("data").write(b""), "a message must have from 1 to 131072 bytes, not 0"),
        (lambda: task.stream("data").write(bytes(131_073)), "a message must have from 1 to 131072 bytes"),
        (lambda: task.stream(1).read(-1), "ofs must be an int from 0"),
        (lambda: task.stream(1).read(0, -1), "count must be an int from 0"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


def test_follow_gives_output_as_it_comes(pool: TaskPool) -> None:
    task = pool.spawn(python("import os\nwhile b := os.read(0, 99): os.write(1, b.upper())"))
    stdin = task.stream(0)
    stdin.write(b"one")
    got = []
    for chunk in task.stream(1).follow():
        got.append(chunk)
        if len(got) == 3:
            stdin.close()
        else:
            stdin.write(b"more")
    assert b"".join(got) == b"ONEMOREMORE"


def test_follow_takes_what_there_is_in_pieces(pool: TaskPool) -> None:
    task = pool.spawn(shell("head -c 5000000 /dev/zero; echo end"))
    assert task.wait(20)
    stream = task.stream("stdout")
    chunks = []
    for chunk in stream.follow():
        chunks.append(chunk)
        assert stream.position == sum(map(len, chunks))
    assert max(map(len, chunks)) <= 1 << 20
    assert b"".join(chunks) == bytes(5_000_000) + b"end\n"


def test_follow_sleeps_between_two_pieces(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = pool.spawn(CAT)
    looks = 0
    read = task._contact.record.reader

    def count(stream: int) -> Any:
        nonlocal looks
        looks += 1
        return read(stream)

    monkeypatch.setattr(task._contact.record, "reader", count)
    assert list(task.stream(1).follow(timeout=0.5)) == []
    assert looks < 10
    task.stream(0).write(b"x")
    assert next(task.stream(1).follow()) == b"x"


def test_follow_goes_on_over_restarts_and_ends_with_the_supervisor(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo x; sleep 0.01"), restart="always", restart_backoff=0)
    got = b""
    for chunk in task.stream(1).follow():
        got += chunk
        if got.count(b"x\n") == 5:
            task.terminate_supervisor()
    assert got.startswith(b"x\n" * 5)


def size_of(path: Path) -> int:
    """Of a file that may be gone by now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_with_a_cap_only_the_newest_bytes_stay(pool: TaskPool, request: pytest.FixtureRequest) -> None:
    """The supervisor's memory stays flat, the disk bounded, and the command is not held up."""
    size = 1 << 30 if request.config.getoption("--long") else 1 << 27
    cap = 1 << 20
    task = pool.spawn(python(f"import os\nb = bytes(range(256)) * 256\nfor _ in range({size} >> 16): os.write(1, b)"),
                      max_read_buf_size=cap)  # fmt: skip
    before = uss(task.pid)
    disk = 0
    while task.wait(0.05) is None:
        disk = max(disk, sum(map(size_of, Path(task._contact.record.folder).glob("stdout*"))))
        assert uss(task.pid) < before + MB
    stdout = task.stream(1)
    assert (stdout.start, stdout.limit) == (size - cap, size)
    assert stdout.read() == bytes(range(256)) * (cap // 256)
    assert stdout.read(0, 1000) == b""
    assert disk < 2 * cap + MB
    elapsed = task.info(fresh=True)["times"]["elapsed"]
    assert size / elapsed > 20 * MB  # a tenth of what is promised: the machine may be busy


def test_stdin_waits_for_a_command_that_reads_slowly(pool: TaskPool, request: pytest.FixtureRequest) -> None:
    size = 100 * MB if request.config.getoption("--long") else 20 * MB
    slow = "import os, sys, time\nn = 0\nwhile b := os.read(0, 1 << 20):\n n += len(b)\n time.sleep(1e-5)\nprint(n)"
    task = pool.spawn(python(slow))
    task.kill("STOP")
    stdin = task.stream(0)
    taken = stdin.write(bytes(MB), timeout=0.1)
    assert 0 < taken < MB  # what a pipe holds
    assert stdin.write(b"x", timeout=0) == 0
    before = uss(task.pid)
    task.kill("CONT")
    assert stdin.write(bytes(size - taken)) == size - taken
    assert uss(task.pid) < before + MB
    stdin.close()
    task.wait(60)
    assert int(task.stream(1).read()) == size


def try_to_write(task: Task, failed: list[BaseException]) -> None:
    try:
        task.stream(0).write(bytes(100_000))
    except StreamClosed as error:
        failed.append(error)


def test_what_is_under_way_is_delivered_or_dropped_on_close(pool: TaskPool) -> None:
    for immediate in (False, True):
        task = pool.spawn(python("import sys; sys.stdin.buffer.readline(); print(len(sys.stdin.buffer.read()))"))
        stdin = task.stream(0)
        filled = stdin.write(b"\n" + bytes(MB), timeout=0.2)
        failed: list[BaseException] = []

        task.kill("STOP")
        writer = threading.Thread(target=try_to_write, args=(task, failed))
        writer.start()
        wait_for_info(task, lambda info: info["clients"] >= 2)
        time.sleep(0.05)
        stdin.close(immediate)
        task.kill("CONT")
        writer.join()
        task.wait(20)
        assert bool(failed) is immediate
        got = int(task.stream(1).read()) - (filled - 1)
        assert got < 100_000 if immediate else got == 100_000  # a part of it may have been in the pipe already


def test_a_closed_stdout_is_a_broken_pipe(pool: TaskPool) -> None:
    task = pool.spawn(["yes"], max_read_buf_size=100_000)
    wait_for(lambda: task.stream(1).limit)
    task.stream(1).close()
    status = task.wait(20)
    assert status is not None
    assert status["signal"] == 13


def test_what_was_read_is_given_up(pool: TaskPool) -> None:
    task = pool.spawn(shell("head -c 300000 /dev/zero"), retain_output=1000)
    task.wait(20)
    one, other = task.stream(1), Task(pool, task.pid).stream(1)
    assert len(one.peek()) == 300_000
    assert len(one.read(count=200_000)) == 200_000
    assert (one.start, other.start) == (199_000, 199_000)
    assert len(other.read()) == 101_000
    assert one.start == 299_000
    assert len(one.read()) == 100_000 - 99_000  # the other was quicker
    assert one.position == 300_000


def test_discarded_output_is_gone_for_all(pool: TaskPool) -> None:
    task = pool.spawn(shell("printf 0123456789; read x; printf abc"))
    wait_for_output(task, b"9")
    stdout, other = task.stream(1), Task(pool, task.pid).stream(1)
    assert stdout.discard(4) == 4
    assert (other.read(), other.read(2, 5)) == (b"456789", b"456")
    assert stdout.discard() == 10
    task.stream(0).write(b"\n")
    task.wait(20)
    assert (stdout.start, stdout.read()) == (10, b"abc")
    task.terminate_supervisor()
    assert (stdout.start, stdout.read(0)) == (10, b"abc")
    with pytest.raises(TaskGone):
        stdout.discard()


def read_all(path: str, pid: int, out: str) -> None:
    with open(out, "wb") as file:
        file.writelines(Task(TaskPool(path), pid).stream(1).follow())


def test_two_processes_read_one_stream(pool: TaskPool, tmp_path: Path) -> None:
    task = pool.spawn(python("import os\nos.read(0, 1)\nfor n in range(3000): os.write(1, b'%d\\n' % n * 20)"))
    fork = multiprocessing.get_context("fork")
    paths = [str(tmp_path / name) for name in ("one", "two")]
    readers = [fork.Process(target=read_all, args=(pool.path, task.pid, path)) for path in paths]
    for reader in readers:
        reader.start()
    task.stream(0).write(b"x")
    for reader in readers:
        reader.join()
    expected = b"".join(b"%d\n" % n * 20 for n in range(3000))
    assert [Path(path).read_bytes() for path in paths] == [expected, expected]


ECHO = """
from bossworker.tasks import current
task = current()
task.send("ready")
while (message := task.receive()) is not None:
    if message == b"end":
        break
    task.apply_meta(last=message.decode())
    task.send(message.upper())
task.stream("data").write(str(task.info()["meta"]["last"]))
print(task.pid, task.id)
"""


def test_messages_go_both_ways(pool: TaskPool) -> None:
    task = pool.spawn(python(ECHO), env={"PYTHONPATH": str(Path(__file__).parents[2])})
    data = task.stream("data")
    messages = data.follow()
    assert next(messages) == b"ready"
    for message in (b"one", b"x" * 131_072):
        assert data.write(message) == len(message)
        assert next(messages) == message.upper()
    assert task.info(fresh=True)["meta"] == {"last": "x" * 131_072}
    data.write(b"three")
    data.write("end")
    assert list(messages) == [b"THREE", b"three"]
    task.wait(20)
    assert task.stream(3).read() == []
    assert task.stream(3).read(0) == [b"ready", b"ONE", b"X" * 131_072, b"THREE", b"three"]
    assert task.stream("data").read(1, 1) == [b"ONE"]
    assert list(Task(pool, task.pid).stream("data"))[3:] == [b"THREE", b"three"]
    assert data.limit == 5
    assert task.stream(1).read() == f"{task.pid} {task.id}\n".encode()
    with pytest.raises(StreamClosed):
        data.write(b"nobody")


def test_any_program_can_use_the_descriptor(pool: TaskPool) -> None:
    task = pool.spawn(shell('echo "to all" >&$BOSSWORKER_TASK_FD; dd bs=131072 count=1 <&3 2>/dev/null'))
    task.stream("data").write(b"fine\n")
    task.wait(20)
    assert task.stream("data").read() == [b"to all\n"]
    assert task.stream(1).read() == b"fine\n"


def test_the_task_we_are_not() -> None:
    assert current() is None


def test_a_child_of_a_task_has_no_descriptor(pool: TaskPool) -> None:
    program = """
import subprocess, sys
text = "from bossworker.tasks import current; task = current(); task.apply_meta(child=1); task.send('x')"
print(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True).stderr)
"""
    task = pool.spawn(python(program), env={"PYTHONPATH": str(Path(__file__).parents[2])})
    task.wait(20)
    assert b"this process has no descriptor for messages" in task.stream(1).read()
    assert task.info(fresh=True)["meta"] == {"child": 1}


def test_a_task_that_daemonises_itself_away(pool: TaskPool) -> None:
    """The command has ended; what it left behind is still the supervisor's, and its output still comes."""
    program = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
print(os.getpid(), flush=True)
os.read(0, 1)
time.sleep(3600)
"""
    task = pool.spawn(python(program))
    status = task.wait(20)
    assert status is not None
    assert status["exit_code"] == 0
    wait_for(lambda: task.stream(1).peek())
    daemon = int(task.stream(1).read())
    assert alive(daemon)
    assert not task.stream(1).ended
    task.terminate_supervisor()
    assert not alive(daemon)
