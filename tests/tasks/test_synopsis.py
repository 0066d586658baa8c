"""The manuals' synopses, as Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bossworker.tasks import Task, TaskPool, current, search, spawn
from tests.conftest import wait_for
from tests.tasks.programs import python, wait_for_info

PROJECT = str(Path(__file__).parents[2])

FOO = """
import os, sys
from bossworker.tasks import current
task = current()
task.apply_meta({"name": "Hello World", "target": sys.argv[1], "purpose": "World Domination"})
task.send("a datagram")
task.send("another")
os.write(1, b"Hello World, this is a line of output")
os.write(2, b"Hello World")
lines = sys.stdin.readlines()
task.apply_meta(lines=len(lines))
"""


@pytest.fixture
def default_pool(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> TaskPool:
    monkeypatch.setenv("BOSSWORKER_TASKS", pool.path)
    return pool


def test_of_the_task(default_pool: TaskPool) -> None:
    task = spawn(
        python(FOO, "/tmp/bar.txt"),
        env={"DEBUG_STUFF": "1", "PYTHONPATH": PROJECT},
        meta={"name": "Hello", "my_data": {"x": "y"}},
        retain_output=1_000_000,  # even after it has been read
    )
    wait_for_info(task, lambda info: "purpose" in info["meta"] and info["streams"]["stderr"]["limit"] == 11)

    running = search({"status": {"running": True}})
    assert running == [task]
    for one in running:
        one.pause()
        one.apply_meta(note=f"paused by {os.getpid()}")

    task = Task(running[0].pid)
    stdout, stderr = task.stream(1), task.stream(2)
    assert f"Bytes {stdout.start} - {stdout.limit} available on stdout" == "Bytes 0 - 37 available on stdout"
    assert f"Bytes {stderr.start} - {stderr.limit} available on stderr" == "Bytes 0 - 11 available on stderr"

    datagrams = task.stream("data").read()  # all messages there are
    assert datagrams == [b"a datagram", b"another"]
    assert task.stream("stdout").read() == b"Hello World, this is a line of output"
    assert task.stream("stdout").read(12, 35 - 12) == b" this is a line of outp"[:23]  # bytes 12 to 34

    task.resume()
    task.stream("stdin").write("one\ntwo\n")
    task.stream("stdin").close()
    status = task.wait(20)
    assert status is not None
    assert status["exit_code"] == 0
    assert task.info(fresh=True)["meta"] == {
        "name": "Hello World", "my_data": {"x": "y"}, "target": "/tmp/bar.txt", "purpose": "World Domination",
        "note": f"paused by {os.getpid()}", "lines": 2,
    }  # fmt: skip
    assert current() is None  # this program is no task
    task.delete()


def test_of_the_pool(tmp_path: Path) -> None:
    pool = TaskPool(tmp_path / "foo", mkdir_if_missing=(0o755, None, None))
    task = pool.spawn(cmd="while sleep 0.05; do date; done", lockfile=tmp_path / "countdate.lock", meta={"name": "foo"})
    print(task.info())
    tasks = pool.search({"meta": {"name": "foo"}})
    for one in tasks:
        one.kill("INT")
    wait_for(lambda: not task.info(fresh=True)["status"]["running"])
    for one in tasks:
        one.terminate_supervisor()
    assert os.stat(pool.path).st_mode & 0o777 == 0o755
    assert pool.search({"status": {"running": True}}) == []
    for one in tasks:
        one.delete()
    assert os.listdir(pool.path) == []
